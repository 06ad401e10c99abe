// SPDX-License-Identifier: Apache-2.0
//! A blob on its way into the store.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom, Write as _},
    os::fd::AsFd as _,
    path::Path,
    sync::{Arc, PoisonError},
};

use berth::failpoint;
use nix::{
    fcntl::{OFlag, renameat},
    sys::stat::{Mode, fstat},
    unistd::{UnlinkatFlags, unlinkat},
};

use super::{Content, path};
use crate::{
    domain::digest::{Digest, Hasher},
    error::{Context as _, Error, Kind, Result},
    kernel::{fs, paths},
};

/// Bytes that are worth a request to the disk of their own.
const WRITEBACK: u64 = 4 << 20;

/// The writer of one blob.
///
/// Dropped without [`Ingest::commit`], what was written stays for the next
/// attempt. A continued ingest has to [`Ingest::absorb`] what is there before
/// it writes more, because the digest covers both.
#[derive(Debug)]
pub struct Ingest {
    content: Arc<Content>,
    digest: Digest,
    name: String,
    file: File,
    hasher: Hasher,
    offset: u64,
    writeback: fs::Writeback,
}

impl Ingest {
    pub(super) fn open(content: Arc<Content>, digest: &Digest) -> Result<Self> {
        let free = content.writing.lock().unwrap_or_else(PoisonError::into_inner).insert(digest.clone());
        if !free {
            return Err(Error::new(Kind::FailedPrecondition, format!("blob {digest} is being written")));
        }
        let name = name(digest);
        let opened = open_partial(&content, &name);
        let (file, offset) = match opened.with_context(|| format!("store blob {digest}")) {
            Ok(opened) => opened,
            Err(e) => {
                content.writing.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
                return Err(e);
            }
        };
        let hasher = Hasher::new(digest.algorithm());
        let writeback = fs::Writeback::new(offset, WRITEBACK);
        Ok(Self { content, digest: digest.clone(), name, file, hasher, offset, writeback })
    }

    /// How many bytes are there already.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// A reader of the bytes that an earlier attempt left.
    ///
    /// # Errors
    /// Those of the host.
    pub fn kept(&self) -> Result<File> {
        paths::open_beneath(
            self.content.ingest.as_fd(),
            Path::new(&self.name),
            OFlag::O_RDONLY,
            Mode::empty(),
        )
        .map(File::from)
        .with_context(|| format!("read what there is of blob {}", self.digest))
    }

    /// Takes bytes into the digest that are in the file already.
    pub fn absorb(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
    }

    /// Appends. After an error [`Ingest::offset`] says how much of it.
    ///
    /// # Errors
    /// Those of the host: a full disk is `ResourceExhausted`.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let written = match self.file.write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                result => result,
            };
            let (done, rest) =
                bytes.split_at(written.with_context(|| format!("store blob {}", self.digest))?);
            self.hasher.update(done);
            self.offset += done.len() as u64;
            bytes = rest;
        }
        self.writeback.written(self.file.as_fd(), self.offset);
        Ok(())
    }

    /// Forgets what an earlier attempt left.
    ///
    /// # Errors
    /// Those of the host.
    pub fn restart(&mut self) -> Result<()> {
        self.hasher = Hasher::new(self.digest.algorithm());
        self.offset = 0;
        self.writeback = fs::Writeback::new(0, WRITEBACK);
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)).map(drop))
            .with_context(|| format!("store blob {} anew", self.digest))
    }

    /// Makes it a blob, when size and digest are right and the disk has it;
    /// otherwise what was written is removed.
    ///
    /// # Errors
    /// `DataLoss` for the wrong content, those of the host.
    pub fn commit(self, size: u64) -> Result<()> {
        let hasher = self.hasher.clone();
        let computed = hasher.finish();
        if self.offset != size || computed != self.digest {
            self.discard()?;
            let (digest, offset) = (&self.digest, self.offset);
            let words = if offset == size {
                format!("content of {digest} is damaged: its digest is {computed}")
            } else {
                format!("content of {digest} is damaged: {offset} bytes instead of {size}")
            };
            return Err(Error::new(Kind::DataLoss, words));
        }
        self.publish()?;
        failpoint::hit("image.blob")?;
        Ok(())
    }

    fn publish(&self) -> Result<()> {
        if let Err(e) = nix::unistd::fsync(&self.file) {
            // What the disk didn't take reads as if it had, and the next fsync
            // wouldn't say so: it has to be written anew.
            self.discard()?;
            return Err(e).with_context(|| format!("store blob {}", self.digest));
        }
        self.rename().with_context(|| format!("store blob {}", self.digest))
    }

    fn rename(&self) -> nix::Result<()> {
        let blobs = &self.content.blobs;
        renameat(&self.content.ingest, self.name.as_str(), blobs, &path(&self.digest))?;
        let dir = paths::open_dir(blobs.as_fd(), Path::new(self.digest.algorithm().as_str()))?;
        nix::unistd::fsync(dir)
    }

    fn discard(&self) -> Result<()> {
        unlinkat(&self.content.ingest, self.name.as_str(), UnlinkatFlags::NoRemoveDir)
            .with_context(|| format!("remove what there is of {}", self.digest))
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        let mut writing = self.content.writing.lock().unwrap_or_else(PoisonError::into_inner);
        writing.remove(&self.digest);
        drop(writing);
        if self.offset == 0 {
            // Nothing worth continuing; after a commit the name is gone already.
            let _gone = unlinkat(&self.content.ingest, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}

/// The name of a blob's file while it isn't whole, or not known to be.
pub(super) fn name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().as_str(), digest.hex())
}

fn open_partial(content: &Content, name: &str) -> nix::Result<(File, u64)> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_APPEND | OFlag::O_NOFOLLOW;
    let mode = Mode::from_bits_truncate(0o600);
    let file = paths::open_beneath(content.ingest.as_fd(), Path::new(name), flags, mode)?;
    let length = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
    Ok((file.into(), length))
}
