// SPDX-License-Identifier: Apache-2.0
//! A writable layer as a layer of an image: what overlayfs has for "deleted"
//! becomes what the OCI specification has for it.

use std::{io::Write, os::fd::AsFd as _};

use berth_files::{
    kernel::paths,
    pack::{Dialect, Mounts, Packer},
    tar,
};

use super::Snapshots;
use crate::error::{Context as _, Error, Kind, Result};

impl Snapshots {
    /// Writes the active snapshot `key` to `to`; how many entries it has. The
    /// container may be changing it meanwhile. `ids` are ranges of owners: the
    /// first on the disk, the first in the archive, and how many.
    ///
    /// # Errors
    /// `NotFound` for an unknown key, `InvalidArgument` for a file whose name
    /// says something else in a layer, those of the host and of `to`.
    pub fn pack(&self, key: &str, ids: &[(u32, u32, u32)], to: &mut impl Write) -> Result<u64> {
        let rootfs = self.rootfs(key)?;
        let beneath = rootfs.upper.strip_prefix(&self.base).unwrap_or(&rootfs.upper);
        let upper = paths::open_dir(self.dir.as_fd(), beneath)
            .with_context(|| format!("open {}", rootfs.upper.display()))?;
        let descriptors = paths::descriptors().context("open /proc/self/fd")?;
        let mut archive = tar::Writer::new(to);
        let mut packer = Packer::new(&mut archive, descriptors.as_fd(), Mounts::Stay)
            .dialect(Dialect::Layer)
            .ids(ids.to_vec());
        let packed = packer.directory(upper.as_fd(), b"");
        let entries = packer.entries();
        packed.map_err(|e| {
            let refused = e.source_io().raw_os_error().is_none()
                && e.source_io().kind() == std::io::ErrorKind::InvalidInput;
            let (what, source) = e.into_parts();
            if refused {
                Error::new(Kind::InvalidArgument, source.to_string())
            } else {
                Error::io(what, source)
            }
        })?;
        archive.finish().context("write a layer")?;
        Ok(entries)
    }
}
