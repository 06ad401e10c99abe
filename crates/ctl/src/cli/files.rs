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
