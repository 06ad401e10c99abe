// SPDX-License-Identifier: Apache-2.0
//! Signals: SIGTERM and SIGINT stop the engine, a second one at once; SIGHUP
//! reads the log level again.

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Context as _, Result};

/// How the engine ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Calls were finished and streams were ended.
    Gracefully,
    /// A second signal cut that short.
    AtOnce,
}

/// What a signal asks for.
pub(super) enum Signal {
    Stop(&'static str),
    Reload,
}

/// The signals that the engine listens to.
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    pub(super) fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).context("listen to signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signal::Stop("SIGINT"),
            _ = self.hang_up.recv() => Signal::Reload,
        }
    }

    /// Until somebody who has asked us to stop asks again.
    pub(super) async fn insist(&mut self) {
        while !matches!(self.next().await, Signal::Stop(_)) {}
    }
}
