// SPDX-License-Identifier: Apache-2.0
//! A pull, as events for those who didn't ask for it: `pulling` when bytes
//! begin to come and every few seconds from then on, `pull_failed` where it
//! comes to nothing. That it worked is told with the image, by its commit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::{Images, assemble::blocking, progress::Board, pull::PullRequest};
use crate::{
    error::Error,
    store::meta::events::{self, NewEvent},
};

/// Between two events of one pull.
const EVERY: Duration = Duration::from_secs(5);
/// Between two looks whether bytes have begun to come.
const LOOK: Duration = Duration::from_millis(100);

/// Tells of one pull.
pub(super) struct Telling {
    images: Arc<Images>,
    namespace: String,
    name: String,
    /// Somebody has been told that it is under way.
    begun: AtomicBool,
    ended: AtomicBool,
}

impl Telling {
    pub(super) fn new(images: &Arc<Images>, request: &PullRequest) -> Self {
        Self {
            images: Arc::clone(images),
            namespace: request.namespace.as_str().to_owned(),
            name: request.reference.familiar(),
            begun: AtomicBool::new(false),
            ended: AtomicBool::new(false),
        }
    }

    /// Goes on until it is dropped.
    pub(super) async fn of_progress(&self, board: &Board) {
        loop {
            let Some((current, total)) = board.received() else {
                tokio::time::sleep(LOOK).await;
                continue;
            };
            self.begun.store(true, Ordering::Relaxed);
            let numbers = [("current", current.to_string()), ("total", total.to_string())];
            let (images, event) = (Arc::clone(&self.images), self.event("pulling", numbers));
            // An event that can't be written is no reason to end a pull.
            if let Err(e) = blocking(move || append(&images, &event)).await {
                tracing::debug!(error = %e.chain(), "tell of a pull");
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Of the end; without an error the image's own event says it.
    pub(super) fn of_end(&self, error: Option<&Error>) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(error) = error {
            self.failed(error.chain());
        }
    }

    fn failed(&self, error: String) {
        let (images, event) = (Arc::clone(&self.images), self.event("pull_failed", [("error", error)]));
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        drop(runtime.spawn_blocking(move || {
            if let Err(e) = append(&images, &event) {
                tracing::debug!(error = %e.chain(), "tell of a pull that failed");
            }
        }));
    }

    fn event<const N: usize>(&self, action: &'static str, more: [(&str, String); N]) -> NewEvent {
        let name = ("name".to_owned(), self.name.clone());
        let more = more.into_iter().map(|(key, value)| (key.to_owned(), value));
        NewEvent {
            namespace: self.namespace.clone(),
            kind: "image",
            action,
            id: self.name.clone(),
            attributes: more.chain([name]).collect(),
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        // Everybody who waited for it has gone.
        if self.begun.load(Ordering::Relaxed) && !self.ended.load(Ordering::Relaxed) {
            self.failed("it was cancelled".to_owned());
        }
    }
}

fn append(images: &Images, event: &NewEvent) -> crate::error::Result<()> {
    images.db.write(|tx| events::append(tx, event).map(drop))?;
    images.events.committed();
    Ok(())
}
