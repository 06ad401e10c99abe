// SPDX-License-Identifier: Apache-2.0
//! Verbs about the files of a container.

use std::path::PathBuf;

use clap::Args;

pub(super) const CP_USAGE: &str = "berth cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-
       berth cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH";

pub(super) const CP_HELP: &str = "Examples:
  berth cp web:/etc/nginx/nginx.conf .
  berth cp site/. web:/usr/share/nginx/html
  berth cp web:/var/log - | tar t
  tar c data | berth cp - web:/srv

The container may run, be paused or be stopped. A path that ends with /. stands
for what is in the directory. Files become root's in a container, and yours
here, unless -a keeps their owners.";

/// `berth cp`.
#[derive(Debug, Args)]
pub struct Cp {
    /// Keep owners and all attributes, too
    #[arg(short, long)]
    pub archive: bool,
    /// Follow a link that SRC_PATH is
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Don't say what was copied
    #[arg(short, long)]
    pub quiet: bool,
    /// CONTAINER:PATH, a path here, or - for a tar archive on stdin
    #[arg(value_name = "SRC_PATH")]
    pub source: String,
    /// CONTAINER:PATH, a path here, or - for a tar archive on stdout
    #[arg(value_name = "DEST_PATH")]
    pub destination: String,
}

/// `berth commit`.
#[derive(Debug, Args)]
pub struct Commit {
    /// Who the image is by, e.g. 'Ann <ann@example.com>'
    #[arg(short, long, value_name = "AUTHOR")]
    pub author: Option<String>,
    /// Instruction of a Dockerfile, e.g. 'CMD ["nginx"]' or 'ENV DEBUG=1'
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// For the image's history
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// Freeze the container meanwhile
    #[arg(short, long, value_name = "BOOL", default_value_t = true, num_args = 0..=1)]
    #[arg(default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub pause: bool,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
    /// What the image is to be called
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: Option<String>,
}

/// `berth import`.
#[derive(Debug, Args)]
pub struct Import {
    /// Instruction of a Dockerfile, e.g. 'CMD ["sh"]'
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub change: Vec<String>,
    /// For the image's history
    #[arg(short, long, value_name = "TEXT")]
    pub message: Option<String>,
    /// What it runs on, as OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// A tar archive, or - for stdin
    #[arg(value_name = "FILE|-")]
    pub source: String,
    /// What the image is to be called
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub reference: Option<String>,
}

/// `berth export`.
#[derive(Debug, Args)]
pub struct Export {
    /// Write to a file instead of stdout
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    pub container: String,
}
