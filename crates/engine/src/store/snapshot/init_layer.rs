// SPDX-License-Identifier: Apache-2.0
//! The layer that lies on top of every image: the mount points that every
//! container needs, as real directories and files.
//!
//! An image can thus neither lack them nor turn them into links that lead a
//! mount astray.

use std::{
    os::fd::{AsFd, BorrowedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::stat::{Mode, fchmod, mkdirat},
};

use crate::kernel::paths;

const DIRECTORIES: [&str; 7] = ["", "dev", "dev/pts", "dev/shm", "proc", "sys", "etc"];
const FILES: [&str; 4] = ["dev/console", "etc/hosts", "etc/hostname", "etc/resolv.conf"];

/// Makes the layer `name` in `dir`, or completes it.
pub(super) fn ensure(dir: BorrowedFd<'_>, name: &Path) -> nix::Result<()> {
    for path in DIRECTORIES {
        let path = name.join(path);
        match mkdirat(dir, &path, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(e),
        }
        // Whatever the engine's umask.
        fchmod(paths::open_dir(dir, &path)?, Mode::from_bits_truncate(0o755))?;
    }
    let init = paths::open_dir(dir, name)?;
    for path in FILES {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NOFOLLOW;
        let mode = Mode::from_bits_truncate(0o644);
        let file = paths::open_beneath(init.as_fd(), Path::new(path), flags, mode)?;
        fchmod(file, mode)?;
    }
    Ok(())
}
