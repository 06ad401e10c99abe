// SPDX-License-Identifier: Apache-2.0
//! Blobs: from wherever they are to be had, and from one place to the next
//! without beginning anew.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::{
    Response, StatusCode,
    header::{CONTENT_RANGE, RANGE},
};
use tokio::sync::mpsc;

use super::{
    Repository, Transfer,
    transport::{Call, Failure, MAX_TRIES, Session, unreachable},
};
use crate::{
    error::{Error, Kind, Result},
    image::manifest::Descriptor,
};

/// What counts as moving, in the time in which a transfer has to.
const STALL_BYTES: u64 = 1024;

/// Who has delivered something of a blob, and whom not to ask again.
#[derive(Debug, Default)]
pub struct Suppliers {
    delivered: Mutex<BTreeSet<usize>>,
    /// Answers that it is made of.
    pieces: AtomicUsize,
    /// It begins with what an earlier attempt left.
    kept: AtomicBool,
    distrusted: BTreeSet<usize>,
    /// It was begun anew already.
    anew: bool,
}

impl Suppliers {
    /// What came is damaged. Whether there is a way to get it right: from those
    /// who had no part in it; or from the same, once, in one piece, where it
    /// was made of several.
    pub fn distrust(&mut self, repository: &Repository) -> bool {
        let delivered = self.delivered.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Each time there is somebody less to ask, or this is the end.
        let fewer = !delivered.is_empty();
        self.distrusted.append(delivered);
        let kept = std::mem::take(self.kept.get_mut());
        let several = std::mem::take(self.pieces.get_mut()) > 1 || kept;
        let mut places = repository.order(|serves| serves.pull);
        if fewer && places.any(|place| !self.distrusted.contains(&place)) {
            return true;
        }
        let again = several && !std::mem::replace(&mut self.anew, true);
        if again {
            self.distrusted.clear();
        }
        again
    }

    fn piece(&self) {
        self.pieces.fetch_add(1, Ordering::Relaxed);
    }

    fn delivers(&self, place: usize) {
        self.delivered.lock().unwrap_or_else(PoisonError::into_inner).insert(place);
    }
}

/// A blob on its way.
struct Download<'a> {
    blob: &'a Descriptor,
    path: String,
    /// Bytes that were there before.
    from: u64,
    /// Bytes that are there.
    at: u64,
    suppliers: &'a Suppliers,
    sink: &'a mpsc::Sender<Bytes>,
    told: &'a (dyn Fn(Transfer) + Send + Sync),
    stall: Duration,
}

impl Repository {
    /// Sends the blob's bytes from `from` on to `sink`, in order, and goes on
    /// where a transfer broke, at the next place where that one fails. What
    /// arrives is not verified here. Whatever has arrived is sent on, also when
    /// this is dropped: nothing is taken from the line before it has a place.
    ///
    /// # Errors
    /// As [`Repository::manifest`]; `Cancelled` when nobody receives any more.
    pub async fn blob(
        &self,
        blob: &Descriptor,
        from: u64,
        suppliers: &Suppliers,
        sink: &mpsc::Sender<Bytes>,
        told: &(dyn Fn(Transfer) + Send + Sync),
    ) -> Result<()> {
        let path = format!("blobs/{}", blob.digest);
        let (at, stall) = (from, self.stall);
        let mut download = Download { blob, path, from, at, suppliers, sink, told, stall };
        suppliers.kept.fetch_or(from > 0, Ordering::Relaxed);
        let mut failures = Vec::new();
        let places = self.order(|serves| serves.pull);
        let mut places = places.filter(|place| !suppliers.distrusted.contains(place)).peekable();
        while let Some(place) = places.next() {
            let (session, before) = (&self.sessions[place], download.at);
            let end = tokio::select! {
                biased;
                () = sink.closed() => Err(unwanted()),
                end = download.rest_from(session, places.peek().is_some()) => end,
            };
            if download.at > before {
                suppliers.delivers(place);
            }
            match end {
                Ok(()) => {
                    self.prefer(place);
                    return Ok(());
                }
                Err(Failure::Fatal(e)) if e.kind() == Kind::Cancelled => {
                    suppliers.delivers(place);
                    return Err(e);
                }
                Err(failure) => {
                    self.failed(place, &failure);
                    failures.push((place, failure));
                    if places.peek().is_some() {
                        told(Transfer::Retrying);
                    }
                }
            }
        }
        Err(self.explain(failures, &format!("layer {} of {}", blob.digest.short(), self.name)))
    }
}

impl Download<'_> {
    /// All that is missing; `spare` is whether there is another place to ask.
    async fn rest_from(&mut self, session: &Session, spare: bool) -> Result<(), Failure> {
        let (mut tried, mut ranges) = (1, true);
        while self.at < self.blob.size {
            let before = self.at;
            let mut get = Call::get(&self.path);
            if self.at > 0 && ranges {
                get = get.header(RANGE, format_args!("bytes={}-", self.at));
            }
            let result = match session.call(&get).await {
                Ok(response) => self.receive(response, session, ranges).await,
                Err(failure) => Err(failure.into()),
            };
            let failure = match result {
                Ok(()) => continue,
                Err(Broken::Range(failure)) if ranges => {
                    // It can't, or doesn't, give a part: take the whole, and
                    // skip what is here.
                    ranges = false;
                    tracing::debug!(host = %session.host(), error = ?failure, "a registry has trouble with ranges");
                    continue;
                }
                Err(Broken::Range(failure) | Broken::Other(failure)) => failure,
            };
            if self.at > before {
                // It moved: the line is bad, not dead.
                tried = 1;
            }
            let Some(pause) = failure.pause(tried, spare, session.met()) else { return Err(failure) };
            (self.told)(Transfer::Retrying);
            tokio::time::sleep(pause).await;
            tried = (tried + 1).min(MAX_TRIES);
        }
        Ok(())
    }

    /// Passes a response's body on, to the blob's end.
    async fn receive(
        &mut self,
        mut response: Response,
        session: &Session,
        ranges: bool,
    ) -> Result<(), Broken> {
        // A registry that ignores the range starts anew: skip what is here, the
        // digest will tell whether it is the same.
        let mut skip = self.at;
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let asked = if ranges { self.at } else { 0 };
            if starts_at(&response) != Some(asked) {
                let words = format!("registry {} sent another part than was asked for", session.host());
                return Err(Broken::Range(Failure::Fatal(Error::new(Kind::DataLoss, words))));
            }
            skip -= asked;
        }
        self.suppliers.piece();
        let mut pace = Pace::new(self.stall);
        loop {
            let waiting = Instant::now();
            let Ok(room) = self.sink.reserve().await else { return Err(unwanted().into()) };
            if waiting.elapsed() > Duration::from_secs(1) {
                // We were the slow ones, not the registry.
                pace = Pace::new(self.stall);
            }
            let next = response.chunk().await.map_err(|e| unreachable(&session.host(), &e))?;
            let Some(mut chunk) = next else { break };
            pace.moved(chunk.len(), session)?;
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= skipped as u64;
            let chunk = chunk.split_off(skipped);
            if chunk.is_empty() {
                continue;
            }
            if self.at + chunk.len() as u64 > self.blob.size {
                let (digest, size) = (&self.blob.digest, self.blob.size);
                let words = format!("content of {digest} is damaged: more than {size} bytes");
                return Err(Failure::Fatal(Error::new(Kind::DataLoss, words)).into());
            }
            self.at += chunk.len() as u64;
            room.send(chunk);
            (self.told)(Transfer::At(self.at));
        }
        if self.at < self.blob.size {
            return Err(broke_off(session, "it ended a transfer early").into());
        }
        Ok(())
    }
}

impl Drop for Download<'_> {
    fn drop(&mut self) {
        let bytes = self.at - self.from;
        tracing::debug!(blob = %self.blob.digest, from = self.from, bytes, "a transfer has ended");
    }
}

/// What ended a transfer.
enum Broken {
    /// The place and ranges don't go together.
    Range(Failure),
    Other(Failure),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Status { status: StatusCode::RANGE_NOT_SATISFIABLE, .. } => Self::Range(failure),
            other => Self::Other(other),
        }
    }
}

/// The first byte of a part.
fn starts_at(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

fn unwanted() -> Failure {
    Failure::Fatal(Error::new(Kind::Cancelled, "nobody waits for the layer any more"))
}

fn broke_off(session: &Session, why: &str) -> Failure {
    let words = format!("failed to reach registry {}: {why}", session.host());
    Failure::Unreachable { error: Error::new(Kind::Unavailable, words), refused: false }
}

/// How fast a transfer is: one that trickles is as good as dead.
struct Pace {
    window: Duration,
    since: Instant,
    bytes: u64,
}

impl Pace {
    fn new(window: Duration) -> Self {
        Self { window, since: Instant::now(), bytes: 0 }
    }

    fn moved(&mut self, bytes: usize, session: &Session) -> Result<(), Failure> {
        self.bytes += bytes as u64;
        if self.since.elapsed() < self.window {
            return Ok(());
        }
        if self.bytes < STALL_BYTES {
            return Err(broke_off(session, "the transfer hardly moves"));
        }
        *self = Self::new(self.window);
        Ok(())
    }
}
