// SPDX-License-Identifier: Apache-2.0
//! `run`: create and start in one, and wait for the end unless detached.

use std::process::ExitCode;

use super::{
    Context, Failure, Outcome,
    cli::{Matches, Verb, switch},
    create::{self, After, Made, Request, Start},
    foreground::{Front, NO_SIZE, Signals, Waited},
    sealed,
};
use crate::{cgroup::prime, kernel::tty::Size};

pub(super) const VERB: Verb = Verb {
    name: "run",
    usage: "create and run a container",
    arguments: "<container-id>",
    flags: &[
        create::BUNDLE,
        create::CONSOLE_SOCKET,
        create::PIDFD_SOCKET,
        switch("detach", "d", "detach from the container's process"),
        switch("keep", "", "do not delete the container after it exits"),
        create::PID_FILE,
        switch("no-subreaper", "", "disable the use of the subreaper used to reap reparented processes"),
        create::NO_PIVOT,
        create::NO_NEW_KEYRING,
        create::PRESERVE_FDS,
    ],
    flags_until: usize::MAX,
    takes: (1, 1),
    run: |context, matches| run(context, matches).map_err(|e| e.during("run failed")),
};

fn run(context: &Context, matches: &Matches) -> Outcome {
    let after = if matches.has("detach") { After::Detached } else { After::Foreground };
    let preserve_fds = create::preserved(matches)?;
    sealed::ensure()?;
    let primed = prime();
    let request = Request::of(matches, after, preserve_fds)?;
    if after == After::Detached {
        launch(context, &request, NO_SIZE)?;
        return Ok(ExitCode::SUCCESS);
    }
    if !matches.has("no-subreaper") {
        // Without it orphans of the container's are somebody else's.
        let _ = nix::sys::prctl::set_child_subreaper(true);
    }
    // From now on: one that comes during the creation is for the container.
    let signals = Signals::take()?;
    let front = if request.has_terminal() { Some(Front::find()?) } else { None };
    let size = front.as_ref().map_or(NO_SIZE, Front::size);
    let mut made = launch(context, &request, size)?;
    drop(primed);
    // Made and started: it may be paused, or deleted, while it is waited for.
    made.entry.unlock();
    let front = front.zip(made.container.take_console());
    let to = Waited { pid: made.container.pid(), pidfd: made.container.pidfd() };
    let result = to.wait(&signals, front);
    let keep = matches.has("keep");
    let ended = finish(context, made, keep);
    let status = result?;
    ended?;
    Ok(status.into())
}

/// Makes the container and starts it.
fn launch(context: &Context, request: &Request, size: Size) -> Result<Made, Failure> {
    let mut made = create::make(context, request, Start::ByUs, size)?;
    let started = made.settle(request).and_then(|()| {
        made.container.start().map_err(|e| Failure::from(e).during("unable to start container process"))
    });
    match started {
        Ok(()) => Ok(made),
        Err(failure) => Err(made.undo(failure)),
    }
}

/// The container has ended: everything of it goes, unless it is kept.
fn finish(context: &Context, mut made: Made, keep: bool) -> Result<(), Failure> {
    if keep {
        return Ok(());
    }
    made.container.destroy()?;
    made.entry.remove()?;
    made.container.poststop().iter().for_each(|warning| context.log.warn(warning));
    Ok(())
}
