// SPDX-License-Identifier: Apache-2.0
//! `start`: lets a created container execute its program.

use std::{os::fd::AsFd as _, process::ExitCode};

use super::{
    Context, Failure, Outcome,
    cli::{Matches, Verb},
    store::{Known, Status},
};
use crate::runtime::{self, hooks::Moment};

pub(super) const VERB: Verb = Verb {
    name: "start",
    usage: "executes the user defined process in a created container",
    arguments: "<container-id>",
    flags: &[],
    flags_until: usize::MAX,
    takes: (1, 1),
    run: start,
};

fn start(context: &Context, matches: &Matches) -> Outcome {
    let known = context.store.lock(matches.id()?)?;
    match known.status()? {
        Status::Created => {}
        Status::Stopped => return Err(Failure::new("cannot start a container that has stopped")),
        Status::Running => return Err(Failure::new("cannot start an already running container")),
        status => {
            return Err(Failure::new(format!("cannot start a container in the {} state", status.as_str())));
        }
    }
    let hooks = known.hooks(matches.id()?)?;
    runtime::start(known.entry().dir().as_fd(), &hooks)
        .map_err(|e| Failure::from(e).during("unable to start container process"))?;
    let pid = known.record.init.as_ref().map(|init| init.pid);
    if let Err(e) = hooks.run(Moment::Poststart, pid) {
        return Err(kill_all(&known, e.into()));
    }
    Ok(ExitCode::SUCCESS)
}

/// A hook of the start has failed, and the container with it.
fn kill_all(known: &Known, failure: Failure) -> Failure {
    let killed = known.group().and_then(|group| Ok(group.signal(libc::SIGKILL)?));
    match killed {
        Ok(()) => failure,
        Err(second) => Failure::new(format!("{failure} (and then: {second})")),
    }
}
