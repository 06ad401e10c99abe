// SPDX-License-Identifier: Apache-2.0
//! `--restart`: `no`, `always`, `unless-stopped`, `on-failure[:N]`. What can't
//! be is refused here, before anybody is asked, in the engine's words.

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
    let maximum_retry_count: i32 = if count.is_empty() {
        0
    } else {
        count.parse().map_err(|_| "invalid restart policy format: maximum retry count must be an integer")?
    };
    // Docker's, too, takes nothing for `no`.
    let name = if name.is_empty() { "no" } else { name };
    let problem = match (name, maximum_retry_count) {
        ("on-failure", ..0) => "invalid restart policy: maximum retry count cannot be negative",
        ("no" | "always" | "unless-stopped", count) if count != 0 => {
            "invalid restart policy: maximum retry count can only be used with 'on-failure'"
        }
        ("no" | "always" | "unless-stopped" | "on-failure", _) => {
            return Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count });
        }
        _ => {
            return Err(format!(
                "invalid restart policy: unknown policy '{}'; use one of \
                 'no', 'always', 'on-failure', or 'unless-stopped'",
                name.escape_debug()
            ));
        }
    };
    Err(problem.into())
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
        for (text, words) in [
            (":3", "before colon"),
            ("on-failure:x", "integer"),
            ("on-failure:1:2", "integer"),
            ("on-failure:-1", "negative"),
            ("always:3", "only be used"),
            ("sometimes", "unknown policy 'sometimes'"),
        ] {
            assert!(policy(text).expect_err(text).contains(words), "{text}");
        }
    }
}
