//! `nix-csi clean`: takes away what a node leaves on its machine. What is mounted somewhere stays, and then
//! nothing else goes either.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{NodeError, fail, first_signal, lock, nix};
use crate::actors::volume::recorded;
use crate::config::CleanArgs;
use crate::model::STORE_DIR;
use crate::mount::{self, Mounts as _, PresentationChoice, RealMounts};
use crate::nix::remove_tree;

/// What is removed, in this order: an end in between leaves what the next `clean` finds.
fn directories(args: &CleanArgs) -> Vec<PathBuf> {
    let mut all =
        vec![nix::roots_of(&args.state_dir), args.state_dir.clone(), args.run_dir.clone()];
    let socket = args.endpoint.path();
    // The kubelet's own convention: plugins/<driver>/csi.sock.
    if let Some(dir) = socket.parent()
        && dir.file_name().is_some_and(|name| *name == *args.driver_name)
    {
        all.push(dir.to_owned());
    }
    all
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
    release_views(args)?;
    let mut all = directories(args);
    if args.store {
        // Each by itself: /nix may be a mount point.
        let store = Path::new(STORE_DIR).parent().unwrap_or(Path::new(STORE_DIR));
        let entries = fs::read_dir(store).map_err(|e| fail("can't list the store")(&e))?;
        for entry in entries {
            all.push(entry.map_err(|e| fail("can't list the store")(&e))?.path());
        }
    }
    for dir in &all {
        let mounted = mount::points_below(dir).map_err(|e| NodeError(e.to_string()))?;
        // The directory itself may be a volume of this container.
        if let Some(point) = mounted.iter().find(|point| *point != dir) {
            return Err(NodeError(format!(
                "{} is still mounted: unmount it, then run this again",
                point.display()
            )));
        }
    }
    if let Some(dir) = &args.registration_dir {
        let socket = crate::grpc::registration_socket(dir, &args.driver_name);
        remove(&socket, |socket| fs::remove_file(socket))?;
    }
    for dir in &all {
        remove(dir, remove_tree)?;
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
    let config = mount::Config {
        store_dir: STORE_DIR.into(),
        views_dir: args.state_dir.join("views"),
        volumes_dir: args.state_dir.join("volumes"),
        target_roots: vec!["/".into()],
        presentation: PresentationChoice::Auto,
    };
    if !Path::new(STORE_DIR).try_exists().map_err(|e| fail("can't look for the store")(&e))? {
        return Ok(());
    }
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
