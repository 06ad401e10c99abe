// SPDX-License-Identifier: Apache-2.0
//! Some space that is kept back on the store's disk, for the metadata alone:
//! what frees a full disk (stop, kill, rm, prune) has to be recorded first, and
//! a record takes bytes that nobody else has left.
//!
//! A file of [`SIZE`] is made while there is room, is cut when there is none,
//! and grows again when there is some.

use std::{fs::File, os::unix::fs::OpenOptionsExt as _, path::Path};

use nix::{
    fcntl::{FallocateFlags, fallocate},
    sys::statvfs::fstatvfs,
};

use crate::error::{Context as _, Result};

/// The file, below the root.
const NAME: &str = "reserve";

/// Bytes: SQLite's log before it is folded into the database, twice.
const SIZE: u64 = 8 << 20;

/// Bytes that are given up at a time: many transactions.
const STEP: u64 = 1 << 20;

/// With fewer bytes free than these a transaction may fail.
const LOW: u64 = 512 << 10;

/// With more bytes free than these nobody misses what is kept back.
const PLENTY: u64 = 64 << 20;

/// The space that is kept back.
#[derive(Debug)]
pub struct Reserve(File);

impl Reserve {
    /// Opens or makes it, and takes what it can get.
    ///
    /// # Errors
    /// Those of the host; no space is none.
    pub fn open(root: &Path) -> Result<Self> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let reserve = Self(file.open(root.join(NAME)).context("open the reserve of the metadata")?);
        reserve.adjust(LOW, 2 * SIZE);
        Ok(reserve)
    }

    /// Sees to it that there are some bytes for a transaction: one system call
    /// on a disk that has room.
    pub fn make_room(&self) {
        self.adjust(LOW, PLENTY);
    }

    /// Whatever fails here, the transaction may succeed, or says so itself.
    fn adjust(&self, low: u64, plenty: u64) {
        let Ok(disk) = fstatvfs(&self.0) else { return };
        let free = disk.blocks_free().saturating_mul(disk.fragment_size());
        if (low..=plenty).contains(&free) {
            return;
        }
        let Ok(length) = self.0.metadata().map(|metadata| metadata.len()) else { return };
        if free < low && length > 0 {
            tracing::warn!(free, "the disk of the store is full: space that was kept back is used");
            drop(self.0.set_len(length.saturating_sub(STEP)));
        } else if free > plenty && length < SIZE {
            let size = i64::try_from(SIZE).unwrap_or(i64::MAX);
            if let Err(e) = fallocate(&self.0, FallocateFlags::empty(), 0, size) {
                tracing::debug!(error = %e, "keep space back for the metadata");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shrinks_when_there_is_no_room_and_grows_when_there_is() {
        let dir = tempfile::tempdir().expect("tempdir");
        let reserve = Reserve::open(dir.path()).expect("open");
        let length = || std::fs::metadata(dir.path().join(NAME)).expect("metadata").len();
        reserve.adjust(0, 0);
        assert_eq!(length(), SIZE);
        reserve.adjust(u64::MAX, u64::MAX);
        assert_eq!(length(), SIZE - STEP);
        for _ in 0..20 {
            reserve.adjust(u64::MAX, u64::MAX);
        }
        assert_eq!(length(), 0);
        reserve.adjust(0, 0);
        assert_eq!(length(), SIZE);
    }
}
