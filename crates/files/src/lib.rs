// SPDX-License-Identifier: Apache-2.0
//! Trees of files that somebody else filled, and tar archives of them.
//!
//! Everything is done by descriptors: a name is opened in a directory that is
//! held, and no link is followed but by us, within a root. [`tar`] reads and
//! writes archives, [`pack`] makes one of a tree, [`extract`] the reverse;
//! [`make`] is one file at a time and [`place`] where a copy goes.
//!
//! The engine unpacks layers with it, the shim copies into and out of
//! containers, the command line into and out of the user's directories. It
//! knows none of them, and everything here blocks.

pub mod error;
pub mod extract;
pub mod kernel;
pub mod make;
pub mod name;
pub mod pack;
pub mod place;
pub mod tar;
pub mod usage;
pub mod walk;

pub use error::{Error, Result};
