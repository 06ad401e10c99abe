// SPDX-License-Identifier: Apache-2.0
//! The mount API of Linux 5.2 and later: mounts are made detached, configured,
//! and moved onto a descriptor, so that no path is resolved twice (D4).
#![allow(unsafe_code, reason = "system calls without a wrapper in nix or libc")]

use std::{
    ffi::{CStr, CString, c_int, c_uint},
    fmt,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::{errno::Errno, fcntl::OFlag, sys::stat::Mode};

use super::{Result, SysError, fd};

// Constants of linux/mount.h.
const FSOPEN_CLOEXEC: c_uint = 1;
const FSMOUNT_CLOEXEC: c_uint = 1;
const FSCONFIG_SET_FLAG: c_uint = 0;
const FSCONFIG_SET_STRING: c_uint = 1;
const FSCONFIG_CMD_CREATE: c_uint = 6;
const FSCONFIG_CMD_RECONFIGURE: c_uint = 7;
const FSPICK_CLOEXEC: c_uint = 1;
const FSPICK_EMPTY_PATH: c_uint = 8;
const MOVE_MOUNT_F_EMPTY_PATH: c_uint = 0x4;
const MOVE_MOUNT_T_EMPTY_PATH: c_uint = 0x40;
const AT_RECURSIVE: c_uint = 0x8000;
/// fsconfig(2) takes strings of at most 255 bytes.
pub const MAX_OPTION: usize = 255;

/// Attributes of a mount: `MOUNT_ATTR_*` of linux/mount.h.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// No set-user-id.
    pub const NOSUID: u64 = 0x2;
    /// No device files.
    pub const NODEV: u64 = 0x4;
    /// No executables.
    pub const NOEXEC: u64 = 0x8;
    /// The bits that say how access times are kept; relatime is none of them.
    pub const ATIME: u64 = 0x70;
    /// Access times are never updated.
    pub const NOATIME: u64 = 0x10;
    /// Access times are always updated.
    pub const STRICTATIME: u64 = 0x20;
    /// Access times of directories are never updated.
    pub const NODIRATIME: u64 = 0x80;
    /// Symbolic links are not followed.
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
    /// Ids are those of a user namespace.
    pub(super) const IDMAP: u64 = 0x10_0000;
}

/// How far an operation reaches down a tree of mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The one mount.
    Mount,
    /// All mounts below it, too.
    Tree,
}

impl Reach {
    fn flag(self) -> c_uint {
        match self {
            Self::Mount => 0,
            Self::Tree => AT_RECURSIVE,
        }
    }
}

/// What `mount_setattr` changes: the kernel's `struct mount_attr`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `attr::*` to set.
    pub set: u64,
    /// `attr::*` to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE` or 0.
    pub propagation: u64,
    userns: u64,
}

impl Attributes {
    /// Sets `set`.
    #[must_use]
    pub fn set(set: u64) -> Self {
        Self { set, ..Self::default() }
    }

    /// Sets and clears; `clear` wins no conflict: the kernel clears first.
    #[must_use]
    pub fn change(set: u64, clear: u64) -> Self {
        Self { set, clear, ..Self::default() }
    }

    /// Shows ids as they are in the user namespace `users`. Only once, and
    /// only of a mount that is attached nowhere.
    #[must_use]
    pub fn idmap(users: BorrowedFd<'_>) -> Self {
        Self { set: attr::IDMAP, userns: u64::from(users.as_raw_fd().unsigned_abs()), ..Self::default() }
    }

    /// Changes how mount events travel.
    #[must_use]
    pub fn propagation(propagation: u64) -> Self {
        Self { propagation, ..Self::default() }
    }
}

/// A file system that is being configured.
pub struct FileSystem {
    context: OwnedFd,
    name: String,
}

impl fmt::Debug for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileSystem").field("name", &self.name).finish_non_exhaustive()
    }
}

impl FileSystem {
    /// fsopen(2).
    ///
    /// # Errors
    /// ENODEV for a file system that the kernel doesn't have.
    pub fn open(name: &str) -> Result<Self> {
        let text = c_string(name, "fsopen")?;
        // SAFETY: `text` ends with NUL and outlives the call.
        let result = unsafe { libc::syscall(libc::SYS_fsopen, text.as_ptr(), FSOPEN_CLOEXEC) };
        let context = descriptor(result, || format!("fsopen({name:?})"))?;
        Ok(Self { context, name: name.to_owned() })
    }

    /// That of a mount, to be changed: fspick(2).
    ///
    /// # Errors
    /// EINVAL for what isn't the root of a mount.
    pub fn of(mount: impl AsFd) -> Result<Self> {
        let mount = mount.as_fd();
        let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
        // SAFETY: the empty path is static and ends with NUL.
        let result = unsafe { libc::syscall(libc::SYS_fspick, mount.as_raw_fd(), c"".as_ptr(), flags) };
        let context = descriptor(result, || format!("fspick({})", fd(mount)))?;
        Ok(Self { context, name: fd(mount) })
    }

    /// Changes the file system of a mount.
    ///
    /// # Errors
    /// Whatever the file system dislikes.
    pub fn reconfigure(self) -> Result<()> {
        self.config(FSCONFIG_CMD_RECONFIGURE, None, None)
    }

    /// An option with a value.
    ///
    /// # Errors
    /// EINVAL for an option that the file system doesn't have, or a value of
    /// more than [`MAX_OPTION`] bytes.
    pub fn string(&self, key: &str, value: impl AsRef<std::ffi::OsStr>) -> Result<()> {
        let value = value.as_ref();
        let text = CString::new(value.as_bytes()).map_err(|_| {
            SysError::new(format!("fsconfig({}, {key:?}, {value:?})", self.name), Errno::EINVAL)
        })?;
        self.config(FSCONFIG_SET_STRING, Some(key), Some(&text))
    }

    /// An option without a value.
    ///
    /// # Errors
    /// EINVAL for an option that the file system doesn't have.
    pub fn flag(&self, key: &str) -> Result<()> {
        self.config(FSCONFIG_SET_FLAG, Some(key), None)
    }

    /// Makes the file system, and a detached mount of it.
    ///
    /// # Errors
    /// Whatever the file system dislikes, with its own words from the
    /// kernel's log of this context.
    pub fn mount(self, attributes: u64) -> Result<OwnedFd> {
        self.config(FSCONFIG_CMD_CREATE, None, None)?;
        // SAFETY: only integers are passed.
        let result = unsafe {
            libc::syscall(libc::SYS_fsmount, self.context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes)
        };
        descriptor(result, || format!("fsmount({}, {attributes:#x})", self.name))
    }

    fn config(&self, command: c_uint, key: Option<&str>, value: Option<&CStr>) -> Result<()> {
        let key_text = key.map(|key| c_string(key, "fsconfig")).transpose()?;
        let key_pointer = key_text.as_ref().map_or(std::ptr::null(), |k| k.as_ptr());
        let value_pointer = value.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: both strings end with NUL and outlive the call, or are null
        // where the command takes none.
        let result = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                self.context.as_raw_fd(),
                command,
                key_pointer,
                value_pointer,
                0 as c_int,
            )
        };
        done(result, || {
            let what = key.map_or_else(|| "create".to_owned(), |key| format!("{key:?}, {value:?}"));
            format!("fsconfig({}, {what}){}", self.name, self.log())
        })
    }

    /// What the kernel has to say about a failed configuration.
    fn log(&self) -> String {
        let mut text = [0; 512];
        match nix::unistd::read(&self.context, &mut text) {
            Ok(n) => format!(" [{}]", String::from_utf8_lossy(&text[..n]).trim()),
            Err(_) => String::new(),
        }
    }
}

/// A detached copy of the mount, or tree of mounts, at `path` below `dir`; an
/// empty path means `dir` itself. A link at the end of `path` is followed.
///
/// # Errors
/// Those of open_tree(2).
pub fn clone_mount(dir: impl AsFd, path: &Path, reach: Reach) -> Result<OwnedFd> {
    let dir = dir.as_fd();
    let text = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| SysError::new(format!("open_tree({path:?})"), Errno::EINVAL))?;
    let flags =
        libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as c_uint | reach.flag();
    // SAFETY: `text` ends with NUL and outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), text.as_ptr(), flags) };
    descriptor(result, || format!("open_tree({}, {path:?}, OPEN_TREE_CLONE, {reach:?})", fd(dir)))
}

/// Moves the mount `from` onto `onto`.
///
/// # Errors
/// Those of move_mount(2): ENOTDIR for a file onto a directory or the reverse.
pub fn attach(from: impl AsFd, onto: impl AsFd) -> Result<()> {
    let (from, onto) = (from.as_fd(), onto.as_fd());
    // SAFETY: the empty paths are static and end with NUL.
    let result = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            from.as_raw_fd(),
            c"".as_ptr(),
            onto.as_raw_fd(),
            c"".as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    done(result, || format!("move_mount({}, {})", fd(from), fd(onto)))
}

/// Changes the attributes of a mount.
///
/// # Errors
/// Those of mount_setattr(2).
pub fn set_attributes(mount: impl AsFd, reach: Reach, attributes: Attributes) -> Result<()> {
    if attributes == Attributes::default() {
        return Ok(());
    }
    let mount = mount.as_fd();
    let flags = libc::AT_EMPTY_PATH as c_uint | reach.flag();
    // SAFETY: `attributes` is a `struct mount_attr` of the size that is given,
    // and the empty path is static.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    };
    done(result, || format!("mount_setattr({}, {reach:?}, {attributes:x?})", fd(mount)))
}

fn c_string(text: &str, call: &str) -> Result<CString> {
    CString::new(text).map_err(|_| SysError::new(format!("{call}({text:?})"), Errno::EINVAL))
}

fn descriptor(result: libc::c_long, call: impl FnOnce() -> String) -> Result<OwnedFd> {
    match c_int::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => {
            let errno = Errno::last();
            Err(SysError::new(call(), errno))
        }
    }
}

fn done(result: libc::c_long, call: impl FnOnce() -> String) -> Result<()> {
    if result == 0 {
        return Ok(());
    }
    let errno = Errno::last();
    Err(SysError::new(call(), errno))
}
/// The root directory of the mount that `directory` is in.
///
/// # Errors
/// Those of statx(2) and openat(2).
pub fn root_of(directory: &OwnedFd) -> Result<OwnedFd> {
    let mut here = directory.try_clone().map_err(|e| SysError::from_io("dup", &e))?;
    while !is_mount_root(&here)? {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let up = nix::fcntl::openat(&here, "..", flags, Mode::empty());
        here = super::sys(up, || format!("openat({}, \"..\")", fd(&here)))?;
    }
    Ok(here)
}

fn is_mount_root(directory: &OwnedFd) -> Result<bool> {
    let found = statx(directory, 0)?;
    Ok(found.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT.cast_unsigned() as u64 != 0)
}

/// The number of the mount that `directory` is in, as mountinfo has it.
///
/// # Errors
/// Those of statx(2).
pub fn id_of(directory: impl AsFd) -> Result<u64> {
    Ok(statx(directory, libc::STATX_MNT_ID)?.stx_mnt_id)
}

fn statx(directory: impl AsFd, mask: c_uint) -> Result<libc::statx> {
    let directory = directory.as_fd();
    // SAFETY: all zeros is a valid `statx`: integers only.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: an empty path means the descriptor itself; `found` is alive.
    let result = unsafe {
        libc::statx(directory.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, mask, &raw mut found)
    };
    if result != 0 {
        return Err(SysError::new(format!("statx({}, AT_EMPTY_PATH)", fd(directory)), Errno::last()));
    }
    Ok(found)
}
