// SPDX-License-Identifier: Apache-2.0
//! What a container has changed in its file system, told piece by piece.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Containers;
use crate::{
    domain::record::Record,
    error::{Error, Kind, Result},
    store::snapshot::Change,
};

/// Changes in one piece.
const PIECE: usize = 512;
/// Pieces on their way to a client; it slows the walk down, nobody else.
const QUEUE: usize = 4;

impl Containers {
    /// The differences between a container and its image. Dropping the result
    /// ends the walk.
    #[must_use]
    pub fn diff(self: &Arc<Self>, record: &Record) -> mpsc::Receiver<Result<Vec<Change>>> {
        let (pieces, receiver) = mpsc::channel(QUEUE);
        let (this, id) = (Arc::clone(self), record.id.clone());
        tokio::task::spawn_blocking(move || {
            let mut piece = Vec::new();
            let gone = || Error::new(Kind::Cancelled, "the client has gone");
            let send = |piece| pieces.blocking_send(Ok(piece)).map_err(|_| gone());
            let walked = this.snapshots.diff(id.as_str(), |change| {
                piece.push(change);
                if piece.len() < PIECE { Ok(()) } else { send(std::mem::take(&mut piece)) }
            });
            let told = walked.and_then(|()| send(piece));
            if let Err(e) = told {
                // Nobody may be there to hear it.
                drop(pieces.blocking_send(Err(e)));
            }
        });
        receiver
    }
}
