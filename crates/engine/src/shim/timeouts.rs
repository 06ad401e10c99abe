// SPDX-License-Identifier: Apache-2.0
//! How long the engine waits for another process. Every such wait is here.

use std::time::Duration;

/// Connecting to a shim's socket: it listens already, only its queue can be full.
pub const CONNECT: Duration = Duration::from_secs(2);

/// Task.Create: namespaces, mounts, cgroups. Slow storage is slow.
pub const CREATE: Duration = Duration::from_secs(60);

/// Task.Start: one execve.
pub const START: Duration = Duration::from_secs(30);

/// Clients that attached before Start and have not reached the shim by now
/// are not waited for any longer.
pub const ATTACHERS: Duration = Duration::from_secs(2);

/// Calls that a shim answers from memory or with one system call.
pub const QUICK: Duration = Duration::from_secs(5);

/// Task.Kill: an engine that was asked to end a container does it without the
/// shim soon enough.
pub const SIGNAL: Duration = Duration::from_secs(2);

/// Shim.ListExecs: one line of a list.
pub const LIST: Duration = Duration::from_secs(1);

/// Task.Stats: a table that is drawn once a second waits no longer for one
/// line of it.
pub const STATS: Duration = Duration::from_secs(1);

/// Task.Pause and Task.Resume: the shim gives the processes ten seconds to
/// come to rest.
pub const FREEZE: Duration = Duration::from_secs(12);

/// A shim's answer at the engine's start, before its container is `unknown`.
pub const PROBE: Duration = Duration::from_secs(2);

/// How long the engine's start waits for such answers before it serves; the
/// rest come in while it does.
pub const RECONCILE_GRACE: Duration = Duration::from_millis(500);

/// Before a shim that didn't answer is asked again.
pub const RETRY: Duration = Duration::from_secs(2);

/// Task.Delete: unmounts and cgroups.
pub const DELETE: Duration = Duration::from_secs(10);

/// The end of a shim after Shutdown, before it is killed.
pub const SHUTDOWN: Duration = Duration::from_secs(2);

/// The end of processes that were sent SIGKILL, and of their cgroup.
pub const KILLED: Duration = Duration::from_millis(1500);

/// The exit of a container that was sent SIGKILL, as its shim reports it,
/// before the engine takes matters into its own hands.
pub const KILL: Duration = Duration::from_secs(10);

/// Copies into and out of a container that doesn't run, before it is started
/// or another copy begins: they have its layers mounted.
pub const COPIES: Duration = Duration::from_secs(10);
