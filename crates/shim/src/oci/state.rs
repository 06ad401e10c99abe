// SPDX-License-Identifier: Apache-2.0
//! `state`: what a container does, as runtime-spec's runtime.md has it, and
//! runc's fields beside.

use std::{collections::HashMap, path::Path, process::ExitCode};

use serde::Serialize;

use super::{
    Context, Failure, Outcome,
    cli::{Matches, Verb},
    store::{Known, Status},
};

pub(super) const VERB: Verb = Verb {
    name: "state",
    usage: "output the state of a container",
    arguments: "<container-id>",
    flags: &[],
    flags_until: usize::MAX,
    takes: (1, 1),
    run: state,
};

/// What `state` and `list` print.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Shown<'a> {
    oci_version: &'a str,
    pub(super) id: &'a str,
    /// 0 when the first process has ended.
    pub(super) pid: u32,
    pub(super) status: &'static str,
    pub(super) bundle: &'a Path,
    rootfs: &'a Path,
    pub(super) created: &'a str,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    annotations: &'a HashMap<String, String>,
    /// Whose the container's directory is.
    pub(super) owner: String,
}

impl<'a> Shown<'a> {
    pub(super) fn of(id: &'a str, known: &'a Known, owner: String) -> Result<Self, Failure> {
        let status = known.status()?;
        let record = &known.record;
        let pid = record.init.as_ref().filter(|_| status != Status::Stopped).map_or(0, |init| init.pid);
        Ok(Self {
            oci_version: &record.oci_version,
            id,
            pid,
            status: status.as_str(),
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            annotations: &record.annotations,
            owner,
        })
    }
}

fn state(context: &Context, matches: &Matches) -> Outcome {
    let id = matches.id()?;
    let known = context.store.load(id)?;
    let shown = Shown::of(id, &known, String::new())?;
    let text = serde_json::to_string_pretty(&shown).map_err(|e| Failure::new(e.to_string()))?;
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}
