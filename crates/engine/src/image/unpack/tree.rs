// SPDX-License-Identifier: Apache-2.0
//! The directory that a layer becomes: finding one's way in it by descriptor.
//!
//! Every step opens one component, without following it; links are followed
//! here, by us, and end at the layer's root. So nothing outside can be reached
//! whatever the layer's links say, and nothing is resolved twice.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ffi::{OsStr, OsString},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, readlinkat},
    sys::{
        stat::{FileStat, Mode, SFlag, fchmod, fstatat, futimens, mkdirat},
        time::TimeSpec,
    },
};

use berth_files::name::{join, target_components};

use super::{
    lower::{Found, Lower, OPAQUE},
    refused,
};
use crate::{
    error::{Context as _, Result},
    kernel::{fs, paths},
};

/// As many links as Linux follows in one path.
const MAX_LINKS: usize = 40;
/// Deepest directory: nothing deeper can be named in one path (PATH_MAX), but
/// links would lead there. Each level is an open descriptor meanwhile.
const MAX_DEPTH: usize = 2048;
/// Bytes that the directories to be settled at the end may take.
const MAX_HELD: usize = 128 << 20;
/// What one takes besides its name.
const HELD_EACH: usize = 128;

/// What to do about directories on the way that aren't there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Make,
    Refuse,
}

#[derive(Debug)]
pub(super) struct Tree {
    root: OwnedFd,
    /// Open directories from below the root to where we are.
    at: Vec<(OsString, OwnedFd)>,
    lower: Option<Lower>,
    implied: BTreeSet<PathBuf>,
    /// Times of directories, set last: filling a directory changes them.
    times: BTreeMap<PathBuf, TimeSpec>,
    /// What both of them take, about.
    held: usize,
    pub(super) size: u64,
}

impl Tree {
    pub(super) fn new(root: OwnedFd, lower: Option<Lower>) -> Self {
        let implied = BTreeSet::from([PathBuf::new()]);
        Self { root, at: Vec::new(), lower, implied, times: BTreeMap::new(), held: 0, size: 0 }
    }

    /// The directory we are in.
    pub(super) fn here(&self) -> BorrowedFd<'_> {
        self.at.last().map_or(self.root.as_fd(), |(_, dir)| dir.as_fd())
    }

    /// Path of `name` in the directory we are in.
    pub(super) fn path_of(&self, name: &OsStr) -> PathBuf {
        self.at.iter().map(|(name, _)| name.as_os_str()).chain([name]).collect()
    }

    /// Goes to the directory `components`, from the root.
    pub(super) fn enter(&mut self, components: &[OsString], missing: Missing) -> Result<()> {
        let common = self.at.iter().zip(components).take_while(|((open, _), wanted)| open == *wanted).count();
        self.at.truncate(common);
        let mut pending: VecDeque<OsString> = components[common..].iter().cloned().collect();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                self.at.pop();
                continue;
            }
            if self.at.len() == MAX_DEPTH {
                return Err(refused(format_args!("a directory more than {MAX_DEPTH} deep")));
            }
            if let Some(target) = self.step(name, missing, &join(components))? {
                links += 1;
                if links > MAX_LINKS {
                    return Err(refused(format_args!(
                        "too many links on the way to {}",
                        join(components).display()
                    )));
                }
                let (absolute, parts) = target_components(&target);
                if absolute {
                    self.at.clear();
                }
                parts.into_iter().rev().for_each(|part| pending.push_front(part));
            }
        }
        Ok(())
    }

    /// Goes one component down, or says where the link there leads.
    fn step(&mut self, name: OsString, missing: Missing, whole: &Path) -> Result<Option<OsString>> {
        let opened = paths::open_dir(self.here(), Path::new(&name));
        let dir = match opened {
            Ok(dir) => dir,
            Err(Errno::ENOENT) => {
                if let Some(target) = self.link_below(&name)? {
                    return Ok(Some(target));
                }
                if missing == Missing::Refuse {
                    return Err(refused(format_args!("{} isn't in the layer", whole.display())));
                }
                self.imply(&name)?
            }
            Err(Errno::ELOOP | Errno::ENOTDIR) => {
                let stat = self.stat(&name)?;
                if fs::file_type(&stat) == SFlag::S_IFLNK {
                    return readlinkat(self.here(), name.as_os_str()).map(Some).context("read a link");
                }
                if !fs::is_whiteout(&stat) || missing == Missing::Refuse {
                    return Err(refused(format_args!("{} leads through a file", whole.display())));
                }
                // Removed below, and made anew here: nothing below shows through.
                self.remove(&name)?;
                let dir = self.imply(&name)?;
                fs::set_xattr(dir.as_fd(), OPAQUE, b"y").context("hide a directory below")?;
                dir
            }
            Err(e) => return Err(e).with_context(|| format!("open {}", whole.display())),
        };
        self.at.push((name, dir));
        Ok(None)
    }

    fn link_below(&self, name: &OsStr) -> Result<Option<OsString>> {
        let Some(lower) = &self.lower else { return Ok(None) };
        match lower.find(&self.path_of(name)).context("look at the layers below")? {
            Found::Symlink(target) => Ok(Some(target)),
            Found::Directory(_) | Found::Nothing => Ok(None),
        }
    }

    fn imply(&mut self, name: &OsStr) -> Result<OwnedFd> {
        let path = self.path_of(name);
        let make = |dir: BorrowedFd<'_>| {
            mkdirat(dir, name, Mode::from_bits_truncate(0o755))?;
            let made = paths::open_dir(dir, Path::new(name))?;
            // Whatever the engine's umask.
            fchmod(&made, Mode::from_bits_truncate(0o755))?;
            Ok::<_, Errno>(made)
        };
        let made = make(self.here()).with_context(|| format!("make directory {}", path.display()))?;
        self.hold(&path)?;
        self.implied.insert(path);
        Ok(made)
    }

    fn hold(&mut self, path: &Path) -> Result<()> {
        self.held += path.as_os_str().len() + HELD_EACH;
        if self.held > MAX_HELD { Err(refused("directories without number")) } else { Ok(()) }
    }

    /// Looks at `name` in the directory we are in.
    pub(super) fn stat(&self, name: &OsStr) -> Result<FileStat> {
        fstatat(self.here(), name, AtFlags::AT_SYMLINK_NOFOLLOW)
            .with_context(|| format!("look at {}", self.path_of(name).display()))
    }

    /// Removes `name` in the directory we are in, whatever it is.
    pub(super) fn remove(&mut self, name: &OsStr) -> Result<()> {
        let path = self.path_of(name);
        let was_directory = fs::file_type(&self.stat(name)?) == SFlag::S_IFDIR;
        fs::remove_tree(self.here(), Path::new(name))
            .with_context(|| format!("replace {}", path.display()))?;
        if !was_directory {
            return Ok(());
        }
        self.implied.retain(|implied| !implied.starts_with(&path));
        self.times.retain(|with_time, _| !with_time.starts_with(&path));
        Ok(())
    }

    /// An entry described this directory: its metadata are the layer's own.
    ///
    /// # Errors
    /// A refusal of more directories than anybody has.
    pub(super) fn described(&mut self, path: PathBuf, mtime: TimeSpec) -> Result<()> {
        let implied = self.implied.remove(&path);
        if !implied && !self.times.contains_key(&path) {
            self.hold(&path)?;
        }
        self.times.insert(path, mtime);
        Ok(())
    }

    /// Sets the directories' times. The size, and what was only implied.
    pub(super) fn finish(mut self) -> Result<(u64, Vec<PathBuf>)> {
        let times = std::mem::take(&mut self.times);
        for (path, mtime) in times {
            let components: Vec<OsString> = path.iter().map(OsStr::to_owned).collect();
            self.enter(&components, Missing::Refuse)?;
            futimens(self.here(), &mtime, &mtime)
                .with_context(|| format!("set the time of {}", path.display()))?;
        }
        Ok((self.size, self.implied.into_iter().collect()))
    }
}
