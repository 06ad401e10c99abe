// SPDX-License-Identifier: Apache-2.0
//! Sockets that keep message boundaries and can carry a descriptor: a pair, or
//! one with a name in a directory.
#![allow(unsafe_code, reason = "a received descriptor is a bare number")]

use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
    time::Instant,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
        accept4, bind, connect, listen, recvmsg, sendmsg, socket, socketpair,
    },
};

use super::{Procfs, Result, SysError, fd, sys};

/// The two ends, both `O_CLOEXEC`.
///
/// # Errors
/// EMFILE.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let result = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC);
    sys(result, || "socketpair(AF_UNIX, SOCK_SEQPACKET)".to_owned())
}

/// Sends one message, and a descriptor with it.
///
/// # Errors
/// EPIPE when the other end is closed (no SIGPIPE).
pub fn send(socket: impl AsFd, message: &[u8], descriptor: Option<&OwnedFd>) -> Result<()> {
    let socket = socket.as_fd();
    let descriptors: Vec<RawFd> = descriptor.iter().map(|d| d.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let control = if descriptors.is_empty() { &rights[..0] } else { &rights[..] };
    let result =
        sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(message)], control, MsgFlags::MSG_NOSIGNAL, None);
    sys(result, || format!("sendmsg({}, {} bytes)", fd(socket), message.len())).map(drop)
}

/// Sends one message by write(2).
///
/// # Errors
/// Those of write(2).
pub fn write(socket: impl AsFd, message: &[u8]) -> Result<()> {
    let result = nix::unistd::write(socket.as_fd(), message);
    sys(result, || format!("write({}, {} bytes)", fd(socket.as_fd()), message.len())).map(drop)
}

/// Receives one message into `buffer`: its length (0 when the other end is
/// closed) and its descriptor. Waits until `deadline`, or for ever.
///
/// # Errors
/// ETIMEDOUT.
pub fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
    deadline: Option<Instant>,
) -> Result<(usize, Option<OwnedFd>)> {
    let socket = socket.as_fd();
    loop {
        if let Some(deadline) = deadline {
            wait(socket, deadline)?;
        }
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags) {
            // The other end closed before it had read all: said once, and before
            // what it has sent can be received.
            Err(Errno::EINTR | Errno::ECONNRESET) => continue,
            result => sys(result, || format!("recvmsg({})", fd(socket)))?,
        };
        let mut descriptor = None;
        for control in sys(message.cmsgs(), || "recvmsg: control message".to_owned())? {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                for number in numbers {
                    // SAFETY: the kernel has just made this descriptor for us
                    // alone; those before it are closed here.
                    descriptor = Some(unsafe { OwnedFd::from_raw_fd(number) });
                }
            }
        }
        return Ok((message.bytes, descriptor));
    }
}

/// A listening socket with a name in the directory `dir`, `O_CLOEXEC`.
///
/// # Errors
/// EADDRINUSE when there is a file of that name.
pub fn listen_at(dir: impl AsFd, name: &str) -> Result<OwnedFd> {
    let (socket, address) = named(&dir, name)?;
    sys(bind(socket.as_raw_fd(), &address), || format!("bind({}/{name})", fd(&dir)))?;
    sys(listen(&socket, Backlog::MAXCONN), || format!("listen({}/{name})", fd(&dir)))?;
    Ok(socket)
}

/// Connects to the socket of a name in the directory `dir`.
///
/// # Errors
/// ENOENT without one, ECONNREFUSED when nobody listens.
pub fn connect_at(dir: impl AsFd, name: &str) -> Result<OwnedFd> {
    let (socket, address) = named(&dir, name)?;
    sys(connect(socket.as_raw_fd(), &address), || format!("connect({}/{name})", fd(&dir)))?;
    Ok(socket)
}

/// Connects to a stream socket at a path of the host.
///
/// # Errors
/// Those of connect(2); ENAMETOOLONG for more than 107 bytes.
pub fn connect_stream(path: &Path) -> Result<OwnedFd> {
    let address = sys(UnixAddr::new(path), || format!("sockaddr_un({path:?})"))?;
    let result = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let socket = sys(result, || "socket(AF_UNIX, SOCK_STREAM)".to_owned())?;
    sys(connect(socket.as_raw_fd(), &address), || format!("connect({path:?})"))?;
    Ok(socket)
}

/// A socket, and an address that is short however long the directory's path.
fn named(dir: impl AsFd, name: &str) -> Result<(OwnedFd, UnixAddr)> {
    // The kernel looks it up: no address is a descriptor.
    Procfs::of_host()?;
    let path = format!("/proc/self/fd/{}/{name}", dir.as_fd().as_raw_fd());
    let address = sys(UnixAddr::new(path.as_str()), || format!("sockaddr_un({path:?})"))?;
    let result = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None);
    Ok((sys(result, || "socket(AF_UNIX, SOCK_SEQPACKET)".to_owned())?, address))
}

/// Waits for somebody to connect.
///
/// # Errors
/// Those of accept4(2).
pub fn accept(listener: &OwnedFd) -> Result<OwnedFd> {
    loop {
        match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            Err(Errno::EINTR | Errno::ECONNABORTED) => {}
            // SAFETY: the kernel has just made this descriptor for us alone.
            Ok(number) => return Ok(unsafe { OwnedFd::from_raw_fd(number) }),
            Err(errno) => return Err(SysError::new(format!("accept4({})", fd(listener)), errno)),
        }
    }
}

fn wait(socket: std::os::fd::BorrowedFd<'_>, deadline: Instant) -> Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(socket, PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_zero() => {
                return Err(SysError::new(format!("recvmsg({})", fd(socket)), Errno::ETIMEDOUT));
            }
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(SysError::new(format!("poll({})", fd(socket)), errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        time::Duration,
    };

    use super::*;

    #[test]
    fn a_message_carries_a_descriptor() {
        let (a, b) = pair().expect("pair");
        let (mut reader, writer) = std::io::pipe().expect("pipe");
        send(&a, b"x", Some(&OwnedFd::from(writer))).expect("send");
        let mut buffer = [0; 8];
        let (n, descriptor) = receive(&b, &mut buffer, None).expect("receive");
        assert_eq!(&buffer[..n], b"x");
        let mut writer = std::fs::File::from(descriptor.expect("descriptor"));
        writer.write_all(b"through").expect("write");
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("read");
        assert_eq!(text, "through");
        drop(a);
        assert_eq!(receive(&b, &mut buffer, None).expect("eof").0, 0);
    }

    #[test]
    fn the_last_words_of_a_peer_are_heard() {
        let (a, b) = pair().expect("pair");
        send(&b, b"unread", None).expect("send");
        send(&a, b"last words", None).expect("send");
        drop(a);
        let mut buffer = [0; 16];
        let (n, _) = receive(&b, &mut buffer, None).expect("receive");
        assert_eq!(&buffer[..n], b"last words");
        assert_eq!(receive(&b, &mut buffer, None).expect("eof").0, 0);
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let (_a, b) = pair().expect("pair");
        let deadline = Instant::now() + Duration::from_millis(5);
        let e = receive(&b, &mut [0; 8], Some(deadline)).expect_err("nothing was sent");
        assert_eq!(e.errno(), Errno::ETIMEDOUT);
    }
}
