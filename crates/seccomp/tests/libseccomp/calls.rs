// SPDX-License-Identifier: Apache-2.0
//! The calls that are tried, and which of them a profile's rules hold for.

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator as Op};

use crate::{interpreter::Call, reference::answer};

const X32_BIT: u32 = 0x4000_0000;

/// An architecture of this CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    X86_64,
    X32,
    I386,
}

impl Table {
    pub(crate) const ALL: [Self; 3] = [Self::X86_64, Self::X32, Self::I386];

    pub(crate) fn arch(self) -> Arch {
        match self {
            Self::X86_64 => Arch::ScmpArchX86_64,
            Self::X32 => Arch::ScmpArchX32,
            Self::I386 => Arch::ScmpArchX86,
        }
    }

    /// SCMP_ARCH_* of seccomp.h.
    pub(crate) fn token(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X32 => 0x4000_003e,
            Self::I386 => 0x4000_0003,
        }
    }

    /// AUDIT_ARCH_* of linux/audit.h.
    fn audit_arch(self) -> u32 {
        if self == Self::I386 { 0x4000_0003 } else { 0xc000_003e }
    }

    /// Name and `seccomp_data.nr` of every call that our tables have.
    pub(crate) fn names(self) -> Vec<(&'static str, u32)> {
        let (text, bit) = match self {
            Self::X86_64 => (include_str!("../../src/tables/x86_64.txt"), 0),
            Self::X32 => (include_str!("../../src/tables/x32.txt"), X32_BIT),
            Self::I386 => (include_str!("../../src/tables/i386.txt"), 0),
        };
        let lines = text.lines().map(|line| line.split_once(' ').unwrap());
        lines.map(|(name, number)| (name, number.parse::<u32>().unwrap() | bit)).collect()
    }

    pub(crate) fn call(self, nr: u32, args: [u64; 6]) -> Call {
        // The kernel shows a 32-bit process's arguments with nothing above.
        let args = if self == Self::I386 { args.map(|a| a & 0xffff_ffff) } else { args };
        Call { arch: self.audit_arch(), nr, args }
    }
}

/// One rule of a profile on one number.
#[derive(Debug)]
struct Rule<'a> {
    args: Vec<&'a LinuxSeccompArg>,
    action: u32,
}

/// A profile, read a second time and as plainly as can be: to find the calls
/// worth trying, and those that its rules disagree on.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    by_number: BTreeMap<u32, Vec<Rule<'a>>>,
    newest: u32,
}

impl<'a> Rules<'a> {
    pub(crate) fn of(profile: &'a LinuxSeccomp, table: Table) -> Self {
        let numbers: BTreeMap<_, _> = table.names().into_iter().collect();
        let mut rules: BTreeMap<u32, Vec<Rule<'a>>> = BTreeMap::new();
        for syscall in profile.syscalls().iter().flatten() {
            let action = answer(syscall.action(), syscall.errno_ret());
            let args: Vec<_> = syscall.args().iter().flatten().collect();
            let indices: BTreeSet<_> = args.iter().map(|a| a.index()).collect();
            for number in syscall.names().iter().filter_map(|name| numbers.get(name.as_str())) {
                let rules = rules.entry(*number).or_default();
                if indices.len() == args.len() {
                    rules.push(Rule { args: args.clone(), action });
                } else {
                    rules.extend(args.iter().map(|a| Rule { args: vec![a], action }));
                }
            }
        }
        Self { by_number: rules, newest: numbers.values().copied().max().unwrap() }
    }

    /// Whether our tables end below `nr`.
    pub(crate) fn is_newer(&self, nr: u32) -> bool {
        nr > self.newest
    }

    /// Whether a rule for `nr` has no conditions: it alone counts then.
    pub(crate) fn has_plain(&self, nr: u32) -> bool {
        self.by_number.get(&nr).into_iter().flatten().any(|rule| rule.args.is_empty())
    }

    /// The actions of the rules that hold for a call, each once.
    pub(crate) fn actions(&self, call: &Call) -> BTreeSet<u32> {
        let rules = self.by_number.get(&call.nr).into_iter().flatten();
        rules.filter(|rule| rule.args.iter().all(|a| holds(a, call))).map(|rule| rule.action).collect()
    }

    /// Whether a rule for `nr` says something that doesn't fit in 32 bits.
    pub(crate) fn has_long_constants(&self, nr: u32) -> bool {
        let long = |a: &&LinuxSeccompArg| (a.value() | a.value_two().unwrap_or(0)) >> 32 != 0;
        self.by_number.get(&nr).into_iter().flatten().any(|rule| rule.args.iter().any(&long))
    }

    /// Whether several rules for `nr` have conditions that libseccomp merges
    /// into one tree: any but comparisons of one argument for equality.
    pub(crate) fn are_merged(&self, nr: u32) -> bool {
        let conditional =
            || self.by_number.get(&nr).into_iter().flatten().filter(|rule| !rule.args.is_empty());
        let index = conditional().next().map(|rule| rule.args[0].index());
        let plain = |rule: &Rule<'_>| {
            rule.args.len() == 1 && rule.args[0].op() == Op::ScmpCmpEq && Some(rule.args[0].index()) == index
        };
        conditional().count() > 1 && !conditional().all(plain)
    }

    /// Every number up to a few above the last, with arguments around all
    /// constants of its rules. `seed` picks among the combinations.
    pub(crate) fn calls(&self, table: Table, seed: u64) -> Vec<Call> {
        let first = if table == Table::X32 { X32_BIT } else { 0 };
        let mut random = Random(seed | 1);
        (first..self.newest + 4).flat_map(|nr| self.arguments(table, nr, &mut random)).collect()
    }

    fn arguments(&self, table: Table, nr: u32, random: &mut Random) -> Vec<Call> {
        let mut calls = vec![table.call(nr, [0; 6]), table.call(nr, [u64::MAX; 6])];
        let mut candidates: [Vec<u64>; 6] = Default::default();
        for arg in self.by_number.get(&nr).into_iter().flatten().flat_map(|rule| &rule.args) {
            candidates[arg.index()].extend(around(arg));
        }
        if table == Table::I386 && matches!(nr, 102 | 117) {
            // The parts of socketcall and ipc.
            candidates[0].extend(0..26);
        }
        if candidates.iter().all(Vec::is_empty) {
            return calls;
        }
        for index in 0..6 {
            for value in candidates[index].clone() {
                let mut args = std::array::from_fn(|i| random.pick(&candidates[i]));
                args[index] = value;
                calls.push(table.call(nr, args));
            }
        }
        calls
    }
}

fn holds(arg: &LinuxSeccompArg, call: &Call) -> bool {
    let (given, value) = (call.args[arg.index()], arg.value());
    match arg.op() {
        Op::ScmpCmpNe => given != value,
        Op::ScmpCmpLt => given < value,
        Op::ScmpCmpLe => given <= value,
        Op::ScmpCmpEq => given == value,
        Op::ScmpCmpGe => given >= value,
        Op::ScmpCmpGt => given > value,
        Op::ScmpCmpMaskedEq => given & value == arg.value_two().unwrap_or(0),
    }
}

/// Values that a wrong comparison would treat differently.
fn around(arg: &LinuxSeccompArg) -> Vec<u64> {
    let (value, second) = (arg.value(), arg.value_two().unwrap_or(0));
    let swapped = value.rotate_left(32);
    vec![
        value,
        value.wrapping_add(1),
        value.wrapping_sub(1),
        value ^ (1 << 32),
        value & 0xffff_ffff,
        swapped,
        second,
        second | !value,
        second & second.wrapping_sub(1),
        !value,
    ]
}

/// Enough randomness to mix arguments, the same for the same seed.
struct Random(u64);

impl Random {
    fn pick(&mut self, values: &[u64]) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 8)
            .ok()
            .and_then(|n| values.get(n % values.len().max(1)))
            .copied()
            .unwrap_or(0)
    }
}
