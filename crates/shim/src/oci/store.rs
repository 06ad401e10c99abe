// SPDX-License-Identifier: Apache-2.0
//! What is known of a container between two runs: a directory with a record.
//!
//! ```text
//! <root>/<id>/          0700
//!   state.json          the record; replaced as a whole
//!   config.json         the specification, as it was at the creation
//!   start.sock          while it waits to be started
//! ```
//! The directory is locked while a verb changes the container. A verb that
//! only looks takes no lock: it may run while a hook of another one asks.

use std::{
    collections::HashMap,
    env,
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind},
    os::{fd::AsFd as _, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
};

use berth::bundle::ProcessIdentity;
use nix::fcntl::{Flock, FlockArg};
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use super::Failure;
use crate::{
    cgroup::{Group, Layout, Placement},
    kernel::{identity, process},
    runtime::{self, RootMount, hooks::Hooks},
};

/// What callers look for in the error of a container that isn't there.
pub(super) const NOT_THERE: &str = "container does not exist";

const RECORD: &str = "state.json";
const CONFIG: &str = "config.json";

/// Where the containers of root, or of nobody in particular, are.
const ROOT: &str = "/run/berth-oci";

/// What is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// The version of the specification that the bundle follows.
    pub(super) oci_version: String,
    /// Absolute.
    pub(super) bundle: PathBuf,
    /// Absolute.
    pub(super) rootfs: PathBuf,
    /// RFC 3339, UTC.
    pub(super) created: String,
    #[serde(default)]
    pub(super) annotations: HashMap<String, String>,
    /// The first process, once there is one.
    pub(super) init: Option<ProcessIdentity>,
    pub(super) cgroups: Placement,
    /// Of a container in the host's mount namespace.
    #[serde(default)]
    pub(super) root_mount: Option<RootMount>,
}

/// What a container does, as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    /// As runtime-spec has it, and runc's `paused`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// All containers.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    is_default: bool,
}

impl Store {
    /// In an absolute directory that a user has chosen.
    pub(super) fn at(root: PathBuf) -> Result<Self, Failure> {
        if root == Path::new("/") {
            return Err(Failure::new("Option --root argument should not be set to /"));
        }
        Ok(Self { root, is_default: false })
    }

    /// Where they are when nothing was said.
    pub(super) fn by_default() -> Self {
        let own = env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
        let root = match own {
            Some(dir) if !nix::unistd::geteuid().is_root() => Path::new(&dir).join("berth-oci"),
            _ => PathBuf::from(ROOT),
        };
        Self { root, is_default: true }
    }

    /// A new container's directory, locked.
    pub(super) fn create(&self, id: &str) -> Result<Entry, Failure> {
        check(id)?;
        let failed = |e: &io::Error| Failure::io(format!("mkdir {}", self.root.display()), e);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.root).map_err(|e| failed(&e))?;
        let path = self.root.join(id);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => Entry::open(path)?.lock(),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                Err(Failure::new("container with given ID already exists"))
            }
            Err(e) => Err(failed(&e)),
        }
    }

    /// The directory of a container.
    pub(super) fn find(&self, id: &str) -> Result<Entry, Failure> {
        check(id)?;
        Entry::open(self.root.join(id))
    }

    /// A container, to look at.
    pub(super) fn load(&self, id: &str) -> Result<Known, Failure> {
        self.find(id)?.read()
    }

    /// A container, to change.
    pub(super) fn lock(&self, id: &str) -> Result<Known, Failure> {
        self.find(id)?.lock()?.read()
    }

    /// The names of all containers, sorted.
    pub(super) fn ids(&self) -> Result<Vec<String>, Failure> {
        let entries = match fs::read_dir(&self.root) {
            Err(e) if e.kind() == ErrorKind::NotFound && self.is_default => return Ok(Vec::new()),
            result => result.map_err(|e| Failure::io(format!("open {}", self.root.display()), &e))?,
        };
        let directories = entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
        let mut ids: Vec<_> = directories.filter_map(|e| e.file_name().into_string().ok()).collect();
        ids.sort();
        Ok(ids)
    }
}

/// runc's rule: only such an id becomes part of a path (D15).
fn check(id: &str) -> Result<(), Failure> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    if id.is_empty() || id == "." || id == ".." || !id.chars().all(is_allowed) {
        return Err(Failure::new("invalid container ID format"));
    }
    Ok(())
}

/// A container's directory.
#[derive(Debug)]
pub(super) struct Entry {
    path: PathBuf,
    dir: File,
    lock: Option<Flock<File>>,
}

impl Entry {
    fn open(path: PathBuf) -> Result<Self, Failure> {
        match File::open(&path) {
            Ok(dir) => Ok(Self { path, dir, lock: None }),
            Err(e) if e.kind() == ErrorKind::NotFound => Err(Failure::new(NOT_THERE)),
            Err(e) => Err(Failure::io(format!("open {}", path.display()), &e)),
        }
    }

    /// Waits until no other verb changes the container.
    pub(super) fn lock(mut self) -> Result<Self, Failure> {
        let failed = |e: &io::Error| Failure::io(format!("lock {}", self.path.display()), e);
        let file = self.dir.try_clone().map_err(|e| failed(&e))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, e)| failed(&e.into()))?;
        self.lock = Some(lock);
        Ok(self)
    }

    /// Lets other verbs change the container.
    pub(super) fn unlock(&mut self) {
        self.lock = None;
    }

    fn read(self) -> Result<Known, Failure> {
        let record = self.record()?;
        let record = record.ok_or_else(|| Failure::new(NOT_THERE))?;
        Ok(Known { entry: self, record })
    }

    /// The record; `None` before it was written for the first time.
    pub(super) fn record(&self) -> Result<Option<Record>, Failure> {
        let path = self.path.join(RECORD);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|e| Failure::new(format!("{}: {e}", path.display()))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Failure::io(format!("read {}", path.display()), &e)),
        }
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory itself.
    pub(super) fn dir(&self) -> &File {
        &self.dir
    }

    /// Writes the record, replacing the one before.
    pub(super) fn save(&self, record: &Record) -> Result<(), Failure> {
        let text = serde_json::to_vec(record).map_err(|e| Failure::new(format!("{RECORD}: {e}")))?;
        // No sync: it doesn't outlive the container, which no crash survives.
        let temporary = self.path.join(".state.json.tmp");
        let result =
            fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, self.path.join(RECORD)));
        result.map_err(|e| Failure::io(format!("write {}", self.path.join(RECORD).display()), &e))
    }

    /// Keeps the specification.
    pub(super) fn save_config(&self, text: &[u8]) -> Result<(), Failure> {
        fs::write(self.path.join(CONFIG), text)
            .map_err(|e| Failure::io(format!("write {}", self.path.join(CONFIG).display()), &e))
    }

    /// Removes all that is known of the container.
    pub(super) fn remove(&self) -> Result<(), Failure> {
        match fs::remove_dir_all(&self.path) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(Failure::io(format!("remove {}", self.path.display()), &e))
            }
            _ => Ok(()),
        }
    }
}

/// A container that is written down.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) entry: Entry,
    pub(super) record: Record,
}

impl Known {
    /// Its directory.
    pub(super) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Its specification.
    pub(super) fn spec(&self) -> Result<Spec, Failure> {
        let path = self.entry.path.join(CONFIG);
        let text = fs::read(&path).map_err(|e| Failure::io(format!("read {}", path.display()), &e))?;
        Ok(runtime::spec::read(&text)?.value)
    }

    /// Its hooks.
    pub(super) fn hooks(&self, id: &str) -> Result<Hooks, Failure> {
        Ok(Hooks::of(&self.spec()?, id, &self.record.bundle)?)
    }

    /// Its cgroups.
    pub(super) fn group(&self) -> Result<Group, Failure> {
        Ok(Group::find(&Layout::of_host()?, &self.record.cgroups))
    }

    /// Its first process, while that runs.
    pub(super) fn init(&self) -> Result<Option<std::os::fd::OwnedFd>, Failure> {
        let Some(init) = &self.record.init else { return Ok(None) };
        let Some(pidfd) = identity::find(init)? else { return Ok(None) };
        // A process that nobody has reaped has ended all the same.
        Ok(process::is_running(&pidfd)?.then_some(pidfd))
    }

    /// What it does at this moment.
    pub(super) fn status(&self) -> Result<Status, Failure> {
        if self.record.init.is_none() {
            return Ok(Status::Creating);
        }
        if self.init()?.is_none() {
            return Ok(Status::Stopped);
        }
        if self.group()?.is_frozen() {
            return Ok(Status::Paused);
        }
        match runtime::is_waiting(self.entry.dir.as_fd())? {
            true => Ok(Status::Created),
            false => Ok(Status::Running),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_in_its_directory() {
        for good in ["a", "A-b_c+d.e", "..a", "-x"] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "/", "a b", "ä", "a\0", "a,b"] {
            assert_eq!(check(bad).expect_err(bad).to_string(), "invalid container ID format");
        }
    }

    #[test]
    fn a_directory_is_made_once_and_read_back() {
        let dir = tempfile::tempdir().expect("tempdir");
        let store = Store::at(dir.path().join("root")).expect("store");
        assert_eq!(store.load("x").expect_err("none").to_string(), "container does not exist");
        let entry = store.create("x").expect("create");
        assert_eq!(
            store.create("x").expect_err("twice").to_string(),
            "container with given ID already exists"
        );
        assert_eq!(store.load("x").expect_err("no record").to_string(), "container does not exist");
        let record = Record {
            oci_version: "1.0.0".to_owned(),
            bundle: "/b".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-01-01T00:00:00Z".to_owned(),
            annotations: HashMap::new(),
            init: None,
            cgroups: Placement::below("/p", "x").expect("placement"),
            root_mount: None,
        };
        entry.save(&record).expect("save");
        let known = store.load("x").expect("load");
        assert_eq!(known.record.bundle, Path::new("/b"));
        assert_eq!(known.status().expect("status"), Status::Creating);
        assert_eq!(store.ids().expect("ids"), ["x"]);
        entry.remove().expect("remove");
        assert_eq!(store.ids().expect("ids"), Vec::<String>::new());
    }
}
