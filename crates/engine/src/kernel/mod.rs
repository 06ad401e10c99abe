// SPDX-License-Identifier: Apache-2.0
//! System calls: the only unsafe code of the engine.

pub mod fs;
pub mod host;
pub mod notify;
pub mod paths;
