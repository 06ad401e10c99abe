// SPDX-License-Identifier: Apache-2.0
//! Starting shims, all of them from one sealed copy of the program.

use std::{
    ffi::{CString, NulError},
    fs::File,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use berth::{bootstrap, bundle::ProcessIdentity, failpoint};

use super::bundle::Bundle;
use crate::{
    domain::record::Record,
    error::{Context as _, Error, Kind, Result},
    kernel::{memfd, pidfd, spawn},
};

/// The environment variable with the level of a shim's own log.
const LOG_VARIABLE: &str = "BERTH_SHIM_LOG";

/// The only variable that a shim needs.
const SHIM_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts shims.
#[derive(Debug)]
pub struct Manager {
    program: OwnedFd,
    null: File,
    env: Vec<CString>,
    cgroup_parent: String,
}

/// A shim that was started: watched by the caller from here on.
#[derive(Debug)]
pub struct Started {
    /// Who it is.
    pub identity: ProcessIdentity,
    /// The process.
    pub pidfd: OwnedFd,
}

impl Manager {
    /// Seals a copy of the shim's program. Blocks.
    ///
    /// # Errors
    /// `NotFound` when there is no program at `binary`; those of the host.
    pub fn new(binary: &Path, cgroup_parent: &str) -> Result<Self> {
        if !binary.is_file() {
            return Err(Error::new(
                Kind::NotFound,
                format!(
                    "no shim at {}: install berth-shim beside berthd, or configure its path",
                    binary.display()
                ),
            ));
        }
        let program = memfd::sealed_copy(binary, "berth-shim")
            .with_context(|| format!("seal a copy of {}", binary.display()))?;
        let null = File::options().read(true).write(true).open("/dev/null").context("open /dev/null")?;
        let level = std::env::var(LOG_VARIABLE).ok().map(|level| format!("{LOG_VARIABLE}={level}"));
        let failpoints = std::env::var(failpoint::VARIABLE).ok().filter(|_| cfg!(feature = "failpoints"));
        let failpoints = failpoints.map(|path| format!("{}={path}", failpoint::VARIABLE));
        let env = std::iter::once(SHIM_PATH.to_owned())
            .chain(level)
            .chain(failpoints)
            .map(text)
            .collect::<Result<_>>()?;
        Ok(Self { program, null, env, cgroup_parent: cgroup_parent.to_owned() })
    }

    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    pub(super) fn null(&self) -> BorrowedFd<'_> {
        self.null.as_fd()
    }

    /// The cgroup of a container, below each hierarchy.
    #[must_use]
    pub fn cgroup(&self, record: &Record) -> String {
        record.cgroup(&self.cgroup_parent)
    }

    /// The cgroup that a container's is made in.
    #[must_use]
    pub fn parent_of(&self, record: &Record) -> String {
        record.cgroup_parent(&self.cgroup_parent)
    }

    /// The cgroup below which all containers are that have no other.
    #[must_use]
    pub fn cgroup_parent(&self) -> &str {
        &self.cgroup_parent
    }

    /// Starts the shim of `bundle`. Blocks for the execve.
    ///
    /// # Errors
    /// Those of the host; no process is left then.
    pub fn start(&self, record: &Record, bundle: &Bundle) -> Result<Started> {
        let parent = self.parent_of(record);
        let listeners = bundle.listen()?;
        let log = bundle.shim_log()?;
        let args = [
            "berth-shim",
            bootstrap::SERVE,
            "--namespace",
            record.namespace.as_str(),
            "--id",
            record.id.as_str(),
            "--cgroup-parent",
            &parent,
        ];
        let args = args.into_iter().map(|arg| text(arg.to_owned())).collect::<Result<Vec<_>>>()?;
        // In the order of their numbers: bootstrap::TTRPC_FD is 3, ATTACH_FD 4.
        let fds =
            [self.null.as_fd(), log.as_fd(), log.as_fd(), listeners.task.as_fd(), listeners.attach.as_fd()];
        let program = spawn::Program {
            executable: self.program.as_fd(),
            args: &args,
            env: &self.env,
            cwd: bundle.dir(),
            fds: &fds,
        };
        let pid = spawn::spawn(&program).context("execute the shim")?;
        // Our child, not reaped yet: the pid is its own until we reap it.
        let pidfd = pidfd::open(pid).context("open the shim's process")?;
        let identity = pidfd::identify(pidfd.as_fd(), pid).context("identify the shim")?;
        Ok(Started { identity, pidfd })
    }
}

fn text(text: String) -> Result<CString> {
    CString::new(text)
        .map_err(|e: NulError| Error::new(Kind::Internal, "encode the shim's command line").with_source(e))
}
