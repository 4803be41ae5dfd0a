//! What is said to who asks for what can't be.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::{Host, copied, environment};
use crate::lab;
use crate::lab::closure_of;
use crate::program::run_in;

#[test]
fn a_destination_that_is_none_is_named_with_the_reason() {
    let lab = lab!();
    let environment = environment(&lab, "a");
    let [file, link, odd] = ["file", "link", "odd"].map(|name| lab.path(name));
    fs::write(&file, "").unwrap();
    symlink(lab.path("nix"), &link).unwrap();
    fs::create_dir_all(&odd).unwrap();
    symlink("/nix/store", odd.join("store")).unwrap();
    let to = |dir: &Path| {
        let said = run_in(&lab, ".", &["bootstrap", "--to", dir.to_str().unwrap(), &environment]);
        said.failure().to_owned()
    };
    let absent = "--to LAB/absent: can't look at it: No such file or directory (os error 2): mount the \
                  store there";
    assert_eq!(to(&lab.path("absent")), absent);
    assert_eq!(to(&file), "--to LAB/file: it is not a directory: mount the store there");
    assert_eq!(to(&link), "--to LAB/link: it is a symlink: name the directory itself");
    assert_eq!(to(&odd), "--to LAB/odd: store in it is a symlink: Nix takes none there");
    assert_eq!(to(Path::new("/nix")), "--to /nix: it is --from /nix: mount the store beside it");
    for usage in [&["--to", "relative"][..], &[], &["--to", "/nix", "hello"]] {
        let said = run_in(&lab, ".", &[&["bootstrap"], usage].concat());
        assert_eq!(said.code, Some(64), "{said:?}");
    }
}

#[test]
fn an_environment_that_is_not_there_is_named() {
    let lab = lab!();
    let environment = environment(&lab, "a");
    let host = Host::new(&lab, 200);
    let said = host.bootstrap(&lab, &[]);
    let expected = "/nix/var/result leads to no environment: No such file or directory (os error 2): \
                    name the environment's store path as an argument";
    assert_eq!(said.failure(), expected);
    lab.inside(|| symlink("/etc", "/nix/var/result").unwrap());
    let said = host.bootstrap(&lab, &[]);
    assert!(said.failure().starts_with("/nix/var/result leads to no environment: "), "{said:?}");
    let unknown = "/nix/store/00000000000000000000000000000000-none";
    let said = host.bootstrap(&lab, &[unknown]);
    let expected = format!("{unknown} is not registered in --from /nix: ");
    assert!(said.failure().starts_with(&expected), "{said:?}");

    // A file of it, then a whole path.
    let all = closure_of(&lab, &environment);
    let part = all.iter().find(|path| **path != environment).unwrap();
    let incomplete = format!("the closure in --from /nix is not complete: {part} is not there as");
    let hidden = format!("{part}-hidden");
    lab.inside(|| {
        fs::set_permissions(part, Permissions::from_mode(0o755)).unwrap();
        fs::write(Path::new(part).join("more"), "").unwrap();
    });
    let said = host.bootstrap(&lab, &[&environment]);
    assert!(said.failure().starts_with(&incomplete), "{said:?}");
    lab.inside(|| {
        fs::remove_file(Path::new(part).join("more")).unwrap();
        fs::rename(part, &hidden).unwrap();
    });
    let said = host.bootstrap(&lab, &[&environment]);
    assert!(said.failure().starts_with(&incomplete), "{said:?}");
    assert_eq!((host.result(&lab), host.link(&lab, "current")), (String::new(), String::new()));
    lab.inside(|| fs::rename(&hidden, part).unwrap());
    host.bootstrap(&lab, &[&environment]).success();
    host.assert_has_only(&lab, &environment);
}

#[test]
fn a_full_destination_says_how_much_there_has_to_be() {
    let lab = lab!();
    let environment = environment(&lab, "a");
    // SQLite says so in other words than Nix, which has no place for a file.
    let large = ["--arg", "paths", "2", "--arg", "files", "1", "--arg", "bytes", "40000000"];
    let large = lab.closure(&large);
    let host = Host::new(&lab, 16);
    for (environment, name) in [(&environment, "many"), (&large, "large")] {
        let host = host.store(&lab, name);
        let said = host.bootstrap(&lab, &[environment]);
        let said = said.failure();
        assert!(said.starts_with(&format!("--to LAB/host/{name}: no space left: ")), "{said}");
        assert!(
            said.ends_with("MB are free: make room, or collect garbage there (nix-csi gc)"),
            "{said}"
        );
        assert_eq!(host.result(&lab), "");
        host.assert_sound(&lab);
        lab.inside(|| fs::remove_dir_all(&host.0).unwrap());
    }

    // So full that there is no place for a store.
    let host = host.store(&lab, "none");
    let _ = lab.run("dd", &["if=/dev/zero", "bs=4k", &format!("of={}", host.at("fill").display())]);
    let said = host.bootstrap(&lab, &[&environment]);
    let said = said.failure();
    assert!(said.to_lowercase().contains("no space left"), "{said}");
}

/// As a power cut leaves it between a file and the disk, or a person.
#[test]
fn a_destination_that_is_damaged_is_not_built_upon() {
    let lab = lab!();
    let [a, b] = ["a", "b"].map(|variant| environment(&lab, variant));
    let host = Host::new(&lab, 200);
    host.bootstrap(&lab, &[&a]).success();
    let all = closure_of(&lab, &a);
    let shared = closure_of(&lab, &b).into_iter().find(|path| all.contains(path)).unwrap();
    let there = host.at(&format!("store{}", shared.strip_prefix("/nix/store").unwrap()));
    let hidden = there.with_extension("hidden");
    lab.inside(|| {
        fs::set_permissions(&there, Permissions::from_mode(0o755)).unwrap();
        fs::write(there.join("more"), "").unwrap();
    });
    let said = host.bootstrap(&lab, &[&b]);
    let expected =
        format!("--to LAB/host: {shared} is registered there, and is not what it was then");
    assert!(said.failure().starts_with(&expected), "{said:?}");
    assert_eq!(host.result(&lab), a);
    lab.inside(|| {
        fs::remove_file(there.join("more")).unwrap();
        fs::rename(&there, &hidden).unwrap();
    });
    let said = host.bootstrap(&lab, &[&a]);
    let expected = format!("--to LAB/host: {shared} is registered there, and is not there: repair");
    assert!(said.failure().starts_with(&expected), "{said:?}");
    lab.inside(|| fs::rename(&hidden, &there).unwrap());
    assert_eq!(host.bootstrap(&lab, &[&b]).success(), copied(&b, 3));
}
