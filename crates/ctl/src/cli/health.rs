// SPDX-License-Identifier: Apache-2.0
//! The flags of a health check, and `berth healthcheck`.
#![allow(rustdoc::broken_intra_doc_links, reason = "these comments are help texts: `[:port]` is no link")]

use clap::{Args, Subcommand};

use crate::parse::time;

const HEALTH: &str = "Health";

/// How the container's health is checked.
#[derive(Debug, Clone, Default, Args)]
pub struct Health {
    /// Command that is run in the container; 0 is well
    #[arg(long, value_name = "COMMAND", help_heading = HEALTH)]
    pub health_cmd: Option<String>,
    /// URL that is asked from the container's network, without a process in
    /// it; 200 to 399 is well
    #[arg(long, value_name = "URL", help_heading = HEALTH)]
    pub health_http: Option<String>,
    /// Port that is connected to in the same way
    #[arg(long, value_name = "[HOST:]PORT", help_heading = HEALTH)]
    pub health_tcp: Option<String>,
    /// Time from a probe to the next, e.g. 30s
    #[arg(long, value_name = "DURATION", value_parser = time::nanos, help_heading = HEALTH)]
    pub health_interval: Option<i64>,
    /// Time that a probe may take
    #[arg(long, value_name = "DURATION", value_parser = time::nanos, help_heading = HEALTH)]
    pub health_timeout: Option<i64>,
    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = HEALTH)]
    pub health_retries: Option<i32>,
    /// Time from the start in which failures don't count
    #[arg(long, value_name = "DURATION", value_parser = time::nanos, help_heading = HEALTH)]
    pub health_start_period: Option<i64>,
    /// Time from a probe to the next in that period
    #[arg(long, value_name = "DURATION", value_parser = time::nanos, help_heading = HEALTH)]
    pub health_start_interval: Option<i64>,
    /// What becomes of an unhealthy container: none, kill, stop or restart
    #[arg(long, value_name = "ACTION", help_heading = HEALTH)]
    pub health_on_failure: Option<String>,
    /// No check, whatever the image says
    #[arg(long, help_heading = HEALTH)]
    pub no_healthcheck: bool,
}

/// `berth healthcheck`.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Probe a container's health now; fails when the probe does
    #[command(after_help = "Examples:
  berth healthcheck run web && echo well")]
    Run(Run),
}

/// `berth healthcheck run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}
