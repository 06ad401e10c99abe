// SPDX-License-Identifier: Apache-2.0
//! The processes of a container: whose they are says its shim, what they do
//! says procfs.

use std::sync::Arc;

use super::{Containers, signal};
use crate::{
    domain::{
        ps::{Columns, Table},
        record::Record,
    },
    error::{Context as _, Result},
    kernel::processes,
};

impl Containers {
    /// The processes of a running container, by pid, with the columns that
    /// options of ps ask for.
    ///
    /// # Errors
    /// `InvalidArgument` for an option that isn't known, `FailedPrecondition`
    /// when it doesn't run, `Unavailable` when its shim doesn't answer.
    pub async fn top(self: &Arc<Self>, record: &Record, ps_args: &[String]) -> Result<Table> {
        let columns = Columns::parse(ps_args)?;
        let mut pids = signal::running(&self.entry(&record.id), record)?.task.pids().await?;
        pids.sort_unstable();
        self.blocking(move |_| {
            let host = processes::host().context("look at the host's processes")?;
            let found: Vec<_> = pids
                .into_iter()
                .map(processes::read)
                .collect::<std::io::Result<_>>()
                .context("look at a process")?;
            let found: Vec<_> = found.into_iter().flatten().collect();
            Ok(columns.table(&found, &host))
        })
        .await
    }
}
