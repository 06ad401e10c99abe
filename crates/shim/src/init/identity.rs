// SPDX-License-Identifier: Apache-2.0
//! Finds out who the container's user is, from the container's own files.

use std::path::Path;

use nix::{errno::Errno, fcntl::OFlag};

use super::passwd::{self, User};
use crate::{
    kernel::paths::{self, Root},
    runtime::{During as _, Identity, Result},
};

/// As containerd has it: an image can't make us read more.
const MAX_FILE: u64 = 10 << 20;

pub(super) fn resolve(root: &Root, identity: &Identity) -> Result<User> {
    let accounts = read(root, "/etc/passwd")?;
    match identity {
        Identity::Numbers { uid, gid, additional } => {
            Ok(passwd::by_number(*uid, *gid, additional, &accounts))
        }
        Identity::Lookup { user, additional } => {
            passwd::look_up(user, additional, &accounts, &read(root, "/etc/group")?)
        }
    }
}

/// A file of the container; one that isn't there is empty. Opening it neither
/// waits (for a FIFO's writer) nor takes a terminal.
fn read(root: &Root, path: &str) -> Result<Vec<u8>> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match root.open(Path::new(path), flags) {
        Err(e) if matches!(e.errno(), Errno::ENOENT | Errno::ENOTDIR) => return Ok(Vec::new()),
        result => result.during(|| format!("read the container's {path}"))?,
    };
    paths::read_regular(file, MAX_FILE).during(|| format!("read the container's {path}"))
}
