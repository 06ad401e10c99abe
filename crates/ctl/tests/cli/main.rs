// SPDX-License-Identifier: Apache-2.0
//! The real `berth` binary against an engine in this process that follows a
//! script: exit codes, messages, what goes to which stream.

mod engine;
mod errors;
mod list;
mod logs;
mod pull;
mod run;
mod terminal;
