// SPDX-License-Identifier: Apache-2.0
//! The client side of the OCI distribution protocol: manifests and blobs.

pub mod auth;
pub mod hosts;
mod login;
mod push;
mod token;
mod transport;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, RANGE},
};
use tokio::sync::mpsc;

pub use self::push::{Arrived, Destination, Layer};
use self::{
    auth::Credentials,
    hosts::{Endpoint, RegistryConfig},
    transport::{Access, Call, Failure, MAX_TRIES, Session, unreachable},
};
use super::{
    manifest::{DOCKER_LIST, DOCKER_MANIFEST, Descriptor, MAX_DOCUMENT, OCI_INDEX, OCI_MANIFEST},
    reference::Reference,
};
use crate::{
    domain::digest::Digest,
    error::{Context as _, Error, Kind, Result},
};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a transfer may stand still. There is no limit on the whole: a
/// large layer on a slow line is fine.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// What counts as moving, in [`STALL_TIMEOUT`].
const STALL_BYTES: u64 = 1024;

/// A client of all registries, as the configuration has them.
#[derive(Debug)]
pub struct Registry {
    config: RegistryConfig,
    /// Clients keep connections; few settings need one of their own.
    clients: Mutex<HashMap<ClientKey, Client>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ClientKey {
    insecure: bool,
    ca_file: Option<PathBuf>,
    local: bool,
    /// Its answers may be long in coming.
    uploads: bool,
}

/// A manifest or an index, verified.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The document.
    pub bytes: Vec<u8>,
    /// What the registry says that it is.
    pub media_type: String,
    /// Of the bytes.
    pub digest: Digest,
}

/// Told while a blob is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transfer {
    /// Bytes that are there now.
    At(u64),
    /// It broke and is tried again.
    Retrying,
}

impl Registry {
    /// A client that goes by `config`.
    #[must_use]
    pub fn new(config: RegistryConfig) -> Self {
        // Another part of the process may have chosen the same already.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        Self { config, clients: Mutex::default() }
    }

    /// The repository that `reference` names, for somebody with `credentials`.
    ///
    /// # Errors
    /// When the configuration can't be used.
    pub fn repository(&self, reference: &Reference, credentials: Option<&Credentials>) -> Result<Repository> {
        let endpoints = hosts::endpoints(&self.config, reference.registry())?;
        let sessions = endpoints.into_iter().map(|endpoint| {
            let client = self.client(&endpoint, false)?;
            // What a user says is meant for the registry, not for a mirror of it.
            let own =
                if endpoint.mirror { None } else { credentials.cloned().or(endpoint.credentials.clone()) };
            Ok(Session::new(endpoint, client, reference.repository(), Access::Pull, own))
        });
        Ok(Repository {
            name: reference.familiar_name(),
            sessions: sessions.collect::<Result<_>>()?,
            preferred: AtomicUsize::new(0),
        })
    }

    fn client(&self, endpoint: &Endpoint, uploads: bool) -> Result<Client> {
        let key = ClientKey {
            insecure: endpoint.insecure,
            ca_file: endpoint.ca_file.clone(),
            local: hosts::is_loopback(&endpoint.url),
            uploads,
        };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = build(&key)?;
        clients.insert(key, client.clone());
        Ok(client)
    }
}

fn build(key: &ClientKey) -> Result<Client> {
    let mut builder = Client::builder()
        .user_agent(concat!("berth/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .tls_danger_accept_invalid_certs(key.insecure);
    if !key.uploads {
        builder = builder.read_timeout(STALL_TIMEOUT);
    }
    if key.local {
        builder = builder.no_proxy();
    }
    if let Some(file) = &key.ca_file {
        let pem = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| {
            Error::new(Kind::InvalidArgument, format!("read the certificates in {}", file.display()))
                .with_source(e)
        })?;
        builder = builder.tls_certs_merge(certificates);
    }
    builder.build().map_err(|e| Error::new(Kind::Internal, "set up the registry client").with_source(e))
}

/// One repository, at all the places that answer for it.
#[derive(Debug)]
pub struct Repository {
    /// As users write it.
    name: String,
    sessions: Vec<Session>,
    /// The place that answered last: the next question goes there first.
    preferred: AtomicUsize,
}

impl Repository {
    /// The manifest or index that `target`, a tag or a digest, stands for.
    ///
    /// # Errors
    /// `NotFound`, `Unauthenticated`, `PermissionDenied`, `Unavailable`,
    /// `ResourceExhausted` (rate limit), `DataLoss`.
    pub async fn manifest(&self, target: &str) -> Result<Fetched> {
        let path = format!("manifests/{target}");
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
        let get = Call::get(&path).header(ACCEPT, accept);
        let mut failures = Vec::new();
        for at in self.order() {
            match self.manifest_from(&self.sessions[at], &get, target).await {
                Ok(fetched) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Ok(fetched);
                }
                Err(Failure::Fatal(e)) => return Err(e),
                Err(failure) => failures.push((at, failure)),
            }
        }
        Err(self.explain(failures, &format!("manifest for {}", join_target(&self.name, target))))
    }

    async fn manifest_from(
        &self,
        session: &Session,
        get: &Call<'_>,
        target: &str,
    ) -> Result<Fetched, Failure> {
        let mut tried = 1;
        loop {
            let failure = match self.manifest_once(session, get, target).await {
                Ok(fetched) => return Ok(fetched),
                Err(failure) => failure,
            };
            let Some(pause) = failure.pause(tried) else { return Err(failure) };
            tokio::time::sleep(pause).await;
            tried += 1;
        }
    }

    async fn manifest_once(
        &self,
        session: &Session,
        get: &Call<'_>,
        target: &str,
    ) -> Result<Fetched, Failure> {
        let response = session.call(get).await?;
        let header =
            |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let media_type = header(CONTENT_TYPE.as_str()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let told = header("docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
        let limit = usize::try_from(MAX_DOCUMENT).unwrap_or(usize::MAX);
        let bytes = transport::read_limited(response, limit).await?;
        let asked = target.parse::<Digest>().ok();
        for digest in [&asked, &told].into_iter().flatten() {
            if !digest.matches(&bytes) {
                let words = format!("manifest from {} is damaged: it isn't {digest}", session.host());
                return Err(Failure::Fatal(Error::new(Kind::DataLoss, words)));
            }
        }
        let digest = asked.unwrap_or_else(|| Digest::of(&bytes));
        Ok(Fetched { bytes, media_type, digest })
    }

    /// Sends the blob's bytes from `from` on to `sink`, in order, and begins
    /// anew where a transfer broke. What arrives is not verified here.
    ///
    /// # Errors
    /// As [`Repository::manifest`]; `Cancelled` when nobody receives any more.
    pub async fn blob(
        &self,
        blob: &Descriptor,
        from: u64,
        sink: &mpsc::Sender<Bytes>,
        told: &(dyn Fn(Transfer) + Send + Sync),
    ) -> Result<()> {
        let path = format!("blobs/{}", blob.digest);
        let mut at = from;
        let mut failures = Vec::new();
        for session in self.order() {
            match self.blob_from(&self.sessions[session], &path, blob, &mut at, sink, told).await {
                Ok(()) => return Ok(()),
                Err(Failure::Fatal(e)) => return Err(e),
                Err(failure) => failures.push((session, failure)),
            }
        }
        Err(self.explain(failures, &format!("layer {} of {}", blob.digest.short(), self.name)))
    }

    async fn blob_from(
        &self,
        session: &Session,
        path: &str,
        blob: &Descriptor,
        at: &mut u64,
        sink: &mpsc::Sender<Bytes>,
        told: &(dyn Fn(Transfer) + Send + Sync),
    ) -> Result<(), Failure> {
        let mut tried = 1;
        while *at < blob.size {
            let before = *at;
            let mut get = Call::get(path);
            if *at > 0 {
                get = get.header(RANGE, format_args!("bytes={at}-"));
            }
            let result = match session.call(&get).await {
                Ok(response) => receive(response, session, blob, at, sink, told).await,
                Err(failure) => Err(failure),
            };
            let Err(failure) = result else { continue };
            if *at > before {
                // It moved: the line is bad, not dead.
                tried = 1;
            }
            let Some(pause) = failure.pause(tried) else { return Err(failure) };
            told(Transfer::Retrying);
            tokio::time::sleep(pause).await;
            tried = (tried + 1).min(MAX_TRIES);
        }
        Ok(())
    }

    /// Where to ask, the place that answered before first.
    fn order(&self) -> impl Iterator<Item = usize> + use<> {
        let preferred = self.preferred.load(Ordering::Relaxed);
        let others = (0..self.sessions.len()).filter(move |at| *at != preferred);
        std::iter::once(preferred).chain(others)
    }

    /// One error out of what every place said.
    fn explain(&self, failures: Vec<(usize, Failure)>, what: &str) -> Error {
        let mut errors =
            failures.into_iter().map(|(at, failure)| self.error(at, failure, what)).collect::<Vec<_>>();
        // Where nothing could be reached, all that was tried is worth naming;
        // otherwise the registry's own word is: it was asked last.
        let Some(last) = errors.pop() else {
            return Error::new(Kind::Internal, format!("nowhere to ask for {what}"));
        };
        if last.kind() == Kind::Unavailable && !errors.is_empty() {
            let all = errors.iter().chain([&last]).map(Error::chain).collect::<Vec<_>>().join("; ");
            return Error::new(Kind::Unavailable, all);
        }
        last
    }

    fn error(&self, at: usize, failure: Failure, what: &str) -> Error {
        let host = self.sessions.get(at).map_or_else(String::new, Session::host);
        failure.explain(&format!("pull access denied for {}", self.name), &host, what)
    }
}

fn join_target(name: &str, target: &str) -> String {
    let separator = if target.contains(':') { '@' } else { ':' };
    format!("{name}{separator}{target}")
}

/// Passes a response's body on, from `at` to the blob's end.
async fn receive(
    mut response: Response,
    session: &Session,
    blob: &Descriptor,
    at: &mut u64,
    sink: &mpsc::Sender<Bytes>,
    told: &(dyn Fn(Transfer) + Send + Sync),
) -> Result<(), Failure> {
    // A registry that ignores the range starts anew: skip what is here, the
    // digest will tell whether it is the same.
    let mut skip = if response.status() == StatusCode::PARTIAL_CONTENT {
        check_range(&response, *at)?;
        0
    } else {
        *at
    };
    let mut window = (Instant::now(), 0_u64);
    while let Some(mut chunk) = response.chunk().await.map_err(|e| unreachable(&session.host(), &e))? {
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
        skip -= skipped as u64;
        window.1 += chunk.len() as u64;
        let chunk = chunk.split_off(skipped);
        check_pace(&mut window, session)?;
        if chunk.is_empty() {
            continue;
        }
        if *at + chunk.len() as u64 > blob.size {
            let words = format!("content of {} is damaged: more than {} bytes", blob.digest, blob.size);
            return Err(Failure::Fatal(Error::new(Kind::DataLoss, words)));
        }
        *at += chunk.len() as u64;
        let waiting = Instant::now();
        if sink.send(chunk).await.is_err() {
            return Err(Failure::Fatal(Error::new(Kind::Cancelled, "nobody waits for the layer any more")));
        }
        told(Transfer::At(*at));
        if waiting.elapsed() > Duration::from_secs(1) {
            // We were the slow ones, not the registry.
            window = (Instant::now(), 0);
        }
    }
    if *at < blob.size {
        let words = format!("failed to reach registry {}: it ended a transfer early", session.host());
        return Err(Failure::Unreachable { error: Error::new(Kind::Unavailable, words), refused: false });
    }
    Ok(())
}

fn check_range(response: &Response, at: u64) -> Result<(), Failure> {
    let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let start = range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
    if start == Some(at) {
        return Ok(());
    }
    Err(Failure::Fatal(Error::new(
        Kind::DataLoss,
        "registry sent another part of the layer than was asked for",
    )))
}

/// A transfer that trickles is as good as dead.
fn check_pace(window: &mut (Instant, u64), session: &Session) -> Result<(), Failure> {
    if window.0.elapsed() < STALL_TIMEOUT {
        return Ok(());
    }
    if window.1 < STALL_BYTES {
        let words = format!("failed to reach registry {}: the transfer hardly moves", session.host());
        return Err(Failure::Unreachable { error: Error::new(Kind::Unavailable, words), refused: false });
    }
    *window = (Instant::now(), 0);
    Ok(())
}
