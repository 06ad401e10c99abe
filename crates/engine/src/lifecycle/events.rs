// SPDX-License-Identifier: Apache-2.0
//! Events: told to subscribers after the change that caused them is committed.

use tokio::sync::watch;

/// Wakes those who follow the events table.
#[derive(Debug)]
pub struct Events {
    changed: watch::Sender<()>,
}

impl Default for Events {
    fn default() -> Self {
        Self { changed: watch::Sender::new(()) }
    }
}

impl Events {
    /// Tells subscribers that events were committed. Called after a write that
    /// appended with `store::meta::events::append`.
    pub fn committed(&self) {
        self.changed.send_replace(());
    }
}
