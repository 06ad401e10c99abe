// SPDX-License-Identifier: Apache-2.0
//! Where registries answer, as it is written. What the words mean is checked
//! and used by `image::registry`.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The `[registry]` section of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// Seconds in which a transfer has to move, or it is tried again.
    #[serde(deserialize_with = "super::value::positive")]
    pub stall_timeout: u32,
    /// Where containerd's `hosts.toml` and Docker's certificates are looked
    /// for, by registry: `DIRECTORY/HOST[:PORT]`, `DIRECTORY/_default`.
    pub config_dirs: Vec<PathBuf>,
    /// By registry, as references name it (`docker.io`, `localhost:5000`), or
    /// by the beginning of a repository (`ghcr.io/team`): the longest wins.
    pub hosts: BTreeMap<String, HostConfig>,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        let dirs = ["/etc/berth/certs.d", "/etc/containerd/certs.d", "/etc/docker/certs.d"];
        Self { stall_timeout: 30, config_dirs: dirs.map(PathBuf::from).to_vec(), hosts: BTreeMap::new() }
    }
}

/// `[registry.hosts."docker.io"]`. With one, no `hosts.toml` is looked for.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// Asked in this order before the registry itself: URLs such as
    /// `http://127.0.0.1:5000` or `https://mirror.example.com/prefix`.
    pub mirrors: Vec<String>,
    /// Ask the mirrors only, never the registry itself.
    pub mirrors_only: bool,
    /// Speak plain HTTP to the registry itself.
    pub plain_http: bool,
    /// Take any TLS certificate.
    pub insecure: bool,
    /// A PEM file of certificate authorities to trust besides the system's.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the certificate to show to the registry and its mirrors.
    pub client_cert: Option<PathBuf>,
    /// The private key that goes with `client_cert`, PEM.
    pub client_key: Option<PathBuf>,
    /// Sent along with each request to the registry itself.
    pub headers: BTreeMap<String, String>,
    /// Who to be, when a request doesn't say. Only sent to the registry
    /// itself, never to a mirror.
    pub username: Option<String>,
    /// The password that goes with `username`.
    pub password: Option<String>,
}

/// Without the password, and without the headers' values.
impl fmt::Debug for HostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mirrors, mirrors_only, plain_http, insecure, ca_file, client_cert, .. } = self;
        f.debug_struct("HostConfig")
            .field("mirrors", mirrors)
            .field("mirrors_only", mirrors_only)
            .field("plain_http", plain_http)
            .field("insecure", insecure)
            .field("ca_file", ca_file)
            .field("client_cert", client_cert)
            .field("headers", &self.headers.keys())
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}
