// SPDX-License-Identifier: Apache-2.0
//! Starting a program without copying the engine: posix_spawn(3), which
//! glibc builds on `CLONE_VM | CLONE_VFORK`. Used for shims only.
#![allow(unsafe_code, reason = "posix_spawn(3) has no safe wrapper")]

use std::{
    ffi::{CStr, CString},
    io, mem,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    ptr,
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    sys::signal::{SigSet, Signal},
};

/// What the new process gets. All else is closed: every descriptor of the
/// engine is close-on-exec.
#[derive(Debug)]
pub struct Program<'a> {
    /// The executable, open; it is executed through /proc/self/fd.
    pub executable: BorrowedFd<'a>,
    /// argv, the name included.
    pub args: &'a [CString],
    /// `NAME=value`.
    pub env: &'a [CString],
    /// Its working directory.
    pub cwd: BorrowedFd<'a>,
    /// Its descriptors 0, 1, 2, ….
    pub fds: &'a [BorrowedFd<'a>],
}

/// Marks every descriptor above stderr close-on-exec: those that the engine
/// was started with, too, must not reach a shim (D6). Called first of all.
///
/// # Errors
/// Those of close_range(2).
pub fn keep_descriptors() -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC.cast_signed();
    // SAFETY: only integers are passed; no descriptor is closed.
    match unsafe { libc::close_range(3, libc::c_uint::MAX, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Starts `program` in a session of its own, with default signal handling.
/// The caller has to reap the process whose id this returns.
///
/// # Errors
/// Those of posix_spawn(3), execve(2) included.
pub fn spawn(program: &Program<'_>) -> io::Result<u32> {
    // A source below the range of targets could be overwritten before its turn.
    let floor = i32::try_from(program.fds.len()).map_err(io::Error::other)?.max(10);
    let sources = program.fds.iter().map(|fd| at_least(*fd, floor)).collect::<io::Result<Vec<_>>>()?;
    let executable = at_least(program.executable, floor)?;
    let cwd = at_least(program.cwd, floor)?;
    let path = CString::new(format!("/proc/self/fd/{}", executable.as_raw_fd())).map_err(io::Error::other)?;

    let mut actions = Actions::new()?;
    for (target, source) in (0_i32..).zip(&sources) {
        actions.dup2(source.as_fd(), target)?;
    }
    actions.fchdir(cwd.as_fd())?;
    let attributes = Attributes::new()?;
    run(&path, &actions, &attributes, program)
}

fn at_least(fd: BorrowedFd<'_>, floor: i32) -> io::Result<OwnedFd> {
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(floor))?;
    // SAFETY: fcntl has just made this descriptor; nobody else has it.
    Ok(unsafe { std::os::fd::FromRawFd::from_raw_fd(raw) })
}

fn run(path: &CStr, actions: &Actions, attributes: &Attributes, program: &Program<'_>) -> io::Result<u32> {
    let mut pid: libc::pid_t = 0;
    let argv = pointers(program.args);
    let envp = pointers(program.env);
    // SAFETY: every pointer is to a live, initialised object; both arrays end
    // with a null pointer and their strings outlive the call.
    check(unsafe {
        libc::posix_spawn(&mut pid, path.as_ptr(), &actions.0, &attributes.0, argv.as_ptr(), envp.as_ptr())
    })?;
    u32::try_from(pid).map_err(io::Error::other)
}

fn pointers(strings: &[CString]) -> Vec<*mut libc::c_char> {
    strings.iter().map(|s| s.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
}

/// posix_spawn(3) and its relations return the errno.
fn check(errno: libc::c_int) -> io::Result<()> {
    if errno == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(errno)) }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Self> {
        let mut raw = mem::MaybeUninit::uninit();
        // SAFETY: init writes the whole object, or fails.
        check(unsafe { libc::posix_spawn_file_actions_init(raw.as_mut_ptr()) })?;
        // SAFETY: it has been initialised.
        Ok(Self(unsafe { raw.assume_init() }))
    }

    fn dup2(&mut self, from: BorrowedFd<'_>, to: i32) -> io::Result<()> {
        // SAFETY: the object is initialised; numbers are copied.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, from.as_raw_fd(), to) })
    }

    fn fchdir(&mut self, dir: BorrowedFd<'_>) -> io::Result<()> {
        // SAFETY: the object is initialised; a number is copied.
        check(unsafe { libc::posix_spawn_file_actions_addfchdir_np(&mut self.0, dir.as_raw_fd()) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: it was initialised and is not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut raw = mem::MaybeUninit::uninit();
        // SAFETY: init writes the whole object, or fails.
        check(unsafe { libc::posix_spawnattr_init(raw.as_mut_ptr()) })?;
        // SAFETY: it has been initialised.
        let mut this = Self(unsafe { raw.assume_init() });
        // KILL and STOP can't be set, and glibc skips its own.
        let mut default = SigSet::all();
        default.remove(Signal::SIGKILL);
        default.remove(Signal::SIGSTOP);
        let flags =
            libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK | i32::from(libc::POSIX_SPAWN_SETSID);
        let flags = libc::c_short::try_from(flags).map_err(io::Error::other)?;
        // SAFETY: the object is initialised; the sets are copied.
        unsafe {
            check(libc::posix_spawnattr_setsigdefault(&mut this.0, default.as_ref()))?;
            check(libc::posix_spawnattr_setsigmask(&mut this.0, SigSet::empty().as_ref()))?;
            check(libc::posix_spawnattr_setflags(&mut this.0, flags))?;
        }
        Ok(this)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: it was initialised and is not used again.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use std::{fs::File, io::Read as _};

    #[test]
    fn a_program_gets_its_descriptors_directory_and_environment_alone() {
        keep_descriptors().expect("close_range");
        let sh = File::open("/bin/sh").expect("sh");
        let dir = tempfile::tempdir().expect("tempdir");
        let cwd = File::open(dir.path()).expect("open");
        let null = File::open("/dev/null").expect("null");
        let (mut read, write) = io::pipe().expect("pipe");
        let script = "pwd; echo $A; ls /proc/self/fd; exit 7";
        let args = ["sh", "-c", script].map(|s| CString::new(s).expect("text"));
        let pid = spawn(&Program {
            executable: sh.as_fd(),
            args: &args,
            env: &[c"A=b".to_owned(), c"PATH=/bin:/usr/bin".to_owned()],
            cwd: cwd.as_fd(),
            fds: &[null.as_fd(), write.as_fd(), write.as_fd(), null.as_fd()],
        })
        .expect("spawn");
        drop(write);
        let mut text = String::new();
        read.read_to_string(&mut text).expect("read");
        // 4 is ls's own descriptor of the directory.
        assert_eq!(text, format!("{}\nb\n0\n1\n2\n3\n4\n", dir.path().display()));
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("pid"));
        assert_eq!(waitpid(pid, None).expect("wait"), WaitStatus::Exited(pid, 7));
    }

    #[test]
    fn what_is_no_program_is_an_error() {
        let null = File::open("/dev/null").expect("null");
        let root = File::open("/").expect("root");
        let args = [c"x".to_owned()];
        let program =
            Program { executable: null.as_fd(), args: &args, env: &[], cwd: root.as_fd(), fds: &[] };
        assert!(spawn(&program).is_err());
    }
}
