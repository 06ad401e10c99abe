// SPDX-License-Identifier: Apache-2.0
//! What the supervisor waits for.

use tokio::task::yield_now;

use super::Task;
use crate::io::stdio::Stdio;

pub(super) async fn exited(task: Option<&Task>) {
    match task {
        // A pidfd is readable from the process's end on, for ever.
        Some(task) => drop(task.pidfd.readable().await),
        None => std::future::pending().await,
    }
}

pub(super) async fn output_ended(stdio: Option<&Stdio>) {
    if let Some(stdio) = stdio {
        stdio.output().ended().await;
    }
}

/// Lets the connections write what they have just been given.
pub(super) async fn answers_are_written() {
    yield_now().await;
    yield_now().await;
}
