// SPDX-License-Identifier: Apache-2.0
//! The few classic BPF instructions that a seccomp filter is made of
//! (linux/filter.h).

/// One instruction: the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// What an instruction does, as far as a checker asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of the word at this offset.
    Load(u32),
    Mask,
    Jump(u32),
    Branch(u8, u8),
    Return,
    Unknown,
}

/// What an instruction does to the number that a filter has loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// The word at this offset takes its place.
    Load(u32),
    And(u32),
    /// So many instructions are left out.
    Skip(usize),
    Return(u32),
}

impl Instruction {
    /// As it is in memory, and in a file of libseccomp's.
    #[must_use]
    pub fn bytes(self) -> [u8; 8] {
        let ([c0, c1], [k0, k1, k2, k3]) = (self.code.to_ne_bytes(), self.k.to_ne_bytes());
        [c0, c1, self.jt, self.jf, k0, k1, k2, k3]
    }

    /// The other way.
    #[must_use]
    pub fn from_bytes([c0, c1, jt, jf, k0, k1, k2, k3]: [u8; 8]) -> Self {
        Self { code: u16::from_ne_bytes([c0, c1]), jt, jf, k: u32::from_ne_bytes([k0, k1, k2, k3]) }
    }

    pub(super) fn kind(self) -> Kind {
        match self.code {
            LD_W_ABS => Kind::Load(self.k),
            AND_K => Kind::Mask,
            JA => Kind::Jump(self.k),
            JEQ_K | JGT_K | JGE_K => Kind::Branch(self.jt, self.jf),
            RET_K => Kind::Return,
            _ => Kind::Unknown,
        }
    }
    /// What it does when `a` has been loaded; `None` for one of no filter.
    pub(super) fn step(self, a: u32) -> Option<Step> {
        let branch = |taken: bool| Step::Skip(usize::from(if taken { self.jt } else { self.jf }));
        Some(match self.code {
            LD_W_ABS => Step::Load(self.k),
            AND_K => Step::And(self.k),
            JA => Step::Skip(self.k as usize),
            JEQ_K => branch(a == self.k),
            JGT_K => branch(a > self.k),
            JGE_K => branch(a >= self.k),
            RET_K => Step::Return(self.k),
            _ => return None,
        })
    }
}

impl From<Instruction> for libc::sock_filter {
    fn from(i: Instruction) -> Self {
        Self { code: i.code, jt: i.jt, jf: i.jf, k: i.k }
    }
}

// Class | size or operation | mode or source, linux/bpf_common.h.
const LD_W_ABS: u16 = 0x20;
const AND_K: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ_K: u16 = 0x15;
const JGT_K: u16 = 0x25;
const JGE_K: u16 = 0x35;
const RET_K: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
pub(super) const NR: u32 = 0;
pub(super) const ARCH: u32 = 4;

/// Offset of the low half of argument `index`; the high half is 4 further.
/// Both supported CPUs are little-endian.
pub(super) fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// A ← the 32 bits at `offset` of `struct seccomp_data`.
pub(super) fn load(offset: u32) -> Instruction {
    Instruction { code: LD_W_ABS, jt: 0, jf: 0, k: offset }
}

/// A ← A & `k`.
pub(super) fn and(k: u32) -> Instruction {
    Instruction { code: AND_K, jt: 0, jf: 0, k }
}

/// Skip `distance` instructions.
pub(super) fn jump(distance: u32) -> Instruction {
    Instruction { code: JA, jt: 0, jf: 0, k: distance }
}

/// Skip `jt` instructions when A = `k`, else `jf`.
pub(super) fn equal(k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: JEQ_K, jt, jf, k }
}

/// Skip `jt` instructions when A > `k`, else `jf`.
pub(super) fn greater(k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: JGT_K, jt, jf, k }
}

/// Skip `jt` instructions when A ≥ `k`, else `jf`.
pub(super) fn at_least(k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: JGE_K, jt, jf, k }
}

/// End with `action`.
pub(super) fn ret(action: u32) -> Instruction {
    Instruction { code: RET_K, jt: 0, jf: 0, k: action }
}
