// SPDX-License-Identifier: Apache-2.0
//! `pause` and `resume`.

use std::process::ExitCode;

use super::{
    Context, Failure, Outcome,
    cli::{Matches, Verb},
    kill::NOT_RUNNING,
    store::Status,
};

pub(super) const PAUSE: Verb = Verb {
    name: "pause",
    usage: "pause suspends all processes inside the container",
    arguments: "<container-id>",
    flags: &[],
    flags_until: usize::MAX,
    takes: (1, 1),
    run: pause,
};

pub(super) const RESUME: Verb = Verb {
    name: "resume",
    usage: "resumes all processes that have been previously paused",
    arguments: "<container-id>",
    flags: &[],
    flags_until: usize::MAX,
    takes: (1, 1),
    run: resume,
};

fn pause(context: &Context, matches: &Matches) -> Outcome {
    let known = context.store.lock(matches.id()?)?;
    match known.status()? {
        Status::Running | Status::Created => known.group()?.freeze(true)?,
        _ => return Err(Failure::new(NOT_RUNNING)),
    }
    Ok(ExitCode::SUCCESS)
}

fn resume(context: &Context, matches: &Matches) -> Outcome {
    let known = context.store.lock(matches.id()?)?;
    match known.status()? {
        Status::Paused => known.group()?.freeze(false)?,
        _ => return Err(Failure::new("container not paused")),
    }
    Ok(ExitCode::SUCCESS)
}
