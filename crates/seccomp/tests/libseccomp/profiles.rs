// SPDX-License-Identifier: Apache-2.0
//! Profiles to compare: random ones, and berth's own.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator as Op, LinuxSyscall, LinuxSyscallBuilder,
};
use proptest::prelude::*;

use crate::calls::Table;

/// The engine's default as it writes it (crates/engine, domain::seccomp, which
/// keeps these files true): with Docker's capabilities, and with all of them.
pub(crate) fn built_in() -> [LinuxSeccomp; 2] {
    [
        include_str!("../../../../tests/golden/seccomp-default.json"),
        include_str!("../../../../tests/golden/seccomp-all-capabilities.json"),
    ]
    .map(|text| serde_json::from_str(text).unwrap())
}

fn actions() -> impl Strategy<Value = (Action, Option<u32>)> {
    prop::sample::select(vec![
        (Action::ScmpActAllow, None),
        (Action::ScmpActErrno, None),
        (Action::ScmpActErrno, Some(0)),
        (Action::ScmpActErrno, Some(38)),
        // The largest that libseccomp takes.
        (Action::ScmpActErrno, Some(4094)),
        (Action::ScmpActTrap, None),
        (Action::ScmpActTrace, Some(7)),
        (Action::ScmpActLog, None),
        (Action::ScmpActNotify, None),
        (Action::ScmpActKill, None),
        (Action::ScmpActKillThread, None),
        (Action::ScmpActKillProcess, None),
    ])
}

/// Values whose halves collide often.
fn values() -> impl Strategy<Value = u64> {
    let half = prop::sample::select(vec![0_u64, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]);
    let high = prop_oneof![3 => Just(0_u64), 1 => half.clone()];
    prop_oneof![4 => (high, half).prop_map(|(high, low)| high << 32 | low), 1 => any::<u64>()]
}

fn arguments() -> impl Strategy<Value = LinuxSeccompArg> {
    let operators = prop::sample::select(vec![
        Op::ScmpCmpNe,
        Op::ScmpCmpLt,
        Op::ScmpCmpLe,
        Op::ScmpCmpEq,
        Op::ScmpCmpGe,
        Op::ScmpCmpGt,
        Op::ScmpCmpMaskedEq,
    ]);
    (0_usize..6, operators, values(), values()).prop_map(|(index, op, a, b)| {
        let b = if op == Op::ScmpCmpMaskedEq { a & b } else { b };
        LinuxSeccompArgBuilder::default().index(index).op(op).value(a).value_two(b).build().unwrap()
    })
}

/// Any call of any architecture, and often one of a few, so that rules meet.
fn names() -> impl Strategy<Value = String> {
    let few = ["personality", "clone", "socket", "accept", "socketcall", "shmat", "ioctl", "time", "mkdir"];
    let all: Vec<_> = Table::ALL.iter().flat_map(|t| t.names()).map(|(name, _)| name).collect();
    prop_oneof![prop::sample::select(few.to_vec()), prop::sample::select(all)].prop_map(str::to_owned)
}

fn rules() -> impl Strategy<Value = LinuxSyscall> {
    let args = prop_oneof![
        3 => Just(Vec::new()),
        4 => prop::collection::vec(arguments(), 1..4),
    ];
    (prop::collection::vec(names(), 1..6), actions(), args).prop_map(|(mut names, (action, errno), args)| {
        if action == Action::ScmpActNotify {
            // Which nothing may report.
            names.retain(|name| name != "write");
            names.push("read".to_owned());
        }
        let mut rule = LinuxSyscallBuilder::default().names(names).action(action).args(args).build().unwrap();
        rule.set_errno_ret(errno);
        rule
    })
}

/// A profile for some of the CPU's architectures, x86-64 among them as
/// libseccomp wants it for x32.
pub(crate) fn random() -> impl Strategy<Value = (LinuxSeccomp, Vec<Table>)> {
    let tables = prop::sample::subsequence(vec![Table::X32, Table::I386], 0..=2)
        .prop_map(|others| [vec![Table::X86_64], others].concat());
    let default = actions().prop_filter("not by default", |(action, _)| *action != Action::ScmpActNotify);
    (tables, default, prop::collection::vec(rules(), 0..16)).prop_map(
        |(tables, (action, errno), syscalls)| {
            let mut profile = LinuxSeccompBuilder::default()
                .default_action(action)
                .architectures(tables.iter().map(|t| t.arch()).collect::<Vec<_>>())
                .syscalls(syscalls)
                .listener_path("/agent")
                .build()
                .unwrap();
            profile.set_default_errno_ret(errno);
            (profile, tables)
        },
    )
}
