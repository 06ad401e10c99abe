// SPDX-License-Identifier: Apache-2.0
//! The engine's directories and who may look into them (D14).
//!
//! The root is for us alone. The state directory holds the API's socket, which
//! a group may be given: it can be passed through but not listed, and all that
//! is in it besides the socket is for us alone.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use crate::{
    config::Config,
    error::{Context as _, Error, Kind, Result},
};

/// The metadata, below the root.
pub(super) const METADATA: &str = "meta.db";

/// Bundles, below the state directory; see `berth::bundle`.
const BUNDLES: &str = "bundles";

const PRIVATE: u32 = 0o700;
const PASSABLE: u32 = 0o711;

/// Makes the engine's directories and closes them to others.
///
/// # Errors
/// Those of the host; `PermissionDenied` for a directory of somebody else.
pub(super) fn prepare(config: &Config) -> Result<()> {
    own(&config.root, PRIVATE)?;
    own(&config.state, PASSABLE)?;
    own(&config.state.join(BUNDLES), PRIVATE)?;
    let socket_dir = config.address.path().parent().unwrap_or(Path::new("/"));
    if !socket_dir.exists() {
        own(socket_dir, PASSABLE)?;
    }
    Ok(())
}

/// Makes `dir`, or takes it over when it is ours.
fn own(dir: &Path, mode: u32) -> Result<()> {
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    match fs::DirBuilder::new().mode(mode).create(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            return Err(e).with_context(|| format!("make {}", dir.display()));
        }
        _ => {}
    }
    let metadata = fs::symlink_metadata(dir).with_context(|| format!("look at {}", dir.display()))?;
    if metadata.is_symlink() {
        return linked(dir, mode);
    }
    check_and_close(dir, &metadata, mode)
}

/// An administrator may keep the data elsewhere.
fn linked(dir: &Path, mode: u32) -> Result<()> {
    let target = dir.canonicalize().with_context(|| format!("follow {}", dir.display()))?;
    let metadata = fs::metadata(&target).with_context(|| format!("look at {}", target.display()))?;
    check_and_close(&target, &metadata, mode)
}

fn check_and_close(dir: &Path, metadata: &fs::Metadata, mode: u32) -> Result<()> {
    let refuse = |what: &str| Err(Error::new(Kind::FailedPrecondition, format!("{} {what}", dir.display())));
    if !metadata.is_dir() {
        return refuse("is not a directory");
    }
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return refuse("belongs to another user: give berthd a directory of its own");
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
        .with_context(|| format!("close {} to others", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").mode() & 0o7777
    }

    fn config(dir: &Path) -> Config {
        let address = format!("unix://{}", dir.join("sockets/berth.sock").display());
        Config {
            root: dir.join("lib/berth"),
            state: dir.join("run/berth"),
            address: address.parse().expect("address"),
            ..Config::default()
        }
    }

    #[test]
    fn directories_are_closed_however_they_were_found() {
        let dir = tempfile::tempdir().expect("tempdir");
        let config = config(dir.path());
        fs::create_dir_all(&config.root).expect("make");
        fs::set_permissions(&config.root, fs::Permissions::from_mode(0o777)).expect("open");
        for _ in 0..2 {
            prepare(&config).expect("prepare");
            assert_eq!(mode(&config.root), 0o700);
            assert_eq!(mode(&config.state), 0o711);
            assert_eq!(mode(&config.state.join(BUNDLES)), 0o700);
            assert_eq!(mode(&dir.path().join("sockets")), 0o711);
        }
    }

    #[test]
    fn a_directory_that_was_there_for_the_socket_is_left_alone() {
        let dir = tempfile::tempdir().expect("tempdir");
        let sockets = dir.path().join("sockets");
        fs::create_dir(&sockets).expect("make");
        fs::set_permissions(&sockets, fs::Permissions::from_mode(0o755)).expect("open");
        prepare(&config(dir.path())).expect("prepare");
        assert_eq!(mode(&sockets), 0o755);
    }

    #[test]
    fn a_file_in_the_way_is_refused() {
        let dir = tempfile::tempdir().expect("tempdir");
        let config = config(dir.path());
        fs::create_dir_all(config.root.parent().expect("parent")).expect("make");
        fs::write(&config.root, "").expect("write");
        let error = prepare(&config).expect_err("refused");
        assert!(error.to_string().ends_with("is not a directory"), "{error}");
    }
}
