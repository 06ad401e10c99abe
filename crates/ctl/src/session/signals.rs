// SPDX-License-Identifier: Apache-2.0
//! Signals that are handed on to the container, or end the session.

use std::{future::poll_fn, io, task::Poll};

use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind};

const HANDED_ON: [Signal; 7] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGTERM,
];

/// Those that end a program that doesn't catch them, and that a terminal or
/// a supervisor sends.
const ENDING: [Signal; 4] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM];

/// Signals caught while this exists.
#[derive(Debug)]
pub(super) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// Those that a container gets in our place.
    pub(super) fn handed_on() -> io::Result<Self> {
        Self::catch(&HANDED_ON)
    }

    /// Those that must not end us before the terminal is as it was.
    pub(super) fn ending() -> io::Result<Self> {
        Self::catch(&ENDING)
    }

    /// The terminal has changed its size.
    pub(super) fn window() -> io::Result<Self> {
        Self::catch(&[Signal::SIGWINCH])
    }

    /// None at all.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    fn catch(signals: &[Signal]) -> io::Result<Self> {
        let caught =
            signals.iter().map(|signal| Ok((*signal, unix::signal(SignalKind::from_raw(*signal as i32))?)));
        caught.collect::<io::Result<_>>().map(Self)
    }

    /// The next one. Cancel-safe.
    pub(super) async fn recv(&mut self) -> Signal {
        poll_fn(|context| {
            for (signal, caught) in &mut self.0 {
                if caught.poll_recv(context).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }
}
