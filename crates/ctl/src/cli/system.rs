// SPDX-License-Identifier: Apache-2.0
//! Verbs about the engine, and those about anything.

use berth::api::v1::Filter;
use clap::{Args, Subcommand, ValueEnum};

use crate::parse::{filter, time};

/// As they are at the top level.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show everything about containers or images
    #[command(after_help = "Examples:
  berth inspect web
  berth inspect -f '{{.State.ExitCode}}' job
  berth inspect --type image -f '{{json .Config.Env}}' debian")]
    Inspect(Inspect),
    /// Show events as they happen
    #[command(after_help = "Examples:
  berth events --filter type=container --filter event=die
  berth events --since 1h --until 0s --format json")]
    Events(Events),
    /// Show the engine, its host and what it holds
    Info(Info),
    /// Show the versions of berth and of its engine
    Version(Version),
    /// `berth system df`.
    #[command(skip)]
    Df(Df),
    /// `berth system prune`.
    #[command(skip)]
    Prune(Prune),
}

/// As they are behind `berth system`.
#[derive(Debug, Subcommand)]
pub enum GroupVerb {
    /// Show events as they happen
    Events(Events),
    /// Show the engine, its host and what it holds
    Info(Info),
    /// Show what the engine takes of the disk
    #[command(after_help = "The sizes are what the files take of the disk: they add up to what du says of
the engine's root directory.

Examples:
  berth system df
  berth system df -v
  berth system df --format '{{.Type}} {{.Reclaimable}}'")]
    Df(Df),
    /// Remove stopped containers and unused images
    #[command(after_help = "Examples:
  berth system prune
  berth system prune -af --filter until=168h")]
    Prune(Prune),
}

impl From<GroupVerb> for super::Verb {
    fn from(verb: GroupVerb) -> Self {
        Self::System(match verb {
            GroupVerb::Events(a) => Verb::Events(a),
            GroupVerb::Info(a) => Verb::Info(a),
            GroupVerb::Df(a) => Verb::Df(a),
            GroupVerb::Prune(a) => Verb::Prune(a),
        })
    }
}

/// What an object can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Type {
    /// A container
    Container,
    /// An image
    Image,
}

/// `berth inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// Names or ids
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// json, or a template, e.g. '{{.State.Status}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Only of this kind
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<Type>,
    /// Also how much disk a container takes
    #[arg(short, long)]
    pub size: bool,
}

impl Inspect {
    /// `berth container inspect` and `berth image inspect`.
    pub(super) fn only(self, kind: Type) -> Verb {
        Verb::Inspect(Self { kind: Some(kind), ..self })
    }
}

/// `berth events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Only those that match, e.g. type=container, event=die, container=web
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter::filter)]
    pub filter: Vec<Filter>,
    /// json, or a template, e.g. '{{.Action}} {{.Actor.ID}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// From this time on: 2026-11-23T23:09:18Z, or 10m for ten minutes ago
    #[arg(long, value_name = "TIME", value_parser = time::point)]
    pub since: Option<prost_types::Timestamp>,
    /// Until this time, then end
    #[arg(long, value_name = "TIME", value_parser = time::point)]
    pub until: Option<prost_types::Timestamp>,
    /// Go on after this event (the cursor in --format json)
    #[arg(long, value_name = "CURSOR", conflicts_with = "since")]
    pub after: Option<u64>,
}

/// `berth info`.
#[derive(Debug, Args)]
pub struct Info {
    /// json, or a template, e.g. '{{.ServerVersion}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// `berth version`.
#[derive(Debug, Args)]
pub struct Version {
    /// json, or a template, e.g. '{{.Server.Version}}'
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// `berth system df`.
#[derive(Debug, Args)]
pub struct Df {
    /// Each image and each container
    #[arg(short, long)]
    pub verbose: bool,
    /// table, json, 'table TEMPLATE' or TEMPLATE, e.g. '{{.Type}} {{.Size}}'
    #[arg(long, value_name = "FORMAT", conflicts_with = "verbose")]
    pub format: Option<String>,
}

/// `berth system prune`.
#[derive(Debug, Args)]
pub struct Prune {
    /// Also images with a name
    #[arg(short, long)]
    pub all: bool,
    /// Only what matches: until=24h, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE", value_parser = filter::filter)]
    pub filter: Vec<Filter>,
    /// Don't ask
    #[arg(short, long)]
    pub force: bool,
}
