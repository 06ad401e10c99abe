// SPDX-License-Identifier: Apache-2.0
//! A committed layer that was damaged, and the same one unpacked anew.

use std::{
    io::{self, Write},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use berth_files::{
    kernel::paths as descriptors,
    pack::{Mounts, Packer},
    tar,
};
use nix::{
    errno::Errno,
    fcntl::{RenameFlags, renameat, renameat2},
    sys::{
        stat::{Mode, fstat, futimens, mkdirat},
        time::TimeSpec,
    },
};

use super::{Preparing, Snapshots, committed};
use crate::{
    domain::digest::{Algorithm, Digest, Hasher},
    error::{Context as _, Error, Kind, Result},
    kernel::paths,
    store::meta::{mounts, snapshots as rows},
};

impl Snapshots {
    /// Whether the directory of the layer `key` is there. Its row is.
    ///
    /// # Errors
    /// Those of the host and the database.
    pub fn has_files(&self, key: &Digest) -> Result<bool> {
        let row = self.db.read(|c| committed(c, key.as_str()))?;
        match paths::open_dir(self.dir.as_fd(), &fs_of(row.dir)) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(false),
            Err(e) => Err(e).with_context(|| format!("look at snapshot {}", row.dir)),
        }
    }

    /// Whether the layer `key` has, to the last attribute, what `fresh` has. Of
    /// the root and the directories that are `implied`, nobody says when they
    /// were changed: there `fresh` is given the times of the old ones.
    ///
    /// # Errors
    /// Those of the host.
    pub fn same(&self, key: &Digest, fresh: &Preparing, implied: &[PathBuf]) -> Result<bool> {
        if !self.has_files(key)? {
            return Ok(false);
        }
        let (old, new) = (self.open_layer(key)?, fresh.open()?);
        let root = PathBuf::from(".");
        // Those below first: nothing that is done there changes one above.
        for path in implied.iter().rev().chain([&root]) {
            let both = paths::open_dir(old.as_fd(), path)
                .and_then(|old| Ok((old, paths::open_dir(new.as_fd(), path)?)));
            if let Ok((old, new)) = both {
                copy_times(&old, &new).context("set a time")?;
            }
        }
        Ok(digest(&old)? == digest(&new)?)
    }

    /// Puts the files of `fresh` where those of the layer `key` are; `fresh`
    /// has the old ones then.
    ///
    /// # Errors
    /// `FailedPrecondition` while a container that runs stands on the layer, or
    /// an image is mounted that has it; those of the host.
    pub fn replace(&self, key: &Digest, fresh: &Preparing) -> Result<()> {
        let row = self.db.read(|c| {
            if let Some(container) = rows::running_on(c, key.as_str())? {
                let words = format!(
                    "layer {} is damaged, and container {container} runs on it: stop it, and pull again",
                    key.short()
                );
                return Err(Error::new(Kind::FailedPrecondition, words));
            }
            if let Some(path) = mounts::on(c, key.as_str())? {
                let words = format!(
                    "layer {} is damaged, and an image with it is mounted at {path}: unmount it, and pull again",
                    key.short()
                );
                return Err(Error::new(Kind::FailedPrecondition, words));
            }
            committed(c, key.as_str())
        })?;
        let (to, from) = (fs_of(row.dir), fs_of(fresh.dir()));
        let replaced = match renameat2(&self.dir, &from, &self.dir, &to, RenameFlags::RENAME_EXCHANGE) {
            Err(Errno::ENOENT) => {
                match mkdirat(&self.dir, row.dir.to_string().as_str(), Mode::from_bits_truncate(0o700)) {
                    Ok(()) | Err(Errno::EEXIST) => renameat(&self.dir, &from, &self.dir, &to),
                    Err(e) => Err(e),
                }
            }
            result => result,
        };
        replaced.with_context(|| format!("replace the files of snapshot {}", row.dir))
    }
}

fn copy_times(from: &OwnedFd, to: &OwnedFd) -> nix::Result<()> {
    let stat = fstat(from)?;
    let (atime, mtime) =
        (TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec));
    futimens(to, &atime, &mtime)
}

fn fs_of(dir: i64) -> PathBuf {
    Path::new(&dir.to_string()).join("fs")
}

/// Of everything in a directory: names, kinds, modes, owners, times,
/// attributes, content.
fn digest(dir: &OwnedFd) -> Result<Digest> {
    let mut hashed = Hashed(Hasher::new(Algorithm::Sha256));
    let open = descriptors::descriptors().context("open /proc/self/fd")?;
    let mut archive = tar::Writer::new(&mut hashed);
    let packed = Packer::new(&mut archive, open.as_fd(), Mounts::Stay).directory(dir.as_fd(), b"root");
    packed.map_err(|e| {
        let (what, source) = e.into_parts();
        Error::io(what, source)
    })?;
    archive.finish().context("read a layer")?;
    Ok(hashed.0.finish())
}

struct Hashed(Hasher);

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
