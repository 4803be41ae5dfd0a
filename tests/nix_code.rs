//! The Nix code, evaluated against a stand-in for nixpkgs (`tests/data/nix-code`): what it asks nixpkgs for. Nothing
//! is built.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

use clap::CommandFactory;
use nix_csi::config::Cli;
use serde_json::{Value, json};

const ALL: &str = "import ./default.nix { pkgs = import ./tests/data/nix-code/pkgs.nix { }; }";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `nix-instantiate` says, or its error; nothing, and a visible skip, on a machine without Nix.
#[expect(clippy::explicit_write, reason = "the harness captures eprintln")]
fn nix(args: &[&str]) -> Option<Result<String, String>> {
    let mut command = Command::new("nix-instantiate");
    match command.args(["--store", "dummy://"]).args(args).current_dir(root()).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            writeln!(io::stderr(), "SKIPPED {}: no nix-instantiate", module_path!()).unwrap();
            assert!(env::var_os("CI").is_none(), "skipped in CI: no nix-instantiate");
            None
        }
        out => {
            let out = out.unwrap();
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            Some(if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) })
        }
    }
}

fn evaluated(expression: &str) -> Option<Result<Value, String>> {
    let said = nix(&["--eval", "--strict", "--json", "-E", expression])?;
    Some(said.map(|text| serde_json::from_str(&text).unwrap()))
}

/// The unit that the NixOS module makes of these options.
fn unit(settings: &str) -> Option<Result<Value, String>> {
    let module = "import ./tests/data/nix-code/module.nix";
    evaluated(&format!("{module} {{ settings = {{ {settings} }}; }}"))
}

/// Every attribute of what default.nix has, of derivations too.
fn everything() -> Option<Value> {
    let bare = "builtins.mapAttrs (_: made: builtins.removeAttrs made [ \"outPath\" ])";
    Some(evaluated(&format!("{bare} ({ALL})"))?.unwrap())
}

fn nix_files() -> Vec<PathBuf> {
    let rooms = [root().to_owned(), root().join("nix")];
    let entries = rooms.iter().flat_map(|dir| fs::read_dir(dir).unwrap());
    let files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.into_iter().filter(|file| file.extension().is_some_and(|it| it == "nix")).collect()
}

#[test]
fn every_file_is_parsed() {
    let files = nix_files();
    assert!(files.len() > 8, "{files:?}");
    for file in files {
        let Some(parsed) = nix(&["--parse", file.to_str().unwrap()]) else { return };
        parsed.unwrap();
    }
}

#[test]
fn environments_have_what_the_roles_start() {
    let Some(all) = everything() else { return };
    assert_eq!(all["driver"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(all["driver"]["meta"]["mainProgram"], "nix-csi");
    let names = ["nix-csi", "nix", "openssh", "cacert", "busybox"];
    let cache = names.map(|name| format!("/nix/store/{name}"));
    assert_eq!(all["cache"]["paths"], json!(cache));
    let node = [&cache[..], &["/nix/store/git".into(), "/nix/store/e2fsprogs".into()]].concat();
    assert_eq!(all["node"]["paths"], json!(node));
}

#[test]
fn the_image_starts_by_the_environment_of_its_store() {
    let Some(all) = everything() else { return };
    let image = &all["image"];
    assert_eq!(image["config"]["Entrypoint"], json!(["/nix/var/result/bin/nix-csi"]));
    assert_eq!(image["config"]["Env"][0], "PATH=/nix/var/result/bin");
    assert_eq!(image["includeNixDB"], true);
    // The database has what is among the contents.
    let contents = format!("map (it: it.entries) ({ALL}).image.contents");
    let linked = json!([{"share/nix-csi/environment": "/nix/store/nix-csi-node"}]);
    assert_eq!(evaluated(&contents).unwrap().unwrap(), linked);
    let commands = image["extraCommands"].as_str().unwrap();
    for command in [
        "ln -s /nix/store/nix-csi-node nix/var/result",
        // No link of these leads by way of /nix/var, which evaluations don't see.
        "ln -s /nix/store/nix-csi-node/bin/sh bin/sh",
        "cp /nix/store/cacert/etc/ssl/certs/ca-bundle.crt etc/ssl/certs/ca-certificates.crt",
        "cp -L /nix/store/busybox/bin/cat bin/cat",
    ] {
        assert!(commands.lines().any(|line| line == command), "{command}: {commands}");
    }
    let variables = image["config"]["Env"].as_array().unwrap();
    let known = variables_of_node();
    for variable in &variables[1..] {
        let name = variable.as_str().unwrap().split('=').next().unwrap();
        assert!(known.contains(&name.to_owned()), "no setting of the driver's: {name}");
    }
}

#[test]
fn a_nix_that_lets_builds_out_is_refused() {
    let with = |version: &str| {
        let pkgs =
            format!("import ./tests/data/nix-code/pkgs.nix {{ nixVersion = \"{version}\"; }}");
        let node = format!("(import ./default.nix {{ pkgs = {pkgs}; }}).node");
        evaluated(&format!("let node = {node}; in builtins.deepSeq node.paths node.name"))
    };
    for good in ["2.28.6", "2.31.4", "2.34.5", "2.35.0"] {
        let Some(made) = with(good) else { return };
        assert_eq!(made.unwrap(), "nix-csi-node", "{good}");
    }
    for bad in ["2.8.0", "2.24.15", "2.31.3", "2.34.4"] {
        let error = with(bad).unwrap().unwrap_err();
        assert!(error.contains(&format!("nix {bad} lets builds out")), "{error}");
    }
}

#[test]
fn the_flake_has_the_same_for_both_architectures() {
    let nixpkgs = "let pkgs = import ./tests/data/nix-code/pkgs.nix { }; in \
        { inherit (pkgs) lib; legacyPackages = { x86_64-linux = pkgs; aarch64-linux = pkgs; }; }";
    let names = "builtins.mapAttrs (_: of: if builtins.isAttrs of then builtins.mapAttrs \
        (_: it: if builtins.isAttrs it then builtins.deepSeq it (builtins.attrNames it) else 0) of else of)";
    let outputs = format!("(import ./flake.nix).outputs {{ self = null; nixpkgs = {nixpkgs}; }}");
    let Some(outputs) = evaluated(&format!("{names} ({outputs})")) else { return };
    let outputs = outputs.unwrap();
    for system in ["x86_64-linux", "aarch64-linux"] {
        let packages =
            json!(["cache", "default", "deploy", "driver", "image", "manifests", "node", "push"]);
        assert_eq!(outputs["packages"][system], packages);
        assert_eq!(outputs["devShells"][system], json!(["default"]));
        assert_eq!(outputs["checks"][system], json!(["cache", "driver", "node"]));
        assert_eq!(outputs["apps"][system], json!(["deploy", "push", "undeploy"]));
    }
    assert_eq!(outputs["nixosModules"], json!({"default": 0}));
}

fn variables_of_node() -> Vec<String> {
    let cli = Cli::command();
    let node = cli.find_subcommand("node").unwrap();
    let names = node.get_arguments().filter_map(|argument| argument.get_env());
    names.map(|name| name.to_str().unwrap().to_owned()).collect()
}

const KUBELET: &str = "enable = true; kubelet = { enable = true; kubeconfig = \"/kubeconfig\"; };";

#[test]
fn the_modules_settings_are_the_drivers() {
    let Some(made) = unit(KUBELET) else { return };
    let made = made.unwrap();
    let environment: BTreeMap<String, String> =
        serde_json::from_value(made["environment"].clone()).unwrap();
    let known = variables_of_node();
    for name in environment.keys() {
        assert!(known.contains(name), "no setting of the driver's: {name}");
    }
    assert_eq!(environment["NIX_CSI_NODE_NAME"], "machine");
    assert_eq!(environment["NIX_CSI_KUBECONFIG"], "/kubeconfig");
    let socket = "unix:///var/lib/kubelet/plugins/nix.csi.store/csi.sock";
    assert_eq!(environment["CSI_ENDPOINT"], socket);
    // The driver takes them.
    let mut args = vec!["nix-csi".to_owned(), "node".to_owned()];
    let cli = Cli::command();
    let node = cli.find_subcommand("node").unwrap();
    for argument in node.get_arguments() {
        let value = argument.get_env().and_then(|name| environment.get(name.to_str().unwrap()));
        args.extend(value.map(|value| format!("--{}={value}", argument.get_long().unwrap())));
    }
    Cli::command().try_get_matches_from(args).unwrap();
}

#[test]
fn a_single_machine_lends_its_daemon_and_settings_win() {
    let Some(lent) = unit("enable = true;") else { return };
    let lent = lent.unwrap();
    let socket = "/nix/var/nix/daemon-socket/socket";
    assert_eq!(lent["environment"]["NIX_CSI_NIX_DAEMON_SOCKET"], socket);
    assert!(lent["environment"].get("NIX_CSI_REGISTRATION_DIR").is_none());
    let settings = "enable = true; settings.NIX_CSI_SSHD = \"/sshd\";";
    let own = unit(settings).unwrap().unwrap();
    let both = json!({"NIX_CSI_SSHD": "/sshd", "NIX_CSI_NIX_DAEMON_SOCKET": socket});
    assert_eq!(own["environment"], both);
    assert_eq!(unit("").unwrap().unwrap(), Value::Null);
    assert!(unit("enabel = true;").unwrap().unwrap_err().contains("no option"));
}

#[test]
fn the_modules_unit_is_that_of_deploy() {
    let Some(made) = unit("enable = true;") else { return };
    let made = made.unwrap();
    let file = fs::read_to_string(root().join("deploy/nix-csi.service")).unwrap();
    let (_, service) = file.split_once("[Service]\n").unwrap();
    let (service, _) = service.split_once("\n[Install]").unwrap();
    let lines = service.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let of_file: BTreeMap<_, _> = lines.map(|line| line.split_once('=').unwrap()).collect();
    let of_module = made["serviceConfig"].as_object().unwrap();
    assert!(of_module.keys().eq(of_file.keys().copied()), "{of_module:?} {of_file:?}");
    for (name, value) in of_module {
        let value = match value {
            Value::Bool(yes) => (if *yes { "yes" } else { "no" }).to_owned(),
            Value::String(text) => text.replace("/nix/store/nix-csi/bin", "/usr/local/bin"),
            other => other.to_string(),
        };
        assert_eq!(value, of_file[name.as_str()], "{name}");
    }
}
