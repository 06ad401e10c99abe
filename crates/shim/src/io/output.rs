// SPDX-License-Identifier: Apache-2.0
//! The container's output: read once, given to the log and to everyone who
//! listens.

use std::{
    cell::{Cell, RefCell},
    fs::File,
    io::{self, Write as _},
    os::fd::OwnedFd,
    rc::Rc,
    time::{Duration, Instant},
};

use berth::attach::Kind;
use nix::errno::Errno;
use tokio::{io::unix::AsyncFd, sync::Notify};

use super::{
    Stream, diag,
    log::{
        Log, Settings,
        replay::{Replay, Step},
    },
    queue::{Framing, Queue},
};

/// Bytes of one read: half of what a pipe holds by default, so that the
/// writer never waits for the whole batch to be handled.
const READ: usize = 32 * 1024;

/// Longest that a container's output is handled before it is somebody else's
/// turn: a read may take long, where a disk does.
const TURN: Duration = Duration::from_millis(5);

/// Most that a final sweep takes from a stream: what the largest pipe of an
/// unprivileged process can hold (fs.pipe-max-size).
const SWEEP: usize = 1024 * 1024;

/// Parts of the log that one who is behind gets before it is somebody else's
/// turn.
const STEPS: usize = 4;

/// A descriptor of the container's output, or its terminal.
pub type Source = Rc<AsyncFd<OwnedFd>>;

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Bytes(usize),
    Nothing,
    Ended,
}

/// The output of one container.
#[derive(Debug)]
pub struct Output {
    state: RefCell<State>,
    /// A queue has been drained, a subscriber has left.
    room: Notify,
    /// A stream has ended.
    ended: Notify,
    tty: bool,
}

#[derive(Debug)]
struct State {
    /// Whether there were sources; before, nothing can have ended.
    phase: Phase,
    sources: [Option<Source>; 2],
    log: Option<Log>,
    files: [Option<RawFile>; 2],
    subscribers: Vec<Rc<Subscriber>>,
    /// Bytes that came, of either stream.
    total: [u64; 2],
}

thread_local! {
    /// What was read last, of whichever output: one for all, because it is
    /// given to everyone before anything else is read.
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// How far output is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing writes yet.
    Waiting,
    /// It comes, or has ended.
    Begun,
    /// Nobody is told any more.
    Released,
}

/// Someone who gets the output as it comes.
#[derive(Debug)]
pub struct Subscriber {
    wants: [bool; 2],
    /// The container waits while its queue is full.
    waits: Cell<bool>,
    /// The way back to what is printed now, of one that is behind; none where
    /// no log leads there.
    replay: RefCell<Option<Replay>>,
    /// Bytes of either stream that it has, or was told that it misses.
    had: Cell<[u64; 2]>,
    /// What it has still to take.
    pub queue: RefCell<Queue>,
    /// Something was put into the queue.
    pub filled: Notify,
}

/// A file that gets a stream's bytes as they are.
#[derive(Debug)]
pub struct RawFile {
    file: File,
    failed: Cell<bool>,
}

impl Output {
    /// Output that nothing writes yet; it can be subscribed to.
    #[must_use]
    pub fn new(tty: bool, log: Option<Log>) -> Rc<Self> {
        let state = State {
            phase: Phase::Waiting,
            sources: [None, None],
            log,
            files: [None, None],
            subscribers: Vec::new(),
            total: [0; 2],
        };
        Rc::new(Self { state: RefCell::new(state), room: Notify::new(), ended: Notify::new(), tty })
    }

    /// What it comes from, and files that it goes to.
    pub fn begin(&self, sources: [Option<Source>; 2], files: [Option<RawFile>; 2]) {
        let mut state = self.state.borrow_mut();
        (state.sources, state.files, state.phase) = (sources, files, Phase::Begun);
    }

    /// Other settings of the log.
    pub fn set_log(&self, settings: Settings) {
        if let Some(log) = &mut self.state.borrow_mut().log {
            log.set(settings);
        }
    }

    /// Tells everyone that this was all; what still comes passes by, so that
    /// whoever writes it isn't ended by a broken pipe.
    pub fn release(&self) {
        let mut state = self.state.borrow_mut();
        state.phase = Phase::Released;
        state.log = None;
        state.files = [None, None];
        for subscriber in state.subscribers.drain(..) {
            subscriber.end();
            subscriber.filled.notify_one();
        }
        drop(state);
        self.room.notify_waiters();
    }

    /// Adds an attached client; its first frame is `Attached`. From now on it
    /// misses nothing that it isn't told of. With `mark` it is told where in
    /// the log that is, and gets the beginnings of lines that aren't there yet.
    pub fn attach(&self, wants: [bool; 2], waits: bool, mark: bool) -> Rc<Subscriber> {
        let subscriber = self.subscribe(wants, Framing::Frames);
        subscriber.waits.set(waits);
        let mut queue = subscriber.queue.borrow_mut();
        let mut attached = vec![u8::from(self.tty)];
        let state = self.state.borrow();
        let log = state.log.as_ref().filter(|_| mark);
        if let Some((segment, offset)) = log.map(Log::place) {
            attached.extend_from_slice(&segment.to_be_bytes());
            attached.extend_from_slice(&offset.to_be_bytes());
        }
        queue.control(Kind::Attached, &attached);
        for stream in Stream::ALL.into_iter().filter(|stream| wants[stream.index()]) {
            let pending = log.map_or(&[][..], |log| log.pending(stream));
            if !pending.is_empty() {
                queue.push(stream, pending);
            }
        }
        drop(state);
        if self.has_ended() || self.state.borrow().phase == Phase::Released {
            queue.end();
        }
        drop(queue);
        subscriber
    }

    /// Adds a subscriber.
    pub fn subscribe(&self, wants: [bool; 2], framing: Framing) -> Rc<Subscriber> {
        let queue = RefCell::new(Queue::new(framing));
        let subscriber = Rc::new(Subscriber {
            wants,
            waits: Cell::new(true),
            replay: RefCell::default(),
            had: Cell::new(self.state.borrow().total),
            queue,
            filled: Notify::new(),
        });
        self.state.borrow_mut().subscribers.push(Rc::clone(&subscriber));
        subscriber
    }

    /// Forgets a subscriber; the container no longer waits for it.
    pub fn unsubscribe(&self, subscriber: &Rc<Subscriber>) {
        self.state.borrow_mut().subscribers.retain(|other| !Rc::ptr_eq(other, subscriber));
        self.room.notify_waiters();
    }

    /// Puts what a subscriber that is behind has missed into its queue, as much
    /// as fits and a bounded part at a time; from the log, and else by telling how much it was.
    pub fn catch_up(&self, subscriber: &Subscriber) {
        let state = self.state.borrow();
        let mut queue = subscriber.queue.borrow_mut();
        let mut replay = subscriber.replay.borrow_mut();
        let mut had = subscriber.had.get();
        for _ in 0..STEPS {
            if !queue.is_behind() || !queue.has_room() {
                break;
            }
            let step = match (&state.log, replay.as_mut()) {
                (Some(log), Some(replay)) => log.replay(replay, |stream, bytes| {
                    if subscriber.wants[stream.index()] {
                        queue.catch_up(stream, bytes);
                        had[stream.index()] += bytes.len() as u64;
                    }
                }),
                _ => Step::Lost,
            };
            if step == Step::More {
                continue;
            }
            let missed: u64 = Stream::ALL
                .into_iter()
                .filter(|stream| subscriber.wants[stream.index()])
                .map(|stream| state.total[stream.index()].saturating_sub(had[stream.index()]))
                .sum();
            if missed > 0 {
                queue.control(Kind::Missed, &missed.to_be_bytes());
            }
            had = state.total;
            *replay = None;
            queue.caught_up();
            if state.phase == Phase::Released || state.has_ended() {
                queue.end();
            }
        }
        subscriber.had.set(had);
    }

    /// A subscriber has taken something, or isn't waited for any more.
    pub fn drained(&self) {
        self.room.notify_waiters();
    }

    /// Reads `stream` until it ends.
    pub async fn pump(self: Rc<Self>, stream: Stream) {
        let mut turn = Instant::now();
        loop {
            self.room().await;
            let Some(source) = self.source(stream) else { return };
            let Ok(mut ready) = source.readable().await else { return self.end(stream) };
            match self.read_once(stream) {
                // A container that never stops printing leaves time for others.
                Progress::Bytes(_) if turn.elapsed() > TURN => {
                    tokio::task::yield_now().await;
                    turn = Instant::now();
                }
                Progress::Bytes(_) => tokio::task::consume_budget().await,
                Progress::Nothing => ready.clear_ready(),
                Progress::Ended => return,
            }
        }
    }

    /// Reads what is there now, whether or not everyone keeps up: at the end
    /// of a container that is at most what its pipes hold.
    pub fn sweep(&self) {
        for stream in Stream::ALL {
            let mut left = SWEEP;
            while left > 0 {
                match self.read_once(stream) {
                    Progress::Bytes(count) => left = left.saturating_sub(count),
                    Progress::Nothing | Progress::Ended => break,
                }
            }
        }
    }

    /// Ends both streams, whoever may still hold them open.
    pub fn close(&self) {
        let waiting = self.state.borrow().phase == Phase::Waiting;
        if waiting {
            // Nothing will ever come.
            self.release();
        }
        for stream in Stream::ALL {
            self.end(stream);
        }
    }

    /// Resolves when both streams have ended.
    pub async fn ended(&self) {
        while !self.has_ended() {
            self.ended.notified().await;
        }
    }

    /// Whether both streams have ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state.borrow().has_ended()
    }

    /// Whether the container has a terminal.
    #[must_use]
    pub fn is_tty(&self) -> bool {
        self.tty
    }

    fn source(&self, stream: Stream) -> Option<Source> {
        self.state.borrow().sources[stream.index()].clone()
    }

    /// Resolves when no subscriber's queue is full.
    async fn room(&self) {
        while self.state.borrow().subscribers.iter().any(|s| s.waits.get() && s.queue.borrow().is_full()) {
            self.room.notified().await;
        }
    }

    fn read_once(&self, stream: Stream) -> Progress {
        BUFFER.with_borrow_mut(|buffer| self.read_into(stream, buffer))
    }

    fn read_into(&self, stream: Stream, buffer: &mut [u8]) -> Progress {
        let mut state = self.state.borrow_mut();
        let Some(source) = &state.sources[stream.index()] else { return Progress::Ended };
        let count = match nix::unistd::read(source.get_ref(), &mut *buffer) {
            Ok(count) if count > 0 => count,
            Err(Errno::EAGAIN | Errno::EINTR) => return Progress::Nothing,
            // A terminal that nobody has open any more reads as EIO.
            Ok(_) | Err(Errno::EIO) => return self.end_of(state, stream),
            Err(e) => {
                diag::warn(format_args!("read {}: {e}", stream.name()));
                return self.end_of(state, stream);
            }
        };
        state.publish(stream, &buffer[..count]);
        Progress::Bytes(count)
    }

    fn end(&self, stream: Stream) {
        self.end_of(self.state.borrow_mut(), stream);
    }

    fn end_of(&self, mut state: std::cell::RefMut<'_, State>, stream: Stream) -> Progress {
        if state.sources[stream.index()].take().is_some() {
            state.finish(stream);
            drop(state);
            self.ended.notify_waiters();
            self.room.notify_waiters();
        }
        Progress::Ended
    }
}

impl Subscriber {
    /// It took nothing for too long: if the container waits for it, it no
    /// longer does. Whether it did.
    pub fn give_up(&self) -> bool {
        let mut queue = self.queue.borrow_mut();
        let waited = self.waits.get() && queue.is_full();
        if waited {
            queue.give_up();
            self.waits.set(queue.is_stalled());
        }
        waited
    }

    /// No more will come; what it is behind it still gets.
    fn end(&self) {
        let mut queue = self.queue.borrow_mut();
        if !queue.is_behind() {
            queue.end();
        }
    }

    /// Whether there is something to get from elsewhere.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.queue.borrow().is_behind()
    }
}

impl State {
    fn has_ended(&self) -> bool {
        self.phase != Phase::Waiting && self.sources.iter().all(Option::is_none)
    }

    /// Gives what was read to everyone.
    fn publish(&mut self, stream: Stream, bytes: &[u8]) {
        for subscriber in &self.subscribers {
            // Before it is in the log: that is where it goes on.
            if !subscriber.waits.get() && subscriber.queue.borrow().is_full() {
                *subscriber.replay.borrow_mut() = self.log.as_ref().and_then(Log::mark).map(Replay::new);
                subscriber.queue.borrow_mut().fall_behind();
            }
        }
        self.total[stream.index()] += bytes.len() as u64;
        if let Some(log) = &mut self.log {
            log.append(stream, bytes);
        }
        if let Some(file) = &self.files[stream.index()] {
            file.write(bytes);
        }
        for subscriber in self.subscribers.iter().filter(|s| s.wants[stream.index()]) {
            let mut queue = subscriber.queue.borrow_mut();
            if !queue.is_behind() {
                queue.push(stream, bytes);
                let mut had = subscriber.had.get();
                had[stream.index()] = self.total[stream.index()];
                subscriber.had.set(had);
            }
            subscriber.filled.notify_one();
        }
    }

    fn finish(&mut self, stream: Stream) {
        if let Some(log) = &mut self.log {
            log.finish(stream);
        }
        self.files[stream.index()] = None;
        let all = self.sources.iter().all(Option::is_none);
        for subscriber in &self.subscribers {
            // One that wanted the ended stream only needn't wait for the
            // other: a FIFO's reader sees its end at once.
            let only = subscriber.wants[stream.index()] && subscriber.wants != [true, true];
            if all || only {
                subscriber.end();
                subscriber.filled.notify_one();
            }
        }
    }
}

impl RawFile {
    /// Takes over a file that was opened to be appended to.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self { file, failed: Cell::new(false) }
    }

    fn write(&self, bytes: &[u8]) {
        let result: io::Result<()> = (&self.file).write_all(bytes);
        let failed = result.is_err();
        if let Err(e) = result
            && !self.failed.get()
        {
            diag::warn(format_args!("write output: {e}; it is dropped"));
        }
        self.failed.set(failed);
    }
}
