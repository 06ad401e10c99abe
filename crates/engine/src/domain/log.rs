// SPDX-License-Identifier: Apache-2.0
//! What is wanted of a container's log: its driver, and the driver's options,
//! checked here and read here. Pure.

use std::{collections::BTreeMap, time::Duration};

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use super::size;
use crate::error::{Error, Kind, Result};

/// Where output goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogConfig {
    /// What becomes of the output.
    pub driver: LogDriver,
    /// As users write them; [`LogConfig::check`] says which there are.
    pub options: BTreeMap<String, String>,
}

/// What becomes of a container's output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogDriver {
    /// CRI text.
    #[default]
    Local,
    /// Docker's JSON lines.
    JsonFile,
    /// Nothing is kept.
    None,
    /// CRI text, which the engine hands on to the journal.
    Journald,
    /// CRI text, which the engine hands on to a syslog.
    Syslog,
}

/// How a line looks to a syslog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyslogFormat {
    /// As programs of the same host write it: RFC 3164 without the host.
    Unix,
    /// RFC 3164.
    Rfc3164,
    /// RFC 5424.
    Rfc5424,
    /// RFC 5424 with microseconds.
    Rfc5424Micro,
}

/// How a syslog is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyslogTransport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
    /// A stream on this host.
    Unix,
    /// Datagrams on this host.
    Unixgram,
}

/// Facilities by their numbers: RFC 5424, 6.2.1.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "",
    "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

/// Docker's default facility.
const DAEMON: u8 = 3;

/// How large a log gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a segment; 0: any number.
    pub max_size: u64,
    /// Segments, the current one included; 0: any number.
    pub max_files: u32,
    /// Age of a record, about; zero: any.
    pub max_age: Duration,
    /// Bytes on disk of all segments; 0: any number.
    pub max_total: u64,
}

/// Segments that a log may have.
const MOST_FILES: u32 = 1000;

impl LogDriver {
    const ALL: [Self; 5] = [Self::Local, Self::JsonFile, Self::None, Self::Journald, Self::Syslog];

    /// The driver of that name; empty is the default.
    ///
    /// # Errors
    /// `InvalidArgument` for an unknown one.
    pub fn of_word(word: &str) -> Result<Self> {
        if word.is_empty() {
            return Ok(Self::default());
        }
        Self::ALL.into_iter().find(|driver| driver.as_str() == word).ok_or_else(|| {
            let word = word.escape_debug();
            invalid(format!("logger: no log driver named '{word}' is registered"))
        })
    }

    /// The word that users write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::JsonFile => "json-file",
            Self::None => "none",
            Self::Journald => "journald",
            Self::Syslog => "syslog",
        }
    }

    /// Whether the engine hands lines on.
    #[must_use]
    pub fn forwards(self) -> bool {
        matches!(self, Self::Journald | Self::Syslog)
    }

    fn knows(self, option: &str) -> bool {
        match option {
            // How Docker's engine hands lines on; ours never holds one up.
            "mode" | "max-buffer-size" => true,
            "max-size" | "max-file" | "max-age" | "max-total" | "compress" | "labels" | "labels-regex"
            | "env" | "env-regex" | "tag" => self != Self::None,
            "syslog-address" | "syslog-facility" | "syslog-format" => self == Self::Syslog,
            _ => false,
        }
    }
}

impl LogConfig {
    /// Whether all options are known and can be honoured.
    ///
    /// # Errors
    /// `InvalidArgument` in Docker's words.
    pub fn check(&self) -> Result<()> {
        let driver = self.driver.as_str();
        for (name, value) in &self.options {
            if !self.driver.knows(name) {
                let name = name.escape_debug();
                return Err(invalid(format!("unknown log opt '{name}' for {driver} log driver")));
            }
            let good = match name.as_str() {
                "max-size" => value == "-1" || size::parse(value).is_some_and(|n| n > 0),
                "max-total" | "max-buffer-size" => size::parse(value).is_some_and(|n| n > 0),
                "max-file" => value.parse().is_ok_and(|n| (1..=MOST_FILES).contains(&n)),
                "max-age" => age(value).is_some_and(|age| !age.is_zero()),
                "compress" => boolean(value).is_some(),
                "mode" => matches!(value.as_str(), "blocking" | "non-blocking"),
                "tag" => tag(value, &BTreeMap::new()).is_some() && !value.contains(char::is_control),
                "labels-regex" | "env-regex" => pattern(value).is_some(),
                "syslog-address" => value.is_empty() || self.syslog_address().is_some(),
                "syslog-facility" => facility(value).is_some(),
                "syslog-format" => format(value).is_some(),
                _ => true,
            };
            if !good {
                return Err(invalid(format!("invalid value {value:?} for log opt '{name}'")));
            }
        }
        if self.option("compress").is_some_and(|value| boolean(value) == Some(true))
            && (self.option("max-file") == Some("1") || self.option("max-size") == Some("-1"))
        {
            return Err(invalid(
                "compress cannot be true when max-file is less than 2 or max-size is not set",
            ));
        }
        Ok(())
    }

    /// How large it gets; as in `defaults` for who says nothing.
    #[must_use]
    pub fn limits(&self, defaults: &Limits) -> Limits {
        let own_total = self.option("max-total").and_then(size::parse);
        let max_total = own_total.unwrap_or(defaults.max_total);
        let size = defaults.max_size;
        let max_size = match self.option("max-size") {
            // -1 is no limit.
            Some(text) => size::parse(text).unwrap_or(0),
            // At least two segments, or the whole log goes at once.
            None if max_total > 0 => size.min((max_total / 2).max(1)),
            None => size,
        };
        let max_files = match self.option("max-file").and_then(|n| n.parse().ok()) {
            Some(files) => files,
            None if own_total.is_some() => MOST_FILES,
            None => defaults.max_files,
        };
        let max_age = self.option("max-age").and_then(age).unwrap_or(defaults.max_age);
        Limits { max_size, max_files, max_age, max_total }
    }

    /// Whether segments are compressed once they are closed. Docker's tools
    /// read its JSON lines as they are.
    #[must_use]
    pub fn compress(&self) -> bool {
        self.option("compress").and_then(boolean).unwrap_or(self.driver != LogDriver::JsonFile)
    }

    /// What `--details` shows of each line: labels and variables that options
    /// name or match, and the tag.
    #[must_use]
    pub fn attributes(
        &self,
        labels: &BTreeMap<String, String>,
        env: &[String],
        names: &BTreeMap<&str, String>,
    ) -> BTreeMap<String, String> {
        let listed = |name: &str| self.option(name).unwrap_or_default().split(',').filter(|n| !n.is_empty());
        let matching = |name: &str| self.option(name).and_then(pattern);
        let mut found = BTreeMap::new();
        if let Some(wanted) = matching("labels-regex") {
            let wanted = labels.iter().filter(|(name, _)| wanted.is_match(name));
            found.extend(wanted.map(|(name, value)| (name.clone(), value.clone())));
        }
        if let Some(wanted) = matching("env-regex") {
            // Of several the last one counts, as for the program.
            let all = env.iter().filter_map(|line| line.split_once('='));
            let wanted = all.filter(|(name, _)| wanted.is_match(name));
            found.extend(wanted.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        for name in listed("labels") {
            if let Some(value) = labels.get(name) {
                found.insert(name.to_owned(), value.clone());
            }
        }
        for name in listed("env") {
            // The last one counts, as for the program.
            let value = env.iter().rev().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            if let Some(value) = value {
                found.insert(name.to_owned(), value.to_owned());
            }
        }
        if let Some(text) = self.option("tag").and_then(|template| tag(template, names)) {
            found.insert("tag".to_owned(), text);
        }
        found
    }

    /// How a syslog's lines look.
    #[must_use]
    pub fn syslog_format(&self) -> SyslogFormat {
        self.option("syslog-format").and_then(format).unwrap_or(SyslogFormat::Unix)
    }

    /// The facility's number.
    #[must_use]
    pub fn syslog_facility(&self) -> u8 {
        self.option("syslog-facility").and_then(facility).unwrap_or(DAEMON)
    }

    /// How a syslog is reached, and where: `host:port` or a path. `None`: the
    /// host's own.
    #[must_use]
    pub fn syslog_address(&self) -> Option<(SyslogTransport, String)> {
        let (scheme, rest) = self.option("syslog-address")?.split_once("://")?;
        let transport = match scheme {
            "udp" => SyslogTransport::Udp,
            "tcp" => SyslogTransport::Tcp,
            "unix" => SyslogTransport::Unix,
            "unixgram" => SyslogTransport::Unixgram,
            _ => return None,
        };
        if matches!(transport, SyslogTransport::Unix | SyslogTransport::Unixgram) {
            return rest.starts_with('/').then(|| (transport, rest.to_owned()));
        }
        let in_brackets = rest.ends_with(']');
        let port = rest.rsplit_once(':').filter(|_| !in_brackets).map(|(_, port)| port);
        match port {
            Some(port) if port.parse::<u16>().is_err() => None,
            Some(_) => Some((transport, rest.to_owned())),
            None if rest.is_empty() => None,
            // RFC 5426.
            None => Some((transport, format!("{rest}:514"))),
        }
    }

    pub(crate) fn option(&self, name: &str) -> Option<&str> {
        self.options.get(name).map(String::as_str)
    }
}

/// What a tag's template may name.
pub const TAG_FIELDS: [&str; 7] =
    ["ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "DaemonName"];

/// `{{.Name}}` and the like, filled in; `None` for a template that names
/// anything else.
#[must_use]
pub fn tag(template: &str, fields: &BTreeMap<&str, String>) -> Option<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}")?;
        let name = name.trim().strip_prefix('.')?;
        let name = TAG_FIELDS.into_iter().find(|known| *known == name)?;
        text.push_str(before);
        text.push_str(fields.get(name).map_or("", String::as_str));
        rest = after;
    }
    text.push_str(rest);
    Some(text)
}

/// A pattern as Go's regexp takes it; what is found anywhere in a name matches.
/// What it may cost is bounded.
fn pattern(text: &str) -> Option<Regex> {
    const LARGEST: usize = 1 << 20;
    RegexBuilder::new(text).size_limit(LARGEST).dfa_size_limit(LARGEST).build().ok()
}

/// `90s`, `15m`, `12h`, `7d`, `2w`.
fn age(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    number.parse::<u32>().ok().map(|n| Duration::from_secs(u64::from(n) * seconds))
}

fn format(text: &str) -> Option<SyslogFormat> {
    Some(match text {
        "" => SyslogFormat::Unix,
        "rfc3164" => SyslogFormat::Rfc3164,
        "rfc5424" => SyslogFormat::Rfc5424,
        "rfc5424micro" => SyslogFormat::Rfc5424Micro,
        _ => return None,
    })
}

/// A facility by its name or number.
fn facility(text: &str) -> Option<u8> {
    let number = match text {
        "" => DAEMON.into(),
        _ => FACILITIES
            .iter()
            .position(|name| *name == text)
            .or_else(|| text.parse().ok().filter(|n| *n < FACILITIES.len()))?,
    };
    u8::try_from(number).ok()
}

/// As Go reads them.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(driver: LogDriver, options: &[(&str, &str)]) -> LogConfig {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        LogConfig { driver, options }
    }

    #[test]
    fn options_are_known_and_sensible_or_refused_in_dockers_words() {
        for good in [
            ("max-size", "10m"),
            ("max-size", "-1"),
            ("max-file", "3"),
            ("max-age", "7d"),
            ("max-total", "1g"),
            ("compress", "true"),
            ("mode", "non-blocking"),
            ("tag", "{{.Name}}/{{ .ID }}"),
            ("labels", "a,b"),
            ("labels-regex", "^com\\.(a|b)"),
            ("env-regex", "^(A|B)"),
            ("env-regex", ""),
        ] {
            assert!(config(LogDriver::JsonFile, &[good]).check().is_ok(), "{good:?}");
        }
        for bad in [
            ("max-size", "0"),
            ("max-file", "0"),
            ("max-file", "1001"),
            ("max-age", "7"),
            ("max-age", "0s"),
            ("max-age", "ä"),
            ("max-total", "-1"),
            ("compress", "maybe"),
            ("mode", "later"),
            ("tag", "{{.Secret}}"),
            ("tag", "{{.ID"),
            ("labels-regex", "a("),
            ("env-regex", "((a{99}){99}){99}"),
        ] {
            let error = config(LogDriver::Local, &[bad]).check().expect_err(bad.1).to_string();
            assert!(error.contains(&format!("invalid value {:?} for log opt '{}'", bad.1, bad.0)), "{error}");
        }
        let unknown = config(LogDriver::JsonFile, &[("x", "1")]).check().expect_err("unknown").to_string();
        assert!(unknown.contains("unknown log opt 'x' for json-file log driver"), "{unknown}");
        assert!(config(LogDriver::None, &[("max-size", "1m")]).check().is_err());
        assert!(config(LogDriver::Local, &[("compress", "true"), ("max-file", "1")]).check().is_err());
        assert!(LogDriver::of_word("fluentd").expect_err("unknown").to_string().contains("'fluentd'"));
    }

    #[test]
    fn a_syslog_is_where_its_address_says() {
        let check = |name: &str, value: &str| config(LogDriver::Syslog, &[(name, value)]).check();
        let at = |value| config(LogDriver::Syslog, &[("syslog-address", value)]).syslog_address();
        assert_eq!(at("udp://1.2.3.4:99"), Some((SyslogTransport::Udp, "1.2.3.4:99".to_owned())));
        assert_eq!(at("tcp://log.example"), Some((SyslogTransport::Tcp, "log.example:514".to_owned())));
        assert_eq!(at("udp://[::1]"), Some((SyslogTransport::Udp, "[::1]:514".to_owned())));
        assert_eq!(at("unixgram:///dev/log"), Some((SyslogTransport::Unixgram, "/dev/log".to_owned())));
        for bad in ["1.2.3.4:5", "ftp://x", "tcp+tls://x:1", "unix://relative", "udp://x:y", "udp://"] {
            assert!(check("syslog-address", bad).is_err(), "{bad}");
        }
        for (word, number) in [("daemon", 3), ("local7", 23), ("5", 5), ("", 3)] {
            assert!(check("syslog-facility", word).is_ok());
            let config = config(LogDriver::Syslog, &[("syslog-facility", word)]);
            assert_eq!(config.syslog_facility(), number, "{word}");
        }
        for bad in ["mine", "24", "-1"] {
            assert!(check("syslog-facility", bad).is_err(), "{bad}");
        }
        assert!(check("syslog-format", "rfc9999").is_err() && check("tag", "a\nb").is_err());
        assert!(config(LogDriver::Journald, &[("syslog-address", "udp://x")]).check().is_err());
    }

    #[test]
    fn every_log_is_bounded_unless_its_user_says_otherwise() {
        let defaults = Limits { max_size: 20 << 20, max_files: 5, max_age: Duration::ZERO, max_total: 0 };
        let limits = |options| config(LogDriver::JsonFile, options).limits(&defaults);
        let Limits { max_size, max_files, max_age, max_total } = limits(&[]);
        assert_eq!((max_size, max_files, max_age, max_total), (20 << 20, 5, Duration::ZERO, 0));
        assert_eq!(limits(&[("max-size", "-1")]).max_size, 0);
        assert_eq!(limits(&[("max-age", "2d")]).max_age, Duration::from_secs(172_800));
        let total = limits(&[("max-total", "4m")]);
        assert_eq!((total.max_size, total.max_files, total.max_total), (2 << 20, MOST_FILES, 4 << 20));
        let week = Duration::from_secs(7 * 86_400);
        let others = Limits { max_age: week, max_total: 30 << 20, ..defaults };
        let log = |options| config(LogDriver::Local, options).limits(&others);
        assert_eq!(log(&[]), Limits { max_size: 15 << 20, ..others });
        let own = log(&[("max-age", "1h"), ("max-total", "1g")]);
        assert_eq!((own.max_age, own.max_total), (Duration::from_secs(3600), 1 << 30));
    }

    #[test]
    fn details_are_what_the_options_match() {
        let options =
            [("labels-regex", "^com\\."), ("env-regex", "^(A|SECRET$)"), ("labels", "b"), ("env", "Z")];
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let labels = [pair("com.a", "1"), pair("xcom.b", "2"), pair("b", "3")].into();
        let env = ["A=old", "AB=1", "A=2", "SECRETS=3", "Z=4", "bare"].map(str::to_owned);
        let found = config(LogDriver::Local, &options).attributes(&labels, &env, &BTreeMap::new());
        let expected = [pair("A", "2"), pair("AB", "1"), pair("Z", "4"), pair("b", "3"), pair("com.a", "1")];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn details_are_what_the_options_name() {
        let log = config(LogDriver::Local, &[("labels", "a,none"), ("env", "E"), ("tag", "x-{{.Name}}")]);
        let labels = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into();
        let env = ["E=old".to_owned(), "EE=3".to_owned(), "E=a=b".to_owned()];
        let names = [("Name", "web".to_owned())].into();
        let found: Vec<_> = log.attributes(&labels, &env, &names).into_iter().collect();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(found, [pair("E", "a=b"), pair("a", "1"), pair("tag", "x-web")]);
    }
}
