// SPDX-License-Identifier: Apache-2.0
//! What the shim and a container's init say to each other, one message a
//! packet. A first byte tells which; nothing in them comes from a container.
//!
//! ```text
//! shim                          init
//!                 ←  Warning(text)      any number
//! Mapped          →                     only with a new user namespace
//! Mount + fd      →                     those that only the host's root can make
//! CgroupReady     →                     it is in all its cgroups
//!                 ←  HooksDue           only where there are hooks
//! HooksDone       →                     those that the runtime runs
//!                 ←  Listener            of a filter that reports calls
//! ListenerTaken   →
//!                 ←  Console + fd       a terminal was asked for
//!                 ←  Created            all but execve is done
//! Start           →
//!                 ←  (end of file)      execve closed the socket
//! ```
//! A process that joins a container sends `Made` with the pidfd of its sibling
//! instead of `Created`; that one is told to start ([`crate::init::join`]).
//! A container that waits at a socket ([`listen`]) gets its `Start` there, and
//! answers there.
//!
//! Instead of any of its messages init may send `Failed` and end.

use std::{
    os::fd::{AsFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::{
    error::{Error, Kind, Result},
    hooks::{Hooks, Moment},
};
use crate::kernel::socket;

/// How long execve may take; a program on a dead network file system would
/// take for ever.
const EXECUTED_WITHIN: Duration = Duration::from_secs(30);

/// Longer texts are cut: a message is one packet.
const MAX_TEXT: usize = 4096;

/// From the shim to init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ToInit {
    Mapped = b'm',
    /// Comes with a descriptor: [`send_mount`].
    Mount = b'M',
    CgroupReady = b'g',
    HooksDone = b'h',
    ListenerTaken = b'l',
    Start = b's',
}

/// From init to the shim.
#[derive(Debug)]
pub(crate) enum ToShim {
    Warning(String),
    Console(OwnedFd),
    /// Of a helper: what it was made for.
    Made(OwnedFd),
    HooksDue,
    /// The number of the descriptor in init.
    Listener(i32),
    Created,
    Failed(Error),
    /// Init has executed its program, or died.
    End,
}

/// Sends to init.
pub(crate) fn tell_init(socket: impl AsFd, message: ToInit) -> Result<()> {
    Ok(socket::send(socket, &[message as u8], None)?)
}

/// Waits for `message` from the shim.
///
/// # Errors
/// When the shim has died, or says something else.
pub(crate) fn wait_for(socket: impl AsFd, message: ToInit) -> Result<()> {
    let mut buffer = [0; 1];
    match socket::receive(socket, &mut buffer, None)? {
        (1, None) if buffer[0] == message as u8 => Ok(()),
        _ => Err(Error::new(Kind::Os, format!("the shim ended before it said {message:?}"))),
    }
}

/// Sends a mount that init has to attach.
pub(super) fn send_mount(socket: impl AsFd, mount: &OwnedFd) -> Result<()> {
    Ok(socket::send(socket, &[ToInit::Mount as u8], Some(mount))?)
}

/// Waits for such a mount.
///
/// # Errors
/// As [`wait_for`].
pub(crate) fn receive_mount(socket: impl AsFd) -> Result<OwnedFd> {
    let mut buffer = [0; 1];
    match socket::receive(socket, &mut buffer, None)? {
        (1, Some(mount)) if buffer[0] == ToInit::Mount as u8 => Ok(mount),
        _ => Err(Error::new(Kind::Os, "the shim ended before it sent a mount")),
    }
}

/// Sends to the shim.
pub(crate) fn tell_shim(socket: impl AsFd, message: &ToShim) -> Result<()> {
    let (bytes, descriptor) = match message {
        ToShim::Warning(text) => (with_text(b"w", text), None),
        ToShim::Console(master) => (vec![b't'], Some(master)),
        ToShim::Made(what) => (vec![b'M'], Some(what)),
        ToShim::HooksDue => (vec![b'h'], None),
        // Not by sendmsg(2), which the filter may report.
        ToShim::Listener(number) => {
            return Ok(socket::write(socket, &with_text(b"l", &number.to_string()))?);
        }
        ToShim::Created => (vec![b'c'], None),
        ToShim::Failed(e) => (with_text(&[b'f', kind_to_byte(e.kind())], &e.to_string()), None),
        ToShim::End => return Ok(()),
    };
    Ok(socket::send(socket, &bytes, descriptor)?)
}

/// The next message of init.
///
/// # Errors
/// ETIMEDOUT, or a message that init doesn't send.
pub(crate) fn from_init(socket: impl AsFd, deadline: Instant) -> Result<ToShim> {
    let mut buffer = [0; MAX_TEXT + 2];
    let (length, descriptor) = socket::receive(socket, &mut buffer, Some(deadline))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match (&buffer[..length], descriptor) {
        ([], None) => Ok(ToShim::End),
        ([b'w', rest @ ..], None) => Ok(ToShim::Warning(text(rest))),
        ([b't'], Some(master)) => Ok(ToShim::Console(master)),
        ([b'M'], Some(made)) => Ok(ToShim::Made(made)),
        ([b'h'], None) => Ok(ToShim::HooksDue),
        ([b'l', number @ ..], None) => match text(number).parse() {
            Ok(number) => Ok(ToShim::Listener(number)),
            Err(_) => Err(Error::new(Kind::Os, "init has a listener without a number")),
        },
        ([b'c'], None) => Ok(ToShim::Created),
        ([b'f', kind, rest @ ..], None) => Ok(ToShim::Failed(Error::new(kind_from_byte(*kind), text(rest)))),
        (other, _) => Err(Error::new(Kind::Os, format!("init sent {:?}", text(other)))),
    }
}

fn with_text(head: &[u8], text: &str) -> Vec<u8> {
    let mut bytes = head.to_vec();
    bytes.extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(MAX_TEXT)]);
    bytes
}

/// The socket in a container's directory.
const START_SOCKET: &str = "start.sock";

/// Makes the socket in the directory `dir` that a container waits at for its
/// start. Who may enter the directory may start the container.
///
/// # Errors
/// EADDRINUSE when there is one.
pub fn listen(dir: impl AsFd) -> Result<OwnedFd> {
    Ok(socket::listen_at(dir, START_SOCKET)?)
}

/// Whether a container waits for its start in the directory `dir`.
///
/// # Errors
/// Those of connect(2).
pub fn is_waiting(dir: impl AsFd) -> Result<bool> {
    Ok(reach(dir)?.is_some())
}

/// Lets the container that waits in the directory `dir` execute its program.
///
/// # Errors
/// `NotRunning` when none waits there; those of the execution: its first
/// process has ended then.
pub fn start(dir: impl AsFd, hooks: &Hooks) -> Result<()> {
    let Some(socket) = reach(dir)? else {
        return Err(Error::new(Kind::NotRunning, "the container doesn't wait to be started"));
    };
    tell_init(&socket, ToInit::Start)?;
    executed(&socket, hooks)
}

/// Waits until init has executed its program.
pub(super) fn executed(socket: impl AsFd, hooks: &Hooks) -> Result<()> {
    let within = EXECUTED_WITHIN + hooks.time(Moment::StartContainer);
    match from_init(socket, Instant::now() + within)? {
        ToShim::End => Ok(()),
        ToShim::Failed(e) => Err(e),
        other => Err(Error::new(Kind::Os, format!("init sent {other:?} after its start"))),
    }
}

/// Connects to who waits; `None` when nobody does any more.
fn reach(dir: impl AsFd) -> Result<Option<OwnedFd>> {
    match socket::connect_at(dir, START_SOCKET) {
        // No process has it open: the program has been executed, or has ended.
        Err(e) if matches!(e.errno(), Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
        result => Ok(Some(result?)),
    }
}

/// Init's side of [`start`]: waits for who says so, for ever. One who goes
/// away without a word has only looked whether somebody waits.
pub(crate) fn await_start(listener: &OwnedFd) -> Result<OwnedFd> {
    loop {
        let socket = socket::accept(listener)?;
        if wait_for(&socket, ToInit::Start).is_ok() {
            return Ok(socket);
        }
    }
}

const KINDS: [(Kind, u8); 6] = [
    (Kind::ExecNotFound, b'n'),
    (Kind::ExecNotPermitted, b'p'),
    (Kind::InvalidSpec, b'i'),
    (Kind::NotRunning, b'r'),
    (Kind::Unsupported, b'u'),
    (Kind::Os, b'o'),
];

fn kind_to_byte(kind: Kind) -> u8 {
    KINDS.iter().find(|(k, _)| *k == kind).map_or(b'o', |(_, byte)| *byte)
}

fn kind_from_byte(byte: u8) -> Kind {
    KINDS.iter().find(|(_, b)| *b == byte).map_or(Kind::Os, |(kind, _)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_the_way() {
        let (a, b) = socket::pair().expect("pair");
        for (kind, _) in KINDS {
            let sent = Error::new(kind, "x".repeat(5000));
            tell_shim(&a, &ToShim::Failed(sent)).expect("send");
            let deadline = Instant::now() + Duration::from_secs(5);
            let ToShim::Failed(received) = from_init(&b, deadline).expect("receive") else { panic!("kind") };
            assert_eq!(received, Error::new(kind, "x".repeat(4096)));
        }
    }

    #[test]
    fn a_dead_shim_is_noticed() {
        let (a, b) = socket::pair().expect("pair");
        tell_init(&a, ToInit::CgroupReady).expect("send");
        wait_for(&b, ToInit::CgroupReady).expect("ready");
        drop(a);
        wait_for(&b, ToInit::Start).expect_err("the other end is closed");
    }
}
