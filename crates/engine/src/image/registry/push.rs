// SPDX-License-Identifier: Apache-2.0
//! The way to a registry: blobs that it lacks, then manifests.
//!
//! A blob goes in chunks, each acknowledged, so that a line that breaks costs
//! one chunk; a small one goes whole. A blob that another repository of the
//! same registry has is mounted from there and not sent at all.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use reqwest::{
    Body, Method, Response, StatusCode, Url,
    header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Registry, Transfer,
    auth::Credentials,
    every_kind, hosts,
    transport::{Access, At, Call, Failure, MAX_TRIES, Session, redirect},
};
use crate::{
    domain::digest::Digest,
    error::{Error, Kind, Result},
    image::reference::Reference,
};

/// Bytes of a chunk; what is no longer goes whole.
const CHUNK: u64 = if cfg!(test) { 16 << 10 } else { 32 << 20 };
/// Bytes read at once.
const PIECE: usize = 128 << 10;
/// Pieces ahead of the network.
const AHEAD: usize = 4;

/// Blobs to offer for mounting, from the repositories that have them.
const MOUNTS: usize = 3;

/// A blob to be sent.
#[derive(Debug)]
pub struct Layer<'a> {
    /// Its name.
    pub digest: &'a Digest,
    /// Bytes.
    pub size: u64,
    /// Its content.
    pub file: Arc<File>,
    /// Repositories of the same registry that have it.
    pub elsewhere: &'a [String],
}

/// How a blob came to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// It was there.
    Before,
    /// From another repository of the registry.
    Mounted,
    /// Sent.
    Sent,
}

/// A repository that is written to: the registry's own, never a mirror.
#[derive(Debug)]
pub struct Destination {
    name: String,
    session: Session,
    stall: Duration,
}

impl Registry {
    /// The repository of `reference`, for somebody with `credentials` who may
    /// take layers `from` other repositories.
    ///
    /// # Errors
    /// When the configuration can't be used, or knows nothing but mirrors.
    pub fn destination(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
        from: Vec<String>,
    ) -> Result<Destination> {
        let registry = reference.registry();
        let endpoints = hosts::endpoints(&self.config, registry, reference.repository())?;
        let own = endpoints.into_iter().find(|endpoint| endpoint.serves.push);
        let Some(endpoint) = own else {
            let words =
                format!("the configuration has only mirrors for {registry}: there is nowhere to push to");
            return Err(Error::new(Kind::FailedPrecondition, words));
        };
        let clients = self.clients.pair(&endpoint.trust, true)?;
        let credentials =
            if endpoint.mirror { None } else { credentials.cloned().or(endpoint.credentials.clone()) };
        let access = Access::Push { from };
        let session = Session::new(endpoint, clients, reference.repository(), access, credentials);
        Ok(Destination { name: reference.familiar_name(), session, stall: self.stall() })
    }
}

impl Destination {
    /// Sees to it that the registry has a blob.
    ///
    /// # Errors
    /// `Unauthenticated`, `PermissionDenied`, `Unavailable`, those of the host.
    pub async fn blob(&self, layer: &Layer<'_>, told: &(dyn Fn(Transfer) + Send + Sync)) -> Result<Arrived> {
        let mut tried = 1;
        loop {
            let failure = match self.blob_once(layer, told).await {
                Ok(arrived) => return Ok(arrived),
                Err(failure) => failure,
            };
            let Some(pause) = failure.pause(tried, false, self.session.met()) else {
                return Err(self.error(failure, &format!("layer {}", layer.digest.short())));
            };
            told(Transfer::Retrying);
            tokio::time::sleep(pause).await;
            tried += 1;
        }
    }

    /// Stores a manifest as `target`, a tag or a digest.
    ///
    /// # Errors
    /// As [`Destination::blob`]; `DataLoss` when the registry understood
    /// something else.
    pub async fn manifest(&self, target: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let path = format!("manifests/{target}");
        let body = || Body::from(bytes.to_vec());
        let mut call = Call::new(Method::PUT, At::Path(&path)).header(CONTENT_TYPE, media_type);
        call.body = Some(&body);
        let mut tried = 1;
        let response = loop {
            let failure = match self.watched(&call, &AtomicU64::new(0)).await {
                Ok(response) => break response,
                Err(failure) => failure,
            };
            let Some(pause) = failure.pause(tried, false, self.session.met()) else {
                return Err(self.error(failure, &format!("manifest for {}:{target}", self.name)));
            };
            tokio::time::sleep(pause).await;
            tried += 1;
        };
        let told = response.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        match told.and_then(|text| text.parse::<Digest>().ok()) {
            Some(digest) if !digest.matches(bytes) => {
                let words = format!("registry {} stored the manifest as {digest}", self.session.host());
                Err(Error::new(Kind::DataLoss, words))
            }
            _ => Ok(()),
        }
    }

    /// Whether the repository has a manifest or an index. A registry that
    /// doesn't say has none.
    ///
    /// # Errors
    /// As [`Destination::blob`].
    pub async fn has_manifest(&self, digest: &Digest) -> Result<bool> {
        let path = format!("manifests/{digest}");
        let head = Call::new(Method::HEAD, At::Path(&path)).header(ACCEPT, every_kind());
        match self.watched(&head, &AtomicU64::new(0)).await {
            Ok(_) => Ok(true),
            Err(Failure::Status { status, .. }) if status.is_client_error() => Ok(false),
            Err(failure) => Err(self.error(failure, &format!("manifest {}", digest.short()))),
        }
    }

    fn error(&self, failure: Failure, what: &str) -> Error {
        failure.explain(&format!("push access denied for {}", self.name), &self.session.host(), what)
    }

    async fn blob_once(
        &self,
        layer: &Layer<'_>,
        told: &(dyn Fn(Transfer) + Send + Sync),
    ) -> Result<Arrived, Failure> {
        if self.has(layer.digest).await? {
            return Ok(Arrived::Before);
        }
        let Some(upload) = self.begin(layer).await? else { return Ok(Arrived::Mounted) };
        let sent = if layer.size <= CHUNK {
            self.finish(upload, layer, 0, told).await
        } else {
            match self.chunks(upload, layer, told).await {
                Ok(upload) => self.finish(upload, layer, layer.size, told).await,
                Err(failure) => Err(failure),
            }
        };
        sent.map(|()| Arrived::Sent).map_err(|failure| self.unless_forgotten(failure))
    }

    /// An upload that the registry knows no more is begun anew.
    fn unless_forgotten(&self, failure: Failure) -> Failure {
        if !matches!(&failure, Failure::Status { status: StatusCode::NOT_FOUND, .. }) {
            return failure;
        }
        let words = format!("registry {} has forgotten an upload", self.session.host());
        Failure::Unreachable { error: Error::new(Kind::Unavailable, words), refused: false }
    }

    async fn has(&self, digest: &Digest) -> Result<bool, Failure> {
        let path = format!("blobs/{digest}");
        match self.watched(&Call::new(Method::HEAD, At::Path(&path)), &AtomicU64::new(0)).await {
            Ok(_) => Ok(true),
            Err(Failure::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Where to send the blob; none when it could be mounted.
    async fn begin(&self, layer: &Layer<'_>) -> Result<Option<Url>, Failure> {
        for from in layer.elsewhere.iter().take(MOUNTS) {
            let path = format!("blobs/uploads/?mount={}&from={from}", layer.digest);
            match self.post(&path).await {
                Ok(response) if response.status() == StatusCode::CREATED => return Ok(None),
                // Not there, or not for us: this is an upload now.
                Ok(response) => return location(&response).map(Some),
                Err(Failure::Status { status, .. }) if status.is_client_error() => {}
                Err(failure) => return Err(failure),
            }
        }
        location(&self.post("blobs/uploads/").await?).map(Some)
    }

    async fn post(&self, path: &str) -> Result<Response, Failure> {
        let call = Call::new(Method::POST, At::Path(path)).header(CONTENT_LENGTH, 0);
        self.watched(&call, &AtomicU64::new(0)).await
    }

    /// Sends all chunks, and returns where to say that these were all.
    async fn chunks(
        &self,
        mut upload: Url,
        layer: &Layer<'_>,
        told: &(dyn Fn(Transfer) + Send + Sync),
    ) -> Result<Url, Failure> {
        let (mut at, mut tried) = (0, 1);
        while at < layer.size {
            let end = layer.size.min(at + CHUNK);
            let failure = match self.chunk(&upload, layer, at..end, told).await {
                Ok(next) => {
                    (upload, at, tried) = (next, end, 1);
                    continue;
                }
                Err(failure) => failure,
            };
            let lost = matches!(&failure, Failure::Status { status, .. } if *status == StatusCode::RANGE_NOT_SATISFIABLE);
            let Some(pause) = failure
                .pause(tried, false, self.session.met())
                .or((lost && tried < MAX_TRIES).then_some(Duration::ZERO))
            else {
                return Err(failure);
            };
            told(Transfer::Retrying);
            tokio::time::sleep(pause).await;
            tried += 1;
            (upload, at) = self.progress(&upload).await?;
        }
        Ok(upload)
    }

    async fn chunk(
        &self,
        upload: &Url,
        layer: &Layer<'_>,
        range: std::ops::Range<u64>,
        told: &(dyn Fn(Transfer) + Send + Sync),
    ) -> Result<Url, Failure> {
        let last = range.end - 1;
        let call = Call::new(Method::PATCH, At::Url(upload.clone()))
            .header(CONTENT_RANGE, format_args!("{}-{last}", range.start));
        let response = self.send(call, layer, range, told).await?;
        location(&response)
    }

    /// What of an upload has arrived, and where it goes on.
    async fn progress(&self, upload: &Url) -> Result<(Url, u64), Failure> {
        let call = Call::new(Method::GET, At::Url(upload.clone()));
        let response = self.watched(&call, &AtomicU64::new(0)).await?;
        let range = response.headers().get(RANGE).and_then(|value| value.to_str().ok());
        let last = range.and_then(|range| range.rsplit('-').next()?.parse::<u64>().ok());
        // An upload without a byte says 0-0, as one with a single byte does.
        let at = last.filter(|last| *last > 0).map_or(0, |last| last + 1);
        Ok((location(&response).unwrap_or_else(|_| upload.clone()), at))
    }

    /// Sends what is left from `at` on, and ends the upload.
    async fn finish(
        &self,
        mut upload: Url,
        layer: &Layer<'_>,
        at: u64,
        told: &(dyn Fn(Transfer) + Send + Sync),
    ) -> Result<(), Failure> {
        upload.query_pairs_mut().append_pair("digest", layer.digest.as_str());
        let call = Call::new(Method::PUT, At::Url(upload));
        self.send(call, layer, at..layer.size, told).await.map(drop)
    }

    async fn send(
        &self,
        mut call: Call<'_>,
        layer: &Layer<'_>,
        range: std::ops::Range<u64>,
        told: &(dyn Fn(Transfer) + Send + Sync),
    ) -> Result<Response, Failure> {
        let sent = Arc::new(AtomicU64::new(range.start));
        call = call
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, range.end - range.start);
        let body = || stream(Arc::clone(&layer.file), range.clone(), Arc::clone(&sent));
        call.body = Some(&body);
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        let request = self.watched(&call, &sent);
        tokio::pin!(request);
        loop {
            tokio::select! {
                response = &mut request => return response,
                _ = ticks.tick() => told(Transfer::At(sent.load(Ordering::Relaxed))),
            }
        }
    }

    /// A call that may take as long as it likes, while something moves.
    async fn watched(&self, call: &Call<'_>, sent: &AtomicU64) -> Result<Response, Failure> {
        let request = self.session.call(call);
        tokio::pin!(request);
        loop {
            let before = sent.load(Ordering::Relaxed);
            if let Ok(response) = timeout(self.stall, &mut request).await {
                return response;
            }
            if sent.load(Ordering::Relaxed) == before {
                let words =
                    format!("failed to reach registry {}: it doesn't answer in time", self.session.host());
                return Err(Failure::Unreachable {
                    error: Error::new(Kind::Unavailable, words),
                    refused: false,
                });
            }
        }
    }
}

/// Where the registry wants to go on.
fn location(response: &Response) -> Result<Url, Failure> {
    redirect(response.url(), response).map_err(Failure::Fatal)
}

/// Part of a file as a body. `sent` says how far the network is.
fn stream(file: Arc<File>, range: std::ops::Range<u64>, sent: Arc<AtomicU64>) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(AHEAD);
    sent.store(range.start, Ordering::Relaxed);
    tokio::task::spawn_blocking(move || {
        let mut at = range.start;
        while at < range.end {
            let length = usize::try_from(range.end - at).unwrap_or(PIECE).min(PIECE);
            let mut piece = vec![0; length];
            let read = file.read_exact_at(&mut piece, at).map(|()| Bytes::from(piece));
            let failed = read.is_err();
            if sender.blocking_send(read).is_err() || failed {
                return;
            }
            at += length as u64;
            sent.store(at, Ordering::Relaxed);
        }
    });
    Body::wrap_stream(ReceiverStream::new(receiver))
}
