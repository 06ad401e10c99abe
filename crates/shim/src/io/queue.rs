// SPDX-License-Identifier: Apache-2.0
//! What one subscriber has still to take: pure, no descriptor here.

use berth::attach::{self, Kind};
use bytes::{Buf as _, BytesMut};

use super::Stream;

/// Most bytes that wait for one subscriber. A queue above it is full: nothing
/// more is read from the container until it isn't, or, of one who isn't waited
/// for, nothing more is added.
pub const LIMIT: usize = 256 * 1024;

/// How output is put on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Frames of [`berth::attach`].
    Frames,
    /// The bytes alone: a FIFO.
    Raw,
}

/// The queue of one subscriber.
#[derive(Debug)]
pub struct Queue {
    framing: Framing,
    buffer: BytesMut,
    /// Bytes at the front that belong to a frame whose beginning was taken.
    torn: usize,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Output is added.
    Open,
    /// A reader that took nothing for too long: output passes it by until it
    /// reads again. Raw only: in a stream of frames a gap is told.
    Stalled,
    /// One who wasn't waited for: what comes is put here from elsewhere.
    Behind,
    /// Nothing will be added; the subscriber leaves when it has taken all.
    Ending,
}

impl Queue {
    /// An empty queue.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self { framing, buffer: BytesMut::new(), torn: 0, phase: Phase::Open }
    }

    /// Adds a frame that isn't output.
    pub fn control(&mut self, kind: Kind, payload: &[u8]) {
        if matches!(self.phase, Phase::Open | Phase::Behind) {
            attach::encode(&mut self.buffer, kind, payload);
        }
    }

    /// Adds output.
    pub fn push(&mut self, stream: Stream, bytes: &[u8]) {
        if self.phase == Phase::Open {
            self.add(stream, bytes);
        }
    }

    /// Adds output to one that is behind.
    pub fn catch_up(&mut self, stream: Stream, bytes: &[u8]) {
        if self.phase == Phase::Behind && !bytes.is_empty() {
            self.add(stream, bytes);
        }
    }

    fn add(&mut self, stream: Stream, bytes: &[u8]) {
        match self.framing {
            Framing::Raw => self.buffer.extend_from_slice(bytes),
            Framing::Frames => {
                let kind = match stream {
                    Stream::Stdout => Kind::Stdout,
                    Stream::Stderr => Kind::Stderr,
                };
                for part in bytes.chunks(attach::MAX_PAYLOAD) {
                    attach::encode(&mut self.buffer, kind, part);
                }
            }
        }
    }

    /// The container has to wait for this subscriber.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.phase == Phase::Open && self.buffer.len() >= LIMIT
    }

    /// From here on output comes from elsewhere.
    pub fn fall_behind(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Behind;
        }
    }

    /// It has all again.
    pub fn caught_up(&mut self) {
        if self.phase == Phase::Behind {
            self.phase = Phase::Open;
        }
    }

    /// Whether it is behind.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.phase == Phase::Behind
    }

    /// Whether more can be put here.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.buffer.len() < LIMIT
    }

    /// What to write next.
    #[must_use]
    pub fn front(&self) -> &[u8] {
        &self.buffer
    }

    /// Nothing waits and nothing will come.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Ending && self.buffer.is_empty()
    }

    /// `count` bytes of the front were written.
    pub fn taken(&mut self, count: usize) {
        if self.framing == Framing::Frames {
            self.walk_frames(count);
        }
        self.buffer.advance(count);
        if self.buffer.is_empty() {
            // An idle container's clients cost nothing.
            self.buffer = BytesMut::new();
        }
    }

    fn walk_frames(&mut self, count: usize) {
        let mut at = 0;
        while at < count {
            if self.torn == 0 {
                self.torn = frame_length(&self.buffer[at..]);
            }
            let step = self.torn.min(count - at);
            self.torn -= step;
            at += step;
        }
    }

    /// Output has ended.
    pub fn end(&mut self) {
        self.phase = Phase::Ending;
    }

    /// The subscriber took nothing for too long while the queue was full:
    /// the container no longer waits for it.
    pub fn give_up(&mut self) {
        if self.framing == Framing::Raw {
            self.buffer = BytesMut::new();
            self.phase = Phase::Stalled;
        }
    }

    /// The subscriber is dropped, and told why.
    pub fn refuse(&mut self, why: &str) {
        // The frame it is in the middle of stays whole.
        self.buffer.truncate(self.torn);
        attach::encode(&mut self.buffer, Kind::Error, why.as_bytes());
        self.phase = Phase::Ending;
    }

    /// A stalled reader reads again.
    pub fn resume(&mut self) {
        if self.phase == Phase::Stalled {
            self.phase = Phase::Open;
        }
    }

    /// Whether output passes a stalled reader by.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.phase == Phase::Stalled
    }
}

/// Length of the frame that begins here, header included; see
/// [`berth::attach`].
fn frame_length(bytes: &[u8]) -> usize {
    match bytes {
        [_, a, b, c, d, ..] => 5 + u32::from_be_bytes([*a, *b, *c, *d]) as usize,
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Takes all of the queue in steps and decodes it.
    fn drain(queue: &mut Queue, step: usize, wire: &mut BytesMut) {
        while !queue.front().is_empty() {
            let count = step.min(queue.front().len());
            wire.extend_from_slice(&queue.front()[..count]);
            queue.taken(count);
        }
    }

    proptest! {
        #[test]
        fn a_subscriber_that_is_dropped_gets_whole_frames_and_the_reason(
            parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 1..8),
            taken in 0_usize..2000,
        ) {
            let mut queue = Queue::new(Framing::Frames);
            for part in &parts {
                queue.push(Stream::Stderr, part);
            }
            let taken = taken.min(queue.front().len());
            let mut wire = BytesMut::from(&queue.front()[..taken]);
            queue.taken(taken);
            queue.refuse("too slow");
            drain(&mut queue, 7, &mut wire);
            prop_assert!(queue.is_finished());
            let mut last = None;
            let mut seen = 0;
            while let Some(frame) = attach::decode(&mut wire).expect("whole frames") {
                if let Some(part) = parts.get(seen).filter(|_| frame.kind == Kind::Stderr) {
                    prop_assert_eq!(&frame.payload[..], &part[..]);
                    seen += 1;
                }
                last = Some(frame);
            }
            prop_assert!(wire.is_empty());
            let last = last.expect("a frame");
            prop_assert_eq!(last.kind, Kind::Error);
            prop_assert_eq!(&last.payload[..], b"too slow");
        }
    }

    #[test]
    fn a_full_queue_makes_the_container_wait_until_it_is_given_up() {
        let mut queue = Queue::new(Framing::Raw);
        queue.push(Stream::Stdout, &vec![b'x'; LIMIT]);
        assert!(queue.is_full());
        queue.taken(1);
        assert!(!queue.is_full());
        queue.push(Stream::Stdout, b"yy");
        queue.give_up();
        assert!(!queue.is_full() && queue.front().is_empty() && queue.is_stalled());
        queue.push(Stream::Stdout, b"lost");
        queue.resume();
        queue.push(Stream::Stdout, b"seen");
        assert_eq!(queue.front(), b"seen");
    }

    #[test]
    fn it_is_finished_when_all_was_taken_and_nothing_will_come() {
        let mut queue = Queue::new(Framing::Raw);
        queue.push(Stream::Stdout, b"ab");
        queue.end();
        queue.push(Stream::Stdout, b"late");
        assert!(!queue.is_finished());
        queue.taken(2);
        assert!(queue.is_finished());
    }
}
