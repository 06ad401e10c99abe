// SPDX-License-Identifier: Apache-2.0
//! libseccomp, in a process of its own: `reference.c` is compiled once.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompOperator as Op};

use crate::calls::Table;

/// The program, or `None` where the tests are told to do without.
pub(crate) fn program() -> Option<&'static Path> {
    static PROGRAM: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PROGRAM.get_or_init(build) {
        Ok(path) => Some(path),
        Err(why) if std::env::var_os("BERTH_TEST_WITHOUT_LIBSECCOMP").is_some() => {
            println!("SKIPPED, nothing was compared with libseccomp: {why}");
            None
        }
        Err(why) => panic!("scripts/test-deps.sh installs libseccomp-dev and gcc: {why}"),
    }
}

fn build() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/libseccomp/reference.c");
    // Several processes may build at once: each has its own.
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("libseccomp-{}", std::process::id()));
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-Wall", "-Werror", "-o"]).arg(&path).arg(source).arg("-lseccomp");
    let made = compiler.output().map_err(|e| format!("cc: {e}"))?;
    if made.status.success() { Ok(path) } else { Err(String::from_utf8_lossy(&made.stderr).into_owned()) }
}

/// `NAME NUMBER` of each name: negative where libseccomp has no number.
pub(crate) fn numbers(program: &Path, table: Table, names: &[&str]) -> Vec<i32> {
    let out = Command::new(program).arg("numbers").arg(table.token().to_string()).args(names).output();
    let out = out.unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().map(|line| line.split_once(' ').unwrap().1.parse().unwrap()).collect()
}

/// The program that libseccomp makes of `profile`, fed as runc feeds it.
///
/// # Errors
/// libseccomp's own words.
pub(crate) fn compile(
    program: &Path,
    profile: &LinuxSeccomp,
    tables: &[Table],
) -> Result<Vec<libc::sock_filter>, String> {
    let default = answer(profile.default_action(), profile.default_errno_ret());
    let mut child = Command::new(program)
        .arg("compile")
        .arg(default.to_string())
        .args(tables.iter().map(|table| table.token().to_string()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It reads everything before it writes; a complaint closes the pipe early.
    let _ = child.stdin.take().unwrap().write_all(rules(profile, default).as_bytes());
    let out = child.wait_with_output().unwrap();
    if !out.status.success() {
        return Err(String::from_utf8_lossy(&out.stderr).into_owned());
    }
    assert_eq!(out.stdout.len() % 8, 0);
    Ok(out.stdout.chunks_exact(8).map(instruction).collect())
}

fn instruction(bytes: &[u8]) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::from_ne_bytes([bytes[0], bytes[1]]),
        jt: bytes[2],
        jf: bytes[3],
        k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    }
}

/// The rules as `reference.c` reads them. Those with the default action are
/// none to libseccomp; one with two conditions on an argument is several.
fn rules(profile: &LinuxSeccomp, default: u32) -> String {
    let mut out = String::new();
    for syscall in profile.syscalls().iter().flatten() {
        let action = answer(syscall.action(), syscall.errno_ret());
        if action == default {
            continue;
        }
        let args: Vec<_> = syscall.args().iter().flatten().collect();
        let conditions: Vec<String> = args
            .iter()
            .map(|a| {
                let op = operator(a.op());
                format!(" {} {op} {} {}", a.index(), a.value(), a.value_two().unwrap_or(0))
            })
            .collect();
        let twice = args.iter().enumerate().any(|(n, a)| args[..n].iter().any(|b| a.index() == b.index()));
        for name in syscall.names() {
            // %i reads no more than 31 bits and a sign.
            let head = format!("{} {name}", action.cast_signed());
            if twice {
                conditions.iter().for_each(|c| out.push_str(&format!("{head} 1{c}\n")));
            } else {
                out.push_str(&format!("{head} {}{}\n", conditions.len(), conditions.concat()));
            }
        }
    }
    out
}

/// SECCOMP_RET_* with its number (linux/seccomp.h).
pub(crate) fn answer(action: Action, errno: Option<u32>) -> u32 {
    match action {
        Action::ScmpActKill | Action::ScmpActKillThread => 0,
        Action::ScmpActKillProcess => 0x8000_0000,
        Action::ScmpActTrap => 0x0003_0000,
        Action::ScmpActErrno => 0x0005_0000 | errno.unwrap_or(1),
        Action::ScmpActNotify => 0x7fc0_0000,
        Action::ScmpActTrace => 0x7ff0_0000 | errno.unwrap_or(1),
        Action::ScmpActLog => 0x7ffc_0000,
        Action::ScmpActAllow => 0x7fff_0000,
    }
}

/// `enum scmp_compare` of seccomp.h.
fn operator(op: Op) -> u32 {
    match op {
        Op::ScmpCmpNe => 1,
        Op::ScmpCmpLt => 2,
        Op::ScmpCmpLe => 3,
        Op::ScmpCmpEq => 4,
        Op::ScmpCmpGe => 5,
        Op::ScmpCmpGt => 6,
        Op::ScmpCmpMaskedEq => 7,
    }
}
