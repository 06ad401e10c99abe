// SPDX-License-Identifier: Apache-2.0
//! System calls: the only unsafe code of this crate.

pub mod fs;
pub mod paths;
