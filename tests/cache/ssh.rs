//! What a key that may log in at the cache can do, and what it can't.

use crate::lab::{self, Lab, Network, eventually};

/// The cache, and a laptop with a key.
fn hosts() -> Result<(Network, Lab, Lab), String> {
    let network = Network::new()?;
    let (cache, laptop) = (network.host(1)?, network.host(2)?);
    Ok((network, cache, laptop))
}

#[test]
fn a_key_gives_the_nix_protocol_and_nothing_else() {
    let (_network, cache, laptop) = match hosts() {
        Ok(hosts) => hosts,
        Err(reason) => return lab::skipped(module_path!(), &reason),
    };
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
