// SPDX-License-Identifier: Apache-2.0
//! Mount: an image's root file system, read-only, in a directory of the host,
//! for as long as somebody wants to look. The one thing of the engine's that
//! the host's mount table shows; it outlives the engine, and keeps the image.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use berth::ids::Namespace;
use nix::errno::Errno;

use super::{Images, resolve::find};
use crate::{
    domain::digest::Digest,
    error::{Context as _, Error, Kind, Result},
    kernel::{mounts, pidfd},
    store::meta::mounts as rows,
};

/// A mounted image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedImage {
    /// Where.
    pub path: String,
    /// Its id.
    pub image_id: String,
}

/// What the mount table calls the mount of an image: how ours are told from
/// what somebody else has put at the same place.
fn source(image_id: &str) -> String {
    format!("berth:{image_id}")
}

impl Images {
    /// Mounts `image` at the directory `path`, and says where that is when all
    /// links are followed. Blocks.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument` for what is no directory,
    /// `AlreadyExists` when an image is mounted there, those of the host.
    pub fn mount(&self, namespace: &Namespace, image: &str, path: &Path) -> Result<MountedImage> {
        if !path.is_absolute() {
            let words = format!("{} is not an absolute path", path.display());
            return Err(Error::new(Kind::InvalidArgument, words));
        }
        let at = fs::canonicalize(path).with_context(|| format!("open {}", path.display()))?;
        if !at.is_dir() {
            let words = format!("{} is not a directory", path.display());
            return Err(Error::new(Kind::InvalidArgument, words));
        }
        let boot = pidfd::boot_id().context("ask for this boot's id")?;
        let (mounted, chain) = self.db.write(|tx| {
            let found = find(tx, namespace.as_str(), image)?;
            let new = rows::Row {
                path: at.to_string_lossy().into_owned(),
                namespace: namespace.to_string(),
                image_id: found.row.id.clone(),
            };
            if rows::get(tx, &new.path)?.is_some() {
                let words = format!("an image is mounted at {} already", new.path);
                return Err(Error::new(Kind::AlreadyExists, words));
            }
            rows::insert(tx, &new, &boot)?;
            Ok((MountedImage { path: new.path, image_id: new.image_id }, found.row.chain_id))
        })?;
        if let Err(e) = self.stack(chain.as_deref(), &at, &mounted.image_id) {
            self.db.write(|tx| rows::delete(tx, &mounted.path))?;
            return Err(e);
        }
        Ok(mounted)
    }

    fn stack(&self, chain: Option<&str>, at: &Path, image_id: &str) -> Result<()> {
        let layers = match chain {
            Some(top) => self.snapshots.layers(&top.parse::<Digest>()?)?,
            None => Vec::new(),
        };
        if layers.is_empty() {
            return Err(Error::new(
                Kind::FailedPrecondition,
                "the image has no files: there is nothing to mount",
            ));
        }
        let open = |dir: &PathBuf| -> Result<OwnedFd> {
            Ok(fs::File::open(dir).with_context(|| format!("open {}", dir.display()))?.into())
        };
        let mut open_layers = layers.iter().map(|(_, dir)| open(dir)).collect::<Result<Vec<_>>>()?;
        // Overlayfs wants two layers.
        open_layers.push(self.snapshots.empty()?);
        mounts::overlay(&open_layers, at, &source(image_id))
            .with_context(|| format!("mount image {image_id} at {}", at.display()))
    }

    /// Takes the mount at `path` away; with `force` also one in use. Blocks.
    ///
    /// # Errors
    /// `NotFound` when no image is mounted there, `FailedPrecondition` for one
    /// in use, those of the host.
    pub fn unmount(&self, namespace: &Namespace, path: &Path, force: bool) -> Result<()> {
        // A name that can't be followed any more may still be that of a mount.
        let at = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let text = at.to_string_lossy();
        let row = self.db.read(|c| rows::get(c, &text))?.filter(|row| row.namespace == namespace.as_str());
        let Some(row) = row else {
            return Err(Error::new(Kind::NotFound, format!("no image is mounted at {}", path.display())));
        };
        if is_there(&row)? {
            match mounts::unmount(&at, force) {
                Ok(()) | Err(Errno::EINVAL) => {}
                Err(Errno::EBUSY) => {
                    let words = format!("{} is in use (unmount it with force)", at.display());
                    return Err(Error::new(Kind::FailedPrecondition, words));
                }
                Err(e) => return Err(e).with_context(|| format!("unmount {}", at.display())),
            }
        }
        self.db.write(|tx| rows::delete(tx, &row.path))
    }

    /// The namespace's mounted images. Blocks.
    ///
    /// # Errors
    /// Those of the database.
    pub fn mounted(&self, namespace: &Namespace) -> Result<Vec<MountedImage>> {
        let all = self.db.read(rows::all)?.into_iter();
        let own = all.filter(|row| row.namespace == namespace.as_str());
        Ok(own.map(|row| MountedImage { path: row.path, image_id: row.image_id }).collect())
    }

    /// Forgets mounts that aren't there any more: after a reboot, or when
    /// somebody else took them away. Called once, at start. Blocks.
    ///
    /// # Errors
    /// Those of the host and of the database.
    pub fn reconcile_mounts(&self) -> Result<()> {
        for row in self.db.read(rows::all)? {
            if !is_there(&row)? {
                self.db.write(|tx| rows::delete(tx, &row.path))?;
            }
        }
        Ok(())
    }
}

fn is_there(row: &rows::Row) -> Result<bool> {
    let found = mounts::source_at(Path::new(&row.path)).context("read the mount table")?;
    Ok(found.is_some_and(|found| found == source(&row.image_id)))
}
