// SPDX-License-Identifier: Apache-2.0
//! `--restart`: `no`, `always`, `unless-stopped`, `on-failure[:N]`. Which
//! words there are, and what they go with, is for the engine to say.

use berth::api::v1::RestartPolicy;

use super::Parsed;

/// A restart policy.
///
/// # Errors
/// A line in Docker's words.
pub fn policy(text: &str) -> Parsed<RestartPolicy> {
    let (name, count) = match text.split_once(':') {
        Some(("", _)) => return Err("invalid restart policy format: no policy provided before colon".into()),
        Some((name, count)) => (name, count),
        None => (text, ""),
    };
    let maximum_retry_count = if count.is_empty() {
        0
    } else {
        count.parse().map_err(|_| "invalid restart policy format: maximum retry count must be an integer")?
    };
    // Docker's, too, takes nothing for `no`.
    let name = if name.is_empty() { "no" } else { name };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_follows_the_policy() {
        for (text, name, count) in
            [("", "no", 0), ("always", "always", 0), ("on-failure:3", "on-failure", 3), ("no:", "no", 0)]
        {
            let policy = policy(text).expect(text);
            assert_eq!((policy.name.as_str(), policy.maximum_retry_count), (name, count), "{text}");
        }
        for (text, words) in
            [(":3", "before colon"), ("on-failure:x", "integer"), ("on-failure:1:2", "integer")]
        {
            assert!(policy(text).expect_err(text).contains(words), "{text}");
        }
    }
}
