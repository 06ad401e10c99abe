// SPDX-License-Identifier: Apache-2.0
//! Where a container's cgroups are, and who makes their directories: we (the
//! driver `cgroupfs`) or systemd.
//!
//! A path is checked here and nowhere else: it is made of names, so that it
//! stays below the mount point of its hierarchy (D16).

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Layout, systemd};
use crate::{
    kernel::Procfs,
    runtime::{Error, Kind, Result},
};

/// Who makes the directories of a container's cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// We.
    Cgroupfs,
    /// systemd, as a transient scope.
    Systemd,
}

/// Where the cgroups of one container are. It can be written down, and finds
/// the same cgroups later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Below the root of every hierarchy; relative, and only names.
    path: PathBuf,
    /// Nobody else uses this path: what is there was left by a container.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    exclusive: bool,
    /// The unit, when systemd makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<systemd::Scope>,
}

impl Placement {
    /// The directory `name` below `parent`, made by us.
    ///
    /// # Errors
    /// For a parent that is no plain path.
    pub fn below(parent: &str, name: &str) -> Result<Self> {
        let path = names(&Path::new(parent).join(name))
            .ok_or_else(|| Error::invalid(format!("cgroup parent {parent:?} is no plain path")))?;
        Ok(Self { path, exclusive: true, scope: None })
    }

    /// Where `linux.cgroupsPath` wants them; `name` is used where it says
    /// nothing.
    ///
    /// For us it's a path. An absolute one starts at the root of each
    /// hierarchy; so does a relative one, unless an unprivileged user on v2
    /// may only write next to its own cgroup. For systemd it has the form
    /// `slice:prefix:name`.
    ///
    /// # Errors
    /// For a path that is none, or leads outside; when systemd is wanted and
    /// doesn't answer.
    pub fn of_spec(layout: &Layout, driver: Driver, cgroups_path: &str, name: &str) -> Result<Self> {
        if driver == Driver::Systemd {
            let scope = systemd::Scope::parse(cgroups_path, name, !nix::unistd::geteuid().is_root())?;
            return Ok(Self { path: scope.path()?, exclusive: false, scope: Some(scope) });
        }
        let wanted = Path::new(if cgroups_path.is_empty() { name } else { cgroups_path });
        let base = match layout {
            Layout::V2(_) if !wanted.is_absolute() && !nix::unistd::geteuid().is_root() => beside_own()?,
            _ => PathBuf::new(),
        };
        let path = names(wanted).filter(|path| !path.as_os_str().is_empty()).ok_or_else(|| {
            Error::invalid(format!("linux.cgroupsPath: {cgroups_path:?} is no plain path below the root"))
        })?;
        Ok(Self { path: base.join(path), exclusive: false, scope: None })
    }

    pub(super) fn scope(&self) -> Option<&systemd::Scope> {
        self.scope.as_ref()
    }

    pub(super) fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// Below the root of every hierarchy; relative.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A path made relative; `None` when it has more than names.
pub(super) fn names(path: &Path) -> Option<PathBuf> {
    if path.to_str()?.contains(['\n', '\0']) {
        return None;
    }
    let mut names = PathBuf::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name),
            _ => return None,
        }
    }
    Some(names)
}

/// The directory above this process's own v2 cgroup: the own one holds
/// processes, and so can't have limited ones below it.
fn beside_own() -> Result<PathBuf> {
    let text = Procfs::of_host()?.read_text("self/cgroup")?;
    let own = own_unified(&text).ok_or_else(|| Error::new(Kind::Os, "this process has no v2 cgroup"))?;
    Ok(own.parent().map(Path::to_owned).unwrap_or_default())
}

/// The v2 cgroup in the text of /proc/self/cgroup.
pub(super) fn own_unified(text: &str) -> Option<PathBuf> {
    names(Path::new(text.lines().find_map(|line| line.strip_prefix("0::"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(path: &str) -> Result<Placement> {
        let v1 = Layout::V1 { root: "/c".into(), unified: None };
        Placement::of_spec(&v1, Driver::Cgroupfs, path, "x")
    }

    #[test]
    fn a_parent_is_made_of_names() {
        let path = |parent| Placement::below(parent, "x").map(|placement| placement.path);
        assert_eq!(path("/berth").expect("path"), Path::new("berth/x"));
        assert_eq!(path("a/b/").expect("path"), Path::new("a/b/x"));
        for bad in ["/a/../..", "..", "a\nb"] {
            assert!(path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_cgroups_path_stays_below_the_root() {
        for (given, path) in [("", "x"), ("/a/b", "a/b"), ("a/./b//", "a/b"), ("./y", "y")] {
            assert_eq!(spec(given).expect(given).path(), Path::new(path), "{given:?}");
        }
        for bad in ["..", "/..", "a/../../b", "/", ".", "a\nb"] {
            let e = spec(bad).expect_err(bad);
            assert!(e.to_string().starts_with("linux.cgroupsPath: "), "{e}");
        }
    }

    #[test]
    fn what_is_written_down_finds_the_same() {
        let placement = spec("/a/b").expect("placement");
        let text = serde_json::to_string(&placement).expect("JSON");
        assert_eq!(text, r#"{"path":"a/b"}"#);
        assert_eq!(serde_json::from_str::<Placement>(&text).expect("placement"), placement);
    }

    #[test]
    fn the_own_cgroup_is_the_line_of_v2() {
        let text = "9:name=systemd:/\n1:cpu:/x\n0::/user.slice/a.scope\n";
        assert_eq!(own_unified(text), Some("user.slice/a.scope".into()));
        assert_eq!(own_unified("1:cpu:/x\n"), None);
    }
}
