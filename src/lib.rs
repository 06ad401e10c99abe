// SPDX-License-Identifier: Apache-2.0
//! berth's API as a library, and the contract between its programs.
//!
//! Integrators need [`Client`] and [`api`]:
//!
//! ```no_run
//! # async fn f() -> Result<(), berth::ConnectError> {
//! let client = berth::Client::connect("unix:///run/berth/berth.sock").await?;
//! let containers = client.containers();
//! # drop(containers); Ok(())
//! # }
//! ```
//!
//! The rest is what `berthd` and `berth-shim` agree on: the ids and paths of
//! a container ([`ids`], [`bundle`], [`log`], [`cgroup`]), how a shim is started ([`bootstrap`]),
//! and the protocols they speak ([`ttrpc`], [`attach`], [`files`]). Nothing here
//! decides anything: no life cycle, no kernel.

pub mod api;
pub mod attach;
pub mod bootstrap;
pub mod bundle;
pub mod cgroup;
#[cfg(feature = "client")]
mod client;
pub mod failpoint;
pub mod files;
pub mod ids;
pub mod log;
pub mod ttrpc;

#[cfg(feature = "client")]
pub use client::{Client, ConnectError};

/// Where the engine listens unless told otherwise.
pub const DEFAULT_ADDRESS: &str = "unix:///run/berth/berth.sock";

/// The namespace of a request that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Trailing metadata of a failed `Containers.Start`: the exit code that a
/// command line should end with (126 or 127).
pub const EXIT_CODE_METADATA: &str = "berth-exit-code";
