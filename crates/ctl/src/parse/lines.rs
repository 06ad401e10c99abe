// SPDX-License-Identifier: Apache-2.0
//! Files of one assignment a line: `--env-file` and `--label-file`.

use std::{fs, path::Path};

use super::{Parsed, key_value};
use crate::error::os_words;

/// The environment of a file: `NAME=value` lines; a `NAME` alone takes the
/// caller's value and is left out when the caller has none.
///
/// # Errors
/// When the file can't be read or a line is malformed; the line is named.
pub fn env_file(path: &Path) -> Parsed<Vec<String>> {
    env_lines(&read(path)?, |name| std::env::var(name).ok()).map_err(|e| at(path, &e))
}

/// The labels of a file: `key=value` or `key` lines.
///
/// # Errors
/// When the file can't be read or a line is malformed; the line is named.
pub fn label_file(path: &Path) -> Parsed<Vec<(String, String)>> {
    assignments(&read(path)?)
        .and_then(|lines| lines.iter().map(|line| key_value::label(line)).collect())
        .map_err(|e| at(path, &e))
}

fn read(path: &Path) -> Parsed<String> {
    let bytes = fs::read(path).map_err(|e| format!("open {}: {}", path.display(), os_words(&e)))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|b| **b == b'\n').count() + 1;
        at(path, &format!("invalid utf8 bytes at line {line}"))
    })?;
    // Editors on other systems put a byte order mark in front.
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_owned))
}

fn at(path: &Path, message: &str) -> String {
    format!("invalid file {}: {message}", path.display())
}

fn env_lines(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Parsed<Vec<String>> {
    let mut out = Vec::new();
    for line in assignments(text)? {
        let variable = key_value::env(&line, &lookup)?;
        if variable.contains('=') {
            out.push(variable);
        }
    }
    Ok(out)
}

/// The lines that say something: no comments, no blank ones, no leading
/// white space; and no white space in a name.
fn assignments(text: &str) -> Parsed<Vec<String>> {
    let mut out = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.is_empty() {
            return Err(format!("no variable name on line '{line}'"));
        }
        if name.contains(char::is_whitespace) {
            return Err(format!("variable '{name}' contains whitespaces"));
        }
        out.push(line.to_owned());
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_say_nothing() {
        let text = "# c\n\n  A=1\nB= two words \nHOME\nGONE\n";
        let env = env_lines(text, |n| (n == "HOME").then(|| "/me".to_owned()));
        assert_eq!(env, Ok(vec!["A=1".into(), "B= two words ".into(), "HOME=/me".into()]));
    }

    #[test]
    fn bad_lines_are_named() {
        assert_eq!(assignments("a b=1"), Err("variable 'a b' contains whitespaces".into()));
        assert_eq!(assignments("=1"), Err("no variable name on line '=1'".into()));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_name() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        fs::write(file.path(), "\u{feff}A=1\nlabel\n").expect("write");
        assert_eq!(label_file(file.path()), Ok(vec![("A".into(), "1".into()), ("label".into(), "".into())]));
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_line() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        fs::write(file.path(), b"A=1\nB=\xff\n").expect("write");
        let error = env_file(file.path()).expect_err("not utf8");
        assert!(error.ends_with("invalid utf8 bytes at line 2"), "{error}");
        let error = env_file(Path::new("/no/such/file")).expect_err("missing");
        assert_eq!(error, "open /no/such/file: no such file or directory");
    }
}
