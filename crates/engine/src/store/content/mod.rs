// SPDX-License-Identifier: Apache-2.0
//! Content: blobs by digest, and those on their way.
//!
//! `content/blobs/<algorithm>/<hex>` are whole and verified: a blob gets its
//! name only after its digest was computed and the disk has it (write, fsync,
//! rename, fsync of the directory). `content/ingest/` holds partial downloads,
//! which the next attempt continues. Everything here blocks.

mod ingest;

use std::{
    collections::HashSet,
    fs::File,
    io::Read as _,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use berth::failpoint;
use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags, OFlag, renameat},
    sys::stat::{Mode, fstatat, mkdirat},
    unistd::{UnlinkatFlags, linkat, unlinkat},
};

pub use self::ingest::Ingest;
use super::{
    Pins,
    meta::{Db, blobs as rows},
    pins,
};
use crate::{
    domain::digest::{Algorithm, Digest, Hasher},
    error::{Context as _, Error, Kind, Result},
    kernel::{fs, paths},
};

/// How long a partial download is kept for another attempt.
const PARTIAL_TTL: Duration = Duration::from_hours(24);
/// How long a blob that nobody needs is left alone: somebody may be about to
/// write that they do.
const STRAY_AGE: Duration = Duration::from_hours(1);

/// All blobs below one directory.
#[derive(Debug)]
pub struct Content {
    blobs: OwnedFd,
    ingest: OwnedFd,
    db: Arc<Db>,
    /// Blobs that somebody counts on before an image's row says so.
    pins: pins::Table,
    /// Ingests that are open: one writer each.
    writing: Mutex<HashSet<Digest>>,
}

impl Content {
    /// Opens or makes `root/content`.
    ///
    /// # Errors
    /// Those of the host.
    pub fn open(root: &Path, db: Arc<Db>) -> Result<Arc<Self>> {
        let base = root.join("content");
        let blobs = make_private(&base.join("blobs"))?;
        let ingest = make_private(&base.join("ingest"))?;
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            match mkdirat(&blobs, algorithm.as_str(), Mode::from_bits_truncate(0o700)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(e).context("make the content store"),
            }
        }
        Ok(Arc::new(Self { blobs, ingest, db, pins: pins::Table::default(), writing: Mutex::default() }))
    }

    /// The size of a blob, when it is there. To be relied on only while it is
    /// pinned.
    ///
    /// # Errors
    /// Those of the host.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        match fstatat(&self.blobs, &path(digest), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(u64::try_from(stat.st_size).unwrap_or(0))),
            Err(Errno::ENOENT) => Ok(None),
            Err(e) => Err(e).with_context(|| format!("look for blob {digest}")),
        }
    }

    /// Opens a blob to read it.
    ///
    /// # Errors
    /// `NotFound` when it isn't there, those of the host.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        match paths::open_beneath(self.blobs.as_fd(), &path(digest), OFlag::O_RDONLY, Mode::empty()) {
            Ok(file) => Ok(file.into()),
            Err(Errno::ENOENT) => Err(Error::new(Kind::NotFound, format!("no blob {digest}"))),
            Err(e) => Err(e).with_context(|| format!("open blob {digest}")),
        }
    }

    /// Reads a blob of at most `limit` bytes and checks it.
    ///
    /// # Errors
    /// `NotFound`, `DataLoss` when it isn't what its name says, those of the
    /// host.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.open_blob(digest)?
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .with_context(|| format!("read blob {digest}"))?;
        if bytes.len() as u64 <= limit && digest.matches(&bytes) {
            Ok(bytes)
        } else {
            Err(Error::new(Kind::DataLoss, format!("blob {digest} is damaged or too large")))
        }
    }

    /// Removes a blob that isn't what its name says; whether it was so. Its row
    /// stays: an image needs it, and the next pull brings it back.
    ///
    /// # Errors
    /// Those of the host.
    pub fn drop_damaged(&self, digest: &Digest) -> Result<bool> {
        let mut file = match self.open_blob(digest) {
            Err(e) if e.kind() == Kind::NotFound => return Ok(false),
            opened => opened?,
        };
        if Hasher::of_reader(digest.algorithm(), &mut file).with_context(|| format!("read blob {digest}"))?
            == *digest
        {
            return Ok(false);
        }
        unlinkat(&self.blobs, &path(digest), UnlinkatFlags::NoRemoveDir)
            .with_context(|| format!("remove damaged blob {digest}"))?;
        Ok(true)
    }

    /// Stores a small blob.
    ///
    /// # Errors
    /// `DataLoss` when `bytes` aren't what `digest` names, those of the host.
    pub fn write(self: &Arc<Self>, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.size(digest)?.is_some() {
            return Ok(());
        }
        let mut ingest = self.ingest(digest)?;
        ingest.restart()?;
        ingest.write(bytes)?;
        ingest.commit(bytes.len() as u64)
    }

    /// Begins to store a blob, or continues where an earlier attempt ended.
    ///
    /// # Errors
    /// `FailedPrecondition` while another writes it, those of the host.
    pub fn ingest(self: &Arc<Self>, digest: &Digest) -> Result<Ingest> {
        Ingest::open(Arc::clone(self), digest)
    }

    /// An unnamed file in the content store's file system, for what needs to
    /// be read out of order. It vanishes with its descriptor.
    ///
    /// # Errors
    /// Those of the host.
    pub fn spool(&self) -> Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
        nix::fcntl::openat(&self.ingest, ".", flags, Mode::from_bits_truncate(0o600))
            .map(File::from)
            .context("make a temporary file in the content store")
    }

    /// Gives a spooled file, whose content has `digest`, its name. To be relied
    /// on only while it is pinned.
    ///
    /// # Errors
    /// Those of the host.
    pub fn keep(&self, file: File, digest: &Digest) -> Result<()> {
        let published = || {
            nix::unistd::fsync(&file)?;
            let name = format!("/proc/self/fd/{}", file.as_raw_fd());
            let linked =
                linkat(AT_FDCWD, name.as_str(), &self.blobs, &path(digest), AtFlags::AT_SYMLINK_FOLLOW);
            match linked {
                // The same content is there.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(e) => return Err(e),
            }
            let dir = paths::open_dir(self.blobs.as_fd(), Path::new(digest.algorithm().as_str()))?;
            nix::unistd::fsync(dir)
        };
        published().with_context(|| format!("store blob {digest}"))
    }

    /// Keeps blobs from [`Content::collect`], whether they are there or yet to
    /// come, for as long as the result lives.
    #[must_use]
    pub fn pin(&self, digests: &[Digest]) -> Pins {
        self.pins.pin(digests)
    }

    /// Removes blobs that no image and nobody else needs. How many bytes.
    ///
    /// # Errors
    /// Those of the host and the database.
    pub fn collect(&self) -> Result<u64> {
        let mut freed = 0_u64;
        let unused = self.db.read(rows::unused)?;
        for digest in unused.iter().filter_map(|digest| digest.parse::<Digest>().ok()) {
            // A pin taken from here on waits for the file's absence.
            let pins = self.pins.hold();
            if !pins.contains(&digest) {
                freed = freed.saturating_add(self.delete(&digest)?);
            }
        }
        Ok(freed)
    }

    fn delete(&self, digest: &Digest) -> Result<u64> {
        if !self.db.write(|tx| rows::delete_unused(tx, digest.as_str()))? {
            // An image has come to need it since it was listed.
            return Ok(0);
        }
        failpoint::pass("blob.row");
        let size = self.size(digest)?.unwrap_or(0);
        match unlinkat(&self.blobs, &path(digest), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(size),
            Err(e) => Err(e).with_context(|| format!("remove blob {digest}")),
        }
    }

    /// Sorts out what an engine that died left. Blobs without a row are as good
    /// as downloads that were broken off: the next pull takes them up. Partial
    /// downloads that nobody came back for are removed. Called once, at start.
    ///
    /// # Errors
    /// Those of the host and the database.
    pub fn reconcile(&self) -> Result<()> {
        self.collect()?;
        self.put_aside(Duration::ZERO)?;
        self.remove_old_partials()
    }

    /// The same for what pulls that failed left, while others go on.
    ///
    /// # Errors
    /// Those of the host and the database.
    pub fn tidy(&self) -> Result<()> {
        self.put_aside(STRAY_AGE)?;
        self.remove_old_partials()
    }

    /// Makes partial downloads of the blobs that no row knows and nobody has
    /// pinned, if they are `age` old.
    fn put_aside(&self, age: Duration) -> Result<()> {
        let known: HashSet<String> = self.db.read(rows::all)?.into_iter().collect();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = paths::open_dir(self.blobs.as_fd(), Path::new(algorithm.as_str()))
                .context("open the content store")?;
            for name in fs::children(dir.as_fd()).context("list blobs")? {
                let name = name.to_string_lossy().into_owned();
                let digest = format!("{}:{name}", algorithm.as_str());
                if known.contains(&digest) {
                    continue;
                }
                let Ok(digest) = digest.parse::<Digest>() else {
                    fs::remove_tree(dir.as_fd(), Path::new(&name)).context("remove what is no blob")?;
                    continue;
                };
                // Whoever pins it from here on finds it gone, and who had it
                // pinned may have written a row meanwhile.
                let pins = self.pins.hold();
                let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
                let stat = match fstatat(&dir, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                    Err(Errno::ENOENT) => continue,
                    stat => stat.context("look at an unknown blob")?,
                };
                let needed = pins.contains(&digest) || writing.contains(&digest);
                if needed
                    || !is_older(stat.st_mtime, age)
                    || self.db.read(|c| rows::is_known(c, digest.as_str()))?
                {
                    continue;
                }
                renameat(&dir, name.as_str(), &self.ingest, ingest::name(&digest).as_str())
                    .context("put an unknown blob aside")?;
            }
        }
        Ok(())
    }

    /// Removes partial downloads that nobody came back for.
    ///
    /// # Errors
    /// Those of the host.
    pub fn remove_old_partials(&self) -> Result<()> {
        for name in fs::children(self.ingest.as_fd()).context("list partial downloads")? {
            let stat = fstatat(&self.ingest, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW)
                .context("look at a partial download")?;
            if is_older(stat.st_mtime, PARTIAL_TTL) {
                let name = name.to_string_lossy().into_owned();
                // One that is being written is nobody's to take away; it isn't
                // begun while this is held.
                let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
                if !writing.iter().any(|digest| ingest::name(digest) == name) {
                    fs::remove_tree(self.ingest.as_fd(), Path::new(&name))
                        .context("remove a partial download")?;
                }
            }
        }
        Ok(())
    }
}

/// Whether what was changed at `mtime` has stayed so for `age`.
fn is_older(mtime: i64, age: Duration) -> bool {
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(mtime).unwrap_or(0));
    age.is_zero() || modified.elapsed().is_ok_and(|since| since > age)
}

fn path(digest: &Digest) -> PathBuf {
    Path::new(digest.algorithm().as_str()).join(digest.hex())
}

fn make_private(path: &Path) -> Result<OwnedFd> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("make {}", path.display()))?;
    Ok(File::open(path).with_context(|| format!("open {}", path.display()))?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> (tempfile::TempDir, Arc<Db>, Arc<Content>) {
        let root = tempfile::tempdir().expect("tempdir");
        let db = Arc::new(Db::open(&root.path().join("meta.db")).expect("db"));
        let content = Content::open(root.path(), Arc::clone(&db)).expect("open");
        (root, db, content)
    }

    #[test]
    fn only_what_matches_its_digest_becomes_a_blob() {
        let (root, _db, content) = content();
        let digest = Digest::of(b"hello");
        assert_eq!(content.write(&digest, b"hullo").expect_err("mismatch").kind(), Kind::DataLoss);
        assert_eq!(content.size(&digest).expect("size"), None);
        assert_eq!(std::fs::read_dir(root.path().join("content/ingest")).expect("list").count(), 0);
        content.write(&digest, b"hello").expect("write");
        assert_eq!(content.read(&digest, 100).expect("read"), b"hello");
        assert_eq!(content.read(&digest, 4).expect_err("too large").kind(), Kind::DataLoss);
    }

    #[test]
    fn an_interrupted_ingest_continues_where_it_was() {
        let (_root, _db, content) = content();
        let digest = Digest::of(b"hello world");
        let mut first = content.ingest(&digest).expect("ingest");
        first.write(b"hello ").expect("write");
        assert_eq!(content.ingest(&digest).expect_err("busy").kind(), Kind::FailedPrecondition);
        drop(first);
        let mut second = content.ingest(&digest).expect("ingest");
        assert_eq!(second.offset(), 6);
        let mut kept = Vec::new();
        second.kept().expect("kept").read_to_end(&mut kept).expect("read");
        assert_eq!(kept, b"hello ");
        second.absorb(&kept);
        second.write(b"world").expect("write");
        second.commit(11).expect("commit");
        assert_eq!(content.read(&digest, 100).expect("read"), b"hello world");
    }

    #[test]
    fn unneeded_blobs_go_unless_pinned() {
        let (_root, db, content) = content();
        let digest = Digest::of(b"x");
        content.write(&digest, b"x").expect("write");
        db.write(|tx| rows::upsert(tx, digest.as_str(), 1)).expect("row");
        let pin = content.pin(std::slice::from_ref(&digest));
        content.collect().expect("collect");
        assert!(content.size(&digest).expect("size").is_some());
        drop(pin);
        content.collect().expect("collect");
        assert_eq!(content.size(&digest).expect("size"), None);
    }

    #[test]
    fn a_start_takes_blobs_that_no_row_knows_for_fresh_partials_and_keeps_those() {
        let (_root, _db, content) = content();
        let (stray, partial) = (Digest::of(b"stray"), Digest::of(b"partial"));
        content.write(&stray, b"stray").expect("write");
        content.ingest(&partial).expect("ingest").write(b"par").expect("write");
        content.reconcile().expect("reconcile");
        assert_eq!(content.size(&stray).expect("size"), None);
        assert_eq!(content.ingest(&stray).expect("ingest").offset(), 5);
        assert_eq!(content.ingest(&partial).expect("ingest").offset(), 3);
    }

    #[test]
    fn what_failed_pulls_left_becomes_a_partial_download_and_goes_without_a_start() {
        let (root, db, content) = content();
        let blobs: Vec<Digest> = ["new", "pinned", "known", "old"].map(|n| Digest::of(n.as_bytes())).to_vec();
        let age = |place: &str, hours: u64| {
            let file = root.path().join("content").join(place);
            let time = SystemTime::now() - Duration::from_hours(hours);
            File::options()
                .write(true)
                .open(file)
                .and_then(|file| file.set_modified(time))
                .expect("set the time");
        };
        for (blob, bytes) in blobs.iter().zip(["new", "pinned", "known", "old"]) {
            content.write(blob, bytes.as_bytes()).expect("write");
            if bytes != "new" {
                age(&format!("blobs/sha256/{}", blob.hex()), 2);
            }
        }
        let _pin = content.pin(&blobs[1..2]);
        db.write(|tx| rows::upsert(tx, blobs[2].as_str(), 5)).expect("row");
        content.tidy().expect("tidy");
        let there = |digest: &Digest| content.size(digest).expect("size").is_some();
        assert_eq!(blobs.iter().map(there).collect::<Vec<_>>(), [true, true, true, false]);
        let partial = format!("ingest/sha256-{}", blobs[3].hex());
        assert!(root.path().join("content").join(&partial).exists(), "the next pull takes it up");
        age(&partial, 25);
        content.tidy().expect("tidy");
        assert!(!root.path().join("content").join(&partial).exists());
    }
}
