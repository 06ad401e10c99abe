// SPDX-License-Identifier: Apache-2.0
//! How a pull or a load gets on, for any number of onlookers.
//!
//! The state is what is shared, not a queue of messages: an onlooker that is
//! slow skips steps and holds nobody up, one that comes late sees it all.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::AbortHandle};

use super::{locks::Shown, push::Pushed};
use crate::{
    domain::digest::Digest,
    error::{Error, Kind, Result},
};

/// Byte counts are reported at most this often per layer.
const INTERVAL: Duration = Duration::from_millis(50);

/// Where a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Others are before it.
    Waiting,
    /// It is being fetched (and unpacked on the way).
    Downloading,
    /// All of it is here.
    Extracting,
    /// Done.
    Complete,
    /// It was here before.
    Exists,
    /// The transfer broke and is tried again.
    Retrying,
    /// It is being sent.
    Pushing,
    /// It has been sent.
    Pushed,
    /// The registry had it before.
    AlreadyThere,
    /// The registry has taken it from another of its repositories.
    Mounted,
}

/// One layer's progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerProgress {
    /// Of the compressed layer.
    pub digest: Digest,
    /// Where it is.
    pub phase: Phase,
    /// Compressed bytes so far; when extracting, bytes unpacked so far.
    pub current: u64,
    /// Compressed bytes in all.
    pub total: u64,
}

/// The end of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// What the tag stood for.
    pub digest: Digest,
    /// The image.
    pub image_id: Digest,
    /// Its full name.
    pub reference: String,
    /// Nothing changed.
    pub up_to_date: bool,
}

/// An image that an archive held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The image.
    pub image_id: Digest,
    /// Its names, as users write them.
    pub references: Vec<String>,
}

/// What an onlooker sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The manifest is known.
    Resolved {
        /// Full name.
        reference: String,
        /// Digests of the layers, the base first.
        layers: Vec<Digest>,
    },
    /// A layer moved on.
    Layer(LayerProgress),
    /// An image of an archive is usable.
    Loaded(Loaded),
    /// The registry has a tag.
    Pushed(Pushed),
    /// The pull is over.
    Pulled(Pulled),
}

#[derive(Debug, Default)]
struct State {
    resolved: Option<(String, Vec<Digest>)>,
    layers: Vec<LayerProgress>,
    /// Results on the way, in their order.
    told: Vec<Event>,
    end: Option<Result<Option<Pulled>, Arc<Error>>>,
}

/// The side that works.
#[derive(Debug, Clone)]
pub(super) struct Board {
    state: Arc<watch::Sender<State>>,
}

impl Board {
    pub(super) fn new() -> Self {
        Self { state: Arc::new(watch::Sender::new(State::default())) }
    }

    pub(super) fn resolved(&self, reference: String, layers: Vec<Digest>) {
        self.state.send_modify(|state| state.resolved = Some((reference, layers)));
    }

    /// Announces a layer, and returns where to report on it.
    pub(super) fn layer(&self, digest: &Digest, total: u64) -> Slot {
        let mut at = 0;
        self.state.send_modify(|state| {
            at = state.layers.len();
            let digest = digest.clone();
            state.layers.push(LayerProgress { digest, phase: Phase::Waiting, current: 0, total });
        });
        Slot { board: self.clone(), at, last: Arc::default(), shown: Vec::new() }
    }

    pub(super) fn tell(&self, result: Event) {
        self.state.send_modify(|state| state.told.push(result));
    }

    pub(super) fn end(&self, end: Result<Option<Pulled>>) {
        self.state.send_modify(|state| state.end = Some(end.map_err(Arc::new)));
    }

    /// Compressed bytes that are here, and all that there are; none before both
    /// are known, or when nothing had to come.
    pub(super) fn received(&self) -> Option<(u64, u64)> {
        let state = self.state.borrow();
        let known = state.layers.iter().any(|layer| layer.phase == Phase::Downloading);
        let here = |layer: &LayerProgress| match layer.phase {
            Phase::Waiting | Phase::Retrying => 0,
            Phase::Downloading => layer.current,
            _ => layer.total,
        };
        let sum = |of: &dyn Fn(&LayerProgress) -> u64| state.layers.iter().map(of).sum();
        known.then(|| (sum(&here), sum(&|layer| layer.total)))
    }

    fn watch(&self) -> watch::Receiver<State> {
        let mut state = self.state.subscribe();
        state.mark_changed();
        state
    }
}

/// One layer's place on the board.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    board: Board,
    at: usize,
    last: Arc<std::sync::Mutex<Option<(Phase, Instant)>>>,
    /// Others look on here, who wait for the same.
    shown: Vec<Arc<Shown>>,
}

impl Slot {
    /// The same, seen by those who wait for the same work as well.
    pub(super) fn showing(&self, shown: Arc<Shown>) -> Self {
        let mut slot = self.clone();
        slot.shown.push(shown);
        slot
    }

    pub(super) fn set(&self, phase: Phase, current: u64) {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let recent = |(before, when): (Phase, Instant)| before == phase && when.elapsed() < INTERVAL;
        if last.is_some_and(recent) {
            return;
        }
        *last = Some((phase, Instant::now()));
        drop(last);
        for shown in &self.shown {
            shown.send_replace(Some((phase, current)));
        }
        self.board.state.send_modify(|state| {
            if let Some(layer) = state.layers.get_mut(self.at) {
                (layer.phase, layer.current) = (phase, current);
            }
        });
    }
}

/// The work itself; it ends when nobody looks on any more.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) board: Board,
    pub(super) task: AbortHandle,
}

impl Drop for Job {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The side that looks on. Dropping the last one cancels the work.
#[derive(Debug)]
pub struct Follower {
    state: watch::Receiver<State>,
    _job: Arc<Job>,
    queue: VecDeque<Result<Event>>,
    resolved: bool,
    layers: Vec<LayerProgress>,
    told: usize,
    ended: bool,
}

impl Follower {
    pub(super) fn new(job: Arc<Job>) -> Self {
        let state = job.board.watch();
        Self {
            state,
            _job: job,
            queue: VecDeque::new(),
            resolved: false,
            layers: Vec::new(),
            told: 0,
            ended: false,
        }
    }

    /// What happened next; `None` after the end. Safe to drop while it waits.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            if self.state.changed().await.is_err() {
                self.ended = true;
                return Some(Err(Error::new(Kind::Cancelled, "it was cancelled")));
            }
            self.look();
        }
    }

    /// Queues the difference between what is and what was seen.
    fn look(&mut self) {
        let state = self.state.borrow_and_update();
        if let Some((reference, layers)) = state.resolved.as_ref().filter(|_| !self.resolved) {
            self.resolved = true;
            let (reference, layers) = (reference.clone(), layers.clone());
            self.queue.push_back(Ok(Event::Resolved { reference, layers }));
        }
        for (at, layer) in state.layers.iter().enumerate() {
            if self.layers.get(at) != Some(layer) {
                self.queue.push_back(Ok(Event::Layer(layer.clone())));
            }
        }
        self.layers.clone_from(&state.layers);
        self.queue.extend(state.told[self.told..].iter().cloned().map(Ok));
        self.told = state.told.len();
        if let Some(end) = &state.end {
            self.ended = true;
            match end {
                Ok(pulled) => self.queue.extend(pulled.clone().map(|pulled| Ok(Event::Pulled(pulled)))),
                Err(e) => self.queue.push_back(Err(Error::new(e.kind(), e.chain()))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> Arc<Job> {
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        Arc::new(Job { board: Board::new(), task })
    }

    #[tokio::test]
    async fn a_late_onlooker_sees_all_and_the_end_is_the_end() {
        let job = job();
        let digest = Digest::of(b"x");
        job.board.resolved("r".into(), vec![digest.clone()]);
        let slot = job.board.layer(&digest, 10);
        slot.set(Phase::Complete, 10);
        let pulled = Pulled {
            digest: digest.clone(),
            image_id: digest.clone(),
            reference: "r".into(),
            up_to_date: false,
        };
        job.board.end(Ok(Some(pulled.clone())));
        let mut follower = Follower::new(Arc::clone(&job));
        let mut seen = Vec::new();
        while let Some(event) = follower.next().await {
            seen.push(event.expect("no error"));
        }
        let layer = LayerProgress { digest: digest.clone(), phase: Phase::Complete, current: 10, total: 10 };
        let resolved = Event::Resolved { reference: "r".into(), layers: vec![digest] };
        assert_eq!(seen, [resolved, Event::Layer(layer), Event::Pulled(pulled)]);
    }

    #[tokio::test]
    async fn the_last_onlooker_takes_the_work_along() {
        let running = job();
        let task = running.task.clone();
        let (first, second) = (Follower::new(Arc::clone(&running)), Follower::new(running));
        drop(first);
        tokio::task::yield_now().await;
        assert!(!task.is_finished());
        drop(second);
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}
