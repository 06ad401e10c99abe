// SPDX-License-Identifier: Apache-2.0
//! A layer becomes a directory: decompress, hash and write in one pass.
//!
//! The directory is what overlayfs takes as a lower layer: whiteouts are
//! character devices 0:0 and opaque directories carry an attribute. Layers
//! are unpacked side by side, each without knowing the others; what needs the
//! layers below (directories that a layer only implies) is settled afterwards
//! by [`implied`]. Everything here blocks.

pub mod compression;
pub mod implied;
mod lower;
mod plain;
mod tree;
mod write;

use std::{
    io::{self, Read},
    os::fd::OwnedFd,
    path::PathBuf,
    thread,
};

use berth_files::{name::Name, tar};

pub use self::{compression::Compression, lower::Lower};
use self::{plain::Plain, tree::Tree};
use crate::{
    domain::digest::Digest,
    error::{Error, Kind, Result},
};

/// Most entries of one layer.
const MAX_ENTRIES: u64 = 10_000_000;
/// A layer may unfold to its compressed size times this (deflate can't do
/// more), and something for the small ones.
const MAX_RATIO: u64 = 1100;
const RATIO_SLACK: u64 = 64 << 20;

/// What came of a layer.
#[derive(Debug)]
pub struct Unpacked {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of the files.
    pub size: u64,
    /// Directories that no entry described, relative, parents first.
    pub implied: Vec<PathBuf>,
}

/// Unpacks the layer that `source` reads, of `compressed` bytes, into the empty
/// directory `into`. `lower`, where it is known, is what the layer lies on.
/// `progress` is told how many uncompressed bytes are done.
///
/// # Errors
/// `DataLoss` for a damaged stream, `InvalidArgument` for content that is
/// refused, those of the host.
pub fn unpack(
    source: Box<dyn Read + Send + '_>,
    compression: Compression,
    compressed: u64,
    into: OwnedFd,
    lower: Option<Lower>,
    progress: &mut dyn FnMut(u64),
) -> Result<Unpacked> {
    let plain = compression.reader(source).map_err(|e| stream_error(&e))?;
    let limit = compressed.saturating_mul(MAX_RATIO).saturating_add(RATIO_SLACK);
    thread::scope(|scope| {
        let mut archive = tar::Reader::new(Plain::start(scope, plain, limit, progress)?);
        let mut tree = Tree::new(into, lower);
        let mut entries = 0_u64;
        while let Some(entry) = archive.next_entry().map_err(|e| stream_error(&e))? {
            entries += 1;
            if entries > MAX_ENTRIES {
                return Err(refused(format!("a layer with more than {MAX_ENTRIES} entries")));
            }
            let name = Name::of_entry(&entry.path).map_err(of_files)?;
            write::entry(&mut tree, &mut archive, &entry, &name)?;
        }
        // What follows the archive's end is part of the digest.
        archive.drain().map_err(|e| stream_error(&e))?;
        let (size, implied) = tree.finish()?;
        Ok(Unpacked { diff_id: archive.into_inner().digest(), size, implied })
    })
}

/// A failure of the stream that a layer is read from.
fn stream_error(e: &io::Error) -> Error {
    if let Some(inner) = e.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        // One of ours went through a library.
        return Error::new(inner.kind(), inner.chain());
    }
    match e.raw_os_error() {
        Some(errno) => Error::io("read layer", io::Error::from_raw_os_error(errno)),
        None if e.kind() == io::ErrorKind::UnexpectedEof => {
            Error::new(Kind::DataLoss, "layer is damaged: it ends too early")
        }
        None => Error::new(Kind::DataLoss, format!("layer is damaged: {e}")),
    }
}

/// What the shared code says of a file or an archive.
fn of_files(error: berth_files::Error) -> Error {
    let (context, source) = error.into_parts();
    match source.kind() {
        io::ErrorKind::InvalidInput if source.raw_os_error().is_none() => refused(source),
        // Without an object it is the archive that failed.
        _ if context.is_empty() => stream_error(&source),
        _ => Error::io(context, source),
    }
}

fn refused(words: impl std::fmt::Display) -> Error {
    Error::new(Kind::InvalidArgument, format!("layer refused: {words}"))
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
