// SPDX-License-Identifier: Apache-2.0
//! Reads one Rust source file as the architecture rules see it: which paths
//! it names, which words it uses, which lines are tests.
//!
//! A tokenizer, not a parser: comments and literals are dropped, `use` trees
//! are expanded, and a path's first segment is replaced by what the file's
//! `use` lines say it stands for. Macros that build paths would escape it;
//! there are none.

use std::{collections::HashMap, ops::Range};

/// One source file.
#[derive(Debug)]
pub(crate) struct Source {
    /// From the root of the repository, with `/`.
    pub(crate) file: String,
    /// The text as it is.
    pub(crate) text: String,
    /// Every path outside tests: `["std", "fs", "read"]`; one that begins at
    /// `crate` carries the segments below it, `self` and `super` resolved.
    pub(crate) paths: Vec<Path>,
    /// Every identifier outside tests, a method's name included.
    pub(crate) words: Vec<Word>,
    /// Lines in `#[cfg(test)]` items.
    pub(crate) test_lines: usize,
}

/// A path that the code names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    /// `crate`, or the name of another crate, first.
    pub(crate) segments: Vec<String>,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// An identifier or keyword.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// As written, `r#` dropped.
    pub(crate) text: String,
    /// It stands behind a dot: a method or a field.
    pub(crate) member: bool,
    /// Counted from 1.
    pub(crate) line: usize,
}

impl Source {
    /// Reads `text`, the contents of `file`.
    pub(crate) fn new(file: &str, text: &str) -> Self {
        let (tokens, test_lines) = without_tests(tokenize(text));
        let paths = paths(&tokens, &module_of(file));
        let words = words(&tokens);
        Self { file: file.to_owned(), text: text.to_owned(), paths, words, test_lines }
    }

    /// The module in its crate: `["store", "meta"]`; empty for the root.
    pub(crate) fn module(&self) -> Vec<String> {
        module_of(&self.file)
    }

    /// The crate's directory: `crates/engine`, or empty for the root package.
    pub(crate) fn package(&self) -> &str {
        match self.file.split_once("/src/") {
            Some((package, _)) => package,
            None => "",
        }
    }
}

fn module_of(file: &str) -> Vec<String> {
    let inside = file.rsplit_once("src/").map_or(file, |(_, inside)| inside);
    let mut module: Vec<String> = inside.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let last = module.last().map(String::as_str);
    if matches!(last, Some("mod")) || (module.len() == 1 && matches!(last, Some("lib" | "main"))) {
        module.pop();
    }
    module
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Word(String),
    /// `::`
    Sep,
    Punct(char),
}

#[derive(Debug, Clone)]
struct Token {
    kind: Kind,
    line: usize,
}

impl Token {
    fn is(&self, c: char) -> bool {
        self.kind == Kind::Punct(c)
    }

    fn word(&self) -> Option<&str> {
        match &self.kind {
            Kind::Word(text) => Some(text),
            _ => None,
        }
    }
}

/// A literal leaves a `'"'` behind, so that what stands around it stays apart.
fn tokenize(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    while let Some(&c) = chars.get(at) {
        let begin = at;
        let next = chars.get(at + 1).copied();
        let mut push = |kind| tokens.push(Token { kind, line });
        if c == '/' && next == Some('/') {
            at = find(&chars, at, |c| c == '\n');
        } else if c == '/' && next == Some('*') {
            at = block_comment_end(&chars, at);
        } else if let Some(hashes) = raw_string(&chars[at..]) {
            at = raw_string_end(&chars, at, hashes);
            push(Kind::Punct('"'));
        } else if c == '"' {
            at = quoted_end(&chars, at + 1, '"');
            push(Kind::Punct('"'));
        } else if c == '\'' {
            // 'x' and '\n' are literals; 'x without its end is a lifetime.
            let literal = next == Some('\\') || chars.get(at + 2) == Some(&'\'');
            at = if literal {
                quoted_end(&chars, at + 1, '\'')
            } else {
                find(&chars, at + 1, |c| !is_word(c))
            };
        } else if is_word(c) {
            at = find(&chars, at, |c| !is_word(c));
            let mut word: String = chars[begin..at].iter().collect();
            if word == "r" && chars.get(at) == Some(&'#') {
                at = find(&chars, at + 1, |c| !is_word(c));
                word = chars[begin + 2..at].iter().collect();
            }
            push(Kind::Word(word));
        } else if c == ':' && next == Some(':') {
            at += 2;
            push(Kind::Sep);
        } else {
            at += 1;
            if !c.is_whitespace() {
                push(Kind::Punct(c));
            }
        }
        line += chars[begin..at.min(chars.len())].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first place from `at` where `stop` holds, or the end.
fn find(chars: &[char], at: usize, stop: impl Fn(char) -> bool) -> usize {
    chars[at..].iter().position(|c| stop(*c)).map_or(chars.len(), |n| at + n)
}

fn block_comment_end(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// How many hashes the raw string that begins here has.
fn raw_string(chars: &[char]) -> Option<usize> {
    let prefix = match chars {
        ['r', ..] => 1,
        ['b' | 'c', 'r', ..] => 2,
        _ => return None,
    };
    let hashes = chars[prefix..].iter().take_while(|c| **c == '#').count();
    (chars.get(prefix + hashes) == Some(&'"')).then_some(hashes)
}

fn raw_string_end(chars: &[char], at: usize, hashes: usize) -> usize {
    let mut at = find(chars, at, |c| c == '"') + 1;
    loop {
        at = find(chars, at, |c| c == '"') + 1;
        let closing = chars.iter().skip(at).take(hashes).filter(|c| **c == '#').count();
        if at > chars.len() || closing == hashes {
            return (at + hashes).min(chars.len());
        }
    }
}

fn quoted_end(chars: &[char], mut at: usize, quote: char) -> usize {
    while let Some(&c) = chars.get(at) {
        at += if c == '\\' { 2 } else { 1 };
        if c == quote {
            break;
        }
    }
    at.min(chars.len())
}

/// Drops `#[cfg(test)]` items; also says how many lines they had.
fn without_tests(tokens: Vec<Token>) -> (Vec<Token>, usize) {
    let (mut kept, mut at, mut lines) = (Vec::new(), 0, 0);
    while at < tokens.len() {
        if is_test_attribute(&tokens[at..]) {
            let end = item_end(&tokens, at);
            lines += tokens[end - 1].line - tokens[at].line + 1;
            at = end;
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    (kept, lines)
}

fn is_test_attribute(tokens: &[Token]) -> bool {
    let [hash, open, cfg, ..] = tokens else { return false };
    let inside = || tokens.iter().take_while(|t| !t.is(']')).filter_map(Token::word);
    hash.is('#')
        && open.is('[')
        && cfg.word() == Some("cfg")
        && inside().any(|w| w == "test")
        && inside().all(|w| w != "not")
}

/// Behind the item whose attributes begin at `at`.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while tokens.get(at).is_some_and(|t| t.is('#')) {
        at = group(tokens, at + 1).end;
    }
    let import = tokens.get(at).and_then(Token::word) == Some("use");
    while at < tokens.len() {
        let token = &tokens[at];
        if token.is(';') {
            return at + 1;
        }
        if token.is('{') && !import {
            return group(tokens, at).end;
        }
        at = if matches!(token.kind, Kind::Punct('(' | '[' | '{')) { group(tokens, at).end } else { at + 1 };
    }
    at
}

/// From the bracket at `at` to behind its partner.
fn group(tokens: &[Token], at: usize) -> Range<usize> {
    let mut depth = 0_usize;
    for (n, token) in tokens[at..].iter().enumerate() {
        match token.kind {
            Kind::Punct('(' | '[' | '{') => depth += 1,
            Kind::Punct(')' | ']' | '}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return at..at + n + 1;
        }
    }
    at..tokens.len()
}

fn words(tokens: &[Token]) -> Vec<Word> {
    let before = std::iter::once(None).chain(tokens.iter().map(Some));
    tokens
        .iter()
        .zip(before)
        .filter_map(|(token, before)| {
            let text = token.word()?.to_owned();
            Some(Word { text, member: before.is_some_and(|t| t.is('.')), line: token.line })
        })
        .collect()
}

fn paths(tokens: &[Token], module: &[String]) -> Vec<Path> {
    let (mut imports, mut named) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        let starts = at == 0 || !(tokens[at - 1].kind == Kind::Sep || tokens[at - 1].is('.'));
        match tokens[at].word() {
            Some("use") => {
                let end = at + find_token(&tokens[at..], ';');
                use_tree(&tokens[at + 1..end], &mut Vec::new(), &mut imports);
                at = end;
            }
            Some(_) if starts => {
                let path = inline_path(&tokens[at..]);
                at += 2 * path.segments.len() - 1;
                named.push(path);
            }
            _ => at += 1,
        }
    }
    let aliases: HashMap<String, Vec<String>> =
        imports.iter().map(|(path, name)| (name.clone(), absolute(path.segments.clone(), module))).collect();
    let imported = imports.into_iter().map(|(path, _)| path);
    // A bare word is a variable, a type in scope, …: its `use` line counted.
    imported
        .chain(named.into_iter().filter(|path| path.segments.len() > 1))
        .map(|path| Path { segments: absolute(unalias(path.segments, &aliases), module), line: path.line })
        .collect()
}

fn find_token(tokens: &[Token], c: char) -> usize {
    tokens.iter().position(|t| t.is(c)).unwrap_or(tokens.len())
}

fn inline_path(tokens: &[Token]) -> Path {
    let line = tokens[0].line;
    let mut segments = vec![tokens[0].word().unwrap_or_default().to_owned()];
    let mut rest = &tokens[1..];
    while let [Token { kind: Kind::Sep, .. }, Token { kind: Kind::Word(word), .. }, after @ ..] = rest {
        segments.push(word.clone());
        rest = after;
    }
    Path { segments, line }
}

/// Expands `a::{b, c::d as e}`: each path with the name it gets here.
fn use_tree(tokens: &[Token], prefix: &mut Vec<String>, out: &mut Vec<(Path, String)>) {
    let depth = prefix.len();
    let line = tokens.first().map_or(0, |t| t.line);
    let (mut at, mut renamed, mut leaf) = (0, None, true);
    while let Some(token) = tokens.get(at) {
        match &token.kind {
            Kind::Word(word) if word == "as" => {
                renamed = tokens.get(at + 1).and_then(Token::word).map(str::to_owned);
                at += 1;
            }
            Kind::Word(word) if word != "self" || prefix.is_empty() => prefix.push(word.clone()),
            Kind::Punct('*') => renamed = Some("*".to_owned()),
            Kind::Punct('{') => {
                let inside = group(tokens, at);
                for part in split_commas(&tokens[inside.start + 1..inside.end - 1]) {
                    use_tree(part, prefix, out);
                }
                leaf = false;
            }
            _ => {}
        }
        if !leaf {
            break;
        }
        at += 1;
    }
    if leaf && !tokens.is_empty() {
        let name = renamed.or_else(|| prefix.last().cloned()).unwrap_or_default();
        out.push((Path { segments: prefix.clone(), line }, name));
    }
    prefix.truncate(depth);
}

fn split_commas(tokens: &[Token]) -> Vec<&[Token]> {
    let (mut parts, mut begin, mut depth) = (Vec::new(), 0, 0_usize);
    for (n, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Punct('{') => depth += 1,
            Kind::Punct('}') => depth -= 1,
            Kind::Punct(',') if depth == 0 => {
                parts.push(&tokens[begin..n]);
                begin = n + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[begin..]);
    parts
}

fn unalias(segments: Vec<String>, aliases: &HashMap<String, Vec<String>>) -> Vec<String> {
    match segments.first().and_then(|first| aliases.get(first)) {
        Some(target) if target != &segments => target.iter().chain(&segments[1..]).cloned().collect(),
        _ => segments,
    }
}

/// Resolves a leading `self` or `super` against the file's module.
fn absolute(segments: Vec<String>, module: &[String]) -> Vec<String> {
    let mut base = module.to_vec();
    let mut rest = &segments[..];
    if !matches!(rest.first().map(String::as_str), Some("self" | "super")) {
        return segments;
    }
    while let Some((first, after)) = rest.split_first() {
        match first.as_str() {
            "self" => {}
            "super" => drop(base.pop()),
            _ => break,
        }
        rest = after;
    }
    std::iter::once("crate".to_owned()).chain(base).chain(rest.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths_in(file: &str, text: &str) -> Vec<String> {
        Source::new(file, text).paths.iter().map(|p| p.segments.join("::")).collect()
    }

    #[test]
    fn use_trees_are_expanded() {
        let text = "use crate::{a::{self, b as c}, d::*};\npub(crate) use e;";
        assert_eq!(paths_in("src/x.rs", text), ["crate::a", "crate::a::b", "crate::d", "e"]);
    }

    #[test]
    fn self_and_super_are_resolved_and_aliases_replaced() {
        let text = "use std::fs as disk; use super::y; fn f() { disk::read(y::z, self::w()) }";
        assert_eq!(
            paths_in("crates/engine/src/a/x.rs", text),
            ["std::fs", "crate::a::y", "std::fs::read", "crate::a::y::z", "crate::a::x::w"]
        );
        assert_eq!(paths_in("crates/engine/src/a/mod.rs", "use super::y;"), ["crate::y"]);
    }

    #[test]
    fn comments_and_literals_name_nothing() {
        let text = r####"
            // crate::a
            /* crate::b /* crate::c */ crate::d */
            const S: &str = "crate::e \" crate::f";
            const R: &str = r##"crate::g "# crate::h"##;
            fn f<'a>(x: &'a str) -> char { if x == "'" { '\'' } else { '"' } }
            fn g() { crate::found() }
        "####;
        assert_eq!(paths_in("src/x.rs", text), ["crate::found"]);
    }

    #[test]
    fn test_items_are_left_out_and_counted() {
        let text = "use crate::a;\n#[cfg(test)]\nuse crate::{b};\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n  use crate::c;\n}\n#[cfg(not(test))]\nuse crate::d;\n";
        let source = Source::new("src/x.rs", text);
        assert_eq!(source.test_lines, 7);
        assert_eq!(paths_in("src/x.rs", text), ["crate::a", "crate::d"]);
    }

    #[test]
    fn a_module_is_named_by_its_file() {
        assert_eq!(Source::new("crates/engine/src/store/meta/mod.rs", "").module(), ["store", "meta"]);
        assert!(Source::new("crates/engine/src/main.rs", "").module().is_empty());
        assert_eq!(Source::new("crates/engine/src/main.rs", "").package(), "crates/engine");
        assert_eq!(Source::new("src/lib.rs", "").package(), "");
    }
}
