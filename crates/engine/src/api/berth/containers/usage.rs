// SPDX-License-Identifier: Apache-2.0
//! What containers use, and what they have changed, as answers of berth.v1.

use std::os::unix::ffi::OsStrExt as _;

use berth::api::v1::{self, diff_container_response as diff};

use super::encode;
use crate::lifecycle::containers::{Change, ChangeKind, Counted, Measured};

/// One round.
pub(super) fn round(lines: Vec<Measured>) -> v1::ContainerStatsResponse {
    v1::ContainerStatsResponse { containers: lines.into_iter().map(line).collect() }
}

fn line(line: Measured) -> v1::ContainerStats {
    v1::ContainerStats {
        id: line.record.id.to_string(),
        name: line.record.name,
        reference: line.reference,
        status: encode::status(line.status).into(),
        read_at: encode::time(line.at),
        usage: line.counted.map(usage),
    }
}

fn usage(counted: Counted) -> v1::ContainerUsage {
    let Counted { usage, host, cpu_percent } = counted;
    v1::ContainerUsage {
        cpu_percent,
        cpu_total: usage.cpu,
        cpu_user: usage.cpu_user,
        cpu_system: usage.cpu_system,
        host_cpu_total: host.total,
        online_cpus: host.online,
        memory: usage.memory_in_use(),
        memory_total: usage.memory,
        memory_limit: usage.memory_limit,
        pids: usage.pids,
        pids_limit: usage.pids_limit,
        block_read: usage.block_read,
        block_written: usage.block_written,
        // Containers have no network of their own yet.
        network_received: 0,
        network_sent: 0,
    }
}

/// Some of a container's changes.
pub(super) fn changes(changes: Vec<Change>) -> v1::DiffContainerResponse {
    v1::DiffContainerResponse { changes: changes.into_iter().map(change).collect() }
}

fn change(change: Change) -> diff::Change {
    let kind = match change.kind {
        ChangeKind::Added => diff::Kind::Added,
        ChangeKind::Changed => diff::Kind::Changed,
        ChangeKind::Deleted => diff::Kind::Deleted,
    };
    diff::Change { kind: kind.into(), path: [b"/", change.path.as_os_str().as_bytes()].concat().into() }
}
