// SPDX-License-Identifier: Apache-2.0
//! The client side of the OCI distribution protocol: manifests and blobs.

pub mod auth;
mod blob;
mod client;
pub mod hosts;
mod hosts_file;
mod identities;
mod login;
mod push;
mod tags;
mod token;
mod transport;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::header::{ACCEPT, CONTENT_TYPE};

use self::{
    auth::Credentials,
    client::{Clients, Proxies},
    hosts::{RegistryConfig, Serves},
    transport::{Access, Call, Failure, Session},
};
pub use self::{
    blob::Suppliers,
    push::{Arrived, Destination, Layer},
};
use super::{
    manifest::{DOCKER_LIST, DOCKER_MANIFEST, MAX_DOCUMENT, OCI_INDEX, OCI_MANIFEST},
    reference::Reference,
};
use crate::{
    domain::digest::Digest,
    error::{Error, Kind, Result},
};

/// How long a place that couldn't be reached is asked last.
const SHUNNED: Duration = Duration::from_secs(60);

/// A client of all registries, as the configuration has them.
#[derive(Debug)]
pub struct Registry {
    config: RegistryConfig,
    clients: Clients,
    health: Arc<Health>,
}

/// Places that couldn't be reached, by URL, and when.
#[derive(Debug, Default)]
struct Health(Mutex<HashMap<String, Instant>>);

impl Health {
    fn failed(&self, session: &Session) {
        let mut failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.retain(|_, when| when.elapsed() < SHUNNED);
        failed.insert(session.endpoint.url.to_string(), Instant::now());
    }

    fn is_good(&self, session: &Session) -> bool {
        let failed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failed.get(session.endpoint.url.as_str()).is_none_or(|when| when.elapsed() >= SHUNNED)
    }
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
    /// A client that goes by `config`, and by the environment's proxies.
    #[must_use]
    pub fn new(config: RegistryConfig) -> Self {
        Self::through(config, Proxies::from_environment())
    }

    fn through(config: RegistryConfig, proxies: Proxies) -> Self {
        // Another part of the process may have chosen the same already.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let stall = Duration::from_secs(config.stall_timeout.into());
        Self { config, clients: Clients::new(stall, proxies), health: Arc::default() }
    }

    /// The repository that `reference` names, for somebody with `credentials`.
    /// Blocks: files are read.
    ///
    /// # Errors
    /// When the configuration can't be used.
    pub fn repository(&self, reference: &Reference, credentials: Option<&Credentials>) -> Result<Repository> {
        let name = reference.repository();
        let endpoints = hosts::endpoints(&self.config, reference.registry(), name)?;
        let sessions = endpoints.into_iter().map(|endpoint| {
            let clients = self.clients.pair(&endpoint.trust, false)?;
            // What a user says is meant for the registry, not for a mirror of it.
            let own =
                if endpoint.mirror { None } else { credentials.cloned().or(endpoint.credentials.clone()) };
            Ok(Session::new(endpoint, clients, name, Access::Pull, own))
        });
        Ok(Repository {
            name: reference.familiar_name(),
            sessions: sessions.collect::<Result<_>>()?,
            preferred: AtomicUsize::new(usize::MAX),
            health: Arc::clone(&self.health),
            stall: self.stall(),
        })
    }

    fn stall(&self) -> Duration {
        Duration::from_secs(self.config.stall_timeout.into())
    }
}

/// One repository, at all the places that answer for it.
#[derive(Debug)]
pub struct Repository {
    /// As users write it.
    name: String,
    sessions: Vec<Session>,
    /// The place that answered last: the next question goes there first.
    preferred: AtomicUsize,
    health: Arc<Health>,
    stall: Duration,
}

impl Repository {
    /// The manifest or index that `target`, a tag or a digest, stands for.
    ///
    /// # Errors
    /// `NotFound`, `Unauthenticated`, `PermissionDenied`, `Unavailable`,
    /// `ResourceExhausted` (rate limit), `DataLoss`.
    pub async fn manifest(&self, target: &str) -> Result<Fetched> {
        let path = format!("manifests/{target}");
        let get = Call::get(&path).header(ACCEPT, every_kind());
        let may: fn(&Serves) -> bool =
            if target.contains(':') { |serves| serves.pull } else { |serves| serves.resolve };
        let what = format!("manifest for {}", join_target(&self.name, target));
        self.anywhere(may, &what, |at| self.manifest_once(&self.sessions[at], &get, target)).await
    }

    /// Asks one place after the other, each as often as makes sense, until one
    /// has an answer.
    async fn anywhere<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        may: fn(&Serves) -> bool,
        what: &str,
        ask: impl Fn(usize) -> F,
    ) -> Result<T> {
        let mut failures = Vec::new();
        let mut places = self.order(may).peekable();
        while let Some(at) = places.next() {
            let mut tried = 1;
            let failure = loop {
                let failure = match ask(at).await {
                    Ok(answer) => {
                        self.prefer(at);
                        return Ok(answer);
                    }
                    Err(failure) => failure,
                };
                let pause = failure.pause(tried, places.peek().is_some(), self.sessions[at].met());
                let Some(pause) = pause else { break failure };
                tokio::time::sleep(pause).await;
                tried += 1;
            };
            self.failed(at, &failure);
            failures.push((at, failure));
        }
        Err(self.explain(failures, what))
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

    /// Where to ask: the place that answered before first, those that couldn't
    /// be reached last.
    fn order(&self, may: fn(&Serves) -> bool) -> std::vec::IntoIter<usize> {
        let preferred = self.preferred.load(Ordering::Relaxed);
        let mut places: Vec<usize> =
            (0..self.sessions.len()).filter(|at| may(&self.sessions[*at].endpoint.serves)).collect();
        places.sort_by_key(|at| (!self.health.is_good(&self.sessions[*at]), *at != preferred));
        places.into_iter()
    }

    fn prefer(&self, place: usize) {
        self.preferred.store(place, Ordering::Relaxed);
    }

    fn failed(&self, place: usize, failure: &Failure) {
        if let (Failure::Unreachable { .. }, Some(session)) = (failure, self.sessions.get(place)) {
            self.health.failed(session);
        }
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

/// What we can make something of, for an `Accept` header.
fn every_kind() -> String {
    [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ")
}

fn join_target(name: &str, target: &str) -> String {
    let separator = if target.contains(':') { '@' } else { ':' };
    format!("{name}{separator}{target}")
}
