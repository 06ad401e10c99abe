// SPDX-License-Identifier: Apache-2.0
//! The flags that `run` and `create` share: what to run, and how.
#![allow(rustdoc::broken_intra_doc_links, reason = "these comments are help texts: `[:tag]` is no link")]

use std::path::PathBuf;

use berth::api::v1::{BlockRate, Mount, RestartPolicy, Ulimit};
use clap::{ArgAction, Args, ValueEnum};

use super::health::Health;
use crate::parse::{
    device::{self, Device, Gpus},
    key_value, mount, net, restart, size, ulimit, volume,
};

const PROCESS: &str = "Process";
const IDENTITY: &str = "Name and labels";
const FILES: &str = "Files";
const NETWORK: &str = "Network";
const RESOURCES: &str = "Resources";
const SECURITY: &str = "Security";
const LOGGING: &str = "Logging";

/// When to fetch the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Pull {
    /// Every time
    Always,
    /// When it isn't here
    Missing,
    /// Not at all
    Never,
}

/// A stream that can be attached to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attach {
    /// The container's input.
    Stdin,
    /// Its output.
    Stdout,
    /// Its messages.
    Stderr,
}

fn attach(text: &str) -> Result<Attach, String> {
    match text.to_ascii_lowercase().as_str() {
        "stdin" => Ok(Attach::Stdin),
        "stdout" => Ok(Attach::Stdout),
        "stderr" => Ok(Attach::Stderr),
        _ => Err("valid streams are STDIN, STDOUT and STDERR".into()),
    }
}

/// For flags that people will try: one clear line.
fn later(_: &str) -> Result<String, String> {
    Err("not supported in this version of berth".into())
}

/// What to run and how.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub struct Create {
    /// Reference or id of the image, then the command and its arguments:
    /// everything after IMAGE belongs to the command
    // One argument: only what follows its first value is beyond doubt not a
    // flag of ours.
    #[arg(value_name = "IMAGE [COMMAND]", required = true, trailing_var_arg = true)]
    words: Vec<String>,

    /// Attach to STDIN, STDOUT or STDERR
    #[arg(short, long, value_name = "STREAM", value_parser = attach)]
    pub attach: Vec<Attach>,
    /// Keep STDIN open
    #[arg(short, long)]
    pub interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Remove the container and its files when it exits
    #[arg(long)]
    pub rm: bool,
    /// When to fetch the image
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub pull: Pull,
    /// Pull for another platform, as OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Write the container's id to a file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
    /// No progress of the pull
    #[arg(short, long)]
    pub quiet: bool,
    /// Print usage
    #[arg(long, action = ArgAction::HelpShort)]
    help: Option<bool>,

    /// Set an environment variable; NAME alone takes yours
    #[arg(short, long, value_name = "NAME=VALUE", help_heading = PROCESS)]
    pub env: Vec<String>,
    /// Read environment variables from a file, one a line
    #[arg(long, value_name = "FILE", help_heading = PROCESS)]
    pub env_file: Vec<PathBuf>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR", help_heading = PROCESS)]
    pub workdir: Option<String>,
    /// User, and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]", help_heading = PROCESS)]
    pub user: Option<String>,
    /// Be in another group, by its number, or its name in the container
    #[arg(long, value_name = "GROUP", help_heading = PROCESS)]
    pub group_add: Vec<String>,
    /// Replace the image's entry point; empty clears it
    #[arg(long, value_name = "COMMAND", help_heading = PROCESS)]
    pub entrypoint: Option<String>,
    /// When it is started again: no, always, unless-stopped, or
    /// on-failure[:N], N times at most
    #[arg(long, value_name = "POLICY", value_parser = restart::policy, help_heading = PROCESS)]
    pub restart: Option<RestartPolicy>,
    /// Signal that stops the container
    #[arg(long, value_name = "SIGNAL", help_heading = PROCESS)]
    pub stop_signal: Option<String>,
    /// Seconds from that signal to SIGKILL; -1 waits for ever
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, help_heading = PROCESS)]
    pub stop_timeout: Option<i32>,
    /// Seconds after which the container is killed, however it is doing
    #[arg(long, value_name = "SECONDS", help_heading = PROCESS)]
    pub timeout: Option<u64>,
    /// Have a small init as the first process, which hands on signals and
    /// reaps
    #[arg(long, help_heading = PROCESS)]
    pub init: bool,

    /// Name of the container; without it one is made up
    #[arg(long, value_name = "NAME", help_heading = IDENTITY)]
    pub name: Option<String>,
    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = key_value::label, help_heading = IDENTITY)]
    pub label: Vec<(String, String)>,
    /// Read labels from a file, one a line
    #[arg(long, value_name = "FILE", help_heading = IDENTITY)]
    pub label_file: Vec<PathBuf>,
    /// Add an annotation, for the OCI runtime and its hooks
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value::pair, help_heading = IDENTITY)]
    pub annotation: Vec<(String, String)>,

    /// Bind mount a host path: /host:/container[:ro,rslave,…]
    #[arg(short, long, value_name = "HOST:PATH[:OPTIONS]", value_parser = volume::volume, help_heading = FILES)]
    pub volume: Vec<Mount>,
    /// Mount: type=bind,src=/host,dst=/path[,ro][,bind-propagation=…]
    /// [,bind-recursive=…] or type=tmpfs,dst=/path[,tmpfs-size=…][,tmpfs-mode=…]
    #[arg(long, value_name = "FIELDS", value_parser = mount::mount, help_heading = FILES)]
    pub mount: Vec<Mount>,
    /// Mount a tmpfs: /run[:size=64m,mode=1777]
    #[arg(long, value_name = "PATH[:OPTIONS]", value_parser = mount::tmpfs, help_heading = FILES)]
    pub tmpfs: Vec<(String, String)>,
    /// Mount the root file system read-only
    #[arg(long, help_heading = FILES)]
    pub read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES", value_parser = size::memory, help_heading = FILES)]
    pub shm_size: Option<i64>,

    /// none, host, or container:NAME for another's; `none` is the default
    /// until the bridge network exists
    #[arg(long, alias = "net", value_name = "NETWORK", help_heading = NETWORK)]
    pub network: Option<String>,
    /// Processes that it sees: host, or container:NAME
    #[arg(long, value_name = "MODE", help_heading = SECURITY)]
    pub pid: Option<String>,
    /// System V objects, queues and shared memory: private, shareable, none,
    /// host, or container:NAME
    #[arg(long, value_name = "MODE", help_heading = SECURITY)]
    pub ipc: Option<String>,
    /// Whose host name: host
    #[arg(long, value_name = "MODE", help_heading = SECURITY)]
    pub uts: Option<String>,
    /// Cgroups that it sees: private or host
    #[arg(long, value_name = "MODE", help_heading = SECURITY)]
    pub cgroupns: Option<String>,
    /// The cgroup that its own is made in
    #[arg(long, value_name = "PATH", help_heading = SECURITY)]
    pub cgroup_parent: Option<String>,
    /// Host name inside the container
    #[arg(short = 'h', long, value_name = "NAME", help_heading = NETWORK)]
    pub hostname: Option<String>,
    /// NIS domain name inside the container
    #[arg(long, value_name = "NAME", help_heading = NETWORK)]
    pub domainname: Option<String>,
    /// Add a line to /etc/hosts
    #[arg(long, value_name = "HOST:ADDRESS", value_parser = net::extra_host, help_heading = NETWORK)]
    pub add_host: Vec<String>,
    /// DNS server
    #[arg(long, value_name = "ADDRESS", value_parser = net::address, help_heading = NETWORK)]
    pub dns: Vec<String>,
    /// DNS search domain
    #[arg(long, value_name = "DOMAIN", help_heading = NETWORK)]
    pub dns_search: Vec<String>,
    /// Option for the resolver
    #[arg(long, alias = "dns-opt", value_name = "OPTION", help_heading = NETWORK)]
    pub dns_option: Vec<String>,

    /// Most memory, e.g. 512m
    #[arg(short, long, value_name = "BYTES", value_parser = size::memory, help_heading = RESOURCES)]
    pub memory: Option<i64>,
    /// Most memory and swap together; -1 is no limit
    #[arg(long, value_name = "BYTES", value_parser = size::memory_or_unlimited)]
    #[arg(allow_hyphen_values = true, help_heading = RESOURCES)]
    pub memory_swap: Option<i64>,
    /// Number of CPUs, e.g. 1.5
    #[arg(long, value_name = "NUMBER", value_parser = size::cpus, help_heading = RESOURCES)]
    pub cpus: Option<i64>,
    /// Share of the CPUs, relative to 1024
    #[arg(short, long, value_name = "WEIGHT", help_heading = RESOURCES)]
    pub cpu_shares: Option<u64>,
    /// Microseconds that the quota is counted in, 1000 to 1000000
    #[arg(long, value_name = "MICROSECONDS", help_heading = RESOURCES)]
    pub cpu_period: Option<i64>,
    /// Microseconds of CPU in each period; -1 is no limit
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true, help_heading = RESOURCES)]
    pub cpu_quota: Option<i64>,
    /// CPUs to run on, e.g. 0-2,4
    #[arg(long, value_name = "LIST", help_heading = RESOURCES)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use, e.g. 0-1
    #[arg(long, value_name = "LIST", help_heading = RESOURCES)]
    pub cpuset_mems: Option<String>,
    /// Memory that is left to it when memory runs out
    #[arg(long, value_name = "BYTES", value_parser = size::memory, help_heading = RESOURCES)]
    pub memory_reservation: Option<i64>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT", help_heading = RESOURCES)]
    pub blkio_weight: Option<u16>,
    /// Most processes; -1 is no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = RESOURCES)]
    pub pids_limit: Option<i64>,
    /// Give it a device of the host, or one by its CDI name, VENDOR/CLASS=NAME
    #[arg(long, value_name = "HOST[:PATH][:rwm]", value_parser = device::device, help_heading = RESOURCES)]
    pub device: Vec<Device>,
    /// Give it GPUs, which a CDI file describes as nvidia.com/gpu
    #[arg(long, value_name = "all|NUMBER|device=ID[,ID]", value_parser = device::gpus, help_heading = RESOURCES)]
    pub gpus: Option<Gpus>,
    /// Let it use devices, e.g. "c 10:200 rwm"
    #[arg(long, value_name = "RULE", help_heading = RESOURCES)]
    pub device_cgroup_rule: Vec<String>,
    /// Most bytes read from a device in a second
    #[arg(long, value_name = "PATH:BYTES", value_parser = device::bytes, help_heading = RESOURCES)]
    pub device_read_bps: Vec<BlockRate>,
    /// Most bytes written to a device in a second
    #[arg(long, value_name = "PATH:BYTES", value_parser = device::bytes, help_heading = RESOURCES)]
    pub device_write_bps: Vec<BlockRate>,
    /// Most reads from a device in a second
    #[arg(long, value_name = "PATH:NUMBER", value_parser = device::number, help_heading = RESOURCES)]
    pub device_read_iops: Vec<BlockRate>,
    /// Most writes to a device in a second
    #[arg(long, value_name = "PATH:NUMBER", value_parser = device::number, help_heading = RESOURCES)]
    pub device_write_iops: Vec<BlockRate>,
    /// Weight of a device's block I/O, 10 to 1000
    #[arg(long, value_name = "PATH:WEIGHT", value_parser = device::number, help_heading = RESOURCES)]
    pub blkio_weight_device: Vec<BlockRate>,
    /// Don't kill it for want of memory (cgroup v1)
    #[arg(long, help_heading = RESOURCES)]
    pub oom_kill_disable: bool,
    /// How readily its memory is swapped out, 0 to 100 (cgroup v1)
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true, help_heading = RESOURCES)]
    pub memory_swappiness: Option<i64>,
    /// Resource limit, e.g. nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = ulimit::ulimit, help_heading = RESOURCES)]
    pub ulimit: Vec<Ulimit>,
    /// How soon the kernel kills it when memory runs out, -1000 to 1000
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true, help_heading = RESOURCES)]
    pub oom_score_adj: Option<i32>,
    /// Kernel parameter of the container's namespaces
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value::pair, help_heading = RESOURCES)]
    pub sysctl: Vec<(String, String)>,

    /// Every capability and device; not a security boundary
    #[arg(long, help_heading = SECURITY)]
    pub privileged: bool,
    /// Add a capability
    #[arg(long, value_name = "CAPABILITY", help_heading = SECURITY)]
    pub cap_add: Vec<String>,
    /// Take a capability away, or ALL
    #[arg(long, value_name = "CAPABILITY", help_heading = SECURITY)]
    pub cap_drop: Vec<String>,
    /// no-new-privileges, seccomp=FILE|builtin|unconfined, systempaths=unconfined, apparmor=PROFILE, label=disable
    #[arg(long, value_name = "OPTION", help_heading = SECURITY)]
    pub security_opt: Vec<String>,
    /// Users of its own: host (none), auto (ids that nobody else has), or
    /// CONTAINER:HOST:SIZE[,...]
    #[arg(long, value_name = "MODE", help_heading = SECURITY)]
    pub userns: Option<String>,

    /// How its health is checked
    #[command(flatten)]
    pub health: Health,

    /// local, json-file, journald, syslog or none
    #[arg(long, value_name = "DRIVER", help_heading = LOGGING)]
    pub log_driver: Option<String>,
    /// max-size=10m, max-file=3, max-age=7d, max-total=1g, compress=false, labels=a,b
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value::pair, help_heading = LOGGING)]
    pub log_opt: Vec<(String, String)>,

    #[arg(short, long, hide = true, value_parser = later)]
    publish: Vec<String>,
}

impl Create {
    /// Reference or id of the image.
    #[must_use]
    pub fn image(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The command and its arguments; empty for the image's own.
    #[must_use]
    pub fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}
