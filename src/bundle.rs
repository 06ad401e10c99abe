// SPDX-License-Identifier: Apache-2.0
//! The bundle: one container's directory in the engine's state directory, and
//! the small records in it that outlive either process.
//!
//! ```text
//! <state>/bundles/<namespace>/<id>/
//!   config.json   OCI runtime configuration           engine
//!   shim.sock     ttrpc, made by the engine, inherited by the shim
//!   attach.sock   stdio of the first process, likewise
//!   shim.json     identity of the shim process        engine
//!   init.json     identity of the first process       shim
//!   exit.json     how the first process ended         shim
//! ```
//!
//! A record is written to a temporary file, synced and renamed, so that a
//! reader sees all of it or none.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Before the path of a mount namespace, in the options of a bind in config.json:
/// its source is looked up there, without following links.
pub const MOUNT_NAMESPACE: &str = "berth.mount-namespace=";

/// OCI runtime configuration.
pub const CONFIG: &str = "config.json";
/// ttrpc socket of the shim.
pub const SHIM_SOCKET: &str = "shim.sock";
/// Attach socket of the shim; see [`crate::attach`].
pub const ATTACH_SOCKET: &str = "attach.sock";
/// [`ProcessIdentity`] of the shim.
pub const SHIM_RECORD: &str = "shim.json";
/// [`ProcessIdentity`] of the container's first process.
pub const INIT_RECORD: &str = "init.json";
/// [`ExitRecord`] of the container's first process.
pub const EXIT_RECORD: &str = "exit.json";

/// The directory of a container's bundle below the state directory.
#[must_use]
pub fn path(state: &Path, namespace: &crate::ids::Namespace, id: &crate::ids::ContainerId) -> PathBuf {
    state.join("bundles").join(namespace.as_str()).join(id.as_str())
}

/// One process, for ever: a reused pid is never mistaken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Process id in the engine's pid namespace.
    pub pid: u32,
    /// Inode of its pidfd: unique since boot (pidfs, Linux 6.9); 0 where the
    /// kernel has no pidfs.
    pub pidfd_inode: u64,
    /// Start time in clock ticks since boot, field 22 of proc_pid_stat(5).
    pub start_time: u64,
    /// /proc/sys/kernel/random/boot_id at that time.
    pub boot_id: String,
}

/// How a container's first process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Process id in the engine's pid namespace; 0 when it never ran.
    pub pid: u32,
    /// 0 to 255; 128+n for a signal n, as a shell has it.
    pub exit_code: u8,
    /// Nanoseconds since the Unix epoch.
    pub exited_at: u64,
    /// The kernel's out-of-memory killer ended a process of the container.
    #[serde(default)]
    pub oom_killed: bool,
}

impl ExitRecord {
    /// [`Self::exited_at`] as a time.
    #[must_use]
    pub fn exited_at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.exited_at)
    }
}

/// Nanoseconds since the Unix epoch, as records carry them.
#[must_use]
pub fn now_nanos() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Writes `record` as `dir/name`: temporary file, fsync, rename, fsync of the
/// directory.
///
/// # Errors
/// Those of the file system; the old record, if any, is then still whole.
pub fn write_record<T: Serialize>(dir: &Path, name: &str, record: &T) -> io::Result<()> {
    let text = serde_json::to_vec(record)?;
    let temporary = dir.join(format!(".{name}.tmp"));
    let mut file = File::create(&temporary)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// Reads `dir/name`; `None` when there is no such record.
///
/// # Errors
/// Those of the file system, and `InvalidData` for a damaged record.
pub fn read_record<T: DeserializeOwned>(dir: &Path, name: &str) -> io::Result<Option<T>> {
    match fs::read(dir.join(name)) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(io::Error::from),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let dir = tempfile::tempdir().expect("tempdir");
        let record =
            ExitRecord { pid: 7, exit_code: 137, exited_at: 1_700_000_000_123_456_789, oom_killed: true };
        write_record(dir.path(), EXIT_RECORD, &record).expect("write");
        assert_eq!(read_record(dir.path(), EXIT_RECORD).expect("read"), Some(record));
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1);
    }

    #[test]
    fn no_record_is_not_an_error_and_a_damaged_one_is() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert_eq!(read_record::<ExitRecord>(dir.path(), EXIT_RECORD).expect("read"), None);
        fs::write(dir.path().join(EXIT_RECORD), "{").expect("write");
        assert!(read_record::<ExitRecord>(dir.path(), EXIT_RECORD).is_err());
    }
}
