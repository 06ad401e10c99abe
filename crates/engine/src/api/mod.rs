// SPDX-License-Identifier: Apache-2.0
//! The engine's doors: decode, one lifecycle call, encode. Nothing is decided
//! here.

pub mod berth;
pub mod call;
pub mod contained;
pub mod status;
