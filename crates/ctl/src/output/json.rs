// SPDX-License-Identifier: Apache-2.0
//! JSON as Docker prints it: four spaces of indentation.

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::error::{Error, Result};

/// `value` over several lines, with a line break at the end.
///
/// # Errors
/// When a value can't be expressed in JSON.
pub fn pretty(value: &impl Serialize) -> Result<String> {
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, PrettyFormatter::with_indent(b"    "));
    value.serialize(&mut serializer).map_err(|e| Error::new(e.to_string()))?;
    out.push(b'\n');
    String::from_utf8(out).map_err(|e| Error::new(e.to_string()))
}

/// `value` in one line.
///
/// # Errors
/// When a value can't be expressed in JSON.
pub fn line(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Error::new(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_spaces() {
        let value = serde_json::json!([{"a": [], "b": {"c": 1}}]);
        assert_eq!(
            pretty(&value).expect("json"),
            "[\n    {\n        \"a\": [],\n        \"b\": {\n            \"c\": 1\n        }\n    }\n]\n"
        );
        assert_eq!(pretty(&serde_json::json!([])).expect("json"), "[]\n");
    }
}
