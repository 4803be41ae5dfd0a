//! What a key that may log in at the cache can do, and what it can't.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::lab::{Lab, Network, eventually};
use crate::or_skip;

/// The cache's machine, and another: a laptop's or a node's.
pub(crate) fn pair() -> Result<(Network, Lab, Lab), String> {
    let network = Network::new()?;
    let (cache, other) = (network.host(1)?, network.host(2)?);
    Ok((network, cache, other))
}

#[test]
fn a_key_gives_the_nix_protocol_and_nothing_else() {
    let (_network, cache, laptop) = or_skip!(pair());
    let key = laptop.ssh_key("laptop");
    cache.authorize("laptop", &key);
    let mut role = cache.cache_role(&[]);
    let known = role.known_hosts(&Network::address(1), laptop.path("known_hosts"));
    let to = format!("nix@{}", Network::address(1));
    let ssh = |args: &[&str]| {
        let output = laptop.ssh(&key, &known, args);
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };

    // Whatever is asked for, it is the daemon that answers, and it ends with its input.
    for command in [&["id"][..], &["cat", "/etc/passwd"], &["-tt", "id"], &[]] {
        let (_, out, err) = ssh(&[&[&*to], command].concat());
        assert!(!out.contains("uid=") && !out.contains("root:"), "{command:?}: {out} {err}");
    }
    let (code, out, err) =
        ssh(&["-N", "-o", "ExitOnForwardFailure=yes", "-R", "9999:127.0.0.1:22", &to]);
    assert!(code != Some(0), "{out} {err}");
    let (_, out, _) = ssh(&["-W", "127.0.0.1:9809", &to]);
    assert!(!out.contains("HTTP"), "{out}");
    let (code, _, _) = ssh(&["-s", &to, "sftp"]);
    assert!(code != Some(0));
    let root = format!("root@{}", Network::address(1));
    let (code, _, err) = ssh(&[&root, "id"]);
    assert!(code == Some(255) && err.contains("Permission denied"), "{err}");

    // Without the key, or with another one.
    let other = laptop.ssh_key("other");
    let refused = laptop.ssh(&other, &known, &[&to, "id"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied"));
    // It may, as soon as its owner is written down; and no longer when not.
    cache.authorize("laptop", &other);
    eventually("the other key to be let in", || {
        let output = laptop.ssh(&other, &known, &[&to, "id"]);
        !String::from_utf8_lossy(&output.stderr).contains("Permission denied")
    });
    let refused = laptop.ssh(&key, &known, &[&to, "id"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("Permission denied"));

    assert_eq!(role.stop(), Some(0));
    assert_eq!(cache.processes(), Vec::<String>::new());
}

/// `nix` in a machine, with an ssh identity.
fn nix(lab: &Lab, key: &Path, known: &Path, args: &[&str]) -> Result<String, String> {
    let options = format!(
        "-F none -i {} -o IdentitiesOnly=yes -o UserKnownHostsFile={} -o BatchMode=yes",
        key.display(),
        known.display()
    );
    let mut command = lab.command("env");
    command.arg(format!("NIX_SSHOPTS={options}"));
    command.args(["timeout", "60", "nix", "--extra-experimental-features", "nix-command"]);
    let output = command.args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// 2.8, and newer versions.
fn lacks_signature(error: &str) -> bool {
    ["lacks a valid signature", "lacks a signature by a trusted key"]
        .iter()
        .any(|s| error.contains(s))
}

#[test]
fn only_what_a_trusted_key_has_signed_gets_in() {
    let (_network, cache, laptop) = or_skip!(pair());
    let key = laptop.ssh_key("laptop");
    cache.authorize("laptop", &key);
    let (secret, public) = laptop.signing_key("node-1");
    let role = cache.cache_role(&["--trusted-public-key", &public]);
    let known = role.known_hosts(&Network::address(1), laptop.path("known_hosts"));
    let store = format!("ssh-ng://nix@{}", Network::address(1));
    let nix = |args: &[&str]| nix(&laptop, &key, &known, args);

    let path = laptop.closure(&["--argstr", "seed", "signed"]);
    let has_it = || cache.run("nix-store", &["--check-validity", &path]).status.success();
    for arguments in
        [&["copy", "--to", &store, &path][..], &["copy", "--no-check-sigs", "--to", &store, &path]]
    {
        let refused = nix(arguments).unwrap_err();
        assert!(lacks_signature(&refused), "{refused}");
    }
    // A key of one's own, or a setting of the trusted, is not the cache's.
    let (mine, mine_public) = laptop.signing_key("mine");
    nix(&["store", "sign", "-r", "-k", mine.to_str().unwrap(), &path]).unwrap();
    let trust = ["--option", "trusted-public-keys", &mine_public];
    let require = ["--option", "require-sigs", "false"];
    let all = [&trust[..], &require, &["copy", "--to", &store, &path]].concat();
    assert!(lacks_signature(&nix(&all).unwrap_err()));
    assert!(!has_it());

    nix(&["store", "sign", "-r", "-k", secret.to_str().unwrap(), &path]).unwrap();
    nix(&["copy", "--to", &store, &path]).unwrap();
    assert!(has_it());
}

/// A socket in the machine behind which the far daemon is, over ssh. A client of ssh-ng stores keeps its
/// settings to itself; one of a socket sends them all.
fn relay(lab: &Lab, key: &Path, known: &Path) -> std::path::PathBuf {
    let socket = lab.path("relay.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut ssh = lab.command("ssh");
    ssh.args(["-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-i"]).arg(key);
    ssh.arg("-o").arg(format!("UserKnownHostsFile={}", known.display()));
    ssh.arg(format!("nix@{}", Network::address(1)));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (input, output) = (stream.try_clone().unwrap(), stream);
            ssh.stdin(OwnedFd::from(input)).stdout(OwnedFd::from(output));
            drop(ssh.spawn());
        }
    });
    socket
}

#[test]
fn a_laptop_builds_there_as_itself_and_runs_no_hook() {
    let (_network, cache, laptop) = or_skip!(pair());
    let key = laptop.ssh_key("laptop");
    cache.authorize("laptop", &key);
    let role = cache.cache_role(&["--local-jobs", "1"]);
    let known = role.known_hosts(&Network::address(1), laptop.path("known_hosts"));
    let store = format!("ssh-ng://nix@{}", Network::address(1));
    let nix = |args: &[&str]| nix(&laptop, &key, &known, args);

    let mark = format!("/tmp/nix-csi-hook-{}", std::process::id());
    let hook = cache.path("hook");
    std::fs::write(&hook, format!("#!/bin/sh\nid > {mark}\n")).unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let expression = "derivation { name = \"far\"; system = builtins.currentSystem; builder = \"/bin/sh\"; \
        args = [ \"-c\" \"echo $NIX_BUILD_TOP > $out\" ]; }";
    let derivation = laptop.ok("nix-instantiate", &["-E", expression]);
    nix(&["copy", "--derivation", "--to", &store, &derivation]).unwrap();
    let remote = format!("unix://{}", relay(&laptop, &key, &known).display());
    let mut build = laptop.command("env");
    build.args([&format!("NIX_REMOTE={remote}"), "nix-store", "--realise", &derivation]);
    let built = build.args(["--option", "post-build-hook", hook.to_str().unwrap()]).output();
    let built = built.unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let output = laptop.ok("nix-store", &["-q", "--outputs", &derivation]);
    cache.ok("nix-store", &["--check-validity", &output]);
    assert!(std::fs::symlink_metadata(&mark).is_err(), "a client's hook ran");
    // As docs/cache.md has it.
    let other = expression.replace("\"far\"", "\"farther\"");
    let eval = ["build", "--no-link", "--store", &store, "--eval-store", "auto", "--impure"];
    nix(&[&eval[..], &["--expr", &other]].concat()).unwrap();
    assert!(role.log().contains("Accepted publickey for nix"));
}

/// As behind a router: all nodes of a cluster may have one address.
#[test]
fn many_may_come_from_one_address_at_once() {
    let (_network, cache, laptop) = or_skip!(pair());
    let role = cache.cache_role(&[]);
    let script = format!(
        "for i in $(seq 100); do exec {{fd}}<>/dev/tcp/{}/22 || exit 1; fds=\"$fds $fd\"; done; \
         for fd in $fds; do read -r -t 20 -u $fd banner && echo \"$banner\"; done",
        Network::address(1)
    );
    let banners = laptop.ok("bash", &["-c", &script]);
    assert_eq!(banners.matches("SSH-2.0-").count(), 100, "{}", role.log());
    // OpenSSH from 9.8 on refuses addresses of which it has seen too much.
    let config = cache.inside(|| std::fs::read_to_string("/nix/var/nix-csi/ssh/sshd_config"));
    let asked =
        "/usr/sbin/sshd -T -f /nix/var/nix-csi/ssh/sshd_config | grep -i persourcepenalties";
    let penalties = cache.run("sh", &["-c", asked]);
    let penalties = String::from_utf8(penalties.stdout).unwrap().to_lowercase();
    assert!(penalties.is_empty() || penalties.trim() == "persourcepenalties no", "{penalties}");
    assert_eq!(penalties.is_empty(), !config.unwrap().contains("PerSourcePenalties"));
}

/// The cheapest cipher that an sshd has, and any of them.
#[test]
fn the_cipher_is_the_cheapest_that_both_have() {
    let (_network, cache, _laptop) = or_skip!(pair());
    let key = cache.ssh_key("host");
    let options = nix_csi::nix::ssh::SshClient::default().options();
    let chosen = |there: &str| {
        let serve = format!(
            "ProxyCommand=/usr/sbin/sshd -i -f /dev/null -o Ciphers={there} -h {}",
            key.display()
        );
        let mut ssh = cache.command("ssh");
        ssh.args(["-v", "-F", "none", "-o", &serve, "-o", "StrictHostKeyChecking=no"]);
        ssh.args(["-o", "UserKnownHostsFile=/dev/null"]).args(options.split(' '));
        let said = String::from_utf8(ssh.args(["nix@far", "true"]).output().unwrap().stderr);
        let said = said.unwrap();
        let cipher = said.split("server->client cipher: ").nth(1);
        cipher.unwrap_or_else(|| panic!("{said}")).split(' ').next().unwrap().to_owned()
    };
    std::fs::create_dir_all("/run/sshd").unwrap();
    for only in ["chacha20-poly1305@openssh.com", "aes256-gcm@openssh.com", "aes192-ctr"] {
        assert_eq!(chosen(only), only);
    }
    if options.contains("Ciphers") {
        // Of all that an sshd has by default.
        assert_eq!(chosen("+aes128-cbc"), "aes128-gcm@openssh.com");
    }
}

#[test]
fn a_child_that_dies_comes_back_and_a_cache_that_is_killed_leaves_none() {
    let (_network, cache, laptop) = or_skip!(pair());
    let key = laptop.ssh_key("laptop");
    cache.authorize("laptop", &key);
    let role = cache.cache_role(&[]);
    let known = role.known_hosts(&Network::address(1), laptop.path("known_hosts"));
    let answers = || {
        let output = laptop.ssh(&key, &known, &[&format!("nix@{}", Network::address(1))]);
        // The daemon's greeting to nobody: its worker ends with its input.
        output.status.code() != Some(255)
    };
    assert!(answers());
    for (child, program) in [("sshd", "/usr/sbin/sshd -D"), ("nix-daemon", "nix-daemon --option")] {
        let is_it = |line: &&String| line.contains(program) && !line.contains("guard");
        let all = cache.processes();
        let pid = all.iter().find(is_it).unwrap().split(' ').next().unwrap().to_owned();
        cache.kill(&pid);
        let exits = format!("nixcsi_child_exits_total{{child=\"{child}\"}} 1\n");
        eventually("the exit to be counted", || role.get("/metrics").contains(&exits));
        eventually("it to serve again", || role.get("/readyz").contains("200 OK") && answers());
        assert!(!cache.processes().iter().any(|line| line.starts_with(&format!("{pid} "))));
    }
    role.kill();
    eventually("all of it to end", || cache.processes().is_empty());
    let _role = cache.cache_role(&[]);
    assert!(answers(), "the host key is the one of before");
}
