// SPDX-License-Identifier: Apache-2.0
//! The end of the first process.

use std::{io, os::fd::BorrowedFd};

use berth::bundle::{self, ExitRecord};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

/// Reaps the process; `None` when it hasn't ended. The kernel's word on memory
/// comes later.
///
/// # Errors
/// ECHILD when somebody else has reaped it.
pub(super) fn reap(pidfd: BorrowedFd<'_>, pid: u32) -> io::Result<Option<ExitRecord>> {
    let exit_code = match waitid(Id::PIDFd(pidfd), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG)? {
        WaitStatus::Exited(_, code) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
        WaitStatus::Signaled(_, signal, _) => u8::try_from(128 + signal as i32).unwrap_or(u8::MAX),
        _ => return Ok(None),
    };
    Ok(Some(ExitRecord { pid, exit_code, exited_at: bundle::now_nanos(), oom_killed: false }))
}

#[cfg(test)]
mod tests {
    use std::{
        os::fd::AsFd as _,
        process::{Child, Command},
    };

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::kernel::process::pidfd_open;

    fn end_of(child: &Child) -> ExitRecord {
        let pidfd = pidfd_open(child.id()).expect("pidfd");
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::try_from(10_000).expect("time")), Ok(1), "it ends");
        reap(pidfd.as_fd(), child.id()).expect("reap").expect("has ended")
    }

    fn sh(script: &str) -> Child {
        Command::new("/bin/sh").args(["-c", script]).spawn().expect("sh")
    }

    #[test]
    fn a_signal_is_128_and_its_number() {
        assert_eq!(end_of(&sh("exit 42")).exit_code, 42);
        assert_eq!(end_of(&sh("kill -9 $$")).exit_code, 137);
        assert_eq!(end_of(&sh("kill -HUP $$")).exit_code, 129);
    }

    #[test]
    fn a_process_that_runs_is_not_reaped() {
        let mut child = Command::new("/bin/cat").stdin(std::process::Stdio::piped()).spawn().expect("cat");
        let pidfd = pidfd_open(child.id()).expect("pidfd");
        assert_eq!(reap(pidfd.as_fd(), child.id()).expect("reap"), None);
        drop(child.stdin.take());
        assert_eq!(child.wait().expect("wait").code(), Some(0));
    }
}
