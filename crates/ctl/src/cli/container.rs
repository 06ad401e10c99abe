// SPDX-License-Identifier: Apache-2.0
//! Verbs about containers.

use berth::api::v1::Filter;
use clap::{ArgAction, Args, Subcommand};

use super::{
    create::Create,
    files::{CP_HELP, CP_USAGE, Commit, Cp, Export},
    manage::{Diff, Port, Prune, Rename, Stats, Top, Update, Wait},
    system::Type,
};
use crate::parse::{filter, time};
use crate::session::detach::Keys;

/// As they are at the top level.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create and run a new container from an image
    #[command(disable_help_flag = true, override_usage = "berth run [OPTIONS] IMAGE [COMMAND] [ARG...]")]
    #[command(after_help = "Examples:
  berth run hello-world
  berth run -it --rm debian bash
  berth run -d --name web -v /srv/www:/usr/share/nginx/html:ro nginx
  berth run --rm -m 512m --cpus 1.5 --read-only --tmpfs /tmp alpine sh -c 'nproc; free -m'

Exit status: the command's own, 128+n when signal n ended it; 125 when berth
failed, 126 when the command can't be executed, 127 when it can't be found.")]
    Run(Box<Run>),
    /// Create a new container, and start nothing
    #[command(disable_help_flag = true, override_usage = "berth create [OPTIONS] IMAGE [COMMAND] [ARG...]")]
    #[command(after_help = "Examples:
  berth create --name job alpine sh -c 'echo hello'
  berth start -a job")]
    Create(Box<Create>),
    /// Start one or more stopped containers
    #[command(after_help = "Examples:
  berth start web
  berth start -ai shell")]
    Start(Start),
    /// Stop one or more running containers
    #[command(after_help = "Examples:
  berth stop web
  berth stop -t 60 db1 db2")]
    Stop(Stop),
    /// Kill one or more running containers
    #[command(after_help = "Examples:
  berth kill web
  berth kill -s HUP web")]
    Kill(Kill),
    /// Stop one or more containers, and start them again
    #[command(after_help = "Examples:
  berth restart web
  berth restart -t 60 -s QUIT db1 db2")]
    Restart(Stop),
    /// Freeze all processes of one or more containers
    #[command(after_help = "Examples:
  berth pause web && berth unpause web")]
    Pause(Containers),
    /// Let paused containers go on
    Unpause(Containers),
    /// Show the processes of a container, or all containers by what they use
    #[command(
        override_usage = "berth top CONTAINER [ps OPTIONS]\n       berth top [OPTIONS]",
        after_help = "Examples:
  berth top
  berth top --sort memory --no-stream
  berth top web
  berth top web aux
  berth top web -o pid,user,etime,args"
    )]
    Top(Top),
    /// Show what containers use, as it changes
    #[command(after_help = "Examples:
  berth stats
  berth stats --no-stream --format '{{.Name}}: {{.CPUPerc}}' web db")]
    Stats(Stats),
    /// Show what a container has changed in its file system
    #[command(after_help = "Examples:
  berth diff web       # A added, C changed, D deleted")]
    Diff(Diff),
    /// Copy files between a container and this machine
    #[command(override_usage = CP_USAGE, after_help = CP_HELP)]
    Cp(Cp),
    /// Write a container's file system as a tar archive
    #[command(after_help = "Examples:
  berth export -o web.tar web
  berth export web | tar t")]
    Export(Export),
    /// Make an image of a container
    #[command(after_help = "Examples:
  berth commit web shop/web:patched
  berth commit -c 'CMD [\"nginx\", \"-g\", \"daemon off;\"]' -c 'EXPOSE 80' web shop/web")]
    Commit(Commit),
    /// Remove all containers that don't run
    #[command(skip)]
    Prune(Prune),
    /// Change limits, health checks, log options and labels of one or more containers
    #[command(after_help = "Examples:
  berth update -m 1g --cpus 2 web db
  berth update --pids-limit -1 --label-add tier=web --label-rm old web")]
    Update(Box<Update>),
    /// Rename a container
    #[command(after_help = "Examples:
  berth rename web web-old")]
    Rename(Rename),
    /// List the ports of a container that the host forwards
    #[command(after_help = "Examples:
  berth port web
  berth port web 80/tcp")]
    Port(Port),
    /// Block until containers stop, then print their exit codes
    #[command(after_help = "Examples:
  berth wait job && echo done
  berth wait --condition removed job1 job2")]
    Wait(Wait),
    /// Remove one or more containers
    #[command(after_help = "Examples:
  berth rm job
  berth rm -f $(berth ps -aq)")]
    Rm(Rm),
    /// List containers
    #[command(after_help = "Examples:
  berth ps -a
  berth ps -aq --filter status=exited
  berth ps --format 'table {{.Names}}\\t{{.Status}}'")]
    Ps(Ps),
    /// Fetch the logs of a container
    #[command(after_help = "Examples:
  berth logs -f --tail 100 web
  berth logs --since 10m -t web 2> errors")]
    Logs(Logs),
    /// Execute a command in a running container
    #[command(disable_help_flag = true, override_usage = EXEC_USAGE, after_help = EXEC_HELP)]
    Exec(Exec),
    /// Attach to a running container's input and output
    #[command(after_help = "Examples:
  berth attach shell       # leave it again with ctrl-p ctrl-q")]
    Attach(Attach),
}

/// As they are behind `berth container`.
#[derive(Debug, Subcommand)]
pub enum GroupVerb {
    /// Create and run a new container from an image
    #[command(disable_help_flag = true)]
    #[command(override_usage = "berth container run [OPTIONS] IMAGE [COMMAND] [ARG...]")]
    Run(Box<Run>),
    /// Create a new container, and start nothing
    #[command(disable_help_flag = true)]
    #[command(override_usage = "berth container create [OPTIONS] IMAGE [COMMAND] [ARG...]")]
    Create(Box<Create>),
    /// Start one or more stopped containers
    Start(Start),
    /// Stop one or more running containers
    Stop(Stop),
    /// Kill one or more running containers
    Kill(Kill),
    /// Stop one or more containers, and start them again
    Restart(Stop),
    /// Freeze all processes of one or more containers
    Pause(Containers),
    /// Let paused containers go on
    Unpause(Containers),
    /// Show the processes of a container, or all containers by what they use
    #[command(
        override_usage = "berth container top CONTAINER [ps OPTIONS]\n       berth container top [OPTIONS]"
    )]
    Top(Top),
    /// Show what containers use, as it changes
    Stats(Stats),
    /// Show what a container has changed in its file system
    Diff(Diff),
    /// Copy files between a container and this machine
    #[command(override_usage = CP_USAGE, after_help = CP_HELP)]
    Cp(Cp),
    /// Write a container's file system as a tar archive
    Export(Export),
    /// Make an image of a container
    Commit(Commit),
    /// Remove all containers that don't run
    #[command(after_help = "Examples:
  berth container prune
  berth container prune -f --filter until=24h --filter label!=keep")]
    Prune(Prune),
    /// Change limits, health checks, log options and labels of one or more containers
    Update(Box<Update>),
    /// Rename a container
    Rename(Rename),
    /// List the ports of a container that the host forwards
    Port(Port),
    /// Block until containers stop, then print their exit codes
    Wait(Wait),
    /// Remove one or more containers
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// List containers
    #[command(visible_aliases = ["list", "ps"])]
    Ls(Ps),
    /// Fetch the logs of a container
    Logs(Logs),
    /// Execute a command in a running container
    #[command(disable_help_flag = true, override_usage = EXEC_USAGE, after_help = EXEC_HELP)]
    Exec(Exec),
    /// Attach to a running container's input and output
    Attach(Attach),
    /// Show everything about containers
    Inspect(super::system::Inspect),
}

impl From<GroupVerb> for super::Verb {
    fn from(verb: GroupVerb) -> Self {
        Self::Container(match verb {
            GroupVerb::Run(a) => Verb::Run(a),
            GroupVerb::Create(a) => Verb::Create(a),
            GroupVerb::Start(a) => Verb::Start(a),
            GroupVerb::Stop(a) => Verb::Stop(a),
            GroupVerb::Kill(a) => Verb::Kill(a),
            GroupVerb::Restart(a) => Verb::Restart(a),
            GroupVerb::Pause(a) => Verb::Pause(a),
            GroupVerb::Unpause(a) => Verb::Unpause(a),
            GroupVerb::Top(a) => Verb::Top(a),
            GroupVerb::Stats(a) => Verb::Stats(a),
            GroupVerb::Diff(a) => Verb::Diff(a),
            GroupVerb::Cp(a) => Verb::Cp(a),
            GroupVerb::Export(a) => Verb::Export(a),
            GroupVerb::Commit(a) => Verb::Commit(a),
            GroupVerb::Prune(a) => Verb::Prune(a),
            GroupVerb::Update(a) => Verb::Update(a),
            GroupVerb::Rename(a) => Verb::Rename(a),
            GroupVerb::Port(a) => Verb::Port(a),
            GroupVerb::Wait(a) => Verb::Wait(a),
            GroupVerb::Rm(a) => Verb::Rm(a),
            GroupVerb::Ls(a) => Verb::Ps(a),
            GroupVerb::Logs(a) => Verb::Logs(a),
            GroupVerb::Exec(a) => Verb::Exec(a),
            GroupVerb::Attach(a) => Verb::Attach(a),
            GroupVerb::Inspect(a) => return Self::System(a.only(Type::Container)),
        })
    }
}

const EXEC_USAGE: &str = "berth exec [OPTIONS] CONTAINER COMMAND [ARG...]
       berth exec ls [OPTIONS] [CONTAINER]
       berth exec kill [OPTIONS] EXEC [EXEC...]";

const EXEC_HELP: &str = "Examples:
  berth exec -it web sh
  berth exec -u nobody -w /tmp -e DEBUG=1 web env
  berth exec ls                    # what was started so and runs
  berth exec kill -s TERM 3f2a

A container called ls or kill is meant by its id.

Exit status: the command's own, 128+n when signal n ended it; 126 when it
can't be executed, 127 when it can't be found, 1 when berth failed.";

/// `berth run`.
#[derive(Debug, Args)]
pub struct Run {
    /// Run in the background and print the container's id
    #[arg(short, long, conflicts_with = "attach")]
    pub detach: bool,
    /// How to be attached
    #[command(flatten)]
    pub stream: Stream,
    /// What to run
    #[command(flatten)]
    pub create: Create,
}

/// How to be attached.
#[derive(Debug, Args)]
pub struct Stream {
    /// Keys that detach from the container's terminal
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q")]
    pub detach_keys: Keys,
    /// Hand signals on to the container; --sig-proxy=false keeps them here
    #[arg(long, value_name = "BOOL", action = ArgAction::Set, default_value_t = true)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub sig_proxy: bool,
}

/// One or more containers.
#[derive(Debug, Args)]
pub struct Containers {
    /// Names or ids
    #[arg(value_name = "CONTAINER", required = true)]
    pub containers: Vec<String>,
}

/// `berth start`.
#[derive(Debug, Args)]
pub struct Start {
    /// Which
    #[command(flatten)]
    pub targets: Containers,
    /// Attach to its output, hand signals on, and end with its exit code
    #[arg(short, long)]
    pub attach: bool,
    /// Attach to its input
    #[arg(short, long)]
    pub interactive: bool,
    /// How to be attached
    #[command(flatten)]
    pub stream: Stream,
}

/// `berth stop` and `berth restart`.
#[derive(Debug, Args)]
pub struct Stop {
    /// Which
    #[command(flatten)]
    pub targets: Containers,
    /// Signal to send, instead of the container's own
    #[arg(short, long, value_name = "SIGNAL")]
    pub signal: Option<String>,
    /// Seconds to wait before SIGKILL; -1 waits for ever
    #[arg(short, long, alias = "time", value_name = "SECONDS", allow_negative_numbers = true)]
    pub timeout: Option<i32>,
}

/// `berth kill`.
#[derive(Debug, Args)]
pub struct Kill {
    /// Which
    #[command(flatten)]
    pub targets: Containers,
    /// Signal to send, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub signal: String,
}

/// `berth rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// Which
    #[command(flatten)]
    pub targets: Containers,
    /// Kill it first when it runs; one that doesn't exist is no error
    #[arg(short, long)]
    pub force: bool,
    /// Also remove its anonymous volumes (there are none in this version)
    #[arg(short, long)]
    pub volumes: bool,
}

/// `berth ps`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub struct Ps {
    /// All containers, not only running ones
    #[arg(short, long)]
    pub all: bool,
    /// Only those that match, e.g. status=exited, label=KEY=VALUE, name=web
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter::filter)]
    pub filter: Vec<Filter>,
    /// table, json, 'table TEMPLATE' or TEMPLATE, e.g. '{{.ID}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// The last N created, in any state
    #[arg(short = 'n', long, value_name = "N", allow_negative_numbers = true)]
    pub last: Option<i64>,
    /// The last created, in any state
    #[arg(short, long)]
    pub latest: bool,
    /// Whole ids and commands
    #[arg(long)]
    pub no_trunc: bool,
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Also how much disk they take
    #[arg(short, long)]
    pub size: bool,
}

/// `berth logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Go on with what is written from now on
    #[arg(short, long)]
    pub follow: bool,
    /// From this time on: 2026-11-23T23:09:18Z, or 10m for ten minutes ago
    #[arg(long, value_name = "TIME", value_parser = time::point)]
    pub since: Option<prost_types::Timestamp>,
    /// Until this time
    #[arg(long, value_name = "TIME", value_parser = time::point)]
    pub until: Option<prost_types::Timestamp>,
    /// So many lines from the end
    #[arg(short = 'n', long, value_name = "NUMBER|all", default_value = "all", value_parser = tail)]
    pub tail: Tail,
    /// Show when each line was written
    #[arg(short, long)]
    pub timestamps: bool,
    /// Show what the log options labels, env and tag name
    #[arg(long)]
    pub details: bool,
}

/// How much of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// The whole.
    All,
    /// Lines from the end.
    Lines(u64),
}

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail::All),
        number => number.parse().map(Tail::Lines).map_err(|_| "expected a number or all".into()),
    }
}

/// `berth attach`.
#[derive(Debug, Args)]
pub struct Attach {
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// Don't attach to its input
    #[arg(long)]
    pub no_stdin: bool,
    /// What it has printed before comes first
    #[arg(long)]
    pub logs: bool,
    /// How to be attached
    #[command(flatten)]
    pub stream: Stream,
}

/// `berth exec`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(disable_help_subcommand = true)]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub struct Exec {
    /// Name or id, then the command and its arguments
    // One argument, as for an image: what follows the first is the command's.
    #[arg(value_name = "CONTAINER COMMAND", required = true, trailing_var_arg = true)]
    words: Vec<String>,
    /// Run in the background
    #[arg(short, long)]
    pub detach: bool,
    /// Set an environment variable; NAME alone takes yours
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Read environment variables from a file, one a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<std::path::PathBuf>,
    /// Keep STDIN open
    #[arg(short, long)]
    pub interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Give it all capabilities
    #[arg(long)]
    pub privileged: bool,
    /// User, and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Working directory inside the container
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Kill it, and what it has started, when this client goes away
    #[arg(long, conflicts_with = "detach")]
    pub kill_on_disconnect: bool,
    /// How to be attached
    #[command(flatten)]
    pub stream: Stream,
    /// Print this help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// About those that run
    #[command(subcommand)]
    pub verb: Option<ExecVerb>,
}

impl Exec {
    /// Name or id.
    #[must_use]
    pub fn container(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    /// The program and its arguments.
    #[must_use]
    pub fn command(&self) -> &[String] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// About processes that were started by `exec`.
#[derive(Debug, Subcommand)]
pub enum ExecVerb {
    /// List what exec has started
    #[command(visible_alias = "ps")]
    #[command(after_help = "Examples:
  berth exec ls
  berth exec ls -a web")]
    Ls(ExecLs),
    /// Kill what exec has started
    #[command(after_help = "Examples:
  berth exec kill 3f2a
  berth exec kill -s TERM $(berth exec ls -q web)")]
    Kill(ExecKill),
}

/// `berth exec ls`.
#[derive(Debug, Args)]
pub struct ExecLs {
    /// Name or id; all containers otherwise
    #[arg(value_name = "CONTAINER")]
    pub container: Option<String>,
    /// Also those that have ended
    #[arg(short, long)]
    pub all: bool,
    /// table, json, 'table TEMPLATE' or TEMPLATE, e.g. '{{.ID}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Whole ids and commands
    #[arg(long)]
    pub no_trunc: bool,
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `berth exec kill`.
#[derive(Debug, Args)]
pub struct ExecKill {
    /// Ids, or unambiguous beginnings of ids
    #[arg(value_name = "EXEC", required = true)]
    pub execs: Vec<String>,
    /// The signal, by name or number
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub signal: String,
}
