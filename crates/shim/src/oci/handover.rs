// SPDX-License-Identifier: Apache-2.0
//! What `create`, `run` and `exec` give to their callers beside an exit code:
//! a terminal, a pidfd, a pid.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
};

use super::{Failure, cli::Matches};
use crate::kernel::{process, socket};

/// Where it's wanted.
#[derive(Debug)]
pub(super) struct Handover {
    console_socket: Option<PathBuf>,
    pidfd_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
}

impl Handover {
    /// From the flags that the three verbs share.
    pub(super) fn of(matches: &Matches) -> Self {
        Self {
            console_socket: matches.path("console-socket"),
            pidfd_socket: matches.path("pidfd-socket"),
            pid_file: matches.path("pid-file"),
        }
    }

    /// A terminal that nobody here carries needs somebody to have it.
    pub(super) fn check(&self, terminal: bool, detach: bool) -> Result<(), Failure> {
        let why = match (&self.console_socket, terminal && detach) {
            (None, true) => "cannot allocate tty if runc will detach without setting console socket",
            (Some(_), false) => "cannot use console socket if runc will not detach or allocate tty",
            _ => return Ok(()),
        };
        Err(Failure::new(why))
    }

    /// Whether the terminal goes to the caller.
    pub(super) fn wants_console(&self) -> bool {
        self.console_socket.is_some()
    }

    /// Gives all of it, and last the pid file, which says that all is done.
    pub(super) fn give(
        &self,
        pid: u32,
        pidfd: BorrowedFd<'_>,
        console: Option<OwnedFd>,
    ) -> Result<(), Failure> {
        if let Some(path) = &self.console_socket {
            let master = console.ok_or_else(|| Failure::new("the container has opened no terminal"))?;
            send(path, b"/dev/ptmx", &master)?;
        }
        if let Some(path) = &self.pidfd_socket {
            send(path, b"pidfd", &process::duplicate_above(pidfd, 3)?)?;
        }
        match &self.pid_file {
            Some(path) => write_pid(path, pid),
            None => Ok(()),
        }
    }
}

/// Sends a descriptor with a few words to a socket of the caller's.
fn send(path: &Path, words: &[u8], descriptor: &OwnedFd) -> Result<(), Failure> {
    let sent = socket::connect_stream(path).and_then(|s| socket::send(&s, words, Some(descriptor)));
    Ok(sent?)
}

/// Writes a pid, atomically: who sees the file sees all of it.
fn write_pid(path: &Path, pid: u32) -> Result<(), Failure> {
    let failed = |e: &io::Error| Failure::io(format!("write {}", path.display()), e);
    let Some(name) = path.file_name() else {
        return Err(Failure::new(format!("{} is no path of a file", path.display())));
    };
    let mut hidden = OsString::from(".");
    hidden.push(name);
    let temporary = path.with_file_name(hidden);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(&temporary)
        .map_err(|e| failed(&e))?;
    let written = write!(file, "{pid}").and_then(|()| fs::rename(&temporary, path));
    written.map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_whole_or_not_there() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("pid");
        write_pid(&path, 42).expect("write");
        assert_eq!(fs::read_to_string(&path).expect("read"), "42");
        write_pid(&path, 43).expect("again");
        assert_eq!(fs::read_to_string(&path).expect("read"), "43");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
        assert!(write_pid(Path::new("/"), 1).is_err());
    }
}
