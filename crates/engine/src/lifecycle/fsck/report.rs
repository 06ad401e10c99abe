// SPDX-License-Identifier: Apache-2.0
//! What a check has found.

use std::fmt;

use serde::Serialize;

/// One disagreement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The kind of thing: `container`, `shim`, `cgroup`, ….
    pub what: &'static str,
    /// Which one.
    pub place: String,
    /// How it was found.
    pub found: String,
    /// How it should be.
    pub expected: String,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Rows of containers.
    pub containers: usize,
    /// Shims that live.
    pub shims: usize,
    /// Cgroups of containers.
    pub cgroups: usize,
    /// Rows of images.
    pub images: usize,
    /// Rows of blobs.
    pub blobs: usize,
    /// Rows of snapshots.
    pub snapshots: usize,
}

/// Everything that a check has found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// What an engine has announced and will finish.
    pub pending: Vec<Finding>,
    /// How much was looked at.
    pub checked: Checked,
}

impl Report {
    /// Something is wrong.
    pub(super) fn wrong(
        &mut self,
        what: &'static str,
        place: impl fmt::Display,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) {
        self.findings.push(finding(what, place, found, expected));
    }

    /// Something is on its way.
    pub(super) fn pending(
        &mut self,
        what: &'static str,
        place: impl fmt::Display,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) {
        self.pending.push(finding(what, place, found, expected));
    }

    /// Keeps only what was wrong before, too.
    pub(super) fn confirming(mut self, before: &Self) -> Self {
        self.findings.retain(|finding| before.findings.contains(finding));
        self
    }
}

fn finding(
    what: &'static str,
    place: impl fmt::Display,
    found: impl Into<String>,
    expected: impl Into<String>,
) -> Finding {
    Finding { what, place: place.to_string(), found: found.into(), expected: expected.into() }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, place, found, expected } = self;
        let line = format!("{what} {place}: {found}; expected: {expected}");
        // Names come from the disk: one line stays one line.
        f.write_str(&line.replace(|c: char| c.is_control(), "?"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stays_wrong_is_wrong_and_is_one_line() {
        let (mut first, mut second) = (Report::default(), Report::default());
        first.wrong("bundle", "/a\nb", "nobody's", "none");
        first.wrong("bundle", "/gone", "nobody's", "none");
        second.wrong("bundle", "/a\nb", "nobody's", "none");
        second.wrong("bundle", "/new", "nobody's", "none");
        let both = second.confirming(&first);
        assert_eq!(both.findings, first.findings[..1]);
        assert_eq!(both.findings[0].to_string(), "bundle /a?b: nobody's; expected: none");
    }
}
