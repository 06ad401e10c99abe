// SPDX-License-Identifier: Apache-2.0
//! The engine's configuration: plain structs, their defaults, and reading
//! them from TOML.
//!
//! What a value means is checked while it is read, so that an error names its
//! line. Flags override the file in `main.rs`; nothing else reads the
//! environment.

mod images;
mod registry;
mod value;

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use images::{Images, Mark};
pub use registry::{HostConfig, RegistryConfig};
pub use value::{ByteSize, SocketPath, parse_cgroup_parent, parse_log_level};

use crate::error::{Error, Kind, Result};

/// Read when no file is named; it may be missing.
pub const DEFAULT_FILE: &str = "/etc/berth/config.toml";

/// Every setting at its default, with its explanation: what
/// `berthd config default` prints.
pub const DEFAULT_TEXT: &str = include_str!("../../../docs/config.toml");

/// All settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Images, containers, metadata: what survives a reboot.
    #[serde(deserialize_with = "value::absolute_path")]
    pub root: PathBuf,
    /// Sockets and bundles: what doesn't.
    #[serde(deserialize_with = "value::absolute_path")]
    pub state: PathBuf,
    /// The API's unix socket.
    pub address: SocketPath,
    /// Group that may use the socket, by name or number.
    pub socket_group: String,
    /// The shim's program; `None`: `berth-shim` beside `berthd`.
    #[serde(deserialize_with = "value::optional_path", skip_serializing_if = "Option::is_none")]
    pub shim: Option<PathBuf>,
    /// Threads that serve requests.
    #[serde(deserialize_with = "value::workers")]
    pub workers: usize,
    /// A second, encrypted door.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<Tcp>,
    /// The engine's own log.
    pub log: Log,
    /// Defaults of new containers.
    pub containers: Containers,
    /// What happened, and how long it is remembered.
    pub events: Events,
    /// Images on this machine.
    pub images: Images,
    /// Where images come from.
    pub registry: RegistryConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/berth".into(),
            state: "/run/berth".into(),
            address: SocketPath::new("/run/berth/berth.sock".into()),
            socket_group: "root".into(),
            shim: None,
            workers: 2,
            tcp: None,
            log: Log::default(),
            containers: Containers::default(),
            events: Events::default(),
            images: Images::default(),
            registry: RegistryConfig::default(),
        }
    }
}

/// The API over TCP. There is no way to have it without client certificates:
/// whoever reaches the API is root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    /// Where to listen.
    pub address: SocketAddr,
    /// The engine's certificate chain, PEM.
    #[serde(deserialize_with = "value::absolute_path")]
    pub cert: PathBuf,
    /// Its private key, PEM.
    #[serde(deserialize_with = "value::absolute_path")]
    pub key: PathBuf,
    /// The authority that clients' certificates must be signed by, PEM.
    #[serde(deserialize_with = "value::absolute_path")]
    pub client_ca: PathBuf,
}

/// The engine's own log, on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A level, or directives such as `info,berth_engine::image=debug`.
    #[serde(deserialize_with = "value::log_level")]
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text }
    }
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

/// Defaults of new containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Containers {
    /// Cgroup that holds all containers, below the root of each hierarchy.
    #[serde(deserialize_with = "value::cgroup_parent")]
    pub cgroup_parent: String,
    /// Seconds between a stop's SIGTERM and its SIGKILL.
    pub stop_timeout: u32,
    /// A log is rotated when it has this size.
    pub log_max_size: ByteSize,
    /// Log files kept of a container, the current one included.
    #[serde(deserialize_with = "value::positive")]
    pub log_max_file: u32,
    /// Seconds that a record is kept, about; 0: any number.
    pub log_max_age: u64,
    /// Bytes of all log files of a container; none: any number.
    #[serde(with = "value::optional_size")]
    pub log_max_total: Option<ByteSize>,
    /// Where the journal listens, for the log driver `journald`.
    pub journald_socket: PathBuf,
    /// Where files of the Container Device Interface are; the last one counts
    /// most.
    #[serde(deserialize_with = "value::absolute_paths")]
    pub cdi_spec_dirs: Vec<PathBuf>,
}

impl Default for Containers {
    fn default() -> Self {
        Self {
            cgroup_parent: "/berth".into(),
            stop_timeout: 10,
            log_max_size: ByteSize::mebibytes(20),
            log_max_file: 5,
            log_max_age: 0,
            log_max_total: None,
            journald_socket: "/run/systemd/journal/socket".into(),
            cdi_spec_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
        }
    }
}

/// What happened, and how long it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Events {
    /// Newest events kept.
    #[serde(deserialize_with = "value::positive")]
    pub retain: u32,
}

impl Default for Events {
    fn default() -> Self {
        Self { retain: 100_000 }
    }
}

impl Config {
    /// Reads `file`, or [`DEFAULT_FILE`] where that exists.
    ///
    /// # Errors
    /// `InvalidArgument` with file, line and key; those of the host.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        let path = file.unwrap_or(Path::new(DEFAULT_FILE));
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(e) if file.is_none() && e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Error::io(format!("read the configuration {}", path.display()), e)),
        }
    }

    /// Reads `text`, which came from `path`.
    ///
    /// # Errors
    /// `InvalidArgument` with file, line and key.
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        toml::from_str(text).map_err(|e| Error::new(Kind::InvalidArgument, describe(&e, text, path)))
    }

    /// Checks what no single value shows. Called once flags are applied.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub fn validate(&self) -> Result<()> {
        self.images.validate()?;
        let (root, state) = (&self.root, &self.state);
        if root.starts_with(state) || state.starts_with(root) {
            return Err(Error::new(
                Kind::InvalidArgument,
                format!(
                    "root ({}) and state ({}) must be separate directories, neither inside the other",
                    root.display(),
                    state.display()
                ),
            ));
        }
        Ok(())
    }
}

/// `file:line: key: what is wrong`.
fn describe(error: &toml::de::Error, text: &str, path: &Path) -> String {
    let message = error.message().trim_end().replace('\n', ", ");
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return format!("{}: {message}", path.display());
    };
    let number = before.matches('\n').count();
    let line = text.lines().nth(number).unwrap_or_default();
    let key = line.split_once('=').map_or("", |(key, _)| key.trim());
    if key.is_empty() || message.contains(&format!("`{key}`")) {
        format!("{}:{}: {message}", path.display(), number + 1)
    } else {
        format!("{}:{}: {key}: {message}", path.display(), number + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, Path::new("config.toml"))
    }

    #[track_caller]
    fn refused(text: &str) -> String {
        parse(text).expect_err("must be refused").to_string()
    }

    #[test]
    fn the_default_text_has_every_key_at_its_default() {
        assert_eq!(parse(DEFAULT_TEXT).expect("parses"), Config::default());
        let text: toml::Table = DEFAULT_TEXT.parse().expect("TOML");
        for (name, default) in toml::Table::try_from(Config::default()).expect("serialises") {
            assert_eq!(text.get(&name), Some(&default), "{name}");
        }
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parse("").expect("parses"), Config::default());
    }

    #[test]
    fn errors_name_file_line_and_key() {
        assert!(
            refused("root = \"/a\"\n\nrooot = \"/b\"\n")
                .starts_with("config.toml:3: unknown field `rooot`, expected one of `root`")
        );
        assert!(refused("[containers]\nstop_timeout = \"x\"").starts_with("config.toml:2: stop_timeout: "));
        assert_eq!(
            refused("state = \"run/berth\""),
            "config.toml:1: state: \"run/berth\" is not an absolute path"
        );
        assert!(refused("[log]\nlevel = \"loud\"").starts_with("config.toml:2: level: "));
        assert!(refused("[containers]\ncgroup_parent = \"/a/../b\"").starts_with("config.toml:2: "));
        assert!(refused("[events]\nretain = 0").starts_with("config.toml:2: retain: "));
        assert!(refused("workers = 1000").starts_with("config.toml:1: workers: "));
        assert!(refused("root = ").starts_with("config.toml:1: "));
    }

    #[test]
    fn tcp_without_client_certificates_is_refused() {
        let all = "[tcp]\naddress = \"127.0.0.1:7443\"\ncert = \"/c\"\nkey = \"/k\"\nclient_ca = \"/ca\"\n";
        assert_eq!(
            parse(all).expect("parses").tcp.expect("there").address,
            "127.0.0.1:7443".parse().expect("address")
        );
        for missing in ["cert", "key", "client_ca"] {
            let text: String = all
                .lines()
                .filter(|l| !l.starts_with(&format!("{missing} ")))
                .map(|l| format!("{l}\n"))
                .collect();
            assert!(refused(&text).contains(&format!("missing field `{missing}`")), "{missing}");
        }
    }

    #[test]
    fn a_named_file_must_exist() {
        let dir = tempfile::tempdir().expect("tempdir");
        let missing = dir.path().join("none.toml");
        assert!(Config::load(Some(&missing)).expect_err("missing").chain().contains("No such file"));
    }

    #[test]
    fn root_and_state_are_apart() {
        for (root, state) in [("/a", "/a"), ("/a", "/a/run"), ("/a/lib", "/a")] {
            let config = Config { root: root.into(), state: state.into(), ..Config::default() };
            assert!(config.validate().is_err(), "{root} {state}");
        }
        assert!(Config::default().validate().is_ok());
    }
}
