// SPDX-License-Identifier: Apache-2.0
//! The command line as runc has it: flags of the program, a verb, flags of
//! the verb between its arguments. One dash or two, a value in the next
//! argument or after `=`.
//!
//! Tables instead of a framework: a container's start is measured in
//! milliseconds, and a verb's help is its table.

use std::{
    ffi::{OsStr, OsString},
    fmt::Write as _,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
    process::ExitCode,
};

use super::{Context, Failure, Outcome, program};

/// A flag.
#[derive(Debug)]
pub(super) struct Flag {
    /// With two dashes.
    pub(super) name: &'static str,
    /// One letter, or empty.
    pub(super) short: &'static str,
    /// Takes a value.
    pub(super) value: bool,
    pub(super) help: &'static str,
}

/// A flag without a value.
pub(super) const fn switch(name: &'static str, short: &'static str, help: &'static str) -> Flag {
    Flag { name, short, value: false, help }
}

/// A flag with a value.
pub(super) const fn option(name: &'static str, short: &'static str, help: &'static str) -> Flag {
    Flag { name, short, value: true, help }
}

/// A verb.
#[derive(Debug)]
pub(super) struct Verb {
    pub(super) name: &'static str,
    pub(super) usage: &'static str,
    /// How its arguments are shown.
    pub(super) arguments: &'static str,
    pub(super) flags: &'static [Flag],
    /// From this argument on, nothing is a flag.
    pub(super) flags_until: usize,
    /// How many arguments it takes, at least and at most.
    pub(super) takes: (usize, usize),
    pub(super) run: fn(&Context, &Matches) -> Outcome,
}

/// What was given.
#[derive(Debug, Default)]
pub(super) struct Matches {
    flags: Vec<(&'static str, OsString)>,
    arguments: Vec<OsString>,
}

impl Matches {
    /// Whether a switch is set: the last one counts.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| value != "false")
    }

    /// The last value of a flag; an empty one is none.
    pub(super) fn value(&self, name: &str) -> Option<&OsStr> {
        let mut given = self.flags.iter().rev().filter(|(flag, _)| *flag == name);
        given.next().map(|(_, value)| value.as_os_str()).filter(|value| !value.is_empty())
    }

    /// As [`Self::value`], a path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    /// As [`Self::value`], a text.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Failure> {
        self.value(name).map(|value| text(name, value)).transpose()
    }

    /// As [`Self::value`], a number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Failure> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Failure::new(format!("invalid value \"{text}\" for flag -{name}")))
        };
        self.text(name)?.map(parse).transpose()
    }

    /// All values of a flag, in their order.
    pub(super) fn all(&self, name: &str) -> Result<Vec<&str>, Failure> {
        let given = self.flags.iter().filter(|(flag, _)| *flag == name);
        given.map(|(_, value)| text(name, value)).collect()
    }

    /// An argument.
    pub(super) fn argument(&self, index: usize) -> Result<Option<&str>, Failure> {
        self.arguments.get(index).map(|value| text("argument", value)).transpose()
    }

    /// The arguments from one on.
    pub(super) fn arguments(&self, from: usize) -> Result<Vec<String>, Failure> {
        self.arguments.iter().skip(from).map(|value| Ok(text("argument", value)?.to_owned())).collect()
    }

    /// The container's id, which is the first argument.
    pub(super) fn id(&self) -> Result<&str, Failure> {
        match self.argument(0)? {
            Some(id) if !id.is_empty() => Ok(id),
            _ => Err(Failure::new("container id cannot be empty")),
        }
    }
}

fn text<'a>(name: &str, value: &'a OsStr) -> Result<&'a str, Failure> {
    value.to_str().ok_or_else(|| Failure::new(format!("{name}: {} is not UTF-8", value.display())))
}

/// The arguments that are still to be looked at.
pub(super) type Rest = std::vec::IntoIter<OsString>;

/// What a command line asks for, beside errors.
#[derive(Debug)]
pub(super) enum Parsed {
    /// To be run.
    Run(Matches),
    /// `--help`.
    Help,
}

/// Takes flags until an argument; returns that, too.
pub(super) fn leading_flags(
    flags: &'static [Flag],
    rest: &mut Rest,
) -> Result<(Parsed, Option<OsString>), Failure> {
    let mut matches = Matches::default();
    while let Some(argument) = rest.next() {
        match as_flag(&argument) {
            None => return Ok((Parsed::Run(matches), Some(argument))),
            Some(flag) => {
                if take(flags, &flag, rest, &mut matches)?.is_none() {
                    return Ok((Parsed::Help, None));
                }
            }
        }
    }
    Ok((Parsed::Run(matches), None))
}

/// Takes everything that follows a verb.
pub(super) fn rest_of(verb: &Verb, rest: &mut Rest) -> Result<Parsed, Failure> {
    let mut matches = Matches::default();
    while let Some(argument) = rest.next() {
        if argument == "--" {
            matches.arguments.extend(rest.by_ref());
            break;
        }
        match as_flag(&argument).filter(|_| matches.arguments.len() < verb.flags_until) {
            None => matches.arguments.push(argument),
            Some(flag) => {
                if take(verb.flags, &flag, rest, &mut matches)?.is_none() {
                    return Ok(Parsed::Help);
                }
            }
        }
    }
    let given = matches.arguments.len();
    let (least, most) = verb.takes;
    let wrong = |how: &str, number: usize| {
        Err(Failure::new(format!("{}: \"{}\" requires {how} {number} argument(s)", program(), verb.name)))
    };
    match () {
        () if least == most && given != least => wrong("exactly", least),
        () if given < least => wrong("a minimum of", least),
        () if given > most => wrong("a maximum of", most),
        () => Ok(Parsed::Run(matches)),
    }
}

/// The name of a flag and what follows `=`. A lone dash is an argument.
fn as_flag(argument: &OsStr) -> Option<(Vec<u8>, Option<OsString>)> {
    let name = argument.as_bytes().strip_prefix(b"-").filter(|name| !name.is_empty())?;
    let name = name.strip_prefix(b"-").unwrap_or(name);
    let mut halves = name.splitn(2, |byte| *byte == b'=');
    let name = halves.next()?.to_vec();
    Some((name, halves.next().map(|value| OsString::from_vec(value.to_vec()))))
}

/// Takes a flag and its value; `None` for `--help`.
fn take(
    flags: &'static [Flag],
    (name, value): &(Vec<u8>, Option<OsString>),
    rest: &mut Rest,
    matches: &mut Matches,
) -> Result<Option<()>, Failure> {
    let is = |flag: &&Flag| {
        flag.name.as_bytes() == name || (!flag.short.is_empty() && flag.short.as_bytes() == name)
    };
    let shown = String::from_utf8_lossy(name);
    let Some(flag) = flags.iter().find(is) else {
        return match &**name {
            b"help" | b"h" => Ok(None),
            _ => Err(Failure::new(format!("flag provided but not defined: -{shown}"))),
        };
    };
    let value = match value {
        Some(value) => value.clone(),
        None if flag.value => {
            rest.next().ok_or_else(|| Failure::new(format!("flag needs an argument: -{shown}")))?
        }
        None => OsString::from("true"),
    };
    if !flag.value && value != "true" && value != "false" {
        let why = format!("invalid boolean value {value:?} for -{shown}");
        return Err(Failure::new(why));
    }
    matches.flags.push((flag.name, value));
    Ok(Some(()))
}

/// The help of a verb.
pub(super) fn help(verb: &Verb) -> ExitCode {
    let mut text = format!(
        "NAME:\n   {program} {name} - {usage}\n\nUSAGE:\n   {program} {name} [command options] {arguments}\n",
        program = program(),
        name = verb.name,
        usage = verb.usage,
        arguments = verb.arguments,
    );
    write_flags(&mut text, "OPTIONS", verb.flags);
    print!("{text}");
    ExitCode::SUCCESS
}

/// A list of flags, aligned.
pub(super) fn write_flags(text: &mut String, title: &str, flags: &[Flag]) {
    let left = |flag: &Flag| {
        let value = if flag.value { " value" } else { "" };
        match flag.short {
            "" => format!("--{}{value}", flag.name),
            short => format!("--{}{value}, -{short}{value}", flag.name),
        }
    };
    let width = flags.iter().map(|flag| left(flag).len()).max().unwrap_or(0);
    let _ = write!(text, "\n{title}:\n");
    for flag in flags {
        let _ = writeln!(text, "   {:width$}  {}", left(flag), flag.help);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERB: Verb = Verb {
        name: "test",
        usage: "",
        arguments: "",
        flags: &[switch("all", "a", ""), option("env", "e", ""), option("cwd", "", "")],
        flags_until: 1,
        takes: (1, 3),
        run: |_, _| Ok(ExitCode::SUCCESS),
    };

    fn parse(line: &str) -> Result<Matches, String> {
        let words: Vec<OsString> = line.split(' ').filter(|w| !w.is_empty()).map(OsString::from).collect();
        match rest_of(&VERB, &mut words.into_iter()) {
            Ok(Parsed::Run(matches)) => Ok(matches),
            Ok(Parsed::Help) => Err("help".to_owned()),
            Err(failure) => Err(failure.to_string()),
        }
    }

    #[test]
    fn flags_stand_before_and_after_the_id_in_every_form() {
        let matches = parse("-a --env A=1 -e=B=2 id -x --cwd").expect("valid");
        assert!(matches.has("all"));
        assert_eq!(matches.all("env").expect("text"), ["A=1", "B=2"]);
        assert_eq!(matches.arguments(0).expect("text"), ["id", "-x", "--cwd"]);
        assert_eq!(matches.value("cwd"), None);
        assert!(!parse("-a=false id").expect("valid").has("all"));
        assert_eq!(parse("-- -a").expect("valid").arguments(0).expect("text"), ["-a"]);
    }

    #[test]
    fn what_is_wrong_is_said_as_runc_says_it() {
        for (line, message) in [
            ("", &*format!("{}: \"test\" requires a minimum of 1 argument(s)", program())),
            ("a b c d", &format!("{}: \"test\" requires a maximum of 3 argument(s)", program())),
            ("--none id", "flag provided but not defined: -none"),
            ("--env", "flag needs an argument: -env"),
            ("--all=maybe id", "invalid boolean value \"maybe\" for -all"),
            ("--help", "help"),
        ] {
            assert_eq!(parse(line).expect_err(line), message);
        }
    }
}
