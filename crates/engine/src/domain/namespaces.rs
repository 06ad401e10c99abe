// SPDX-License-Identifier: Apache-2.0
//! Whose namespaces a container has: its own, the host's, or those of another
//! container. Words, and what doesn't go together. Pure.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};
use serde::{Deserialize, Serialize};

use super::container::{Config, NetworkMode};
use crate::error::{Error, Kind, Result};

/// Before the name or id of another container.
const CONTAINER: &str = "container:";

/// Whose namespace of processes a container has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PidMode {
    /// Its own.
    #[default]
    Private,
    /// The host's.
    Host,
    /// Another container's: its id.
    Container(String),
}

/// Whose System V objects, message queues and shared memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IpcMode {
    /// Its own.
    #[default]
    Private,
    /// Its own, which others may join.
    Shareable,
    /// Its own, without /dev/shm.
    None,
    /// The host's.
    Host,
    /// Another container's: its id.
    Container(String),
}

impl PidMode {
    /// Reads Docker's words.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub fn of_words(text: &str) -> Result<Self> {
        match (text, other(text)) {
            ("" | "private", _) => Ok(Self::Private),
            ("host", _) => Ok(Self::Host),
            (_, Some(name)) => Ok(Self::Container(name.to_owned())),
            _ => Err(invalid(format!("invalid PID mode: {}", text.escape_debug()))),
        }
    }

    /// Docker's words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Private => String::new(),
            Self::Host => "host".to_owned(),
            Self::Container(id) => format!("{CONTAINER}{id}"),
        }
    }
}

impl IpcMode {
    /// Reads Docker's words.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub fn of_words(text: &str) -> Result<Self> {
        match (text, other(text)) {
            ("" | "private", _) => Ok(Self::Private),
            ("shareable", _) => Ok(Self::Shareable),
            ("none", _) => Ok(Self::None),
            ("host", _) => Ok(Self::Host),
            (_, Some(name)) => Ok(Self::Container(name.to_owned())),
            _ => Err(invalid(format!("invalid IPC mode: {}", text.escape_debug()))),
        }
    }

    /// Docker's words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::Private => "private".to_owned(),
            Self::Shareable => "shareable".to_owned(),
            Self::None => "none".to_owned(),
            Self::Host => "host".to_owned(),
            Self::Container(id) => format!("{CONTAINER}{id}"),
        }
    }
}

impl NetworkMode {
    /// Reads Docker's words.
    ///
    /// # Errors
    /// `InvalidArgument`.
    pub fn of_words(text: &str) -> Result<Self> {
        match (text, other(text)) {
            ("" | "none", _) => Ok(Self::None),
            ("host", _) => Ok(Self::Host),
            (_, Some(name)) => Ok(Self::Container(name.to_owned())),
            _ => {
                let shown = text.escape_debug();
                let what =
                    format!("network {shown} not found: this version knows none, host and container:NAME");
                Err(invalid(what))
            }
        }
    }

    /// Docker's words.
    #[must_use]
    pub fn words(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Host => "host".to_owned(),
            Self::Container(id) => format!("{CONTAINER}{id}"),
        }
    }
}

/// A namespace that is private unless it is the host's: that of names, or of
/// cgroups.
///
/// # Errors
/// `InvalidArgument` for any other word.
pub fn is_host(what: &str, word: &str) -> Result<bool> {
    match word {
        "" | "private" => Ok(false),
        "host" => Ok(true),
        other => Err(invalid(format!("invalid {what} mode: {}", other.escape_debug()))),
    }
}

/// The other containers whose namespaces one wants, to be replaced by ids.
pub fn donors(config: &mut Config) -> impl Iterator<Item = &mut String> {
    let host = &mut config.host;
    let network = if let NetworkMode::Container(name) = &mut host.network { Some(name) } else { None };
    let pid = if let PidMode::Container(name) = &mut host.pid { Some(name) } else { None };
    let ipc = if let IpcMode::Container(name) = &mut host.ipc { Some(name) } else { None };
    [network, pid, ipc].into_iter().flatten()
}

/// Refuses what doesn't go together, in Docker's words.
///
/// # Errors
/// `InvalidArgument`.
pub fn check(config: &Config) -> Result<()> {
    let host = &config.host;
    if host.uts_host && !(config.hostname.is_empty() && config.domainname.is_empty()) {
        return Err(invalid("conflicting options: hostname and the UTS mode"));
    }
    if let NetworkMode::Container(_) = host.network {
        let conflict = |what: &str| Err(invalid(format!("conflicting options: {what} and the network mode")));
        if !config.hostname.is_empty() {
            return conflict("hostname");
        }
        if !(host.dns.is_empty() && host.dns_search.is_empty() && host.dns_options.is_empty()) {
            return conflict("dns");
        }
        if !host.extra_hosts.is_empty() {
            return conflict("custom host-to-IP mapping");
        }
    }
    Ok(())
}

/// What a container with users of its own can't share, in Docker's words.
///
/// # Errors
/// `InvalidArgument`.
pub fn check_own_users(config: &Config) -> Result<()> {
    let host = &config.host;
    let hosts = [
        ("network", host.network == NetworkMode::Host),
        ("PID", host.pid == PidMode::Host),
        ("IPC", host.ipc == IpcMode::Host),
        ("UTS", host.uts_host),
    ];
    if let Some((what, _)) = hosts.into_iter().find(|(_, shared)| *shared) {
        let what = format!("cannot share the host's {what} namespace when user namespaces are enabled");
        return Err(invalid(what));
    }
    if donors(&mut config.clone()).next().is_some() {
        return Err(invalid("cannot join another container's namespaces when user namespaces are enabled"));
    }
    Ok(())
}

/// Where the namespaces of others are that a container joins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Joined {
    /// Of the network.
    pub network: Option<PathBuf>,
    /// Of processes.
    pub pid: Option<PathBuf>,
    /// Of System V objects and message queues.
    pub ipc: Option<PathBuf>,
    /// Of mounts: that of whose shared memory is its own, too. It isn't joined.
    pub shm: Option<PathBuf>,
}

/// The namespaces of the specification: what isn't there is the host's.
#[must_use]
pub fn of(config: &Config, own_users: bool, joined: &Joined) -> Vec<LinuxNamespace> {
    let host = &config.host;
    let kinds = [
        (LinuxNamespaceType::Mount, true, &None),
        (LinuxNamespaceType::Uts, !host.uts_host, &None),
        (LinuxNamespaceType::Pid, host.pid != PidMode::Host, &joined.pid),
        (LinuxNamespaceType::Ipc, host.ipc != IpcMode::Host, &joined.ipc),
        (LinuxNamespaceType::Cgroup, !host.cgroupns_host, &None),
        (LinuxNamespaceType::Network, host.network != NetworkMode::Host, &joined.network),
        (LinuxNamespaceType::User, own_users, &None),
    ];
    let wanted = kinds.into_iter().filter(|(_, wanted, _)| *wanted);
    wanted
        .map(|(typ, _, path)| {
            let mut namespace = LinuxNamespace::default();
            namespace.set_typ(typ).set_path(path.clone());
            namespace
        })
        .collect()
}

fn other(text: &str) -> Option<&str> {
    text.strip_prefix(CONTAINER).filter(|name| !name.is_empty())
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_docker_s_both_ways() {
        for word in ["private", "shareable", "none", "host", "container:x"] {
            assert_eq!(IpcMode::of_words(word).expect(word).words(), word);
        }
        for word in ["", "host", "container:x"] {
            assert_eq!(PidMode::of_words(word).expect(word).words(), word);
        }
        for word in ["none", "host", "container:x"] {
            assert_eq!(NetworkMode::of_words(word).expect(word).words(), word);
        }
        assert!(IpcMode::of_words("container:").is_err() && PidMode::of_words("none").is_err());
        assert!(NetworkMode::of_words("bridge").is_err() && is_host("UTS", "container:x").is_err());
    }

    #[test]
    fn what_is_the_hosts_is_not_listed_and_what_is_joined_has_a_path() {
        let mut config = Config::default();
        config.host.uts_host = true;
        config.host.pid = PidMode::Host;
        config.host.network = NetworkMode::Container("x".to_owned());
        let joined = Joined { network: Some("/n".into()), ..Joined::default() };
        let all = of(&config, false, &joined);
        let listed: Vec<_> = all.iter().map(|n| (n.typ(), n.path().clone())).collect();
        assert_eq!(
            listed,
            [
                (LinuxNamespaceType::Mount, None),
                (LinuxNamespaceType::Ipc, None),
                (LinuxNamespaceType::Cgroup, None),
                (LinuxNamespaceType::Network, Some("/n".into())),
            ]
        );
        assert_eq!(donors(&mut config).map(|name| name.clone()).collect::<Vec<_>>(), ["x"]);
        assert!(check_own_users(&config).expect_err("host").to_string().contains("host's PID namespace"));
    }
}
