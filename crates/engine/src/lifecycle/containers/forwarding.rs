// SPDX-License-Identifier: Apache-2.0
//! Who hands a container's log on, and for how long: one task a container, from
//! its start, or the engine's, until all of it has been taken.

use std::sync::Arc;

use berth::ids::ContainerId;

use super::{Containers, Entry, Phase, logging};
use crate::{
    domain::record::Record,
    error::{Context as _, Result},
    lifecycle::logs::{Forwarder, Step, Target},
    store::meta::containers as rows,
};

impl Containers {
    /// Has the container's log handed on, where its driver does that.
    pub(super) fn forward_log(self: &Arc<Self>, entry: &Arc<Entry>, record: &Record) {
        // One that is at it, and one that looks after it whether all is done.
        let Ok(place) = Arc::clone(&entry.forwarders).try_acquire_owned() else { return };
        let (this, entry, record) = (Arc::clone(self), Arc::clone(entry), record.clone());
        tokio::spawn(async move {
            let _place = place;
            let _turn = entry.forwarding.lock().await;
            if let Err(e) = this.forward(&entry, &record).await {
                tracing::error!(id = %record.id, error = e.chain(), "hand a log on");
            }
        });
    }

    /// Those of containers that have ended, and whose logs have perhaps not
    /// been taken yet.
    pub(super) fn forward_leftovers(self: &Arc<Self>, records: &[Record]) {
        for record in records {
            self.forward_log(&self.entry(&record.id), record);
        }
    }

    async fn forward(self: &Arc<Self>, entry: &Entry, record: &Record) -> Result<()> {
        let Some(mut target) = self.target(&record.id).await? else { return Ok(()) };
        let path = self.log_path(&record.namespace, &record.id);
        let mut view = entry.subscribe();
        // Before the first read: a change after it is noticed.
        let Some(mut changed) = self.log_changes.watch(&path).await? else { return Ok(()) };
        let wanted = target.clone();
        let mut forwarder = self
            .blocking(move |_| Forwarder::open(&path, &wanted).context("open what is to be handed on"))
            .await?;
        loop {
            let phase = view.borrow_and_update().phase.clone();
            if matches!(phase, Phase::Removed) {
                return Ok(());
            }
            let step = match forwarder.connect(&target).await {
                Err(e) => Step::Failed(e),
                Ok(()) => {
                    let (back, step) = self
                        .blocking(move |_| {
                            let mut forwarder = forwarder;
                            let step = forwarder.step().context("hand a log on")?;
                            Ok((forwarder, step))
                        })
                        .await?;
                    forwarder = back;
                    step
                }
            };
            let pause = match &step {
                Step::Failed(e) => Some(forwarder.failed(e)),
                Step::Idle if matches!(phase, Phase::Idle) => return Ok(()),
                Step::Idle | Step::Blocked => None,
            };
            let again = async {
                match (&step, pause) {
                    (_, Some(pause)) => tokio::time::sleep(pause).await,
                    (Step::Blocked, None) => forwarder.writable().await,
                    (_, None) => changed.changed().await,
                }
            };
            let options = tokio::select! {
                () = again => false,
                _ = view.changed(), if pause.is_none() => false,
                () = entry.log_options.notified() => true,
            };
            if options {
                let Some(new) = self.target(&record.id).await? else { return Ok(()) };
                target = new;
                forwarder.set_target(&target);
            }
        }
    }

    /// To whom the container's lines go; `None`: to nobody.
    async fn target(self: &Arc<Self>, id: &ContainerId) -> Result<Option<Target>> {
        let id = id.clone();
        self.blocking(move |this| {
            this.db.read(|c| {
                let Some(record) = rows::any(c, &id)? else { return Ok(None) };
                let document = rows::document(c, &id)?;
                Ok(document.config.host.log.driver.forwards().then(|| Target {
                    names: logging::names(&record),
                    attributes: logging::attributes(&record, &document),
                    config: document.config.host.log,
                    journal: this.defaults.journald_socket.clone(),
                }))
            })
        })
        .await
    }
}
