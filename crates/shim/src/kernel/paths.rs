// SPDX-License-Identifier: Apache-2.0
//! Paths inside a container's root (D1): resolved by `openat2` only, with the
//! root as the end of every `..` and of every absolute link, and kept as a
//! descriptor. A name is never resolved twice.
//!
//! Called by `init` for every target of a mount, mask, device and working
//! directory.

use std::{
    ffi::OsStr,
    fs::File,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag},
    sys::stat::{FileStat, Mode, SFlag},
};

use super::{Result, SysError, fd, sys};

/// `openat2` answers EAGAIN while somebody renames on the path. A deadline
/// bounds the retries, because a count fails under a storm of renames (D2).
const RETRY_FOR: Duration = Duration::from_millis(100);
/// As many symbolic links as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;
/// The inode of every procfs' root: PROC_ROOT_INO.
pub const PROC_ROOT: u64 = 1;

/// `openat2` with the retries of D2; always `O_CLOEXEC`.
///
/// # Errors
/// Those of openat2(2).
pub fn openat2(
    dir: impl AsFd,
    path: &Path,
    flags: OFlag,
    mode: Mode,
    resolve: ResolveFlag,
) -> Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
    let deadline = Instant::now() + RETRY_FOR;
    loop {
        match nix::fcntl::openat2(&dir, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) if Instant::now() < deadline => {}
            // The kernel's answer to any other fault would be another number.
            Err(e @ (Errno::ENOSYS | Errno::EPERM)) if !works() => {
                let why = "openat2(2) is missing: berth needs Linux 5.6, and a seccomp filter around it that lets openat2 pass";
                return Err(SysError::new(why, e));
            }
            // Often an answer rather than an error: the directory's name would
            // be a call of its own.
            Err(e @ Errno::ENOENT) => {
                let number = dir.as_fd().as_raw_fd();
                let call = format!("openat2([{number}], {path:?}, {}, {})", names(flags), names(resolve));
                return Err(SysError::new(call, e));
            }
            result => {
                return sys(result, || {
                    format!("openat2({}, {path:?}, {}, {})", fd(&dir), names(flags), names(resolve))
                });
            }
        }
    }
}

/// Whether the kernel, or what filters calls around this process, has
/// `openat2` at all.
fn works() -> bool {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC);
    nix::fcntl::openat2(nix::fcntl::AT_FDCWD, ".", how).is_ok()
}

/// Flags as strace has them: no flag at all is O_RDONLY.
fn names(flags: impl std::fmt::Debug) -> String {
    let text = format!("{flags:?}");
    let inner = text.split_once('(').map_or(text.as_str(), |(_, rest)| rest.trim_end_matches(')'));
    if inner == "0x0" { "O_RDONLY".to_owned() } else { inner.replace(" | ", "|") }
}

/// What must be at a path, and is made when it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Make {
    /// A directory, mode 0755.
    Directory,
    /// An empty regular file, mode 0644.
    File,
}

/// The root directory of a container.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Root {
    /// Takes `dir` as a root.
    #[must_use]
    pub fn new(dir: OwnedFd) -> Self {
        Self(dir)
    }

    /// Opens `path` as the container sees it.
    ///
    /// # Errors
    /// Those of openat2(2).
    pub fn open(&self, path: &Path, flags: OFlag) -> Result<OwnedFd> {
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        openat2(&self.0, path, flags, Mode::empty(), resolve)
    }

    /// A handle to `path`: neither read nor written, the object itself.
    ///
    /// # Errors
    /// Those of openat2(2).
    pub fn handle(&self, path: &Path) -> Result<OwnedFd> {
        self.open(path, OFlag::O_PATH)
    }

    /// A handle to the directory `path`, no part of which may be a link (D8);
    /// its last component is made when it is missing.
    ///
    /// # Errors
    /// ELOOP for a link, ENOTDIR for another kind of file.
    pub fn real_directory(&self, path: &Path) -> Result<OwnedFd> {
        let open = || {
            let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS;
            openat2(&self.0, path, OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty(), resolve)
        };
        match open() {
            Err(e) if e.errno() == Errno::ENOENT => {
                self.make(path, Make::Directory)?;
                open()
            }
            result => result,
        }
    }

    /// A handle to `path`; what is missing of it is made component by
    /// component (D3). A dangling link is followed, and its target made, as
    /// images have them (`/var/run` → `/run`).
    ///
    /// # Errors
    /// Those of the calls; ELOOP for more than 40 dangling links.
    pub fn make(&self, path: &Path, make: Make) -> Result<OwnedFd> {
        let mut path = path.to_owned();
        let mut links = 0;
        loop {
            match self.handle(&path) {
                Err(e) if e.errno() == Errno::ENOENT => {}
                result => return result,
            }
            let (directory, prefix, rest) = self.deepest(&path)?;
            let mut names = rest.components();
            let Some(Component::Normal(name)) = names.next() else { continue };
            let rest = names.as_path().to_owned();
            if let Some(target) = read_link(&directory, name)? {
                links += 1;
                if links > MAX_LINKS {
                    return Err(SysError::new(format!("make({path:?})"), Errno::ELOOP));
                }
                // An absolute target replaces the prefix, which is what join does.
                path = prefix.join(target);
                // Joined with nothing it would end with a slash: a directory's.
                if !rest.as_os_str().is_empty() {
                    path.push(rest);
                }
                continue;
            }
            make_component(
                &directory,
                name,
                if rest.as_os_str().is_empty() { make } else { Make::Directory },
            )?;
        }
    }

    /// The longest prefix of `path` that exists, its handle, and the rest.
    fn deepest(&self, path: &Path) -> Result<(OwnedFd, PathBuf, PathBuf)> {
        let mut prefix = path;
        loop {
            prefix = prefix.parent().unwrap_or(Path::new(""));
            let name = if prefix.as_os_str().is_empty() { Path::new("/") } else { prefix };
            match self.open(name, OFlag::O_PATH | OFlag::O_DIRECTORY) {
                Ok(directory) => {
                    let rest = path.strip_prefix(prefix).unwrap_or(path);
                    let rest = rest.strip_prefix("/").unwrap_or(rest).to_owned();
                    return Ok((directory, name.to_owned(), rest));
                }
                Err(e) if e.errno() == Errno::ENOENT && !prefix.as_os_str().is_empty() => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// The target of the link `name`; `None` when it is missing or no link.
fn read_link(directory: &OwnedFd, name: &OsStr) -> Result<Option<PathBuf>> {
    match nix::fcntl::readlinkat(directory, name) {
        Ok(target) => Ok(Some(target.into())),
        Err(Errno::ENOENT | Errno::EINVAL) => Ok(None),
        Err(e) => Err(SysError::new(format!("readlinkat({}, {name:?})", fd(directory)), e)),
    }
}

/// Makes one name in a directory; one that came into being meanwhile is left.
fn make_component(directory: &OwnedFd, name: &OsStr, make: Make) -> Result<()> {
    let result = match make {
        Make::Directory => nix::sys::stat::mkdirat(directory, name, Mode::from_bits_truncate(0o755)),
        Make::File => {
            let flags =
                OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            nix::fcntl::openat(directory, name, flags, Mode::from_bits_truncate(0o644)).map(drop)
        }
    };
    match result {
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(e) => {
            let call = if make == Make::Directory { "mkdirat" } else { "openat" };
            Err(SysError::new(format!("{call}({}, {name:?}, …)", fd(directory)), e))
        }
    }
}

/// Opens a path of the host, which the engine vouches for.
///
/// # Errors
/// Those of open(2).
pub fn open_host(path: &Path, flags: OFlag) -> Result<OwnedFd> {
    sys(nix::fcntl::open(path, flags | OFlag::O_CLOEXEC, Mode::empty()), || {
        format!("open({path:?}, {})", names(flags))
    })
}

/// What a descriptor refers to.
///
/// # Errors
/// Those of fstat(2).
pub fn stat(file: impl AsFd) -> Result<FileStat> {
    sys(nix::sys::stat::fstatat(&file, "", AtFlags::AT_EMPTY_PATH), || format!("fstat({})", fd(&file)))
}

/// Whether a descriptor refers to a directory.
///
/// # Errors
/// Those of fstat(2).
pub fn is_directory(file: impl AsFd) -> Result<bool> {
    Ok(kind(&stat(file)?) == SFlag::S_IFDIR)
}

/// The file type of a stat.
#[must_use]
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

/// Whether a descriptor is on a procfs.
///
/// # Errors
/// Those of fstatfs(2).
pub fn is_procfs(file: &OwnedFd) -> Result<bool> {
    let file_system = sys(nix::sys::statfs::fstatfs(file), || format!("fstatfs({})", fd(file)))?;
    Ok(file_system.filesystem_type() == nix::sys::statfs::PROC_SUPER_MAGIC)
}

/// Reads at most `limit` bytes of a regular file.
///
/// # Errors
/// EFBIG for a larger one, EINVAL for another kind of file.
pub fn read_regular(file: OwnedFd, limit: u64) -> Result<Vec<u8>> {
    use std::io::Read as _;
    if kind(&stat(&file)?) != SFlag::S_IFREG {
        return Err(SysError::new(format!("read({}): not a regular file", fd(&file)), Errno::EINVAL));
    }
    let (file, mut text) = (File::from(file), Vec::new());
    (&file)
        .take(limit + 1)
        .read_to_end(&mut text)
        .map_err(|e| SysError::from_io(format!("read({})", fd(&file)), &e))?;
    if text.len() as u64 > limit {
        return Err(SysError::new(format!("read({}): more than {limit} bytes", fd(&file)), Errno::EFBIG));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn root(dir: &Path) -> Root {
        Root::new(open_host(dir, OFlag::O_PATH | OFlag::O_DIRECTORY).expect("open"))
    }

    #[test]
    fn flags_print_as_strace_has_them() {
        assert_eq!(names(OFlag::empty()), "O_RDONLY");
        assert_eq!(names(ResolveFlag::RESOLVE_IN_ROOT), "RESOLVE_IN_ROOT");
        assert_eq!(names(OFlag::O_PATH | OFlag::O_NOFOLLOW).split('|').count(), 2);
    }

    #[test]
    fn links_end_at_the_root() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir_all(dir.path().join("root/etc")).expect("mkdir");
        fs::write(dir.path().join("canary"), "").expect("write");
        symlink("../../../canary", dir.path().join("root/up")).expect("link");
        symlink(dir.path().join("canary"), dir.path().join("root/absolute")).expect("link");
        let root = root(&dir.path().join("root"));
        for link in ["/up", "/absolute"] {
            let e = root.handle(Path::new(link)).expect_err(link);
            assert_eq!(e.errno(), Errno::ENOENT, "{link}");
        }
    }

    #[test]
    fn missing_targets_are_made_inside() {
        let dir = tempfile::tempdir().expect("tempdir");
        let inside = dir.path().join("root");
        fs::create_dir_all(inside.join("var")).expect("mkdir");
        symlink("/run", inside.join("var/run")).expect("link");
        symlink("../../../../out", inside.join("var/out")).expect("link");
        let root = root(&inside);
        root.make(Path::new("/var/run/a/b"), Make::File).expect("file");
        assert!(inside.join("run/a/b").is_file());
        root.make(Path::new("/var/out/c"), Make::Directory).expect("directory");
        assert!(inside.join("out/c").is_dir());
        assert!(!dir.path().join("out").exists());
        root.make(Path::new("/x"), Make::Directory).expect("top level");
        assert!(inside.join("x").is_dir());
    }

    #[test]
    fn a_ring_of_links_ends() {
        let dir = tempfile::tempdir().expect("tempdir");
        symlink("b", dir.path().join("a")).expect("link");
        symlink("a", dir.path().join("b")).expect("link");
        let e = root(dir.path()).make(Path::new("/a/x"), Make::Directory).expect_err("ring");
        assert_eq!(e.errno(), Errno::ELOOP);
        symlink("y/d", dir.path().join("d")).expect("link");
        assert!(root(dir.path()).make(Path::new("/d/x"), Make::Directory).is_ok());
    }

    #[test]
    fn a_real_directory_is_no_link() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir(dir.path().join("other")).expect("mkdir");
        symlink("other", dir.path().join("proc")).expect("link");
        let root = root(dir.path());
        let e = root.real_directory(Path::new("/proc")).expect_err("link");
        assert_eq!(e.errno(), Errno::ELOOP);
        root.real_directory(Path::new("/sys")).expect("made");
        assert!(dir.path().join("sys").is_dir());
    }

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::write(dir.path().join("f"), "12345").expect("write");
        let open = |name: &str| {
            root(dir.path()).open(Path::new(name), OFlag::O_RDONLY | OFlag::O_NONBLOCK).expect("open")
        };
        assert_eq!(read_regular(open("f"), 5).expect("read"), b"12345");
        assert_eq!(read_regular(open("f"), 4).expect_err("large").errno(), Errno::EFBIG);
        nix::unistd::mkfifo(&dir.path().join("p"), Mode::S_IRWXU).expect("mkfifo");
        assert_eq!(read_regular(open("p"), 4).expect_err("fifo").errno(), Errno::EINVAL);
    }
}
