// SPDX-License-Identifier: Apache-2.0
//! The command line as clap sees it: names, flags, help. No behaviour.
//!
//! The one source of `--help`, shell completion and man pages. Read by
//! [`crate::command`].

#![allow(rustdoc::broken_intra_doc_links, reason = "a help text is no page: [ ] is what may be left out")]

pub mod container;
pub mod create;
mod errors;
pub mod files;
mod groups;
pub mod health;
pub mod image;
pub mod manage;
pub mod system;

use std::ffi::OsString;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use errors::usage_error;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "berth",
    version,
    about = "Runs containers",
    long_about = "berth runs containers. It is the command line of berthd, the container engine.",
    override_usage = "berth [OPTIONS] COMMAND",
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Where the engine listens: unix:///path, or http://host:port through a
    /// tunnel
    #[arg(
        short = 'H',
        long,
        alias = "host",
        global = true,
        env = "BERTH_ADDRESS",
        value_name = "ADDRESS",
        hide_env_values = true,
        default_value = berth::DEFAULT_ADDRESS,
        help_heading = "Global options"
    )]
    pub address: String,
    /// The tenant whose containers and images are meant
    #[arg(
        long,
        global = true,
        env = "BERTH_NAMESPACE",
        value_name = "NAME",
        hide_env_values = true,
        default_value = berth::DEFAULT_NAMESPACE,
        help_heading = "Global options"
    )]
    pub namespace: String,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// About containers.
    #[command(flatten)]
    Container(container::Verb),
    /// About images.
    #[command(flatten)]
    Image(image::Verb),
    /// About the engine.
    #[command(flatten)]
    System(system::Verb),
    /// Manage containers
    #[command(name = "container", subcommand_required = true, arg_required_else_help = true)]
    #[command(disable_help_subcommand = true)]
    ContainerGroup {
        /// What to do
        #[command(subcommand)]
        verb: container::GroupVerb,
    },
    /// Manage images
    #[command(name = "image", subcommand_required = true, arg_required_else_help = true)]
    #[command(disable_help_subcommand = true)]
    ImageGroup {
        /// What to do
        #[command(subcommand)]
        verb: image::GroupVerb,
    },
    /// Manage berth
    #[command(name = "system", subcommand_required = true, arg_required_else_help = true)]
    #[command(disable_help_subcommand = true)]
    SystemGroup {
        /// What to do
        #[command(subcommand)]
        verb: system::GroupVerb,
    },
    /// Probe the health of containers
    #[command(subcommand_required = true, arg_required_else_help = true, disable_help_subcommand = true)]
    Healthcheck {
        /// What to do
        #[command(subcommand)]
        verb: health::Verb,
    },
    /// Print a shell's completion script
    #[command(after_help = "Examples:
  berth completion bash > /etc/bash_completion.d/berth
  berth completion zsh > /usr/share/zsh/vendor-completions/_berth
  berth completion fish > ~/.config/fish/completions/berth.fish")]
    Completion {
        /// Whose
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write all manual pages into a directory
    #[command(hide = true)]
    Man {
        /// An existing directory
        #[arg(value_name = "DIR")]
        directory: std::path::PathBuf,
    },
}

impl Verb {
    /// The same verb without its group: `container ls` is `ps`.
    #[must_use]
    pub fn ungrouped(self) -> Self {
        match self {
            Self::ContainerGroup { verb } => verb.into(),
            Self::ImageGroup { verb } => verb.into(),
            Self::SystemGroup { verb } => verb.into(),
            verb => verb,
        }
    }
}

/// Shells with a completion script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    /// GNU Bash
    Bash,
    /// Z shell
    Zsh,
    /// fish
    Fish,
}

/// The definitions, with the grouped list of commands in the help.
#[must_use]
pub fn command() -> clap::Command {
    groups::add(Cli::command())
}

/// Takes the arguments apart; the program's name is the first.
///
/// # Errors
/// clap's: also for `--help` and `--version`, which print and succeed.
pub fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    fn parse_words(line: &str) -> Result<Cli, clap::Error> {
        parse(&words(line))
    }

    #[test]
    fn definitions_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn docker_s_long_forms_are_the_same_verbs() {
        for (long, short) in [
            ("berth container ls -a", "berth ps -a"),
            ("berth container list -a", "berth ps -a"),
            ("berth container run -d x", "berth run -d x"),
            ("berth image ls -q", "berth images -q"),
            ("berth image rm x", "berth rmi x"),
            ("berth image pull x", "berth pull x"),
            ("berth container rm -f x", "berth rm -f x"),
            ("berth container restart -t 3 x", "berth restart --time 3 x"),
            ("berth container top x -o pid -H", "berth top x -o pid -H"),
            ("berth container pause x y", "berth pause x y"),
            ("berth container unpause x", "berth unpause x"),
            ("berth container rename x y", "berth rename x y"),
            ("berth container port x 80", "berth port x 80/tcp"),
            ("berth container wait --condition removed x", "berth wait --condition=removed x"),
            ("berth container cp x:/a b", "berth cp x:/a b"),
            ("berth container export -o f x", "berth export --output f x"),
            ("berth system info", "berth info"),
        ] {
            let strip = |cli: Cli| format!("{:?}", cli.verb.ungrouped());
            assert_eq!(
                strip(parse_words(long).expect(long)),
                strip(parse_words(short).expect(short)),
                "{long} and {short}"
            );
        }
    }

    #[test]
    fn everything_after_the_image_is_the_command() {
        let cli =
            parse_words("berth run --rm -it -e A=1 -h box debian bash -c --rm -x --help").expect("valid");
        let Verb::Container(container::Verb::Run(run)) = cli.verb else { panic!("not run") };
        assert!(run.create.rm && run.create.tty && run.create.interactive);
        assert_eq!(run.create.image(), "debian");
        assert_eq!(run.create.command(), ["bash", "-c", "--rm", "-x", "--help"]);
        assert_eq!(run.create.hostname.as_deref(), Some("box"));
    }

    #[test]
    fn a_command_may_begin_with_a_dash_after_the_image() {
        let cli = parse_words("berth run x -l").expect("valid");
        let Verb::Container(container::Verb::Run(run)) = cli.verb else { panic!("not run") };
        assert_eq!(run.create.command(), ["-l"]);
    }

    #[test]
    fn global_options_stand_anywhere_before_the_image() {
        let cli = parse_words("berth --namespace a ps -H unix:///x").expect("valid");
        assert_eq!((cli.namespace.as_str(), cli.address.as_str()), ("a", "unix:///x"));
    }

    #[test]
    fn memory_minus_one_is_a_value() {
        let cli = parse_words("berth run --memory-swap -1 --pids-limit -1 -m 512m x").expect("valid");
        let Verb::Container(container::Verb::Run(run)) = cli.verb else { panic!("not run") };
        assert_eq!(
            (run.create.memory_swap, run.create.pids_limit, run.create.memory),
            (Some(-1), Some(-1), Some(512 << 20))
        );
    }

    #[test]
    fn flags_of_later_versions_say_so() {
        let line = words("berth run -p 80:80 x");
        let error = parse(&line).expect_err("not in this version");
        assert!(usage_error(&error, &line).0.contains("not supported in this version"), "{error}");
    }
}
