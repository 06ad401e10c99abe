// SPDX-License-Identifier: Apache-2.0
//! Processes by descriptor: who they are, signals, and how they ended.
#![allow(unsafe_code, reason = "pidfd_open, pidfd_send_signal and PIDFD_GET_INFO have no safe wrappers")]

use std::{
    fs, io, mem,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    time::Duration,
};

use berth::bundle::ProcessIdentity;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        stat::fstat,
        wait::{Id, WaitPidFlag, waitid},
    },
};

/// Opens process `pid`.
///
/// # Errors
/// `ESRCH` when there is no such process; those of pidfd_open(2).
pub fn open(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the kernel makes a close-on-exec descriptor.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0_u32) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal; 0 only asks whether the process is there.
///
/// # Errors
/// `ESRCH` when it has been reaped; those of pidfd_send_signal(2).
pub fn signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo is allowed; the descriptor is borrowed for the call.
    let done = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0_u32) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the process has ended, reaped or not.
///
/// # Errors
/// Those of poll(2).
pub fn has_ended(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    Ok(poll(&mut fds, PollTimeout::ZERO)? > 0)
}

/// Whether the process ends, or has ended, within `limit`. Blocks.
///
/// # Errors
/// Those of poll(2).
pub fn ends_within(pidfd: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    Ok(poll(&mut fds, limit)? > 0)
}

/// Reaps the process if it is a child of ours that has ended.
///
/// # Errors
/// Those of waitid(2); not being its parent is none.
pub fn reap(pidfd: BorrowedFd<'_>) -> io::Result<()> {
    match waitid(Id::PIDFd(pidfd), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
        Ok(_) | Err(nix::errno::Errno::ECHILD) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Who the process is, for ever.
///
/// # Errors
/// `ESRCH` when it has been reaped; those of procfs.
pub fn identify(pidfd: BorrowedFd<'_>, pid: u32) -> io::Result<ProcessIdentity> {
    let start_time = stat_field(pid, START_TIME)?;
    // Read first, asked after: the pid can't have been another's in between.
    signal(pidfd, 0)?;
    Ok(ProcessIdentity { pid, pidfd_inode: inode(pidfd)?, start_time, boot_id: boot_id()? })
}

/// Opens the process that `identity` speaks of; `None` when it is gone.
///
/// # Errors
/// Those of the kernel, when it can't tell: not a proof of death.
pub fn open_identified(identity: &ProcessIdentity) -> io::Result<Option<OwnedFd>> {
    if identity.pid == 0 || identity.boot_id != boot_id()? {
        return Ok(None);
    }
    let pidfd = match open(identity.pid) {
        Ok(pidfd) => pidfd,
        Err(e) if e.raw_os_error() == Some(libc::ESRCH) => return Ok(None),
        Err(e) => return Err(e),
    };
    let same = if identity.pidfd_inode != 0 {
        inode(pidfd.as_fd())? == identity.pidfd_inode
    } else {
        match stat_field(identity.pid, START_TIME) {
            Ok(start_time) => start_time == identity.start_time,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => false,
            Err(e) => return Err(e),
        }
    };
    Ok(same.then_some(pidfd))
}

/// The wait status of a process that has ended, from whoever still knows: the
/// pidfd once it was reaped (Linux 6.15), procfs while it wasn't.
#[must_use]
pub fn wait_status(pidfd: BorrowedFd<'_>, identity: &ProcessIdentity) -> Option<i32> {
    if let Some(status) = exit_info(pidfd) {
        return Some(status);
    }
    let zombie = wait_status_of_zombie(identity);
    // It may have been reaped between the two.
    zombie.or_else(|| exit_info(pidfd))
}

/// This boot: /proc/sys/kernel/random/boot_id.
///
/// # Errors
/// Those of procfs.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// `struct pidfd_info` of linux/pidfd.h as of Linux 6.15 (64 bytes); later
/// kernels accept the shorter one.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroupid: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl =
    (3 << 30) | ((mem::size_of::<PidfdInfo>() as libc::Ioctl) << 16) | (0xFF << 8) | 11;

fn exit_info(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the number carries the size of the structure that it fills.
    let done = unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) };
    (done == 0 && info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Fields of /proc/PID/stat, counted from 1: proc_pid_stat(5).
const START_TIME: usize = 22;
const EXIT_CODE: usize = 52;

fn wait_status_of_zombie(identity: &ProcessIdentity) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", identity.pid)).ok()?;
    let same = field(&stat, START_TIME)? == identity.start_time.to_string();
    let dead = matches!(field(&stat, 3)?, "Z" | "X");
    if same && dead { field(&stat, EXIT_CODE)?.parse().ok() } else { None }
}

fn stat_field(pid: u32, number: usize) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let value = field(&stat, number).and_then(|v| v.parse().ok());
    value.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat is malformed")))
}

/// Field `number` (3 or more): those after the name, which may hold anything.
fn field(stat: &str, number: usize) -> Option<&str> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

/// The pidfd's inode, where pidfs makes it unique; 0 elsewhere.
fn inode(pidfd: BorrowedFd<'_>) -> io::Result<u64> {
    /// `PID_FS_MAGIC` of linux/magic.h.
    const PID_FS_MAGIC: i64 = 0x5049_4446;
    let fs = nix::sys::statfs::fstatfs(pidfd)?;
    if fs.filesystem_type().0 != PID_FS_MAGIC {
        return Ok(0);
    }
    Ok(fstat(pidfd)?.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn sleeper() -> (std::process::Child, OwnedFd, ProcessIdentity) {
        let child = Command::new("sleep").arg("1000").spawn().expect("spawn");
        let pidfd = open(child.id()).expect("open");
        let identity = identify(pidfd.as_fd(), child.id()).expect("identify");
        (child, pidfd, identity)
    }

    #[test]
    fn a_process_is_found_again_until_it_is_reaped() {
        let (mut child, pidfd, identity) = sleeper();
        assert!(open_identified(&identity).expect("open").is_some());
        for wrong in [
            ProcessIdentity { pidfd_inode: identity.pidfd_inode + 1, ..identity.clone() },
            ProcessIdentity { boot_id: "another".to_owned(), ..identity.clone() },
            ProcessIdentity { pid: 0, ..identity.clone() },
        ] {
            assert!(open_identified(&wrong).expect("open").is_none(), "{wrong:?}");
        }
        assert!(!has_ended(pidfd.as_fd()).expect("poll"));
        signal(pidfd.as_fd(), libc::SIGKILL).expect("kill");
        child.wait().expect("wait");
        assert!(has_ended(pidfd.as_fd()).expect("poll"));
        assert!(open_identified(&identity).expect("open").is_none());
    }

    #[test]
    fn the_wait_status_is_known_before_and_after_reaping() {
        let (mut child, pidfd, identity) = sleeper();
        signal(pidfd.as_fd(), libc::SIGTERM).expect("signal");
        let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE).expect("poll");
        assert_eq!(wait_status(pidfd.as_fd(), &identity), Some(15), "a zombie");
        child.wait().expect("wait");
        assert_eq!(wait_status(pidfd.as_fd(), &identity), Some(15), "reaped");
    }

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_move_the_fields() {
        let stat = "12 (a) b) (c) S 1 2 3";
        assert_eq!((field(stat, 3), field(stat, 4), field(stat, 2)), (Some("S"), Some("1"), None));
    }
}
