// SPDX-License-Identifier: Apache-2.0
//! Push: what the registry lacks of an image, then its manifest under each
//! tag. Documents go byte for byte as they came.

use std::sync::Arc;

use berth::ids::Namespace;
use rusqlite::Connection;
use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    Images,
    assemble::blocking,
    progress::{Board, Event, Follower, Job, Phase, Slot},
    pull::event,
};
use crate::{
    domain::digest::Digest,
    error::{Context as _, Error, Kind, Result},
    image::{
        layout,
        manifest::{Descriptor, Document, MAX_DOCUMENT, Manifest},
        reference::Reference,
        registry::{Arrived, Destination, Layer, Transfer, auth::Credentials},
    },
    store::{
        Pins,
        meta::{blobs, events, images as rows},
    },
};

/// Blobs on their way at the same time.
const PARALLEL: usize = 4;

/// What is to be pushed.
#[derive(Debug)]
pub struct PushRequest {
    /// Whose image.
    pub namespace: Namespace,
    /// Its name.
    pub reference: Reference,
    /// All of the repository's tags, not only the one of `reference`.
    pub all_tags: bool,
    /// For the registry.
    pub credentials: Option<Credentials>,
}

/// A tag that the registry has now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The tag.
    pub tag: String,
    /// What it stands for.
    pub digest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
    /// The index that the image was pulled by, which the registry doesn't have
    /// under this tag: it lacks what the index has for other platforms.
    pub left_out: Option<Digest>,
}

/// A tag and its manifest.
struct Tagged {
    reference: Reference,
    image_id: Digest,
    digest: Digest,
    bytes: Vec<u8>,
    manifest: Manifest,
    index: Option<Index>,
}

/// The index that an image was pulled by.
struct Index {
    digest: Digest,
    bytes: Vec<u8>,
    /// What it has besides the image.
    others: Vec<Digest>,
}

/// A blob, and the repositories that may have it.
struct Blob {
    descriptor: Descriptor,
    elsewhere: Vec<String>,
}

impl Images {
    /// Pushes. Dropping the result cancels it.
    #[must_use]
    pub fn push(self: &Arc<Self>, request: PushRequest) -> Follower {
        let board = Board::new();
        let (images, reported) = (Arc::clone(self), board.clone());
        let task = tokio::spawn(async move {
            let end = run(&images, &request, &reported).await;
            reported.end(end.map(|()| None));
        });
        Follower::new(Arc::new(Job { board, task: task.abort_handle() }))
    }
}

async fn run(images: &Arc<Images>, request: &PushRequest, board: &Board) -> Result<()> {
    if request.reference.digest().is_some() {
        return Err(Error::new(Kind::InvalidArgument, "cannot push a digest reference"));
    }
    let (this, namespace) = (Arc::clone(images), request.namespace.clone());
    let (reference, all_tags) = (request.reference.clone(), request.all_tags);
    let (tagged, blobs, _pins) = blocking(move || this.to_push(&namespace, &reference, all_tags)).await?;
    let layers = blobs.iter().filter(|blob| !is_config(&tagged, blob)).map(|b| b.descriptor.digest.clone());
    board.resolved(request.reference.name(), layers.collect());
    let mut from: Vec<String> = blobs.iter().flat_map(|blob| blob.elsewhere.iter().cloned()).collect();
    from.sort();
    from.dedup();
    let registry = Arc::clone(&images.registry);
    let (reference, credentials) = (request.reference.clone(), request.credentials.clone());
    let found = blocking(move || registry.destination(&reference, credentials.as_ref(), from));
    let destination = Arc::new(found.await?);
    send_blobs(images, &destination, &tagged, blobs, board).await?;
    for tag in &tagged {
        board.tell(Event::Pushed(send_documents(&destination, tag).await?));
    }
    let (this, namespace) = (Arc::clone(images), request.namespace.clone());
    blocking(move || this.pushed(&namespace, &tagged)).await
}

/// The manifest under its tag; or the index that it was pulled by, where the
/// registry has everything that is in it.
async fn send_documents(destination: &Destination, tag: &Tagged) -> Result<Pushed> {
    let name = tag.reference.tag().unwrap_or_default();
    let media_type = |bytes: &[u8]| layout::media_type(bytes);
    if let Some(index) = &tag.index
        && has_all(destination, &index.others).await?
    {
        destination.manifest(tag.digest.as_str(), &media_type(&tag.bytes), &tag.bytes).await?;
        destination.manifest(name, &media_type(&index.bytes), &index.bytes).await?;
        let size = index.bytes.len() as u64;
        return Ok(Pushed { tag: name.to_owned(), digest: index.digest.clone(), size, left_out: None });
    }
    destination.manifest(name, &media_type(&tag.bytes), &tag.bytes).await?;
    Ok(Pushed {
        tag: name.to_owned(),
        digest: tag.digest.clone(),
        size: tag.bytes.len() as u64,
        left_out: tag.index.as_ref().map(|index| index.digest.clone()),
    })
}

async fn has_all(destination: &Destination, manifests: &[Digest]) -> Result<bool> {
    for digest in manifests {
        if !destination.has_manifest(digest).await? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn is_config(tagged: &[Tagged], blob: &Blob) -> bool {
    tagged.iter().any(|tag| tag.manifest.config.digest == blob.descriptor.digest)
}

async fn send_blobs(
    images: &Arc<Images>,
    destination: &Arc<Destination>,
    tagged: &[Tagged],
    blobs: Vec<Blob>,
    board: &Board,
) -> Result<()> {
    let slots = Arc::new(Semaphore::new(PARALLEL));
    let mut work = JoinSet::new();
    for blob in blobs {
        // Configurations are no layers that anybody wants to see.
        let slot =
            (!is_config(tagged, &blob)).then(|| board.layer(&blob.descriptor.digest, blob.descriptor.size));
        let (images, destination, slots) = (Arc::clone(images), Arc::clone(destination), Arc::clone(&slots));
        work.spawn(async move {
            let stopping = |_| Error::new(Kind::Cancelled, "the engine is stopping");
            let _slot = slots.acquire_owned().await.map_err(stopping)?;
            send_blob(&images, &destination, &blob, slot.as_ref()).await
        });
    }
    while let Some(done) = work.join_next().await {
        done.context("push layers")??;
    }
    Ok(())
}

async fn send_blob(
    images: &Arc<Images>,
    destination: &Destination,
    blob: &Blob,
    slot: Option<&Slot>,
) -> Result<()> {
    let told = |phase, current| slot.into_iter().for_each(|slot| slot.set(phase, current));
    let (content, digest) = (Arc::clone(&images.content), blob.descriptor.digest.clone());
    let (file, size) = blocking(move || {
        let file = content.open_blob(&digest)?;
        let size = file.metadata().with_context(|| format!("look at blob {digest}"))?.len();
        Ok((Arc::new(file), size))
    })
    .await?;
    let layer = Layer { digest: &blob.descriptor.digest, size, file, elsewhere: &blob.elsewhere };
    let arrived = destination
        .blob(&layer, &|transfer| match transfer {
            Transfer::At(at) => told(Phase::Pushing, at),
            Transfer::Retrying => told(Phase::Retrying, 0),
        })
        .await?;
    match arrived {
        Arrived::Before => told(Phase::AlreadyThere, size),
        Arrived::Mounted => told(Phase::Mounted, size),
        Arrived::Sent => told(Phase::Pushed, size),
    }
    Ok(())
}

impl Images {
    /// The tags, and the blobs that they need, each once and pinned.
    fn to_push(
        self: &Arc<Self>,
        namespace: &Namespace,
        reference: &Reference,
        all_tags: bool,
    ) -> Result<(Vec<Tagged>, Vec<Blob>, Pins)> {
        let found = self.db.read(|c| named(c, namespace.as_str(), reference, all_tags))?;
        let mut pins = self.content.pin(&[]);
        let (mut tagged, mut wanted) = (Vec::new(), Vec::<Descriptor>::new());
        for (name, target, row) in found {
            let digest: Digest = row.manifest_digest.parse()?;
            pins.add(std::slice::from_ref(&digest));
            let bytes = self.content.read(&digest, MAX_DOCUMENT)?;
            let Document::Manifest(manifest) = Document::parse(&bytes, "")? else {
                return Err(Error::new(Kind::DataLoss, format!("{digest} is no image manifest")));
            };
            for part in manifest.layers.iter().chain([&manifest.config]) {
                pins.add(std::slice::from_ref(&part.digest));
                if !wanted.iter().any(|other| other.digest == part.digest) {
                    wanted.push(part.clone());
                }
            }
            let index = self.index_of(&target.parse()?, &digest, &mut pins)?;
            tagged.push(Tagged {
                reference: name,
                image_id: row.id.parse()?,
                digest,
                bytes,
                manifest,
                index,
            });
        }
        let blobs = self.db.read(|c| {
            let blob = |descriptor: Descriptor| {
                let elsewhere = elsewhere(c, namespace.as_str(), &descriptor.digest, reference)?;
                Ok(Blob { descriptor, elsewhere })
            };
            wanted.into_iter().map(blob).collect::<Result<Vec<_>>>()
        })?;
        Ok((tagged, blobs, pins))
    }

    /// The index `target`, if that is what it is and it is still here.
    fn index_of(&self, target: &Digest, manifest: &Digest, pins: &mut Pins) -> Result<Option<Index>> {
        if target == manifest {
            return Ok(None);
        }
        pins.add(std::slice::from_ref(target));
        let bytes = match self.content.read(target, MAX_DOCUMENT) {
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::DataLoss) => return Ok(None),
            read => read?,
        };
        let Document::Index(entries) = Document::parse(&bytes, "")? else { return Ok(None) };
        let mut others: Vec<Digest> = entries.into_iter().map(|entry| entry.digest).collect();
        others.retain(|digest| digest != manifest);
        Ok(Some(Index { digest: target.clone(), bytes, others }))
    }

    fn pushed(&self, namespace: &Namespace, tagged: &[Tagged]) -> Result<()> {
        self.db.write(|tx| {
            tagged.iter().try_for_each(|tag| {
                let event = event(namespace.as_str(), "push", &tag.image_id, &tag.reference.familiar());
                events::append(tx, &event)
            })
        })?;
        self.events.committed();
        Ok(())
    }
}

/// The tags that are meant, each with its image.
fn named(
    c: &Connection,
    namespace: &str,
    reference: &Reference,
    all_tags: bool,
) -> Result<Vec<(Reference, String, rows::ImageRow)>> {
    let prefix = format!("{}:", reference.name());
    let names: Vec<rows::RefRow> = if all_tags {
        rows::refs(c, namespace)?.into_iter().filter(|row| row.name.starts_with(&prefix)).collect()
    } else {
        rows::get_ref(c, namespace, &reference.stored())?.into_iter().collect()
    };
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        if let Some(row) = rows::get(c, &name.image_id)? {
            found.push((name.name.parse()?, name.target, row));
        }
    }
    if found.is_empty() {
        let words = format!("An image does not exist locally with the tag: {}", reference.familiar_name());
        return Err(Error::new(Kind::NotFound, words));
    }
    Ok(found)
}

/// Other repositories of the registry whose images have the blob.
fn elsewhere(c: &Connection, namespace: &str, digest: &Digest, reference: &Reference) -> Result<Vec<String>> {
    let names = blobs::users(c, namespace, digest.as_str())?;
    let mut repositories: Vec<String> = names
        .iter()
        .filter_map(|name| name.parse::<Reference>().ok())
        .filter(|other| {
            other.registry() == reference.registry() && other.repository() != reference.repository()
        })
        .map(|other| other.repository().to_owned())
        .collect();
    repositories.sort();
    repositories.dedup();
    Ok(repositories)
}
