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
}

/// A tag and its manifest.
struct Tagged {
    reference: Reference,
    image_id: Digest,
    digest: Digest,
    bytes: Vec<u8>,
    manifest: Manifest,
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
        let name = tag.reference.tag().unwrap_or_default();
        destination.manifest(name, &layout::media_type(&tag.bytes), &tag.bytes).await?;
        let pushed =
            Pushed { tag: name.to_owned(), digest: tag.digest.clone(), size: tag.bytes.len() as u64 };
        board.tell(Event::Pushed(pushed));
    }
    let (this, namespace) = (Arc::clone(images), request.namespace.clone());
    blocking(move || this.pushed(&namespace, &tagged)).await
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
        for (name, row) in found {
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
            tagged.push(Tagged { reference: name, image_id: row.id.parse()?, digest, bytes, manifest });
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
) -> Result<Vec<(Reference, rows::ImageRow)>> {
    let prefix = format!("{}:", reference.name());
    let names: Vec<rows::RefRow> = if all_tags {
        rows::refs(c, namespace)?.into_iter().filter(|row| row.name.starts_with(&prefix)).collect()
    } else {
        rows::get_ref(c, namespace, &reference.stored())?.into_iter().collect()
    };
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        if let Some(row) = rows::get(c, &name.image_id)? {
            found.push((name.name.parse()?, row));
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
