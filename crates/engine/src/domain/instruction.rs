// SPDX-License-Identifier: Apache-2.0
//! Instructions of a Dockerfile that change an image's configuration:
//! `--change` of `commit` and `import`. Pure.
//!
//! They are applied to the configuration as JSON, because Docker's has fields
//! that the OCI specification doesn't know, and none may be lost.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::error::{Error, Kind, Result};

/// An image's `config`, as it is stored.
pub type Config = Map<String, Value>;

/// What an image without a shell of its own runs text with.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies `lines`, one instruction each.
///
/// # Errors
/// `InvalidArgument`, with the instruction.
pub fn apply(config: &mut Config, lines: &[String]) -> Result<()> {
    let mut has_command = false;
    for line in lines {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let instruction = Instruction { word: word.to_ascii_uppercase(), rest: rest.trim() };
        instruction.apply(config, &mut has_command)?;
    }
    Ok(())
}

struct Instruction<'a> {
    word: String,
    rest: &'a str,
}

impl Instruction<'_> {
    fn apply(&self, config: &mut Config, has_command: &mut bool) -> Result<()> {
        match self.word.as_str() {
            "CMD" => {
                *has_command = true;
                config.insert("Cmd".to_owned(), self.command(config).into());
            }
            "ENTRYPOINT" => {
                config.insert("Entrypoint".to_owned(), self.command(config).into());
                // The image's was meant for another entrypoint.
                if !*has_command {
                    config.remove("Cmd");
                }
            }
            "ENV" => {
                let mut env = texts(config.get("Env"));
                let changes: Vec<_> =
                    self.pairs()?.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
                super::command::change(&mut env, &changes);
                config.insert("Env".to_owned(), env.into());
            }
            "LABEL" => {
                let labels = object(config, "Labels");
                labels.extend(self.pairs()?.into_iter().map(|(name, value)| (name, value.into())));
            }
            "EXPOSE" => {
                let ports = self.words()?.iter().map(|port| self.port(port)).collect::<Result<Vec<_>>>()?;
                object(config, "ExposedPorts").extend(ports.into_iter().map(|port| (port, json!({}))));
            }
            "VOLUME" => {
                let paths = self.json_list().map_or_else(|| self.words(), Ok)?;
                if paths.iter().any(String::is_empty) {
                    return Err(self.refused("VOLUME specified can not be an empty string"));
                }
                object(config, "Volumes").extend(paths.into_iter().map(|path| (path, json!({}))));
            }
            "USER" => self.set(config, "User")?,
            "WORKDIR" => {
                let before = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/");
                let joined = match self.one()? {
                    path if path.starts_with('/') => path,
                    path => format!("{}/{path}", before.trim_end_matches('/')),
                };
                config.insert("WorkingDir".to_owned(), cleaned(&joined).into());
            }
            "STOPSIGNAL" => {
                let signal = self.one()?;
                super::signal::parse(&signal)?;
                config.insert("StopSignal".to_owned(), signal.into());
            }
            "ONBUILD" => {
                let first = self.rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
                match first.as_str() {
                    "" => return Err(self.refused("ONBUILD requires at least one argument")),
                    "ONBUILD" => {
                        return Err(self.refused("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"));
                    }
                    "FROM" | "MAINTAINER" => {
                        return Err(self.refused(&format!("{first} isn't allowed as an ONBUILD trigger")));
                    }
                    _ => {}
                }
                let mut triggers = texts(config.get("OnBuild"));
                triggers.push(self.rest.to_owned());
                config.insert("OnBuild".to_owned(), triggers.into());
            }
            "HEALTHCHECK" => {
                config.insert("Healthcheck".to_owned(), self.health_check()?);
            }
            word => return Err(self.refused(&format!("{word} is not a valid change command"))),
        }
        Ok(())
    }

    fn refused(&self, why: &str) -> Error {
        let text = format!("{} {}", self.word, self.rest);
        Error::new(Kind::InvalidArgument, format!("{why}: {:?}", text.trim()))
    }

    /// A list in JSON as it is; anything else is for the shell.
    fn command(&self, config: &Config) -> Vec<String> {
        if let Some(list) = self.json_list() {
            return list;
        }
        let mut command = match texts(config.get("Shell")) {
            shell if shell.is_empty() => SHELL.map(str::to_owned).to_vec(),
            shell => shell,
        };
        command.push(self.rest.to_owned());
        command
    }

    fn json_list(&self) -> Option<Vec<String>> {
        if self.rest.starts_with('[') { serde_json::from_str(self.rest).ok() } else { None }
    }

    fn set(&self, config: &mut Config, field: &str) -> Result<()> {
        config.insert(field.to_owned(), self.one()?.into());
        Ok(())
    }

    fn one(&self) -> Result<String> {
        match self.words()?.as_slice() {
            [one] if !one.is_empty() => Ok(one.clone()),
            _ => Err(self.refused(&format!("{} requires exactly one argument", self.word))),
        }
    }

    /// At least one word; quotes and backslashes are the shell's.
    fn words(&self) -> Result<Vec<String>> {
        let words = split(self.rest).ok_or_else(|| self.refused("unterminated quote"))?;
        if words.is_empty() {
            return Err(self.refused(&format!("{} requires at least one argument", self.word)));
        }
        Ok(words)
    }

    /// `name=value …`, or the old `name value` in which the rest of the line
    /// is the value.
    fn pairs(&self) -> Result<Vec<(String, String)>> {
        let words = self.words()?;
        if !words[0].contains('=') {
            let (name, value) = self
                .rest
                .split_once(char::is_whitespace)
                .ok_or_else(|| self.refused(&format!("{} must have two arguments", self.word)))?;
            return Ok(vec![(name.to_owned(), value.trim().to_owned())]);
        }
        let pair = |word: &String| match word.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
            _ => Err(self.refused(&format!(
                "Syntax error - can't find = in {word:?}. Must be of the form: name=value"
            ))),
        };
        words.iter().map(pair).collect()
    }

    fn port(&self, text: &str) -> Result<String> {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
        let valid = matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last)
            && matches!(protocol.to_ascii_lowercase().as_str(), "tcp" | "udp" | "sctp");
        if !valid {
            return Err(self.refused(&format!("Invalid containerPort: {text}")));
        }
        Ok(format!("{range}/{}", protocol.to_ascii_lowercase()))
    }

    /// `NONE`, or options and `CMD` with what is to be run.
    fn health_check(&self) -> Result<Value> {
        let mut check = Map::new();
        let mut rest = self.rest;
        while let Some(option) = rest.strip_prefix("--") {
            let (option, behind) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
            rest = behind.trim_start();
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let (field, value) = match name {
                "retries" => ("Retries", value.parse::<u32>().ok().map(u64::from)),
                "interval" => ("Interval", nanos(value)),
                "timeout" => ("Timeout", nanos(value)),
                "start-period" => ("StartPeriod", nanos(value)),
                "start-interval" => ("StartInterval", nanos(value)),
                _ => return Err(self.refused(&format!("Unknown flag: {name}"))),
            };
            let value = value.ok_or_else(|| self.refused(&format!("invalid value of --{name}")))?;
            check.insert(field.to_owned(), value.into());
        }
        let (kind, test) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let test = test.trim();
        let words: Vec<String> = match kind.to_ascii_uppercase().as_str() {
            "NONE" if test.is_empty() && check.is_empty() => vec!["NONE".to_owned()],
            "NONE" => return Err(self.refused("HEALTHCHECK NONE takes no arguments")),
            "CMD" if test.is_empty() => return Err(self.refused("Missing command after HEALTHCHECK CMD")),
            "CMD" => match serde_json::from_str::<Vec<String>>(test) {
                Ok(list) if test.starts_with('[') => [vec!["CMD".to_owned()], list].concat(),
                _ => vec!["CMD-SHELL".to_owned(), test.to_owned()],
            },
            _ => return Err(self.refused("Unknown type in HEALTHCHECK (try CMD)")),
        };
        check.insert("Test".to_owned(), words.into());
        Ok(check.into())
    }
}

/// The strings in a list.
fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A field that is an object, made when it isn't.
fn object<'a>(config: &'a mut Config, field: &str) -> &'a mut Map<String, Value> {
    let value = config.entry(field).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    // Just made sure of.
    value.as_object_mut().unwrap_or_else(|| unreachable!("it is an object"))
}

/// Words of a line as a shell would have them; `None` for an open quote.
fn split(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), letter) if letter == open => quote = None,
            (Some('\''), letter) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(letter);
            }
            (_, '\\') => word.get_or_insert_default().push(letters.next().unwrap_or('\\')),
            (None, letter) if letter.is_whitespace() => words.extend(word.take()),
            (_, letter) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// A path without `.`, `..` and doubled slashes.
fn cleaned(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Go's durations: `1m30s`, `500ms`. Nothing negative.
fn nanos(text: &str) -> Option<u64> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest == "0" {
        return Some(0);
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end =
            rest[end..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| end + at);
        let unit = match &rest[end..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then(|| u64::try_from(total.as_nanos()).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(before: Value, lines: &[&str]) -> Result<Value> {
        let Value::Object(mut config) = before else { panic!("an object") };
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        apply(&mut config, &lines).map(|()| config.into())
    }

    #[test]
    fn each_instruction_does_what_a_build_would() {
        for (before, line, after) in [
            (json!({}), "CMD [\"a\", \"b c\"]", json!({"Cmd": ["a", "b c"]})),
            (json!({}), "cmd echo $HOME", json!({"Cmd": ["/bin/sh", "-c", "echo $HOME"]})),
            (
                json!({"Shell": ["sh", "-ec"]}),
                "CMD x",
                json!({"Shell": ["sh", "-ec"], "Cmd": ["sh", "-ec", "x"]}),
            ),
            (json!({"Cmd": ["x"]}), "ENTRYPOINT [\"a\"]", json!({"Entrypoint": ["a"]})),
            (json!({"Env": ["A=1", "B=2"]}), "ENV B=3 C=\"x y\"", json!({"Env": ["A=1", "B=3", "C=x y"]})),
            (json!({}), "ENV A some words", json!({"Env": ["A=some words"]})),
            (json!({"Labels": null}), "LABEL a=b 'c d'=e", json!({"Labels": {"a": "b", "c d": "e"}})),
            (
                json!({}),
                "EXPOSE 80 53/UDP 8000-8010",
                json!({"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "8000-8010/tcp": {}}}),
            ),
            (json!({}), "VOLUME /a /b", json!({"Volumes": {"/a": {}, "/b": {}}})),
            (json!({}), "VOLUME [\"/a b\"]", json!({"Volumes": {"/a b": {}}})),
            (json!({}), "USER 1000:100", json!({"User": "1000:100"})),
            (json!({"WorkingDir": "/srv"}), "WORKDIR ../x/./y", json!({"WorkingDir": "/x/y"})),
            (json!({}), "STOPSIGNAL SIGQUIT", json!({"StopSignal": "SIGQUIT"})),
            (json!({}), "ONBUILD RUN make", json!({"OnBuild": ["RUN make"]})),
            (json!({}), "HEALTHCHECK NONE", json!({"Healthcheck": {"Test": ["NONE"]}})),
            (
                json!({}),
                "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f localhost",
                json!({"Healthcheck": {"Test": ["CMD-SHELL", "curl -f localhost"], "Interval": 90_000_000_000_u64, "Retries": 3}}),
            ),
            (json!({}), "HEALTHCHECK CMD [\"true\"]", json!({"Healthcheck": {"Test": ["CMD", "true"]}})),
        ] {
            assert_eq!(changed(before, &[line]).expect(line), after, "{line}");
        }
        let kept = changed(json!({}), &["CMD [\"c\"]", "ENTRYPOINT [\"e\"]"]).expect("valid");
        assert_eq!(kept, json!({"Cmd": ["c"], "Entrypoint": ["e"]}), "a Cmd that was asked for stays");
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for (line, words) in [
            ("FROM scratch", "FROM is not a valid change command"),
            ("", "is not a valid change command"),
            ("ENV", "ENV requires at least one argument"),
            ("ENV A", "ENV must have two arguments"),
            ("ENV A=1 B", "can't find = in \"B\""),
            ("LABEL a=\"b", "unterminated quote"),
            ("EXPOSE 0", "Invalid containerPort: 0"),
            ("EXPOSE 80/http", "Invalid containerPort"),
            ("USER a b", "USER requires exactly one argument"),
            ("STOPSIGNAL SIGNOT", "SIGNOT"),
            ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
            ("HEALTHCHECK x", "Unknown type in HEALTHCHECK"),
            ("HEALTHCHECK --interval=-1s CMD x", "invalid value of --interval"),
            ("HEALTHCHECK --nope CMD x", "Unknown flag: nope"),
        ] {
            let error = changed(json!({}), &[line]).expect_err(line);
            assert!(error.to_string().contains(words), "{line}: {error}");
        }
    }
}
