// SPDX-License-Identifier: Apache-2.0
//! berth.v1, one file per service.
pub mod containers;
pub mod events;
pub mod execs;
pub mod images;
pub mod system;
