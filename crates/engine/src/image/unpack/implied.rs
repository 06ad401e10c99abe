// SPDX-License-Identifier: Apache-2.0
//! Directories that a layer only implies, by naming something inside them.
//!
//! Overlayfs shows the topmost directory's metadata, so these must look like
//! the ones below, which weren't there yet when the layer was unpacked. Layers
//! are settled base first: then the nearest one below that has the directory
//! is right already.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use super::lower::{Found, Lower};
use crate::{
    error::{Context as _, Result},
    kernel::{fs, paths},
};

/// How settling ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The layer is right.
    Done,
    /// Below, one of the directories is a symbolic link: what the layer puts
    /// into it belongs where the link leads. The layer has to be unpacked
    /// again, with the layers below at hand.
    FollowLinks,
}

/// Gives the directories `implied` of `layer` the metadata that they have in
/// the layers below.
///
/// # Errors
/// Those of the host.
pub fn settle(layer: BorrowedFd<'_>, implied: &[PathBuf], lower: &Lower) -> Result<Settled> {
    for path in implied {
        let found = lower.find(path).with_context(|| format!("look below /{}", path.display()))?;
        match found {
            Found::Symlink(_) => return Ok(Settled::FollowLinks),
            Found::Nothing => {}
            Found::Directory(below) => {
                adopt(layer, path, below.as_fd())
                    .with_context(|| format!("settle /{} of a layer", path.display()))?;
            }
        }
    }
    Ok(Settled::Done)
}

fn adopt(layer: BorrowedFd<'_>, path: &Path, below: BorrowedFd<'_>) -> nix::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let here = paths::open_dir(layer, path)?;
    for name in fs::list_xattrs(below)? {
        // Ours to decide here: what is opaque below need not be above.
        if !name.to_bytes().starts_with(b"trusted.overlay.")
            && let Some(value) = fs::get_xattr(below, &name)?
        {
            fs::set_xattr(here.as_fd(), &name, &value)?;
        }
    }
    fs::copy_ownership(below, here.as_fd()).map(drop)
}
