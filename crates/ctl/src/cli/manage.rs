// SPDX-License-Identifier: Apache-2.0
//! Arguments of verbs that look at containers which are there, or change them.

use berth::api::v1::{Filter, RestartPolicy};
use clap::{Args, ValueEnum};

use super::{container::Containers, health::Health};
use crate::parse::{filter, key_value, net, restart, size};

/// `berth wait`.
#[derive(Debug, Args)]
pub struct Wait {
    /// Which
    #[command(flatten)]
    pub targets: Containers,
    /// What to wait for
    #[arg(long, value_name = "CONDITION", default_value = "not-running")]
    pub condition: Condition,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Condition {
    /// That it doesn't run: at once for one that doesn't
    NotRunning,
    /// Its next exit, even if it doesn't run yet
    NextExit,
    /// That it is gone
    Removed,
}

/// `berth update`. 0 takes a limit away.
#[derive(Debug, Args)]
pub struct Update {
    /// Which
    #[command(flatten)]
    pub targets: Containers,
    /// Most memory, e.g. 512m
    #[arg(short, long, value_name = "BYTES", value_parser = size::memory)]
    pub memory: Option<i64>,
    /// Most memory and swap together; -1 is no limit
    #[arg(long, value_name = "BYTES", value_parser = size::memory_or_unlimited, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Memory that is left to it when memory runs out
    #[arg(long, value_name = "BYTES", value_parser = size::memory)]
    pub memory_reservation: Option<i64>,
    /// Number of CPUs, e.g. 1.5
    #[arg(long, value_name = "NUMBER", value_parser = size::cpus)]
    pub cpus: Option<i64>,
    /// Share of the CPUs, relative to 1024
    #[arg(short, long, value_name = "WEIGHT")]
    pub cpu_shares: Option<u64>,
    /// Microseconds that the quota is counted in, 1000 to 1000000
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<i64>,
    /// Microseconds of CPU in each period; -1 is no limit
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    /// CPUs to run on, e.g. 0-2,4
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use, e.g. 0-1
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Most processes; -1 is no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub blkio_weight: Option<u32>,
    /// When it is started again: no, always, unless-stopped, on-failure[:N]
    #[arg(long, value_name = "POLICY", value_parser = restart::policy)]
    pub restart: Option<RestartPolicy>,
    /// How its health is checked; what isn't named stays
    #[command(flatten)]
    pub health: Health,
    /// Set a label
    #[arg(long, value_name = "KEY[=VALUE]", value_parser = key_value::label)]
    pub label_add: Vec<(String, String)>,
    /// Take a label away
    #[arg(long, value_name = "KEY")]
    pub label_rm: Vec<String>,
    /// An option of its log driver: max-size=10m; without a value its default
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value::pair)]
    pub log_opt: Vec<(String, String)>,
}

/// `berth diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}

/// `berth container prune`.
#[derive(Debug, Args)]
pub struct Prune {
    /// Only those that match: until=24h, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE", value_parser = filter::filter)]
    pub filter: Vec<Filter>,
    /// Don't ask
    #[arg(short, long)]
    pub force: bool,
}

/// `berth rename`.
#[derive(Debug, Args)]
pub struct Rename {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Its name from now on
    #[arg(value_name = "NEW_NAME")]
    pub name: String,
}

/// `berth port`.
#[derive(Debug, Args)]
pub struct Port {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Only this one of the container's ports
    #[arg(value_name = "PRIVATE_PORT[/PROTO]", value_parser = net::port)]
    pub port: Option<String>,
}

/// `berth top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Containers that don't run, too
    #[arg(short, long, conflicts_with = "container")]
    pub all: bool,
    /// What the containers are sorted by
    #[arg(
        long,
        value_name = "COLUMN",
        default_value = "cpu",
        hide_default_value = false,
        conflicts_with = "container"
    )]
    pub sort: Sort,
    /// How the containers are shown
    #[command(flatten)]
    pub look: Look,
    /// Name or id; without one, a line for each container that runs
    #[arg(value_name = "CONTAINER", conflicts_with_all = ["format", "no_stream", "no_trunc"])]
    pub container: Option<String>,
    /// Options of ps: -ef (the default), aux, or -o with names of columns
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

/// What a list of containers in use is sorted by, most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// CPU since the round before
    Cpu,
    /// Memory
    #[value(alias = "mem")]
    Memory,
    /// Bytes received and sent
    Net,
    /// Bytes read and written
    Block,
    /// Processes
    Pids,
    /// Name, from A on
    Name,
}

/// `berth stats`.
#[derive(Debug, Args)]
pub struct Stats {
    /// Names or ids; without one, all that run
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
    /// All containers, not only running ones
    #[arg(short, long)]
    pub all: bool,
    /// How it is shown
    #[command(flatten)]
    pub look: Look,
}

/// How what containers use is shown.
#[derive(Debug, Clone, Default, Args)]
pub struct Look {
    /// table, json, 'table TEMPLATE' or TEMPLATE, e.g. '{{.Name}} {{.MemPerc}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Only once
    #[arg(long)]
    pub no_stream: bool,
    /// Whole ids
    #[arg(long)]
    pub no_trunc: bool,
}
