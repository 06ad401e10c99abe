// SPDX-License-Identifier: Apache-2.0
//! What `run` and `exec` do while they wait in the foreground: every signal
//! is passed on, and a terminal is carried through byte by byte.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::SigSet,
        signalfd::{SfdFlags, SignalFd},
        termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

use super::Failure;
use crate::kernel::{
    SysError, process,
    tty::{self, Size},
};

/// What a terminal has that nobody has given one.
pub(super) const NO_SIZE: Size = Size { rows: 0, columns: 0 };

/// Bytes that are moved at once.
const CHUNK: usize = 16 * 1024;

/// A process that is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waited<'a> {
    pub(super) pid: u32,
    pub(super) pidfd: BorrowedFd<'a>,
}

impl Waited<'_> {
    /// Forwards signals and, with a terminal, every byte, until the process
    /// ends: its exit status, 128+n for a signal n.
    pub(super) fn wait(self, signals: &Signals, front: Option<(Front, OwnedFd)>) -> Result<u8, Failure> {
        match front {
            Some((front, master)) => front.run(master, self, signals)?,
            None => signals.forward(self)?,
        }
        let status = waitid(Id::PIDFd(self.pidfd), WaitPidFlag::WEXITED)
            .map_err(|e| Failure::io("wait for the process", &e.into()))?;
        Ok(match status {
            WaitStatus::Exited(_, code) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
            WaitStatus::Signaled(_, signal, _) => u8::try_from(128 + signal as i32).unwrap_or(u8::MAX),
            _ => 0,
        })
    }
}

/// All signals of this process, blocked and read from a descriptor.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

impl Signals {
    /// From now on none interrupts this process.
    pub(super) fn take() -> Result<Self, Failure> {
        let all = SigSet::all();
        all.thread_block().map_err(|e| Failure::io("block signals", &e.into()))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let descriptor = SignalFd::with_flags(&all, flags);
        Ok(Self(descriptor.map_err(|e| Failure::io("signalfd", &e.into()))?))
    }

    /// Passes signals on until the process has ended.
    fn forward(&self, to: Waited<'_>) -> Result<(), Failure> {
        loop {
            let mut set = [readable(self.0.as_fd()), readable(to.pidfd)];
            wait(&mut set)?;
            let [signal, ended] = set.map(|fd| fd.any() == Some(true));
            if ended {
                return Ok(());
            }
            if signal {
                self.pass_on(to, None)?;
            }
        }
    }

    /// Passes on those that are pending; a change of the terminal's size is
    /// for `front`.
    fn pass_on(&self, to: Waited<'_>, front: Option<(&Front, &OwnedFd)>) -> Result<(), Failure> {
        while let Some(info) = self.0.read_signal().map_err(|e| Failure::io("read a signal", &e.into()))? {
            let signal = info.ssi_signo.cast_signed();
            match (signal, front) {
                (libc::SIGCHLD, _) => reap_others(to.pid),
                (libc::SIGWINCH, Some((front, master))) => front.resize(master),
                _ => match process::pidfd_send_signal(to.pidfd, signal) {
                    Err(e) if e.errno() != Errno::ESRCH => return Err(e.into()),
                    _ => {}
                },
            }
        }
        Ok(())
    }
}

/// Reaps orphans of the container, whose subreaper this process is.
fn reap_others(pid: u32) {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(WaitStatus::Exited(ended, _) | WaitStatus::Signaled(ended, ..)) = waitid(Id::All, look) {
        // The one that is waited for is reaped last.
        if ended == Pid::from_raw(pid.cast_signed()) || waitid(Id::Pid(ended), WaitPidFlag::WEXITED).is_err()
        {
            break;
        }
    }
}

fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

fn wait(set: &mut [PollFd<'_>]) -> Result<(), Failure> {
    loop {
        match poll(set, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop).map_err(|e| Failure::io("poll", &e.into())),
        }
    }
}

/// The terminal that the user sits at. As it was when this goes out of scope.
#[derive(Debug)]
pub(super) struct Front {
    terminal: OwnedFd,
    before: Termios,
}

impl Front {
    /// The terminal of one of the standard streams, or the controlling one.
    pub(super) fn find() -> Result<Self, Failure> {
        let streams = [io::stderr().as_fd(), io::stdout().as_fd(), io::stdin().as_fd()]
            .map(|stream| stream.try_clone_to_owned());
        for stream in streams.into_iter().flatten() {
            if let Ok(before) = tcgetattr(&stream) {
                return Ok(Self { terminal: stream, before });
            }
        }
        let failed = |e: &io::Error| Failure::io("open /dev/tty", e);
        let terminal = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open("/dev/tty")
            .map_err(|e| failed(&e))?;
        let before = tcgetattr(&terminal).map_err(|e| failed(&e.into()))?;
        Ok(Self { terminal: terminal.into(), before })
    }

    /// Its size, so that the container's begins with it.
    pub(super) fn size(&self) -> Size {
        tty::size(&self.terminal).unwrap_or(NO_SIZE)
    }

    /// Carries bytes both ways until the process has ended.
    fn run(&self, master: OwnedFd, to: Waited<'_>, signals: &Signals) -> Result<(), Failure> {
        self.resize(&master);
        let mut raw = self.before.clone();
        cfmakeraw(&mut raw);
        // The user's terminal makes two characters of a line's end, so that the
        // container's, whose output may go to a file, needn't.
        raw.output_flags.insert(OutputFlags::OPOST);
        tcsetattr(&self.terminal, SetArg::TCSANOW, &raw)
            .map_err(|e| Failure::io("make the terminal raw", &e.into()))?;
        Bridge::new(master)?.carry(self, to, signals)
    }

    /// The container's terminal gets the size of this one.
    fn resize(&self, master: &OwnedFd) {
        // It may be gone already, or have no size.
        let _ = tty::size(&self.terminal).and_then(|size| tty::resize(master, size));
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // The user may have closed it.
        let _ = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before);
    }
}

/// The bytes between this process's streams and a container's terminal.
struct Bridge {
    master: File,
    /// Typed, and not yet taken.
    typed: Vec<u8>,
    input_open: bool,
}

impl Bridge {
    fn new(master: OwnedFd) -> Result<Self, Failure> {
        // A program that doesn't read must not stop its output from being read.
        let flags = fcntl(&master, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
        let set = flags.and_then(|flags| fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)));
        set.map_err(|e| SysError::new("fcntl(master, F_SETFL)", e))?;
        Ok(Self { master: master.into(), typed: Vec::new(), input_open: true })
    }

    fn carry(mut self, front: &Front, to: Waited<'_>, signals: &Signals) -> Result<(), Failure> {
        let stdin = io::stdin();
        loop {
            let wanted = if self.typed.is_empty() { PollFlags::POLLIN } else { PollFlags::all() };
            let wanted = wanted & (PollFlags::POLLIN | PollFlags::POLLOUT);
            let mut set = [
                readable(signals.0.as_fd()),
                readable(to.pidfd),
                PollFd::new(self.master.as_fd(), wanted),
                readable(stdin.as_fd()),
            ];
            let watched = if self.input_open && self.typed.is_empty() { 4 } else { 3 };
            wait(&mut set[..watched])?;
            let [signal, ended, master, input] = set.map(|fd| fd.any() == Some(true));
            if signal {
                let master = self.master.as_fd().try_clone_to_owned();
                let master = master.map_err(|e| Failure::io("dup", &e))?;
                signals.pass_on(to, Some((front, &master)))?;
            }
            if master {
                self.show()?;
            }
            if ended {
                return self.show();
            }
            if input && watched == 4 {
                self.read_input(stdin.as_fd());
            }
            self.write_typed();
        }
    }

    /// Shows what the container has written, all that is there.
    fn show(&mut self) -> Result<(), Failure> {
        let mut chunk = [0; CHUNK];
        let mut stdout = io::stdout();
        loop {
            match self.master.read(&mut chunk) {
                // EIO says that the container has its terminal closed.
                Ok(0) | Err(_) => break,
                Ok(n) => {
                    let written = stdout.write_all(&chunk[..n]).and_then(|()| stdout.flush());
                    written.map_err(|e| Failure::io("write to standard output", &e))?;
                }
            }
        }
        Ok(())
    }

    fn read_input(&mut self, stdin: BorrowedFd<'_>) {
        let mut chunk = [0; CHUNK];
        match nix::unistd::read(stdin, &mut chunk) {
            Ok(n) if n > 0 => self.typed.extend_from_slice(&chunk[..n]),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            _ => self.input_open = false,
        }
    }

    fn write_typed(&mut self) {
        if self.typed.is_empty() {
            return;
        }
        match self.master.write(&self.typed) {
            Ok(n) => drop(self.typed.drain(..n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock || e.kind() == io::ErrorKind::Interrupted => {}
            // Nobody reads it any more.
            Err(_) => self.typed.clear(),
        }
    }
}
