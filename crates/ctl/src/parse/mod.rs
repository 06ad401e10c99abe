// SPDX-License-Identifier: Apache-2.0
//! What users write, turned into values of the API.
//!
//! Every function takes the text of one argument and answers with the value
//! or with one line that says what is wrong with it. Nothing here talks to
//! the engine. Called by clap while it parses, and by [`crate::command`].

pub mod device;
pub mod filter;
pub mod key_value;
pub mod lines;
pub mod mount;
pub mod net;
pub mod reference;
pub mod restart;
pub mod security;
pub mod size;
pub mod time;
pub mod ulimit;
pub mod volume;

/// A parsed value, or a line for the user.
pub type Parsed<T> = Result<T, String>;
