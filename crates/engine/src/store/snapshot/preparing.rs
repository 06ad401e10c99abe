// SPDX-License-Identifier: Apache-2.0
//! A layer while it is being unpacked.

use std::{os::fd::OwnedFd, sync::Arc};

use super::Snapshots;
use crate::error::Result;

/// A layer that is being unpacked; removed unless it is kept.
#[derive(Debug)]
pub struct Preparing {
    snapshots: Arc<Snapshots>,
    dir: i64,
    kept: bool,
}

impl Preparing {
    pub(super) fn new(snapshots: Arc<Snapshots>, dir: i64) -> Self {
        Self { snapshots, dir, kept: false }
    }

    pub(super) fn dir(&self) -> i64 {
        self.dir
    }

    /// The directory to unpack into.
    ///
    /// # Errors
    /// Those of the host.
    pub fn open(&self) -> Result<OwnedFd> {
        self.snapshots.open_fs(self.dir)
    }

    /// The row says that it is a layer now: dropping this removes nothing.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Removes it, and returns when it is gone. Blocks.
    pub fn give_up(mut self) {
        self.kept = true;
        discard(&self.snapshots, self.dir);
    }
}

fn discard(snapshots: &Snapshots, dir: i64) {
    if let Err(e) = snapshots.discard(dir) {
        tracing::warn!(snapshot = dir, error = %e.chain(), "can't remove an unfinished layer yet");
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let (snapshots, dir) = (Arc::clone(&self.snapshots), self.dir);
        // A dropped pull ends on a thread that must not block.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(move || discard(&snapshots, dir))),
            Err(_) => discard(&snapshots, dir),
        }
    }
}
