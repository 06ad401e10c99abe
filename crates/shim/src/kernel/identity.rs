// SPDX-License-Identifier: Apache-2.0
//! Who a process is, beyond its pid, and whether it still is there.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use berth::bundle::ProcessIdentity;
use nix::{
    errno::Errno,
    sys::{
        stat::fstat,
        statfs::{FsType, fstatfs},
    },
};

use super::{Procfs, SysError, process};

/// PID_FS_MAGIC of linux/magic.h: before Linux 6.9 all pidfds share one inode.
const PIDFS: FsType = FsType(0x5049_4446);

/// Names a process for ever. It has to be alive, or not yet reaped.
///
/// # Errors
/// When /proc doesn't say.
pub fn identify(pid: u32, pidfd: BorrowedFd<'_>) -> io::Result<ProcessIdentity> {
    let pidfd_inode =
        if fstatfs(pidfd.as_fd())?.filesystem_type() == PIDFS { fstat(pidfd)?.st_ino } else { 0 };
    let read = |path: &str| Procfs::of_host().and_then(|proc| proc.read_text(path)).map_err(|e| e.errno());
    let boot_id = read("sys/kernel/random/boot_id")?.trim_end().to_owned();
    let start_time = start_time(&read(&format!("{pid}/stat"))?).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat has no start time"))
    })?;
    Ok(ProcessIdentity { pid, pidfd_inode, start_time, boot_id })
}

/// Field 22 of proc_pid_stat(5). The second field, a name in parentheses, may
/// hold anything, parentheses and spaces too.
fn start_time(stat: &str) -> Option<u64> {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// The pidfd of a process that was written down; `None` when it has ended and
/// been reaped, whoever has its pid now.
///
/// # Errors
/// When the kernel doesn't say.
pub fn find(identity: &ProcessIdentity) -> super::Result<Option<OwnedFd>> {
    let pidfd = match process::pidfd_open(identity.pid) {
        Err(e) if matches!(e.errno(), Errno::ESRCH | Errno::EINVAL) => return Ok(None),
        result => result?,
    };
    match identify(identity.pid, pidfd.as_fd()) {
        Ok(found) if found == *identity => Ok(Some(pidfd)),
        Ok(_) => Ok(None),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        Err(e) => Err(SysError::from_io(format!("identify({})", identity.pid), &e)),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_found_until_it_is_reaped() {
        let mut child = Command::new("/bin/cat").stdin(Stdio::piped()).spawn().expect("cat");
        let pidfd = process::pidfd_open(child.id()).expect("pidfd");
        let identity = identify(child.id(), pidfd.as_fd()).expect("identity");
        assert_eq!(identity.pid, child.id());
        assert!(identity.start_time > 0 && identity.boot_id.len() == 36, "{identity:?}");
        assert!(find(&identity).expect("find").is_some());
        let other = ProcessIdentity { start_time: identity.start_time + 1, ..identity.clone() };
        assert!(find(&other).expect("find").is_none(), "the pid is another process's now");
        drop(child.stdin.take());
        child.wait().expect("wait");
        assert!(find(&identity).expect("find").is_none());
    }
}
