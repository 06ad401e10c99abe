// SPDX-License-Identifier: Apache-2.0
//! Where a registry answers: its own host, or the mirrors that stand for it,
//! as the configuration has them. What others left in directories is
//! `hosts_file`'s.

use std::{fmt, fs, net::IpAddr, path::Path};

use reqwest::{
    Url,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use super::{auth::Credentials, hosts_file};
pub use crate::config::{HostConfig, RegistryConfig};
use crate::{
    error::{Context as _, Error, Kind, Result},
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
            let registry = name.split('/').next().unwrap_or_default();
            own_url(registry, host.plain_http)?;
            host.mirrors.iter().try_for_each(|mirror| mirror_url(mirror).map(drop))?;
            headers(host.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))?;
            let files = [&host.ca_file, &host.client_cert, &host.client_key];
            if let Some(file) = files.into_iter().flatten().find(|file| !file.is_file()) {
                return Err(invalid(format!("registry {name}: no file {}", file.display())));
            }
            if host.client_key.is_some() && host.client_cert.is_none() {
                return Err(invalid(format!("registry {name}: client_key without client_cert")));
            }
        }
        Ok(())
    }
}

/// What a place may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Serves {
    /// What a tag stands for.
    pub resolve: bool,
    /// Content by its digest.
    pub pull: bool,
    /// To take content.
    pub push: bool,
}

/// Which certificates are believed, and which is shown.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Trust {
    /// Any certificate will do.
    pub insecure: bool,
    /// Authorities besides the system's: contents of PEM files.
    pub authorities: Vec<Vec<u8>>,
    /// Our own certificates, each with its key, PEM: the server takes its pick.
    pub identities: Vec<Vec<u8>>,
}

/// Without the key.
impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("insecure", &self.insecure)
            .field("authorities", &self.authorities.len())
            .field("identities", &self.identities.len())
            .finish()
    }
}

/// One place to ask.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// Base of the API, with a slash at its end: `https://ghcr.io/v2/`.
    pub url: Url,
    pub trust: Trust,
    /// For this origin only.
    pub headers: HeaderMap,
    /// From the configuration.
    pub credentials: Option<Credentials>,
    /// A mirror: never given what is meant for the registry itself.
    pub mirror: bool,
    /// The registry for which a mirror is asked, where it wants to be told.
    pub upstream: Option<String>,
    pub serves: Serves,
}

impl Endpoint {
    pub(super) const EVERYTHING: Serves = Serves { resolve: true, pull: true, push: true };
    const MIRROR: Serves = Serves { push: false, ..Self::EVERYTHING };

    /// The registry itself, as it is when nobody says anything about it.
    pub(super) fn own(registry: &str, plain_http: bool, trust: Trust) -> Result<Self> {
        Ok(Self {
            url: api(own_url(registry, plain_http)?),
            trust,
            headers: HeaderMap::new(),
            credentials: None,
            mirror: false,
            upstream: None,
            serves: Self::EVERYTHING,
        })
    }
}

/// The places that answer for `repository` of `registry`, in the order to ask
/// them. Blocks: files are read.
pub(super) fn endpoints(config: &RegistryConfig, registry: &str, repository: &str) -> Result<Vec<Endpoint>> {
    match entry(config, registry, repository) {
        Some((name, host)) => of_entry(name, host, registry),
        None => match hosts_file::find(&config.config_dirs, registry)? {
            Some(endpoints) => Ok(endpoints),
            None => Ok(vec![Endpoint::own(registry, false, Trust::default())?]),
        },
    }
}

/// The entry with the longest name that `registry/repository` begins with.
fn entry<'a>(
    config: &'a RegistryConfig,
    registry: &str,
    repository: &str,
) -> Option<(&'a str, &'a HostConfig)> {
    let whole = format!("{registry}/{repository}");
    let mut prefix = whole.trim_end_matches('/');
    loop {
        if let Some((name, host)) = config.hosts.get_key_value(prefix) {
            return Some((name, host));
        }
        prefix = prefix.rsplit_once('/')?.0;
    }
}

fn of_entry(name: &str, host: &HostConfig, registry: &str) -> Result<Vec<Endpoint>> {
    let trust = trust(name, host)?;
    let mut endpoints = Vec::with_capacity(host.mirrors.len() + 1);
    for mirror in &host.mirrors {
        endpoints.push(Endpoint {
            url: api(mirror_url(mirror)?),
            trust: trust.clone(),
            headers: HeaderMap::new(),
            credentials: None,
            mirror: true,
            upstream: None,
            serves: Endpoint::MIRROR,
        });
    }
    if !host.mirrors_only || host.mirrors.is_empty() {
        let own = Endpoint::own(registry, host.plain_http, trust)?;
        let pair = host.username.clone().zip(host.password.clone());
        endpoints.push(Endpoint {
            headers: headers(host.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))?,
            credentials: pair.map(|(username, password)| Credentials {
                username,
                password,
                identity_token: String::new(),
            }),
            ..own
        });
    }
    Ok(endpoints)
}

fn trust(name: &str, host: &HostConfig) -> Result<Trust> {
    let authorities = host.ca_file.iter().map(|file| read(file)).collect::<Result<_>>();
    let identities = host.client_cert.iter().map(|cert| identity(cert, host.client_key.as_deref()));
    let identities = identities.collect::<Result<_>>();
    let context = format!("set up registry {name}");
    Ok(Trust {
        insecure: host.insecure,
        authorities: authorities.map_err(|e| within(&context, e))?,
        identities: identities.map_err(|e| within(&context, e))?,
    })
}

/// A certificate and its key as one text; without `key`, the file has both.
pub(super) fn identity(cert: &Path, key: Option<&Path>) -> Result<Vec<u8>> {
    let mut pem = read(cert)?;
    if let Some(key) = key {
        pem.push(b'\n');
        pem.extend(read(key)?);
    }
    Ok(pem)
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("read {}", file.display()))
}

/// Headers, none of which is ever shown.
pub(super) fn headers<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let parsed = name.parse::<HeaderName>().ok().zip(HeaderValue::from_str(value).ok());
        let (name, mut value) = parsed.ok_or_else(|| invalid(format!("invalid registry header {name:?}")))?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

/// The API below a registry's address.
pub(super) fn api(mut url: Url) -> Url {
    let path = format!("{}/v2/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// Where the registry itself answers.
pub(super) fn own_url(registry: &str, plain_http: bool) -> Result<Url> {
    let name = if registry == DEFAULT_REGISTRY { DOCKER_HUB } else { registry };
    let parse = |scheme: &str| {
        Url::parse(&format!("{scheme}://{name}/"))
            .map_err(|_| invalid(format!("invalid registry host {name:?}")))
    };
    // A registry on this very machine is trusted to be what it says, as Docker
    // does; anything else speaks TLS unless the configuration says otherwise.
    let https = parse("https")?;
    if plain_http || is_loopback(&https) { parse("http") } else { Ok(https) }
}

pub(super) fn mirror_url(text: &str) -> Result<Url> {
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

/// What `error` happened in.
pub(super) fn within(context: &str, error: Error) -> Error {
    Error::new(error.kind(), context).with_source(error)
}

pub(super) fn invalid(words: String) -> Error {
    Error::new(Kind::InvalidArgument, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(config: &str, name: &str) -> Vec<String> {
        let config: RegistryConfig = toml::from_str(config).expect("toml");
        config.check().expect("valid");
        let (registry, repository) = name.split_once('/').unwrap_or((name, "a/b"));
        let found = endpoints(&config, registry, repository).expect("endpoints");
        found.into_iter().map(|e| e.url.to_string()).collect()
    }

    #[test]
    fn mirrors_come_first_and_plain_http_is_never_guessed() {
        assert_eq!(urls("", "docker.io"), ["https://registry-1.docker.io/v2/"]);
        assert_eq!(urls("", "ghcr.io"), ["https://ghcr.io/v2/"]);
        assert_eq!(urls("", "127.0.0.1:5000"), ["http://127.0.0.1:5000/v2/"]);
        assert_eq!(urls("", "localhost:5000"), ["http://localhost:5000/v2/"]);
        assert_eq!(urls("", "[::1]:5000"), ["http://[::1]:5000/v2/"]);
        let mirrored = "[hosts.'docker.io']\nmirrors = ['http://127.0.0.1:5000', 'https://m.example/p']";
        assert_eq!(
            urls(mirrored, "docker.io"),
            ["http://127.0.0.1:5000/v2/", "https://m.example/p/v2/", "https://registry-1.docker.io/v2/"]
        );
        let only = "[hosts.'docker.io']\nmirrors = ['http://127.0.0.1:5000']\nmirrors_only = true";
        assert_eq!(urls(only, "docker.io"), ["http://127.0.0.1:5000/v2/"]);
        let plain = "[hosts.'r.example:80']\nplain_http = true";
        assert_eq!(urls(plain, "r.example:80"), ["http://r.example/v2/"]);
    }

    #[test]
    fn the_longest_prefix_decides() {
        let config = "[hosts.'r.example']\nmirrors = ['https://all.example']\nmirrors_only = true\n\
                      [hosts.'r.example/team']\nmirrors = ['https://team.example']\nmirrors_only = true\n\
                      [hosts.'r.example/team/app']\nmirrors = []";
        assert_eq!(urls(config, "r.example/other"), ["https://all.example/v2/"]);
        assert_eq!(urls(config, "r.example/team/x/y"), ["https://team.example/v2/"]);
        assert_eq!(urls(config, "r.example/teams/x"), ["https://all.example/v2/"]);
        assert_eq!(urls(config, "r.example/team/app"), ["https://r.example/v2/"]);
        assert_eq!(urls(config, "r.example:1/team/x"), ["https://r.example:1/v2/"]);
    }

    #[test]
    fn bad_entries_are_refused() {
        for bad in ["mirror.example", "ftp://a/", "http://user:pw@a/", "http://a/?q", ""] {
            let config = format!("[hosts.'docker.io']\nmirrors = ['{bad}']");
            let config: RegistryConfig = toml::from_str(&config).expect("toml");
            assert_eq!(config.check().expect_err(bad).kind(), Kind::InvalidArgument, "{bad}");
        }
        for bad in ["headers = { 'a b' = 'c' }", "ca_file = '/none'", "client_key = '/dev/null'"] {
            let config = format!("[hosts.'docker.io']\n{bad}");
            let config: RegistryConfig = toml::from_str(&config).expect("toml");
            assert_eq!(config.check().expect_err(bad).kind(), Kind::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn no_secret_is_shown() {
        let config =
            "[hosts.'r.example']\nheaders = { x-token = 'hunter2' }\nusername = 'u'\npassword = 'pw'";
        let config: RegistryConfig = toml::from_str(config).expect("toml");
        let endpoints = endpoints(&config, "r.example", "a").expect("endpoints");
        let shown = format!("{config:?} {endpoints:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("pw"), "{shown}");
    }
}
