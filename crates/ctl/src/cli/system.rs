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
}

/// As they are behind `berth system`.
#[derive(Debug, Subcommand)]
pub enum GroupVerb {
    /// Show events as they happen
    Events(Events),
    /// Show the engine, its host and what it holds
    Info(Info),
}

impl From<GroupVerb> for super::Verb {
    fn from(verb: GroupVerb) -> Self {
        Self::System(match verb {
            GroupVerb::Events(a) => Verb::Events(a),
            GroupVerb::Info(a) => Verb::Info(a),
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
