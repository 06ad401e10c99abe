// SPDX-License-Identifier: Apache-2.0
//! `run`: create and start in one, and wait for the end unless detached.

use std::process::ExitCode;

use super::{
    Context, Failure, Outcome,
    cli::{Matches, Verb, switch},
    create::{self, After, Made, Request, Start},
    foreground::{Front, Signals, Waited},
    notify::{Ear, Manager},
    sealed,
};
use crate::{
    cgroup::prime,
    kernel::{
        process::{self, Child},
        tty::Size,
    },
};

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
        let (made, ear) = launch(context, &request, None)?;
        if let Some(ear) = ear {
            ear.wait(made.container.pidfd(), made.container.pid())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !matches.has("no-subreaper") {
        // Without it orphans of the container's are somebody else's.
        let _ = nix::sys::prctl::set_child_subreaper(true);
    }
    // From now on: one that comes during the creation is for the container.
    let signals = Signals::take()?;
    let front = if request.has_terminal() { Some(Front::find()?) } else { None };
    let size = front.as_ref().map(Front::size);
    let (mut made, ear) = launch(context, &request, size)?;
    let _messenger = ear.map(|ear| messenger(&ear, &made)).transpose()?;
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

/// Makes the container and starts it, and listens to it where somebody waits
/// for its being ready.
fn launch(context: &Context, request: &Request, front: Option<Size>) -> Result<(Made, Option<Ear>), Failure> {
    let mut made = create::make(context, request, Start::ByUs, front)?;
    let manager = Manager::of_environment();
    let started = made.settle(request).and_then(|()| {
        let ear = manager.map_or(Ok(None), |manager| manager.listen(&made.entry))?;
        let started = made.container.start();
        started.map(|()| ear).map_err(|e| Failure::from(e).during("unable to start container process"))
    });
    match started {
        Ok(ear) => Ok((made, ear)),
        Err(failure) => Err(made.undo(failure)),
    }
}

/// A process of its own that waits for the container to be ready, while this
/// one, which is the one to watch, does all the rest. Like any other child it
/// is reaped along the way.
fn messenger(ear: &Ear, made: &Made) -> Result<Child, Failure> {
    let main = std::process::id();
    Ok(process::fork(|| {
        let ended = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
            .map_err(|e| Failure::new(e.to_string()))
            .and_then(|()| ear.wait(made.container.pidfd(), main));
        process::exit_now(i32::from(ended.is_err()))
    })?)
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
