// SPDX-License-Identifier: Apache-2.0
//! Keeps this program's file out of a container's reach (D7).
//!
//! A container's program may be `#!/proc/self/exe`: then the kernel executes
//! the very file that the process before was executed from, which the
//! container could open and, once nobody executes it any more, write to
//! (CVE-2019-5736). So a verb that makes a process first executes this program
//! once more, from a mount of its file that nobody can write through, or from
//! a sealed copy where a mount is not allowed.

use std::{
    convert::Infallible,
    ffi::CString,
    fs::File,
    io::{Seek as _, SeekFrom},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, OFlag, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        statvfs::{FsFlags, fstatvfs},
    },
};

use super::Failure;
use crate::kernel::{
    Procfs,
    mount::{self, Attributes, Reach, attr},
};

/// In the environment of the second execution, so that there is no third.
const MARK: &str = "_BERTH_OCI_SEALED";

/// Returns when the file that is executed can't be written to by a container.
pub(super) fn ensure() -> Result<(), Failure> {
    let exe = Procfs::of_host()?.follow("self/exe", OFlag::O_RDONLY)?;
    if is_sealed(&exe)? {
        return Ok(());
    }
    if std::env::var_os(MARK).is_some() {
        return Err(Failure::new("the runtime's own file can't be protected from containers"));
    }
    let sealed = match read_only_mount(&exe) {
        Err(e) if matches!(e.errno(), Errno::EPERM | Errno::ENOSYS | Errno::EINVAL) => sealed_copy(exe)?,
        result => result?,
    };
    match execute(&sealed)? {}
}

fn is_sealed(exe: &OwnedFd) -> Result<bool, Failure> {
    let status = fstatvfs(exe).map_err(|e| Failure::io("fstatvfs(/proc/self/exe)", &e.into()))?;
    if status.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(true);
    }
    // EINVAL for a file that can have none.
    let seals =
        fcntl(exe.as_fd(), FcntlArg::F_GET_SEALS).map_or(SealFlag::empty(), SealFlag::from_bits_retain);
    Ok(seals.contains(SealFlag::F_SEAL_WRITE))
}

/// A mount of the program's file that is in no mount namespace.
fn read_only_mount(exe: &OwnedFd) -> crate::kernel::Result<OwnedFd> {
    let mount = mount::clone_mount(exe, Path::new(""), Reach::Mount)?;
    mount::set_attributes(&mount, Reach::Mount, Attributes::set(attr::RDONLY | attr::NOSUID))?;
    Ok(mount)
}

fn sealed_copy(exe: OwnedFd) -> Result<OwnedFd, Failure> {
    let failed = |e: std::io::Error| Failure::io("copy /proc/self/exe", &e);
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut copy = File::from(memfd_create(c"berth-oci", flags).map_err(|e| failed(e.into()))?);
    std::io::copy(&mut File::from(exe), &mut copy).map_err(failed)?;
    copy.seek(SeekFrom::Start(0)).map_err(failed)?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals)).map_err(|e| failed(e.into()))?;
    Ok(copy.into())
}

fn execute(program: &OwnedFd) -> Result<Infallible, Failure> {
    let text = |bytes: Vec<u8>| CString::new(bytes).map_err(|e| Failure::new(e.to_string()));
    let arguments = std::env::args_os().map(|argument| text(argument.into_vec()));
    let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
    let variables = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        text(name.into_vec())
    });
    let mark = text(format!("{MARK}=1").into_bytes());
    let environment = variables.chain([mark]).collect::<Result<Vec<_>, _>>()?;
    nix::unistd::fexecve(program, &arguments, &environment)
        .map_err(|e| Failure::io("execute /proc/self/exe", &e.into()))
}
