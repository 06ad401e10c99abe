// SPDX-License-Identifier: Apache-2.0
//! Layers become an image: fetched and unpacked side by side, committed as one.
//!
//! Pull and load differ in where the bytes come from; from here on they are
//! the same. Nothing is visible before the commit, and a failure leaves at
//! most partial downloads, which the next attempt continues.

use std::{
    collections::VecDeque,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use berth::failpoint;
use bytes::Bytes;
use oci_spec::image::ImageConfiguration;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use super::{
    Images,
    feed::{Feed, Input, Section},
    locks::{Guard, Shown},
    progress::{Board, Phase, Slot},
};
use crate::{
    domain::digest::{Digest, chain_ids},
    error::{Context as _, Error, Kind, Result},
    image::{
        manifest::{Descriptor, Manifest, read_configuration},
        registry::{Repository, Suppliers, Transfer},
        unpack::{
            self, Compression, Lower, Unpacked,
            implied::{Settled, settle},
        },
    },
    store::{
        Pins,
        meta::{blobs, images as rows},
        snapshot::{self, Preparing},
    },
};

/// Chunks between the network and the unpacker.
const CHUNKS: usize = 8;

/// An image to be put together.
#[derive(Debug)]
pub(super) struct Plan {
    pub manifest: Manifest,
    pub manifest_digest: Digest,
    /// The configuration's bytes, which are its blob.
    pub config: Vec<u8>,
    /// The documents that lead to the manifest, itself included.
    pub documents: Vec<(Digest, Vec<u8>)>,
    pub source: Source,
}

/// Where the layers' bytes are.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Registry {
        repository: Arc<Repository>,
        /// Unpack also what is here, to see whether it is right.
        verify: bool,
    },
    /// One section per layer.
    Archive(Vec<Section>),
    /// Here: whatever isn't unpacked is a blob in the content store.
    Stored,
}

/// Layers of which the image stands, the base first, not yet committed.
#[derive(Debug)]
pub(super) struct Assembled {
    plan: Plan,
    configuration: ImageConfiguration,
    layers: Vec<Layer>,
    _guards: Vec<Guard>,
    _snapshot_pins: Pins,
    _blob_pins: Pins,
}

/// An image that is one now.
#[derive(Debug)]
pub(super) struct Committed {
    pub id: Digest,
    /// Layers that were here were damaged, and are right now.
    pub mended: bool,
}

#[derive(Debug)]
struct Layer {
    descriptor: Descriptor,
    key: Digest,
    /// None: it was there before.
    new: Option<(Preparing, Unpacked)>,
    /// It is a layer already: the new one takes its place where they differ.
    known: bool,
    size: u64,
    slot: Slot,
}

/// One layer's work.
struct Work {
    images: Arc<Images>,
    descriptor: Descriptor,
    diff_id: Digest,
    compression: Compression,
    source: LayerSource,
    /// The layer is there; only its blob is missing.
    unpacked: bool,
    slot: Slot,
}

enum LayerSource {
    Registry(Arc<Repository>),
    Archive(Section),
    Stored,
}

/// Fetches and unpacks what isn't there yet.
pub(super) async fn assemble(images: &Arc<Images>, plan: Plan, board: &Board) -> Result<Assembled> {
    let (configuration, diff_ids) = read_configuration(&plan.config, &plan.manifest)?;
    let chain = chain_ids(&diff_ids);
    let blob_pins = images.content.pin(&needed_blobs(&plan));
    let snapshot_pins = images.snapshots.pin(&chain);
    let descriptors = plan.manifest.layers.clone();
    let slots: Vec<Slot> = descriptors.iter().map(|layer| board.layer(&layer.digest, layer.size)).collect();
    let mut guards = Vec::with_capacity(chain.len());
    let mut layers = Vec::with_capacity(chain.len());
    let mut work = JoinSet::new();
    // Whoever has the locks now shows how far it is.
    let mut mirrors: VecDeque<_> =
        chain.iter().zip(&slots).map(|(key, slot)| images.layer_locks.mirror(key, slot)).collect();
    for (at, descriptor) in descriptors.into_iter().enumerate() {
        // Chains share beginnings only: taking their locks base first can't
        // lead two pulls into each other's way.
        let guard = images.layer_locks.lock(&chain[at]).await;
        mirrors.pop_front();
        let (key, slot) = (chain[at].clone(), slots[at].showing(guard.shown()));
        guards.push(guard);
        let present = look(images, &plan.source, &key, &descriptor).await?;
        if let Present::Whole(size) = present {
            slot.set(Phase::Exists, descriptor.size);
            layers.push(Layer { descriptor, key, new: None, known: true, size, slot });
            continue;
        }
        let task = Work {
            images: Arc::clone(images),
            compression: compression(&plan.source, &descriptor, at)?,
            diff_id: diff_ids[at].clone(),
            source: match &plan.source {
                Source::Registry { repository, .. } => LayerSource::Registry(Arc::clone(repository)),
                Source::Archive(sections) => LayerSource::Archive(sections[at].clone()),
                Source::Stored => LayerSource::Stored,
            },
            descriptor: descriptor.clone(),
            unpacked: matches!(present, Present::WithoutBlob(_)),
            slot: slot.clone(),
        };
        work.spawn(async move { task.run().await.map(|done| (at, done)) });
        let (known, size) = match present {
            Present::Nothing => (false, 0),
            Present::Damaged(size) | Present::WithoutBlob(size) | Present::Whole(size) => (true, size),
        };
        layers.push(Layer { descriptor, key, new: None, known, size, slot });
    }
    while let Some(done) = work.join_next().await {
        let (at, new) = done.context("unpack layers")??;
        layers[at].size = new.as_ref().map_or(layers[at].size, |(_, unpacked)| unpacked.size);
        layers[at].new = new;
    }
    Ok(Assembled {
        plan,
        configuration,
        layers,
        _guards: guards,
        _snapshot_pins: snapshot_pins,
        _blob_pins: blob_pins,
    })
}

/// What there is of a layer, and its size.
enum Present {
    Nothing,
    Whole(u64),
    /// It can be used, but not handed on.
    WithoutBlob(u64),
    /// It is, or may be, damaged.
    Damaged(u64),
}

async fn look(
    images: &Arc<Images>,
    source: &Source,
    key: &Digest,
    descriptor: &Descriptor,
) -> Result<Present> {
    let (images, key, blob) = (Arc::clone(images), key.clone(), descriptor.digest.clone());
    let verify = matches!(source, Source::Registry { verify: true, .. });
    let fetches = matches!(source, Source::Registry { .. });
    blocking(move || {
        let Some(size) = images.snapshots.layer(&key)? else { return Ok(Present::Nothing) };
        if verify || !images.snapshots.has_files(&key)? {
            return Ok(Present::Damaged(size));
        }
        if fetches && images.content.size(&blob)?.is_none() {
            return Ok(Present::WithoutBlob(size));
        }
        Ok(Present::Whole(size))
    })
    .await
}

fn needed_blobs(plan: &Plan) -> Vec<Digest> {
    let layers = plan.manifest.layers.iter().map(|layer| layer.digest.clone());
    let documents = plan.documents.iter().map(|(digest, _)| digest.clone());
    layers.chain(documents).chain([plan.manifest.config.digest.clone()]).collect()
}

fn compression(source: &Source, descriptor: &Descriptor, at: usize) -> Result<Compression> {
    match source {
        Source::Archive(sections) if descriptor.media_type.is_empty() => {
            let mut head = [0_u8; 4];
            let section = sections.get(at).cloned();
            if let Some(mut section) = section {
                // Four bytes come at once, or the layer is no layer.
                let _short = std::io::Read::read(&mut section, &mut head).context("read a layer")?;
            }
            Ok(Compression::sniff(&head))
        }
        _ => Compression::of_media_type(&descriptor.media_type),
    }
}

impl Work {
    /// None when there was nothing to unpack.
    async fn run(self) -> Result<Option<(Preparing, Unpacked)>> {
        let permit = Arc::clone(&self.images.slots).acquire_owned().await;
        let _permit = permit.map_err(|_| Error::new(Kind::Cancelled, "the engine is stopping"))?;
        let mut suppliers = Suppliers::default();
        if self.unpacked {
            return self.only_blob(&mut suppliers).await.map(|()| None);
        }
        let unpacked = loop {
            if let Some(unpacked) = self.attempt(&mut suppliers).await? {
                break unpacked;
            }
            self.slot.set(Phase::Retrying, 0);
        };
        if unpacked.1.diff_id == self.diff_id {
            self.slot.set(Phase::Extracting, unpacked.1.size);
            return Ok(Some(unpacked));
        }
        let digest = &self.descriptor.digest;
        let words =
            format!("layer {digest} isn't what the image says: its content is {}", unpacked.1.diff_id);
        Err(Error::new(Kind::DataLoss, words))
    }

    async fn blob_lock(&self) -> Guard {
        let _mirror = self.images.blob_locks.mirror(&self.descriptor.digest, &self.slot);
        self.images.blob_locks.lock(&self.descriptor.digest).await
    }

    /// Fetches the blob of a layer that is there.
    async fn only_blob(&self, suppliers: &mut Suppliers) -> Result<()> {
        let LayerSource::Registry(repository) = &self.source else { return Ok(()) };
        loop {
            let guard = self.blob_lock().await;
            let (content, digest) = (Arc::clone(&self.images.content), self.descriptor.digest.clone());
            if blocking(move || content.size(&digest)).await?.is_some() {
                self.slot.set(Phase::Exists, self.descriptor.size);
                return Ok(());
            }
            let (images, blob, shown) = (Arc::clone(&self.images), self.descriptor.clone(), guard.shown());
            let store = move |receiver| {
                let _guard = guard;
                Feed::new(Input::Network(receiver), images.content.ingest(&blob.digest)?, blob.size)?.finish()
            };
            if self
                .transfer(repository, suppliers, shown, async |receiver| {
                    Ok(tokio::task::spawn_blocking(move || store(receiver)))
                })
                .await?
                .is_some()
            {
                self.slot.set(Phase::Complete, self.descriptor.size);
                return Ok(());
            }
        }
    }

    /// Unpacks from wherever the layer is; none when what was there turned out
    /// to be damaged and there is another way.
    async fn attempt(&self, suppliers: &mut Suppliers) -> Result<Option<(Preparing, Unpacked)>> {
        // The same blob may be in an image twice, or in two images at once.
        let guard = self.blob_lock().await;
        let (content, digest) = (Arc::clone(&self.images.content), self.descriptor.digest.clone());
        let present = blocking(move || content.size(&digest)).await?;
        match (present, &self.source) {
            (Some(_), _) => match self.stored().await {
                Err(e) if self.drop_damaged().await? => {
                    tracing::warn!(blob = %self.descriptor.digest, error = %e.chain(), "a stored layer is damaged");
                    Ok(None)
                }
                result => result.map(Some),
            },
            (None, LayerSource::Archive(section)) => {
                let section = section.clone();
                self.start(Input::Archive(section), guard).await?.await.context("unpack a layer")?.map(Some)
            }
            (None, LayerSource::Registry(repository)) => {
                let shown = guard.shown();
                let unpack = async |receiver| self.start(Input::Network(receiver), guard).await;
                self.transfer(repository, suppliers, shown, unpack).await
            }
            (None, LayerSource::Stored) => {
                let what = format!("layer {} is gone: pull the image again", self.descriptor.digest);
                Err(Error::new(Kind::DataLoss, what))
            }
        }
    }

    /// Removes the stored blob if it isn't what its name says; whether it was.
    async fn drop_damaged(&self) -> Result<bool> {
        let (content, digest) = (Arc::clone(&self.images.content), self.descriptor.digest.clone());
        blocking(move || content.drop_damaged(&digest)).await
    }

    /// The blob is here already, from another image or an earlier attempt.
    async fn stored(&self) -> Result<(Preparing, Unpacked)> {
        let (images, slot) = (Arc::clone(&self.images), self.slot.clone());
        let (digest, compression, size) =
            (self.descriptor.digest.clone(), self.compression, self.descriptor.size);
        blocking(move || {
            let blob = images.content.open_blob(&digest)?;
            let preparing = images.snapshots.begin()?;
            let mut told = |done| slot.set(Phase::Extracting, done);
            let unpacked =
                unpack::unpack(Box::new(blob), compression, size, preparing.open()?, None, &mut told)?;
            Ok((preparing, unpacked))
        })
        .await
    }

    /// Downloads, and has the bytes taken by what `begin` begins. None when
    /// what came was damaged, and it is worth to try again.
    async fn transfer<T>(
        &self,
        repository: &Repository,
        suppliers: &mut Suppliers,
        shown: Arc<Shown>,
        begin: impl AsyncFnOnce(mpsc::Receiver<Bytes>) -> Result<JoinHandle<Result<T>>>,
    ) -> Result<Option<T>> {
        let (content, digest) = (Arc::clone(&self.images.content), self.descriptor.digest.clone());
        let kept = blocking(move || Ok(content.ingest(&digest)?.offset())).await?;
        let kept = if kept <= self.descriptor.size { kept } else { 0 };
        let (sender, receiver) = mpsc::channel(CHUNKS);
        let taking = begin(receiver).await?;
        let (slot, total) = (self.slot.showing(shown), self.descriptor.size);
        slot.set(Phase::Downloading, kept);
        let told = move |transfer| match transfer {
            Transfer::At(at) if at < total => slot.set(Phase::Downloading, at),
            Transfer::At(_) => slot.set(Phase::Extracting, 0),
            Transfer::Retrying => slot.set(Phase::Retrying, 0),
        };
        let fetched = repository.blob(&self.descriptor, kept, suppliers, &sender, &told).await;
        drop(sender);
        let taken = taking.await.context("unpack a layer")?;
        match (fetched, taken) {
            // Nobody received: the other side says why.
            (Err(e), _) if e.kind() != Kind::Cancelled => Err(e),
            // What an earlier attempt left may be what is wrong, and so may be
            // what one of several places delivered.
            (_, Err(e)) if e.kind() == Kind::DataLoss && suppliers.distrust(repository) => {
                tracing::warn!(blob = %self.descriptor.digest, error = %e.chain(), "a layer came damaged");
                Ok(None)
            }
            (_, taken) => taken.map(Some),
        }
    }

    /// Begins to unpack what `input` gives, on a thread of its own.
    async fn start(&self, input: Input, guard: Guard) -> Result<JoinHandle<Result<(Preparing, Unpacked)>>> {
        let (images, slot) = (Arc::clone(&self.images), self.slot.clone());
        let (descriptor, compression) = (self.descriptor.clone(), self.compression);
        let from_archive = matches!(input, Input::Archive(_));
        let feed =
            blocking(move || Feed::new(input, images.content.ingest(&descriptor.digest)?, descriptor.size));
        let (feed, images, size) = (feed.await?, Arc::clone(&self.images), self.descriptor.size);
        Ok(tokio::task::spawn_blocking(move || {
            // Held until nothing of this attempt touches the blob any more.
            let _guard = guard;
            let mut told = |done| {
                if from_archive {
                    slot.set(Phase::Extracting, done);
                }
            };
            unpack_feed(&images, feed, compression, size, &mut told)
        }))
    }
}

fn unpack_feed(
    images: &Images,
    mut feed: Feed,
    compression: Compression,
    size: u64,
    told: &mut dyn FnMut(u64),
) -> Result<(Preparing, Unpacked)> {
    let mut unpack = |preparing: &Preparing, feed: &mut Feed| {
        unpack::unpack(Box::new(feed), compression, size, preparing.open()?, None, told)
    };
    let failed = match images.snapshots.begin() {
        Err(e) => e,
        Ok(preparing) => match unpack(&preparing, &mut feed) {
            Ok(unpacked) => return feed.finish().map(|()| (preparing, unpacked)),
            Err(e) => {
                // Makes room for what is kept.
                preparing.give_up();
                e
            }
        },
    };
    if matches!(failed.kind(), Kind::DataLoss | Kind::InvalidArgument) {
        feed.give_up()?;
    } else {
        // A full disk says nothing against what was received.
        feed.keep();
    }
    Err(failed)
}

impl Assembled {
    pub(super) fn manifest_digest(&self) -> &Digest {
        &self.plan.manifest_digest
    }

    /// Settles what the layers need of each other, has the disk take it, and
    /// makes it an image, together with what `also` writes. Blocks.
    pub(super) fn commit(
        mut self,
        images: &Arc<Images>,
        also: impl FnOnce(&rusqlite::Transaction<'_>, &Digest) -> Result<()>,
    ) -> Result<Committed> {
        failpoint::hit("image.unpacked")?;
        self.settle(images)?;
        self.store_documents(images)?;
        images.snapshots.sync()?;
        failpoint::hit("image.synced")?;
        let mended = self.mend(images)?;
        let id = self.plan.manifest.config.digest.clone();
        images.db.write_durably(|tx| {
            let mut below: Option<&Digest> = None;
            for layer in &self.layers {
                if let Some((preparing, _)) = &layer.new {
                    snapshot::commit(tx, preparing, &layer.key, below, layer.size)?;
                }
                below = Some(&layer.key);
            }
            rows::upsert(tx, &self.row()?)?;
            for digest in needed_blobs(&self.plan) {
                blobs::link(tx, id.as_str(), digest.as_str())?;
                if let Some(size) = images.content.size(&digest)? {
                    blobs::upsert(tx, digest.as_str(), size)?;
                }
            }
            also(tx, &id)
        })?;
        failpoint::pass("image.committed");
        for layer in self.layers {
            if let Some((preparing, _)) = layer.new {
                preparing.keep();
                layer.slot.set(Phase::Complete, layer.descriptor.size);
            }
        }
        images.events.committed();
        Ok(Committed { id, mended })
    }

    /// Puts new files where a layer's were damaged; whether any were. What is
    /// as it was goes.
    fn mend(&mut self, images: &Arc<Images>) -> Result<bool> {
        let mut mended = false;
        for layer in self.layers.iter_mut().filter(|layer| layer.known) {
            let Some((fresh, unpacked)) = layer.new.take() else { continue };
            if images.snapshots.same(&layer.key, &fresh, &unpacked.implied)? {
                layer.slot.set(Phase::Exists, layer.descriptor.size);
                continue;
            }
            images.snapshots.replace(&layer.key, &fresh)?;
            tracing::warn!(layer = %layer.key, "a damaged layer was replaced");
            mended = true;
            layer.slot.set(Phase::Complete, layer.descriptor.size);
        }
        Ok(mended)
    }

    fn row(&self) -> Result<rows::ImageRow> {
        let config = String::from_utf8(self.plan.config.clone())
            .map_err(|_| Error::new(Kind::InvalidArgument, "invalid image configuration: not UTF-8"))?;
        let created =
            self.configuration.created().as_deref().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        Ok(rows::ImageRow {
            id: self.plan.manifest.config.digest.to_string(),
            manifest_digest: self.plan.manifest_digest.to_string(),
            chain_id: self.layers.last().map(|layer| layer.key.to_string()),
            created_at: created.map_or(0, |time| i64::try_from(time.as_nanosecond()).unwrap_or(0)),
            size: self.layers.iter().map(|layer| layer.size).sum(),
            config,
            used_at: i64::try_from(berth::bundle::now_nanos()).unwrap_or(i64::MAX),
        })
    }

    fn store_documents(&self, images: &Arc<Images>) -> Result<()> {
        images.content.write(&self.plan.manifest.config.digest, &self.plan.config)?;
        self.plan.documents.iter().try_for_each(|(digest, bytes)| images.content.write(digest, bytes))
    }

    /// Base first, so that what is below a layer is right when it is looked at.
    fn settle(&mut self, images: &Arc<Images>) -> Result<()> {
        let mut below: Vec<OwnedFd> = Vec::with_capacity(self.layers.len());
        for layer in &mut self.layers {
            if let Some((preparing, unpacked)) = &layer.new
                && !unpacked.implied.is_empty()
                && !below.is_empty()
            {
                let dir = preparing.open()?;
                if settle(dir.as_fd(), &unpacked.implied, &lower(&below)?)? == Settled::FollowLinks {
                    layer.new = Some(unpack_again(images, &layer.descriptor, &below)?);
                }
            }
            let dir = match &layer.new {
                Some((preparing, _)) => preparing.open()?,
                None => images.snapshots.open_layer(&layer.key)?,
            };
            below.insert(0, dir);
        }
        Ok(())
    }
}

fn lower(below: &[OwnedFd]) -> Result<Lower> {
    let layers = below.iter().map(OwnedFd::try_clone).collect::<std::io::Result<_>>();
    Ok(Lower::new(layers.context("look at the layers below")?))
}

/// A layer that puts something where a layer below has a link.
fn unpack_again(
    images: &Arc<Images>,
    descriptor: &Descriptor,
    below: &[OwnedFd],
) -> Result<(Preparing, Unpacked)> {
    let mut head = [0_u8; 4];
    let blob = images.content.open_blob(&descriptor.digest)?;
    let _short = std::os::unix::fs::FileExt::read_at(&blob, &mut head, 0).context("read a layer")?;
    let preparing = images.snapshots.begin()?;
    let unpacked = unpack::unpack(
        Box::new(blob),
        Compression::sniff(&head),
        descriptor.size,
        preparing.open()?,
        Some(lower(below)?),
        &mut |_| {},
    )?;
    // With the links followed, none is left in the way.
    settle(preparing.open()?.as_fd(), &unpacked.implied, &lower(below)?)?;
    Ok((preparing, unpacked))
}

/// Runs what blocks where that hurts nobody.
pub(super) async fn blocking<T: Send + 'static>(f: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(f).await.context("run blocking work")?
}
