// SPDX-License-Identifier: Apache-2.0
//! Where a registry answers: its own host, or the mirrors that stand for it.

use std::{net::IpAddr, path::PathBuf};

use reqwest::Url;

use super::auth::Credentials;
pub use crate::config::{HostConfig, RegistryConfig};
use crate::{
    error::{Error, Kind, Result},
    image::reference::DEFAULT_REGISTRY,
};

/// Where docker.io answers the registry protocol.
const DOCKER_HUB: &str = "registry-1.docker.io";

impl RegistryConfig {
    /// Checks what can be checked without a network.
    ///
    /// # Errors
    /// `InvalidArgument` that names the entry.
    pub fn check(&self) -> Result<()> {
        for (name, host) in &self.hosts {
            own_url(name, host)?;
            host.mirrors.iter().try_for_each(|mirror| mirror_url(mirror).map(drop))?;
            if let Some(file) = host.ca_file.as_ref().filter(|file| !file.is_file()) {
                return Err(invalid(format!("registry {name}: no file {}", file.display())));
            }
        }
        Ok(())
    }
}

/// One place to ask.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// Base, without `/v2/`.
    pub url: Url,
    pub insecure: bool,
    pub ca_file: Option<PathBuf>,
    /// From the configuration.
    pub credentials: Option<Credentials>,
    /// A mirror: never given what is meant for the registry itself.
    pub mirror: bool,
}

/// The places that answer for `registry`, in the order to ask them.
pub(super) fn endpoints(config: &RegistryConfig, registry: &str) -> Result<Vec<Endpoint>> {
    let host = config.hosts.get(registry).cloned().unwrap_or_default();
    let mut endpoints = Vec::with_capacity(host.mirrors.len() + 1);
    for mirror in &host.mirrors {
        endpoints.push(Endpoint {
            url: mirror_url(mirror)?,
            insecure: host.insecure,
            ca_file: host.ca_file.clone(),
            credentials: None,
            mirror: true,
        });
    }
    if !host.mirrors_only || host.mirrors.is_empty() {
        let credentials =
            host.username.as_ref().zip(host.password.as_ref()).map(|(username, password)| Credentials {
                username: username.clone(),
                password: password.clone(),
                identity_token: String::new(),
            });
        endpoints.push(Endpoint {
            url: own_url(registry, &host)?,
            insecure: host.insecure,
            ca_file: host.ca_file,
            credentials,
            mirror: false,
        });
    }
    Ok(endpoints)
}

fn own_url(registry: &str, host: &HostConfig) -> Result<Url> {
    let name = if registry == DEFAULT_REGISTRY { DOCKER_HUB } else { registry };
    // A registry on this very machine is trusted to be what it says, as Docker
    // does; anything else speaks TLS unless the configuration says otherwise.
    let https = Url::parse(&format!("https://{name}/"));
    let https = https.map_err(|_| invalid(format!("invalid registry host {name:?}")))?;
    if host.plain_http || is_loopback(&https) {
        return Url::parse(&format!("http://{name}/"))
            .map_err(|_| invalid(format!("invalid registry host {name:?}")));
    }
    Ok(https)
}

fn mirror_url(text: &str) -> Result<Url> {
    let url = Url::parse(text).map_err(|e| invalid(format!("invalid registry mirror {text:?}: {e}")))?;
    let sound = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none();
    if !sound {
        return Err(invalid(format!(
            "invalid registry mirror {text:?}: want http://HOST[:PORT][/PREFIX] or https://…"
        )));
    }
    Ok(url)
}

/// Whether the host is this machine: `localhost`, 127.0.0.0/8, ::1.
pub(super) fn is_loopback(url: &Url) -> bool {
    url.host_str().is_some_and(|host| {
        host == "localhost"
            || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    })
}

fn invalid(words: String) -> Error {
    Error::new(Kind::InvalidArgument, words)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn urls(config: &str, registry: &str) -> Vec<String> {
        let config: RegistryConfig = toml::from_str(config).expect("toml");
        config.check().expect("valid");
        endpoints(&config, registry).expect("endpoints").into_iter().map(|e| e.url.to_string()).collect()
    }

    #[test]
    fn mirrors_come_first_and_plain_http_is_never_guessed() {
        assert_eq!(urls("", "docker.io"), ["https://registry-1.docker.io/"]);
        assert_eq!(urls("", "ghcr.io"), ["https://ghcr.io/"]);
        assert_eq!(urls("", "127.0.0.1:5000"), ["http://127.0.0.1:5000/"]);
        assert_eq!(urls("", "localhost:5000"), ["http://localhost:5000/"]);
        let mirrored = "[hosts.'docker.io']\nmirrors = ['http://127.0.0.1:5000', 'https://m.example/p']";
        assert_eq!(
            urls(mirrored, "docker.io"),
            ["http://127.0.0.1:5000/", "https://m.example/p", "https://registry-1.docker.io/"]
        );
        let only = "[hosts.'docker.io']\nmirrors = ['http://127.0.0.1:5000']\nmirrors_only = true";
        assert_eq!(urls(only, "docker.io"), ["http://127.0.0.1:5000/"]);
        let plain = "[hosts.'r.example:80']\nplain_http = true";
        assert_eq!(urls(plain, "r.example:80"), ["http://r.example/"]);
    }

    #[test]
    fn bad_mirrors_are_refused() {
        for bad in ["mirror.example", "ftp://a/", "http://user:pw@a/", "http://a/?q", ""] {
            let host = HostConfig { mirrors: vec![bad.to_owned()], ..HostConfig::default() };
            let config = RegistryConfig { hosts: BTreeMap::from([("docker.io".to_owned(), host)]) };
            assert_eq!(config.check().expect_err(bad).kind(), Kind::InvalidArgument, "{bad}");
        }
    }
}
