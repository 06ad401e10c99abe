// SPDX-License-Identifier: Apache-2.0
//! An archive as it arrives: read once, uncompressed on the way. A large part
//! goes into a file of its own, hashed meanwhile, which the content store can
//! take as it is; the small ones share a file. So no byte is on the disk twice
//! and none of them waits in memory.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write as _},
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    super::{tar::Reader, unpack::Compression},
    not_tar,
};
use crate::{
    domain::digest::{Algorithm, Digest, Hasher},
    error::{Context as _, Result},
};

/// Parts from this size on have a file of their own.
const OWN_FILE: u64 = 256 << 10;
/// Most files that are open for one archive.
const MAX_OWN: usize = 512;
const BUFFER: usize = 256 << 10;
/// As for layers: no honest archive unfolds further.
const MAX_RATIO: u64 = 1100;
const RATIO_SLACK: u64 = 64 << 20;

/// A file of the archive, or where it is in one that it shares.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where its bytes are.
    pub file: Arc<File>,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Its SHA-256, when `file` holds nothing else.
    pub digest: Option<Digest>,
}

impl Part {
    /// Its digest, computed unless it is known.
    pub(super) fn sha256(&self) -> Result<Digest> {
        if let Some(digest) = &self.digest {
            return Ok(digest.clone());
        }
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0_u8; BUFFER];
        let (mut at, end) = (self.offset, self.offset + self.length);
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            self.file.read_exact_at(&mut buffer[..wanted], at).context("read the archive")?;
            hasher.update(&buffer[..wanted]);
            at += wanted as u64;
        }
        Ok(hasher.finish())
    }

    /// How it is compressed, by its first bytes.
    pub(super) fn compression(&self) -> Result<Compression> {
        let mut head = [0_u8; 4];
        let length = usize::try_from(self.length).unwrap_or(usize::MAX).min(head.len());
        self.file.read_exact_at(&mut head[..length], self.offset).context("read the archive")?;
        Ok(Compression::sniff(&head[..length]))
    }
}

/// The files that an archive's parts go to.
pub(super) struct Spools<'a> {
    spool: &'a dyn Fn() -> Result<File>,
    own: usize,
    shared: Option<(Arc<File>, u64)>,
    buffer: Vec<u8>,
}

impl<'a> Spools<'a> {
    /// `spool` makes an unnamed file.
    pub(super) fn new(spool: &'a dyn Fn() -> Result<File>) -> Self {
        Self { spool, own: 0, shared: None, buffer: vec![0; BUFFER] }
    }

    /// Takes the current entry's data, of `size` bytes.
    pub(super) fn take<R: Read>(&mut self, archive: &mut Reader<R>, size: u64) -> Result<Part> {
        let is_own = size >= OWN_FILE && self.own < MAX_OWN;
        let (file, offset) = match &self.shared {
            _ if is_own => (Arc::new((self.spool)()?), 0),
            Some((file, offset)) => (Arc::clone(file), *offset),
            None => (Arc::new((self.spool)()?), 0),
        };
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut length = 0;
        loop {
            let read = archive.read_data(&mut self.buffer).map_err(not_tar)?;
            if read == 0 {
                break;
            }
            let piece = &self.buffer[..read];
            if is_own {
                hasher.update(piece);
            }
            (&*file).write_all(piece).context("store the archive")?;
            length += read as u64;
        }
        if is_own {
            self.own += 1;
            return Ok(Part { file, offset, length, digest: Some(hasher.finish()) });
        }
        self.shared = Some((Arc::clone(&file), offset + length));
        Ok(Part { file, offset, length, digest: None })
    }
}

/// `source` uncompressed, whatever it is compressed with. It ends with an
/// error when it unfolds further than anything honest.
pub(super) fn plain<'a>(source: impl Read + Send + 'a) -> Result<impl Read + 'a> {
    let arrived = Arc::new(AtomicU64::new(0));
    let mut source = Counted { source, total: Arc::clone(&arrived) };
    let mut head = Vec::new();
    source.by_ref().take(4).read_to_end(&mut head).map_err(not_tar)?;
    let compression = Compression::sniff(&head);
    let whole = io::Cursor::new(head).chain(source);
    let plain = compression.reader(Box::new(whole)).map_err(not_tar)?;
    let limited = Limited { plain, unfolded: 0, arrived };
    Ok(BufReader::with_capacity(BUFFER, limited))
}

struct Counted<R> {
    source: R,
    total: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.total.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

struct Limited<R> {
    plain: R,
    unfolded: u64,
    arrived: Arc<AtomicU64>,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.plain.read(buffer)?;
        self.unfolded += read as u64;
        let limit =
            self.arrived.load(Ordering::Relaxed).saturating_mul(MAX_RATIO).saturating_add(RATIO_SLACK);
        if self.unfolded > limit {
            let words = "it unfolds to more than any honest one";
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        Ok(read)
    }
}
