// SPDX-License-Identifier: Apache-2.0
//! Going on after the engine was away: restarted, upgraded, crashed.
//!
//! The container and its shim don't notice. Without a terminal the log fills
//! the gap exactly: it holds every byte, and those that were printed before
//! are skipped. A terminal is attached to again, and told its size, which
//! makes most programs draw their screen anew.

use std::time::Duration;

use berth::api::v1::{InspectContainerRequest, container_state::Status};
use tokio::time;
use tonic::Code;

use super::{Exit, Input, Session, source};
use crate::{context::Context, error::Result, output};

/// How long the engine may be away.
const AWAY: Duration = Duration::from_secs(10);
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// A log is read from its beginning; beyond this it may have been rotated.
const LOG_LIMIT: u64 = 4 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resumed {
    Output,
    /// It is gone, and its log with it; the exit code is still to come.
    NoOutput,
}

impl Session {
    /// Connects again and goes on where it stopped.
    pub(super) async fn resume(&mut self, exit: &mut Exit) -> Result<Resumed> {
        let deadline = time::Instant::now() + AWAY;
        loop {
            match self.try_resume(exit).await {
                Ok(resumed) => return Ok(resumed),
                Err(error) if !error.is_lost() => return Err(error),
                Err(_) if time::Instant::now() >= deadline => return Err(self.lost()),
                Err(_) => {}
            }
            tokio::select! {
                // Whoever wants to end doesn't want to wait for the engine.
                _ = self.signals.recv() => return Err(self.lost()),
                () = time::sleep(PAUSE) => {}
            }
        }
    }

    async fn try_resume(&mut self, exit: &mut Exit) -> Result<Resumed> {
        let context = self.context.reconnect().await?;
        let request = InspectContainerRequest {
            namespace: context.namespace.clone(),
            container: self.target.id.clone(),
        };
        let container = match context.client.containers().inspect(request).await {
            Ok(answer) => answer.into_inner().container.unwrap_or_default(),
            Err(status) if status.code() == Code::NotFound => {
                *exit = Exit::of_removed(&context, &self.target.id);
                self.context = context;
                let name = &self.target.name;
                output::warn(&format!(
                    "WARNING: container {name} was removed while the engine was away: the end of its output may be missing"
                ));
                return Ok(Resumed::NoOutput);
            }
            Err(status) => return Err(status.into()),
        };
        let config = container.config.unwrap_or_default();
        let host = config.host.unwrap_or_default();
        let log = host.log.unwrap_or_default();
        let status = container.state.unwrap_or_default().status();
        let exited = matches!(status, Status::Exited | Status::Restarting);
        let complete = self.options.from_start
            && log.driver != "none"
            && !["max-size", "max-file", "max-total", "max-age"].iter().any(|o| log.options.contains_key(*o))
            && self.received.iter().sum::<u64>() <= LOG_LIMIT;
        *exit = if host.auto_remove {
            Exit::of_removed(&context, &self.target.id)
        } else {
            Exit::of(&context, &self.target.id)
        };
        let resumed = self.reopen(&context, complete && !self.options.tty, exited).await?;
        self.context = context;
        self.resize();
        Ok(resumed)
    }

    async fn reopen(&mut self, context: &Context, complete: bool, exited: bool) -> Result<Resumed> {
        let id = &self.target.id;
        // Also when it has ended: whether that got there nobody can tell.
        let stdin = self.options.stdin;
        if complete {
            self.source = source::log(context, id, &self.options, self.received).await?;
            if stdin && !exited {
                let silent = super::Options { stdout: false, stderr: false, ..self.options.clone() };
                let (stdin, requests) = source::attach(context, id, &silent, true).await?;
                self.requests = requests;
                self.stdin_only = Some(stdin);
                self.close_again();
            }
            return Ok(Resumed::Output);
        }
        if exited {
            self.gap();
            return Ok(Resumed::NoOutput);
        }
        (self.source, self.requests) = source::attach(context, id, &self.options, stdin).await?;
        self.close_again();
        if !self.options.tty {
            self.gap();
        }
        Ok(Resumed::Output)
    }

    /// Says once more that our input has ended.
    fn close_again(&self) {
        if self.options.stdin && self.input == Input::Closed {
            // The stream is new: there is room.
            let _ = self.requests.try_send(source::stdin_closed());
        }
    }

    fn gap(&self) {
        let name = &self.target.name;
        output::warn(&format!(
            "WARNING: the engine was away: output may be missing here, berth logs {name} has all of it"
        ));
    }
}
