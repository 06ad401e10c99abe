// SPDX-License-Identifier: Apache-2.0
//! Credentials for registries, kept where Docker keeps them: in
//! `$DOCKER_CONFIG/config.json` (`~/.docker`), or with the credential helpers
//! that it names. The engine keeps none: they go along with each request.

mod file;
mod helper;

use berth::api::v1::RegistryAuth;

use self::file::File;
use crate::{error::Result, parse::reference::registry};

/// Docker Hub's name in every file and helper there is.
const HUB_KEY: &str = "https://index.docker.io/v1/";
const HUB: &str = "docker.io";

/// A registry, as `login` and `logout` are given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// As references have it.
    pub registry: String,
    /// As credentials are kept under.
    pub key: String,
}

impl Server {
    /// What `text` names: a host, or a URL as people paste it; nothing is
    /// Docker Hub.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let host = text.split_once("://").map_or(text, |(_, rest)| rest);
        let host = host.split('/').next().unwrap_or_default();
        match host {
            "" | HUB | "index.docker.io" | "registry-1.docker.io" => {
                Self { registry: HUB.to_owned(), key: HUB_KEY.to_owned() }
            }
            host => Self { registry: host.to_owned(), key: host.to_owned() },
        }
    }
}

/// Where credentials went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Readable in this file.
    File(String),
    /// With a helper.
    Helper,
}

/// What to send along for `image`, if anything is kept for its registry.
///
/// # Errors
/// A configuration that can't be read, a helper that fails.
pub fn for_image(image: &str) -> Result<Option<RegistryAuth>> {
    find(&Server::of(registry(image)))
}

/// What is kept for a registry.
///
/// # Errors
/// As [`for_image`].
pub fn find(server: &Server) -> Result<Option<RegistryAuth>> {
    let Some(file) = File::open()? else { return Ok(None) };
    match file.helper(&server.key) {
        Some(name) => helper::get(&name, &server.key),
        None => file.find(&server.key),
    }
}

/// Keeps credentials.
///
/// # Errors
/// As [`for_image`], and a file that can't be written.
pub fn keep(server: &Server, auth: &RegistryAuth) -> Result<Kept> {
    let mut file = File::open_or_new()?;
    if let Some(name) = file.helper(&server.key) {
        helper::store(&name, &server.key, auth)?;
        return Ok(Kept::Helper);
    }
    file.set(&server.key, auth);
    file.write()?;
    Ok(Kept::File(file.path().display().to_string()))
}

/// Forgets credentials. Whether there were any.
///
/// # Errors
/// As [`keep`].
pub fn forget(server: &Server) -> Result<bool> {
    let Some(mut file) = File::open()? else { return Ok(false) };
    if let Some(name) = file.helper(&server.key) {
        let known = helper::get(&name, &server.key)?.is_some();
        helper::erase(&name, &server.key)?;
        return Ok(known);
    }
    let known = file.remove(&server.key);
    if known {
        file.write()?;
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_in_many_ways() {
        for hub in ["", "docker.io", "https://index.docker.io/v1/", "registry-1.docker.io"] {
            assert_eq!(Server::of(hub), Server { registry: HUB.into(), key: HUB_KEY.into() }, "{hub}");
        }
        for own in ["r.example:5000", "https://r.example:5000/v2/", "http://r.example:5000"] {
            assert_eq!(Server::of(own).registry, "r.example:5000", "{own}");
            assert_eq!(Server::of(own).key, "r.example:5000", "{own}");
        }
    }
}
