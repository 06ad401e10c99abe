// SPDX-License-Identifier: Apache-2.0
//! System calls: the only unsafe code of the engine. What deals with files and
//! paths is shared with the other programs: `berth_files`.

pub mod host;
pub mod inotify;
pub mod memfd;
pub mod memory;
pub mod mounts;
pub mod namespaces;
pub mod netns;
pub mod notify;
pub mod pidfd;
pub mod processes;
pub mod readiness;
pub mod socket;
pub mod spawn;

pub use berth_files::kernel::{fs, paths};
