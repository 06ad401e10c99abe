// SPDX-License-Identifier: Apache-2.0
//! The `berth` command line: thin, it has no logic that the API lacks.
//!
//! [`cli`] says what can be typed, [`parse`] turns it into values of the API,
//! [`command`] has a file per verb that asks the engine and prints with
//! [`output`]; [`session`] is being attached to a container.

pub mod auth;
pub mod cli;
pub mod command;
pub mod context;
pub mod error;
mod kernel;
pub mod output;
pub mod parse;
pub mod session;
pub mod terminal;

use std::process::ExitCode;

/// Runs the program: takes the arguments apart, runs the verb, says what went
/// wrong, and picks the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    let cli = match cli::parse(&arguments) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && !is_help(&error) => {
            let (message, code) = cli::usage_error(&error, &arguments);
            output::warn(&message);
            return code.into();
        }
        Err(help) => {
            // A closed pipe is no reason to fail.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    match command::run(cli) {
        Ok(code) => code.into(),
        Err(error) => {
            let message = error.to_string();
            if !message.is_empty() {
                output::warn(&message);
            }
            error.code().into()
        }
    }
}

/// `berth` alone prints the help; to stderr, as clap has it.
fn is_help(error: &clap::Error) -> bool {
    error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
}
