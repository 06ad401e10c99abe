// SPDX-License-Identifier: Apache-2.0
//! Hands the listener of a seccomp filter to the agent that answers its calls
//! (runtime-spec, "The Container Process State").
//!
//! The process that has the filter may not make a single call that the filter
//! reports before the agent has the listener: it says the listener's number by
//! write(2), which no profile may report, and the descriptor is taken from it.

use std::os::fd::BorrowedFd;

use berth_seccomp::Listener;
use serde::Serialize;

use super::{
    error::{During as _, Error, Result},
    hooks::State,
};
use crate::kernel::{process, socket};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: u32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: &'a State,
}

/// Takes descriptor `number` from the process and sends it to the agent.
pub(super) fn hand_over(
    listener: &Listener,
    pid: u32,
    pidfd: BorrowedFd<'_>,
    number: i32,
    state: &State,
) -> Result<()> {
    let descriptor = process::pidfd_getfd(pidfd, number)?;
    let message = ProcessState {
        oci_version: &state.oci_version,
        fds: ["seccompFd"],
        pid,
        metadata: &listener.metadata,
        state,
    };
    let text = serde_json::to_vec(&message).map_err(|e| Error::invalid(format!("linux.seccomp: {e}")))?;
    socket::connect_stream(&listener.path)
        .and_then(|agent| socket::send(&agent, &text, Some(&descriptor)))
        .during(|| format!("linux.seccomp.listenerPath: {}", listener.path.display()))
}
