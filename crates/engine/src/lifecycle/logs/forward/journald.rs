// SPDX-License-Identifier: Apache-2.0
//! Lines in the journal's own protocol: fields of a name and a value, a
//! message a datagram.

use jiff::Timestamp;

use super::{Severity, Target};
use crate::domain::log::tag;

#[derive(Debug)]
pub(super) struct Encoder {
    /// The fields that every message has, encoded.
    fields: Vec<u8>,
}

impl Encoder {
    pub(super) fn new(target: &Target) -> Self {
        let name = |field: &str| target.names.get(field).cloned().unwrap_or_default();
        let template = target.config.option("tag").unwrap_or("{{.ID}}");
        let tag = tag(template, &target.names).unwrap_or_default();
        let mut fields = Vec::new();
        for (field, value) in [
            ("CONTAINER_ID", name("ID")),
            ("CONTAINER_ID_FULL", name("FullID")),
            ("CONTAINER_NAME", name("Name")),
            ("IMAGE_NAME", name("ImageName")),
            ("CONTAINER_TAG", tag.clone()),
            ("SYSLOG_IDENTIFIER", tag),
        ] {
            put(&mut fields, field, value.as_bytes());
        }
        for (field, value) in target.attributes.iter().filter(|(field, _)| *field != "tag") {
            if let Some(field) = harmless(field) {
                put(&mut fields, &field, value.as_bytes());
            }
        }
        Self { fields }
    }

    pub(super) fn message(&self, nanos: u64, severity: Severity, text: &[u8], partial: bool) -> Vec<u8> {
        let mut message = self.fields.clone();
        put(&mut message, "PRIORITY", (severity as u8).to_string().as_bytes());
        let time = Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or_default();
        put(&mut message, "SYSLOG_TIMESTAMP", format!("{time:.9}").as_bytes());
        if partial {
            put(&mut message, "CONTAINER_PARTIAL_MESSAGE", b"true");
        }
        put(&mut message, "MESSAGE", text);
        message
    }
}

/// A field; with its length where a newline would end it.
fn put(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    if value.contains(&b'\n') {
        out.push(b'\n');
        out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// A name that the journal takes: capitals, digits and underscores, none of
/// its own (which begin with an underscore) and none of ours.
fn harmless(name: &str) -> Option<String> {
    const OURS: [&str; 3] = ["MESSAGE", "PRIORITY", "IMAGE_NAME"];
    let upper = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' });
    let name: String = upper.collect::<String>().trim_start_matches('_').chars().take(64).collect();
    let taken =
        OURS.contains(&name.as_str()) || name.starts_with("CONTAINER_") || name.starts_with("SYSLOG_");
    let good = name.starts_with(|c: char| c.is_ascii_uppercase());
    (good && !taken).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_journals_and_nobody_stands_in_for_us() {
        for (name, expected) in [
            ("com.example.a-b", Some("COM_EXAMPLE_A_B")),
            ("_PID", Some("PID")),
            ("message", None),
            ("container_id", None),
            ("syslog.identifier", None),
            ("1st", None),
            ("__", None),
            ("ä", None),
        ] {
            assert_eq!(harmless(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn a_value_of_lines_has_its_length() {
        let mut out = Vec::new();
        put(&mut out, "A", b"x=y");
        put(&mut out, "B", b"1\n2");
        assert_eq!(out, b"A=x=y\nB\n\x03\0\0\0\0\0\0\x001\n2\n");
    }
}
