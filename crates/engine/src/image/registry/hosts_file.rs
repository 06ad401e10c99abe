// SPDX-License-Identifier: Apache-2.0
//! What other engines left about a registry: containerd's `hosts.toml`, and
//! the certificates that Docker keeps beside it. Read at each use, so that a
//! change needs no restart. Blocks.
//!
//! ```text
//! DIRECTORY/<host>_<port>_/, DIRECTORY/<host>[:<port>]/, DIRECTORY/_default/
//!   hosts.toml                    containerd's, or without it
//!   *.crt                         authorities
//!   *.cert, *.key                 our certificate and its key
//! ```

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use reqwest::Url;
use serde::Deserialize;
use toml::Spanned;

use super::hosts::{
    Endpoint, Serves, Trust, api, headers, identity, invalid, mirror_url, own_url, read, within,
};
use crate::{
    error::{Context as _, Error, Result},
    image::reference::DEFAULT_REGISTRY,
};

const DEFAULT: &str = "_default";

/// The whole file. What we don't know is for others.
#[derive(Deserialize)]
struct HostsFile {
    server: Option<String>,
    #[serde(default)]
    host: BTreeMap<String, Spanned<Table>>,
}

/// What it says of one host, and, at its top, of the server.
#[derive(Deserialize)]
struct Table {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMore<PathBuf>>,
    client: Option<OneOrMore<OneOrMore<PathBuf>>>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    header: BTreeMap<String, OneOrMore<String>>,
    #[serde(default)]
    override_path: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T> OneOrMore<T> {
    fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more,
        }
    }
}

/// What the first of `dirs` that knows `registry` says; what is said of all
/// registries comes after what is said of one.
///
/// # Errors
/// `InvalidArgument` that names the file, those of the host.
pub(super) fn find(dirs: &[PathBuf], registry: &str) -> Result<Option<Vec<Endpoint>>> {
    let with_port = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
    let names = with_port.as_deref().into_iter().chain([registry]);
    let of_this = names.flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
    let of_all = dirs.iter().map(|dir| dir.join(DEFAULT));
    for dir in of_this.chain(of_all) {
        if let Some(endpoints) = in_dir(&dir, registry)? {
            return Ok(Some(endpoints));
        }
    }
    Ok(None)
}

fn in_dir(dir: &Path, registry: &str) -> Result<Option<Vec<Endpoint>>> {
    let file = dir.join("hosts.toml");
    match fs::read_to_string(&file) {
        Ok(text) => {
            let parsed = toml::from_str(&text).and_then(|file| Ok((file, toml::from_str(&text)?)));
            let endpoints = parsed
                .map_err(|e| invalid(e.message().to_owned()))
                .and_then(|(file, server)| of_file(file, &server, dir, registry));
            endpoints.map(Some).map_err(|e| within(&format!("read {}", file.display()), e))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => certificates(dir, registry),
        // A directory's name may be too long, or a file be in its place.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::InvalidFilename) => {
            Ok(None)
        }
        Err(e) => Err(Error::io(format!("read {}", file.display()), e)),
    }
}

fn of_file(file: HostsFile, server: &Table, dir: &Path, registry: &str) -> Result<Vec<Endpoint>> {
    // In the order of the file, which is the order to ask in.
    let mut hosts: Vec<_> = file.host.into_iter().collect();
    hosts.sort_by_key(|(_, table)| table.span().start);
    let own = own_url(registry, false)?;
    let mut endpoints = Vec::with_capacity(hosts.len() + 1);
    for (name, table) in &hosts {
        let url = host_url(name)?;
        // The registry itself may be listed, to say how it is to be spoken to.
        let mirror = (url.host_str(), url.port()) != (own.host_str(), own.port());
        let upstream = mirror.then(|| registry.to_owned());
        endpoints.push(Endpoint { mirror, upstream, ..endpoint(url, table.get_ref(), dir)? });
    }
    let url = file.server.as_deref().map_or(Ok(own), host_url)?;
    endpoints.push(endpoint(url, server, dir)?);
    Ok(endpoints)
}

/// A host as the file names it: the scheme may be missing.
fn host_url(text: &str) -> Result<Url> {
    let text = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = mirror_url(&text)?;
    // Docker Hub's name isn't where it answers.
    if url.host_str() == Some(DEFAULT_REGISTRY) { own_url(DEFAULT_REGISTRY, false) } else { Ok(url) }
}

fn endpoint(mut url: Url, table: &Table, dir: &Path) -> Result<Endpoint> {
    let path = url.path().trim_end_matches('/').to_owned();
    if table.override_path || path.ends_with("/v2") {
        url.set_path(&format!("{path}/"));
    } else {
        url = api(url);
    }
    let named = |capability: &str| {
        table.capabilities.as_ref().is_none_or(|all| all.iter().any(|one| one == capability))
    };
    let values = table.header.iter().flat_map(|(name, values)| {
        values.as_slice().iter().map(move |value| (name.as_str(), value.as_str()))
    });
    Ok(Endpoint {
        url,
        trust: trust(table, dir)?,
        headers: headers(values)?,
        credentials: None,
        mirror: false,
        upstream: None,
        serves: Serves { resolve: named("resolve"), pull: named("pull"), push: named("push") },
    })
}

fn trust(table: &Table, dir: &Path) -> Result<Trust> {
    let authorities = table.ca.iter().flat_map(OneOrMore::as_slice);
    let authorities = authorities.map(|file| read(&dir.join(file))).collect::<Result<_>>()?;
    let pairs = table.client.iter().flat_map(OneOrMore::as_slice).map(OneOrMore::as_slice);
    let identities = pairs.filter_map(|pair| match pair {
        [] => None,
        [cert, key, ..] if !key.as_os_str().is_empty() => {
            Some(identity(&dir.join(cert), Some(&dir.join(key))))
        }
        [both, ..] => Some(identity(&dir.join(both), None)),
    });
    let identities = identities.collect::<Result<_>>()?;
    Ok(Trust { insecure: table.skip_verify, authorities, identities })
}

/// Docker's way: files by their endings.
fn certificates(dir: &Path, registry: &str) -> Result<Option<Vec<Endpoint>>> {
    let named = || format!("read the certificates in {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(named(), e)),
    };
    let mut files =
        entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>().with_context(named)?;
    files.sort();
    let ending =
        |wanted: &'static str| move |file: &&PathBuf| file.extension().is_some_and(|ending| ending == wanted);
    let authorities: Vec<_> =
        files.iter().filter(ending("crt")).map(|file| read(file)).collect::<Result<_>>()?;
    let certs = files.iter().filter(ending("cert"));
    let identities: Vec<_> =
        certs.map(|cert| identity(cert, Some(&cert.with_extension("key")))).collect::<Result<_>>()?;
    if authorities.is_empty() && identities.is_empty() {
        return Ok(None);
    }
    let trust = Trust { insecure: false, authorities, identities };
    let mut endpoint = Endpoint::own(registry, false, trust)?;
    // Who has certificates speaks TLS, on this machine too.
    if endpoint.url.set_scheme("https").is_err() {
        return Err(invalid(format!("invalid registry host {registry:?}")));
    }
    Ok(Some(vec![endpoint]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(files: &[(&str, &str)]) -> (tempfile::TempDir, Vec<PathBuf>) {
        let root = tempfile::tempdir().expect("tempdir");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
            fs::write(path, text).expect("write");
        }
        let dirs = vec![root.path().join("none"), root.path().join("a"), root.path().join("b")];
        (root, dirs)
    }

    fn found(dirs: &[PathBuf], registry: &str) -> Vec<String> {
        let found = find(dirs, registry).expect("find").unwrap_or_default();
        found.iter().map(|endpoint| endpoint.url.to_string()).collect()
    }

    #[test]
    fn containerds_files_are_taken_as_they_are() {
        let file = r#"
            server = "https://docker.io"
            [host."https://z.example"]
              capabilities = ["pull", "resolve"]
              skip_verify = true
              ca = ["one.crt", "two.crt"]
              client = [["own.cert", "own.key"], ["other.pem", ""]]
              dial_timeout = "3s"
              [host."https://z.example".header]
                x-one = "1"
                x-many = ["2", "3"]
            [host."http://a.example:5000/v2/hub"]
              capabilities = ["pull"]
              override_path = true
            [host."m.example/v2"]
            [host."https://registry-1.docker.io"]
        "#;
        let pem = |name: &str| format!("-{name}-");
        let files = ["one.crt", "two.crt", "own.cert", "own.key", "other.pem"]
            .map(|name| (format!("a/docker.io/{name}"), pem(name)));
        let mut all: Vec<(&str, &str)> =
            files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        all.push(("a/docker.io/hosts.toml", file));
        let (_root, dirs) = dirs(&all);
        let endpoints = find(&dirs, "docker.io").expect("find").expect("found");
        let urls: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect();
        assert_eq!(
            urls,
            [
                "https://z.example/v2/",
                "http://a.example:5000/v2/hub/",
                "https://m.example/v2/",
                "https://registry-1.docker.io/v2/",
                "https://registry-1.docker.io/v2/",
            ]
        );
        let mirrors: Vec<bool> = endpoints.iter().map(|endpoint| endpoint.mirror).collect();
        assert_eq!(mirrors, [true, true, true, false, false]);
        let first = &endpoints[0];
        assert_eq!(first.serves, Serves { resolve: true, pull: true, push: false });
        assert_eq!(endpoints[1].serves, Serves { resolve: false, pull: true, push: false });
        assert_eq!(endpoints[2].serves, Endpoint::EVERYTHING);
        assert_eq!(first.upstream.as_deref(), Some("docker.io"));
        assert!(first.trust.insecure && first.trust.authorities.len() == 2);
        assert_eq!(first.trust.identities, [&b"-own.cert-\n-own.key-"[..], b"-other.pem-"]);
        let many: Vec<_> = first.headers.get_all("x-many").iter().collect();
        assert_eq!(many, ["2", "3"]);
        assert!(first.headers.values().all(reqwest::header::HeaderValue::is_sensitive));
    }

    #[test]
    fn the_registry_comes_before_the_default_and_one_directory_before_the_next() {
        let host = |name: &str| format!("[host.'http://{name}']");
        let (first, second, all) = (host("first"), host("second"), host("all"));
        let (_root, dirs) = dirs(&[
            ("a/_default/hosts.toml", &all),
            ("b/r.example_5000_/hosts.toml", &first),
            ("b/r.example:5000/hosts.toml", &second),
            ("b/plain.example/hosts.toml", "server = 'http://plain.example'"),
        ]);
        assert_eq!(found(&dirs, "r.example:5000"), ["http://first/v2/", "https://r.example:5000/v2/"]);
        assert_eq!(found(&dirs, "ghcr.io"), ["http://all/v2/", "https://ghcr.io/v2/"]);
        assert_eq!(found(&dirs, "plain.example"), ["http://plain.example/v2/"]);
        assert!(find(&dirs[..1], "ghcr.io").expect("find").is_none());
    }

    #[test]
    fn a_registry_that_is_listed_as_its_own_host_is_itself() {
        let (_root, dirs) = dirs(&[(
            "a/10.0.0.1:5000/hosts.toml",
            "[host.'http://10.0.0.1:5000']\n[host.'http://10.0.0.1:6000']",
        )]);
        let endpoints = find(&dirs, "10.0.0.1:5000").expect("find").expect("found");
        let mirrors: Vec<bool> = endpoints.iter().map(|endpoint| endpoint.mirror).collect();
        assert_eq!(mirrors, [false, true, false]);
    }

    #[test]
    fn dockers_certificates_are_found() {
        let (_root, dirs) = dirs(&[
            ("b/r.example/ca.crt", "ca"),
            ("b/r.example/client.cert", "cert"),
            ("b/r.example/client.key", "key"),
            ("b/empty.example/readme", ""),
        ]);
        let endpoints = find(&dirs, "r.example").expect("find").expect("found");
        assert_eq!(endpoints[0].url.as_str(), "https://r.example/v2/");
        assert_eq!(endpoints[0].trust.authorities, [b"ca"]);
        assert_eq!(endpoints[0].trust.identities, [b"cert\nkey"]);
        assert!(find(&dirs, "empty.example").expect("find").is_none());
    }

    #[test]
    fn a_file_that_is_wrong_is_named() {
        for (file, words) in [
            ("[host", "hosts.toml"),
            ("[host.'ftp://x']", "invalid registry mirror"),
            ("ca = 'none.crt'", "none.crt"),
            ("[host.'http://x'.header]\n'a b' = 'c'", "invalid registry header"),
            ("skip_verify = 'yes'", "hosts.toml"),
        ] {
            let (_root, dirs) = dirs(&[("a/r.example/hosts.toml", file)]);
            let error = find(&dirs, "r.example").expect_err(file).chain();
            assert!(error.contains(words) && error.contains("r.example/hosts.toml"), "{error}");
        }
    }
}
