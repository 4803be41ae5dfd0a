//! What a request leads to is a source, and never a setting of Nix's.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::planted;
use crate::world::{SANDBOXED, TOKEN, builder, publish, refusal, traces};

/// Nix takes these where somebody has once said yes to them.
#[tokio::test(flavor = "multi_thread")]
async fn a_flakes_own_settings_do_not_count() {
    let lab = planted!();
    let server = lab.cache().await;
    let (url, shown, hook) = (server.url(), lab.path("shown"), lab.path("hook"));
    let ran = lab.path("ran");
    fs::create_dir(&shown).unwrap();
    fs::write(&hook, format!("#!/bin/sh\necho ran >> {}\n", ran.display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let (tokens, _) = TOKEN.rsplit_once('/').unwrap();
    let look = builder("look", "", &format!("$b cat {TOKEN} > $out 2>&1; true"));
    let imports = format!("builtins.toFile \"x\" (builtins.readFile ({look}))");
    let flake = format!(
        "{{ nixConfig = {{
             allow-import-from-derivation = true; sandbox = false; sandbox-paths = \"{tokens}\";
             extra-sandbox-paths = [ \"{tokens}\" ]; require-sigs = false;
             substitute = true; substituters = \"{url}\"; extra-substituters = [ \"{url}\" ];
             post-build-hook = \"{hook}\"; pre-build-hook = \"{hook}\"; diff-hook = \"{hook}\";
             build-hook = \"{hook}\"; builders = \"{url}\";
           }};
           outputs = _: {{ looks = {look}; imports = {imports}; }}; }}",
        hook = hook.display()
    );
    fs::write(shown.join("flake.nix"), flake).unwrap();
    let shown = shown.to_str().unwrap();
    let node =
        lab.node(&[SANDBOXED, &["--eval-path", shown, "--allow-local-flakes"]].concat()).await;

    let text = refusal(&lab, &node, "flakeRef", &format!("path:{shown}#imports")).await;
    assert!(text.contains("import-from-derivation is off on this node"), "{text}");
    let volume = publish(&lab, &node, "flakeRef", &format!("path:{shown}#looks")).await.unwrap();
    let read = lab.ok("cat", &[volume.target.join("var/result").to_str().unwrap()]);
    assert_eq!(read, format!("cat: can't open '{TOKEN}': No such file or directory"));
    assert_eq!(server.requests(), 0);
    assert!(fs::symlink_metadata(&ran).is_err(), "a hook of the flake's ran");
    assert_eq!(traces(&lab, &node), [""; 0]);
}
