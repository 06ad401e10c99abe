// SPDX-License-Identifier: Apache-2.0
//! What the engine keeps: metadata, content, snapshots.

pub mod content;
pub mod meta;
mod pins;
mod reserve;
pub mod snapshot;

pub use self::{pins::Pins, reserve::Reserve};
