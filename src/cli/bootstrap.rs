//! `nix-csi bootstrap`: the environment of an image that Nix has built gets into the store that is mounted over it.

use crate::cli::Failure;
use crate::config::BootstrapArgs;
use crate::jail::capabilities;
use crate::nix::bootstrap::Bootstrap;

pub async fn bootstrap(args: BootstrapArgs) -> Result<(), Failure> {
    capabilities::keep_only(capabilities::BOOTSTRAP)
        .map_err(|error| Failure(format!("can't give up capabilities: {error}")))?;
    if let Some(point) = &args.crash_at {
        crate::crash::arm(point)?;
    }
    let bootstrap = Bootstrap {
        from: args.from,
        to: args.to,
        environment: args.environment,
        nix: args.programs.nix,
        search_path: args.programs.search_path,
        guard: "/proc/self/exe".into(),
    };
    let done = bootstrap.run().await?;
    let environment = &done.environment;
    match done.copied {
        None => println!("{environment} was in place"),
        Some(copied) => println!("{environment} is in place: {copied} paths were copied"),
    }
    Ok(())
}
