//! From the command line's definition to docs/settings.md.

use std::fmt::Write as _;

use clap::builder::PossibleValue;
use clap::{Arg, Command, CommandFactory};
use nix_csi::config::Cli;

/// Whatever they are in the text of a table, they are no markup.
fn plain(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|").replace('<', "&lt;")
}

fn flag(argument: &Arg) -> String {
    let name = argument
        .get_long()
        .map_or_else(|| argument.get_id().to_string().to_uppercase(), |long| format!("--{long}"));
    let takes = argument.get_action().takes_values() && argument.get_long().is_some();
    let value = argument.get_value_names().filter(|_| takes).map(|names| names.join(" "));
    let value = value.map(|value| format!(" {value}")).unwrap_or_default();
    format!("`{name}{value}`")
}

fn default(argument: &Arg) -> String {
    let values = argument.get_default_values().iter().map(|value| value.to_str().unwrap());
    let values = values.collect::<Vec<_>>().join(", ");
    if !argument.get_action().takes_values() || values.is_empty() {
        return String::new();
    }
    format!("`{}`", plain(&values))
}

fn what(argument: &Arg) -> String {
    let help = argument.get_long_help().or(argument.get_help());
    let mut text = plain(&help.map(ToString::to_string).unwrap_or_default());
    let values = argument.get_possible_values();
    let shown: Vec<_> = values.iter().filter(|value| !value.is_hide_set()).collect();
    if argument.get_action().takes_values() && !shown.is_empty() {
        let name = |value: &&PossibleValue| format!("`{}`", value.get_name());
        let names = shown.iter().map(name).collect::<Vec<_>>().join(", ");
        text = [text.as_str(), &format!("One of {names}")]
            .into_iter()
            .filter(|s| !s.is_empty())
            .collect::<Vec<_>>()
            .join(". ");
    }
    if let Some(between) = argument.get_value_delimiter().filter(|_| argument.get_env().is_some()) {
        let between = match between {
            '\n' => "newlines".to_owned(),
            ' ' => "blanks".to_owned(),
            other => format!("`{other}`"),
        };
        let _ = write!(text, ". In the environment separated by {between}");
    }
    text.trim().to_owned()
}

fn table(arguments: &[&Arg]) -> String {
    let mut text = "| setting | in the environment | default | |\n|---|---|---|---|\n".to_owned();
    for argument in arguments {
        let env = argument.get_env().map(|name| format!("`{}`", name.to_str().unwrap()));
        let cells = [flag(argument), env.unwrap_or_default(), default(argument), what(argument)];
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text + "\n"
}

/// A command with its settings by heading, then its subcommands.
fn section(command: &Command, name: &str) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let mut text = format!("## `{name}`\n\n{}.\n\n", about.trim_end_matches('.'));
    let is_shown = |argument: &&Arg| {
        !argument.is_hide_set() && !["help", "version"].contains(&argument.get_id().as_str())
    };
    let all: Vec<_> = command.get_arguments().filter(is_shown).collect();
    let mut headings: Vec<Option<&str>> = Vec::new();
    for argument in &all {
        if !headings.contains(&argument.get_help_heading()) {
            headings.push(argument.get_help_heading());
        }
    }
    headings.sort_by_key(Option::is_some);
    for heading in headings {
        if let Some(heading) = heading {
            let _ = write!(text, "### {heading} (`{name}`)\n\n");
        }
        let of: Vec<_> =
            all.iter().copied().filter(|argument| argument.get_help_heading() == heading).collect();
        text += &table(&of);
    }
    for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
        text += &section(inner, &format!("{name} {}", inner.get_name()));
    }
    text
}

pub(crate) fn markdown() -> String {
    let cli = Cli::command();
    let commands = cli.get_subcommands().filter(|command| !command.is_hide_set());
    commands.map(|command| section(command, &format!("nix-csi {}", command.get_name()))).collect()
}

/// Whoever adds a setting says what it is.
#[test]
fn each_setting_is_described() {
    fn walk(command: &Command, bare: &mut Vec<String>) {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            if what(argument).is_empty() && argument.get_id() != "help" {
                bare.push(format!("{} {}", command.get_name(), argument.get_id()));
            }
        }
        command.get_subcommands().for_each(|inner| walk(inner, bare));
    }
    let mut bare = Vec::new();
    walk(&Cli::command(), &mut bare);
    assert_eq!(bare, [""; 0]);
}
