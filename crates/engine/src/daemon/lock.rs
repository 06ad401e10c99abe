// SPDX-License-Identifier: Apache-2.0
//! One engine per root and per state directory: flock(2) on a file in each,
//! which the kernel releases however we end.

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::{
    config::Config,
    error::{Context as _, Error, Kind, Result},
};

/// The file that is locked.
const NAME: &str = "berthd.lock";

/// Holds both directories until it is dropped.
#[derive(Debug)]
pub(super) struct Locks {
    _root: Flock<File>,
    _state: Flock<File>,
}

/// Takes the root and the state directory.
///
/// # Errors
/// `FailedPrecondition` when another engine has one of them.
pub(super) fn both(config: &Config) -> Result<Locks> {
    Ok(Locks { _root: take(&config.root)?, _state: take(&config.state)? })
}

fn take(dir: &Path) -> Result<Flock<File>> {
    let path = dir.join(NAME);
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            sign(&mut lock).with_context(|| format!("write {}", path.display()))?;
            Ok(lock)
        }
        Err((_, Errno::EWOULDBLOCK)) => Err(taken(dir, &path)),
        Err((_, e)) => Err(e).with_context(|| format!("lock {}", path.display())),
    }
}

/// Leaves our pid for whoever comes second; the lock is what counts.
fn sign(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn taken(dir: &Path, path: &Path) -> Error {
    let pid = fs::read_to_string(path).unwrap_or_default();
    let pid = pid.trim();
    let who = if pid.is_empty() { String::new() } else { format!(" (pid {pid})") };
    let text = format!(
        "another berthd{who} is running on {}: stop it, or give this one its own --root and --state",
        dir.display()
    );
    Error::new(Kind::FailedPrecondition, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(root: &Path, state: &Path) -> Config {
        Config { root: root.into(), state: state.into(), ..Config::default() }
    }

    #[test]
    fn a_second_engine_is_refused_by_either_directory() {
        let (a, b, c) = (
            tempfile::tempdir().expect("tempdir"),
            tempfile::tempdir().expect("tempdir"),
            tempfile::tempdir().expect("tempdir"),
        );
        let first = both(&config(a.path(), b.path())).expect("first");
        for (root, state, shared) in [(&a, &c, &a), (&c, &b, &b)] {
            let error = both(&config(root.path(), state.path())).expect_err("second");
            let expected = format!(
                "another berthd (pid {}) is running on {}: stop it, or give this one its own --root and --state",
                std::process::id(),
                shared.path().display()
            );
            assert_eq!(error.to_string(), expected);
        }
        drop(first);
        both(&config(a.path(), b.path())).expect("free again");
    }
}
