// SPDX-License-Identifier: Apache-2.0
//! Verbs about images.
#![allow(rustdoc::broken_intra_doc_links, reason = "these comments are help texts: `[:tag]` is no link")]

use std::path::PathBuf;

use berth::api::v1::Filter;
use clap::{Args, Subcommand, ValueEnum};

use super::{files::Import, system::Type};
use crate::parse::filter;

/// As they are at the top level.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Download an image from a registry
    #[command(after_help = "Examples:
  berth pull debian
  berth pull quay.io/podman/hello:latest
  berth pull --platform linux/arm64 alpine:3
  berth pull --all-tags registry.example.com/team/app")]
    Pull(Pull),
    /// Log in to a registry
    #[command(after_help = "Credentials are kept where Docker keeps them: in ~/.docker/config.json, or with
the credential helper that it names.

Examples:
  berth login registry.example.com
  pass show registry | berth login -u me --password-stdin registry.example.com")]
    Login(Login),
    /// Log out from a registry
    Logout(Logout),
    /// Upload an image to a registry
    #[command(
        after_help = "The image goes to the registry that its name says. What the registry has already is
not sent again, and digests don't change.

Examples:
  berth push registry.example.com/team/app:1.2
  berth push --all-tags 127.0.0.1:5000/app"
    )]
    Push(Push),
    /// List images
    #[command(after_help = "Examples:
  berth images
  berth images 'debian:*'
  berth images --tree
  berth images -q --filter dangling=true
  berth images --filter until=168h --filter label=team=web")]
    Images(Images),
    /// Show how an image was made
    #[command(after_help = "Examples:
  berth history debian
  berth history --no-trunc --format '{{.CreatedBy}}' debian")]
    History(History),
    /// Give an image another name
    #[command(after_help = "Examples:
  berth tag debian:latest registry.example.com/team/debian:2026-11")]
    Tag(Tag),
    /// Remove one or more images
    #[command(after_help = "Examples:
  berth rmi debian:latest
  berth rmi $(berth images -q --filter dangling=true)")]
    Rmi(Rmi),
    /// Load images from an archive or STDIN
    #[command(after_help = "Examples:
  berth load -i images.tar.gz
  berth load -i ./layout
  docker save debian | berth load")]
    Load(Load),
    /// Save one or more images to an archive, or to STDOUT
    #[command(after_help = "The archive is an OCI layout that docker load takes as well. What is zstd, the
archive by --compress or layers that came so, Docker reads from version 23 on;
for an older one: --format docker-archive, without --compress zstd.

Examples:
  berth save -o debian.tar debian:latest
  berth save --compress zstd -o debian.tar.zst debian
  berth save --format oci-dir -o ./layout debian:latest")]
    Save(Save),
    /// Make an image of a tar archive of files
    #[command(after_help = "Examples:
  berth export web | berth import - web:flat
  berth import -c 'CMD [\"sh\"]' rootfs.tar.gz mine:1")]
    Import(Import),
    /// `berth image prune`.
    #[command(skip)]
    Prune(Prune),
    /// `berth image mount`.
    #[command(skip)]
    Mount(Mount),
    /// `berth image unmount`.
    #[command(skip)]
    Unmount(Unmount),
    /// `berth image pin`, `berth image unpin`.
    #[command(skip)]
    Pin(Pin, bool),
}

/// As they are behind `berth image`.
#[derive(Debug, Subcommand)]
pub enum GroupVerb {
    /// Download an image from a registry
    Pull(Pull),
    /// Upload an image to a registry
    Push(Push),
    /// List images
    #[command(visible_alias = "list")]
    Ls(Images),
    /// Give an image another name
    Tag(Tag),
    /// Remove one or more images
    #[command(visible_alias = "remove")]
    Rm(Rmi),
    /// Load images from an archive or STDIN
    Load(Load),
    /// Save one or more images to an archive, or to STDOUT
    Save(Save),
    /// Make an image of a tar archive of files
    Import(Import),
    /// Show how an image was made
    History(History),
    /// Remove images that no container was made from
    #[command(after_help = "Examples:
  berth image prune
  berth image prune -a --filter until=168h
  berth image prune -a --dry-run")]
    Prune(Prune),
    /// Keep images from every prune and from the automatic collection
    #[command(after_help = "Examples:
  berth image pin registry.example.com/base:1")]
    Pin(Pin),
    /// Take a pin away
    Unpin(Pin),
    /// Mount an image's files, read-only, in a directory; or list what is mounted
    #[command(after_help = "The mount outlives the engine and keeps the image.

Examples:
  berth image mount debian:latest /mnt/debian
  berth image mount
  berth image unmount /mnt/debian")]
    Mount(Mount),
    /// Take mounts of images away
    #[command(visible_alias = "umount")]
    Unmount(Unmount),
    /// Show everything about images
    Inspect(super::system::Inspect),
}

impl From<GroupVerb> for super::Verb {
    fn from(verb: GroupVerb) -> Self {
        Self::Image(match verb {
            GroupVerb::Pull(a) => Verb::Pull(a),
            GroupVerb::Push(a) => Verb::Push(a),
            GroupVerb::Ls(a) => Verb::Images(a),
            GroupVerb::Tag(a) => Verb::Tag(a),
            GroupVerb::Rm(a) => Verb::Rmi(a),
            GroupVerb::Load(a) => Verb::Load(a),
            GroupVerb::Save(a) => Verb::Save(a),
            GroupVerb::Import(a) => Verb::Import(a),
            GroupVerb::History(a) => Verb::History(a),
            GroupVerb::Prune(a) => Verb::Prune(a),
            GroupVerb::Mount(a) => Verb::Mount(a),
            GroupVerb::Unmount(a) => Verb::Unmount(a),
            GroupVerb::Pin(a) => Verb::Pin(a, true),
            GroupVerb::Unpin(a) => Verb::Pin(a, false),
            GroupVerb::Inspect(a) => return Self::System(a.only(Type::Image)),
        })
    }
}

/// `berth pull`.
#[derive(Debug, Args)]
pub struct Pull {
    /// Name[:tag] or name@digest
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// All tags of the repository, one after the other
    #[arg(short, long)]
    pub all_tags: bool,
    /// Pull for another platform, as OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Print the image's name only
    #[arg(short, long)]
    pub quiet: bool,
    /// Read all that is here of the image, and repair what is damaged
    #[arg(long)]
    pub verify: bool,
}

/// `berth login`.
#[derive(Args)]
pub struct Login {
    /// Host of the registry; Docker Hub when there is none
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,
    /// Password, for everybody on this machine to see: better --password-stdin
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from STDIN
    #[arg(long)]
    pub password_stdin: bool,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("server", &self.server).finish_non_exhaustive()
    }
}

/// `berth logout`.
#[derive(Debug, Args)]
pub struct Logout {
    /// Host of the registry; Docker Hub when there is none
    #[arg(value_name = "SERVER")]
    pub server: Option<String>,
}

/// `berth push`.
#[derive(Debug, Args)]
pub struct Push {
    /// Name[:tag], the registry first
    #[arg(value_name = "NAME[:TAG]")]
    pub image: String,
    /// All tags of the repository
    #[arg(short, long)]
    pub all_tags: bool,
    /// Print the image's name only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `berth images`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags are independent of each other")]
pub struct Images {
    /// Only of this name; * and ? match
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: Option<String>,
    /// Accepted for scripts; there are no intermediate images
    #[arg(short, long)]
    pub all: bool,
    /// Also the digests
    #[arg(long)]
    pub digests: bool,
    /// Only those that match, e.g. dangling=true, label=KEY, reference=a*,
    /// before=IMAGE, since=IMAGE, until=24h
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter::filter)]
    pub filter: Vec<Filter>,
    /// table, json, 'table TEMPLATE' or TEMPLATE, e.g. '{{.ID}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Whole ids
    #[arg(long)]
    pub no_trunc: bool,
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
    /// Names, and below them what is here of each image
    #[arg(long, conflicts_with_all = ["format", "quiet", "digests", "no_trunc"])]
    pub tree: bool,
}

/// `berth history`.
#[derive(Debug, Args)]
pub struct History {
    /// Name[:tag] or id
    #[arg(value_name = "IMAGE")]
    pub image: String,
    /// table, json, 'table TEMPLATE' or TEMPLATE, e.g. '{{.CreatedBy}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Sizes and dates for people; --human=false for programs
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    pub human: bool,
    /// Whole ids and commands
    #[arg(long)]
    pub no_trunc: bool,
    /// Ids only
    #[arg(short, long)]
    pub quiet: bool,
}

/// `berth image prune`.
#[derive(Debug, Args)]
pub struct Prune {
    /// Also images with a name
    #[arg(short, long)]
    pub all: bool,
    /// Only those that match: until=24h, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE", value_parser = filter::filter)]
    pub filter: Vec<Filter>,
    /// Don't ask
    #[arg(short, long)]
    pub force: bool,
    /// Only say what would be removed
    #[arg(long)]
    pub dry_run: bool,
}

/// `berth image mount`.
#[derive(Debug, Args)]
pub struct Mount {
    /// Name or id; without it all mounts are listed
    #[arg(value_name = "IMAGE", requires = "directory")]
    pub image: Option<String>,
    /// An existing directory
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// `berth image unmount`.
#[derive(Debug, Args)]
pub struct Unmount {
    /// Where images are mounted
    #[arg(value_name = "DIR", required = true)]
    pub directories: Vec<String>,
    /// Also one that is in use
    #[arg(short, long)]
    pub force: bool,
}

/// `berth image pin` and `berth image unpin`.
#[derive(Debug, Args)]
pub struct Pin {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

/// `berth tag`.
#[derive(Debug, Args)]
pub struct Tag {
    /// The image: name[:tag] or id
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    pub source: String,
    /// Its new name
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    pub target: String,
}

/// `berth rmi`.
#[derive(Debug, Args)]
pub struct Rmi {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
    /// Even when stopped containers use it, or it has several names
    #[arg(short, long)]
    pub force: bool,
    /// Accepted for scripts; there are no untagged parents
    #[arg(long)]
    pub no_prune: bool,
}

/// `berth load`.
#[derive(Debug, Args)]
pub struct Load {
    /// Read from a file, or a directory with an OCI image layout, instead of
    /// STDIN
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Load for another platform, as OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// No progress
    #[arg(short, long)]
    pub quiet: bool,
}

/// `berth save`.
#[derive(Debug, Args)]
pub struct Save {
    /// Names or ids; a name without a tag means all its tags
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
    /// Write to a file instead of STDOUT; a new directory for oci-dir
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What to write; without it an OCI archive that docker load takes, too
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<SaveFormat>,
    /// Compress the archive
    #[arg(long, value_name = "HOW")]
    pub compress: Option<Compress>,
}

/// What `berth save` writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SaveFormat {
    /// As docker save has always written it
    DockerArchive,
    /// An archived OCI image layout
    OciArchive,
    /// The layout's files
    OciDir,
}

/// How `berth save` compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Compress {
    /// gzip
    Gzip,
    /// Zstandard
    Zstd,
}
