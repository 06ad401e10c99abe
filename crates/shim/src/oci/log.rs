// SPDX-License-Identifier: Apache-2.0
//! What callers read when something goes wrong: lines in the format of
//! logrus, which containerd, Docker and podman parse.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use serde_json::json;

use crate::io::log::clock::Timestamp;

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Json,
}

/// Where lines go: a file, or standard error.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) file: Option<PathBuf>,
    pub(super) format: Format,
    /// What is done is said, too.
    pub(super) debug: bool,
}

impl Log {
    /// What is being done, for who looks for a mistake. Steps that runc has,
    /// too, are called as runc calls them.
    pub(super) fn debug(&self, message: &str) {
        if self.debug {
            self.write("debug", message);
        }
    }

    /// Something failed that the caller may want to know of.
    pub(super) fn warn(&self, message: &str) {
        self.write("warning", message);
    }

    /// The verb failed: this is said on standard error, too.
    pub(super) fn error(&self, message: &str) {
        self.write("error", message);
        if self.file.is_some() {
            let _ = writeln!(io::stderr(), "{message}");
        }
    }

    fn write(&self, level: &str, message: &str) {
        let line = self.line(level, message);
        let result = match &self.file {
            Some(path) => OpenOptions::new()
                .append(true)
                .create(true)
                .mode(0o644)
                .open(path)
                .and_then(|mut file| file.write_all(line.as_bytes())),
            None => io::stderr().write_all(line.as_bytes()),
        };
        if let Err(e) = result {
            // A log that can't be written changes nothing of what is done.
            let _ = writeln!(io::stderr(), "{e}: {message}");
        }
    }

    fn line(&self, level: &str, message: &str) -> String {
        // Logrus has seconds, without a fraction.
        let now = Timestamp::now();
        let time = format!("{}Z", String::from_utf8_lossy(&now.as_bytes()[..19]));
        match self.format {
            Format::Json => format!("{}\n", json!({"level": level, "msg": message, "time": time})),
            Format::Text => format!("time=\"{time}\" level={level} msg={message:?}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_logrus_writes() {
        let json = Log { file: None, format: Format::Json, debug: false }.line("error", "a \"b\"");
        let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&value["level"], &value["msg"]), (&json!("error"), &json!("a \"b\"")));
        assert_eq!(value["time"].as_str().expect("time").len(), 20);
        let text = Log { file: None, format: Format::Text, debug: false }.line("warning", "a \"b\"");
        assert!(text.ends_with("Z\" level=warning msg=\"a \\\"b\\\"\"\n"), "{text}");
    }
}
