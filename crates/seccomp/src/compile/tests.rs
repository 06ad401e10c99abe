// SPDX-License-Identifier: Apache-2.0
//! The compiled program against the profile's plain meaning.

use oci_spec::runtime::{
    LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompBuilder,
    LinuxSeccompOperator as Op, LinuxSyscall, LinuxSyscallBuilder,
};
use proptest::prelude::*;

use super::super::answer::{self, Call};
use super::*;

const NAMES: [&str; 12] = [
    "read",
    "write",
    "open",
    "close",
    "socket",
    "personality",
    "clone",
    "clone3",
    "mseal",
    "time",
    "ioctl",
    "kill",
];

fn rule(names: &[&str], action: Action, errno: Option<u32>, args: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    let mut built =
        LinuxSyscallBuilder::default().names(names).action(action).args(args).build().expect("rule");
    built.set_errno_ret(errno);
    built
}

fn arg(index: usize, op: Op, value: u64, value_two: u64) -> LinuxSeccompArg {
    LinuxSeccompArgBuilder::default()
        .index(index)
        .op(op)
        .value(value)
        .value_two(value_two)
        .build()
        .expect("argument")
}

fn profile(default: Action, architectures: Vec<Arch>, syscalls: Vec<LinuxSyscall>) -> LinuxSeccomp {
    LinuxSeccompBuilder::default()
        .default_action(default)
        .architectures(architectures)
        .syscalls(syscalls)
        .build()
        .expect("profile")
}

fn run(filter: &[Instruction], call: &Call) -> u32 {
    answer::run(filter, call).expect("an answer")
}

fn check(profile: &LinuxSeccomp, nr: u32, args: [u64; 6]) {
    let program = compile(profile).expect("compiles");
    for table in tables(profile).expect("tables") {
        assert_eq!(super::check(&program.filter), Ok(()));
        let policy = policy::policy(profile, table).expect("policy");
        let nr = if table == Table::X32 { nr | X32_BIT } else { nr & !X32_BIT };
        // As the kernel shows them.
        let args = args.map(|arg| arg & table.argument_mask());
        let got = run(&program.filter, &Call { arch: table.audit_arch(), nr, args });
        assert_eq!(got, policy.decide(nr, &args), "{table:?} {nr:#x} {args:x?}");
    }
}

fn operators() -> impl Strategy<Value = Op> {
    prop::sample::select(vec![
        Op::ScmpCmpNe,
        Op::ScmpCmpLt,
        Op::ScmpCmpLe,
        Op::ScmpCmpEq,
        Op::ScmpCmpGe,
        Op::ScmpCmpGt,
        Op::ScmpCmpMaskedEq,
    ])
}

/// Values whose halves collide often, so that every branch is taken.
fn values() -> impl Strategy<Value = u64> {
    let half = prop::sample::select(vec![0_u64, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff]);
    (half.clone(), half).prop_map(|(high, low)| high << 32 | low)
}

fn rules() -> impl Strategy<Value = LinuxSyscall> {
    let action = prop::sample::select(vec![
        (Action::ScmpActAllow, None),
        (Action::ScmpActErrno, None),
        (Action::ScmpActErrno, Some(38)),
        (Action::ScmpActTrap, None),
        (Action::ScmpActLog, None),
        (Action::ScmpActKillProcess, None),
    ]);
    let args = prop::collection::vec((0_usize..6, operators(), values(), values()), 0..4);
    (prop::sample::subsequence(NAMES.to_vec(), 1..6), action, args).prop_map(
        |(names, (action, errno), args)| {
            rule(&names, action, errno, args.into_iter().map(|(i, op, a, b)| arg(i, op, a, b)).collect())
        },
    )
}

proptest! {
    #[test]
    fn the_program_does_what_the_profile_says(
        syscalls in prop::collection::vec(rules(), 0..12),
        default in prop::sample::select(vec![Action::ScmpActErrno, Action::ScmpActAllow, Action::ScmpActKillProcess]),
        calls in prop::collection::vec((0_u32..480, prop::array::uniform6(values())), 1..40),
    ) {
        let all = vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86, Arch::ScmpArchX32, Arch::ScmpArchAarch64];
        let profile = profile(default, all, syscalls);
        for (nr, args) in calls {
            check(&profile, nr, args);
        }
    }
}

#[test]
fn an_unknown_number_is_enosys_and_an_unknown_architecture_ends_the_process() {
    let profile = profile(
        Action::ScmpActErrno,
        vec![Arch::ScmpArchNative],
        vec![rule(&["read"], Action::ScmpActAllow, None, vec![])],
    );
    let program = compile(&profile).expect("compiles");
    let native = Table::native().expect("a supported CPU").audit_arch();
    let answer = |arch, nr| run(&program.filter, &Call { arch, nr, args: [0; 6] });
    let read = u32::try_from(libc::SYS_read).expect("small");
    assert_eq!(answer(native, read), 0x7fff_0000);
    assert_eq!(answer(native, 100_000), 0x0005_0000 | 38);
    assert_eq!(answer(0x1234, read), 0x8000_0000);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn an_x32_call_is_refused_unless_the_profile_names_x32() {
    let allow_all = profile(Action::ScmpActAllow, vec![Arch::ScmpArchX86_64], vec![]);
    let program = compile(&allow_all).expect("compiles");
    let call = Call { arch: Table::X86_64.audit_arch(), nr: X32_BIT | 1, args: [0; 6] };
    assert_eq!(run(&program.filter, &call), 0x8000_0000);
}

#[test]
fn a_rule_without_conditions_decides_alone() {
    let when_8 = |action, errno| rule(&["personality"], action, errno, vec![arg(0, Op::ScmpCmpEq, 8, 0)]);
    let always = |action, errno| rule(&["personality"], action, errno, Vec::new());
    let (allow, refuse) = (Action::ScmpActAllow, Action::ScmpActErrno);
    let answers = |rules: Vec<LinuxSyscall>| {
        let program = compile(&profile(refuse, vec![Arch::ScmpArchNative], rules)).expect("compiles");
        [8, 9].map(|value| program.lets_pass(libc::SYS_personality, [value, 0, 0, 0, 0, 0]))
    };
    for (rules, expected) in [
        (vec![when_8(refuse, Some(5)), always(allow, None)], [true, true]),
        (vec![always(allow, None), when_8(refuse, Some(5))], [true, true]),
        (vec![when_8(allow, None), always(refuse, Some(5))], [false, false]),
        (vec![always(refuse, Some(5)), always(allow, None)], [false, false]),
        (vec![when_8(refuse, Some(5)), when_8(allow, None)], [false, false]),
        // What is done anyway is no rule.
        (vec![when_8(allow, None), always(refuse, None)], [true, false]),
    ] {
        assert_eq!(answers(rules.clone()), expected, "{rules:?}");
    }
}

#[test]
fn two_conditions_on_one_argument_are_alternatives() {
    let profile = profile(
        Action::ScmpActErrno,
        vec![Arch::ScmpArchNative],
        vec![rule(
            &["personality"],
            Action::ScmpActAllow,
            None,
            vec![arg(0, Op::ScmpCmpEq, 0, 0), arg(0, Op::ScmpCmpEq, 8, 0)],
        )],
    );
    let program = compile(&profile).expect("compiles");
    let arch = Table::native().expect("a supported CPU").audit_arch();
    let nr = u32::try_from(libc::SYS_personality).expect("small");
    let answer = |value| run(&program.filter, &Call { arch, nr, args: [value, 0, 0, 0, 0, 0] });
    assert_eq!((answer(0), answer(8)), (0x7fff_0000, 0x7fff_0000));
    assert_eq!(answer(1), 0x0005_0000 | 1);
}

#[test]
fn what_cannot_be_had_is_an_error_that_names_it() {
    let notify = profile(Action::ScmpActNotify, vec![], vec![]);
    assert!(compile(&notify).expect_err("notify").to_string().contains("SCMP_ACT_NOTIFY"));
    let foreign = profile(Action::ScmpActAllow, vec![Arch::ScmpArchS390x], vec![]);
    assert!(compile(&foreign).expect_err("foreign").to_string().contains("architecture"));
    let index = profile(
        Action::ScmpActErrno,
        vec![],
        vec![rule(&["read"], Action::ScmpActAllow, None, vec![arg(6, Op::ScmpCmpEq, 0, 0)])],
    );
    assert!(compile(&index).expect_err("index").to_string().contains("argument index 6"));
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_socket_made_by_socketcall_is_a_socket() {
    let (errno, allow) = (0x0005_0000 | 1, 0x7fff_0000);
    let answers = |default, action, args, nr, codes: [u64; 2]| {
        let syscalls = vec![rule(&["socket", "shmat"], action, None, args)];
        let program = compile(&profile(default, vec![Arch::ScmpArchX86], syscalls)).expect("compiles");
        let call = |code| Call { arch: 0x4000_0003, nr, args: [code, 5, 0, 0, 0, 0] };
        codes.map(|code| run(&program.filter, &call(code)))
    };
    let (yes, no) = (Action::ScmpActAllow, Action::ScmpActErrno);
    // socketcall(SYS_SOCKET), socketcall(SYS_BIND)
    assert_eq!(answers(yes, no, vec![], 102, [1, 2]), [errno, allow]);
    assert_eq!(answers(no, yes, vec![], 102, [1, 2]), [allow, errno]);
    // ipc(SHMAT) of versions 0 and 1
    assert_eq!(answers(yes, no, vec![], 117, [21, 0x1_0015]), [errno, errno]);
    // The family can't be seen: all of them are refused.
    let family = vec![arg(0, Op::ScmpCmpEq, 38, 0)];
    assert_eq!(answers(yes, no, family.clone(), 102, [1, 2]), [errno, allow]);
    assert_eq!(answers(no, yes, family, 102, [1, 2]), [errno, errno]);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn minus_one_has_the_length_of_the_arguments() {
    let minus_one = vec![arg(0, Op::ScmpCmpEq, u64::MAX, 0)];
    let syscalls = vec![rule(&["personality"], Action::ScmpActErrno, None, minus_one)];
    let program =
        compile(&profile(Action::ScmpActAllow, vec![Arch::ScmpArchX86], syscalls)).expect("compiles");
    let answer =
        |value| run(&program.filter, &Call { arch: 0x4000_0003, nr: 136, args: [value, 0, 0, 0, 0, 0] });
    assert_eq!((answer(0xffff_ffff), answer(0xffff_fffe)), (0x0005_0000 | 1, 0x7fff_0000));
}

#[test]
fn a_program_that_is_handed_over_is_the_same() {
    let syscalls = vec![
        rule(&["read"], Action::ScmpActNotify, None, vec![]),
        rule(&["clone"], Action::ScmpActAllow, None, vec![arg(0, Op::ScmpCmpMaskedEq, 0x7e02_0000, 0)]),
    ];
    let mut profile = profile(Action::ScmpActErrno, vec![], syscalls);
    profile.set_listener_path(Some("/agent".into())).set_flags(Some(vec![Flag::SeccompFilterFlagLog]));
    let program = compile(&profile).expect("compiles");
    assert_eq!(Program::compiled(&profile, &program.bytes()), Ok(program.clone()));
    assert!(Program::compiled(&profile, &program.bytes()[..7]).is_err());
    assert!(Program::compiled(&profile, &[]).is_err());
}
