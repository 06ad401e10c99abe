// SPDX-License-Identifier: Apache-2.0
//! The end of the first process, and who it was.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd},
};

use berth::bundle::{self, ExitRecord, ProcessIdentity};
use nix::sys::{
    stat::fstat,
    statfs::{FsType, fstatfs},
    wait::{Id, WaitPidFlag, WaitStatus, waitid},
};

/// PID_FS_MAGIC of linux/magic.h: before Linux 6.9 all pidfds share one inode.
const PIDFS: FsType = FsType(0x5049_4446);

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

/// Names a process for ever. It has to be alive, or not yet reaped.
///
/// # Errors
/// When /proc doesn't say.
pub(super) fn identify(pid: u32, pidfd: BorrowedFd<'_>) -> io::Result<ProcessIdentity> {
    let pidfd_inode =
        if fstatfs(pidfd.as_fd())?.filesystem_type() == PIDFS { fstat(pidfd)?.st_ino } else { 0 };
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned();
    Ok(ProcessIdentity { pid, pidfd_inode, start_time: start_time(pid)?, boot_id })
}

/// Field 22 of proc_pid_stat(5). The second field, a name in parentheses, may
/// hold anything, parentheses and spaces too.
fn start_time(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = after_name.split_ascii_whitespace().nth(22 - 3).and_then(|field| field.parse().ok());
    field.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no start time"))
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

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
    fn a_process_that_runs_is_not_reaped_and_has_an_identity() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "read x"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("sh");
        let pidfd = pidfd_open(child.id()).expect("pidfd");
        assert_eq!(reap(pidfd.as_fd(), child.id()).expect("reap"), None);
        let identity = identify(child.id(), pidfd.as_fd()).expect("identity");
        assert_eq!(identity, identify(child.id(), pidfd.as_fd()).expect("identity"));
        assert_eq!(identity.pid, child.id());
        assert!(identity.start_time > 0 && identity.boot_id.len() == 36, "{identity:?}");
        drop(child.stdin.take());
        assert!(child.wait().expect("wait").code().is_some());
    }
}
