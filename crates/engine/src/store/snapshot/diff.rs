// SPDX-License-Identifier: Apache-2.0
//! What a container has changed: its writable layer is walked, and each name
//! looked up in the layers below, as overlayfs would. Nothing is mounted.
//!
//! The container may be changing all of it meanwhile: what vanishes is passed
//! over, and every name is resolved below its layer, through no link.

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString, OsStr},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::AtFlags,
    sys::stat::{FileStat, SFlag, fstatat},
};

use super::Snapshots;
use crate::{
    error::{Context as _, Result},
    kernel::{fs, paths},
};

/// Hides what the layers below have in a directory.
const OPAQUE: &CStr = c"trusted.overlay.opaque";

/// What became of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The image has no such thing.
    Added,
    /// The image's is another; of a directory perhaps only what is in it.
    Changed,
    /// It is the image's and hidden.
    Deleted,
}

/// A difference between a container and its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What became of it.
    pub kind: ChangeKind,
    /// Relative to the root.
    pub path: PathBuf,
}

/// A layer, and whether it still counts below some directory.
#[derive(Debug)]
struct Layers(Vec<OwnedFd>);

/// Which layers have a directory that shows at this place, the top first.
type Showing = Vec<usize>;

/// What is yet to be told, and to be walked when it is a directory.
struct Pending {
    change: Change,
    below: Option<Showing>,
}

impl Snapshots {
    /// Tells `sink` of every difference between the active snapshot `key` and
    /// what is below, in the order of paths.
    ///
    /// # Errors
    /// `NotFound` for an unknown key, those of the host and of `sink`.
    pub fn diff(&self, key: &str, mut sink: impl FnMut(Change) -> Result<()>) -> Result<()> {
        let rootfs = self.rootfs(key)?;
        let open = |path: &Path| {
            let beneath = path.strip_prefix(&self.base).unwrap_or(path);
            paths::open_dir(self.dir.as_fd(), beneath).with_context(|| format!("open {}", path.display()))
        };
        let upper = open(&rootfs.upper)?;
        let layers = Layers(rootfs.lower.iter().map(|path| open(path)).collect::<Result<_>>()?);
        let all: Showing = (0..layers.0.len()).collect();
        let what = || format!("compare the layers of {key}");
        let mut pending = layers.differences(&upper, Path::new(""), &all).with_context(what)?;
        pending.reverse();
        while let Some(Pending { change, below }) = pending.pop() {
            let path = change.path.clone();
            sink(change)?;
            if let Some(below) = below {
                let inside = layers.differences(&upper, &path, &below).with_context(what)?;
                pending.extend(inside.into_iter().rev());
            }
        }
        Ok(())
    }
}

impl Layers {
    /// The differences directly in the directory `path`, by name.
    fn differences(&self, upper: &OwnedFd, path: &Path, below: &Showing) -> nix::Result<Vec<Pending>> {
        let Some(here) = open(upper, path)? else { return Ok(Vec::new()) };
        let mut names: BTreeSet<CString> = fs::children(here.as_fd())?.into_iter().collect();
        let own = names.clone();
        if is_opaque(&here)? {
            names.extend(self.names(path, below)?);
        }
        let mut found = Vec::new();
        for name in names {
            let child = path.join(OsStr::from_bytes(name.as_bytes()));
            let (there, showing) = self.look(&child, below)?;
            let stat = if own.contains(&name) { look(&here, &name)? } else { None };
            let gone = stat.as_ref().is_none_or(fs::is_whiteout);
            let kind = match (gone, there) {
                (true, true) => ChangeKind::Deleted,
                // A whiteout of nothing, or what has vanished since.
                (true, false) => continue,
                (false, true) => ChangeKind::Changed,
                (false, false) => ChangeKind::Added,
            };
            let is_dir = stat.is_some_and(|stat| is_dir(&stat));
            let below = is_dir.then_some(showing);
            found.push(Pending { change: Change { kind, path: child }, below });
        }
        Ok(found)
    }

    /// Whether the layers show something at `path`, and which of them have a
    /// directory that does; `below` says which show its parent.
    fn look(&self, path: &Path, below: &Showing) -> nix::Result<(bool, Showing)> {
        let (parent, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
        let mut showing = Showing::new();
        for &index in below {
            let Some(dir) = open(&self.0[index], parent)? else { continue };
            match look(&dir, &name)? {
                None => {}
                Some(stat) if fs::is_whiteout(&stat) => break,
                Some(stat) if is_dir(&stat) => {
                    showing.push(index);
                    if open(&self.0[index], path)?.is_some_and(|dir| is_opaque(&dir).unwrap_or(false)) {
                        break;
                    }
                }
                // It hides what is below, and is hidden by a directory above.
                Some(_) => return Ok((true, showing)),
            }
        }
        Ok((!showing.is_empty(), showing))
    }

    /// The names that the layers show in the directory `path`.
    fn names(&self, path: &Path, below: &Showing) -> nix::Result<BTreeSet<CString>> {
        let mut names = BTreeSet::new();
        for &index in below {
            if let Some(dir) = open(&self.0[index], path)? {
                names.extend(fs::children(dir.as_fd())?);
            }
        }
        Ok(names)
    }
}

/// The directory `path` of a layer; `None` when there is none. What lies
/// deeper than a path can name isn't seen.
fn open(layer: &OwnedFd, path: &Path) -> nix::Result<Option<OwnedFd>> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    match paths::open_dir(layer.as_fd(), path) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG) => Ok(None),
        opened => opened.map(Some),
    }
}

fn look(dir: &OwnedFd, name: &CStr) -> nix::Result<Option<FileStat>> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => Ok(None),
        found => found.map(Some),
    }
}

fn is_dir(stat: &FileStat) -> bool {
    fs::file_type(stat) == SFlag::S_IFDIR
}

fn is_opaque(dir: &OwnedFd) -> nix::Result<bool> {
    Ok(fs::get_xattr(dir.as_fd(), OPAQUE)?.is_some_and(|value| value == b"y"))
}

#[cfg(test)]
mod tests {
    use std::fs as std_fs;

    use super::*;

    fn tree(dir: &Path, files: &[&str]) -> OwnedFd {
        for file in files {
            let path = dir.join(file);
            std_fs::create_dir_all(path.parent().expect("a parent")).expect("mkdir");
            if file.ends_with('/') {
                std_fs::create_dir_all(&path).expect("mkdir");
            } else {
                std_fs::write(&path, file).expect("write");
            }
        }
        std_fs::create_dir_all(dir).expect("mkdir");
        std_fs::File::open(dir).expect("open").into()
    }

    fn whiteout(path: &Path) -> bool {
        use nix::sys::stat::{Mode, mknod};
        mknod(path, SFlag::S_IFCHR, Mode::empty(), 0).is_ok()
    }

    fn walk(layers: &Layers, upper: &OwnedFd) -> Vec<String> {
        let all: Showing = (0..layers.0.len()).collect();
        let mut told = Vec::new();
        let mut pending = layers.differences(upper, Path::new(""), &all).expect("walk");
        pending.reverse();
        while let Some(Pending { change, below }) = pending.pop() {
            let letter = format!("{:?}", change.kind).chars().next().expect("a letter");
            told.push(format!("{letter} {}", change.path.display()));
            if let Some(below) = below {
                let inside = layers.differences(upper, &change.path, &below).expect("walk");
                pending.extend(inside.into_iter().rev());
            }
        }
        told
    }

    #[test]
    fn each_name_is_added_changed_or_deleted() {
        let dir = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| dir.path().join(name);
        let top = tree(&at("top"), &["etc/new-in-top", "etc/hidden/"]);
        let bottom = tree(&at("bottom"), &["etc/passwd", "etc/gone", "etc/hidden/x", "bin/sh", "was"]);
        let upper = tree(
            &at("upper"),
            &["etc/passwd", "etc/mine", "etc/hidden/x", "tmp/a", "bin/", "etc/new-in-top"],
        );
        if !whiteout(&at("upper/etc/gone")) || !whiteout(&at("top/was")) {
            eprintln!("skipped: devices need root");
            return;
        }
        assert!(whiteout(&at("upper/nothing")));
        let hidden = std_fs::File::open(at("top/etc/hidden")).expect("open");
        fs::set_xattr(hidden.as_fd(), OPAQUE, b"y").expect("opaque");
        assert!(whiteout(&at("upper/was")), "it was deleted below already");
        assert_eq!(
            walk(&Layers(vec![top, bottom]), &upper),
            [
                "C bin",
                "C etc",
                "D etc/gone",
                "C etc/hidden",
                "A etc/hidden/x",
                "A etc/mine",
                "C etc/new-in-top",
                "C etc/passwd",
                "A tmp",
                "A tmp/a",
            ]
        );
    }

    #[test]
    fn a_directory_made_anew_has_lost_what_it_had() {
        let dir = tempfile::tempdir().expect("tempdir");
        let at = |name: &str| dir.path().join(name);
        let lower = tree(&at("lower"), &["d/old", "d/both"]);
        let upper = tree(&at("upper"), &["d/both", "d/new"]);
        let made = std_fs::File::open(at("upper/d")).expect("open");
        if fs::set_xattr(made.as_fd(), OPAQUE, b"y").is_err() {
            eprintln!("skipped: trusted attributes need root");
            return;
        }
        assert_eq!(walk(&Layers(vec![lower]), &upper), ["C d", "C d/both", "A d/new", "D d/old"]);
    }
}
