// SPDX-License-Identifier: Apache-2.0
//! How our engine starts our shim.
//!
//! The engine makes both sockets, listens on them, and executes the shim from
//! a sealed memfd with the sockets inherited: nobody polls for a socket, and
//! no process of a container can reach the shim's file (D7).
//!
//! ```text
//! berth-shim serve --namespace NS --id ID --cgroup-parent PATH
//! ```
//!
//! Working directory: the bundle. Standard input: /dev/null; standard output
//! and error: the shim's own log. Environment: `PATH` only, and
//! `BERTH_SHIM_LOG` (a level) where set.

/// The verb of the command line above.
pub const SERVE: &str = "serve";
/// Descriptor of the listening ttrpc socket.
pub const TTRPC_FD: i32 = 3;
/// Descriptor of the listening attach socket.
pub const ATTACH_FD: i32 = 4;
