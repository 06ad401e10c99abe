// SPDX-License-Identifier: Apache-2.0
//! End to end: real engines, real containers, a real registry.
//!
//! One module per promise. Each test has an engine of its own in a temporary
//! place ([`support::Engine`]), so that they run side by side, and fails when
//! anything is left behind. They need root; without it they say that they
//! skip. `make test` builds what they start and installs what they need.

mod support;

mod api;
mod archives;
mod attach;
mod bad_input;
mod cgroup_parent;
mod commit;
mod config;
mod copy;
mod devices;
mod disk;
mod events;
mod execs;
mod first_minute;
mod fsck;
mod health;
mod image_config;
mod images;
mod init;
mod lifecycle;
mod log_forward;
mod log_full;
mod log_segments;
mod logs;
mod manage;
mod pause;
mod pull;
mod restart;
mod share;
mod stats;
mod stuck;
mod survival;
mod trees;
mod tty;
mod users;
