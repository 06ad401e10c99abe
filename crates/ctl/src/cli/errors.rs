// SPDX-License-Identifier: Apache-2.0
//! clap's errors in Docker's words: a wrong flag is exit code 125, a wrong
//! number of arguments 1.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::error::{BERTH_FAILED, FAILED};

/// The message for stderr and the exit code. Not for `--help` and
/// `--version`.
#[must_use]
pub fn usage_error(error: &clap::Error, arguments: &[OsString]) -> (String, u8) {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(list)) => Some(list.join(", ")),
        Some(ContextValue::StyledStr(text)) => Some(text.to_string()),
        _ => None,
    };
    let (path, usage) = command_of(arguments);
    let invalid = text(ContextKind::InvalidArg).unwrap_or_default();
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    let (message, code) = match error.kind() {
        ErrorKind::UnknownArgument if invalid.starts_with('-') => {
            (format!("unknown flag: {invalid}"), BERTH_FAILED)
        }
        ErrorKind::UnknownArgument => {
            (format!("berth: '{path}' got an argument too many: {invalid}"), FAILED)
        }
        ErrorKind::ValueValidation => {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            (format!("invalid argument \"{value}\" for \"{}\" flag: {cause}", flag(&invalid)), BERTH_FAILED)
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            (format!("flag needs an argument: {}", flag(&invalid)), BERTH_FAILED)
        }
        ErrorKind::InvalidValue => {
            let valid = text(ContextKind::ValidValue).unwrap_or_default();
            let cause = format!("expected one of {valid}");
            (format!("invalid argument \"{value}\" for \"{}\" flag: {cause}", flag(&invalid)), BERTH_FAILED)
        }
        ErrorKind::InvalidSubcommand => {
            let name = text(ContextKind::InvalidSubcommand).unwrap_or_default();
            (format!("berth: unknown command: {path} {name}"), FAILED)
        }
        ErrorKind::MissingRequiredArgument => (format!("berth: '{path}' requires {invalid}"), FAILED),
        ErrorKind::ArgumentConflict => {
            let prior = text(ContextKind::PriorArg).unwrap_or_default();
            (
                format!("conflicting options: cannot specify both {} and {}", flag(&invalid), flag(&prior)),
                BERTH_FAILED,
            )
        }
        _ => {
            let text = error.to_string();
            return (text.trim_start_matches("error: ").trim_end().to_owned(), BERTH_FAILED);
        }
    };
    let tip = [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand]
        .into_iter()
        .find_map(text)
        .map_or_else(String::new, |s| format!(" (did you mean {s}?)"));
    let help = format!("Run '{path} --help' for more information");
    (format!("{message}{tip}\n\nUsage:  {usage}\n\n{help}"), code)
}

/// `--memory <BYTES>` without its value's name.
fn flag(text: &str) -> &str {
    text.split_once([' ', '=']).map_or(text, |(flag, _)| flag)
}

/// The command that was meant, `berth image ls`, and how it is used.
fn command_of(arguments: &[OsString]) -> (String, String) {
    let root = super::command();
    let mut command = &root;
    let mut path = root.get_name().to_owned();
    for word in arguments.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(found) = command.find_subcommand(word) {
            command = found;
            path = format!("{path} {}", found.get_name());
        }
        if !command.has_subcommands() {
            break;
        }
    }
    let usage = command.clone().bin_name(&path).render_usage().to_string();
    (path, usage.trim_start_matches("Usage:").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(line: &str) -> (String, u8) {
        let arguments: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        usage_error(&super::super::parse(&arguments).expect_err(line), &arguments)
    }

    #[test]
    fn a_wrong_flag_is_125() {
        let (text, code) = fail("berth ps --foo");
        assert_eq!(
            text,
            "unknown flag: --foo\n\nUsage:  berth ps [OPTIONS]\n\nRun 'berth ps --help' for more information"
        );
        assert_eq!(code, 125);
        let (text, code) = fail("berth run -m foo x");
        assert!(
            text.starts_with("invalid argument \"foo\" for \"--memory\" flag: invalid size: 'foo'\n"),
            "{text}"
        );
        assert!(text.ends_with("Run 'berth run --help' for more information"), "{text}");
        assert_eq!(code, 125);
        let (text, code) = fail("berth run --pull perhaps x");
        assert!(text.contains("expected one of always, missing, never"), "{text}");
        assert_eq!(code, 125);
        assert_eq!(fail("berth run --name").1, 125);
        assert!(fail("berth run -d -a stdout x").0.starts_with("conflicting options: cannot specify both"));
    }

    #[test]
    fn a_wrong_number_of_arguments_is_1() {
        for line in ["berth run", "berth stop", "berth tag a", "berth ps x", "berth foo", "berth image foo"] {
            let (text, code) = fail(line);
            assert_eq!(code, 1, "{line}: {text}");
            assert!(text.starts_with("berth: "), "{text}");
        }
        assert!(fail("berth foo").0.starts_with("berth: unknown command: berth foo"));
        assert!(fail("berth imags").0.contains("(did you mean image, images?)"));
    }
}
