// SPDX-License-Identifier: Apache-2.0
//! Snapshots: directories that overlayfs stacks.
//!
//! A *committed* snapshot is a layer, keyed by its chain id; an *active* one is
//! a container's writable layer, keyed by the container's id; a *preparing* one
//! is a layer that is being unpacked. `snapshots/<n>/fs` holds the files,
//! `snapshots/<n>/work` is overlayfs's.
//!
//! A row exists before its directory (record before act), and a directory
//! without a row is rubbish that [`Snapshots::reconcile`] removes. Nothing here
//! mounts: that is the shim's. Everything here blocks.

mod diff;
mod init_layer;
mod layer;
mod preparing;
mod replace;

use std::{
    collections::BTreeSet,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use berth::failpoint;
use nix::{
    errno::Errno,
    sys::stat::{Mode, mkdirat},
};
use rusqlite::Transaction;

pub use self::{
    diff::{Change, ChangeKind},
    preparing::Preparing,
};
use super::{
    Pins,
    meta::{Db, snapshots as rows},
    pins,
};
use crate::{
    domain::digest::Digest,
    error::{Context as _, Error, Kind, Result},
    kernel::{fs, paths},
};

/// Where the layer with the mount points of every container lies.
pub const INIT: &str = "init";
/// Layers that are removed in one transaction.
const COLLECTED_AT_ONCE: usize = 64;
/// Prefix of directories on their way out.
pub const REMOVING: &str = "removing-";

/// What a container's root is stacked from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Read-only layers, the top first; the first is the engine's own, which
    /// holds the mount points that every container needs.
    pub lower: Vec<PathBuf>,
    /// The writable layer.
    pub upper: PathBuf,
    /// Overlayfs's scratch directory.
    pub work: PathBuf,
}

/// A layer that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its chain id.
    pub key: String,
    /// Bytes of its files.
    pub size: u64,
}

/// All snapshots below one directory.
#[derive(Debug)]
pub struct Snapshots {
    base: PathBuf,
    dir: OwnedFd,
    db: Arc<Db>,
    next: AtomicI64,
    /// Layers that a pull counts on, and how many pulls do.
    pins: pins::Table,
    /// What nobody needs and couldn't be removed: it goes with what is made or
    /// removed next, or with the next start.
    left: Mutex<BTreeSet<i64>>,
}

impl Snapshots {
    /// Opens or makes `root/snapshots`.
    ///
    /// # Errors
    /// Those of the host and the database.
    pub fn open(root: &Path, db: Arc<Db>) -> Result<Arc<Self>> {
        let base = root.join("snapshots");
        let dir = make_private(&base)?;
        let init = base.join(INIT);
        init_layer::ensure(dir.as_fd(), Path::new(INIT))
            .with_context(|| format!("make the init layer {}", init.display()))?;
        let next = highest(&dir, &db)?.saturating_add(1);
        let (pins, left) = (pins::Table::default(), Mutex::default());
        Ok(Arc::new(Self { base, dir, db, next: AtomicI64::new(next), pins, left }))
    }

    /// Makes the writable layer of a container on top of a committed snapshot.
    ///
    /// # Errors
    /// `NotFound` when the parent isn't there, `AlreadyExists` for a key in
    /// use, those of the host.
    pub fn prepare(&self, key: &str, parent: Option<&str>) -> Result<()> {
        let dir = self.next();
        let below = self.db.write(|tx| {
            if rows::get(tx, key)?.is_some() {
                return Err(Error::new(Kind::AlreadyExists, format!("snapshot {key} exists")));
            }
            let below = parent.map(|parent| committed(tx, parent)).transpose()?;
            let parent = parent.map(str::to_owned);
            rows::insert(
                tx,
                &rows::Row { dir, key: key.to_owned(), parent, kind: rows::ACTIVE.into(), size: 0 },
            )?;
            Ok(below.map(|row| row.dir))
        })?;
        failpoint::hit("create.layer-row")?;
        let made = self.make_active(dir, below).with_context(|| format!("make snapshot {key}"));
        if made.is_err() {
            self.discard(dir)?;
        }
        made
    }

    fn make_active(&self, dir: i64, below: Option<i64>) -> nix::Result<()> {
        let here = self.make_dir(dir)?;
        mkdirat(&here, "fs", Mode::from_bits_truncate(0o755))?;
        mkdirat(&here, "work", Mode::from_bits_truncate(0o700))?;
        if let Some(below) = below {
            // The merged root shows the upper directory's own metadata.
            let from = paths::open_dir(self.dir.as_fd(), &Path::new(&below.to_string()).join("fs"))?;
            let to = paths::open_dir(here.as_fd(), Path::new("fs"))?;
            fs::copy_ownership(from.as_fd(), to.as_fd())?;
        }
        Ok(())
    }

    /// What to stack for the active snapshot `key`.
    ///
    /// # Errors
    /// `NotFound` for an unknown key, `DataLoss` when a layer below is gone.
    pub fn rootfs(&self, key: &str) -> Result<Rootfs> {
        let chain = self.db.read(|c| rows::chain(c, key))?;
        let (top, layers) = match chain.split_first() {
            Some((top, layers)) if top.kind == rows::ACTIVE => (top, layers),
            _ => return Err(Error::new(Kind::NotFound, format!("no snapshot {key}"))),
        };
        if let Some(lost) = chain.last().and_then(|last| last.parent.as_ref()) {
            return Err(Error::new(Kind::DataLoss, format!("layer {lost} of snapshot {key} is gone")));
        }
        let lower = std::iter::once(self.base.join(INIT)).chain(layers.iter().map(|row| self.fs(row.dir)));
        let work = self.base.join(top.dir.to_string()).join("work");
        Ok(Rootfs { lower: lower.collect(), upper: self.fs(top.dir), work })
    }

    /// The directory of the active snapshot `key`, to be locked by whoever
    /// mounts it: a fresh opening, whose lock is its own.
    ///
    /// # Errors
    /// `NotFound` for an unknown key, those of the host.
    pub fn lockable(&self, key: &str) -> Result<OwnedFd> {
        let row = self.db.read(|c| rows::get(c, key))?.filter(|row| row.kind == rows::ACTIVE);
        let row = row.ok_or_else(|| Error::new(Kind::NotFound, format!("no snapshot {key}")))?;
        paths::open_dir(self.dir.as_fd(), Path::new(&row.dir.to_string()))
            .with_context(|| format!("open snapshot {}", row.dir))
    }

    /// Removes the active snapshot `key`, and layers below that nothing else
    /// needs. An unknown key is fine: it may be repeated.
    ///
    /// # Errors
    /// Those of the host and the database.
    pub fn remove(&self, key: &str) -> Result<()> {
        let found = self.db.write(|tx| {
            let found = rows::get(tx, key)?.filter(|row| row.kind == rows::ACTIVE);
            if let Some(row) = &found {
                rows::delete(tx, row.dir)?;
            }
            Ok(found)
        })?;
        let Some(row) = found else { return Ok(()) };
        failpoint::hit("remove.layer-row")?;
        self.remove_dir(row.dir)?;
        self.collect().map(drop)
    }

    /// Bytes of the files in the active snapshot `key`.
    ///
    /// # Errors
    /// `NotFound` for an unknown key, those of the host.
    pub fn usage(&self, key: &str) -> Result<u64> {
        let row = self.db.read(|c| rows::get(c, key))?;
        let row = row.ok_or_else(|| Error::new(Kind::NotFound, format!("no snapshot {key}")))?;
        let path = Path::new(&row.dir.to_string()).join("fs");
        paths::open_dir(self.dir.as_fd(), &path)
            .and_then(|dir| fs::tree_size(dir.as_fd()))
            .with_context(|| format!("measure snapshot {key}"))
    }

    /// Keeps layers from [`Snapshots::collect`], whether they are there or yet
    /// to come, for as long as the result lives.
    #[must_use]
    pub fn pin(&self, chain: &[Digest]) -> Pins {
        self.pins.pin(chain)
    }

    /// The size of the layer `key`, when it is there. To be relied on only
    /// while it is pinned, which is why this waits for writers: one of them
    /// may be about to remove it.
    ///
    /// # Errors
    /// Those of the database.
    pub fn layer(&self, key: &Digest) -> Result<Option<u64>> {
        let row = self.db.write(|tx| rows::get(tx, key.as_str()))?;
        Ok(row.filter(|row| row.kind == rows::COMMITTED).map(|row| row.size))
    }

    /// Where the layers of the chain that ends with `key` are, the top first.
    ///
    /// # Errors
    /// Those of the database.
    pub fn layers(&self, key: &Digest) -> Result<Vec<(u64, PathBuf)>> {
        let chain = self.db.read(|c| rows::chain(c, key.as_str()))?;
        Ok(chain.iter().map(|row| (row.size, self.fs(row.dir))).collect())
    }

    /// A directory with nothing in it.
    ///
    /// # Errors
    /// Those of the host.
    pub fn empty(&self) -> Result<OwnedFd> {
        paths::open_dir(self.dir.as_fd(), &Path::new(INIT).join("proc")).context("open an empty directory")
    }

    /// The directory of the layer `key`.
    ///
    /// # Errors
    /// `NotFound` for an unknown key, those of the host.
    pub fn open_layer(&self, key: &Digest) -> Result<OwnedFd> {
        let row = self.db.read(|c| committed(c, key.as_str()))?;
        self.open_fs(row.dir)
    }

    fn open_fs(&self, dir: i64) -> Result<OwnedFd> {
        paths::open_dir(self.dir.as_fd(), &Path::new(&dir.to_string()).join("fs"))
            .with_context(|| format!("open snapshot {dir}"))
    }

    /// Makes an empty layer to unpack into. Dropping it removes it.
    ///
    /// # Errors
    /// Those of the host and the database.
    pub fn begin(self: &Arc<Self>) -> Result<Preparing> {
        self.remove_left();
        let dir = self.next();
        let key = format!("preparing/{dir}");
        self.db.write(|tx| {
            rows::insert(tx, &rows::Row { dir, key, parent: None, kind: rows::PREPARING.into(), size: 0 })
        })?;
        let preparing = Preparing::new(Arc::clone(self), dir);
        self.make_dir(dir)
            .and_then(|here| mkdirat(&here, "fs", Mode::from_bits_truncate(0o755)))
            .with_context(|| format!("make snapshot {dir}"))?;
        Ok(preparing)
    }

    /// Has the disk take everything that was unpacked and stored so far.
    ///
    /// # Errors
    /// Those of the host.
    pub fn sync(&self) -> Result<()> {
        if failpoint::skips("image.sync") {
            return Ok(());
        }
        nix::unistd::syncfs(&self.dir).context("write the layers to the disk")
    }

    /// Removes layers that no image, no container and no pull needs; says
    /// which. They are looked for beside any writer, and looked at again, a
    /// few at a time, when they are removed.
    ///
    /// # Errors
    /// Those of the host and the database.
    pub fn collect(&self) -> Result<Vec<Gone>> {
        self.remove_left();
        let mut removed = Vec::new();
        loop {
            let unused = self.db.read(rows::unused)?;
            let before = removed.len();
            for some in unused.chunks(COLLECTED_AT_ONCE) {
                let gone = self.db.write(|tx| {
                    let pins = self.pins.hold();
                    let mut gone = Vec::new();
                    for row in some {
                        let pinned = row.key.parse().is_ok_and(|key: Digest| pins.contains(&key));
                        if !pinned && rows::delete_unused(tx, row.dir)? {
                            gone.push(row);
                        }
                    }
                    Ok(gone)
                })?;
                if !gone.is_empty() {
                    failpoint::pass("layers.rows");
                }
                gone.iter().try_for_each(|row| self.remove_dir(row.dir))?;
                removed.extend(gone.into_iter().map(|row| Gone { key: row.key.clone(), size: row.size }));
            }
            // What stood on these is looked at next.
            if removed.len() == before {
                return Ok(removed);
            }
        }
    }

    /// Removes what an engine that died left half done: layers that were being
    /// unpacked, directories without a row. Called once, at start.
    ///
    /// # Errors
    /// Those of the host and the database.
    pub fn reconcile(&self) -> Result<()> {
        let known = self.db.write(|tx| {
            let (unfinished, known): (Vec<_>, Vec<_>) =
                rows::all(tx)?.into_iter().partition(|row| row.kind == rows::PREPARING);
            unfinished.iter().try_for_each(|row| rows::delete(tx, row.dir))?;
            Ok(known)
        })?;
        for name in fs::children(self.dir.as_fd()).context("list the snapshots' directories")? {
            let name = name.to_string_lossy().into_owned();
            if name != INIT && !known.iter().any(|row| row.dir.to_string() == name) {
                fs::remove_tree(self.dir.as_fd(), Path::new(&name))
                    .with_context(|| format!("remove left-over snapshot {name}"))?;
            }
        }
        self.collect().map(drop)
    }

    fn next(&self) -> i64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn fs(&self, dir: i64) -> PathBuf {
        self.base.join(dir.to_string()).join("fs")
    }

    fn make_dir(&self, dir: i64) -> nix::Result<OwnedFd> {
        let name = dir.to_string();
        mkdirat(&self.dir, name.as_str(), Mode::from_bits_truncate(0o700))?;
        paths::open_dir(self.dir.as_fd(), Path::new(&name))
    }

    /// Takes back a snapshot that nobody has seen: the directory, whose bytes
    /// the row may need to be deleted, then the row. A disk that says no is
    /// asked again, now and later.
    fn discard(&self, dir: i64) -> Result<()> {
        let take_back = || {
            self.take_away(dir)?;
            self.db.write(|tx| rows::delete(tx, dir))
        };
        let taken = take_back().or_else(|_| take_back());
        if taken.is_err() {
            self.left.lock().unwrap_or_else(PoisonError::into_inner).insert(dir);
        }
        taken
    }

    fn remove_left(&self) {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        for dir in left {
            if let Err(e) = self.discard(dir) {
                tracing::warn!(snapshot = dir, error = %e.chain(), "can't remove an unneeded layer yet");
            }
        }
    }

    /// Removes a directory whose row is gone already.
    fn remove_dir(&self, dir: i64) -> Result<()> {
        self.take_away(dir).or_else(|_| self.discard(dir))
    }

    /// Out of the way first, so that a half-removed layer never stands where a
    /// whole one would.
    fn take_away(&self, dir: i64) -> Result<()> {
        let (name, aside) = (dir.to_string(), format!("{REMOVING}{dir}"));
        match nix::fcntl::renameat(&self.dir, name.as_str(), &self.dir, aside.as_str()) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(e).with_context(|| format!("move snapshot {dir} aside")),
        }
        fs::remove_tree(self.dir.as_fd(), Path::new(&aside))
            .with_context(|| format!("remove the files of snapshot {dir}"))
    }
}

/// Turns a preparing snapshot into the layer `key`, within the transaction that
/// makes it an image's. The caller has synced, and calls [`Preparing::keep`]
/// after the commit.
///
/// # Errors
/// Those of the database.
pub fn commit(
    tx: &Transaction<'_>,
    layer: &Preparing,
    key: &Digest,
    parent: Option<&Digest>,
    size: u64,
) -> Result<()> {
    rows::commit(tx, layer.dir(), key.as_str(), parent.map(Digest::as_str), size)
}

fn committed(c: &rusqlite::Connection, key: &str) -> Result<rows::Row> {
    rows::get(c, key)?
        .filter(|row| row.kind == rows::COMMITTED)
        .ok_or_else(|| Error::new(Kind::NotFound, format!("no layer {key}")))
}

fn make_private(path: &Path) -> Result<OwnedFd> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make {}", path.display()))?;
    let dir = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    Ok(dir.into())
}

/// The highest number that a row or a directory has.
fn highest(dir: &OwnedFd, db: &Db) -> Result<i64> {
    let rows = db.read(rows::all)?;
    let names = fs::children(dir.as_fd()).context("list the snapshots' directories")?;
    let on_disk = names.iter().filter_map(|name| {
        let name = name.to_str().ok()?;
        name.strip_prefix(REMOVING).unwrap_or(name).parse().ok()
    });
    Ok(rows.iter().map(|row| row.dir).chain(on_disk).max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Store {
        _root: tempfile::TempDir,
        path: PathBuf,
        db: Arc<Db>,
        snapshots: Arc<Snapshots>,
    }

    fn store() -> Store {
        let root = tempfile::tempdir().expect("tempdir");
        let db = Arc::new(Db::open(&root.path().join("meta.db")).expect("db"));
        let snapshots = Snapshots::open(root.path(), Arc::clone(&db)).expect("open");
        Store { path: root.path().join("snapshots"), _root: root, db, snapshots }
    }

    fn layer(store: &Store, key: &Digest, parent: Option<&Digest>) -> PathBuf {
        let preparing = store.snapshots.begin().expect("begin");
        store.db.write_durably(|tx| commit(tx, &preparing, key, parent, 7)).expect("commit");
        let path = store.snapshots.fs(preparing.dir());
        preparing.keep();
        path
    }

    #[test]
    fn a_container_stands_on_the_init_layer_and_its_chain() {
        let store = store();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let below = layer(&store, &a, None);
        let above = layer(&store, &b, Some(&a));
        store.snapshots.prepare("box", Some(b.as_str())).expect("prepare");
        let rootfs = store.snapshots.rootfs("box").expect("rootfs");
        assert_eq!(rootfs.lower, [store.path.join("init"), above, below]);
        assert!(rootfs.upper.is_dir() && rootfs.work.is_dir());
        std::fs::write(rootfs.upper.join("x"), "123").expect("write");
        assert_eq!(store.snapshots.usage("box").expect("usage"), 3);
        assert_eq!(store.snapshots.prepare("box", None).expect_err("twice").kind(), Kind::AlreadyExists);
        assert_eq!(
            store.snapshots.prepare("other", Some("x")).expect_err("no parent").kind(),
            Kind::NotFound
        );
    }

    #[test]
    fn removing_the_last_user_removes_its_layers_unless_a_pull_needs_them() {
        let store = store();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let below = layer(&store, &a, None);
        let above = layer(&store, &b, Some(&a));
        store.snapshots.prepare("box", Some(b.as_str())).expect("prepare");
        store.snapshots.collect().expect("collect");
        assert!(above.exists());
        let pins = store.snapshots.pin(std::slice::from_ref(&a));
        store.snapshots.remove("box").expect("remove");
        store.snapshots.remove("box").expect("again");
        assert!(!above.exists() && below.exists());
        assert_eq!(store.snapshots.layer(&a).expect("layer"), Some(7));
        drop(pins);
        store.snapshots.collect().expect("collect");
        assert!(!below.exists());
    }

    #[test]
    fn what_was_half_done_is_gone_after_a_start() {
        let store = store();
        let half = store.snapshots.begin().expect("begin");
        let half_path = store.snapshots.fs(half.dir());
        std::mem::forget(half);
        std::fs::create_dir_all(store.path.join("99/fs/deep")).expect("mkdir");
        store.snapshots.prepare("box", None).expect("prepare");
        let again =
            Snapshots::open(store.path.parent().expect("parent"), Arc::clone(&store.db)).expect("open");
        again.reconcile().expect("reconcile");
        assert!(!half_path.exists() && !store.path.join("99").exists());
        assert!(again.rootfs("box").expect("rootfs").upper.is_dir());
        assert!(store.path.join("init/proc").is_dir());
        assert!(again.next() > 99);
    }

    #[test]
    fn what_cannot_be_removed_goes_with_what_is_made_next() {
        let store = store();
        let preparing = store.snapshots.begin().expect("begin");
        let path = store.snapshots.fs(preparing.dir());
        // Where it is to be moved to is something that doesn't go away.
        let aside = store.path.join(format!("{REMOVING}{}", preparing.dir()));
        std::fs::create_dir_all(aside.join("full")).expect("mkdir");
        preparing.give_up();
        assert!(path.exists());
        std::fs::remove_dir_all(&aside).expect("remove");
        let next = store.snapshots.begin().expect("begin");
        assert!(!path.exists() && store.snapshots.fs(next.dir()).exists());
    }

    #[test]
    fn a_layer_that_is_given_up_leaves_nothing() {
        let store = store();
        let preparing = store.snapshots.begin().expect("begin");
        let path = store.snapshots.fs(preparing.dir());
        assert!(path.is_dir());
        drop(preparing);
        assert!(!path.exists());
        assert!(store.db.read(rows::all).expect("rows").is_empty());
    }
}
