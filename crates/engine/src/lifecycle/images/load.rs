// SPDX-License-Identifier: Apache-2.0
//! Load: an archive becomes images.

use std::{
    fs::File,
    io::{self, Read},
    sync::Arc,
};

use berth::ids::Namespace;
use bytes::{Buf as _, Bytes};
use tokio::{io::AsyncWriteExt as _, sync::mpsc, task::JoinHandle};

use super::{
    Images,
    assemble::{Assembled, Plan, Source, assemble, blocking},
    feed::Section,
    progress::{Board, Event, Follower, Job, Loaded},
    pull::{event, name},
    resolve::DANGLING,
};
use crate::{
    domain::digest::{Algorithm, Digest},
    error::{Context as _, Error, Kind, Result},
    image::{
        archive::{self, Archive},
        manifest::Manifest,
        platform::Platform,
        reference::Reference,
    },
    store::{
        Pins,
        meta::{events, images as rows},
    },
};

/// As for layers: no honest archive unfolds further.
pub(super) const MAX_RATIO: u64 = 1100;
pub(super) const RATIO_SLACK: u64 = 64 << 20;
/// Pieces of an archive that wait to be read.
const QUEUE: usize = 4;

/// A file that is being received.
#[derive(Debug)]
pub struct Upload {
    images: Arc<Images>,
    file: tokio::fs::File,
}

/// An archive of images that is being received.
#[derive(Debug)]
pub struct Loading {
    images: Arc<Images>,
    pieces: mpsc::Sender<Bytes>,
    /// Takes the archive apart.
    archive: JoinHandle<Result<Archive>>,
}

impl Images {
    /// Begins to receive a file.
    ///
    /// # Errors
    /// Those of the host.
    pub async fn upload(self: &Arc<Self>) -> Result<Upload> {
        let content = Arc::clone(&self.content);
        let file = blocking(move || content.spool()).await?;
        Ok(Upload { images: Arc::clone(self), file: tokio::fs::File::from_std(file) })
    }

    /// Begins to receive an archive of images.
    pub fn loading(self: &Arc<Self>) -> Loading {
        let (pieces, queue) = mpsc::channel(QUEUE);
        let content = Arc::clone(&self.content);
        let archive = tokio::task::spawn_blocking(move || {
            Archive::receive(Pieces { queue, piece: Bytes::new() }, &|| content.spool())
        });
        Loading { images: Arc::clone(self), pieces, archive }
    }

    /// Loads the archive `file`, the images for `platform`.
    ///
    /// # Errors
    /// As [`Loading::load`]'s follower has them.
    pub async fn load_file(
        self: &Arc<Self>,
        namespace: Namespace,
        platform: Platform,
        file: File,
    ) -> Result<Vec<Loaded>> {
        let content = Arc::clone(&self.content);
        let archive = blocking(move || Archive::receive(file, &|| content.spool())).await?;
        run(self, namespace, platform, archive, &Board::new()).await
    }
}

impl Upload {
    /// Appends to the file.
    ///
    /// # Errors
    /// Those of the host: a full disk is `ResourceExhausted`.
    pub async fn write(&mut self, data: &Bytes) -> Result<()> {
        self.file.write_all(data).await.context("store the archive")
    }

    /// All that was received.
    pub(super) async fn into_file(mut self) -> Result<(Arc<Images>, File)> {
        self.file.flush().await.context("store the archive")?;
        Ok((self.images, self.file.into_std().await))
    }
}

impl Loading {
    /// Takes more of the archive.
    ///
    /// # Errors
    /// What is wrong with it so far; those of the host: a full disk is
    /// `ResourceExhausted`.
    pub async fn write(&mut self, data: Bytes) -> Result<()> {
        if self.pieces.send(data).await.is_ok() {
            return Ok(());
        }
        // Nobody reads on.
        (&mut self.archive).await.context("read the archive")?.map(drop)
    }

    /// Loads what was received, the images for `platform`. Dropping the result
    /// cancels it.
    ///
    /// # Errors
    /// What is wrong with the archive, those of the host.
    pub async fn load(self, namespace: Namespace, platform: Platform) -> Result<Follower> {
        let Self { images, pieces, archive } = self;
        drop(pieces);
        let archive = archive.await.context("read the archive")??;
        let board = Board::new();
        let reported = board.clone();
        let task = tokio::spawn(async move {
            let end = run(&images, namespace, platform, archive, &reported).await;
            let end = end.map(|all| all.into_iter().for_each(|one| reported.tell(Event::Loaded(one))));
            reported.end(end.map(|()| None));
        });
        Ok(Follower::new(Arc::new(Job { board, task: task.abort_handle() })))
    }
}

/// Pieces as they come, to be read where blocking is fine.
struct Pieces {
    queue: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.queue.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

async fn run(
    images: &Arc<Images>,
    namespace: Namespace,
    platform: Platform,
    archive: Archive,
    board: &Board,
) -> Result<Vec<Loaded>> {
    let found = blocking(move || archive.images(&platform)).await?;
    let mut ready = Vec::with_capacity(found.len());
    for image in found {
        let section = |part: &archive::Part| Section {
            file: Arc::clone(&part.file),
            offset: part.offset,
            length: part.length,
        };
        let source = Source::Archive(image.layers.iter().map(section).collect());
        let (_pins, manifest) = keep(images, image.manifest, image.layers).await?;
        let plan = Plan {
            source,
            manifest,
            manifest_digest: image.manifest_digest,
            config: image.config,
            documents: image.documents,
        };
        // One after the other: images of an archive share layers, whose locks
        // the one before holds until it is committed. Each is added whole or
        // not at all.
        let assembled = assemble(images, plan, board).await.map_err(in_archive)?;
        ready.push(commit(images, &namespace, assembled, image.references).await?);
    }
    Ok(ready)
}

/// Gives the store those layers that have a file of their own, as they are.
async fn keep(
    images: &Arc<Images>,
    manifest: Manifest,
    layers: Vec<archive::Part>,
) -> Result<(Pins, Manifest)> {
    let content = Arc::clone(&images.content);
    blocking(move || {
        let digests: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
        let pins = content.pin(&digests);
        for (layer, part) in manifest.layers.iter().zip(layers) {
            let Some(digest) = part.digest.filter(|_| layer.digest.algorithm() == Algorithm::Sha256) else {
                continue;
            };
            if digest != layer.digest {
                let words = format!("content of {} is damaged: its digest is {digest}", layer.digest);
                return Err(Error::new(Kind::DataLoss, words));
            }
            if content.size(&digest)?.is_none() {
                content.keep(part.file.try_clone().context("store a layer")?, &digest)?;
            }
        }
        Ok((pins, manifest))
    })
    .await
}

async fn commit(
    images: &Arc<Images>,
    namespace: &Namespace,
    assembled: Assembled,
    references: Vec<Reference>,
) -> Result<Loaded> {
    let (images, namespace) = (Arc::clone(images), namespace.clone());
    blocking(move || {
        let target = assembled.manifest_digest().clone();
        let shown = references.iter().map(Reference::familiar).collect();
        let committed = assembled.commit(&images, |tx, id| {
            for reference in &references {
                name(tx, namespace.as_str(), reference, id, &target)?;
            }
            if rows::refs_of(tx, namespace.as_str(), id.as_str())?.is_empty() {
                let row = rows::RefRow {
                    name: format!("{DANGLING}{id}"),
                    image_id: id.to_string(),
                    target: target.to_string(),
                };
                rows::set_ref(tx, namespace.as_str(), &row)?;
            }
            let shown = references.first().map_or_else(|| id.to_string(), Reference::familiar);
            events::append(tx, &event(namespace.as_str(), "load", id, &shown))
        })?;
        Ok(Loaded { image_id: committed.id, references: shown })
    })
    .await
}

/// What a layer is refused for is the archive's fault.
fn in_archive(e: Error) -> Error {
    match e.kind() {
        Kind::InvalidArgument => Error::new(e.kind(), format!("invalid archive: {}", e.chain())),
        _ => e,
    }
}
