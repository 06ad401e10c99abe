// SPDX-License-Identifier: Apache-2.0
//! Pull: a reference becomes an image.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, Weak},
};

use berth::ids::Namespace;

use super::{
    Images,
    assemble::{Plan, Source, assemble, blocking},
    progress::{Board, Follower, Job, Pulled},
    resolve::DANGLING,
    telling::Telling,
};
use crate::{
    domain::digest::Digest,
    error::{Error, Kind, Result},
    image::{
        manifest::{self, Descriptor, Document, MAX_DOCUMENT, Manifest, read_configuration},
        platform::Platform,
        reference::Reference,
        registry::{Fetched, Repository, Suppliers, auth::Credentials},
    },
    store::meta::{events, images as rows},
};

/// Indexes within indexes.
const MAX_DEPTH: usize = 3;

/// What to pull. Equal ones that run at the same time are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PullRequest {
    /// Whose image it becomes.
    pub namespace: Namespace,
    /// What to ask the registry for.
    pub reference: Reference,
    /// What it must run on.
    pub platform: Platform,
    /// For this pull only.
    pub credentials: Option<Credentials>,
    /// Look at every byte of what is here already, and repair it.
    pub verify: bool,
}

impl Images {
    /// Starts to pull, or joins the same pull of another. Dropping the result
    /// cancels the pull when nobody else follows it.
    #[must_use]
    pub fn pull(self: &Arc<Self>, request: PullRequest) -> Follower {
        let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(job) = pulls.get(&request).and_then(Weak::upgrade) {
            return Follower::new(job);
        }
        let board = Board::new();
        let (images, reported, key) = (Arc::clone(self), board.clone(), request.clone());
        let task = tokio::spawn(async move {
            let telling = Telling::new(&images, &key);
            let end = tokio::select! {
                end = run(&images, &key, &reported) => end,
                () = telling.of_progress(&reported) => Err(Error::new(Kind::Internal, "a pull without an end")),
            };
            telling.of_end(end.as_ref().err());
            // Whoever asks from now on wants a new answer.
            images.pulls.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            reported.end(end.map(Some));
        });
        let job = Arc::new(Job { board, task: task.abort_handle() });
        pulls.retain(|_, job| job.strong_count() > 0);
        pulls.insert(request, Arc::downgrade(&job));
        drop(pulls);
        Follower::new(job)
    }
}

async fn run(images: &Arc<Images>, request: &PullRequest, board: &Board) -> Result<Pulled> {
    let reference = &request.reference;
    let (registry, wanted) = (Arc::clone(&images.registry), request.clone());
    let found = blocking(move || registry.repository(&wanted.reference, wanted.credentials.as_ref()));
    let repository = Arc::new(found.await?);
    let top = repository.manifest(reference.target()).await?;
    let done = |image_id, up_to_date| Pulled {
        digest: top.digest.clone(),
        image_id,
        reference: reference.to_string(),
        up_to_date,
    };
    let here = up_to_date(images, request, &top.digest).await?;
    if let Some(id) = here.clone().filter(|_| !request.verify) {
        board.resolved(reference.to_string(), Vec::new());
        return Ok(done(id, true));
    }
    let plan = plan(request, &repository, top.clone()).await?;
    let layers = plan.manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
    board.resolved(reference.to_string(), layers);
    let assembled = assemble(images, plan, board).await?;
    let (images, request, target) = (Arc::clone(images), request.clone(), top.digest.clone());
    let committed = blocking(move || {
        let namespace = request.namespace.as_str();
        assembled.commit(&images, |tx, id| {
            name(tx, namespace, &request.reference, id, &target)?;
            events::append(tx, &event(namespace, "pull", id, &request.reference.familiar()))
        })
    })
    .await?;
    let same = here.as_ref() == Some(&committed.id) && !committed.mended;
    Ok(done(committed.id, same))
}

/// The local image, when the tag still stands for what it stood for and
/// nothing of it is missing.
async fn up_to_date(images: &Arc<Images>, request: &PullRequest, target: &Digest) -> Result<Option<Digest>> {
    let (images, request, target) = (Arc::clone(images), request.clone(), target.clone());
    blocking(move || {
        let found = images.db.read(|c| {
            let row = rows::get_ref(c, request.namespace.as_str(), &request.reference.stored())?;
            let Some(row) = row.filter(|row| row.target == target.as_str()) else { return Ok(None) };
            let Some(image) = rows::get(c, &row.image_id)? else { return Ok(None) };
            let configuration = super::resolve::configuration(&image)?;
            let same = request.platform.match_of(&platform_of(&configuration)) == Some(0);
            Ok(same.then_some(image))
        })?;
        let Some(image) = found else { return Ok(None) };
        let intact = if request.verify { images.check_blobs(&image)? } else { images.is_intact(&image)? };
        Ok(if intact { Some(image.id.parse()?) } else { None })
    })
    .await
}

pub(super) fn platform_of(configuration: &oci_spec::image::ImageConfiguration) -> Platform {
    let variant = configuration.variant().as_deref().unwrap_or_default();
    Platform::new(&configuration.os().to_string(), &configuration.architecture().to_string(), variant)
}

/// Follows indexes to the platform's manifest, and stores the documents.
async fn plan(request: &PullRequest, repository: &Arc<Repository>, top: Fetched) -> Result<Plan> {
    let mut documents: Vec<(Digest, Vec<u8>)> = Vec::new();
    let mut fetched = top;
    let (manifest, manifest_digest) = loop {
        let document = Document::parse(&fetched.bytes, &fetched.media_type)?;
        documents.push((fetched.digest.clone(), fetched.bytes));
        match document {
            Document::Manifest(manifest) => break (manifest, fetched.digest),
            Document::Index(_) if documents.len() > MAX_DEPTH => {
                return Err(Error::new(Kind::InvalidArgument, "invalid manifest: indexes within indexes"));
            }
            Document::Index(entries) => {
                let entry = manifest::choose(&entries, &request.platform)
                    .ok_or_else(|| manifest::no_match(&request.platform))?;
                fetched = repository.manifest(entry.digest.as_str()).await?;
            }
        }
    };
    let config = fetch_config(repository, &manifest).await?;
    let (configuration, _) = read_configuration(&config, &manifest)?;
    if request.platform.match_of(&platform_of(&configuration)).is_none() {
        return Err(manifest::no_match(&request.platform)
            .with_source(format!("the image is for {}", platform_of(&configuration))));
    }
    Ok(Plan {
        manifest_digest,
        manifest,
        config,
        documents,
        source: Source::Registry { repository: Arc::clone(repository), verify: request.verify },
    })
}

async fn fetch_config(repository: &Repository, manifest: &Manifest) -> Result<Vec<u8>> {
    let config: &Descriptor = &manifest.config;
    if config.size > MAX_DOCUMENT {
        return Err(Error::new(Kind::InvalidArgument, "invalid manifest: its configuration is too large"));
    }
    let mut suppliers = Suppliers::default();
    loop {
        let bytes = collect(repository, config, &suppliers).await?;
        if config.digest.matches(&bytes) {
            return Ok(bytes);
        }
        if !suppliers.distrust(repository) {
            let found = Digest::of(&bytes);
            let words = format!("content of {} is damaged: its digest is {found}", config.digest);
            return Err(Error::new(Kind::DataLoss, words));
        }
    }
}

/// A small blob, whole.
async fn collect(repository: &Repository, blob: &Descriptor, suppliers: &Suppliers) -> Result<Vec<u8>> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(16);
    let fetch = async {
        let fetched = repository.blob(blob, 0, suppliers, &sender, &|_| {}).await;
        drop(sender);
        fetched
    };
    let collect = async {
        let mut bytes = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            bytes.extend_from_slice(&chunk);
        }
        bytes
    };
    let (fetched, bytes) = tokio::join!(fetch, collect);
    fetched.map(|()| bytes)
}

/// Gives an image a name. One that loses its last name to it stays, dangling.
pub(super) fn name(
    tx: &rusqlite::Transaction<'_>,
    namespace: &str,
    reference: &Reference,
    id: &Digest,
    target: &Digest,
) -> Result<()> {
    let stored = reference.stored();
    let before = rows::get_ref(tx, namespace, &stored)?;
    let (image_id, target) = (id.to_string(), target.to_string());
    rows::set_ref(tx, namespace, &rows::RefRow { name: stored, image_id, target })?;
    // A name takes the place of having none.
    rows::delete_ref(tx, namespace, &format!("{DANGLING}{id}"))?;
    let Some(before) = before.filter(|before| before.image_id != id.as_str()) else { return Ok(()) };
    if rows::refs_of(tx, namespace, &before.image_id)?.is_empty() {
        let name = format!("{DANGLING}{}", before.image_id);
        rows::set_ref(tx, namespace, &rows::RefRow { name, ..before })?;
    }
    Ok(())
}

/// An event about an image.
pub(super) fn event(namespace: &str, action: &'static str, id: &Digest, name: &str) -> events::NewEvent {
    events::NewEvent {
        namespace: namespace.to_owned(),
        kind: "image",
        action,
        id: id.to_string(),
        attributes: BTreeMap::from([("name".to_owned(), name.to_owned())]),
    }
}
