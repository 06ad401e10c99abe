// SPDX-License-Identifier: Apache-2.0
//! Waiting for what happens to a container.

use std::sync::Arc;

use super::{Containers, Phase, View};
use crate::{
    domain::{
        record::Record,
        state::{Exit, Status},
    },
    error::{Error, Kind, Result},
};

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// That it isn't running: at once for one that isn't.
    NotRunning,
    /// Its next end, even if it isn't running yet.
    NextExit,
    /// That it is gone.
    Removed,
}

impl Containers {
    /// Waits for `condition`; the exit status then.
    ///
    /// # Errors
    /// `NotFound` when it is removed while something else is waited for.
    pub async fn wait(self: &Arc<Self>, record: &Record, condition: Condition) -> Result<Exit> {
        let entry = self.entry(&record.id);
        // Before the database is asked: what happens later is seen here.
        let mut view = entry.subscribe();
        let View { ends, rests, .. } = view.borrow_and_update().clone();
        let gone = || Error::new(Kind::NotFound, format!("No such container: {}", record.id));
        let Some(now) = self.reload(record).await? else {
            return if condition == Condition::Removed { Ok(record.exit.clone()) } else { Err(gone()) };
        };
        let at_rest = !matches!(now.status, Status::Running | Status::Starting) && !now.is_restarting();
        if condition == Condition::NotRunning && at_rest {
            return Ok(now.exit);
        }
        let happened = view
            .wait_for(|view| {
                let removed = matches!(view.phase, Phase::Removed);
                let rests = condition == Condition::NotRunning && view.rests != rests;
                removed || rests || condition != Condition::Removed && view.ends != ends
            })
            .await
            .map_err(|_| gone())?;
        let (has_ended, rests) = (happened.ends != ends, happened.rests != rests);
        match condition {
            Condition::Removed => Ok(if has_ended { happened.last.clone() } else { now.exit }),
            _ if has_ended => Ok(happened.last.clone()),
            Condition::NotRunning if rests => Ok(now.exit),
            _ => Err(gone()),
        }
    }
}
