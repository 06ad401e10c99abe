// SPDX-License-Identifier: Apache-2.0
//! Runs hooks, one after the other, and waits for each: its state on standard
//! input, its output kept for the error, killed with its whole session when
//! its time is over. Called by the shim and by `berth-oci` for what runs on
//! the host, and by init for what runs in the container.
//!
//! A hook inherits no descriptor but its three streams (D13).

use std::{
    convert::Infallible,
    ffi::CString,
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, SealFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

use super::error::{Error, Kind, Result};
pub use super::plan::{Hook, Hooks, Moment, State};
use crate::kernel::{
    SysError,
    process::{self, Child, CloseRange},
    sys,
};

/// What of a hook's output goes into its error.
const MAX_OUTPUT: usize = 2048;
/// The exit status of a hook that could not be executed, as of a shell.
const NOT_EXECUTED: i32 = 127;

impl Hooks {
    /// Runs the hooks of a moment that are the runtime's to run, in the
    /// bundle's directory, until one fails.
    ///
    /// # Errors
    /// Names the first hook that failed, and says what it has written.
    pub fn run(&self, moment: Moment, pid: Option<u32>) -> Result<()> {
        let place = Place { directory: Some(self.bundle()), env: &[] };
        self.each(moment, pid, place).find(Result::is_err).unwrap_or(Ok(()))
    }

    /// Runs the hooks of a moment in this process's directory, until one
    /// fails: init's, within the container. One that says nothing of its
    /// environment gets `env`.
    pub(crate) fn run_here(&self, moment: Moment, pid: u32, env: &[CString]) -> Result<()> {
        let place = Place { directory: None, env };
        self.each(moment, Some(pid), place).find(Result::is_err).unwrap_or(Ok(()))
    }

    /// Runs all hooks of the end, whatever becomes of them: what went wrong
    /// is for the log.
    #[must_use]
    pub fn run_poststop(&self) -> Vec<String> {
        let place = Place { directory: Some(self.bundle()), env: &[] };
        let results = self.each(Moment::Poststop, None, place);
        results.filter_map(|result| result.err().map(|e| e.to_string())).collect()
    }

    fn each<'a>(
        &'a self,
        moment: Moment,
        pid: Option<u32>,
        place: Place<'a>,
    ) -> impl Iterator<Item = Result<()>> + 'a {
        let state = self.state(moment, pid);
        self.at(moment).iter().enumerate().map(move |(index, hook)| {
            run(hook, &state, place).map_err(|e| {
                let path = hook.path.to_string_lossy();
                e.during(&format!("error running {moment} hook #{index}: {path}"))
            })
        })
    }
}

/// What a hook starts with that it doesn't say itself.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Its working directory, if it isn't the runtime's.
    directory: Option<&'a Path>,
    env: &'a [CString],
}

/// Runs one hook and waits until it has ended.
fn run(hook: &Hook, state: &State, place: Place<'_>) -> Result<()> {
    let input = state_file(state)?;
    let (mut stdout, out) = Output::new()?;
    let (mut stderr, err) = Output::new()?;
    let child = process::fork(|| become_hook(hook, [input.as_fd(), out.as_fd(), err.as_fd()], place))?;
    drop((out, err));
    let deadline = hook.timeout.map(|timeout| Instant::now() + timeout);
    let in_time = follow(&child, [&mut stdout, &mut stderr], deadline)?;
    if !in_time {
        // Its whole session, so that nothing of a shell script goes on. The
        // group is still the child's: it has not been reaped.
        let group = Pid::from_raw(child.pid.cast_signed());
        let result = killpg(group, Signal::SIGKILL);
        if result != Err(Errno::ESRCH) {
            sys(result, || format!("killpg({group}, SIGKILL)"))?;
        }
    }
    let ended = reap(&child)?;
    let why = match ended {
        _ if !in_time => {
            let seconds = hook.timeout.unwrap_or_default().as_secs_f32();
            format!("hook ran past specified timeout of {seconds:.1}s")
        }
        WaitStatus::Exited(_, 0) => return Ok(()),
        WaitStatus::Exited(_, status) => format!("exit status {status}"),
        WaitStatus::Signaled(_, signal, _) => format!("signal: {}", signal.as_str()),
        other => format!("{other:?}"),
    };
    Err(Error::new(Kind::Os, format!("{why}, stdout: {}, stderr: {}", stdout.text(), stderr.text())))
}

/// The state in a file that nobody can change: unlike a pipe it takes any
/// length, and doesn't mind a hook that reads nothing.
fn state_file(state: &State) -> Result<OwnedFd> {
    let text =
        serde_json::to_vec(state).map_err(|e| Error::invalid(format!("the container's state: {e}")))?;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(sys(memfd_create(c"state", flags), || "memfd_create(\"state\")".to_owned())?);
    let io = |call: &'static str| move |e: std::io::Error| SysError::from_io(call, &e);
    file.write_all(&text).map_err(io("write(memfd)"))?;
    file.rewind().map_err(io("lseek(memfd, 0)"))?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    sys(fcntl(&file, FcntlArg::F_ADD_SEALS(seals)), || "fcntl(memfd, F_ADD_SEALS)".to_owned())?;
    Ok(file.into())
}

/// The child's part. Why the hook could not be executed is written to its own
/// standard error.
fn become_hook(hook: &Hook, streams: [BorrowedFd<'_>; 3], place: Place<'_>) -> Infallible {
    let env = hook.env.as_deref().unwrap_or(place.env);
    let why = match prepare(streams, place.directory) {
        Ok(()) => process::execve(&hook.path, &hook.args, env).desc().to_lowercase(),
        Err(e) => e.to_string(),
    };
    let message = format!("exec {}: {why}", hook.path.to_string_lossy());
    // Nobody is left to tell that telling has failed.
    let _ = nix::unistd::write(streams[2], message.as_bytes());
    process::exit_now(NOT_EXECUTED)
}

fn prepare(streams: [BorrowedFd<'_>; 3], directory: Option<&Path>) -> Result<()> {
    sys(nix::unistd::setsid(), || "setsid()".to_owned())?;
    if let Some(directory) = directory {
        sys(nix::unistd::chdir(directory), || format!("chdir({directory:?})"))?;
    }
    process::place_streams(streams)?;
    process::close_from(3, CloseRange::AtExec)?;
    Ok(process::reset_signals()?)
}

/// Reads the output until the hook has ended. `false` when it has not by the
/// deadline.
fn follow(child: &Child, mut outputs: [&mut Output; 2], deadline: Option<Instant>) -> Result<bool> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let ready = wait(child, &outputs, left)?;
        let mut more = false;
        for (output, _) in outputs.iter_mut().zip(ready.outputs).filter(|(_, ready)| *ready) {
            output.take()?;
            more |= !output.is_full();
        }
        // Those whom the hook has left behind may write for ever.
        if ready.ended && !more {
            return Ok(true);
        }
        if !ready.ended && left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
    }
}

/// What a wait has found.
struct Ready {
    ended: bool,
    outputs: [bool; 2],
}

/// Waits for the hook's end or some output, or for a time.
fn wait(child: &Child, outputs: &[&mut Output; 2], left: Option<Duration>) -> Result<Ready> {
    let timeout = match left {
        // A longer time than poll takes is asked for again.
        Some(left) => PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
        None => PollTimeout::NONE,
    };
    let mut set = vec![PollFd::new(child.pidfd.as_fd(), PollFlags::POLLIN)];
    let pipes = outputs.iter().filter_map(|output| output.pipe.as_ref());
    set.extend(pipes.map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
    match poll(&mut set, timeout) {
        Err(Errno::EINTR) => {}
        result => drop(sys(result, || "poll(hook)".to_owned())?),
    }
    let mut ready = set.iter().map(|fd| fd.any().unwrap_or(false));
    let ended = ready.next().unwrap_or(false);
    let outputs = [0, 1].map(|i| outputs[i].pipe.is_some() && ready.next().unwrap_or(false));
    Ok(Ready { ended, outputs })
}

/// How the hook has ended.
fn reap(child: &Child) -> Result<WaitStatus> {
    loop {
        match waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED) {
            Err(Errno::EINTR) => {}
            result => return Ok(sys(result, || format!("waitid({})", child.pid))?),
        }
    }
}

/// One stream of a hook: read to its end, and its beginning kept.
struct Output {
    /// Until the last writer has closed it.
    pipe: Option<File>,
    text: Vec<u8>,
}

impl Output {
    /// Both ends of a pipe.
    fn new() -> Result<(Self, OwnedFd)> {
        let (reader, writer) =
            sys(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC), || "pipe2(O_CLOEXEC)".to_owned())?;
        Ok((Self { pipe: Some(reader.into()), text: Vec::new() }, writer))
    }

    /// Reads what is there.
    fn take(&mut self) -> Result<()> {
        let Some(pipe) = &mut self.pipe else { return Ok(()) };
        let mut buffer = [0; MAX_OUTPUT];
        match pipe.read(&mut buffer) {
            Ok(0) => self.pipe = None,
            Ok(n) => self.text.extend_from_slice(&buffer[..n.min(MAX_OUTPUT - self.text.len())]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(SysError::from_io("read(hook's output)", &e).into()),
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.text.len() == MAX_OUTPUT
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text).trim_end().to_owned()
    }
}
