// SPDX-License-Identifier: Apache-2.0
//! Names of entries: cleaned, and never above the tree.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::PathBuf,
};

use crate::{Error, Result};

const PATH_MAX: usize = 4096;
const NAME_MAX: usize = 255;

/// A path within a tree, as components without `.`, `..` and emptiness. None
/// at all is the tree's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(Vec<OsString>);

impl Name {
    /// Cleans a name as it stands in an archive. `a/../b` is `b`; what leads
    /// above the root is refused.
    ///
    /// # Errors
    /// A refusal of what can't be a name on Linux.
    pub fn of_entry(raw: &[u8]) -> Result<Self> {
        if raw.is_empty() || raw.len() > PATH_MAX || raw.contains(&0) {
            return Err(Error::refused(format_args!("entry with a bad name ({} bytes)", raw.len())));
        }
        let mut components: Vec<OsString> = Vec::new();
        for part in raw.split(|&b| b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    if components.pop().is_none() {
                        return Err(Error::refused(format_args!(
                            "entry {:?} leads out of its directory",
                            show(raw)
                        )));
                    }
                }
                part if part.len() > NAME_MAX => {
                    return Err(Error::refused(format_args!("entry {:?} has too long a name", show(raw))));
                }
                part => components.push(OsString::from_vec(part.to_vec())),
            }
        }
        Ok(Self(components))
    }

    /// The components.
    #[must_use]
    pub fn components(&self) -> &[OsString] {
        &self.0
    }

    /// From components that are clean.
    #[must_use]
    pub fn of_components(components: Vec<OsString>) -> Self {
        Self(components)
    }

    /// The last component and those above it; `None` for the root.
    #[must_use]
    pub fn split(&self) -> Option<(&OsStr, &[OsString])> {
        self.0.split_last().map(|(last, above)| (last.as_os_str(), above))
    }
}

/// The components of a symbolic link's target; whether it starts at the root.
#[must_use]
pub fn target_components(target: &OsStr) -> (bool, Vec<OsString>) {
    let bytes = target.as_bytes();
    let parts = bytes.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".");
    (bytes.first() == Some(&b'/'), parts.map(|part| OsString::from_vec(part.to_vec())).collect())
}

/// For messages: bounded and printable.
#[must_use]
pub fn show(raw: &[u8]) -> String {
    String::from_utf8_lossy(&raw[..raw.len().min(200)]).into_owned()
}

/// Components as a path.
#[must_use]
pub fn join(components: &[OsString]) -> PathBuf {
    components.iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_stay_inside() {
        for (raw, clean) in [
            ("a", "a"),
            ("./a//b/./c/", "a/b/c"),
            ("/etc/x", "etc/x"),
            ("a/../b", "b"),
            (".", ""),
            ("/", ""),
            ("./", ""),
            (" a", " a"),
        ] {
            let name = Name::of_entry(raw.as_bytes()).expect(raw);
            assert_eq!(join(&name.0), PathBuf::from(clean), "{raw:?}");
        }
        let long = "x".repeat(256);
        for bad in ["", "..", "../a", "a/../../b", "/..", "a\0b", &long, &"a/".repeat(3000)] {
            assert!(Name::of_entry(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
