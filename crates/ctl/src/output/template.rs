// SPDX-License-Identifier: Apache-2.0
//! A small part of Go's templates: what `--format` is used for.
//!
//! `{{.A.B}}`, `{{json .}}`, `{{upper .A}}` (lower, title, join, split, len,
//! index, truncate, println, print, eq, ne, not, and, or), pipes,
//! parentheses, `{{if}}…{{else}}…{{end}}`, `{{range}}…{{else}}…{{end}}` and
//! `{{range $k, $v := .A}}`, `{{-` and `-}}`. Parsed by [`super::template_parse`]
//! into [`Node`]s, evaluated here over JSON values and printed as Go prints.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{
    json,
    listing::Row,
    template_parse::{self, Call, Node, Pipeline, Term},
};
use crate::error::{Error, Result};

/// The name under which [`Row::labels`] hide from templates.
const LABELS: &str = " labels";

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    nodes: Vec<Node>,
}

/// What a field that isn't there means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// An error: rows and objects have a fixed set of fields.
    Values,
    /// Fields are the headers of columns, and functions leave them alone.
    Header,
}

struct Scope<'a> {
    mode: Mode,
    dot: Value,
    variables: Vec<(&'a str, Value)>,
    out: String,
}

impl Template {
    /// Takes a template apart.
    ///
    /// # Errors
    /// `template parsing error: …`.
    pub fn parse(text: &str) -> Result<Self> {
        let nodes = template_parse::parse(text)
            .map_err(|e| Error::new(format!("template parsing error: template: :1: {e}")))?;
        Ok(Self { nodes })
    }

    /// Fills it in with a value.
    ///
    /// # Errors
    /// When a field doesn't exist, or a function can't take its argument.
    pub fn render(&self, value: &Value) -> Result<String> {
        self.run(Mode::Values, value.clone(), Vec::new())
    }

    /// Fills it in with a row of a list.
    ///
    /// # Errors
    /// When a field doesn't exist, or a function can't take its argument.
    pub fn render_row(&self, row: &Row) -> Result<String> {
        let labels = row.labels.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
        self.run(Mode::Values, Value::Object(row.fields.clone()), vec![(LABELS, Value::Object(labels))])
    }

    /// The line of headers above rows of this template.
    ///
    /// # Errors
    /// When a field has no header.
    pub fn render_header(&self, headers: &Map<String, Value>) -> Result<String> {
        self.run(Mode::Header, Value::Object(headers.clone()), Vec::new())
    }

    fn run(&self, mode: Mode, dot: Value, variables: Vec<(&str, Value)>) -> Result<String> {
        let mut scope = Scope { mode, dot, variables, out: String::new() };
        scope.nodes(&self.nodes)?;
        Ok(scope.out)
    }
}

impl<'a> Scope<'a> {
    fn nodes(&mut self, nodes: &'a [Node]) -> Result<()> {
        nodes.iter().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &'a Node) -> Result<()> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline)?;
                print(&mut self.out, &value);
            }
            Node::If { condition, then, otherwise } => {
                let branch = if truth(&self.pipeline(condition)?) { then } else { otherwise };
                self.nodes(branch)?;
            }
            Node::Range { variables, over, body, otherwise } => {
                self.range(variables, over, body, otherwise)?
            }
        }
        Ok(())
    }

    fn range(
        &mut self,
        names: &'a [String],
        over: &'a Pipeline,
        body: &'a [Node],
        otherwise: &'a [Node],
    ) -> Result<()> {
        let items: Vec<(Value, Value)> = match self.pipeline(over)? {
            Value::Array(list) => list.into_iter().enumerate().map(|(i, v)| (Value::from(i), v)).collect(),
            Value::Object(map) => map.into_iter().map(|(k, v)| (Value::from(k), v)).collect(),
            Value::Null => Vec::new(),
            other => return Err(failed(&format!("range can't iterate over {}", shown(&other)))),
        };
        if items.is_empty() {
            return self.nodes(otherwise);
        }
        for (key, value) in items {
            let depth = self.variables.len();
            match names {
                [only] => self.variables.push((only, value.clone())),
                [first, second] => {
                    self.variables.push((first, key));
                    self.variables.push((second, value.clone()));
                }
                _ => {}
            }
            let outer = std::mem::replace(&mut self.dot, value);
            let result = self.nodes(body);
            self.dot = outer;
            self.variables.truncate(depth);
            result?;
        }
        Ok(())
    }

    fn pipeline(&self, pipeline: &Pipeline) -> Result<Value> {
        let mut piped = None;
        for call in &pipeline.0 {
            piped = Some(self.call(call, piped)?);
        }
        piped.ok_or_else(|| failed("missing value for command"))
    }

    fn call(&self, call: &Call, piped: Option<Value>) -> Result<Value> {
        let mut arguments: Vec<Value> = call.arguments.iter().map(|t| self.term(t)).collect::<Result<_>>()?;
        arguments.extend(piped);
        match &call.head {
            Term::Function(name) if self.mode == Mode::Header => Ok(header_of(name, arguments)),
            Term::Function(name) => function(name, &arguments),
            Term::Field(path) if path == &["Label"] && arguments.len() == 1 => self.label(&arguments[0]),
            head if arguments.is_empty() => self.term(head),
            head => Err(failed(&format!("can't give argument to non-function {head}"))),
        }
    }

    fn label(&self, key: &Value) -> Result<Value> {
        let name = key.as_str().ok_or_else(|| failed("Label takes a string"))?;
        if self.mode == Mode::Header {
            return Ok(Value::from(name.rsplit('.').next().unwrap_or(name)));
        }
        let labels = self.variables.iter().find(|(name, _)| *name == LABELS);
        Ok(labels.and_then(|(_, labels)| labels.get(name)).cloned().unwrap_or_else(|| "".into()))
    }

    fn term(&self, term: &Term) -> Result<Value> {
        match term {
            Term::Field(path) => walk(&self.dot, path, term),
            Term::Variable(name, path) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let (_, value) = found.ok_or_else(|| failed(&format!("undefined variable \"{name}\"")))?;
                walk(value, path, term)
            }
            Term::Literal(value) => Ok(value.clone()),
            Term::Group(pipeline, path) => walk(&self.pipeline(pipeline)?, path, term),
            Term::Function(name) if self.mode == Mode::Header => Ok(header_of(name, Vec::new())),
            Term::Function(name) => function(name, &[]),
        }
    }
}

/// Follows field names down from `value`.
fn walk(value: &Value, path: &[String], whole: &Term) -> Result<Value> {
    let mut at = value;
    for name in path {
        at = match at {
            Value::Object(map) => map.get(name).ok_or_else(|| unknown_field(whole, name))?,
            Value::Null => {
                return Err(failed_at(whole, &format!("nil pointer evaluating interface {{}}.{name}")));
            }
            _ => return Err(unknown_field(whole, name)),
        };
    }
    Ok(at.clone())
}

/// In a line of headers a function stands for the header it was given.
fn header_of(name: &str, mut arguments: Vec<Value>) -> Value {
    match name {
        "println" => Value::from("\n"),
        // The value comes first in these two, last in the others.
        "join" | "index" => arguments.into_iter().next().unwrap_or(Value::Null),
        _ => arguments.pop().unwrap_or(Value::Null),
    }
}

fn function(name: &str, arguments: &[Value]) -> Result<Value> {
    let wrong = || failed(&format!("wrong number or kind of arguments for {name}"));
    Ok(match (name, arguments) {
        ("json", [value]) => json::line(value)?.into(),
        ("upper", [Value::String(s)]) => s.to_uppercase().into(),
        ("lower", [Value::String(s)]) => s.to_lowercase().into(),
        ("title", [Value::String(s)]) => title(s).into(),
        ("join", [Value::Array(list), Value::String(by)]) => {
            list.iter().map(shown).collect::<Vec<_>>().join(by).into()
        }
        ("join", [Value::Null, Value::String(_)]) => "".into(),
        ("split", [Value::String(s), Value::String(by)]) => s.split(by.as_str()).collect::<Vec<_>>().into(),
        ("truncate", [Value::String(s), Value::Number(n)]) => {
            let width = n.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(wrong)?;
            s.chars().take(width).collect::<String>().into()
        }
        ("len", [Value::String(s)]) => s.len().into(),
        ("len", [Value::Array(list)]) => list.len().into(),
        ("len", [Value::Object(map)]) => map.len().into(),
        ("len", [Value::Null]) => 0.into(),
        ("index", [value, keys @ ..]) if !keys.is_empty() => index(value, keys)?,
        ("print", values) => values.iter().map(shown).collect::<String>().into(),
        ("println", values) => (values.iter().map(shown).collect::<Vec<_>>().join(" ") + "\n").into(),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => rest.contains(first).into(),
        ("ne", [a, b]) => (a != b).into(),
        ("not", [value]) => (!truth(value)).into(),
        ("and", [.., last]) => arguments.iter().find(|v| !truth(v)).unwrap_or(last).clone(),
        ("or", [.., last]) => arguments.iter().find(|v| truth(v)).unwrap_or(last).clone(),
        _ => return Err(wrong()),
    })
}

fn index(value: &Value, keys: &[Value]) -> Result<Value> {
    let mut at = value;
    for key in keys {
        at = match (at, key) {
            (Value::Array(list), Value::Number(n)) => {
                let position = n.as_u64().and_then(|n| usize::try_from(n).ok());
                position
                    .and_then(|p| list.get(p))
                    .ok_or_else(|| failed(&format!("error calling index: index out of range: {n}")))?
            }
            // A key that isn't there is Go's zero value.
            (Value::Object(map), Value::String(key)) => map.get(key).unwrap_or(&Value::Null),
            (Value::Null, _) => &Value::Null,
            _ => {
                return Err(failed(&format!(
                    "error calling index: can't index {} by {}",
                    shown(at),
                    shown(key)
                )));
            }
        };
    }
    Ok(if at.is_null() { Value::from("") } else { at.clone() })
}

fn title(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(b) => *b,
        Value::Number(n) => n.as_f64() != Some(0.0),
        Value::String(s) => !s.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

fn shown(value: &Value) -> String {
    let mut out = String::new();
    print(&mut out, value);
    out
}

/// As Go prints: strings bare, lists `[a b]`, maps `map[k:v]`.
fn print(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("<no value>"),
        Value::String(text) => out.push_str(text),
        Value::Array(list) => {
            out.push('[');
            for (i, item) in list.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { " " });
                print(out, item);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push_str("map[");
            for (i, (key, item)) in map.iter().enumerate() {
                out.push_str(if i == 0 { "" } else { " " });
                out.push_str(key);
                out.push(':');
                print(out, item);
            }
            out.push(']');
        }
        other => {
            // Writing to a string can't fail.
            let _ = write!(out, "{other}");
        }
    }
}

fn unknown_field(whole: &Term, name: &str) -> Error {
    failed_at(whole, &format!("can't evaluate field {name}"))
}

fn failed_at(whole: &Term, why: &str) -> Error {
    Error::new(format!("failed to execute template: template: :1: executing \"\" at <{whole}>: {why}"))
}

fn failed(why: &str) -> Error {
    Error::new(format!("failed to execute template: template: :1: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn render(template: &str, value: &Value) -> String {
        Template::parse(template).and_then(|t| t.render(value)).unwrap_or_else(|e| format!("E {e}"))
    }

    fn sample() -> Value {
        json!({
            "Id": "abc", "State": {"Running": true, "Pid": 7, "Error": ""},
            "Args": ["-c", "x"], "Labels": {"a.b": "1", "c": "2"}, "None": null,
        })
    }

    #[test]
    fn values_print_as_go_prints_them() {
        for (template, text) in [
            ("{{.Id}}", "abc"),
            ("{{ .State.Pid }}", "7"),
            ("{{.State.Running}}", "true"),
            ("{{.Args}}", "[-c x]"),
            ("{{.Labels}}", "map[a.b:1 c:2]"),
            ("{{.None}}", "<no value>"),
            ("a {{\"b\"}} {{1}} {{`c`}}", "a b 1 c"),
        ] {
            assert_eq!(render(template, &sample()), text, "{template}");
        }
    }

    #[test]
    fn functions() {
        for (template, text) in [
            ("{{json .Args}}", r#"["-c","x"]"#),
            ("{{.Args | json}}", r#"["-c","x"]"#),
            ("{{upper .Id}}{{lower \"X\"}}{{title .Id}}", "ABCxAbc"),
            ("{{join .Args \",\"}}", "-c,x"),
            ("{{len .Args}} {{len .Labels}} {{len .Id}}", "2 2 3"),
            ("{{index .Args 1}}", "x"),
            ("{{index .Labels \"a.b\"}}", "1"),
            ("{{index .Labels \"gone\"}}|", "|"),
            ("{{println .Id 1}}", "abc 1\n"),
            ("{{json (index .Args 0)}}", "\"-c\""),
            ("{{(index .Args 0) | upper}}", "-C"),
            ("{{index (split \"a:b\" \":\") 1}}", "b"),
            ("{{truncate .Id 2}}", "ab"),
            ("{{eq .Id \"abc\"}} {{ne .Id \"abc\"}} {{not .None}}", "true false true"),
            ("{{and .Id .State.Error}}|{{or .State.Error .Id}}", "|abc"),
        ] {
            assert_eq!(render(template, &sample()), text, "{template}");
        }
    }

    #[test]
    fn blocks() {
        for (template, text) in [
            ("{{if .State.Running}}up{{else}}down{{end}}", "up"),
            ("{{if .State.Error}}bad{{end}}", ""),
            ("{{if .None}}a{{else if .Id}}b{{else}}c{{end}}", "b"),
            ("{{range .Args}}<{{.}}>{{end}}", "<-c><x>"),
            ("{{range $k, $v := .Labels}}{{$k}}={{$v}};{{end}}", "a.b=1;c=2;"),
            ("{{range $i, $a := .Args}}{{if $i}},{{end}}{{$a}}{{end}}", "-c,x"),
            ("{{range .None}}x{{else}}none{{end}}", "none"),
            ("a {{- .Id -}} b", "aabcb"),
            ("{{/* nothing */}}x", "x"),
        ] {
            assert_eq!(render(template, &sample()), text, "{template}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (template, text) in [
            ("{{.Foo}}", "executing \"\" at <.Foo>: can't evaluate field Foo"),
            ("{{.State.Foo}}", "executing \"\" at <.State.Foo>: can't evaluate field Foo"),
            ("{{.Id", "unclosed action"),
            ("{{foo .Id}}", "function \"foo\" not defined"),
            ("{{if .Id}}", "unexpected EOF"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{else}}", "unexpected {{else}}"),
            ("{{\"a}}", "unterminated quoted string"),
            ("{{}}", "missing value for command"),
            ("{{index .Args 5}}", "index out of range: 5"),
            ("{{$x}}", "undefined variable \"$x\""),
            ("{{range .Id}}{{end}}", "range can't iterate over abc"),
            ("{{.Id .Id}}", "can't give argument to non-function .Id"),
        ] {
            let error = render(template, &sample());
            assert!(error.starts_with("E ") && error.contains(text), "{template}: {error}");
        }
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(text in "[{}.a-z$|()\"' \\-\\PC]{0,40}") {
            let _ = render(&text, &sample());
            let _ = render(&format!("{{{{{text}}}}}"), &sample());
        }
    }
}
