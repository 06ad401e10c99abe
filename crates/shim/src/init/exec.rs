// SPDX-License-Identifier: Apache-2.0
//! Finds the program as the container's user sees it, and executes it.

use std::{
    ffi::{CString, OsStr},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, AtFlags},
    sys::stat::{SFlag, stat},
    unistd::{AccessFlags, faccessat},
};

use super::passwd::User;
use crate::{
    kernel::{paths, process},
    runtime::{Error, Kind, Process, Result},
};

/// Where programs are looked for when the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program with all that execve takes.
#[derive(Debug)]
pub(super) struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

/// Finds the program, and completes its environment.
pub(super) fn prepare(plan: &Process, user: &User) -> Result<Program> {
    let nul = |_| Error::invalid("process.env: HOME contains NUL");
    let mut env = plan.env.clone();
    // An empty one is as good as none, as runc has it.
    if variable(&env, "HOME").is_none_or(OsStr::is_empty) {
        env.retain(|entry| !entry.as_bytes().starts_with(b"HOME="));
        env.push(CString::new(format!("HOME={}", user.home)).map_err(nul)?);
    }
    let Some(name) = plan.args.first() else {
        return Ok(Program { path: CString::default(), args: Vec::new(), env });
    };
    let name = OsStr::from_bytes(name.as_bytes());
    let path = find(name, variable(&plan.env, "PATH").unwrap_or(OsStr::new(DEFAULT_PATH)))?;
    let path = CString::new(path.into_os_string().into_vec()).map_err(nul)?;
    Ok(Program { path, args: plan.args.clone(), env })
}

impl Program {
    /// Its environment.
    pub(super) fn env(&self) -> &[CString] {
        &self.env
    }

    /// Executes it; returns only when that failed.
    pub(super) fn execute(&self) -> Error {
        if self.args.is_empty() {
            return Error::invalid("process is not set: the container has nothing to start");
        }
        let errno = process::execve(&self.path, &self.args, &self.env);
        let kind = if errno == Errno::ENOENT { Kind::ExecNotFound } else { Kind::ExecNotPermitted };
        Error::new(kind, format!("exec {}: {}", self.path.to_string_lossy(), words(errno)))
    }
}

fn variable<'a>(env: &'a [CString], name: &str) -> Option<&'a OsStr> {
    let value = |entry: &'a CString| entry.as_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    env.iter().rev().find_map(value).map(OsStr::from_bytes)
}

/// The program's path: `name` itself if it contains a slash, or the first of
/// that name in `search` that can be executed.
fn find(name: &OsStr, search: &OsStr) -> Result<PathBuf> {
    let quoted = || format!("exec: \"{}\"", name.to_string_lossy());
    if name.as_bytes().contains(&b'/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(name.into()),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {
                let why = format!("{}: stat {}: no such file or directory", quoted(), name.to_string_lossy());
                Err(Error::new(Kind::ExecNotFound, why))
            }
            Err(errno) => Err(Error::new(Kind::ExecNotPermitted, format!("{}: {}", quoted(), words(errno)))),
        };
    }
    search
        .as_bytes()
        .split(|byte| *byte == b':')
        // A relative entry would be looked up in the working directory.
        .filter(|directory| directory.starts_with(b"/"))
        .map(|directory| Path::new(OsStr::from_bytes(directory)).join(name))
        .find(|path| executable(path).is_ok())
        .ok_or_else(|| {
            Error::new(Kind::ExecNotFound, format!("{}: executable file not found in $PATH", quoted()))
        })
}

/// Whether this process may execute a file; a directory it may not.
fn executable(path: &Path) -> std::result::Result<(), Errno> {
    if paths::kind(&stat(path)?) != SFlag::S_IFREG {
        return Err(Errno::EACCES);
    }
    match faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS) {
        // A filter that doesn't know faccessat2(2): the older call is for the
        // real ids, which are the same. One that denies that as well leaves it
        // to execve to say.
        Err(Errno::EPERM | Errno::ENOSYS) => {
            match faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::empty()) {
                Err(Errno::EPERM | Errno::ENOSYS) => Ok(()),
                result => result,
            }
        }
        result => result,
    }
}

/// An errno in the words that Docker's users know.
fn words(errno: Errno) -> String {
    errno.desc().to_lowercase()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        for (name, mode) in [("a/run", 0o755), ("b/run", 0o755), ("a/plain", 0o644)] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("parent")).expect("mkdir");
            fs::write(&path, "").expect("write");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("chmod");
        }
        fs::create_dir(dir.path().join("a/directory")).expect("mkdir");
        dir
    }

    fn error(name: &str, search: &str) -> (Kind, String) {
        let e = find(OsStr::new(name), OsStr::new(search)).expect_err(name);
        (e.kind(), e.to_string())
    }

    #[test]
    fn the_first_in_the_path() {
        let dir = directory();
        let root = dir.path().display();
        let search = format!("::relative:/none:{root}/b:{root}/a");
        assert_eq!(find(OsStr::new("run"), OsStr::new(&search)).expect("run"), dir.path().join("b/run"));
        let not_found =
            |name| (Kind::ExecNotFound, format!("exec: \"{name}\": executable file not found in $PATH"));
        for name in ["foo", "plain", "directory"] {
            assert_eq!(error(name, &search), not_found(name));
        }
    }

    #[test]
    fn a_path_is_taken_as_it_is() {
        let dir = directory();
        let path = |name: &str| dir.path().join(name).display().to_string();
        assert!(find(OsStr::new(&path("a/run")), OsStr::new("")).is_ok());
        let none = path("none");
        let expected = format!("exec: \"{none}\": stat {none}: no such file or directory");
        assert_eq!(error(&none, ""), (Kind::ExecNotFound, expected));
        for name in ["a/plain", "a/directory"] {
            let path = path(name);
            let expected = format!("exec: \"{path}\": permission denied");
            assert_eq!(error(&path, ""), (Kind::ExecNotPermitted, expected));
        }
    }

    #[test]
    fn the_last_of_two_variables_counts() {
        let env = ["PATH=/a", "PATHX=/c", "PATH=/b"].map(|text| CString::new(text).expect("text"));
        assert_eq!(variable(&env, "PATH"), Some(OsStr::new("/b")));
        assert_eq!(variable(&env, "HOME"), None);
    }
}
