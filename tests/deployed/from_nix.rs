//! An image that Nix has built: what the chart adds for it, and what docs/bootstrap.md says of it.

use std::collections::BTreeSet;

use clap::CommandFactory;
use nix_csi::config::Cli;
use serde_json::Value;

use super::manifests::{list, parse, read, render, text};
use super::settings;

/// Name, init container and container of each workload.
fn workloads(objects: &[Value]) -> Vec<(&str, Option<&Value>, &Value)> {
    let pods = objects.iter().filter(|object| object.pointer("/spec/template/spec").is_some());
    let parts = |object| {
        let container = |kind: &str| list(object, &format!("/spec/template/spec/{kind}")).first();
        let (first, then) = (container("initContainers"), container("containers"));
        (text(object, "/metadata/name"), first, then.unwrap())
    };
    pods.map(parts).collect()
}

#[test]
fn an_image_that_nix_has_built_is_bootstrapped_into_each_store() {
    for option in ["cache", "startup-taint"] {
        let objects = render(Some(option));
        assert!(
            workloads(&objects).iter().all(|(_, bootstrap, _)| bootstrap.is_none()),
            "{option}"
        );
    }
    let objects = render(Some("from-nix"));
    let all = workloads(&objects);
    assert_eq!(all.len(), 2);
    let mut known = BTreeSet::new();
    settings::environment(Cli::command().find_subcommand("bootstrap").unwrap(), &mut known);
    for (name, bootstrap, driver) in all {
        let bootstrap = bootstrap.unwrap_or_else(|| panic!("{name} has none"));
        for field in ["image", "imagePullPolicy", "resources"] {
            assert_eq!(bootstrap[field], driver[field], "{name}: {field}");
        }
        // The image's own.
        assert_eq!(driver.get("command"), None, "{name}");
        let store = |container: &Value| {
            let mounts = list(container, "/volumeMounts").iter();
            let mut stores = mounts.filter(|mount| mount["name"] == "store");
            text(stores.next().unwrap(), "/mountPath").to_owned()
        };
        let to = &list(bootstrap, "/env")[0];
        assert!(known.contains(text(to, "/name")), "{to}");
        assert_eq!(
            (store(bootstrap).as_str(), store(driver).as_str()),
            (text(to, "/value"), "/nix")
        );
    }
}

/// For those who write the pod themselves.
#[test]
fn the_documentation_has_the_charts_init_container() {
    let page = read("docs/bootstrap.md");
    let (_, rest) = page.split_once("```yaml\n").unwrap();
    let pod = parse(rest.split_once("```").unwrap().0).remove(0);
    let said = &list(&pod, "/initContainers")[0];
    let objects = render(Some("from-nix"));
    for (name, bootstrap, _) in workloads(&objects) {
        for field in ["name", "command", "env", "securityContext", "volumeMounts"] {
            assert_eq!(bootstrap.unwrap()[field], said[field], "{name}: {field}");
        }
    }
}
