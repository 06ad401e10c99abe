// SPDX-License-Identifier: Apache-2.0
//! Finding one's way in a tree by descriptor.
//!
//! Every step opens one component, without following it; links are followed
//! here, by us, and end at the root. So nothing outside can be reached
//! whatever the links say, and nothing is resolved twice.

use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, readlinkat},
    sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat, mkdirat},
    unistd::{Gid, Uid, fchown},
};

use crate::{
    error::{Context as _, Error, Result},
    kernel::{fs, paths},
    name::{join, target_components},
};

/// As many links as Linux follows in one path.
const MAX_LINKS: usize = 40;

/// What to do about links on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// They lead on, within the root.
    Follow,
    /// There may be none.
    Refuse,
}

/// What to do about directories on the way that aren't there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Make them, of mode 0755; this user's and group's, or the maker's.
    Make(Option<(u32, u32)>),
    /// Give up, with `ENOENT`.
    Refuse,
}

/// A place in a tree.
#[derive(Debug)]
pub struct Walk {
    root: OwnedFd,
    /// Open directories from below the root to where we are.
    at: Vec<(OsString, OwnedFd)>,
    links: Links,
}

/// Where a path ends.
#[derive(Debug)]
pub enum End {
    /// At the directory that the walk is in now.
    Here,
    /// At this name in the directory that the walk is in now, which is no
    /// directory and no link that was to be followed.
    Name(OsString, FileStat),
    /// At this name in that directory, and there is nothing.
    Nothing(OsString),
}

impl Walk {
    /// At the root.
    #[must_use]
    pub fn new(root: OwnedFd, links: Links) -> Self {
        Self { root, at: Vec::new(), links }
    }

    /// The directory we are in.
    #[must_use]
    pub fn here(&self) -> BorrowedFd<'_> {
        self.at.last().map_or(self.root.as_fd(), |(_, dir)| dir.as_fd())
    }

    /// The names that lead here, none of them a link's.
    #[must_use]
    pub fn names(&self) -> Vec<OsString> {
        self.at.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Path of `name` in the directory we are in.
    #[must_use]
    pub fn path_of(&self, name: &OsStr) -> PathBuf {
        self.at.iter().map(|(name, _)| name.as_os_str()).chain([name]).collect()
    }

    /// Goes to the directory `components`, from the root.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `ELOOP`, and those of the calls.
    pub fn enter(&mut self, components: &[OsString], missing: Missing) -> Result<()> {
        let common = self.at.iter().zip(components).take_while(|((open, _), wanted)| open == *wanted).count();
        self.at.truncate(common);
        let mut pending: VecDeque<OsString> = components[common..].iter().cloned().collect();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                self.at.pop();
                continue;
            }
            let Some(target) = self.step(name, missing)? else { continue };
            links += 1;
            self.follow(&target, links, &mut pending)
                .with_context(|| format!("open /{}", join(components).display()))?;
        }
        Ok(())
    }

    /// Goes to where the path `components` ends: into the directory, or the
    /// one that the name at the end is in. A link at the end is followed when
    /// `follow` says so and links are at all.
    ///
    /// # Errors
    /// As [`Walk::enter`]; that the last name isn't there is none.
    pub fn resolve(&mut self, components: &[OsString], follow: bool) -> Result<End> {
        self.at.clear();
        let mut pending: VecDeque<OsString> = components.iter().cloned().collect();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                self.at.pop();
                continue;
            }
            let last = pending.is_empty();
            let stat = match self.stat(&name) {
                Ok(stat) => stat,
                Err(e) if last && e.source_io().raw_os_error() == Some(libc::ENOENT) => {
                    return Ok(End::Nothing(name));
                }
                Err(e) => return Err(e),
            };
            let kind = fs::file_type(&stat);
            if last && kind != SFlag::S_IFDIR && (kind != SFlag::S_IFLNK || !follow) {
                return Ok(End::Name(name, stat));
            }
            let Some(target) = self.step(name, Missing::Refuse)? else { continue };
            links += 1;
            self.follow(&target, links, &mut pending)
                .with_context(|| format!("open /{}", join(components).display()))?;
        }
        Ok(End::Here)
    }

    fn follow(&mut self, target: &OsStr, links: usize, pending: &mut VecDeque<OsString>) -> nix::Result<()> {
        if links > MAX_LINKS || self.links == Links::Refuse {
            return Err(Errno::ELOOP);
        }
        let (absolute, parts) = target_components(target);
        if absolute {
            self.at.clear();
        }
        parts.into_iter().rev().for_each(|part| pending.push_front(part));
        Ok(())
    }

    /// Goes one component down, or says where the link there leads.
    fn step(&mut self, name: OsString, missing: Missing) -> Result<Option<OsString>> {
        let dir = match self.open(&name) {
            Ok(dir) => dir,
            Err(Errno::ENOENT) if missing != Missing::Refuse => self.make(&name, missing)?,
            Err(Errno::ELOOP | Errno::ENOTDIR) => {
                return match readlinkat(self.here(), name.as_os_str()) {
                    Ok(target) => Ok(Some(target)),
                    Err(Errno::EINVAL) => Err(Errno::ENOTDIR),
                    Err(e) => Err(e),
                }
                .with_context(|| format!("open /{}", self.path_of(&name).display()));
            }
            Err(e) => return Err(e).with_context(|| format!("open /{}", self.path_of(&name).display())),
        };
        self.at.push((name, dir));
        Ok(None)
    }

    fn open(&self, name: &OsStr) -> nix::Result<OwnedFd> {
        paths::open_child(self.here(), Path::new(name), OFlag::O_RDONLY | OFlag::O_DIRECTORY)
    }

    fn make(&self, name: &OsStr, missing: Missing) -> Result<OwnedFd> {
        let make = || {
            match mkdirat(self.here(), name, Mode::from_bits_truncate(0o700)) {
                // Somebody else was faster.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(e),
            }
            let made = self.open(name)?;
            if let Missing::Make(Some((uid, gid))) = missing {
                fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            // Whatever the process's umask.
            fchmod(&made, Mode::from_bits_truncate(0o755))?;
            Ok(made)
        };
        make().with_context(|| format!("make directory /{}", self.path_of(name).display()))
    }

    /// Looks at `name` in the directory we are in.
    ///
    /// # Errors
    /// Those of fstatat(2).
    pub fn stat(&self, name: &OsStr) -> Result<FileStat> {
        fstatat(self.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .with_context(|| format!("look at /{}", self.path_of(name).display()))
    }

    /// Leaves for another place: the directory we are in, on its own.
    ///
    /// # Errors
    /// `Refused` never; those of dup(2).
    pub fn into_here(mut self) -> Result<OwnedFd> {
        match self.at.pop() {
            Some((_, dir)) => Ok(dir),
            None => Ok(self.root),
        }
    }
}

/// The components of a path as a user wrote it; whether it must be a
/// directory (`/` or `/.` at the end).
///
/// # Errors
/// A refusal of NULs and of what is longer than the kernel takes.
pub fn components_of(path: &OsStr) -> Result<(Vec<OsString>, bool)> {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = path.as_bytes();
    if bytes.len() >= 4096 || bytes.contains(&0) {
        return Err(Error::refused("a path that is too long, or has a NUL"));
    }
    let (_, components) = target_components(path);
    let directory = bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes.is_empty() || bytes == b".";
    Ok((components, directory))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::symlink};

    use super::*;

    fn walk(dir: &Path, links: Links) -> Walk {
        Walk::new(File::open(dir).expect("open").into(), links)
    }

    fn parts(path: &str) -> Vec<OsString> {
        components_of(OsStr::new(path)).expect("valid").0
    }

    #[test]
    fn links_lead_on_within_the_root() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("run/lock")).expect("mkdir");
        std::fs::create_dir_all(root.join("var")).expect("mkdir");
        std::fs::write(root.join("run/file"), "x").expect("write");
        std::fs::write(dir.path().join("secret"), "x").expect("write");
        for (target, link) in [
            ("/run", "var/run"),
            ("../../../run", "var/up"),
            ("loop", "loop"),
            ("file", "run/alias"),
            ("../../secret", "run/out"),
        ] {
            symlink(target, root.join(link)).expect("symlink");
        }
        let mut walk_in = walk(&root, Links::Follow);
        for path in ["var/run/lock", "var/up/lock", "var/run/../run/lock", "../../run/lock"] {
            walk_in.enter(&parts(path), Missing::Refuse).expect(path);
            assert_eq!(walk_in.names(), ["run", "lock"], "{path}");
        }
        let errno = |e: Error| e.source_io().raw_os_error();
        let refused = walk_in.enter(&parts("loop/x"), Missing::Refuse).expect_err("loop");
        assert_eq!(errno(refused), Some(libc::ELOOP));
        let refused = walk_in.enter(&parts("run/file/x"), Missing::Refuse).expect_err("a file");
        assert_eq!(errno(refused), Some(libc::ENOTDIR));

        let end = walk_in.resolve(&parts("/var/run/alias"), true).expect("resolve");
        assert!(matches!(end, End::Name(name, _) if name == "file"));
        let end = walk_in.resolve(&parts("/var/run/alias"), false).expect("resolve");
        assert!(matches!(end, End::Name(name, _) if name == "alias"));
        let end = walk_in.resolve(&parts("/run/out"), true).expect("resolve");
        assert!(matches!(end, End::Nothing(name) if name == "secret"), "the root is the end of ..");
        assert!(matches!(walk_in.resolve(&parts("var/run"), true).expect("resolve"), End::Here));

        let refused = walk(&root, Links::Refuse).enter(&parts("var/run"), Missing::Refuse);
        assert_eq!(errno(refused.expect_err("a link")), Some(libc::ELOOP));
    }

    #[test]
    fn what_is_missing_is_made() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut walk = walk(dir.path(), Links::Follow);
        let missing = walk.enter(&parts("a/b"), Missing::Refuse).expect_err("nothing there");
        assert_eq!(missing.source_io().raw_os_error(), Some(libc::ENOENT));
        walk.enter(&parts("a/b"), Missing::Make(None)).expect("make");
        assert!(dir.path().join("a/b").is_dir());
    }

    #[test]
    fn what_ends_with_a_slash_is_a_directory() {
        for (path, names, directory) in [
            ("/a/b", &["a", "b"][..], false),
            ("a/", &["a"], true),
            ("/a/.", &["a"], true),
            ("/", &[], true),
            ("a/..", &["a", ".."], false),
            ("/.hidden.", &[".hidden."], false),
        ] {
            let (components, is_directory) = components_of(OsStr::new(path)).expect("valid");
            assert_eq!(
                (components, is_directory),
                (names.iter().map(Into::into).collect(), directory),
                "{path}"
            );
        }
        assert!(components_of(OsStr::new("a\0b")).is_err());
    }
}
