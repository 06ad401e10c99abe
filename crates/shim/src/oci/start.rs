// SPDX-License-Identifier: Apache-2.0
//! `start`: lets a created container execute its program.

use std::{os::fd::AsFd as _, process::ExitCode};

use super::{
    Context, Failure, Outcome,
    cli::{Matches, Verb},
    delete,
    notify::Manager,
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
    let mut known = context.store.lock(matches.id()?)?;
    match known.status()? {
        Status::Created => {}
        Status::Stopped => return Err(Failure::new("cannot start a container that has stopped")),
        Status::Running => return Err(Failure::new("cannot start an already running container")),
        status => {
            return Err(Failure::new(format!("cannot start a container in the {} state", status.as_str())));
        }
    }
    let hooks = known.hooks(matches.id()?)?;
    let pid = known.record.init.as_ref().map(|init| init.pid);
    let ear = match Manager::of_environment() {
        Some(manager) => manager.listen(known.entry())?,
        None => None,
    };
    let started = runtime::start(known.entry().dir().as_fd(), &hooks)
        .map_err(|e| Failure::from(e).during("unable to start container process"));
    let hooked = match &started {
        // runc's start is over before these hooks have run, and goes on to
        // those of poststart: what they do is undone by those of poststop,
        // which run in any case.
        Err(_) if !hooks.is_empty(Moment::StartContainer) => hooks.run(Moment::Poststart, pid),
        Err(_) => Ok(()),
        Ok(()) => hooks.run(Moment::Poststart, pid),
    };
    if let Err(failure) = started.and(hooked.map_err(Failure::from)) {
        return Err(end(&known, failure));
    }
    if let (Some(ear), Some(init), Some(pid)) = (ear, known.init()?, pid) {
        known.entry.unlock();
        ear.wait(init.as_fd(), pid)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The start has failed, and the container with it: whoever hears of it may
/// delete it.
fn end(known: &Known, failure: Failure) -> Failure {
    let killed = known.group().and_then(|group| Ok(group.signal(libc::SIGKILL)?));
    match killed.and_then(|()| delete::kill(known)) {
        Ok(()) => failure,
        Err(second) => Failure::new(format!("{failure} (and then: {second})")),
    }
}
