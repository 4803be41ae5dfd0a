//! Which settings count in this process, and where each comes from.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory};

use super::Cli;

/// A setting as it was given; nothing is taken out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// As `--cache`.
    pub name: String,
    /// Its name in the environment.
    pub environment: Option<String>,
    pub values: Vec<String>,
    /// `default`, `argument` or `environment`; `none` without a value.
    pub origin: &'static str,
}

/// Of the subcommand that runs.
pub fn settings_in_use() -> Result<Vec<Setting>, String> {
    let cli = Cli::command();
    let matches = cli.clone().try_get_matches_from(std::env::args_os());
    let matches = matches.map_err(|error| error.kind().to_string())?;
    let (name, matches) = matches.subcommand().ok_or("no command")?;
    let command = cli.find_subcommand(name).ok_or("no such command")?;
    Ok(settings(command, matches))
}

fn settings(command: &Command, matches: &ArgMatches) -> Vec<Setting> {
    let mut found = Vec::new();
    for argument in command.get_arguments() {
        let Some(name) = argument.get_long() else { continue };
        let id = argument.get_id().as_str();
        let Ok(raw) = matches.try_get_raw(id) else { continue };
        let values = raw.into_iter().flatten().map(|value| value.to_string_lossy().into_owned());
        found.push(Setting {
            name: format!("--{name}"),
            environment: argument.get_env().map(|name| name.to_string_lossy().into_owned()),
            values: values.collect(),
            origin: match matches.value_source(id) {
                Some(ValueSource::CommandLine) => "argument",
                Some(ValueSource::EnvVariable) => "environment",
                Some(_) => "default",
                None => "none",
            },
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_says_where_it_comes_from() {
        let cli = Cli::command();
        let args =
            ["nix-csi", "node", "--hold", "3s", "--nix-option", "a=b", "--nix-option", "c=d"];
        let matches = cli.clone().try_get_matches_from(args).unwrap();
        let (name, matches) = matches.subcommand().unwrap();
        let all = settings(cli.find_subcommand(name).unwrap(), matches);
        let of = |name: &str| all.iter().find(|one| one.name == name).unwrap();
        assert_eq!(
            (&*of("--hold").values, of("--hold").origin),
            (&["3s".to_owned()][..], "argument")
        );
        assert_eq!(of("--hold").environment.as_deref(), Some("NIX_CSI_HOLD"));
        assert_eq!(of("--nix-option").values, ["a=b", "c=d"]);
        assert_eq!((&*of("--grace").values[0], of("--grace").origin), ("10s", "default"));
        assert_eq!((of("--node-id").values.len(), of("--node-id").origin), (0, "none"));
        assert!(all.len() > 60, "{}", all.len());
    }
}
