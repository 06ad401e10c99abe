// SPDX-License-Identifier: Apache-2.0
//! An archive is unpacked into a directory that is in use: what `cp` does, at
//! either end. Every byte of the archive is hostile, and so is whoever else
//! writes there.
//!
//! Layers have rules of their own, and an unpacker in the engine; what one
//! entry becomes is [`crate::make`]'s, for both.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::BufRead,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::{
        stat::{Mode, SFlag, fstat, futimens, mkdirat},
        time::TimeSpec,
    },
    unistd::{UnlinkatFlags, linkat, unlinkat},
};

use crate::{
    error::{Context as _, Error, Result},
    kernel::{fs, paths},
    make::{self, Owner, Policy},
    name::{Name, show},
    tar::{Entry, Kind, Reader},
    walk::{Missing, Walk},
};

/// Most entries of one archive, as of a layer.
const MAX_ENTRIES: u64 = 10_000_000;

/// What to do with devices in an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Devices {
    /// Make them.
    Make,
    /// Leave them out: they would be the host's.
    Skip,
}

/// What the entries' first component becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Top {
    /// It stays.
    Keep,
    /// This; an archive of one thing is meant.
    Rename(OsString),
    /// Nothing: what is in the archive's one directory goes where it would
    /// have gone itself.
    Strip,
}

/// How an archive is unpacked.
#[derive(Debug, Clone)]
pub struct Options {
    /// What of an entry is believed.
    pub policy: Policy,
    /// Devices.
    pub devices: Devices,
    /// Names.
    pub top: Top,
}

/// What was done.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Extracted {
    /// Entries, those that were left out included.
    pub entries: u64,
    /// Devices that were left out.
    pub skipped: u64,
}

struct Extraction<'a> {
    walk: Walk,
    /// Where the archive is unpacked.
    base: Vec<OsString>,
    options: &'a Options,
    /// `/proc/self/fd`.
    descriptors: BorrowedFd<'a>,
    /// Times of directories, set last: filling a directory changes them.
    times: BTreeMap<Vec<OsString>, TimeSpec>,
}

/// Unpacks `archive` into the directory that `walk` is in.
///
/// # Errors
/// Refusals, the archive's, the host's. What was unpacked before stays.
pub fn extract<R: BufRead>(
    walk: Walk,
    archive: &mut Reader<R>,
    options: &Options,
    descriptors: BorrowedFd<'_>,
) -> Result<Extracted> {
    let base = walk.names();
    let mut extraction = Extraction { walk, base, options, descriptors, times: BTreeMap::new() };
    let mut done = Extracted::default();
    while let Some(entry) = archive.next_entry().map_err(|e| Error::new("", e))? {
        done.entries += 1;
        if done.entries > MAX_ENTRIES {
            return Err(Error::refused(format_args!("an archive of more than {MAX_ENTRIES} entries")));
        }
        if matches!(entry.kind, Kind::Character | Kind::Block) && options.devices == Devices::Skip {
            done.skipped += 1;
            continue;
        }
        extraction.entry(archive, &entry).map_err(|e| e.at(show(&entry.path)))?;
    }
    archive.drain().map_err(|e| Error::new("", e))?;
    extraction.finish()?;
    Ok(done)
}

impl Extraction<'_> {
    fn entry<R: BufRead>(&mut self, archive: &mut Reader<R>, entry: &Entry) -> Result<()> {
        let name = self.renamed(&entry.path)?;
        let Some((last, above)) = name.split() else {
            // The directory itself, which was there before.
            return if entry.kind == Kind::Directory {
                Ok(())
            } else {
                Err(Error::refused("a file in place of the directory that is unpacked into"))
            };
        };
        if entry.kind == Kind::HardLink {
            return self.hard_link(entry, last, above);
        }
        self.enter(above)?;
        match entry.kind {
            Kind::Directory => self.directory(entry, last),
            Kind::File => self.file(archive, entry, last),
            Kind::Symlink => {
                let target = make::link_target(entry)?;
                self.replace(last, |dir| make::symlink(dir, last, target))?;
                make::describe_name(self.walk.here(), last, entry, self.options.policy)
            }
            _ => {
                self.replace(last, |dir| make::node(dir, last, entry))?;
                make::describe_name(self.walk.here(), last, entry, self.options.policy)
            }
        }
    }

    fn renamed(&self, raw: &[u8]) -> Result<Name> {
        let name = Name::of_entry(raw)?;
        let Some((_, below)) = name.components().split_first() else { return Ok(name) };
        Ok(match &self.options.top {
            Top::Keep => name,
            Top::Strip => Name::of_components(below.to_vec()),
            Top::Rename(to) => Name::of_components([std::slice::from_ref(to), below].concat()),
        })
    }

    fn enter(&mut self, above: &[OsString]) -> Result<()> {
        let owner = match self.options.policy.owner {
            Owner::Maker => None,
            Owner::Given(uid, gid) => Some((uid, gid)),
            Owner::Archived => Some((0, 0)),
        };
        self.walk.enter(&[&self.base, above].concat(), Missing::Make(owner))
    }

    fn directory(&mut self, entry: &Entry, name: &OsStr) -> Result<()> {
        match mkdirat(self.walk.here(), name, Mode::from_bits_truncate(0o700)) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                if fs::file_type(&self.walk.stat(name)?) != SFlag::S_IFDIR {
                    let there = self.walk.path_of(name);
                    return Err(Error::refused(format_args!(
                        "cannot overwrite non-directory \"/{}\" with directory \"{}\"",
                        there.display(),
                        show(&entry.path)
                    )));
                }
            }
            Err(e) => return Err(e).context("make directory"),
        }
        let dir = paths::open_child(self.walk.here(), Path::new(name), OFlag::O_RDONLY | OFlag::O_DIRECTORY);
        let dir = dir.context("open directory")?;
        make::describe(dir.as_fd(), entry, self.options.policy)?;
        let mut path = self.walk.names();
        path.push(name.to_owned());
        self.times.insert(path, make::mtime(entry));
        Ok(())
    }

    fn file<R: BufRead>(&mut self, archive: &mut Reader<R>, entry: &Entry, name: &OsStr) -> Result<()> {
        match self.replace(name, |dir| make::create(dir, name)) {
            Ok(made) => make::fill(made, archive, entry, self.options.policy),
            // Something is mounted on it: the file itself has to do.
            Err(e)
                if matches!(e.source_io().raw_os_error(), Some(libc::EBUSY | libc::EROFS | libc::EXDEV)) =>
            {
                let Some(there) = self.open_file(name)? else { return Err(e) };
                let mut file = File::from(there);
                file.set_len(0).context("empty it")?;
                make::data(archive, entry, &mut file)
            }
            Err(e) => Err(e),
        }
    }

    /// The regular file `name`, to be written to.
    fn open_file(&self, name: &OsStr) -> Result<Option<OwnedFd>> {
        let handle = paths::open_child(self.walk.here(), Path::new(name), OFlag::O_PATH).context("open")?;
        if fs::file_type(&fstat(&handle).context("look at it")?) != SFlag::S_IFREG {
            return Ok(None);
        }
        paths::reopen(self.descriptors, handle.as_fd(), OFlag::O_WRONLY).map(Some).context("open")
    }

    /// Makes something new, replacing a file that has its name.
    fn replace<T>(&self, name: &OsStr, make: impl Fn(BorrowedFd<'_>) -> nix::Result<T>) -> Result<T> {
        match make(self.walk.here()) {
            Err(Errno::EEXIST) => {
                let there = self.walk.path_of(name);
                if fs::file_type(&self.walk.stat(name)?) == SFlag::S_IFDIR {
                    return Err(Error::refused(format_args!(
                        "cannot overwrite directory \"/{}\" with non-directory",
                        there.display()
                    )));
                }
                unlinkat(self.walk.here(), name, UnlinkatFlags::NoRemoveDir)
                    .with_context(|| format!("replace /{}", there.display()))?;
                make(self.walk.here()).context("create")
            }
            result => result.context("create"),
        }
    }

    fn hard_link(&mut self, entry: &Entry, name: &OsStr, above: &[OsString]) -> Result<()> {
        let target = self.renamed(&entry.link)?;
        let Some((target_name, target_above)) = target.split() else {
            return Err(Error::refused("a hard link to the directory that is unpacked into"));
        };
        let missing = |e: Error| match e.source_io().raw_os_error() {
            Some(libc::ENOENT) => {
                Error::refused(format_args!("hard link to {:?}, which isn't there", show(&entry.link)))
            }
            _ => e,
        };
        self.walk.enter(&[&self.base, target_above].concat(), Missing::Refuse).map_err(missing)?;
        let target_dir =
            paths::open_child(self.walk.here(), Path::new("."), OFlag::O_RDONLY | OFlag::O_DIRECTORY)
                .context("open the target's directory")?;
        let stat = self.walk.stat(target_name).map_err(missing)?;
        if fs::file_type(&stat) == SFlag::S_IFDIR {
            return Err(Error::refused("a hard link to a directory"));
        }
        let itself = self.walk.path_of(target_name);
        self.enter(above)?;
        if self.walk.path_of(name) == itself {
            return Ok(());
        }
        self.replace(name, |dir| linkat(&target_dir, target_name, dir, name, AtFlags::empty()))
    }

    fn finish(mut self) -> Result<()> {
        for (path, mtime) in std::mem::take(&mut self.times) {
            // Whoever else is at work here may have taken it away.
            if self.walk.enter(&path, Missing::Refuse).is_err() {
                continue;
            }
            futimens(self.walk.here(), &mtime, &mtime)
                .with_context(|| format!("set the time of {}", crate::name::join(&path).display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
