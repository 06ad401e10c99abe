// SPDX-License-Identifier: Apache-2.0
//! Stopping a container and starting it again, as one thing that the caller's
//! end doesn't cut in two.

use std::sync::Arc;

use super::{Containers, StartOutcome};
use crate::{
    domain::record::Record,
    error::{Error, Result},
};

impl Containers {
    /// Stops a container, if it runs, and starts it; the pid of its first
    /// process. `signal` and `timeout` are those of a stop.
    ///
    /// # Errors
    /// Those of [`Self::stop`] and [`Self::start`].
    pub async fn restart(
        self: &Arc<Self>,
        record: Record,
        signal: String,
        timeout: Option<i32>,
    ) -> Result<u32> {
        let this = Arc::clone(self);
        // Boxed: it holds a whole configuration.
        let work = Box::pin(async move {
            let restarted = this.restart_now(&record, &signal, timeout).await;
            restarted.map_err(|e| explain(&record, e))
        });
        Self::detached(work).await
    }

    async fn restart_now(
        self: &Arc<Self>,
        record: &Record,
        signal: &str,
        timeout: Option<i32>,
    ) -> Result<u32> {
        let entry = self.entry(&record.id);
        let kept = entry.keep();
        self.stop_for_now(record, signal, timeout).await?;
        // What follows an end is done under the gate: after it nothing removes
        // the container of itself.
        drop(entry.gate.lock().await);
        drop(kept);
        let pid = match self.start(record.clone()).await? {
            StartOutcome::Started(pid) | StartOutcome::AlreadyRunning(pid) => pid,
        };
        self.tell(record, "restart", &[]).await?;
        Ok(pid)
    }
}

fn explain(record: &Record, error: Error) -> Error {
    let explained = Error::new(error.kind(), format!("Cannot restart container {}", record.name));
    let explained = explained.with_source(error.chain());
    match error.exit_code() {
        Some(code) => explained.with_exit_code(code),
        None => explained,
    }
}
