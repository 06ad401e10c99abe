// SPDX-License-Identifier: Apache-2.0
//! Architectures and their system call numbers.
//!
//! The tables are text, a name and a number a line, so that a shim's memory
//! holds no relocated pointers for them. Source: Linux 6.18's syscall tables.

use oci_spec::runtime::Arch;

/// Set in the number of every x32 call (asm/unistd.h, `__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// One set of system calls that a process on this CPU can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    X86_64,
    X32,
    I386,
    Aarch64,
}

/// A call that is made by way of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Multiplexed {
    /// Of the call that is made.
    pub(super) number: u32,
    /// Of its first argument, for the call that is meant.
    pub(super) mask: u64,
    pub(super) code: u64,
}

/// SYS_* of linux/net.h.
const SOCKET_CALLS: [(&str, u64); 20] = [
    ("socket", 1),
    ("bind", 2),
    ("connect", 3),
    ("listen", 4),
    ("accept", 5),
    ("getsockname", 6),
    ("getpeername", 7),
    ("socketpair", 8),
    ("send", 9),
    ("recv", 10),
    ("sendto", 11),
    ("recvfrom", 12),
    ("shutdown", 13),
    ("setsockopt", 14),
    ("getsockopt", 15),
    ("sendmsg", 16),
    ("recvmsg", 17),
    ("accept4", 18),
    ("recvmmsg", 19),
    ("sendmmsg", 20),
];

/// Of linux/ipc.h.
const IPC_CALLS: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

impl Table {
    /// The table that an OCI architecture names; `None` for those of CPUs that
    /// berth doesn't run on.
    pub(super) fn of(arch: Arch) -> Option<Self> {
        match arch {
            Arch::ScmpArchNative => Self::native(),
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchX86 => Some(Self::I386),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// The table of this binary's own calls.
    pub(super) fn native() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    /// `seccomp_data.arch` of its calls: AUDIT_ARCH_* of linux/audit.h. x32
    /// shares that of x86-64.
    pub(super) fn audit_arch(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The other way to call `name`: the number of socketcall or ipc, and what
    /// its first argument says to mean `name`. Only i386 has such calls.
    pub(super) fn multiplexed(self, name: &str) -> Option<Multiplexed> {
        if self != Self::I386 {
            return None;
        }
        let code = |names: &[(&str, u64)]| names.iter().find(|(n, _)| *n == name).map(|(_, code)| *code);
        // The upper half of ipc's first argument is a version.
        let socket = code(&SOCKET_CALLS).map(|code| Multiplexed { number: 102, mask: 0xffff_ffff, code });
        socket.or_else(|| code(&IPC_CALLS).map(|code| Multiplexed { number: 117, mask: 0xffff, code }))
    }

    /// Bits of an argument that such a process can set.
    pub(super) fn argument_mask(self) -> u64 {
        if self == Self::I386 { u64::from(u32::MAX) } else { u64::MAX }
    }

    /// Every call as name and `seccomp_data.nr`.
    pub(super) fn calls(self) -> impl Iterator<Item = (&'static str, u32)> {
        let (text, bit) = match self {
            Self::X86_64 => (include_str!("tables/x86_64.txt"), 0),
            Self::X32 => (include_str!("tables/x32.txt"), X32_BIT),
            Self::I386 => (include_str!("tables/i386.txt"), 0),
            Self::Aarch64 => (include_str!("tables/aarch64.txt"), 0),
        };
        text.lines().filter_map(move |line| {
            let (name, number) = line.split_once(' ')?;
            Some((name, number.parse::<u32>().ok()? | bit))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_every_table_is_a_call() {
        for (table, text) in [
            (Table::X86_64, include_str!("tables/x86_64.txt")),
            (Table::X32, include_str!("tables/x32.txt")),
            (Table::I386, include_str!("tables/i386.txt")),
            (Table::Aarch64, include_str!("tables/aarch64.txt")),
        ] {
            assert_eq!(table.calls().count(), text.lines().count(), "{table:?}");
        }
    }

    #[test]
    fn the_native_table_agrees_with_libc() {
        let table = Table::native().expect("a supported CPU");
        for (name, number) in [
            ("read", libc::SYS_read),
            ("execve", libc::SYS_execve),
            ("clone3", libc::SYS_clone3),
            ("openat2", libc::SYS_openat2),
            ("mseal", libc::SYS_mseal),
        ] {
            let found = table.calls().find(|(n, _)| *n == name).map(|(_, n)| i64::from(n));
            assert_eq!(found, Some(number), "{name}");
        }
    }
}
