// SPDX-License-Identifier: Apache-2.0
//! Where registries answer, as it is written. What the words mean is checked
//! and used by `image::registry`.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The `[registry]` section of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RegistryConfig {
    /// By registry, as references name it: `docker.io`, `localhost:5000`.
    pub hosts: BTreeMap<String, HostConfig>,
}

/// `[registry.hosts."docker.io"]`.
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
    /// Who to be, when a request doesn't say. Only sent to the registry
    /// itself, never to a mirror.
    pub username: Option<String>,
    /// The password that goes with `username`.
    pub password: Option<String>,
}

/// Without the password.
impl fmt::Debug for HostConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mirrors, mirrors_only, plain_http, insecure, ca_file, username, password: _ } = self;
        f.debug_struct("HostConfig")
            .field("mirrors", mirrors)
            .field("mirrors_only", mirrors_only)
            .field("plain_http", plain_http)
            .field("insecure", insecure)
            .field("ca_file", ca_file)
            .field("username", username)
            .finish_non_exhaustive()
    }
}
