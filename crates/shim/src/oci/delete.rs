// SPDX-License-Identifier: Apache-2.0
//! `delete`: what is left of a container goes; with `--force` one that runs,
//! too.

use std::{os::fd::AsFd as _, process::ExitCode};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use super::{
    Context, Failure, Outcome,
    cli::{Matches, Verb, switch},
    store::{Known, NOT_THERE, Status},
};
use crate::{kernel::process, runtime};

/// How long the first process may take to die: milliseconds.
const DEAD_WITHIN: u16 = 10_000;

pub(super) const VERB: Verb = Verb {
    name: "delete",
    usage: "delete any resources held by the container often used with detached container",
    arguments: "<container-id>",
    flags: &[switch("force", "f", "Forcibly deletes the container if it is still running (uses SIGKILL)")],
    flags_until: usize::MAX,
    takes: (1, 1),
    run: delete,
};

fn delete(context: &Context, matches: &Matches) -> Outcome {
    let id = matches.id()?;
    let force = matches.has("force");
    let entry = match context.store.find(id) {
        // Nothing to do is done.
        Err(failure) if force && failure.message == NOT_THERE => return Ok(ExitCode::SUCCESS),
        result => result?.lock()?,
    };
    let Some(record) = entry.record()? else {
        // A creation that was cut off before its first record.
        entry.remove()?;
        return if force { Ok(ExitCode::SUCCESS) } else { Err(Failure::new(NOT_THERE)) };
    };
    let known = Known { entry, record };
    match known.status()? {
        Status::Stopped | Status::Created => {}
        _ if force => {}
        status => {
            let why = format!("cannot delete container {id} that is not stopped: {}", status.as_str());
            return Err(Failure::new(why));
        }
    }
    remove(context, id, &known)?;
    Ok(ExitCode::SUCCESS)
}

/// Ends all processes, removes the cgroups and the record, and runs the hooks
/// of the end.
pub(super) fn remove(context: &Context, id: &str, known: &Known) -> Result<(), Failure> {
    // Read while they are there; a specification that is gone has none.
    let hooks = known.hooks(id);
    let resctrl = known.spec().and_then(|spec| Ok(runtime::resctrl(&spec, id)?));
    kill(known)?;
    known.group()?.remove()?;
    if let Ok(Some(resctrl)) = resctrl {
        resctrl.remove()?;
    }
    if let Some(mount) = &known.record.root_mount {
        mount.remove()?;
    }
    known.entry().remove()?;
    match hooks {
        Ok(hooks) => hooks.run_poststop().iter().for_each(|warning| context.log.warn(warning)),
        Err(failure) => context.log.warn(&format!("the hooks of {id}: {failure}")),
    }
    Ok(())
}

/// Kills the first process, and waits until it has ended. It is not ours to
/// reap.
pub(super) fn kill(known: &Known) -> Result<(), Failure> {
    let Some(init) = known.init()? else { return Ok(()) };
    match process::pidfd_send_signal(init.as_fd(), libc::SIGKILL) {
        Err(e) if e.errno() == Errno::ESRCH => return Ok(()),
        result => result?,
    }
    // A paused one has to go on to die, where the freezer is that of v1.
    let group = known.group()?;
    if group.is_frozen() {
        group.freeze(false)?;
    }
    loop {
        match poll(&mut [PollFd::new(init.as_fd(), PollFlags::POLLIN)], PollTimeout::from(DEAD_WITHIN)) {
            Ok(0) => return Err(Failure::new("container init still running")),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(Failure::io("poll the container's process", &e.into())),
        }
    }
}
