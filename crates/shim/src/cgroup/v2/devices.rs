// SPDX-License-Identifier: Apache-2.0
//! Devices: v2 has no controller for them. A program, assembled here, decides
//! about each access.

use std::{fs::File, os::fd::OwnedFd, path::Path};

use super::super::devices::{DeviceKind, Exception, Policy, forgive};
use crate::{
    kernel::{SysError, bpf, bpf::Instruction},
    runtime::Result,
};

// Operation codes (linux/bpf_common.h, linux/bpf.h).
const LOAD_WORD: u8 = 0x61; // dst = *(u32 *)(src + offset)
const MOVE: u8 = 0xbc; // w(dst) = w(src)
const MOVE_IMMEDIATE: u8 = 0xb4; // w(dst) = immediate
const AND_IMMEDIATE: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const JUMP_UNEQUAL: u8 = 0x56; // if w(dst) != immediate
const JUMP_UNEQUAL_REGISTER: u8 = 0x5e; // if w(dst) != w(src)
const EXIT: u8 = 0x95;

// Registers: the result, the context, and what is loaded from it.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// Attaches the program for `policy` to a new cgroup.
pub(super) fn apply(dir: &Path, policy: &Policy, warnings: &mut Vec<String>) -> Result<()> {
    if policy.allow && policy.exceptions.is_empty() {
        return Ok(());
    }
    forgive(attach(dir, policy, None), warnings)
}

/// Puts the program for `policy` in the place of the one before, so that at no
/// moment there is none, or both.
pub(super) fn update(dir: &Path, policy: &Policy, warnings: &mut Vec<String>) -> Result<()> {
    let known = open(dir).and_then(bpf::attached_device_program);
    match known {
        Ok(None) => apply(dir, policy, warnings),
        Ok(Some(known)) => forgive(attach(dir, policy, Some(&known)), warnings),
        Err(e) => forgive(Err(e), warnings),
    }
}

fn open(dir: &Path) -> crate::kernel::Result<File> {
    File::open(dir).map_err(|e| SysError::from_io(format!("open({dir:?})"), &e))
}

fn attach(dir: &Path, policy: &Policy, instead_of: Option<&OwnedFd>) -> crate::kernel::Result<()> {
    let program = bpf::load_device_program(&assemble(policy))?;
    bpf::attach_device_program(open(dir)?, &program, instead_of)
}

/// The program: `struct bpf_cgroup_dev_ctx { u32 access_type, major, minor }`,
/// where the lower half of `access_type` is the kind of device.
fn assemble(policy: &Policy) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE, ACCESS, KIND, 0, 0),
        instruction(AND_IMMEDIATE, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for exception in &policy.exceptions {
        program.extend(one(exception, policy.allow));
    }
    program.extend(answer(policy.allow));
    program
}

/// The instructions for one exception: they end the program when it matches.
fn one(exception: &Exception, default: bool) -> Vec<Instruction> {
    let kind = match exception.kind {
        DeviceKind::Block => 1,
        DeviceKind::Character => 2,
    };
    let mut tests = vec![
        instruction(JUMP_UNEQUAL, KIND, 0, 0, kind),
        instruction(MOVE, SCRATCH, ACCESS, 0, 0),
        instruction(AND_IMMEDIATE, SCRATCH, 0, 0, exception.access.into()),
    ];
    // An exception from "deny" must cover the whole access, one from "allow"
    // any part of it.
    if default {
        tests.push(instruction(JUMP_EQUAL, SCRATCH, 0, 0, 0));
    } else {
        tests.push(instruction(JUMP_UNEQUAL_REGISTER, SCRATCH, ACCESS, 0, 0));
    }
    for (register, number) in [(MAJOR, exception.major), (MINOR, exception.minor)] {
        if let Some(number) = number {
            tests.push(instruction(JUMP_UNEQUAL, register, 0, 0, number.cast_signed()));
        }
    }
    let answer = answer(!default);
    let length = tests.len();
    for (position, test) in tests.iter_mut().enumerate() {
        if [JUMP_UNEQUAL, JUMP_UNEQUAL_REGISTER, JUMP_EQUAL].contains(&test.code) {
            // Over the remaining tests and the answer; at most 8.
            test.offset = i16::try_from(length - position - 1 + answer.len()).unwrap_or(i16::MAX);
        }
    }
    tests.extend(answer);
    tests
}

const JUMP_EQUAL: u8 = 0x16; // if w(dst) == immediate

fn answer(allow: bool) -> [Instruction; 2] {
    [instruction(MOVE_IMMEDIATE, RESULT, 0, 0, allow.into()), instruction(EXIT, 0, 0, 0, 0)]
}

fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | destination, offset, immediate }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::super::devices::{MKNOD, READ, WRITE},
        *,
    };

    /// Runs a program as the kernel would: true is allowed.
    fn run(program: &[Instruction], context: [u32; 3]) -> bool {
        let mut registers = [0_u32; 16];
        let mut at = 0;
        loop {
            let i = program[at];
            let (destination, source) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let immediate = i.immediate.cast_unsigned();
            let mut jump = false;
            match i.code {
                LOAD_WORD => registers[destination] = context[usize::try_from(i.offset / 4).expect("offset")],
                MOVE => registers[destination] = registers[source],
                MOVE_IMMEDIATE => registers[destination] = immediate,
                AND_IMMEDIATE => registers[destination] &= immediate,
                SHIFT_RIGHT => registers[destination] >>= immediate,
                JUMP_UNEQUAL => jump = registers[destination] != immediate,
                JUMP_EQUAL => jump = registers[destination] == immediate,
                JUMP_UNEQUAL_REGISTER => jump = registers[destination] != registers[source],
                EXIT => return registers[0] == 1,
                code => panic!("operation {code:#x}"),
            }
            at += 1 + if jump { usize::try_from(i.offset).expect("forward") } else { 0 };
        }
    }

    fn ask(policy: &Policy, kind: u32, major: u32, minor: u32, access: u8) -> bool {
        run(&assemble(policy), [u32::from(access) << 16 | kind, major, minor])
    }

    #[test]
    fn a_container_may_use_its_devices_and_no_other() {
        let policy = Policy::container();
        assert!(ask(&policy, 2, 1, 3, READ | WRITE));
        assert!(ask(&policy, 2, 136, 77, READ));
        assert!(ask(&policy, 1, 8, 0, MKNOD));
        assert!(!ask(&policy, 1, 8, 0, READ));
        assert!(!ask(&policy, 2, 1, 1, READ));
        assert!(!ask(&policy, 1, 1, 3, READ));
    }

    #[test]
    fn an_exception_from_all_denies_any_part() {
        let disk = Exception { kind: DeviceKind::Block, major: Some(8), minor: None, access: WRITE };
        let policy = Policy { allow: true, exceptions: vec![disk] };
        assert!(ask(&policy, 1, 8, 3, READ));
        assert!(!ask(&policy, 1, 8, 3, READ | WRITE));
        assert!(ask(&policy, 1, 9, 0, WRITE));
    }

    /// A v2 tree that may be used; `None`, with the reason, where there is none.
    fn tree() -> Option<std::path::PathBuf> {
        let trees = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(std::path::PathBuf::from);
        let tree = trees.into_iter().find(|tree| tree.join("cgroup.subtree_control").exists());
        if !nix::unistd::geteuid().is_root() || tree.is_none() {
            println!("skipped: needs root and a cgroup v2 tree");
            return None;
        }
        tree
    }

    #[test]
    fn the_kernel_keeps_to_the_program_and_to_the_one_in_its_place() {
        let Some(tree) = tree() else { return };
        let files = tempfile::tempdir().expect("tempdir");
        let node = files.path().join("kmsg");
        let device = nix::sys::stat::makedev(1, 11);
        let mode = nix::sys::stat::Mode::S_IRUSR;
        nix::sys::stat::mknod(&node, nix::sys::stat::SFlag::S_IFCHR, mode, device).expect("mknod");
        let group = tree.join(files.path().file_name().expect("name"));
        std::fs::create_dir(&group).expect("mkdir");
        // Each line is one open of the child, which enters the cgroup first.
        let script = "echo $$ > $1/cgroup.procs; for f in $2 /dev/null; do (: < $f) 2>/dev/null && echo may || echo may not; done";
        let ask = || {
            let output = std::process::Command::new("sh")
                .args(["-c", script, "sh"])
                .args([&group, &node])
                .output()
                .expect("sh");
            String::from_utf8(output.stdout).expect("text")
        };
        let mut warnings = Vec::new();
        let kmsg = Exception { kind: DeviceKind::Character, major: Some(1), minor: Some(11), access: READ };
        let applied = apply(&group, &Policy::container(), &mut warnings).map(|()| ask());
        // The script writes to /dev/null, and tries to read from it.
        let null = Exception { minor: Some(3), access: WRITE, ..kmsg };
        let only = Policy { allow: false, exceptions: vec![kmsg, null] };
        let updated = update(&group, &only, &mut warnings).map(|()| ask());
        let all = Policy { allow: true, exceptions: Vec::new() };
        let opened = update(&group, &all, &mut warnings).map(|()| ask());
        super::super::super::tree::remove(
            &group,
            std::time::Instant::now() + std::time::Duration::from_secs(5),
        )
        .expect("rmdir");
        assert_eq!(applied.expect("apply"), "may not\nmay\n");
        assert_eq!(updated.expect("update"), "may\nmay not\n");
        assert_eq!(opened.expect("update"), "may\nmay\n");
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    fn exceptions() -> impl Strategy<Value = Vec<Exception>> {
        let number = || prop::option::of(0..3_u32);
        let one = (any::<bool>(), number(), number(), 1..8_u8).prop_map(|(block, major, minor, access)| {
            Exception {
                kind: if block { DeviceKind::Block } else { DeviceKind::Character },
                major,
                minor,
                access,
            }
        });
        prop::collection::vec(one, 0..6)
    }

    proptest! {
        #[test]
        fn the_program_says_what_the_policy_says(
            allow: bool, exceptions in exceptions(), kind in 1..3_u32, major in 0..3_u32, minor in 0..3_u32, access in 1..8_u8,
        ) {
            let matches = |e: &Exception| {
                let covered = if allow { e.access & access != 0 } else { e.access & access == access };
                (e.kind == DeviceKind::Block) == (kind == 1)
                    && e.major.is_none_or(|n| n == major) && e.minor.is_none_or(|n| n == minor) && covered
            };
            let expected = allow != exceptions.iter().any(matches);
            let policy = Policy { allow, exceptions };
            prop_assert_eq!(ask(&policy, kind, major, minor, access), expected);
        }
    }
}
