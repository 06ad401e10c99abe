// SPDX-License-Identifier: Apache-2.0
//! An image that is made here: a layer and a configuration, upon another image
//! or upon nothing. `containers::commit` and [`super::import`] make the two.
//!
//! The layer is compressed on its way to the disk, and both of its digests are
//! computed meanwhile; the image is visible when all of it is there.

use std::{
    fs::File,
    io::{self, Write},
    sync::Arc,
};

use berth::ids::Namespace;
use flate2::{Compression as Level, write::GzEncoder};
use serde_json::{Value, json};

use super::{
    Images,
    assemble::{Plan, Source, assemble, blocking},
    progress::Board,
    pull::name,
    resolve::{DANGLING, find},
};
use crate::{
    domain::digest::{Algorithm, Digest, Hasher},
    error::{Context as _, Error, Kind, Result},
    image::{
        manifest::{Document, MAX_DOCUMENT, MAX_LAYERS, Manifest, OCI_MANIFEST},
        reference::Reference,
        unpack::Compression,
    },
    store::{
        Pins,
        content::Content,
        meta::{events, images as rows},
    },
};

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A layer that is in the content store.
#[derive(Debug)]
pub struct StoredLayer {
    digest: Digest,
    diff_id: Digest,
    size: u64,
    compression: Compression,
    /// Until an image has it.
    _pins: Pins,
}

/// What a new image stands on.
#[derive(Debug)]
pub struct Base {
    manifest: Manifest,
    /// Its configuration, all of it.
    pub config: Value,
}

/// A new image.
#[derive(Debug)]
pub struct NewImage {
    /// Layers below.
    pub base: Option<Base>,
    /// The layer on top; none when nothing has changed.
    pub layer: Option<StoredLayer>,
    /// The configuration; `rootfs` is filled in here.
    pub config: Value,
    /// What it is to be called.
    pub reference: Option<Reference>,
}

/// Writes a layer: compressed, hashed before and after, into an unnamed file
/// of the content store. Blocks.
#[derive(Debug)]
pub struct LayerWriter {
    content: Arc<Content>,
    to: Hashing<GzEncoder<Hashing<File>>>,
}

#[derive(Debug)]
struct Hashing<W> {
    to: W,
    hasher: Hasher,
    written: u64,
}

impl<W: Write> Hashing<W> {
    fn new(to: W) -> Self {
        Self { to, hasher: Hasher::new(Algorithm::Sha256), written: 0 }
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl Write for LayerWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl LayerWriter {
    /// The layer, on the disk under its digest.
    ///
    /// # Errors
    /// Those of the host.
    pub fn finish(self) -> Result<StoredLayer> {
        let diff_id = self.to.hasher.finish();
        let packed = self.to.to.finish().context("write a layer")?;
        let digest = packed.hasher.finish();
        let pins = self.content.pin(std::slice::from_ref(&digest));
        self.content.keep(packed.to, &digest)?;
        let size = packed.written;
        Ok(StoredLayer { digest, diff_id, size, compression: Compression::Gzip, _pins: pins })
    }
}

impl StoredLayer {
    /// A file that is a layer already, compressed or not. Blocks.
    ///
    /// # Errors
    /// `InvalidArgument` for what isn't compressed soundly, those of the host.
    pub(super) fn of_file(content: &Arc<Content>, mut file: File) -> Result<Self> {
        use io::{Read as _, Seek as _};
        let rewind =
            |file: &mut File| file.seek(io::SeekFrom::Start(0)).map(drop).context("read the archive");
        let mut head = [0_u8; 4];
        rewind(&mut file)?;
        let read = file.read(&mut head).context("read the archive")?;
        rewind(&mut file)?;
        let compression = Compression::sniff(&head[..read]);
        if compression == Compression::None {
            let mut layer = LayerWriter::new(content)?;
            io::copy(&mut file, &mut layer).context("compress the archive")?;
            return layer.finish();
        }
        let mut packed = Hashing::new(io::sink());
        io::copy(&mut file, &mut packed).context("read the archive")?;
        rewind(&mut file)?;
        let limit =
            packed.written.saturating_mul(super::load::MAX_RATIO).saturating_add(super::load::RATIO_SLACK);
        let mut plain = Hashing::new(io::sink());
        let damaged =
            |e: io::Error| Error::new(Kind::InvalidArgument, "the archive is damaged").with_source(e);
        let reader = compression.reader(Box::new(&file)).map_err(damaged)?;
        io::copy(&mut reader.take(limit), &mut plain).map_err(damaged)?;
        if plain.written == limit {
            return Err(Error::new(Kind::InvalidArgument, "the archive unfolds to more than any honest one"));
        }
        let digest = packed.hasher.finish();
        let pins = content.pin(std::slice::from_ref(&digest));
        content.keep(file, &digest)?;
        let (size, diff_id) = (packed.written, plain.hasher.finish());
        Ok(Self { digest, diff_id, size, compression, _pins: pins })
    }

    fn descriptor(&self) -> Value {
        let suffix = match self.compression {
            Compression::None => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        };
        json!({"mediaType": format!("{OCI_LAYER}{suffix}"), "digest": self.digest.as_str(), "size": self.size})
    }
}

impl LayerWriter {
    fn new(content: &Arc<Content>) -> Result<Self> {
        let packed = Hashing::new(content.spool()?);
        let to = Hashing::new(GzEncoder::new(packed, Level::default()));
        Ok(Self { content: Arc::clone(content), to })
    }
}

impl Images {
    /// Begins a layer. Blocks.
    ///
    /// # Errors
    /// Those of the host.
    pub fn layer(&self) -> Result<LayerWriter> {
        LayerWriter::new(&self.content)
    }

    /// What to build on: the image `id`, with all that is known of it. Blocks.
    ///
    /// # Errors
    /// `NotFound` when it isn't here any more.
    pub fn base(&self, namespace: &Namespace, id: &str) -> Result<Base> {
        let row = self.db.read(|c| find(c, namespace.as_str(), id))?.row;
        let digest: Digest = row.manifest_digest.parse()?;
        let bytes = self.content.read(&digest, MAX_DOCUMENT)?;
        let Document::Manifest(manifest) = Document::parse(&bytes, "")? else {
            return Err(Error::new(Kind::DataLoss, format!("the manifest of image {id} is none")));
        };
        let config = serde_json::from_str(&row.config)
            .with_context(|| format!("read the configuration of image {id}"))?;
        Ok(Base { manifest, config })
    }

    /// Makes an image of it, together with the event. The id.
    ///
    /// # Errors
    /// `FailedPrecondition` for too many layers, those of the host.
    pub async fn add(
        self: &Arc<Self>,
        namespace: Namespace,
        new: NewImage,
        event: impl FnOnce(&Digest, &str) -> events::NewEvent + Send + 'static,
    ) -> Result<Digest> {
        let NewImage { base, layer, mut config, reference } = new;
        let (mut layers, mut diff_ids) = (Vec::new(), Vec::new());
        if let Some(base) = &base {
            layers.extend(base.manifest.layers.iter().map(|layer| {
                json!({
                    "mediaType": oci_name(&layer.media_type),
                    "digest": layer.digest.as_str(),
                    "size": layer.size,
                })
            }));
            let below = base.config.pointer("/rootfs/diff_ids").and_then(Value::as_array);
            diff_ids.extend(below.into_iter().flatten().cloned());
        }
        if let Some(layer) = &layer {
            layers.push(layer.descriptor());
            diff_ids.push(layer.diff_id.as_str().into());
        }
        if layers.len() > MAX_LAYERS {
            return Err(Error::new(Kind::FailedPrecondition, "max depth exceeded"));
        }
        config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
        let config = serde_json::to_vec(&config).context("encode an image's configuration")?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {
                "mediaType": OCI_CONFIG,
                "digest": Digest::of(&config).as_str(),
                "size": config.len(),
            },
            "layers": layers,
        });
        let manifest = serde_json::to_vec(&manifest).context("encode a manifest")?;
        let Document::Manifest(parsed) = Document::parse(&manifest, OCI_MANIFEST)? else {
            return Err(Error::new(Kind::Internal, "a manifest that was made here is none"));
        };
        let manifest_digest = Digest::of(&manifest);
        let documents = vec![(manifest_digest.clone(), manifest)];
        let plan = Plan { manifest: parsed, manifest_digest, config, documents, source: Source::Stored };
        let assembled = assemble(self, plan, &Board::new()).await?;
        // The layer's blob is the image's from now on.
        let pinned = layer;
        let images = Arc::clone(self);
        blocking(move || {
            let target = assembled.manifest_digest().clone();
            let committed = assembled.commit(&images, |tx, id| {
                match &reference {
                    Some(reference) => name(tx, namespace.as_str(), reference, id, &target)?,
                    None if rows::refs_of(tx, namespace.as_str(), id.as_str())?.is_empty() => {
                        let row = rows::RefRow {
                            name: format!("{DANGLING}{id}"),
                            image_id: id.to_string(),
                            target: target.to_string(),
                        };
                        rows::set_ref(tx, namespace.as_str(), &row)?;
                    }
                    None => {}
                }
                let shown = reference.as_ref().map_or_else(String::new, Reference::familiar);
                events::append(tx, &event(id, &shown))
            })?;
            drop(pinned);
            Ok(committed.id)
        })
        .await
    }
}

/// A name to give to an image that is made here: no digest, which it can't
/// choose.
///
/// # Errors
/// `InvalidArgument`.
pub(in crate::lifecycle) fn new_name(text: &str) -> Result<Option<Reference>> {
    if text.is_empty() {
        return Ok(None);
    }
    let reference: Reference = text.parse()?;
    if reference.digest().is_some() {
        return Err(Error::new(Kind::InvalidArgument, "refusing to create a tag with a digest reference"));
    }
    Ok(Some(reference))
}

/// Docker's names for layers as the OCI's: they are the same bytes.
fn oci_name(media_type: &str) -> String {
    match media_type {
        "application/vnd.docker.image.rootfs.diff.tar" => OCI_LAYER.to_owned(),
        "application/vnd.docker.image.rootfs.diff.tar.gzip" | "" => format!("{OCI_LAYER}+gzip"),
        "application/vnd.docker.image.rootfs.diff.tar.zstd" => format!("{OCI_LAYER}+zstd"),
        other => other.to_owned(),
    }
}
