// SPDX-License-Identifier: Apache-2.0
//! `--format` for lists: a table, a template per row, or JSON per row.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{json, table, template::Template};
use crate::error::Result;

/// One line of a list: its fields by their template names.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// `.ID`, `.Names`, …
    pub fields: Map<String, Value>,
    /// What `{{.Label "key"}}` looks up.
    pub labels: BTreeMap<String, String>,
}

impl Row {
    /// Adds a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }
}

/// How a list looks.
#[derive(Debug)]
pub enum Format {
    /// A table with headers.
    Table(Template),
    /// A template per row.
    Rows(Template),
    /// One JSON object per row.
    Json,
}

impl Format {
    /// What `--format` asks for; `default` is the template of the table that
    /// an empty format and a bare `table` stand for.
    ///
    /// # Errors
    /// When the template is malformed.
    pub fn parse(format: Option<&str>, default: &str) -> Result<Self> {
        match format.unwrap_or("table") {
            "table" | "" => Ok(Self::Table(Template::parse(default)?)),
            "json" => Ok(Self::Json),
            text => match text.strip_prefix("table ") {
                Some(template) => Ok(Self::Table(Template::parse(&unescape(template.trim_start()))?)),
                None => Ok(Self::Rows(Template::parse(&unescape(text))?)),
            },
        }
    }

    /// The list as text. `headers` names a column by its field.
    ///
    /// # Errors
    /// When a template names a field that rows don't have.
    pub fn render(&self, headers: &[(&str, &str)], rows: &[Row]) -> Result<String> {
        match self {
            Self::Json => rows.iter().map(|row| json::line(&row.fields).map(|line| line + "\n")).collect(),
            Self::Rows(template) => {
                rows.iter().map(|row| template.render_row(row).map(|line| line + "\n")).collect()
            }
            Self::Table(template) => {
                let header = headers.iter().map(|(k, v)| ((*k).to_owned(), Value::from(*v))).collect();
                let mut lines = vec![template.render_header(&header)?];
                for row in rows {
                    lines.push(template.render_row(row)?);
                }
                Ok(table::align(&lines))
            }
        }
    }
}

/// `\t` and `\n`, as they are typed in a shell's quotes.
pub(crate) fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: [(&str, &str); 2] = [("ID", "CONTAINER ID"), ("Names", "NAMES")];
    const DEFAULT: &str = "{{.ID}}\t{{.Names}}";

    fn rows() -> Vec<Row> {
        let mut first = Row::default().with("ID", "abc").with("Names", "one");
        first.labels.insert("k".into(), "v".into());
        vec![first, Row::default().with("ID", "def").with("Names", "two")]
    }

    fn render(format: Option<&str>) -> String {
        Format::parse(format, DEFAULT).expect("format").render(&HEADERS, &rows()).expect("render")
    }

    #[test]
    fn every_form() {
        let table = "CONTAINER ID   NAMES\nabc            one\ndef            two\n";
        assert_eq!(render(None), table);
        assert_eq!(render(Some("table")), table);
        assert_eq!(
            render(Some(r"table {{.Names}}\t{{.ID}}")),
            "NAMES     CONTAINER ID\none       abc\ntwo       def\n"
        );
        assert_eq!(render(Some("{{.ID}} {{.Names}}")), "abc one\ndef two\n");
        assert_eq!(
            render(Some("json")),
            "{\"ID\":\"abc\",\"Names\":\"one\"}\n{\"ID\":\"def\",\"Names\":\"two\"}\n"
        );
        assert_eq!(render(Some("{{json .Names}}")), "\"one\"\n\"two\"\n");
    }

    #[test]
    fn functions_leave_headers_alone() {
        assert_eq!(render(Some("table {{upper .ID}}")), "CONTAINER ID\nABC\nDEF\n");
        assert_eq!(render(Some("table {{json .ID}}")), "CONTAINER ID\n\"abc\"\n\"def\"\n");
    }

    #[test]
    fn a_label_is_looked_up_per_row() {
        assert_eq!(
            render(Some(r#"table {{.ID}}\t{{.Label "k"}}"#)),
            "CONTAINER ID   k\nabc            v\ndef            \n"
        );
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let format = Format::parse(Some("{{.Foo}}"), DEFAULT).expect("format");
        let error = format.render(&HEADERS, &rows()).expect_err("unknown").to_string();
        assert!(error.contains("executing \"\" at <.Foo>: can't evaluate field Foo"), "{error}");
    }
}
