// SPDX-License-Identifier: Apache-2.0
//! `--init`: the container's first process stays what it is, a copy of the
//! shim, and has the program as its child. It hands on signals, reaps what is
//! left to it, and ends as the program does (docs/adr/0018-our-own-init.md).

use std::{
    convert::Infallible,
    ffi::c_int,
    io::{IsTerminal as _, stdin},
};

use nix::{
    sys::prctl,
    unistd::{Pid, getpid, setpgid, tcsetpgrp},
};

use crate::{
    kernel::{
        process::{self, CloseRange},
        signals, sys,
    },
    runtime::Result,
};

/// As people see it: comm and, once, command line.
pub(super) const NAME: &str = "berth-init";

/// Runs `program` in a child and looks after it. Returns only when there is no
/// child.
pub(super) fn run(program: impl FnOnce() -> Infallible) -> Result<Infallible> {
    // Memory that isn't the container's business (D7). What the child executes
    // can be looked into as ever.
    super::hide()?;
    // Before there is a child: none of its signals is missed.
    signals::block_all()?;
    if getpid() != Pid::from_raw(1) {
        // In somebody else's pid namespace what it leaves behind comes here, too.
        sys(prctl::set_child_subreaper(true), || "prctl(PR_SET_CHILD_SUBREAPER, 1)".to_owned())?;
    }
    let child = process::fork_plain(|| {
        // The program does without, should it fail: as well as it can.
        let _ = lead_terminal();
        program()
    })?;
    // Only people look at it.
    let _ = prctl::set_name(c"berth-init");
    // The program's descriptors are the program's: its end shows, and whoever
    // waits for its start hears of it. The standard streams stay, as long as
    // the container.
    process::close_from(super::FIRST, CloseRange::Now)?;
    look_after(child).map(process::exit_now)
}

/// A process group of its own, in the foreground of the terminal: what is
/// typed there isn't for us to hand on, and comes once.
fn lead_terminal() -> nix::Result<()> {
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    if stdin().is_terminal() { tcsetpgrp(stdin(), getpid()) } else { Ok(()) }
}

fn look_after(child: u32) -> Result<c_int> {
    loop {
        match signals::next()? {
            libc::SIGCHLD => {
                let mut ended = None;
                while let Some(reaped) = signals::reap() {
                    if reaped.pid == child {
                        ended = Some(reaped.code);
                    }
                }
                if let Some(code) = ended {
                    return Ok(code);
                }
            }
            // Of the terminal, to whoever isn't in its foreground: that's us.
            libc::SIGTTIN | libc::SIGTTOU => {}
            signal => signals::send_to_child(child, signal),
        }
    }
}
