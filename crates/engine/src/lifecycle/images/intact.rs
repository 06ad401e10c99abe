// SPDX-License-Identifier: Apache-2.0
//! Whether what an image is made of is still there. What isn't right is taken
//! away, so that a pull brings it back.

use super::Images;
use crate::{
    domain::digest::Digest,
    error::Result,
    store::meta::{blobs, images as rows, snapshots},
};

/// Blobs up to this many bytes are read at each look: documents, mostly.
const SMALL: u64 = 256 << 10;

impl Images {
    /// A look that costs next to nothing: every blob has its size, small ones
    /// their digest, and every layer a directory.
    pub(super) fn is_intact(&self, image: &rows::ImageRow) -> Result<bool> {
        let mut intact = true;
        for (digest, size) in self.db.read(|c| blobs::of_image(c, &image.id))? {
            let digest: Digest = digest.parse()?;
            if self.content.size(&digest)? != Some(size) || size <= SMALL {
                intact &= self.check_blob(&digest)?;
            }
        }
        let Some(top) = &image.chain_id else { return Ok(intact) };
        for layer in self.db.read(|c| snapshots::chain(c, top))? {
            intact &= self.snapshots.has_files(&layer.key.parse()?)?;
        }
        Ok(intact)
    }

    /// Reads every blob of the image. Whether all were right.
    pub(super) fn check_blobs(&self, image: &rows::ImageRow) -> Result<bool> {
        let mut intact = true;
        for (digest, _) in self.db.read(|c| blobs::of_image(c, &image.id))? {
            intact &= self.check_blob(&digest.parse()?)?;
        }
        Ok(intact)
    }

    fn check_blob(&self, digest: &Digest) -> Result<bool> {
        if self.content.drop_damaged(digest)? {
            tracing::warn!(blob = %digest, "a stored blob was damaged");
            return Ok(false);
        }
        Ok(self.content.size(digest)?.is_some())
    }
}
