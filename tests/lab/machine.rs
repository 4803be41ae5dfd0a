//! The namespaces of a test's machine, and Nix in them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

const CLOSURES: &str = include_str!("../data/closures.nix");
const ODD: &str = include_str!("../data/odd.nix");

/// One machine. Dropping it ends every process in it.
pub struct Lab {
    pub dir: tempfile::TempDir,
    anchor: Child,
    /// Pid 1 of the machine, as the test sees it.
    init: u32,
    chrooted: bool,
    /// It has a network of its own.
    networked: bool,
}

impl Lab {
    /// With the Nix of this machine, or of the root in `NIX_CSI_TEST_ROOT`.
    pub fn new() -> Result<Self, String> {
        Self::start(false)
    }

    pub(super) fn start(networked: bool) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("needs root".to_owned());
        }
        let root = std::env::var_os("NIX_CSI_TEST_ROOT").filter(|root| !root.is_empty());
        if root.is_none() && Command::new("nix").arg("--version").output().is_err() {
            return Err("Nix is not installed: scripts/install-nix.sh does it".to_owned());
        }
        let dir = tempfile::Builder::new().prefix("nix-csi-lab").tempdir().unwrap();
        for sub in ["nix", "run", "targets"] {
            fs::create_dir(dir.path().join(sub)).unwrap();
        }
        let binaries = node_binary().parent().unwrap().to_owned();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/anchor.sh");
        let mut anchor = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"])
            .args(networked.then_some("--net"))
            .args(["--", "bash"])
            .args([&script, dir.path(), &binaries])
            .args(root.as_deref())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let ready = dir.path().join("ready");
        wait_for("the machine", || {
            assert!(anchor.try_wait().unwrap().is_none(), "the machine did not start");
            ready.try_exists().unwrap()
        });
        let children = format!("/proc/{0}/task/{0}/children", anchor.id());
        let init = fs::read_to_string(children).unwrap().trim().parse().unwrap();
        Ok(Self { dir, anchor, init, chrooted: root.is_some(), networked })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A directory for targets; its children are made by the driver.
    pub fn target(&self, name: &str) -> PathBuf {
        self.path("targets").join(name)
    }

    /// A command inside the machine.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init.to_string(), "--mount", "--pid"]);
        if self.networked {
            command.arg("--net");
        }
        if self.chrooted {
            command.args(["--root", "--wd"]);
        }
        // The caller's settings must not decide what a test sees.
        command.arg("--").arg("env").args(["-u", "NIX_PATH", "-u", "NIX_REMOTE", "HOME=/nix"]);
        command.arg(program).stdin(Stdio::null());
        command
    }

    pub fn run(&self, program: &str, args: &[&str]) -> Output {
        self.command(program).args(args).output().unwrap()
    }

    /// The standard output of a command that must succeed.
    pub fn ok(&self, program: &str, args: &[&str]) -> String {
        let output = self.run(program, args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(super) fn init(&self) -> u32 {
        self.init
    }

    /// Pid of who has the machine's own network, if it has one.
    pub(super) fn network(&self) -> Option<u32> {
        self.networked.then_some(self.init)
    }

    /// Runs a closure of the test in the machine's mount namespace, on a thread of its own.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let root = fs::File::open(format!("/proc/{}/root", self.init)).unwrap();
        let namespace = fs::File::open(format!("/proc/{}/ns/mnt", self.init)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                #[allow(unsafe_code, reason = "FS only: no file descriptor is unshared")]
                unsafe {
                    rustix::thread::unshare_unsafe(UnshareFlags::FS).unwrap();
                }
                rustix::thread::move_into_link_name_space(
                    namespace.as_fd(),
                    Some(LinkNameSpaceType::Mount),
                )
                .unwrap();
                rustix::process::fchdir(&root).unwrap();
                rustix::process::chroot(".").unwrap();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Builds a closure of `tests/data/closures.nix` without a node, and keeps it from collectors by a
    /// root; `args` are its arguments, such as `["--arg", "paths", "60"]`.
    pub fn closure(&self, args: &[&str]) -> String {
        self.build(CLOSURES, args)
    }

    /// The closure of odd shapes, `tests/data/odd.nix`.
    pub fn odd(&self) -> String {
        self.build(ODD, &[])
    }

    /// The same closure without a root: the next collection takes it.
    pub fn unrooted(&self, args: &[&str]) -> String {
        self.try_unrooted(args).unwrap_or_else(|stderr| panic!("nix-build {args:?}: {stderr}"))
    }

    /// The same, or what Nix said.
    pub fn try_unrooted(&self, args: &[&str]) -> Result<String, String> {
        let mut all = vec!["--no-out-link"];
        all.extend(args);
        self.evaluate(CLOSURES, &all)
    }

    fn build(&self, expression: &str, args: &[&str]) -> String {
        let root = self.path(&format!("root-{}", unique()));
        let mut all = vec!["--out-link", root.to_str().unwrap()];
        all.extend(args);
        let built = self.evaluate(expression, &all);
        built.unwrap_or_else(|stderr| panic!("nix-build {args:?}: {stderr}"))
    }

    fn evaluate(&self, expression: &str, args: &[&str]) -> Result<String, String> {
        let mut all = vec!["--option", "sandbox", "false", "--option", "substituters", ""];
        all.extend(args);
        all.extend(["-E", expression]);
        let output = self.run("nix-build", &all);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
    }

    /// The machine's `/proc`, as the test sees it.
    pub fn proc(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root/proc", self.init))
    }

    /// Processes of the machine as `<pid> <state> <arguments>`, without its pid 1 and that one's
    /// sleep. Read from its `/proc`: not every root has a ps.
    pub fn processes(&self) -> Vec<String> {
        let proc = self.proc();
        let pids = fs::read_dir(&proc).unwrap().filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.parse::<u32>().ok().filter(|pid| *pid != 1)
        });
        let line = |pid: u32| {
            let dir = proc.join(pid.to_string());
            // It may have ended since.
            let stat = fs::read_to_string(dir.join("stat")).ok()?;
            let arguments = fs::read_to_string(dir.join("cmdline")).ok()?.replace('\0', " ");
            let (name, rest) = stat.split_once(" (")?.1.rsplit_once(") ")?;
            let what = if arguments.is_empty() { format!("[{name}]") } else { arguments };
            Some(format!("{pid} {} {}", &rest[..1], what.trim_end()))
        };
        pids.filter_map(line).filter(|line| !line.ends_with("sleep 1000")).collect()
    }

    /// `kill -9` of one of them, by this machine's own program: not every root has one.
    pub fn kill(&self, pid: &str) {
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["-t", &self.init.to_string(), "--pid", "--", "kill", "-9", pid]);
        assert!(nsenter.status().unwrap().success(), "kill {pid}");
    }

    /// Mount points below a directory of the machine.
    pub fn mounts_below(&self, dir: &Path) -> Vec<String> {
        let point = |line: &String| line.split(' ').nth(4).unwrap().to_owned();
        self.mount_lines_below(dir).iter().map(point).collect()
    }

    /// The same as lines of mountinfo: with the mounts' ids and options.
    pub fn mount_lines_below(&self, dir: &Path) -> Vec<String> {
        let prefix = format!("{}/", dir.display());
        let table = fs::read_to_string(format!("/proc/{}/mountinfo", self.init)).unwrap();
        let below = |line: &&str| line.split(' ').nth(4).unwrap().starts_with(&prefix);
        table.lines().filter(below).map(str::to_owned).collect()
    }

    /// Names in a directory of the machine; none if it isn't there.
    pub fn names(&self, dir: &str) -> Vec<String> {
        let output = self.run("ls", &["-A", dir]);
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // `--kill-child` ends pid 1, and with it the machine.
        let _ = self.anchor.kill();
        let _ = self.anchor.wait();
        let gone = format!("/proc/{}", self.init);
        wait_for("the machine's end", || {
            let stat = fs::read_to_string(format!("{gone}/stat"));
            stat.map_or(true, |s| s.contains(") Z "))
        });
    }
}

/// Connects to an address in the network of that process.
fn connect(network: Option<u32>, address: &str) -> std::io::Result<TcpStream> {
    let Some(pid) = network else {
        return TcpStream::connect(address);
    };
    let namespace = fs::File::open(format!("/proc/{pid}/ns/net"))?;
    // A thread of its own, which alone changes its namespace.
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let network = Some(LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), network)?;
            TcpStream::connect(address)
        });
        thread.join().unwrap()
    })
}

/// Head and body of an HTTP answer from there.
pub fn http_get(network: Option<u32>, address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = connect(network, address)?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Signals the program that [`Lab::command`] has started as `child`.
pub fn signal_inside(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid_inside(child)).unwrap();
    let _ = rustix::process::kill_process(pid, signal);
}

/// That program's pid, as this machine sees it.
pub fn pid_inside(child: &Child) -> i32 {
    // nsenter has become the program, or waits for it as its one child.
    let pid = i32::try_from(child.id()).unwrap();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let child = children.ok().and_then(|c| c.split_whitespace().next()?.parse().ok());
    child.unwrap_or(pid)
}

/// The binary under test.
pub fn node_binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_nix-csi"))
}

/// Polls until `done`; a test that waits in vain fails by name.
pub fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

pub fn unique() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}
