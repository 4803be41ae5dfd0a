//! `nix-csi cache` in a machine, and keys for those who use it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use super::Lab;
use super::machine::{http_get, node_binary, signal_inside, wait_for};

/// A running cache. Dropping it kills it; its machine stays.
pub struct CacheRole<'l> {
    lab: &'l Lab,
    child: Child,
    log: PathBuf,
}

const HTTP: &str = "127.0.0.1:9809";

impl Lab {
    /// A cache that is ready. Who may log in: [`Lab::authorize`].
    pub fn cache_role(&self, extra: &[&str]) -> CacheRole<'_> {
        let cache = self.starting_cache_role(extra);
        wait_for("the cache to be ready", || cache.get("/readyz").contains("200 OK"));
        cache
    }

    pub fn starting_cache_role(&self, extra: &[&str]) -> CacheRole<'_> {
        let log = self.path("cache.log");
        let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&log).unwrap();
        fs::create_dir_all(self.path("keys")).unwrap();
        let child = self
            .command(node_binary())
            .arg("cache")
            .args([Path::new("--run-dir"), Path::new("/nix/var/run")])
            .args([Path::new("--authorized-keys"), &self.path("keys")])
            .args(["--http", HTTP])
            .args(["--nix-option", "sandbox=false", "--nix-option", "substituters="])
            .args(extra)
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        CacheRole { lab: self, child, log }
    }

    /// Makes a key pair `name` and returns the private half's path.
    pub fn ssh_key(&self, name: &str) -> PathBuf {
        let key = self.path(name);
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&key);
        assert!(keygen.status().unwrap().success());
        key
    }

    /// Lets a key's owner log in, or replaces whom `name` was before.
    pub fn authorize(&self, name: &str, key: &Path) {
        fs::create_dir_all(self.path("keys")).unwrap();
        let public = fs::read(key.with_extension("pub")).unwrap();
        let staged = self.path("staged-key");
        fs::write(&staged, public).unwrap();
        fs::rename(staged, self.path("keys").join(format!("{name}.pub"))).unwrap();
    }

    /// A Nix signing key `name`: the private half's path, and the public half.
    pub fn signing_key(&self, name: &str) -> (PathBuf, String) {
        let secret = self.ok(
            "nix",
            &[
                "--extra-experimental-features",
                "nix-command",
                "key",
                "generate-secret",
                "--key-name",
                name,
            ],
        );
        let path = self.path(&format!("{name}.secret"));
        let mut options = fs::OpenOptions::new();
        let mut file = options.create_new(true).write(true).mode(0o600).open(&path).unwrap();
        file.write_all(secret.as_bytes()).unwrap();
        let script =
            "nix --extra-experimental-features nix-command key convert-secret-to-public < $0";
        let public = self.ok("sh", &["-c", script, path.to_str().unwrap()]);
        (path, public)
    }

    /// What an ssh client in this machine makes of a host.
    pub fn ssh(&self, key: &Path, known_hosts: &Path, args: &[&str]) -> Output {
        let mut command = self.command("timeout");
        command.args(["30", "ssh", "-F", "none", "-o", "BatchMode=yes", "-i"]).arg(key);
        command.args(["-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes"]);
        command.arg("-o").arg(format!("UserKnownHostsFile={}", known_hosts.display()));
        command.args(args).output().unwrap()
    }
}

impl CacheRole<'_> {
    /// Head and body of an answer, or why there is none.
    pub fn get(&self, path: &str) -> String {
        http_get(self.lab.network(), HTTP, path).unwrap_or_else(|error| error.to_string())
    }

    /// Where it serves HTTP: who has that network, and the address there.
    pub fn serves(&self) -> (Option<u32>, String) {
        (self.lab.network(), HTTP.to_owned())
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// A known-hosts file in which the cache has this address.
    pub fn known_hosts(&self, address: &str, file: PathBuf) -> PathBuf {
        let key = self.lab.inside(|| fs::read_to_string("/nix/var/nix-csi/ssh/host_ed25519.pub"));
        fs::write(&file, format!("{address} {}", key.unwrap())).unwrap();
        file
    }

    /// SIGTERM; the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap().code()
    }

    /// `kill -9`, and the end of it.
    pub fn kill(mut self) {
        self.signal(rustix::process::Signal::KILL);
        self.child.wait().unwrap();
    }

    fn signal(&self, signal: rustix::process::Signal) {
        signal_inside(&self.child, signal);
    }
}

impl Drop for CacheRole<'_> {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal(rustix::process::Signal::KILL);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("log of the cache:\n{}", self.log());
        }
    }
}
