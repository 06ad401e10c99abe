// SPDX-License-Identifier: Apache-2.0
//! Image references, only as far as messages show them. What a reference
//! means is the engine's business.

/// The parts of a reference that are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Without `docker.io/` and `library/`: what a user would type.
    pub familiar: String,
    /// The repository's path in its registry: `library/hello-world`.
    pub path: String,
    /// Tag, or digest when there is one; `latest` when there is neither.
    pub tag: String,
    /// The user wrote neither a tag nor a digest.
    pub defaulted: bool,
}

impl Shown {
    /// Takes `text` apart; anything can be shown, even what the engine
    /// will refuse.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        let (name, tag) = split_tag(name);
        let (domain, path) = split_domain(name);
        let docker = matches!(domain, "docker.io" | "index.docker.io");
        let path = if docker && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        let short = if docker { path.strip_prefix("library/").unwrap_or(&path) } else { name };
        let separator = if digest.is_some() { '@' } else { ':' };
        let shown = digest.or(tag).unwrap_or("latest");
        Self {
            familiar: format!("{short}{separator}{shown}"),
            tag: shown.to_owned(),
            defaulted: digest.is_none() && tag.is_none(),
            path,
        }
    }
}

/// The registry that an image is from: `docker.io` where it names none.
#[must_use]
pub fn registry(image: &str) -> &str {
    split_domain(image).0
}

/// Splits `name:tag`; a colon before a slash belongs to a port.
#[must_use]
pub fn split_tag(name: &str) -> (&str, Option<&str>) {
    match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (name, None),
    }
}

/// The registry is the first part when it looks like a host.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((domain, path)) if domain.contains(['.', ':']) || domain == "localhost" => (domain, path),
        _ => ("docker.io", name),
    }
}

/// The first twelve hexadecimal digits of a digest or id.
#[must_use]
pub fn short_id(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_as_they_are_shown() {
        for (text, familiar, path, tag) in [
            ("hello-world", "hello-world:latest", "library/hello-world", "latest"),
            ("docker.io/library/a:1", "a:1", "library/a", "1"),
            ("docker.io/a", "a:latest", "library/a", "latest"),
            ("me/a:1", "me/a:1", "me/a", "1"),
            ("127.0.0.1:5000/me/a", "127.0.0.1:5000/me/a:latest", "me/a", "latest"),
            ("localhost/a:2", "localhost/a:2", "a", "2"),
            ("quay.io/x/y@sha256:ab", "quay.io/x/y@sha256:ab", "x/y", "sha256:ab"),
            ("a:1@sha256:ab", "a@sha256:ab", "library/a", "sha256:ab"),
        ] {
            let shown = Shown::of(text);
            assert_eq!(
                (shown.familiar.as_str(), shown.path.as_str(), shown.tag.as_str()),
                (familiar, path, tag)
            );
        }
        assert!(Shown::of("a").defaulted);
        assert!(!Shown::of("a:1").defaulted);
    }

    #[test]
    fn short_ids() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short_id("abc"), "abc");
    }
}
