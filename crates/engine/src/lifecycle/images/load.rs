// SPDX-License-Identifier: Apache-2.0
//! Load: an archive becomes images.

use std::{fs::File, os::unix::fs::FileExt as _, sync::Arc};

use berth::ids::Namespace;
use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;

use super::{
    Images,
    assemble::{Assembled, Plan, Source, assemble, blocking},
    feed::Section,
    progress::{Board, Event, Follower, Job, Loaded},
    pull::{event, name},
    resolve::DANGLING,
};
use crate::{
    error::{Context as _, Error, Kind, Result},
    image::{
        archive::{self, Archive},
        platform::Platform,
        reference::Reference,
        unpack::Compression,
    },
    store::meta::{events, images as rows},
};

/// As for layers: no honest archive unfolds further.
pub(super) const MAX_RATIO: u64 = 1100;
pub(super) const RATIO_SLACK: u64 = 64 << 20;

/// An archive that is being received.
#[derive(Debug)]
pub struct Upload {
    images: Arc<Images>,
    file: tokio::fs::File,
}

impl Images {
    /// Begins to receive an archive.
    ///
    /// # Errors
    /// Those of the host.
    pub async fn upload(self: &Arc<Self>) -> Result<Upload> {
        let content = Arc::clone(&self.content);
        let file = blocking(move || content.spool()).await?;
        Ok(Upload { images: Arc::clone(self), file: tokio::fs::File::from_std(file) })
    }
}

impl Upload {
    /// Appends to the archive.
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

    /// Loads what was received, the images for `platform`. Dropping the result
    /// cancels it.
    ///
    /// # Errors
    /// Those of the host.
    pub async fn load(self, namespace: Namespace, platform: Platform) -> Result<Follower> {
        let (images, file) = self.into_file().await?;
        let board = Board::new();
        let reported = board.clone();
        let task = tokio::spawn(async move {
            let end = run(&images, namespace, platform, file, &reported).await;
            reported.end(end.map(|()| None));
        });
        Ok(Follower::new(Arc::new(Job { board, task: task.abort_handle() })))
    }
}

async fn run(
    images: &Arc<Images>,
    namespace: Namespace,
    platform: Platform,
    file: File,
    board: &Board,
) -> Result<()> {
    let store = Arc::clone(images);
    let (file, found) = blocking(move || {
        let file = Arc::new(plain(&store, file)?);
        let found = Archive::open(Arc::clone(&file))?.images(&platform)?;
        Ok((file, found))
    })
    .await?;
    let mut ready = Vec::with_capacity(found.len());
    for image in found {
        let section = |part: &archive::Part| Section {
            file: Arc::clone(&file),
            offset: part.offset,
            length: part.length,
        };
        let plan = Plan {
            source: Source::Archive(image.layers.iter().map(section).collect()),
            manifest: image.manifest,
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
    ready.into_iter().for_each(|loaded| board.tell(Event::Loaded(loaded)));
    Ok(())
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
        let image_id = assembled.commit(&images, |tx, id| {
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
        Ok(Loaded { image_id, references: shown })
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

/// The archive uncompressed: itself, or a second file.
fn plain(images: &Images, file: File) -> Result<File> {
    let mut head = [0_u8; 4];
    let length = file.read_at(&mut head, 0).context("read the archive")?;
    if Compression::sniff(&head[..length]) == Compression::None {
        return Ok(file);
    }
    let mut spool = images.content.spool()?;
    let size = file.metadata().context("read the archive")?.len();
    archive::decompress(file, &mut spool, size.saturating_mul(MAX_RATIO).saturating_add(RATIO_SLACK))?;
    Ok(spool)
}
