// SPDX-License-Identifier: Apache-2.0
//! Soak: what must hold under load, over time, and whoever is killed.
//!
//! `make test` runs a short slice of each; `make soak` the lengths of
//! docs/reliability.md (`BERTH_SOAK=full`). What is random comes from a seed,
//! which is printed and can be given (`BERTH_SEED`). Each test prints what it
//! has measured.

#[allow(dead_code, unused_imports, reason = "the end-to-end tests' support, of which these need a part")]
#[path = "../e2e/support/mod.rs"]
mod support;

mod api;
mod beats;
mod calls;
mod chaos;
mod cycles;
mod failpoints;
mod lengths;
mod logs;
mod outputs;
mod power;
mod pulls;
mod scale;
mod scarce;
mod sizes;
mod stuck;
