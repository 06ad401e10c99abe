// SPDX-License-Identifier: Apache-2.0
//! Removing all containers that don't run.

use std::sync::Arc;

use berth::ids::{ContainerId, Namespace};

use super::{Containers, Force};
use crate::{
    domain::{filter, record::Record, state::Status},
    error::{Error, Kind, Result},
    store::meta::containers::{self as rows, Scope},
};

/// Which of them.
#[derive(Debug, Clone, Default)]
pub struct PruneOptions {
    /// The tenant.
    pub namespace: Namespace,
    /// Only those made before; nanoseconds since the Unix epoch, 0 is all.
    pub until: u64,
    /// `name` or `name=value`; all must hold.
    pub labels: Vec<String>,
    /// The same; none may hold.
    pub without_labels: Vec<String>,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Which.
    pub removed: Vec<ContainerId>,
    /// Bytes of their writable layers.
    pub reclaimed: u64,
}

impl PruneOptions {
    fn wants(&self, record: &Record) -> bool {
        let labels = &record.summary.labels;
        let at_rest = matches!(record.status, Status::Created | Status::Exited);
        at_rest
            && !record.is_restarting()
            && (self.until == 0 || record.created_at < self.until)
            && self.labels.iter().all(|wanted| filter::label_matches(wanted, labels))
            && !self.without_labels.iter().any(|unwanted| filter::label_matches(unwanted, labels))
    }
}

impl Containers {
    /// Removes all containers that don't run and match; one that is started
    /// meanwhile stays.
    ///
    /// # Errors
    /// Those of the host and of the database; what was removed before is gone.
    pub async fn prune(self: &Arc<Self>, options: PruneOptions) -> Result<Pruned> {
        let this = Arc::clone(self);
        Self::detached(async move { this.prune_now(options).await }).await
    }

    async fn prune_now(self: &Arc<Self>, options: PruneOptions) -> Result<Pruned> {
        let wanted = self
            .blocking(move |this| {
                let mut all = this.db.read(|c| rows::list(c, &options.namespace, Scope::All))?;
                all.retain(|record| options.wants(record));
                Ok(all)
            })
            .await?;
        let mut pruned = Pruned::default();
        for record in wanted {
            let (id, row) = (record.id.clone(), record.clone());
            let bytes = self.blocking(move |this| this.snapshots.usage(row.id.as_str())).await;
            match self.remove(record, Force::No).await {
                Ok(()) => {
                    pruned.removed.push(id);
                    pruned.reclaimed = pruned.reclaimed.saturating_add(bytes.unwrap_or(0));
                }
                Err(e) if is_in_use(&e) => {
                    tracing::debug!(%id, error = e.chain(), "a container that is used again isn't pruned");
                }
                Err(e) => return Err(e),
            }
        }
        Ok(pruned)
    }
}

fn is_in_use(error: &Error) -> bool {
    matches!(error.kind(), Kind::FailedPrecondition | Kind::Unavailable)
}
