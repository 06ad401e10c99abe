// SPDX-License-Identifier: Apache-2.0
//! Save: images become an archive, as they came: in an OCI layout no blob is
//! packed anew, so every digest stays what it was.

use std::{
    collections::{BTreeSet, HashSet},
    fs::File,
    io::{self, Read, Write},
    sync::Arc,
};

use berth::ids::Namespace;
use bytes::{Bytes, BytesMut};
use flate2::{Compression as Level, write::GzEncoder};
use rusqlite::Connection;
use tokio::sync::mpsc;

use super::{
    Images,
    assemble::blocking,
    pull::event,
    resolve::{DANGLING, find},
};
use crate::{
    domain::digest::{Digest, Hasher},
    error::{Context as _, Error, Kind, Result},
    image::{
        layout::{self, Entry, Writer},
        manifest::{Document, MAX_DOCUMENT, read_configuration},
        reference::Reference,
        unpack::Compression,
    },
    store::{
        Pins,
        content::Content,
        meta::{events, images as rows},
    },
};

pub use crate::image::layout::Format;

/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// Pieces ahead of the client.
const AHEAD: usize = 4;

/// What an archive looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// What is in it.
    pub format: Format,
    /// Around all of it.
    pub compression: Option<Packing>,
}

/// A compression of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// An archive being written. Dropping it stops the writer.
#[derive(Debug)]
pub struct Saving {
    pieces: mpsc::Receiver<Result<Bytes>>,
}

impl Saving {
    /// The next bytes; none after the last.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        self.pieces.recv().await
    }
}

impl Images {
    /// Writes `images` (references, ids) as one archive. A name without tag
    /// means all tags of the repository.
    ///
    /// # Errors
    /// `NotFound`, `InvalidArgument` for what can't be a reference. What goes
    /// wrong later is in the stream: `DataLoss` for a damaged blob.
    pub async fn save(
        self: &Arc<Self>,
        namespace: Namespace,
        images: Vec<String>,
        shape: Shape,
    ) -> Result<Saving> {
        let (this, space) = (Arc::clone(self), namespace.clone());
        let (entries, pins) = blocking(move || this.entries(&space, &images)).await?;
        let (sender, pieces) = mpsc::channel(AHEAD);
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            // Held until the last blob is read.
            let _pins = pins;
            let pipe = Pipe { sender: sender.clone(), piece: BytesMut::new() };
            let written =
                write(&this.content, &entries, shape, pipe).and_then(|()| this.saved(&namespace, &entries));
            if let Err(e) = written {
                // Nobody to tell: the client has gone, which is what failed.
                let _gone = sender.blocking_send(Err(e));
            }
        });
        Ok(Saving { pieces })
    }

    /// What is to be saved, its blobs pinned before anybody can take them away.
    fn entries(self: &Arc<Self>, namespace: &Namespace, images: &[String]) -> Result<(Vec<Entry>, Pins)> {
        if images.is_empty() {
            return Err(Error::new(Kind::InvalidArgument, "no image to save was named"));
        }
        let wanted = self.db.read(|c| {
            let mut wanted: Vec<Wanted> = Vec::new();
            for image in images {
                add(c, namespace.as_str(), image, &mut wanted)?;
            }
            Ok(wanted)
        })?;
        let mut pins = self.content.pin(&[]);
        let mut entries = Vec::with_capacity(wanted.len());
        for Wanted { id, manifest, references } in wanted {
            pins.add(&[manifest.clone(), id.clone()]);
            let bytes = self.content.read(&manifest, MAX_DOCUMENT)?;
            let Document::Manifest(parsed) = Document::parse(&bytes, "")? else {
                return Err(Error::new(Kind::DataLoss, format!("{manifest} is no image manifest")));
            };
            pins.add(&parsed.layers.iter().map(|layer| layer.digest.clone()).collect::<Vec<_>>());
            let config = self.content.read(&id, MAX_DOCUMENT)?;
            let (_, diff_ids) = read_configuration(&config, &parsed)?;
            entries.push(Entry {
                diff_ids,
                digest: manifest,
                bytes,
                manifest: parsed,
                references: references.into_iter().collect(),
            });
        }
        Ok((entries, pins))
    }

    fn saved(&self, namespace: &Namespace, entries: &[Entry]) -> Result<()> {
        self.db.write(|tx| {
            entries.iter().try_for_each(|entry| {
                let id = &entry.manifest.config.digest;
                let name = entry.references.first().map_or_else(|| id.to_string(), Reference::familiar);
                events::append(tx, &event(namespace.as_str(), "save", id, &name))
            })
        })?;
        self.events.committed();
        Ok(())
    }
}

/// An image, once, and the names it is asked for by.
struct Wanted {
    id: Digest,
    manifest: Digest,
    references: BTreeSet<Reference>,
}

fn add(c: &Connection, namespace: &str, image: &str, wanted: &mut Vec<Wanted>) -> Result<()> {
    for (row, name) in matches(c, namespace, image)? {
        let id: Digest = row.id.parse()?;
        let at = match wanted.iter().position(|other| other.id == id) {
            Some(at) => at,
            None => {
                wanted.push(Wanted {
                    id,
                    manifest: row.manifest_digest.parse()?,
                    references: BTreeSet::new(),
                });
                wanted.len() - 1
            }
        };
        // A name with a digest says nothing that the archive doesn't.
        if let Some(name) = name.filter(|name| !name.starts_with(DANGLING) && !name.contains('@')) {
            wanted[at].references.insert(name.parse()?);
        }
    }
    Ok(())
}

fn matches(c: &Connection, namespace: &str, image: &str) -> Result<Vec<(rows::ImageRow, Option<String>)>> {
    let all_tags = |reference: &Reference| -> Result<Vec<_>> {
        let prefix = format!("{}:", reference.name());
        let named = rows::refs(c, namespace)?.into_iter().filter(|row| row.name.starts_with(&prefix));
        let with_row = named.map(|row| Ok(rows::get(c, &row.image_id)?.map(|image| (image, Some(row.name)))));
        with_row.filter_map(Result::transpose).collect()
    };
    if !layout::has_tag_or_digest(image)
        && let Ok(reference) = image.parse::<Reference>()
    {
        let found = all_tags(&reference)?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let found = find(c, namespace, image)?;
    Ok(vec![(found.row, found.name)])
}

fn write(content: &Content, entries: &[Entry], shape: Shape, pipe: Pipe) -> Result<()> {
    let mut writer = Writer::new(Packed::new(pipe, shape.compression).context("write the archive")?);
    writer.documents(entries, shape.format).context("write the archive")?;
    let mut written = HashSet::new();
    for entry in entries {
        match shape.format {
            Format::Docker => docker_parts(content, entry, &mut written, &mut writer)?,
            Format::Both | Format::Oci => blobs(content, entry, &mut written, &mut writer)?,
        }
    }
    let packed = writer.finish().context("write the archive")?;
    packed.finish().context("write the archive")
}

type Written<'a> = HashSet<&'a Digest>;

fn blobs<'a>(
    content: &Content,
    entry: &'a Entry,
    written: &mut Written<'a>,
    writer: &mut Writer<Packed>,
) -> Result<()> {
    if written.insert(&entry.digest) {
        writer.blob(&entry.digest, entry.bytes.len() as u64, &*entry.bytes).context("write the archive")?;
    }
    for part in std::iter::once(&entry.manifest.config).chain(&entry.manifest.layers) {
        if written.insert(&part.digest) {
            let (digest, size) = (&part.digest, size_of(content, &part.digest)?);
            checked(content, digest, |source| writer.blob(digest, size, source))?;
        }
    }
    Ok(())
}

fn docker_parts<'a>(
    content: &Content,
    entry: &'a Entry,
    written: &mut Written<'a>,
    writer: &mut Writer<Packed>,
) -> Result<()> {
    let id = &entry.manifest.config.digest;
    if written.insert(id) {
        let size = size_of(content, id)?;
        checked(content, id, |source| writer.docker_config(id, size, source))?;
    }
    for (layer, diff_id) in entry.manifest.layers.iter().zip(&entry.diff_ids) {
        if !written.insert(diff_id) {
            continue;
        }
        size_of(content, &layer.digest)?;
        let compression = Compression::of_media_type(&layer.media_type)?;
        // Its size stands before it: the layer is unfolded once to be measured.
        let mut size = 0;
        checked(content, &layer.digest, |source| {
            size = io::copy(&mut compression.reader(Box::new(source))?, &mut io::sink())?;
            Ok(())
        })?;
        checked(content, &layer.digest, |source| {
            writer.docker_layer(diff_id, size, compression.reader(Box::new(source))?)
        })?;
    }
    Ok(())
}

fn size_of(content: &Content, digest: &Digest) -> Result<u64> {
    let missing = || Error::new(Kind::DataLoss, format!("blob {digest} is missing: pull the image again"));
    content.size(digest)?.ok_or_else(missing)
}

/// Has `read` read the blob, to the end, and checks that it was the right one.
fn checked(
    content: &Content,
    digest: &Digest,
    read: impl FnOnce(&mut Checked<File>) -> io::Result<()>,
) -> Result<()> {
    let mut source = Checked { inner: content.open_blob(digest)?, hasher: Hasher::new(digest.algorithm()) };
    let ended = read(&mut source);
    // A damaged blob explains whatever was made of it.
    let rest = io::copy(&mut source, &mut io::sink());
    if rest.is_ok() && source.hasher.finish() != *digest {
        return Err(Error::new(Kind::DataLoss, format!("blob {digest} is damaged: pull the image again")));
    }
    ended.with_context(|| format!("save blob {digest}"))
}

/// Computes the digest of what is read through it.
struct Checked<R> {
    inner: R,
    hasher: Hasher,
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

/// What the archive goes through on its way.
enum Packed {
    Plain(Pipe),
    Gzip(GzEncoder<Pipe>),
    Zstd(zstd::Encoder<'static, Pipe>),
}

impl Packed {
    fn new(pipe: Pipe, compression: Option<Packing>) -> io::Result<Self> {
        Ok(match compression {
            None => Self::Plain(pipe),
            // Layers are packed already: what is left isn't worth more work.
            Some(Packing::Gzip) => Self::Gzip(GzEncoder::new(pipe, Level::fast())),
            Some(Packing::Zstd) => Self::Zstd(zstd::Encoder::new(pipe, 1)?),
        })
    }

    fn finish(self) -> io::Result<()> {
        let mut pipe = match self {
            Self::Plain(pipe) => pipe,
            Self::Gzip(packed) => packed.finish()?,
            Self::Zstd(packed) => packed.finish()?,
        };
        pipe.flush()
    }
}

impl Write for Packed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(pipe) => pipe.write(bytes),
            Self::Gzip(packed) => packed.write(bytes),
            Self::Zstd(packed) => packed.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// To the client, in pieces; it waits while the client does.
struct Pipe {
    sender: mpsc::Sender<Result<Bytes>>,
    piece: BytesMut,
}

impl Pipe {
    fn send(&mut self) -> io::Result<()> {
        let piece = self.piece.split().freeze();
        self.sender.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..length]);
        if self.piece.len() == PIECE {
            self.send()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() { Ok(()) } else { self.send() }
    }
}
