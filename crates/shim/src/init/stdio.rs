// SPDX-License-Identifier: Apache-2.0
//! Standard input, output and error: pipes from the shim, or a terminal of
//! the container's own devpts.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        stat::{SFlag, makedev},
        termios::{OutputFlags, SetArg, tcgetattr, tcsetattr},
    },
    unistd::Uid,
};

use crate::{
    kernel::{
        SysError, fd,
        mount::{self, Reach},
        paths::{self, Make, Root},
        process, sys,
        tty::{self, Size},
    },
    runtime::Result,
};

/// Terminals that a devpts makes have these major numbers
/// (Documentation/admin-guide/devices.txt).
const UNIX98_SLAVES: std::ops::RangeInclusive<u64> = 136..=143;

/// Opens a terminal in the container, makes it the standard streams and
/// /dev/console, and returns its master side.
pub(super) fn open_terminal(root: &Root, dev: Option<&Root>, (size, plain): (Size, bool)) -> Result<OwnedFd> {
    let master = root.open(Path::new("/dev/pts/ptmx"), OFlag::O_RDWR | OFlag::O_NOCTTY)?;
    let stat = paths::stat(&master)?;
    if paths::kind(&stat) != SFlag::S_IFCHR || stat.st_rdev != makedev(5, 2) {
        return Err(SysError::new("/dev/pts/ptmx is not device 5:2", Errno::ENODEV).into());
    }
    let slave = tty::peer(&master)?;
    tty::resize(&slave, size)?;
    if plain {
        let mut mode = sys(tcgetattr(&slave), || "tcgetattr(/dev/pts)".to_owned())?;
        mode.output_flags.remove(OutputFlags::ONLCR);
        sys(tcsetattr(&slave, SetArg::TCSANOW, &mode), || "tcsetattr(/dev/pts)".to_owned())?;
    }
    if let Some(dev) = dev {
        let console = dev.make(Path::new("/console"), Make::File)?;
        mount::attach(mount::clone_mount(&slave, Path::new(""), Reach::Mount)?, console)?;
    }
    process::place_streams([slave.as_fd(), slave.as_fd(), slave.as_fd()])?;
    Ok(master)
}

/// Makes the terminal that the streams are the controlling one of this
/// process's session.
pub(super) fn take_control() -> Result<()> {
    Ok(tty::take_control(std::io::stdin())?)
}

/// Gives the streams to the container's user, so that it can open them by
/// name (/dev/stdout). Only pipes and the container's own terminal: a file of
/// the host keeps its owner.
pub(super) fn give(uid: u32) -> Result<()> {
    if uid == 0 {
        return Ok(());
    }
    let streams = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    for stream in [streams.0.as_fd(), streams.1.as_fd(), streams.2.as_fd()] {
        let stat = paths::stat(stream)?;
        let ours = match paths::kind(&stat) {
            SFlag::S_IFIFO => true,
            SFlag::S_IFCHR => UNIX98_SLAVES.contains(&nix::sys::stat::major(stat.st_rdev)),
            _ => false,
        };
        if ours {
            match nix::unistd::fchown(stream, Some(Uid::from_raw(uid)), None) {
                // Its owner is nobody that this user namespace knows.
                Err(Errno::EPERM | Errno::EINVAL | Errno::EROFS) => {}
                result => sys(result, || format!("fchown({}, {uid})", fd(stream)))?,
            }
        }
    }
    Ok(())
}
