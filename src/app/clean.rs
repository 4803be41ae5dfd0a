//! `nix-csi clean`: takes away what a node leaves on its machine. What is mounted somewhere stays, and then
//! nothing else goes either.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{NodeError, fail, first_signal, lock, mounts_in, nix};
use crate::actors::volume::recorded;
use crate::config::CleanArgs;
use crate::model::STORE_DIR;
use crate::mount::{self, Mounts as _, PresentationChoice, RealMounts};
use crate::nix::remove_tree;

/// What else is removed, in this order. Last comes the directory whose lock keeps a node from starting.
fn directories(args: &CleanArgs) -> Vec<PathBuf> {
    let mut all = vec![nix::roots_of(&args.state_dir), args.state_dir.clone()];
    let socket = args.endpoint.path();
    // The kubelet's own convention: plugins/<driver>/csi.sock.
    if let Some(dir) = socket.parent()
        && dir.file_name().is_some_and(|name| *name == *args.driver_name)
    {
        all.push(dir.to_owned());
    }
    all.push(args.run_dir.clone());
    all
}

/// What the store's directory has. A store that somebody else uses as well is refused.
fn whole_store() -> Result<Vec<PathBuf>, NodeError> {
    let store = Path::new(STORE_DIR).parent().unwrap_or(Path::new(STORE_DIR));
    for (file, whose) in [
        ("var/nix/daemon-socket/socket", "the socket of a nix-daemon of this machine's"),
        ("var/nix/profiles/system", "a NixOS"),
        ("var/nix/profiles/default", "what is installed for this machine's users"),
    ] {
        if fs::symlink_metadata(store.join(file)).is_ok() {
            return Err(NodeError(format!(
                "--store: {} is {whose}: the store is not this driver's alone, leave --store out",
                store.join(file).display()
            )));
        }
    }
    let entries = fs::read_dir(store).map_err(|e| fail("can't list the store")(&e))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths.collect::<Result<_, _>>().map_err(|e| fail("can't list the store")(&e))
}

/// What says that it is done.
const DONE: &str = "nothing of the node is left";

/// Says what was removed. An error names what is still in use, or what can't be removed.
pub fn clean(args: &CleanArgs) -> Result<(), NodeError> {
    remove_all(args)?;
    println!("{DONE}");
    if args.stay {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(|e| fail("can't start the runtime")(&e))?.block_on(first_signal());
    }
    Ok(())
}

fn remove_all(args: &CleanArgs) -> Result<(), NodeError> {
    let _locks = [lock("--run-dir", &args.run_dir)?, lock("--state-dir", &args.state_dir)?];
    let store = if args.store { whole_store()? } else { Vec::new() };
    release_views(args)?;
    let all = [store, directories(args)].concat();
    // These may be volumes of this container.
    let may_be = |point: &PathBuf| *point == args.run_dir || *point == args.state_dir;
    let goes = |point: &PathBuf| all.iter().any(|path| point.starts_with(path));
    let points = mount::points().map_err(|e| NodeError(e.to_string()))?;
    if let Some(point) = points.iter().find(|point| goes(point) && !may_be(point)) {
        return Err(NodeError(format!(
            "{} is still mounted: unmount it, then run this again",
            point.display()
        )));
    }
    if let Some(dir) = &args.registration_dir {
        let socket = crate::grpc::registration_socket(dir, &args.driver_name);
        remove(&socket, |socket| fs::remove_file(socket))?;
    }
    for path in &all {
        let is_file = fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_dir());
        remove(path, |path| if is_file { fs::remove_file(path) } else { remove_tree(path) })?;
    }
    Ok(())
}

/// Every view, unless a volume shows one.
fn release_views(args: &CleanArgs) -> Result<(), NodeError> {
    let said = |error: &dyn std::fmt::Display| NodeError(error.to_string());
    let records = recorded(args.run_dir.join("volumes")).map_err(|e| said(&e))?;
    let mut used = Vec::new();
    for (target, pod) in records {
        if mount::is_mounted(target.as_path()).map_err(|e| said(&e))? {
            used.push(pod.map_or_else(|| target.to_string(), |pod| format!("{target} of {pod}")));
        }
    }
    if !used.is_empty() {
        used.sort();
        return Err(NodeError(format!(
            "volumes are still mounted: {}: delete their pods while a driver runs, or unmount them",
            used.join(", ")
        )));
    }
    if !Path::new(STORE_DIR).try_exists().map_err(|e| fail("can't look for the store")(&e))? {
        return Ok(());
    }
    let config = mounts_in(&args.state_dir, PresentationChoice::Auto);
    let mounts = RealMounts::open(&config).map_err(|e| said(&e))?;
    mounts.clear_unused_volume_files().map_err(|e| said(&e))?;
    for view in mounts.list_views().map_err(|e| said(&e))? {
        mounts.remove_view(&view).map_err(|e| said(&e))?;
        println!("view {} unmounted and removed", view.as_str());
    }
    Ok(())
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// A mount point stays, empty.
fn remove(path: &Path, how: impl Fn(&Path) -> io::Result<()>) -> Result<(), NodeError> {
    match how(path) {
        Ok(()) => println!("{} removed", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // Busy, or, where the root file system is read-only, that.
        Err(_) if is_empty(path) => println!("{} emptied", path.display()),
        Err(error) => return Err(fail(&format!("can't remove {}", path.display()))(&error)),
    }
    Ok(())
}
