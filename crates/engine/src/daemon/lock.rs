// SPDX-License-Identifier: Apache-2.0
//! One engine per root and per state directory: flock(2) on a file in each,
//! which the kernel releases however we end.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::{
    config::Config,
    error::{Context as _, Error, Kind, Result},
    kernel::processes,
};

/// How long the lock of an engine that ends or has ended is waited for: one that
/// was killed has it until its last write is done, and a child that it was about
/// to start until its execve.
const LEFTOVER: Duration = Duration::from_secs(5);

/// Between two tries.
const RETRY: Duration = Duration::from_millis(5);

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
    let deadline = Instant::now() + LEFTOVER;
    let mut file = file;
    loop {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(mut lock) => {
                sign(&mut lock).with_context(|| format!("write {}", path.display()))?;
                return Ok(lock);
            }
            Err((_, Errno::EWOULDBLOCK)) if Instant::now() > deadline || is_owned(&path) => {
                return Err(taken(dir, &path));
            }
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, e)) => return Err(e).with_context(|| format!("lock {}", path.display())),
        };
        #[expect(clippy::disallowed_methods, reason = "flock(2) tells nobody; bounded by LEFTOVER")]
        std::thread::sleep(RETRY);
    }
}

/// Whether the process that signed the file lives, and is going to.
fn is_owned(path: &Path) -> bool {
    let signed = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
    signed.is_some_and(|pid| processes::is_dying(pid).is_ok_and(|dying| !dying))
}

/// Whether an engine runs on the root.
///
/// # Errors
/// Those of the host; without the file there has never been one.
pub(super) fn is_taken(root: &Path) -> Result<bool> {
    let path = root.join(NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::io(format!("open {}", path.display()), e)),
    };
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Ok(false),
        Err((_, Errno::EWOULDBLOCK)) => Ok(is_owned(&path)),
        Err((_, e)) => Err(e).with_context(|| format!("look at {}", path.display())),
    }
}

/// Leaves our pid for whoever comes second; the lock is what counts.
fn sign(file: &mut File) -> std::io::Result<()> {
    file.rewind()?;
    // Over the last one's, so that a full disk keeps nobody from starting.
    writeln!(file, "{}", std::process::id())?;
    let length = file.stream_position()?;
    file.set_len(length)
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
        assert!(is_taken(a.path()).expect("look") && !is_taken(c.path()).expect("look"));
        drop(first);
        assert!(!is_taken(a.path()).expect("look"));
        both(&config(a.path(), b.path())).expect("free again");
    }

    #[test]
    fn what_an_engine_that_has_ended_left_is_waited_for() {
        let (root, state) = (tempfile::tempdir().expect("tempdir"), tempfile::tempdir().expect("tempdir"));
        let left = take(root.path()).expect("take");
        // Nobody has this pid: pid_max is 2^22 at most.
        fs::write(root.path().join(NAME), "4194305").expect("sign");
        assert!(!is_taken(root.path()).expect("look"));
        std::thread::scope(|scope| {
            let next = scope.spawn(|| both(&config(root.path(), state.path())));
            drop(left);
            next.join().expect("thread").expect("the lock is free");
        });
    }
}
