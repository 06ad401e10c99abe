// SPDX-License-Identifier: Apache-2.0
//! Who a registry is told we are: challenges, tokens, and where credentials
//! may go.
//!
//! Nothing here is ever logged, and `Debug` shows no secret.

use std::fmt;

use reqwest::Url;

use super::hosts::is_loopback;
use crate::error::{Error, Kind, Result};

/// A user's credentials for one registry.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password, or access token used as one.
    pub password: String,
    /// An OAuth2 refresh token instead of a password; empty for none.
    pub identity_token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// What a `401` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from `realm`.
    Bearer {
        /// Where tokens are given out.
        realm: String,
        /// Whom the token is for.
        service: Option<String>,
        /// What the token is to allow.
        scope: Option<String>,
    },
}

/// Parses a `WWW-Authenticate` header; the strongest scheme that we know wins.
#[must_use]
pub fn parse_challenge(header: &str) -> Option<Challenge> {
    let mut basic = false;
    for (scheme, parameters) in split_challenges(header) {
        if scheme.eq_ignore_ascii_case("bearer") {
            let get = |name: &str| {
                parameters
                    .iter()
                    .find(|(key, _)| key.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone())
            };
            if let Some(realm) = get("realm") {
                return Some(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
            }
        }
        basic |= scheme.eq_ignore_ascii_case("basic");
    }
    basic.then_some(Challenge::Basic)
}

type Parameters = Vec<(String, String)>;

/// `Scheme key="value", key=value, Scheme …` (RFC 9110, 11.6.1).
fn split_challenges(header: &str) -> Vec<(String, Parameters)> {
    let mut challenges: Vec<(String, Parameters)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let word_end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        if word_end == 0 {
            return challenges;
        }
        let (word, after) = rest.split_at(word_end);
        match (after.strip_prefix('='), challenges.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let (value, after) = split_value(value);
                parameters.push((word.to_owned(), value));
                rest = after;
            }
            (Some(_), None) => return challenges,
            (None, _) => {
                challenges.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

/// A token or a quoted string, and what follows it.
fn split_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(c),
        }
    }
    (value, "")
}

/// Checks that a token may be asked for at `realm`, on behalf of `registry`.
///
/// Plain HTTP only where the registry itself is spoken to that way, and then
/// only on the same host or this machine; a bare address only if it is the
/// registry's own.
///
/// # Errors
/// `PermissionDenied` that names the realm.
pub(super) fn check_realm(realm: &str, registry: &Url) -> Result<Url> {
    let refuse = |why: &str| {
        let realm: String = realm.chars().take(200).collect();
        let words =
            format!("registry {} sends its clients to {realm:?} for a token: {why}", host_of(registry));
        Error::new(Kind::PermissionDenied, words)
    };
    let url = Url::parse(realm).map_err(|_| refuse("not a URL"))?;
    let same_host = url.host_str() == registry.host_str();
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("a URL with credentials in it is refused"));
    }
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&url) && registry.scheme() == "http" => {}
        "http" if same_host && registry.scheme() == "http" => {}
        _ => return Err(refuse("only https is accepted there")),
    }
    if is_address(&url) && !same_host && !(is_loopback(&url) && is_loopback(registry)) {
        return Err(refuse("a bare address that isn't the registry's own is refused"));
    }
    Ok(url)
}

/// Whether credentials for `registry` may be shown to `realm`: the same host,
/// or one under the same domain (`registry-1.docker.io` and `auth.docker.io`).
pub(super) fn may_share(registry: &Url, realm: &Url) -> bool {
    let (Some(a), Some(b)) = (registry.host_str(), realm.host_str()) else { return false };
    if a == b {
        return true;
    }
    if is_address(registry) || is_address(realm) {
        return is_loopback(registry) && is_loopback(realm);
    }
    let site = |host: &str| host.rsplitn(3, '.').take(2).map(str::to_owned).collect::<Vec<_>>();
    let (a, b) = (site(a), site(b));
    // Two-letter domains are often shared by many owners (co.uk): the same
    // last two labels prove nothing there.
    a.len() == 2 && a == b && !(a[0].len() == 2 && a[1].len() <= 3)
}

fn is_address(url: &Url) -> bool {
    url.host_str().is_some_and(|host| host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok())
}

/// `host[:port]`, for messages.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn challenges_are_understood() {
        let bearer = parse_challenge(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/a:pull,push""#,
        );
        let expected = Challenge::Bearer {
            realm: "https://auth.docker.io/token".into(),
            service: Some("registry.docker.io".into()),
            scope: Some("repository:library/a:pull,push".into()),
        };
        assert_eq!(bearer, Some(expected));
        assert_eq!(parse_challenge(r#"Basic realm="x y""#), Some(Challenge::Basic));
        assert_eq!(parse_challenge("basic"), Some(Challenge::Basic));
        let both = parse_challenge(r#"Basic realm="a", Bearer realm=https://r/t , service="q\"q""#);
        let expected =
            Challenge::Bearer { realm: "https://r/t".into(), service: Some("q\"q".into()), scope: None };
        assert_eq!(both, Some(expected));
        for none in ["", "Negotiate abc", "Bearer", r#"Bearer service="x""#, "=", ",,,", r#"="#] {
            assert_eq!(parse_challenge(none), None, "{none:?}");
        }
    }

    #[test]
    fn tokens_are_only_asked_for_where_they_may_be() {
        let check =
            |realm: &str, registry: &str| check_realm(realm, &Url::parse(registry).expect("url")).is_ok();
        assert!(check("https://auth.docker.io/token", "https://registry-1.docker.io/"));
        assert!(check("http://127.0.0.1:5001/token", "http://127.0.0.1:5000/"));
        assert!(check("http://r.example/token", "http://r.example:5000/"));
        assert!(check("https://10.0.0.1/token", "https://10.0.0.1/"));
        assert!(!check("http://auth.example/token", "https://r.example/"));
        assert!(!check("http://auth.example/token", "http://r.example/"));
        assert!(!check("http://127.0.0.1/token", "https://r.example/"));
        assert!(!check("https://169.254.169.254/token", "https://r.example/"));
        assert!(!check("https://u:p@auth.example/token", "https://auth.example/"));
        assert!(!check("file:///etc/passwd", "https://r.example/"));
        assert!(!check("token", "https://r.example/"));
    }

    #[test]
    fn credentials_stay_within_one_site() {
        let may = |a: &str, b: &str| may_share(&Url::parse(a).expect("url"), &Url::parse(b).expect("url"));
        assert!(may("https://registry-1.docker.io/", "https://auth.docker.io/"));
        assert!(may("https://ghcr.io/", "https://ghcr.io/token"));
        assert!(may("http://127.0.0.1:1/", "http://127.0.0.1:2/"));
        assert!(!may("https://r.example.com/", "https://evil.com/"));
        assert!(!may("https://a.co.uk/", "https://b.co.uk/"));
        assert!(!may("https://10.0.0.1/", "https://10.0.0.2/"));
    }

    #[test]
    fn no_secret_is_shown() {
        let secret =
            Credentials { username: "u".into(), password: "hunter2".into(), identity_token: "tok".into() };
        let shown = format!("{secret:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("tok"), "{shown}");
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_panic(header in "\\PC{0,200}") {
            let _parsed = parse_challenge(&header);
        }
    }
}
