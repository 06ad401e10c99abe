// SPDX-License-Identifier: Apache-2.0
//! Plain types and pure decisions: no I/O, no protocol, no database.
//!
//! Everybody may use this module; it uses nobody's but `error`.

pub mod cdi;
pub mod command;
pub mod container;
pub mod devices;
pub mod digest;
pub mod exec;
pub mod filter;
pub mod health;
pub mod id;
pub mod instruction;
pub mod log;
pub mod names;
pub mod namespaces;
pub mod probe;
pub mod ps;
pub mod record;
pub mod restart;
pub mod seccomp;
pub mod security;
pub mod signal;
pub mod size;
pub mod spec;
pub mod state;
pub mod update;
pub mod usage;
pub mod users;
pub mod validate;
