// SPDX-License-Identifier: Apache-2.0
//! bpf(2): loading a program for the devices of a cgroup, and attaching it.
//! What the program says is `cgroup::v2::devices`'s business.
#![allow(unsafe_code, reason = "system calls without a wrapper in nix or libc")]

use std::{
    ffi::c_int,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use nix::errno::Errno;

use super::{Result, SysError, fd};

// Constants of linux/bpf.h.
const BPF_PROG_LOAD: c_int = 5;
const BPF_PROG_ATTACH: c_int = 8;
const BPF_PROG_GET_FD_BY_ID: c_int = 13;
const BPF_PROG_QUERY: c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;
const BPF_F_REPLACE: u32 = 4;

/// One instruction: `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// Operation code.
    pub code: u8,
    /// Source register in the upper four bits, destination in the lower.
    pub registers: u8,
    /// Signed offset of a load or a jump.
    pub offset: i16,
    /// Immediate value.
    pub immediate: i32,
}

/// Loads a device program.
///
/// # Errors
/// EINVAL or EACCES when the verifier refuses it.
pub fn load_device_program(program: &[Instruction]) -> Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        program_type: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    let load = Load {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: `load` is the beginning of `union bpf_attr` for this command, of
    // the size that is given; what it points to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
    match c_int::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(SysError::new(
            format!("bpf(BPF_PROG_LOAD, CGROUP_DEVICE, {} instructions)", program.len()),
            Errno::last(),
        )),
    }
}

/// Attaches a device program to a cgroup, besides those of its ancestors, and
/// in the place of one that is attached to it.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN, EINVAL for a directory that is no cgroup,
/// ENOENT when the other one isn't attached.
pub fn attach_device_program(
    cgroup: impl AsFd,
    program: &OwnedFd,
    instead_of: Option<&OwnedFd>,
) -> Result<()> {
    #[repr(C)]
    struct Attach {
        target: u32,
        program: u32,
        attach_type: u32,
        flags: u32,
        replaced: u32,
    }
    let cgroup = cgroup.as_fd();
    let attach = Attach {
        target: cgroup.as_raw_fd().unsigned_abs(),
        program: program.as_raw_fd().unsigned_abs(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI | instead_of.map_or(0, |_| BPF_F_REPLACE),
        replaced: instead_of.map_or(0, |program| program.as_raw_fd().unsigned_abs()),
    };
    // SAFETY: `attach` is the beginning of `union bpf_attr` for this command,
    // of the size that is given.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<Attach>()) };
    if result == 0 {
        return Ok(());
    }
    Err(SysError::new(format!("bpf(BPF_PROG_ATTACH, {})", fd(cgroup)), Errno::last()))
}

/// The device program that is attached to a cgroup itself; the latest of
/// several.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn attached_device_program(cgroup: impl AsFd) -> Result<Option<OwnedFd>> {
    #[repr(C)]
    struct Query {
        target: u32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
    }
    const ROOM: usize = 64;
    let cgroup = cgroup.as_fd();
    let mut ids = [0_u32; ROOM];
    let mut query = Query {
        target: cgroup.as_raw_fd().unsigned_abs(),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: 64,
    };
    // SAFETY: `query` is the beginning of `union bpf_attr` for this command,
    // of the size that is given; the kernel writes at most `count` ids into
    // `ids`, which has room for as many, and the counts into `query`.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_QUERY, &raw mut query, size_of::<Query>()) };
    if result != 0 {
        return Err(SysError::new(format!("bpf(BPF_PROG_QUERY, {})", fd(cgroup)), Errno::last()));
    }
    let count = usize::try_from(query.count).unwrap_or(ROOM).min(ROOM);
    ids[..count].last().map(|id| program_by_id(*id)).transpose()
}

fn program_by_id(id: u32) -> Result<OwnedFd> {
    #[repr(C)]
    struct ById {
        id: u32,
        next: u32,
        open_flags: u32,
    }
    let by_id = ById { id, next: 0, open_flags: 0 };
    // SAFETY: `by_id` is the beginning of `union bpf_attr` for this command,
    // of the size that is given.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_GET_FD_BY_ID, &raw const by_id, size_of::<ById>()) };
    match c_int::try_from(result) {
        // SAFETY: the kernel has just made this descriptor for us alone.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        _ => Err(SysError::new(format!("bpf(BPF_PROG_GET_FD_BY_ID, {id})"), Errno::last())),
    }
}
