// SPDX-License-Identifier: Apache-2.0
//! The name of a container's transient unit, and of the slice that it is in.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::runtime::{Error, Result};

/// Stands before a container's name where nobody gives another prefix.
const PREFIX: &str = "berth";

/// Whose systemd it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Manager {
    /// The system's.
    System,
    /// A user's.
    User {
        /// The cgroup that it runs in: relative, from the root.
        cgroup: PathBuf,
        /// Where it listens.
        socket: PathBuf,
    },
}

/// A transient unit: a scope, or a slice when its name ends in `.slice`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Scope {
    /// With its ending.
    pub(crate) unit: String,
    /// With its ending.
    pub(crate) slice: String,
    pub(crate) manager: Manager,
}

impl Scope {
    /// From `slice:prefix:name`; nothing stands for the usual slice, and a
    /// scope that `name` names.
    pub(crate) fn new(cgroups_path: &str, name: &str, manager: Manager) -> Result<Self> {
        let usual = match manager {
            Manager::System => "system.slice",
            Manager::User { .. } => "user.slice",
        };
        let (slice, prefix, name) = if cgroups_path.is_empty() {
            ("", PREFIX, name)
        } else {
            parts(cgroups_path).ok_or_else(|| {
                Error::invalid(format!(
                    "linux.cgroupsPath: expected the form \"slice:prefix:name\" for systemd, got {cgroups_path:?}"
                ))
            })?
        };
        let slice = if slice.is_empty() { usual } else { slice };
        let unit = match (name.ends_with(".slice"), prefix) {
            (true, _) => name.to_owned(),
            (false, "") => format!("{name}.scope"),
            (false, prefix) => format!("{prefix}-{name}.scope"),
        };
        if !is_unit_name(&unit) {
            return Err(Error::invalid(format!("linux.cgroupsPath: {unit:?} is no name of a unit")));
        }
        let scope = Self { unit, slice: slice.to_owned(), manager };
        scope.path()?;
        Ok(scope)
    }

    /// Where systemd puts it: below the slice, which is below those that its
    /// name begins with.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let mut path = match &self.manager {
            Manager::System => PathBuf::new(),
            Manager::User { cgroup, .. } => cgroup.clone(),
        };
        path.push(expand(&self.slice)?);
        if self.is_slice() {
            path.push(expand(&self.unit)?)
        } else {
            path.push(&self.unit)
        }
        Ok(path)
    }

    /// Whether it is a slice, which exists without a process.
    pub(crate) fn is_slice(&self) -> bool {
        self.unit.ends_with(".slice")
    }
}

fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let (slice, rest) = text.split_once(':')?;
    let (prefix, name) = rest.split_once(':')?;
    (!name.is_empty() && !name.contains(':')).then_some((slice, prefix, name))
}

/// `a-b.slice` is `a.slice/a-b.slice`; `-.slice` is the root.
fn expand(slice: &str) -> Result<PathBuf> {
    let bad = || Error::invalid(format!("linux.cgroupsPath: invalid slice name: {slice:?}"));
    let stem = slice.strip_suffix(".slice").filter(|_| is_unit_name(slice)).ok_or_else(bad)?;
    let mut path = PathBuf::new();
    if stem == "-" {
        return Ok(path);
    }
    let mut name = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return Err(bad());
        }
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(part);
        path.push(format!("{name}.slice"));
    }
    Ok(path)
}

/// systemd.unit(5): at most 255 characters, of these.
fn is_unit_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    text.len() <= 255 && text.chars().all(good)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn system(path: &str) -> Result<Scope> {
        Scope::new(path, "x", Manager::System)
    }

    #[test]
    fn the_three_parts() {
        let scope = system("a-b.slice:docker:123").expect("scope");
        assert_eq!((scope.unit.as_str(), scope.slice.as_str()), ("docker-123.scope", "a-b.slice"));
        assert_eq!(scope.path().expect("path"), Path::new("a.slice/a-b.slice/docker-123.scope"));
        assert_eq!(system("::y").expect("scope").path().expect("path"), Path::new("system.slice/y.scope"));
        assert_eq!(system("").expect("scope").unit, "berth-x.scope");
        assert_eq!(system("-.slice:p:n").expect("scope").path().expect("path"), Path::new("p-n.scope"));
    }

    #[test]
    fn a_users_units_are_below_its_manager() {
        let manager = Manager::User {
            cgroup: "user.slice/user-1.slice/user@1.service".into(),
            socket: "/run/user/1/systemd/private".into(),
        };
        let path = Scope::new("", "x", manager).expect("scope").path().expect("path");
        let expected = "user.slice/user-1.slice/user@1.service/user.slice/berth-x.scope";
        assert_eq!(path, Path::new(expected));
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            "/a/b",
            "a.slice:b",
            "a:b:c",
            "a.slice:b:",
            "a.slice:b:c:d",
            "../x.slice:p:n",
            "a--b.slice:p:n",
            "-a.slice:p:n",
            "a.slice:p:../n",
        ] {
            assert!(system(bad).is_err(), "{bad:?}");
        }
    }
}
