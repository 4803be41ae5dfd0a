//! From the command line's definition to docs/settings.md.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;

use clap::builder::PossibleValue;
use clap::{Arg, Command, CommandFactory};
use nix_csi::config::Cli;
use serde_json::Value;

use super::links;
use super::manifests::{chart, documents};

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
    let mut said: Vec<_> = help.map(|help| plain(&help.to_string())).into_iter().collect();
    let values = argument.get_possible_values();
    let shown: Vec<_> = values.iter().filter(|value| !value.is_hide_set()).collect();
    if argument.get_action().takes_values() && !shown.is_empty() {
        let name = |value: &&PossibleValue| format!("`{}`", value.get_name());
        said.push(format!("One of {}", shown.iter().map(name).collect::<Vec<_>>().join(", ")));
    }
    if let Some(between) = argument.get_value_delimiter().filter(|_| argument.get_env().is_some()) {
        let between = match between {
            '\n' => "newlines".to_owned(),
            ' ' => "blanks".to_owned(),
            other => format!("`{other}`"),
        };
        said.push(format!("In the environment separated by {between}"));
    }
    said.join(". ")
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

/// Of the tests and of the chart's templates.
const NOT_SETTINGS: [&str; 4] =
    ["NIX_CSI_FULL", "NIX_CSI_RENEW_DOCS", "NIX_CSI_SOAK_MINUTES", "NIX_CSI_SOAK_KILL_EVERY"];

/// What a command and its subcommands read.
pub(crate) fn environment(command: &Command, names: &mut BTreeSet<String>) {
    let of = command.get_arguments().filter_map(|argument| argument.get_env());
    names.extend(of.map(|name| name.to_str().unwrap().to_owned()));
    command.get_subcommands().for_each(|inner| environment(inner, names));
}

#[test]
fn each_name_in_the_environment_that_documentation_has_is_read() {
    let mut read = BTreeSet::new();
    environment(&Cli::command(), &mut read);
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let mut unknown = Vec::new();
    for page in links::files() {
        let text = fs::read_to_string(&page).unwrap();
        for word in text.split(|c| !is_part(c)).filter(|word| word.starts_with("NIX_CSI_")) {
            if !read.contains(word) && !NOT_SETTINGS.contains(&word) {
                unknown.push(format!("{}: {word}", page.display()));
            }
        }
    }
    assert_eq!(unknown, [""; 0]);
}

/// What is below an empty object is the user's.
fn has(values: &Value, name: &str) -> bool {
    let mut at = values;
    for key in name.split('.') {
        match at.get(key) {
            Some(value) => at = value,
            None => return at.as_object().is_some_and(serde_json::Map::is_empty),
        }
    }
    true
}

/// Those in code spans, such as `node.storePath`, with or without `=VALUE`.
#[test]
fn each_value_of_the_chart_that_documentation_has_is_one() {
    let values = documents(&chart().join("values.yaml")).remove(0);
    let (mut seen, mut unknown) = (0, Vec::new());
    for page in links::files() {
        let text = fs::read_to_string(&page).unwrap();
        let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
        for span in spans {
            let name = span.split('=').next().unwrap();
            let mut keys = name.split('.');
            let is_name = |key: &str| key.bytes().all(|c| c.is_ascii_alphabetic());
            let of_chart =
                keys.next().and_then(|key| values.get(key)).is_some_and(Value::is_object);
            // Not of the chart's own: other pages have a policy's keys and names of files.
            if !of_chart || !name.contains('.') || !name.split('.').all(is_name) {
                continue;
            }
            seen += 1;
            if !has(&values, name) {
                unknown.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(seen > 20, "only {seen} values were found");
    assert_eq!(unknown, [""; 0]);
}
