// SPDX-License-Identifier: Apache-2.0
//! A file's contents, sealed in memory: what is executed from it can't be
//! changed by anybody, not even through /proc/self/exe (D7).

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};

/// `MFD_EXEC` of linux/memfd.h: Linux 6.3, unknown before.
const MFD_EXEC: u32 = 0x10;

/// Copies `path` into a memfd and seals it for good.
///
/// # Errors
/// Those of the file and of memfd_create(2).
pub fn sealed_copy(path: &Path, name: &str) -> io::Result<OwnedFd> {
    let mut source = File::open(path)?;
    let mut copy = File::from(create(name)?);
    io::copy(&mut source, &mut copy)?;
    let seals =
        SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    // A descriptor that can't even be asked to write.
    let sealed = File::open(format!("/proc/self/fd/{}", copy.as_raw_fd()))?;
    Ok(sealed.into())
}

fn create(name: &str) -> nix::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    match memfd_create(name, flags | MFdFlags::from_bits_retain(MFD_EXEC)) {
        Err(nix::errno::Errno::EINVAL) => memfd_create(name, flags),
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        process::Command,
    };

    #[test]
    fn a_sealed_program_runs_and_cannot_be_written() {
        let fd = sealed_copy(Path::new("/bin/true"), "test").expect("copy");
        let path = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
        assert!(Command::new(&path).status().expect("run").success());
        let written = File::options().write(true).open(&path).and_then(|mut f| f.write_all(b"x"));
        assert_eq!(written.expect_err("sealed").raw_os_error(), Some(libc::EPERM));
        let mut magic = [0; 4];
        File::from(fd).read_exact(&mut magic).expect("read");
        assert_eq!(&magic, b"\x7fELF");
    }
}
