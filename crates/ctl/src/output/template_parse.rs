// SPDX-License-Identifier: Apache-2.0
//! The syntax of templates: text into [`Node`]s. What they mean is in
//! [`super::template`].

use std::{fmt, iter::Peekable, str::Chars};

use serde_json::Value;

/// Deepest nesting of blocks and parentheses.
const MAX_DEPTH: usize = 64;

const FUNCTIONS: [&str; 16] = [
    "json", "upper", "lower", "title", "join", "split", "truncate", "len", "index", "print", "println", "eq",
    "ne", "not", "and", "or",
];

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { variables: Vec<String>, over: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
}

/// Calls, each of which gets the one before as its last argument.
#[derive(Debug)]
pub(super) struct Pipeline(pub(super) Vec<Call>);

#[derive(Debug)]
pub(super) struct Call {
    pub(super) head: Term,
    pub(super) arguments: Vec<Term>,
}

#[derive(Debug)]
pub(super) enum Term {
    /// `.A.B`; `.` is the empty path.
    Field(Vec<String>),
    /// `$x.A`, with the dollar sign.
    Variable(String, Vec<String>),
    Literal(Value),
    Function(String),
    /// `(…).A`.
    Group(Pipeline, Vec<String>),
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = |path: &[String]| path.iter().map(|name| format!(".{name}")).collect::<String>();
        match self {
            Self::Field(names) if names.is_empty() => f.write_str("."),
            Self::Field(names) => f.write_str(&path(names)),
            Self::Variable(name, names) => write!(f, "{name}{}", path(names)),
            Self::Literal(value) => write!(f, "{value}"),
            Self::Function(name) => f.write_str(name),
            Self::Group(_, names) => write!(f, "(…){}", path(names)),
        }
    }
}

type Parsed<T> = Result<T, String>;

/// Text and the insides of `{{…}}`, with the white space trimmed that `{{-`
/// and `-}}` eat.
enum Piece<'a> {
    Text(&'a str),
    Action(&'a str),
}

/// How a list of nodes ended.
enum Close<'a> {
    Eof,
    End,
    /// With what follows the word: empty, or `if …`.
    Else(&'a str),
}

/// Parses a whole template.
pub(super) fn parse(text: &str) -> Parsed<Vec<Node>> {
    let mut pieces = pieces(text)?.into_iter();
    match nodes(&mut pieces, 0)? {
        (nodes, Close::Eof) => Ok(nodes),
        (_, Close::End) => Err("unexpected {{end}}".into()),
        (_, Close::Else(_)) => Err("unexpected {{else}}".into()),
    }
}

fn pieces(text: &str) -> Parsed<Vec<Piece<'_>>> {
    let mut out = Vec::new();
    let mut rest = text;
    let mut trim = false;
    loop {
        let (before, after) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        let before = if trim { before.trim_start() } else { before };
        let eats = after.is_some_and(|a| a.starts_with("- ") || a.starts_with("-/*"));
        let before = if eats { before.trim_end() } else { before };
        if !before.is_empty() {
            out.push(Piece::Text(before));
        }
        let Some(after) = after else { return Ok(out) };
        let after = if eats { &after[1..] } else { after };
        let end = action_end(after)?;
        let inside = &after[..end];
        trim = inside.ends_with(" -") || inside.ends_with("*/-");
        let inside = if trim { &inside[..inside.len() - 1] } else { inside }.trim();
        if !(inside.starts_with("/*") && inside.ends_with("*/")) {
            out.push(Piece::Action(inside));
        }
        rest = &after[end + 2..];
    }
}

/// Where the action's `}}` is, outside of quotes.
fn action_end(text: &str) -> Parsed<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text[at..].starts_with("}}") => return Ok(at),
            None => {}
        }
    }
    Err(if quote.is_some() { "unterminated quoted string" } else { "unclosed action" }.into())
}

fn nodes<'a>(pieces: &mut impl Iterator<Item = Piece<'a>>, depth: usize) -> Parsed<(Vec<Node>, Close<'a>)> {
    if depth > MAX_DEPTH {
        return Err("nested too deeply".into());
    }
    let mut out = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text(text) => {
                out.push(Node::Text(text.to_owned()));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, rest) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
        match word {
            "end" if rest.trim().is_empty() => return Ok((out, Close::End)),
            "else" => return Ok((out, Close::Else(rest.trim()))),
            "if" => out.push(if_block(rest, pieces, depth)?),
            "range" => out.push(range_block(rest, pieces, depth)?),
            _ => out.push(Node::Print(pipeline(action)?)),
        }
    }
    Ok((out, Close::Eof))
}

fn if_block<'a>(condition: &str, pieces: &mut impl Iterator<Item = Piece<'a>>, depth: usize) -> Parsed<Node> {
    let condition = pipeline(condition)?;
    let (then, end) = nodes(pieces, depth + 1)?;
    let otherwise = match end {
        Close::Eof => return Err("unexpected EOF".into()),
        Close::End => Vec::new(),
        Close::Else("") => closed(pieces, depth)?,
        Close::Else(rest) => {
            let next = rest.strip_prefix("if ").ok_or("unexpected word after else")?;
            if depth > MAX_DEPTH {
                return Err("nested too deeply".into());
            }
            // The `{{end}}` closes the whole chain.
            vec![if_block(next, pieces, depth + 1)?]
        }
    };
    Ok(Node::If { condition, then, otherwise })
}

fn range_block<'a>(over: &str, pieces: &mut impl Iterator<Item = Piece<'a>>, depth: usize) -> Parsed<Node> {
    let (names, over) = over.split_once(":=").unwrap_or(("", over));
    let variables: Vec<String> =
        names.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
    if variables.len() > 2 || variables.iter().any(|name| !name.starts_with('$')) {
        return Err("range takes one or two variables".into());
    }
    let over = pipeline(over)?;
    let (body, end) = nodes(pieces, depth + 1)?;
    let otherwise = match end {
        Close::Eof => return Err("unexpected EOF".into()),
        Close::End => Vec::new(),
        Close::Else("") => closed(pieces, depth)?,
        Close::Else(_) => return Err("unexpected word after else".into()),
    };
    Ok(Node::Range { variables, over, body, otherwise })
}

/// What is between `{{else}}` and its `{{end}}`.
fn closed<'a>(pieces: &mut impl Iterator<Item = Piece<'a>>, depth: usize) -> Parsed<Vec<Node>> {
    match nodes(pieces, depth + 1)? {
        (nodes, Close::End) => Ok(nodes),
        (_, Close::Else(_)) => Err("unexpected {{else}}".into()),
        (_, Close::Eof) => Err("unexpected EOF".into()),
    }
}

fn pipeline(text: &str) -> Parsed<Pipeline> {
    let mut chars = text.chars().peekable();
    let pipeline = pipeline_of(&mut chars, 0)?;
    match chars.next() {
        None => Ok(pipeline),
        Some(c) => Err(format!("unexpected {c:?} in operand")),
    }
}

fn pipeline_of(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Parsed<Pipeline> {
    if depth > MAX_DEPTH {
        return Err("nested too deeply".into());
    }
    let mut calls = Vec::new();
    loop {
        let mut terms = Vec::new();
        loop {
            while chars.next_if(|c| c.is_whitespace()).is_some() {}
            match chars.peek() {
                None | Some('|' | ')') => break,
                Some(_) => terms.push(term(chars, depth)?),
            }
        }
        if terms.is_empty() {
            return Err("missing value for command".into());
        }
        calls.push(Call { head: terms.remove(0), arguments: terms });
        if chars.next_if_eq(&'|').is_none() {
            return Ok(Pipeline(calls));
        }
    }
}

fn term(chars: &mut Peekable<Chars<'_>>, depth: usize) -> Parsed<Term> {
    let Some(&first) = chars.peek() else { return Err("unexpected EOF".into()) };
    match first {
        '.' => Ok(Term::Field(path(chars)?)),
        '(' => {
            chars.next();
            let inner = pipeline_of(chars, depth + 1)?;
            chars.next_if_eq(&')').ok_or("unclosed left paren")?;
            Ok(Term::Group(inner, path(chars)?))
        }
        '$' => {
            chars.next();
            let name = format!("${}", word(chars));
            Ok(Term::Variable(name, path(chars)?))
        }
        '"' | '`' => Ok(Term::Literal(Value::String(quoted(chars)?))),
        c if c.is_ascii_digit() || c == '-' => number(chars),
        _ => match word(chars).as_str() {
            "" => Err(format!("unexpected {first:?} in operand")),
            "true" => Ok(Term::Literal(true.into())),
            "false" => Ok(Term::Literal(false.into())),
            "nil" => Ok(Term::Literal(Value::Null)),
            name if FUNCTIONS.contains(&name) => Ok(Term::Function(name.to_owned())),
            name => Err(format!("function \"{name}\" not defined")),
        },
    }
}

/// `.A.B`, or nothing.
fn path(chars: &mut Peekable<Chars<'_>>) -> Parsed<Vec<String>> {
    let mut names = Vec::new();
    while chars.next_if_eq(&'.').is_some() {
        match word(chars) {
            name if !name.is_empty() => names.push(name),
            _ if names.is_empty() && !matches!(chars.peek(), Some('.')) => break,
            _ => return Err("unexpected <.> in operand".into()),
        }
    }
    Ok(names)
}

fn word(chars: &mut Peekable<Chars<'_>>) -> String {
    let mut out = String::new();
    while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
        out.push(c);
    }
    out
}

fn number(chars: &mut Peekable<Chars<'_>>) -> Parsed<Term> {
    let mut text: String = chars.next_if_eq(&'-').into_iter().collect();
    while let Some(c) = chars.next_if(|c| c.is_alphanumeric() || *c == '.') {
        text.push(c);
    }
    serde_json::from_str::<serde_json::Number>(&text)
        .map(|n| Term::Literal(Value::Number(n)))
        .map_err(|_| format!("bad number syntax: \"{text}\""))
}

fn quoted(chars: &mut Peekable<Chars<'_>>) -> Parsed<String> {
    let quote = chars.next();
    let mut out = String::new();
    while let Some(c) = chars.next() {
        match c {
            c if Some(c) == quote => return Ok(out),
            '\\' if quote == Some('"') => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(c @ ('"' | '\\')) => out.push(c),
                _ => return Err("invalid escape in string".into()),
            },
            c => out.push(c),
        }
    }
    Err("unterminated quoted string".into())
}
