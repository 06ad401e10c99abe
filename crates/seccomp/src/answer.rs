// SPDX-License-Identifier: Apache-2.0
//! What a filter answers to a call, found out without making it. Asked by the
//! runtime, which has calls to make under a filter that was written for
//! somebody else, and by the compiler's tests.

use super::{
    arch::Table,
    bpf::{ARCH, Instruction, NR, Step},
    compile::Program,
    policy::lets_pass,
};

/// A call as the kernel shows it to a filter: `struct seccomp_data`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) arch: u32,
    pub(super) nr: u32,
    pub(super) args: [u64; 6],
}

impl Call {
    /// The 32 bits at `offset`; of the instruction pointer, which no profile
    /// speaks of, zeros.
    fn word(&self, offset: u32) -> u32 {
        match offset {
            NR => self.nr,
            ARCH => self.arch,
            _ => {
                let argument = offset.checked_sub(16).and_then(|at| self.args.get(at as usize / 8));
                let shift = if offset.is_multiple_of(8) { 0 } else { 32 };
                let half = argument.map_or(0, |argument| argument >> shift & u64::from(u32::MAX));
                u32::try_from(half).unwrap_or_default()
            }
        }
    }
}

/// The answer of a filter that has been checked; of another, where it leaves
/// its end, that of the kernel to a filter which it has not taken: nothing.
pub(super) fn run(filter: &[Instruction], call: &Call) -> Option<u32> {
    let (mut a, mut at) = (0_u32, 0_usize);
    loop {
        let step = filter.get(at)?.step(a)?;
        at += 1;
        match step {
            Step::Load(offset) => a = call.word(offset),
            Step::And(mask) => a &= mask,
            Step::Skip(distance) => at += distance,
            Step::Return(answer) => return Some(answer),
        }
    }
}

impl Program {
    /// Whether a call of this binary's own architecture is made under this
    /// filter as if there were none; its number is one of `libc::SYS_*`.
    #[must_use]
    pub fn lets_pass(&self, number: libc::c_long, args: [u64; 6]) -> bool {
        let (Some(table), Ok(nr)) = (Table::native(), u32::try_from(number)) else { return false };
        let call = Call { arch: table.audit_arch(), nr, args };
        run(&self.filter, &call).is_some_and(lets_pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::{equal, load, ret};

    #[test]
    fn only_what_is_done_at_once_passes() {
        let filter = |answer| Program {
            filter: vec![load(NR), equal(39, 0, 1), ret(answer), ret(0)],
            flags: 0,
            listener: None,
        };
        // SECCOMP_RET_ALLOW and LOG, linux/seccomp.h; then ERRNO, TRACE,
        // USER_NOTIF, TRAP and both ways to kill.
        for answer in [0x7fff_0000, 0x7ffc_0000] {
            assert!(filter(answer).lets_pass(39, [0; 6]), "{answer:#x}");
            assert!(!filter(answer).lets_pass(40, [0; 6]), "{answer:#x}");
        }
        for answer in [0x0005_0001, 0x7ff0_0000, 0x7fc0_0000, 0x0003_0000, 0, 0x8000_0000] {
            assert!(!filter(answer).lets_pass(39, [0; 6]), "{answer:#x}");
        }
        assert!(!filter(0x7fff_0000).lets_pass(-1, [0; 6]));
    }

    #[test]
    fn arguments_have_two_halves() {
        let call = Call { arch: 0, nr: 0, args: [1, 2 << 32 | 3, 0, 0, 0, 4 << 32] };
        let word = |offset| call.word(offset);
        assert_eq!([16, 20, 24, 28, 56, 60].map(word), [1, 0, 3, 2, 0, 4]);
        assert_eq!([8, 12, 64].map(word), [0; 3]);
        assert_eq!(run(&[load(NR)], &call), None);
    }
}
