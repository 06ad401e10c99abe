// SPDX-License-Identifier: Apache-2.0
//! References: the names that users and registries give to images.
//!
//! The grammar is the distribution project's; short names are completed as
//! Docker does: `alpine` is `docker.io/library/alpine:latest`.

use std::{fmt, str::FromStr};

use crate::{
    domain::digest::Digest,
    error::{Error, Kind, Result},
};

/// The registry of names that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
const OFFICIAL: &str = "library/";
/// Longest `registry/repository`.
const MAX_NAME: usize = 255;

/// A complete reference: registry, repository, and a tag or digest or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// The registry's host, with a port where it has one: `docker.io`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry: `library/alpine`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; none when the reference has a digest alone.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, which wins over the tag.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What the registry is asked for: the digest, or else the tag.
    #[must_use]
    pub fn target(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => DEFAULT_TAG,
        }
    }

    /// `registry/repository`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// `registry/repository` as users write it: `alpine`.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        familiar(&self.name()).to_owned()
    }

    /// The whole reference as users write it: `alpine:latest`.
    #[must_use]
    pub fn familiar(&self) -> String {
        familiar(&self.to_string()).to_owned()
    }

    /// What the reference is stored under: with a digest, the tag says nothing
    /// that could be relied on and is left out.
    #[must_use]
    pub fn stored(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.name()),
            None => self.to_string(),
        }
    }
}

/// A stored name as users write it: `docker.io/library/alpine:3` is `alpine:3`.
#[must_use]
pub fn familiar(name: &str) -> &str {
    let Some(rest) = name.strip_prefix("docker.io/") else { return name };
    match rest.strip_prefix(OFFICIAL) {
        // library/a/b isn't official and keeps its first component.
        Some(short) if !short.contains('/') => short,
        // docker.io/a.b/c isn't the registry a.b, and must not look like it.
        _ if split_registry(rest) != (DEFAULT_REGISTRY, rest) => name,
        _ => rest,
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

fn invalid() -> Error {
    Error::new(Kind::InvalidArgument, "invalid reference format")
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        if is_image_id(s) {
            return Err(Error::new(
                Kind::InvalidArgument,
                format!("invalid repository name ({s}), cannot specify 64-byte hexadecimal strings"),
            ));
        }
        let (named, digest) = match s.split_once('@') {
            Some((named, digest)) => (named, Some(digest.parse::<Digest>().map_err(|_| invalid())?)),
            None => (s, None),
        };
        let (registry, rest) = split_registry(named);
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("{OFFICIAL}{path}")
        } else {
            path.to_owned()
        };
        check(registry, &repository, tag)?;
        let tag = match (tag, &digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (None, Some(_)) => None,
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// 64 hex digits: an image's id, never a repository.
fn is_image_id(s: &str) -> bool {
    s.len() == 64 && s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// The first component is a registry when it can't be a user's name: it has a
/// dot, a port, or capitals, or is `localhost`.
fn split_registry(named: &str) -> (&str, &str) {
    let is_host =
        |s: &str| s.contains(['.', ':']) || s == "localhost" || s.bytes().any(|b| b.is_ascii_uppercase());
    match named.split_once('/') {
        Some(("index.docker.io", rest)) => (DEFAULT_REGISTRY, rest),
        Some((host, rest)) if is_host(host) => (host, rest),
        _ => (DEFAULT_REGISTRY, named),
    }
}

fn check(registry: &str, repository: &str, tag: Option<&str>) -> Result<()> {
    if !is_registry(registry) {
        return Err(invalid());
    }
    if repository.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(Error::new(
            Kind::InvalidArgument,
            format!("invalid reference format: repository name ({repository}) must be lowercase"),
        ));
    }
    if !repository.split('/').all(is_path_component) || !tag.is_none_or(is_tag) {
        return Err(invalid());
    }
    if registry.len() + 1 + repository.len() > MAX_NAME {
        return Err(Error::new(
            Kind::InvalidArgument,
            format!("repository name must not be more than {MAX_NAME} characters"),
        ));
    }
    Ok(())
}

fn is_registry(s: &str) -> bool {
    let (host, port) = match s.rsplit_once(':') {
        // Colons inside brackets belong to the address.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (s, None),
    };
    let port_fits =
        port.is_none_or(|p| !p.is_empty() && p.len() <= 5 && p.bytes().all(|b| b.is_ascii_digit()));
    port_fits && (is_ipv6(host) || host.split('.').all(is_host_component))
}

fn is_ipv6(host: &str) -> bool {
    host.strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .is_some_and(|h| h.parse::<std::net::Ipv6Addr>().is_ok())
}

fn is_host_component(s: &str) -> bool {
    !s.is_empty()
        && !s.starts_with('-')
        && !s.ends_with('-')
        && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// `[a-z0-9]+` joined by one of `.`, `_`, `__` or any number of `-`.
fn is_path_component(s: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = s.as_bytes();
    let edges = [bytes.first(), bytes.last()];
    if !edges.into_iter().all(|edge| edge.is_some_and(|&b| is_word(b))) {
        return false;
    }
    bytes.split(|&b| is_word(b)).all(|separator| match separator {
        [] => true,
        b"." | b"_" | b"__" => true,
        dashes => dashes.iter().all(|&b| b == b'-'),
    })
}

fn is_tag(s: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = s.as_bytes();
    (1..=128).contains(&bytes.len())
        && is_word(bytes[0])
        && bytes.iter().all(|&b| is_word(b) || matches!(b, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_names_are_completed_as_docker_does() {
        for (given, full, familiar) in [
            ("hello-world", "docker.io/library/hello-world:latest", "hello-world:latest"),
            ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
            ("me/app", "docker.io/me/app:latest", "me/app:latest"),
            ("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest"),
            ("index.docker.io/a/b:c", "docker.io/a/b:c", "a/b:c"),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("127.0.0.1:5000/a/b/c:t", "127.0.0.1:5000/a/b/c:t", "127.0.0.1:5000/a/b/c:t"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("ghcr.io/x/y_z__a--b.c", "ghcr.io/x/y_z__a--b.c:latest", "ghcr.io/x/y_z__a--b.c:latest"),
            ("LOCAL/a", "LOCAL/a:latest", "LOCAL/a:latest"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
        ] {
            let reference: Reference = given.parse().unwrap_or_else(|e| panic!("{given}: {e}"));
            assert_eq!(reference.to_string(), full, "{given}");
            assert_eq!(reference.familiar(), familiar, "{given}");
        }
    }

    #[test]
    fn a_digest_wins_over_the_tag() {
        let both: Reference = format!("alpine:3@sha256:{HEX}").parse().expect("valid");
        assert_eq!(both.target(), format!("sha256:{HEX}"));
        assert_eq!(both.tag(), Some("3"));
        assert_eq!(both.stored(), format!("docker.io/library/alpine@sha256:{HEX}"));
        let digest: Reference = format!("alpine@sha256:{HEX}").parse().expect("valid");
        assert_eq!((digest.tag(), digest.familiar()), (None, format!("alpine@sha256:{HEX}")));
    }

    #[test]
    fn what_is_no_reference_is_refused_in_dockers_words() {
        let long = "a".repeat(300);
        for (bad, words) in [
            ("", "invalid reference format"),
            (":", "invalid reference format"),
            ("a:", "invalid reference format"),
            ("a@b", "invalid reference format"),
            ("a@sha256:12", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("../a", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("a\n", "invalid reference format"),
            ("host:port/a", "invalid reference format"),
            ("example.com/", "invalid reference format"),
            ("a:-x", "invalid reference format"),
            ("é", "invalid reference format"),
            ("Alpine", "invalid reference format: repository name (library/Alpine) must be lowercase"),
            ("a.b/Up", "invalid reference format: repository name (Up) must be lowercase"),
            (&long, "repository name must not be more than 255 characters"),
        ] {
            assert_eq!(bad.parse::<Reference>().expect_err(bad).to_string(), words, "{bad:?}");
        }
        assert!(HEX.parse::<Reference>().expect_err("an id").to_string().contains("64-byte hexadecimal"));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_what_parses_round_trips(s in "\\PC{0,80}") {
            if let Ok(reference) = s.parse::<Reference>() {
                prop_assert_eq!(&reference.to_string().parse::<Reference>().expect("full form"), &reference);
                prop_assert_eq!(&reference.familiar().parse::<Reference>().expect("familiar form"), &reference);
            }
        }

        #[test]
        fn well_formed_names_parse(
            host in "([a-z][a-z0-9]{0,8}\\.[a-z]{2,3}(:[0-9]{2,5})?/)?",
            path in "[a-z0-9]{1,8}([_-][a-z0-9]{1,8}){0,2}(/[a-z0-9]{1,8}(\\.[a-z0-9]{1,8})?){0,3}",
            tag in "(:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20})?",
        ) {
            prop_assume!(!is_image_id(&path));
            let text = format!("{host}{path}{tag}");
            let reference: Reference = text.parse().expect("valid");
            prop_assert_eq!(&reference.familiar().parse::<Reference>().expect("familiar form"), &reference);
        }
    }
}
