// SPDX-License-Identifier: Apache-2.0
//! `berth --help`: the commands, by what they are about.

use std::fmt::Write as _;

use clap::Command;

/// Every command that isn't hidden, once.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Common commands", &["run", "exec", "ps", "logs", "pull", "images", "version", "info"]),
    (
        "Containers",
        &[
            "create",
            "start",
            "stop",
            "restart",
            "kill",
            "pause",
            "unpause",
            "wait",
            "rename",
            "port",
            "top",
            "stats",
            "diff",
            "cp",
            "export",
            "commit",
            "update",
            "rm",
            "attach",
            "healthcheck",
        ],
    ),
    ("Images", &["history", "tag", "push", "rmi", "save", "load", "import", "login", "logout"]),
    ("Both, and the engine", &["inspect", "events", "completion"]),
    ("The same, as Docker groups it", &["container", "image", "system"]),
];

const TEMPLATE: &str = "{usage-heading} {usage}\n\n{about}\n\n{before-help}Options:\n{options}{after-help}";

const EXAMPLES: &str = "Examples:
  berth run hello-world
  berth run -it --rm debian bash
  berth run -d --name web nginx && berth logs -f web

Run 'berth COMMAND --help' for more information on a command.";

/// Puts the list of commands into the help.
pub(super) fn add(command: Command) -> Command {
    let mut text = String::new();
    for (heading, verbs) in GROUPS {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{heading}:");
        for verb in verbs {
            let about = command.find_subcommand(verb).and_then(Command::get_about);
            let _ = writeln!(text, "  {verb:<12}{}", about.map(ToString::to_string).unwrap_or_default());
        }
        text.push('\n');
    }
    let text = text.trim_end().to_owned();
    command.help_template(TEMPLATE).before_help(text).after_help(EXAMPLES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_one_group() {
        let command = super::super::command();
        let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, verbs)| verbs.iter().copied()).collect();
        let mut all: Vec<&str> =
            command.get_subcommands().filter(|c| !c.is_hide_set()).map(Command::get_name).collect();
        listed.sort_unstable();
        all.sort_unstable();
        assert_eq!(listed, all);
    }

    #[test]
    fn every_command_says_what_it_does() {
        for verb in super::super::command().get_subcommands() {
            assert!(verb.get_about().is_some(), "{}", verb.get_name());
            for arg in verb.get_arguments().filter(|a| !a.is_hide_set()) {
                assert!(arg.get_help().is_some(), "{} {}", verb.get_name(), arg.get_id());
            }
        }
    }
}
