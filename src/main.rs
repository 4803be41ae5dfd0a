//! `nix-csi`: see `--help`.

use std::process::ExitCode;

use clap::Parser;
use nix_csi::cli::{self, Failure};
use nix_csi::config::{Cli, Command};

/// sysexits.h, EX_USAGE.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    // Before anything else: a guard is small, fast and has one thread.
    if let Some(code) = nix_csi::jail::run_if_asked(std::env::args_os()) {
        return code;
    }
    if let Some(code) = nix_csi::relay::run_if_asked(std::env::args_os()) {
        return code;
    }
    if let Some(code) = nix_csi::jail::split_if_first() {
        return code;
    }
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => {
            drop(error.print());
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let result = match command {
        Command::Node(config) => {
            nix_csi::app::run(*config).map_err(|error| Failure(error.to_string()))
        }
        Command::Cache(config) => {
            nix_csi::app::run_cache(*config).map_err(|error| Failure(error.to_string()))
        }
        Command::Clean(args) => {
            nix_csi::app::clean(&args).map_err(|error| Failure(error.to_string()))
        }
        command => client(command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(message)) => {
            eprintln!("nix-csi: {message}");
            ExitCode::FAILURE
        }
    }
}

fn client(command: Command) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        match command {
            Command::Mount(args) => cli::mount(args).await,
            Command::Unmount(args) => cli::unmount(args).await,
            Command::Prefetch(args) => cli::prefetch(args).await,
            Command::Status(args) => cli::status(args).await,
            Command::Builds(args) => cli::builds(args).await,
            Command::Uploads(args) => cli::uploads(args).await,
            Command::Policy(command) => cli::policy(command).await,
            Command::Gc(args) => cli::gc(args).await,
            Command::Bootstrap(args) => cli::bootstrap(args).await,
            Command::Debug(command) => cli::debug(command).await,
            Command::Check(args) => cli::check(args).await,
            Command::Canary(args) => cli::canary(&args),
            Command::Node(_) | Command::Cache(_) | Command::Clean(_) => {
                unreachable!("runs in main")
            }
        }
    });
    // What hangs on a disk is not waited for.
    runtime.shutdown_background();
    ended
}
