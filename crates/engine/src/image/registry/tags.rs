// SPDX-License-Identifier: Apache-2.0
//! The tags of a repository: a list that comes in pages, and ends.

use std::collections::HashSet;

use reqwest::{
    Method, Response, Url,
    header::{HeaderMap, LINK},
};
use serde::Deserialize;

use super::{
    Repository,
    transport::{At, Call, Failure, Session, read_limited, same_origin},
};
use crate::{
    error::{Error, Kind, Result},
    image::{manifest::MAX_DOCUMENT, reference::Reference},
};

/// Where the list begins. More in a page is refused by some registries.
const FIRST: &str = "tags/list?n=1000";
/// Bytes of all tags: they fit one answer of ours (4 MiB), with their lengths.
const MAX_BYTES: usize = 3 << 20;
/// What a tag takes besides its characters.
const EACH: usize = 4;

/// The part of an answer that matters.
#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

impl Repository {
    /// All tags, in the registry's order.
    ///
    /// # Errors
    /// As [`Repository::manifest`]; `ResourceExhausted` for more than fit an
    /// answer.
    pub async fn tags(&self) -> Result<Vec<String>> {
        let what = format!("list of tags of {}", self.name);
        self.anywhere(|serves| serves.resolve, &what, |at| self.tags_once(&self.sessions[at])).await
    }

    async fn tags_once(&self, session: &Session) -> Result<Vec<String>, Failure> {
        let (mut tags, mut known, mut bytes) = (Vec::new(), HashSet::new(), 0);
        let mut at = At::Path(FIRST);
        loop {
            let response = session.call(&Call::new(Method::GET, at)).await?;
            let next = next_page(&response, session)?;
            let limit = usize::try_from(MAX_DOCUMENT).unwrap_or(usize::MAX);
            let page = read_limited(response, limit).await?;
            let before = tags.len();
            for tag in parse(&page).map_err(|why| self.bad_list(session, &why))? {
                if !known.insert(tag.clone()) {
                    continue;
                }
                bytes += tag.len() + EACH;
                if bytes > MAX_BYTES {
                    let words = format!("{} has more tags than can be listed", self.name);
                    return Err(Failure::Fatal(Error::new(Kind::ResourceExhausted, words)));
                }
                tags.push(tag);
            }
            match next {
                None => return Ok(tags),
                Some(_) if tags.len() == before => {
                    return Err(self.bad_list(session, "it goes on without another tag"));
                }
                Some(url) => at = At::Url(url),
            }
        }
    }

    fn bad_list(&self, session: &Session, why: &str) -> Failure {
        let words = format!("bad list of tags of {} from registry {}: {why}", self.name, session.host());
        Failure::Fatal(Error::new(Kind::DataLoss, words))
    }
}

fn parse(page: &[u8]) -> Result<Vec<String>, String> {
    let page: Page = serde_json::from_slice(page).map_err(|e| e.to_string())?;
    let tags = page.tags.unwrap_or_default();
    match tags.iter().find(|tag| !is_tag(tag)) {
        // Bounded: it is whatever the registry likes.
        Some(bad) => Err(format!("no tag: {:?}", bad.chars().take(128).collect::<String>())),
        None => Ok(tags),
    }
}

fn is_tag(text: &str) -> bool {
    let parsed = format!("a:{text}").parse::<Reference>();
    parsed.is_ok_and(|reference| reference.tag() == Some(text) && reference.digest().is_none())
}

/// Where the list goes on, which is the same registry.
fn next_page(response: &Response, session: &Session) -> Result<Option<Url>, Failure> {
    let Some(target) = next_link(response.headers()) else { return Ok(None) };
    let next = response.url().join(&target).ok();
    match next.filter(|next| same_origin(next, &session.endpoint.url)) {
        Some(next) => Ok(Some(next)),
        None => {
            let words = format!("registry {} continues its list of tags elsewhere: refused", session.host());
            Err(Failure::Fatal(Error::new(Kind::PermissionDenied, words)))
        }
    }
}

/// `<target>; rel="next"`, perhaps among others (RFC 8288).
fn next_link(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    let mut links = values.flat_map(|value| value.split('<').skip(1)).filter_map(|link| link.split_once('>'));
    let next = |parameters: &str| {
        parameters.split([';', ',']).any(|parameter| {
            let rel = parameter.trim().strip_prefix("rel=");
            rel.is_some_and(|rel| rel.trim_matches('"').eq_ignore_ascii_case("next"))
        })
    };
    links.find(|(_, parameters)| next(parameters)).map(|(target, _)| target.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_among_links() {
        for (value, target) in [
            ("</v2/a/tags/list?last=b&n=2>; rel=\"next\"", Some("/v2/a/tags/list?last=b&n=2")),
            ("<b>; rel=prev, <c>; title=\"x\"; rel=next", Some("c")),
            ("<b>; rel=\"prev\"", None),
            ("b; rel=next", None),
            ("<b", None),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(LINK, value.parse().expect("a header"))]);
            assert_eq!(next_link(&headers).as_deref(), target, "{value}");
        }
    }

    #[test]
    fn only_tags_are_tags() {
        assert_eq!(
            parse(br#"{"name": "a", "tags": ["1", "v1.2_3-x"]}"#),
            Ok(vec!["1".into(), "v1.2_3-x".into()])
        );
        assert_eq!(parse(br#"{"tags": null}"#), Ok(vec![]));
        for bad in ["", "a b", "../x", "a@sha256:0", "a/b:c", "-a", "\u{7}"] {
            let page = serde_json::json!({ "tags": ["good", bad] }).to_string();
            assert!(parse(page.as_bytes()).is_err_and(|why| why.starts_with("no tag: ")), "{bad:?}");
        }
        assert!(parse(b"[").is_err());
    }
}
