// SPDX-License-Identifier: Apache-2.0
//! Logs that go elsewhere: a reader of the local log, which hands each line on
//! and then notes down how far it came. No container waits for it, and it goes
//! on where it was, whoever was away: the engine, or the other side.

mod cursor;
mod journald;
mod sink;
mod syslog;

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use self::{cursor::Cursor, sink::Sink};
use super::{
    line::{Format, Gap, Line, Place, Stream},
    reader::{From, Reader},
};
use crate::domain::log::{LogConfig, LogDriver};

/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// To whom lines go, and what is said with each.
#[derive(Debug, Clone)]
pub(in crate::lifecycle) struct Target {
    /// As the container is configured.
    pub(in crate::lifecycle) config: LogConfig,
    /// What a tag may name; `ID`, `FullID`, `Name` and `ImageName` are told.
    pub(in crate::lifecycle) names: BTreeMap<&'static str, String>,
    /// Labels and variables that options name.
    pub(in crate::lifecycle) attributes: BTreeMap<String, String>,
    /// The journal's socket.
    pub(in crate::lifecycle) journal: PathBuf,
}

/// What one step came to.
#[derive(Debug)]
pub(in crate::lifecycle) enum Step {
    /// All that is there was handed on.
    Idle,
    /// The other side takes nothing for the moment.
    Blocked,
    /// It is away.
    Failed(io::Error),
}

/// One container's log on its way.
#[derive(Debug)]
pub(in crate::lifecycle) struct Forwarder {
    path: PathBuf,
    cursor: Cursor,
    reader: Option<Reader>,
    /// Read, and not handed on; the first may be in part.
    pending: VecDeque<Line>,
    encode: Encode,
    sink: Option<Sink>,
    pause: Duration,
    /// The log says that the other side is away.
    told: bool,
}

/// How a line is put for the other side.
#[derive(Debug)]
enum Encode {
    Syslog(syslog::Encoder),
    Journald(journald::Encoder),
}

impl Encode {
    fn new(target: &Target) -> Self {
        match target.config.driver {
            LogDriver::Journald => Self::Journald(journald::Encoder::new(target)),
            _ => Self::Syslog(syslog::Encoder::new(target)),
        }
    }

    fn line(&self, line: &Line) -> Vec<u8> {
        let gap;
        let (text, partial) = match line.gap {
            None => {
                let whole = line.data.strip_suffix(b"\n");
                (whole.unwrap_or(&line.data), whole.is_none())
            }
            Some(Gap::Dropped { lines, bytes }) => {
                gap = format!(
                    "berth: {lines} lines ({bytes} bytes) are missing here: they could not be written"
                );
                (gap.as_bytes(), false)
            }
            Some(Gap::Damaged(bytes)) => {
                gap = format!("berth: {bytes} bytes of the log are damaged here");
                (gap.as_bytes(), false)
            }
            Some(Gap::Rotated(segments)) => {
                gap =
                    format!("berth: {segments} segments of the log were rotated away before they were read");
                (gap.as_bytes(), false)
            }
        };
        let severity = match (line.gap, line.stream) {
            (Some(_), _) => Severity::Warning,
            (None, Stream::Stderr) => Severity::Error,
            (None, Stream::Stdout) => Severity::Info,
        };
        match self {
            Self::Syslog(encoder) => encoder.message(line.time, severity, text),
            Self::Journald(encoder) => encoder.message(line.time, severity, text, partial),
        }
    }
}

/// How bad it is: RFC 5424, 6.2.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Error = 3,
    Warning = 4,
    Info = 6,
}

impl Forwarder {
    /// Goes on where the last one stopped. Blocks.
    pub(in crate::lifecycle) fn open(path: &Path, target: &Target) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            cursor: Cursor::open(path)?,
            reader: None,
            pending: VecDeque::new(),
            encode: Encode::new(target),
            sink: None,
            pause: PAUSES.0,
            told: false,
        })
    }

    /// Other options from now on; the connection is made anew.
    pub(in crate::lifecycle) fn set_target(&mut self, target: &Target) {
        self.encode = Encode::new(target);
        self.sink = None;
    }

    /// Connects, where that is to be done.
    pub(in crate::lifecycle) async fn connect(&mut self, target: &Target) -> io::Result<()> {
        if self.sink.is_none() {
            let address = match target.config.driver {
                LogDriver::Journald => sink::Address::Datagrams(target.journal.clone()),
                _ => syslog::address(&target.config).ok_or(io::ErrorKind::InvalidInput)?,
            };
            self.sink = Some(Sink::connect(&address).await?);
        }
        Ok(())
    }

    /// Hands on what is there. Blocks for files alone.
    pub(in crate::lifecycle) fn step(&mut self) -> io::Result<Step> {
        let place = self.cursor.place();
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => {
                let from = if place == Place::default() { From::Start } else { From::Place(place) };
                self.reader.insert(Reader::open(&self.path, Format::Cri, from)?)
            }
        };
        let Some(sink) = &mut self.sink else { return Ok(Step::Failed(io::ErrorKind::NotConnected.into())) };
        loop {
            if self.pending.is_empty() {
                self.pending = reader.next_batch()?.into();
            }
            let Some(line) = self.pending.front() else { return Ok(Step::Idle) };
            match sink.send(|| self.encode.line(line)) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Blocked),
                Err(e) if sink::is_too_large(&e) => {
                    tracing::warn!(path = %self.path.display(), "a line is too large for its log driver");
                }
                Err(e) => {
                    self.sink = None;
                    return Ok(Step::Failed(e));
                }
            }
            // After each line, so that an engine that is killed repeats at
            // most the one that it was at.
            self.cursor.save(line.next)?;
            self.pending.pop_front();
            (self.pause, self.told) = (PAUSES.0, false);
        }
    }

    /// Waits until the other side takes more.
    pub(in crate::lifecycle) async fn writable(&self) {
        if let Some(sink) = &self.sink {
            sink.writable().await;
        }
    }

    /// Says once that the other side is away; how long to leave it alone.
    pub(in crate::lifecycle) fn failed(&mut self, error: &io::Error) -> Duration {
        if !self.told {
            tracing::warn!(path = %self.path.display(), error = %error, "hand a log on; it is kept until then");
            self.told = true;
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSES.1);
        pause
    }
}
