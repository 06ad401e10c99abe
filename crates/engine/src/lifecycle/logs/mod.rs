// SPDX-License-Identifier: Apache-2.0
//! A container's log, as its shim writes it: read, and followed.
//!
//! The engine is a reader like any other: it is never between the container
//! and its log.

mod changes;
mod compress;
mod forward;
mod line;
mod reader;
mod source;
mod tail;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::sync::mpsc;

pub use self::{
    changes::Changes,
    line::{Format, Gap, Line, Place, Stream},
    reader::{From, Reader},
};
pub(super) use self::{
    compress::compress,
    forward::{Forwarder, Step, Target},
};
use super::containers::{Containers, Phase, View, log_attributes};
pub use crate::kernel::inotify::Watched;
use crate::{
    domain::{log::LogDriver, record::Record},
    error::{Context as _, Error, Kind, Result},
};

/// Lines on their way to a client; it slows the reader down, nobody else.
const QUEUE: usize = 64;

/// Which part of a log.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on until the container has ended.
    pub follow: bool,
    /// With what went to stdout.
    pub stdout: bool,
    /// With what went to stderr.
    pub stderr: bool,
    /// Nanoseconds since the Unix epoch; 0 is from the start.
    pub since: u64,
    /// Nanoseconds since the Unix epoch; 0 is to the end.
    pub until: u64,
    /// Lines from the end.
    pub tail: Option<u64>,
    /// From there on instead.
    pub after: Option<Place>,
    /// Only what is before that place.
    pub before: Option<Place>,
    /// With the attributes of the lines.
    pub details: bool,
}

/// A line, and its attributes where they were asked for.
pub type Answer = (Line, BTreeMap<String, String>);

impl LogOptions {
    fn wants(&self, line: &Line) -> bool {
        let stream = match line.stream {
            Stream::Stdout => self.stdout,
            Stream::Stderr => self.stderr,
        };
        (stream || line.gap.is_some()) && line.time >= self.since
    }

    fn is_past(&self, time: u64) -> bool {
        self.until != 0 && time > self.until
    }
}

impl Containers {
    /// Streams a container's log.
    ///
    /// # Errors
    /// `FailedPrecondition` when nothing is logged.
    pub async fn logs(
        self: &Arc<Self>,
        record: &Record,
        options: LogOptions,
    ) -> Result<mpsc::Receiver<Result<Answer>>> {
        let id = record.id.clone();
        let document = self.document(id).await?;
        let format = match document.config.host.log.driver {
            LogDriver::Local | LogDriver::Journald | LogDriver::Syslog => Format::Cri,
            LogDriver::JsonFile => Format::Json,
            LogDriver::None => {
                let what = "configured logging driver does not support reading";
                return Err(Error::new(Kind::FailedPrecondition, what));
            }
        };
        let attributes = if options.details { log_attributes(record, &document) } else { BTreeMap::new() };
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (this, record) = (Arc::clone(self), record.clone());
        tokio::spawn(async move {
            let out = Out { sender: &sender, attributes };
            if let Err(e) = this.pump(&record, format, &options, &out).await {
                // A client that has gone doesn't want to know.
                drop(sender.send(Err(e)).await);
            }
        });
        Ok(receiver)
    }

    async fn pump(
        self: &Arc<Self>,
        record: &Record,
        format: Format,
        options: &LogOptions,
        out: &Out<'_>,
    ) -> Result<()> {
        let path = self.log_path(&record.namespace, &record.id);
        let entry = self.entry(&record.id);
        // Both before the first read: a change after it is noticed.
        let mut view = entry.subscribe();
        let mut changed = if options.follow { self.log_changes.watch(&path).await? } else { None };
        let from = match (options.after, options.tail) {
            (Some(place), _) => From::Place(place),
            (None, Some(lines)) => From::Tail(lines),
            (None, None) => From::Start,
        };
        let mut reader = read(move || Reader::open(&path, format, from)).await?;
        // One that comes back after a lost engine knows where it was, also
        // when it has seen no line.
        if options.follow && !out.send(Line::nothing(reader.place())).await {
            return Ok(());
        }
        loop {
            // Before the read: when it had ended by then, all has been written.
            let ended = has_ended(&view.borrow_and_update());
            let over = !options.follow || ended;
            let (back, lines) = read(move || {
                let mut reader = reader;
                let mut lines = reader.next_batch()?;
                if lines.is_empty() && over {
                    lines.extend(reader.rest(ended));
                }
                Ok((reader, lines))
            })
            .await?;
            reader = back;
            if !lines.is_empty() {
                for line in lines {
                    let is_beyond = options.before.is_some_and(|place| line.next > place);
                    if options.is_past(line.time) || is_beyond {
                        return Ok(());
                    }
                    if options.wants(&line) && !out.send(line).await {
                        return Ok(());
                    }
                }
                continue;
            }
            if over {
                if ended {
                    self.tell_untold(record, &reader, options, out).await?;
                }
                return Ok(());
            }
            let Some(changed) = &mut changed else { return Ok(()) };
            tokio::select! {
                _ = changed.changed() => {}
                _ = view.changed() => {}
                () = out.sender.closed() => return Ok(()),
                () = at(options.until) => {
                    if options.is_past(berth::bundle::now_nanos()) { return Ok(()); }
                }
            }
        }
    }
}

impl Containers {
    /// What is missing at the end, where nothing could be written any more.
    async fn tell_untold(
        self: &Arc<Self>,
        record: &Record,
        reader: &Reader,
        options: &LogOptions,
        out: &Out<'_>,
    ) -> Result<()> {
        let dropped = self.untold(&record.id).await?;
        if dropped.untold_lines > 0 {
            let gap = Gap::Dropped { lines: dropped.untold_lines, bytes: dropped.untold_bytes };
            let line = Line::missing(gap, reader.time(), reader.place());
            if options.wants(&line) {
                out.send(line).await;
            }
        }
        Ok(())
    }
}

/// To whom it goes.
struct Out<'a> {
    sender: &'a mpsc::Sender<Result<Answer>>,
    attributes: BTreeMap<String, String>,
}

impl Out<'_> {
    /// Whether there is still somebody.
    async fn send(&self, line: Line) -> bool {
        self.sender.send(Ok((line, self.attributes.clone()))).await.is_ok()
    }
}

/// Whether no more output can come.
fn has_ended(view: &View) -> bool {
    match view.phase {
        Phase::Idle | Phase::Removed => true,
        Phase::Prepared(_) | Phase::Running(_) | Phase::Unreachable(_) => false,
    }
}

/// Reading files is blocking work.
async fn read<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.context("read a log")?.context("read a log")
}

/// Sleeps until `nanos` since the Unix epoch; for ever when that is 0.
async fn at(nanos: u64) {
    if nanos == 0 {
        return std::future::pending().await;
    }
    let due = UNIX_EPOCH + Duration::from_nanos(nanos);
    let left = due.duration_since(SystemTime::now()).unwrap_or_default();
    tokio::time::sleep(left + Duration::from_millis(1)).await;
}
