// SPDX-License-Identifier: Apache-2.0
//! Sockets in another process's network namespace.
//!
//! A socket belongs to the namespace that it is made in, whoever uses it. So a
//! thread of its own joins the namespace, makes one, and ends: nothing else
//! ever runs there.

use std::{
    io,
    net::TcpStream,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    thread,
};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

/// A TCP socket, not connected and not blocking, in the network namespace of
/// the process that `pidfd` is of.
///
/// # Errors
/// `ESRCH` when it has ended; those of setns(2) and socket(2).
pub fn tcp_socket(pidfd: BorrowedFd<'_>, family: AddressFamily) -> io::Result<TcpStream> {
    let make = || -> nix::Result<OwnedFd> {
        setns(pidfd.as_fd(), CloneFlags::CLONE_NEWNET)?;
        socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
    };
    let made = thread::scope(|scope| {
        let builder = thread::Builder::new().name("berthd-netns".to_owned());
        let thread = builder.spawn_scoped(scope, make)?;
        thread.join().map_err(|_| io::Error::other("a thread has panicked"))
    })?;
    Ok(TcpStream::from(made?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_made_in_ones_own_namespace_too() {
        let me = crate::kernel::pidfd::open(std::process::id()).expect("open");
        match tcp_socket(me.as_fd(), AddressFamily::Inet) {
            Ok(socket) => assert!(socket.peer_addr().is_err(), "nobody is there"),
            // Joining needs CAP_SYS_ADMIN, also where one is already.
            Err(e) => assert_eq!(e.raw_os_error(), Some(libc::EPERM), "{e}"),
        }
    }
}
