// SPDX-License-Identifier: Apache-2.0
//! `NOTIFY_SOCKET`: a service manager that waits for a container to be ready
//! (sd_notify(3)). The container gets a socket of its own, in a directory
//! that is bound to /run/notify; of what it says there only that it is ready
//! is passed on, and who the process to watch is.

use std::{
    env,
    ffi::OsString,
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            fs::{DirBuilderExt as _, PermissionsExt as _},
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use oci_spec::runtime::Spec;
use serde_json::json;

use super::{Failure, store::Entry};
use crate::kernel::socket;

const DIRECTORY: &str = "notify";
const NAME: &str = "notify.sock";
/// Where the container has the directory.
const INSIDE: &str = "/run/notify";
/// How long the manager may take to hear all: milliseconds.
const HEARD_WITHIN: u16 = 30_000;

/// Who waits to hear of the container.
#[derive(Debug)]
pub(super) struct Manager(OsString);

impl Manager {
    /// The one that has started this process, if it waits.
    pub(super) fn of_environment() -> Option<Self> {
        env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()).map(Self)
    }

    /// Makes the container's directory, and tells its program of it.
    pub(super) fn prepare(&self, entry: &Entry, spec: &mut Spec) -> Result<(), Failure> {
        let directory = entry.path().join(DIRECTORY);
        let made = DirBuilder::new().mode(0o755).create(&directory);
        made.map_err(|e| Failure::io(format!("mkdir {}", directory.display()), &e))?;
        let mount = json!({
            "destination": INSIDE,
            "source": directory,
            "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
        });
        let mount = serde_json::from_value(mount).map_err(|e| Failure::new(e.to_string()))?;
        let mut mounts = spec.mounts().clone().unwrap_or_default();
        mounts.push(mount);
        spec.set_mounts(Some(mounts));
        if let Some(process) = spec.process_mut() {
            let mut env = process.env().clone().unwrap_or_default();
            env.push(format!("NOTIFY_SOCKET={INSIDE}/{NAME}"));
            process.set_env(Some(env));
        }
        Ok(())
    }

    /// Listens, before the container can speak. `None` for a container that
    /// was made while nobody waited.
    pub(super) fn listen(self, entry: &Entry) -> Result<Option<Ear>, Failure> {
        let directory = entry.path().join(DIRECTORY);
        if !directory.is_dir() {
            return Ok(None);
        }
        let failed = |e: io::Error| Failure::io(format!("bind {}", directory.join(NAME).display()), &e);
        let open = fs::File::open(&directory).map_err(failed)?;
        // Short, however long the path is.
        let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", open.as_raw_fd()));
        let socket = UnixDatagram::bind(&path).map_err(failed)?;
        // Whatever user the program runs as.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).map_err(failed)?;
        Ok(Some(Ear { socket, manager: self }))
    }

    /// Says that the container is ready, and waits until it has been heard.
    fn tell(&self, ready: &[u8], main: u32) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::io(format!("NOTIFY_SOCKET {}", self.0.display()), &e);
        let client = UnixDatagram::unbound().map_err(failed)?;
        let address = match self.0.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(Path::new(&self.0)),
        };
        client.connect_addr(&address.map_err(failed)?).map_err(failed)?;
        client.send(&[ready, b"\n"].concat()).map_err(failed)?;
        client.send(format!("MAINPID={main}\n").as_bytes()).map_err(failed)?;
        // The manager closes it once it has seen what was sent before.
        let (ours, theirs) = io::pipe().map_err(failed)?;
        let theirs = OwnedFd::from(theirs);
        socket::send(&client, b"BARRIER=1", Some(&theirs))?;
        drop(theirs);
        match poll(&mut [PollFd::new(ours.as_fd(), PollFlags::POLLIN)], PollTimeout::from(HEARD_WITHIN)) {
            Ok(0) => Err(failed(io::ErrorKind::TimedOut.into())),
            Ok(_) => Ok(()),
            Err(e) => Err(failed(e.into())),
        }
    }
}

/// Hears what the container says.
#[derive(Debug)]
pub(super) struct Ear {
    socket: UnixDatagram,
    manager: Manager,
}

impl Ear {
    /// Waits until the container is ready, or has ended; tells the manager
    /// that `main` is the process to watch.
    pub(super) fn wait(&self, container: BorrowedFd<'_>, main: u32) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::io("wait for the container to be ready", &e);
        let mut message = [0; 4096];
        loop {
            let mut set = [self.socket.as_fd(), container].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            match poll(&mut set, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result.map_err(|e| failed(e.into()))?,
            };
            // What it said before its end counts.
            if set[0].any() != Some(true) {
                return Ok(());
            }
            let length = self.socket.recv(&mut message).map_err(failed)?;
            let mut lines = message[..length].split(|byte| *byte == b'\n');
            if let Some(ready) = lines.find(|line| line.starts_with(b"READY=")) {
                return self.manager.tell(ready, main);
            }
        }
    }
}
