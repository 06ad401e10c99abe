// SPDX-License-Identifier: Apache-2.0
//! One container's bundle directory, held open: made before its shim, removed
//! after it. Layout: `berth::bundle`. Everything here blocks.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use berth::bundle::{self, ExitRecord, ProcessIdentity};
use oci_spec::runtime::Spec;

use crate::{
    error::{Context as _, Error, Kind, Result},
    kernel::socket,
};

/// The shim's own messages.
const SHIM_LOG: &str = "shim.log";

/// Most bytes of a shim's messages that are repeated in the engine's log.
const LOG_TAIL: usize = 4096;

/// An open bundle.
#[derive(Debug)]
pub struct Bundle {
    path: PathBuf,
    dir: File,
}

/// Both sockets of a shim, listening.
#[derive(Debug)]
pub struct Listeners {
    /// For the Task service.
    pub task: OwnedFd,
    /// For stdio.
    pub attach: OwnedFd,
}

impl Bundle {
    /// Makes the bundle at `path`, which must not exist.
    ///
    /// # Errors
    /// Those of the host.
    pub fn create(path: &Path, spec: &Spec) -> Result<Self> {
        let mut private = DirBuilder::new();
        private.mode(0o700);
        if let Some(parent) = path.parent() {
            private.recursive(true).create(parent).context("make the directory of bundles")?;
        }
        private.recursive(false).create(path).with_context(|| format!("make bundle {}", path.display()))?;
        let bundle = Self::open(path)?;
        let text = serde_json::to_vec(spec).context("encode config.json")?;
        bundle.write(bundle::CONFIG, &text)?;
        Ok(bundle)
    }

    /// Opens the bundle at `path`.
    ///
    /// # Errors
    /// `NotFound` when there is none; those of the host.
    pub fn open(path: &Path) -> Result<Self> {
        let dir = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW).open(path);
        match dir {
            Ok(dir) => Ok(Self { path: path.to_owned(), dir }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                Err(Error::new(Kind::NotFound, format!("no bundle {}", path.display())).with_source(e))
            }
            Err(e) => Err(Error::io(format!("open bundle {}", path.display()), e)),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Makes both of the shim's sockets.
    ///
    /// # Errors
    /// Those of the host.
    pub fn listen(&self) -> Result<Listeners> {
        let listen = |name| socket::listen_in(self.dir(), name).with_context(|| format!("listen on {name}"));
        Ok(Listeners { task: listen(bundle::SHIM_SOCKET)?, attach: listen(bundle::ATTACH_SOCKET)? })
    }

    /// The file for the shim's own messages.
    ///
    /// # Errors
    /// Those of the host.
    pub fn shim_log(&self) -> Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).append(true).mode(0o600);
        options.open(self.path.join(SHIM_LOG)).context("open the shim's log")
    }

    /// The last of the shim's own messages; empty when there are none.
    #[must_use]
    pub fn shim_messages(&self) -> String {
        let text = fs::read(self.path.join(SHIM_LOG)).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(LOG_TAIL)..];
        String::from_utf8_lossy(tail).trim().to_owned()
    }

    /// Records who the shim is. Not synced: the record outlives the engine,
    /// and no shim outlives the kernel.
    ///
    /// # Errors
    /// Those of the host.
    pub fn record_shim(&self, shim: &ProcessIdentity) -> Result<()> {
        let text = serde_json::to_vec(shim).context("encode the shim's identity")?;
        let temporary = self.write(".shim.json.tmp", &text)?;
        fs::rename(temporary, self.path.join(bundle::SHIM_RECORD)).context("record the shim's identity")
    }

    /// Who the shim is, if that was recorded.
    ///
    /// # Errors
    /// Those of the host, and a damaged record.
    pub fn shim(&self) -> Result<Option<ProcessIdentity>> {
        self.record(bundle::SHIM_RECORD)
    }

    /// Who the container's first process is, if that was recorded.
    ///
    /// # Errors
    /// Those of the host, and a damaged record.
    pub fn init(&self) -> Result<Option<ProcessIdentity>> {
        self.record(bundle::INIT_RECORD)
    }

    /// How the first process ended, if that was recorded.
    ///
    /// # Errors
    /// Those of the host, and a damaged record.
    pub fn exit(&self) -> Result<Option<ExitRecord>> {
        self.record(bundle::EXIT_RECORD)
    }

    /// Removes it. One that is gone is fine.
    ///
    /// # Errors
    /// Those of the host.
    pub fn remove(&self) -> Result<()> {
        remove(&self.path)
    }

    fn record<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        bundle::read_record(&self.path, name)
            .with_context(|| format!("read {name} of {}", self.path.display()))
    }

    fn write(&self, name: &str, text: &[u8]) -> Result<PathBuf> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(text)).with_context(|| format!("write {name}"))?;
        Ok(path)
    }
}

/// Removes the bundle at `path`. One that is gone is fine.
///
/// # Errors
/// Those of the host.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove bundle {}", path.display()), e))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_bundle_is_private_and_its_records_come_back() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("ns").join("id");
        let bundle = Bundle::create(&path, &Spec::default()).expect("create");
        let mode = |p: &Path| fs::metadata(p).expect("stat").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&path.join(bundle::CONFIG))), (0o700, 0o600));
        assert!(Bundle::create(&path, &Spec::default()).is_err(), "it exists");
        assert_eq!(bundle.shim().expect("read"), None);
        let shim = ProcessIdentity { pid: 1, pidfd_inode: 2, start_time: 3, boot_id: "b".to_owned() };
        bundle.record_shim(&shim).expect("record");
        assert_eq!(bundle.shim().expect("read"), Some(shim));
        bundle.remove().expect("remove");
        bundle.remove().expect("again");
        assert_eq!(Bundle::open(&path).expect_err("gone").kind(), Kind::NotFound);
    }
}
