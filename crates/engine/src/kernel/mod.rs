// SPDX-License-Identifier: Apache-2.0
//! System calls: the only unsafe code of the engine.

pub mod fs;
pub mod host;
pub mod inotify;
pub mod memfd;
pub mod notify;
pub mod paths;
pub mod pidfd;
pub mod processes;
pub mod readiness;
pub mod socket;
pub mod spawn;
