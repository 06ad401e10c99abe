// SPDX-License-Identifier: Apache-2.0
//! How long a container may run.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// From its start on; by default without an end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TimeLimit {
    within: Option<Duration>,
    until: Option<Instant>,
}

impl TimeLimit {
    pub(super) fn of(within: Option<Duration>) -> Self {
        Self { within, until: None }
    }

    /// The container runs.
    pub(super) fn begin(&mut self) {
        self.until = self.within.and_then(|within| Instant::now().checked_add(within));
    }

    /// The container doesn't run any more, or has been told to end.
    pub(super) fn end(&mut self) {
        self.until = None;
    }

    /// Returns when its time is over.
    pub(super) async fn over(self) {
        match self.until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    }
}
