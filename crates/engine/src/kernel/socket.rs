// SPDX-License-Identifier: Apache-2.0
//! Unix sockets inside a directory that is open: the length of its path
//! doesn't matter (108 bytes is all that an address can hold).

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use nix::sys::{
    socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket},
    stat::{Mode, fchmod},
};

/// The address of `name` in `dir`, for as long as `dir` is open.
#[must_use]
pub fn address(dir: BorrowedFd<'_>, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

/// Makes a listening stream socket `name` in `dir`, for root alone (D14).
///
/// # Errors
/// `EADDRINUSE` when `name` exists; those of socket(2), bind(2), listen(2).
pub fn listen_in(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Before bind: the file gets the socket's mode, so that it is never open
    // to others for a moment (unix(7), and unix_bind in the kernel).
    fchmod(fd.as_fd(), Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(&address(dir, name))?)?;
    listen(&fd, Backlog::new(128)?)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, fs::File, os::unix::fs::PermissionsExt as _, os::unix::net::UnixStream};

    #[test]
    fn a_socket_in_a_deep_directory_listens_and_is_private() {
        let dir = tempfile::tempdir().expect("tempdir");
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
        fs::create_dir_all(&deep).expect("mkdir");
        let handle = File::open(&deep).expect("open");
        let _listener = listen_in(handle.as_fd(), "s").expect("listen");
        assert_eq!(fs::metadata(deep.join("s")).expect("stat").permissions().mode() & 0o777, 0o600);
        UnixStream::connect(address(handle.as_fd(), "s")).expect("connect");
        assert!(listen_in(handle.as_fd(), "s").is_err(), "it exists");
    }
}
