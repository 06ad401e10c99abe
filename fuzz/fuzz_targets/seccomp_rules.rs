// SPDX-License-Identifier: Apache-2.0
//! Rules of every shape to a program: one that the kernel takes, or a profile
//! that is too long for it. What the program answers is held against
//! libseccomp by the compiler's own tests.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder,
    LinuxSeccompOperator as Op, LinuxSyscall,
};

/// Of one call, of two with other ones in between, and of those that i386 has
/// by other ways.
const NAMES: [&str; 16] = [
    "read",
    "open",
    "close",
    "clone",
    "clone3",
    "ioctl",
    "personality",
    "socket",
    "socketcall",
    "accept",
    "semop",
    "ipc",
    "shmat",
    "mseal",
    "time",
    "no_such_call",
];

const ACTIONS: [Action; 7] = [
    Action::ScmpActAllow,
    Action::ScmpActErrno,
    Action::ScmpActTrap,
    Action::ScmpActTrace,
    Action::ScmpActLog,
    Action::ScmpActKillProcess,
    Action::ScmpActKillThread,
];

const OPERATORS: [Op; 7] = [
    Op::ScmpCmpNe,
    Op::ScmpCmpLt,
    Op::ScmpCmpLe,
    Op::ScmpCmpEq,
    Op::ScmpCmpGe,
    Op::ScmpCmpGt,
    Op::ScmpCmpMaskedEq,
];

fn action(n: u8) -> Action {
    ACTIONS[usize::from(n) % ACTIONS.len()]
}

type Argument = (u8, u8, u64, u64);

fn argument((index, op, a, b): &Argument) -> LinuxSeccompArg {
    let op = OPERATORS[usize::from(*op) % OPERATORS.len()];
    LinuxSeccompArgBuilder::default()
        .index(usize::from(index % 6))
        .op(op)
        .value(*a)
        .value_two(*b)
        .build()
        .unwrap()
}

fuzz_target!(|input: (u8, Vec<(u16, u8, u16, Vec<Argument>)>)| {
    let (default, rules) = input;
    let rules = rules.iter().map(|(names, what, errno, args)| {
        let named = NAMES.iter().enumerate().filter(|(n, _)| names >> n & 1 == 1);
        let mut rule = LinuxSyscall::default();
        rule.set_names(named.map(|(_, name)| (*name).to_owned()).collect())
            .set_action(action(*what))
            .set_errno_ret(Some(u32::from(errno % 4096)))
            .set_args(Some(args.iter().map(argument).collect()));
        rule
    });
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(action(default))
        .set_architectures(Some(vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32]))
        .set_syscalls(Some(rules.collect()));
    match berth_seccomp::compile(&profile) {
        Ok(program) => berth_seccomp::check(&program.filter).unwrap(),
        Err(e) => assert!(e.to_string().contains("instructions"), "{e}"),
    }
});
