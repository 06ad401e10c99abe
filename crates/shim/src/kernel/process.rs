// SPDX-License-Identifier: Apache-2.0
//! Processes: `clone3`, pidfds, credentials and what `execve` inherits.
#![allow(unsafe_code, reason = "system calls without a wrapper in nix or libc")]

use std::{
    convert::Infallible,
    ffi::{CString, c_int, c_uint},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
};

use nix::errno::Errno;

use super::{Procfs, Result, SysError, fd};

/// `CLONE_CLEAR_SIGHAND` of linux/sched.h: handlers become SIG_DFL.
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
/// `CLONE_INTO_CGROUP` of linux/sched.h; libc's overflows.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// `KEYCTL_JOIN_SESSION_KEYRING`.
const KEYCTL_JOIN_SESSION_KEYRING: c_int = 1;
/// The kernel's signals are 1 to 64.
const LAST_SIGNAL: c_int = 64;

/// Below this are the numbers that streams and sockets are placed on.
const ABOVE_STREAMS: c_int = 10;

/// A child and how to name it for ever.
#[derive(Debug)]
pub struct Child {
    /// Its pid, in our pid namespace.
    pub pid: u32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

/// Clones this process: the child gets a copy of the memory, new namespaces
/// as `flags` (`CLONE_NEW*`) say, and runs `child`, which must end by execve
/// or exit.
///
/// Only for a process with one thread: the child of another may wait for ever
/// for a lock that a thread which it doesn't have has taken.
///
/// # Errors
/// Those of clone3(2).
pub fn clone3(
    flags: u64,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> Infallible,
) -> Result<Child> {
    let mut pidfd: c_int = -1;
    // SAFETY: all zeros is a valid `clone_args`: integers only.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags | CLONE_CLEAR_SIGHAND | libc::CLONE_PIDFD as u64;
    arguments.pidfd = (&raw mut pidfd) as u64;
    // With CLONE_PARENT it is that of this process.
    if flags & libc::CLONE_PARENT.cast_unsigned() as u64 == 0 {
        arguments.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    }
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: without CLONE_VM and with a null stack this is fork: the child
    // goes on on its own copy of this stack. `arguments` and `pidfd` are alive.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size_of::<libc::clone_args>()) };
    if result == 0 {
        child();
    }
    let Ok(pid) = u32::try_from(result) else {
        return Err(SysError::new(format!("clone3({flags:#x})"), Errno::last()));
    };
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(Child { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

/// What [`clone_sibling`] asks clone(2) for.
pub const SIBLING: u64 = (libc::CLONE_PARENT | libc::CLONE_PIDFD) as u64;

/// Clones this process as its sibling, which begins in the pid namespace that
/// this one has chosen for its children, by the call that filters know since
/// long: Docker's denies clone3. Returns a pidfd.
///
/// # Errors
/// Those of clone(2): ENOMEM when that namespace has ended.
pub fn clone_sibling(child: impl FnOnce() -> Infallible) -> Result<OwnedFd> {
    let mut pidfd: c_int = -1;
    let none = 0_usize;
    // SAFETY: as for `clone3`; `pidfd` is alive. The last two arguments change
    // places with the architecture, and both are none.
    let result = unsafe { libc::syscall(libc::SYS_clone, SIBLING, none, &raw mut pidfd, none, none) };
    if result == 0 {
        child();
    }
    if result < 0 {
        return Err(SysError::new("clone(CLONE_PARENT|CLONE_PIDFD)", Errno::last()));
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// As [`clone3`] without flags, for a process whose seccomp filter may deny
/// that call, as Docker's does.
///
/// # Errors
/// Those of fork(2) and pidfd_open(2).
pub fn fork(child: impl FnOnce() -> Infallible) -> Result<Child> {
    let pid = fork_plain(child)?;
    // It is not reaped before its parent waits for it: the pid is still its own.
    Ok(Child { pid, pidfd: pidfd_open(pid)? })
}

/// fork(2): the pid of a child that is its own until this process reaps it.
///
/// # Errors
/// Those of fork(2).
pub fn fork_plain(child: impl FnOnce() -> Infallible) -> Result<u32> {
    // SAFETY: as for `clone3`: this process has one thread.
    let result = unsafe { libc::fork() };
    if result == 0 {
        child();
    }
    u32::try_from(result).map_err(|_| SysError::new("fork()", Errno::last()))
}

/// A pidfd for `pid`.
///
/// # Errors
/// ESRCH when there is no such process.
pub fn pidfd_open(pid: u32) -> Result<OwnedFd> {
    // SAFETY: only integers are passed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match c_int::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(SysError::new(format!("pidfd_open({pid})"), Errno::last())),
    }
}

/// The pid, in our pid namespace, of the process that `pidfd` is of.
///
/// # Errors
/// Those of reading `/proc/self/fdinfo`; ESRCH when it has been reaped.
pub fn pid_of(pidfd: impl AsFd) -> Result<u32> {
    let path = format!("self/fdinfo/{}", pidfd.as_fd().as_raw_fd());
    let text = Procfs::of_host()?.read_text(&path)?;
    let pid = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    pid.ok_or_else(|| SysError::new(format!("read({path:?})"), Errno::ESRCH))
}

/// Sends `signal`; 0 only asks whether the process is there.
///
/// # Errors
/// ESRCH when the process has ended and been reaped.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: c_int) -> Result<()> {
    // SAFETY: a null siginfo means what kill(2) would send.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<u8>(), 0)
    };
    check(result, || format!("pidfd_send_signal({}, {signal})", fd(pidfd)))
}

/// A copy of another process's descriptor `number`.
///
/// # Errors
/// EPERM without the right to trace it, EBADF when it has none.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: c_int) -> Result<OwnedFd> {
    // SAFETY: only integers are passed.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    match c_int::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(ours) if ours >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(ours) }),
        _ => Err(SysError::new(format!("pidfd_getfd({}, {number})", fd(pidfd)), Errno::last())),
    }
}

/// What happens to the descriptors from a number on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseRange {
    /// They are closed now.
    Now,
    /// They are closed by execve.
    AtExec,
}

/// Closes all descriptors from `first` on. `Now` also closes what values of
/// this process still own: only for a child that won't use or drop them.
///
/// # Errors
/// Those of close_range(2).
pub fn close_from(first: u32, how: CloseRange) -> Result<()> {
    let flags = match how {
        CloseRange::Now => 0,
        CloseRange::AtExec => libc::CLOSE_RANGE_CLOEXEC,
    };
    // SAFETY: only integers are passed. That no value uses a descriptor that
    // is closed here is what the caller promises.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, flags) };
    check(result, || format!("close_range({first}, ~0, {how:?})"))
}

/// Duplicates `from` to the descriptor `number`, whatever that was, without
/// `O_CLOEXEC`.
///
/// # Errors
/// Those of dup3(2) and fcntl(2).
pub fn place(from: BorrowedFd<'_>, number: c_int) -> Result<()> {
    // SAFETY: only integers are passed; `number` is one that nothing owns
    // in the child that calls this.
    let result = if from.as_raw_fd() == number {
        // SAFETY: as above.
        unsafe { libc::fcntl(number, libc::F_SETFD, 0) }
    } else {
        // SAFETY: as above.
        unsafe { libc::dup2(from.as_raw_fd(), number) }
    };
    check(result.min(0).into(), || format!("dup2({}, {number})", fd(from)))
}

/// Puts three descriptors onto 0, 1 and 2, whatever their numbers are.
///
/// # Errors
/// Those of dup3(2) and fcntl(2).
pub fn place_streams(streams: [BorrowedFd<'_>; 3]) -> Result<()> {
    // None may be overwritten before it has been copied.
    let mut copies = Vec::with_capacity(streams.len());
    for stream in streams {
        copies.push(duplicate_above(stream, ABOVE_STREAMS)?);
    }
    for (copy, number) in copies.iter().zip(0..) {
        place(copy.as_fd(), number)?;
    }
    Ok(())
}

/// A copy of `from` with a number of at least `lowest`.
///
/// # Errors
/// Those of fcntl(2).
pub fn duplicate_above(from: BorrowedFd<'_>, lowest: c_int) -> Result<OwnedFd> {
    // SAFETY: only integers are passed.
    let number = unsafe { libc::fcntl(from.as_raw_fd(), libc::F_DUPFD_CLOEXEC, lowest) };
    if number < 0 {
        return Err(SysError::new(format!("fcntl({}, F_DUPFD_CLOEXEC, {lowest})", fd(from)), Errno::last()));
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Whether this process has a descriptor `number`.
///
/// # Errors
/// EBADF when it has none.
pub fn is_open(number: c_int) -> Result<()> {
    // SAFETY: only integers are passed.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    check(flags.min(0).into(), || format!("fcntl({number}, F_GETFD)"))
}

/// Takes over the descriptor `number` that [`place`] has put there.
///
/// # Errors
/// EBADF when there is none.
pub fn adopt(number: c_int) -> Result<OwnedFd> {
    // SAFETY: only integers are passed.
    let flags = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    if flags < 0 {
        return Err(SysError::new(format!("fcntl({number}, F_SETFD)"), Errno::last()));
    }
    // SAFETY: it is open, and the caller has put it there for itself.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Unblocks all signals and gives each its default disposition: what a
/// program may expect to inherit, and what Rust's own start-up (SIGPIPE) and
/// the shim change.
///
/// # Errors
/// Those of sigprocmask(2).
pub fn reset_signals() -> Result<()> {
    // The kernel's `struct sigaction`, at its longest: SIG_DFL, no flags.
    let default = [0_u64; 4];
    for signal in 1..=LAST_SIGNAL {
        // Not the C library's function, which hides 32 and 33. It fails only
        // for KILL and STOP, which always have their default.
        // SAFETY: `default` is as long as any architecture's structure, and
        // installs no handler; the old disposition is not asked for.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                size_of::<u64>(),
            );
        }
    }
    let none = nix::sys::signal::SigSet::empty();
    super::sys(none.thread_set_mask(), || "sigprocmask(SIG_SETMASK, [])".to_owned())
}

/// Ends this process on the signals that ask for it. By default the first
/// process of a pid namespace doesn't get them. In force until
/// [`reset_signals`].
///
/// # Errors
/// Those of sigaction(2).
pub fn end_on_request() -> Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    extern "C" fn end(signal: c_int) {
        exit_now(128 + signal);
    }
    let action = SigAction::new(SigHandler::Handler(end), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        // SAFETY: the handler makes one system call, which is async-signal-safe.
        let result = unsafe { sigaction(signal, &action) };
        super::sys(result, || format!("sigaction({signal})"))?;
    }
    SigSet::empty().thread_set_mask().map_err(|e| SysError::new("sigprocmask(SIG_SETMASK, [])", e))
}

/// Lets a process run on every processor that its cgroups leave it: the
/// choice that was made for the runtime isn't one for a container.
///
/// # Errors
/// Those of sched_setaffinity(2).
pub fn run_anywhere(pid: u32) -> Result<()> {
    let mut all = nix::sched::CpuSet::new();
    // None of the numbers below its count is out of range.
    (0..nix::sched::CpuSet::count()).for_each(|number| {
        let _in_range = all.set(number);
    });
    let result = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(pid.cast_signed()), &all);
    super::sys(result, || format!("sched_setaffinity({pid})"))
}

/// A set of capabilities, bit n for capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSets {
    /// What may be used now.
    pub effective: u64,
    /// What may be made effective.
    pub permitted: u64,
    /// What execve of a file with capabilities may add.
    pub inheritable: u64,
}

/// The kernel's `struct __user_cap_header_struct`.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: c_int,
}

/// Half of the kernel's version 3 of `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapHalf {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// capget(2) of this thread.
///
/// # Errors
/// None that the kernel has for version 3.
pub fn capabilities() -> Result<CapSets> {
    let mut header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let mut data = [CapHalf::default(); 2];
    // SAFETY: header and data have the layout of version 3 and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) };
    check(result, || "capget()".to_owned())?;
    let [low, high] = data;
    let join = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    Ok(CapSets {
        effective: join(low.effective, high.effective),
        permitted: join(low.permitted, high.permitted),
        inheritable: join(low.inheritable, high.inheritable),
    })
}

/// capset(2) for this thread.
///
/// # Errors
/// EPERM when the permitted set would grow.
pub fn set_capabilities(sets: CapSets) -> Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of the 64 bits")]
    let half = |shift: u32| CapHalf {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let header = CapHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let data = [half(0), half(32)];
    // SAFETY: header and data have the layout of version 3 and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    check(result, || format!("capset({sets:x?})"))
}

/// Drops a capability from the bounding set; one that the kernel doesn't have
/// is none.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn drop_bounding(capability: u8) -> Result<()> {
    match prctl(libc::PR_CAPBSET_DROP, capability.into(), 0) {
        Err(e) if e.errno() == Errno::EINVAL => Ok(()),
        result => result,
    }
}

/// Empties the ambient set, or raises a capability in it.
///
/// # Errors
/// EPERM when it is not permitted and inheritable.
pub fn set_ambient(capabilities: u64) -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs().into(), 0)?;
    for capability in (0..64).filter(|bit| capabilities & (1 << bit) != 0) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE.unsigned_abs().into(), capability)?;
    }
    Ok(())
}

fn prctl(option: c_int, two: libc::c_ulong, three: libc::c_ulong) -> Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: these options take integers only.
    let result = unsafe { libc::prctl(option, two, three, zero, zero) };
    check(result.into(), || format!("prctl({option}, {two}, {three})"))
}

/// Joins a new, anonymous session keyring, so that a container neither sees
/// nor fills the shim's. A kernel without keys has none to share.
///
/// # Errors
/// EDQUOT, ENOMEM.
pub fn new_session_keyring() -> Result<()> {
    // SAFETY: a null name asks for an anonymous keyring.
    let result = unsafe {
        libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<u8>(), 0, 0, 0)
    };
    match check(result.min(0), || "keyctl(KEYCTL_JOIN_SESSION_KEYRING, NULL)".to_owned()) {
        Err(e) if e.errno() == Errno::ENOSYS => Ok(()),
        result => result,
    }
}

/// unshare(2): children of this process get a time namespace of their own.
///
/// # Errors
/// EINVAL where the kernel has none (before Linux 5.6).
pub fn unshare_time() -> Result<()> {
    // SAFETY: only integers are passed.
    let result = unsafe { libc::unshare(libc::CLONE_NEWTIME) };
    check(result.into(), || "unshare(CLONE_NEWTIME)".to_owned())
}

/// setdomainname(2).
///
/// # Errors
/// EINVAL for more than 64 bytes.
pub fn set_domain_name(name: &str) -> Result<()> {
    // SAFETY: pointer and length describe `name`.
    let result = unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) };
    check(result.into(), || format!("setdomainname({name:?})"))
}

/// execve(2); returns only when it failed.
pub fn execve(path: &std::ffi::CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    match nix::unistd::execve(path, arguments, environment) {
        Ok(never) => match never {},
        Err(errno) => errno,
    }
}

/// _exit(2): ends the process without running anything that the parent's
/// memory, of which this is a copy, has registered.
pub fn exit_now(status: c_int) -> Infallible {
    // SAFETY: always safe: it does not return.
    unsafe { libc::_exit(status) }
}

/// Whether `pidfd` belongs to a process that still runs.
///
/// # Errors
/// Those of poll(2).
pub fn is_running(pidfd: impl AsFd) -> Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut set = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    super::sys(poll(&mut set, PollTimeout::ZERO), || "poll(pidfd)".to_owned()).map(|ready| ready == 0)
}

fn check(result: libc::c_long, call: impl FnOnce() -> String) -> Result<()> {
    if result == 0 {
        return Ok(());
    }
    let errno = Errno::last();
    Err(SysError::new(call(), errno))
}
