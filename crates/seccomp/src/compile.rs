// SPDX-License-Identifier: Apache-2.0
//! Numbers to instructions: a binary search over runs of calls that do the
//! same, then the conditions of those that look at their arguments.

use std::{fmt, path::PathBuf};

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag as Flag};

use super::{
    arch::{Table, X32_BIT},
    bpf::{self, Instruction},
    check::check,
    policy::{self, Condition, Policy, Rule, Test},
};

/// Longest filter that the kernel takes (BPF_MAXINSNS, linux/bpf_common.h).
pub(super) const MAX_INSTRUCTIONS: usize = 4096;

// SECCOMP_FILTER_FLAG_*, linux/seccomp.h.
const FLAG_TSYNC: u32 = 1;
const FLAG_LOG: u32 = 2;
const FLAG_SPEC_ALLOW: u32 = 4;
const FLAG_NEW_LISTENER: u32 = 8;
const FLAG_TSYNC_ESRCH: u32 = 16;
const FLAG_WAIT_KILLABLE_RECV: u32 = 32;

/// A filter that is ready for seccomp(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// At most 4096 instructions.
    pub filter: Vec<Instruction>,
    /// SECCOMP_FILTER_FLAG_* that the profile asks for.
    pub flags: u32,
    /// Who answers the calls that it reports.
    pub listener: Option<Listener>,
}

/// The agent that the calls of `SCMP_ACT_NOTIFY` are reported to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its socket, on the host.
    pub path: PathBuf,
    /// What it is told, unread.
    pub metadata: String,
}

impl Program {
    /// The instructions as they are handed over.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.filter.iter().flat_map(|i| i.bytes()).collect()
    }

    /// The program that `bytes` are, which somebody has compiled `profile` to.
    ///
    /// # Errors
    /// When it is none, or the kernel wouldn't take it.
    pub fn compiled(profile: &LinuxSeccomp, bytes: &[u8]) -> Result<Self, Error> {
        let (instructions, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(Error::new(format!("seccomp: {} bytes are no filter", bytes.len())));
        }
        let filter: Vec<_> = instructions.iter().map(|bytes| Instruction::from_bytes(*bytes)).collect();
        check(&filter)?;
        Self::of(profile, filter)
    }

    /// What else `profile` asks for.
    fn of(profile: &LinuxSeccomp, filter: Vec<Instruction>) -> Result<Self, Error> {
        let listener = listener(profile)?;
        let mut flags = flags(profile);
        if listener.is_some() {
            flags |= FLAG_NEW_LISTENER;
            if flags & FLAG_TSYNC != 0 {
                // Both return something: the kernel wants to be told which.
                flags |= FLAG_TSYNC_ESRCH;
            }
        }
        Ok(Self { filter, flags, listener })
    }

    /// The instructions as seccomp(2) takes them.
    #[must_use]
    pub fn raw(&self) -> Vec<libc::sock_filter> {
        self.filter.iter().map(|i| (*i).into()).collect()
    }
}

/// What a profile asks for that can't be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error(String);

impl Error {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Compiles an OCI profile.
///
/// # Errors
/// When the profile names no architecture of this CPU, an argument or errno
/// out of range, reports calls to nobody or calls that nobody could report, or
/// is too long for the kernel.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program, Error> {
    // What is wrong with it comes before the work.
    listener(profile)?;
    let tables = tables(profile)?;
    let policies =
        tables.into_iter().map(|table| policy::policy(profile, table)).collect::<Result<Vec<_>, _>>()?;
    let filter = program(&policies);
    if filter.len() > MAX_INSTRUCTIONS {
        return Err(Error::new(format!(
            "seccomp: the profile takes {} instructions, the kernel allows {MAX_INSTRUCTIONS}",
            filter.len()
        )));
    }
    Program::of(profile, filter)
}

/// The agent of a profile that reports calls. Init can't go on while it waits
/// for an answer, so it must be able to say where the listener is.
fn listener(profile: &LinuxSeccomp) -> Result<Option<Listener>, Error> {
    let notify = LinuxSeccompAction::ScmpActNotify;
    if profile.default_action() == notify {
        return Err(Error::new("seccomp: SCMP_ACT_NOTIFY cannot be used as default action"));
    }
    let reports = || profile.syscalls().iter().flatten().filter(|s| s.action() == notify);
    if reports().any(|syscall| syscall.names().iter().any(|name| name == "write")) {
        return Err(Error::new("seccomp: SCMP_ACT_NOTIFY cannot be used for the write syscall"));
    }
    let path = profile.listener_path().clone().filter(|path| !path.as_os_str().is_empty());
    let metadata = profile.listener_metadata().clone().unwrap_or_default();
    match path {
        None if reports().next().is_some() => {
            Err(Error::new("seccomp: listenerPath: SCMP_ACT_NOTIFY needs the socket of an agent"))
        }
        None if !metadata.is_empty() => {
            Err(Error::new("seccomp: listenerMetadata is set, but listenerPath is not"))
        }
        None => Ok(None),
        Some(path) if !path.is_absolute() => {
            Err(Error::new(format!("seccomp: listenerPath: {} is not absolute", path.display())))
        }
        // A path alone reports nothing, and needs no agent.
        Some(path) => Ok(reports().next().is_some().then_some(Listener { path, metadata })),
    }
}

/// The tables that the profile is for; the native one when it names none.
fn tables(profile: &LinuxSeccomp) -> Result<Vec<Table>, Error> {
    let native = Table::native().ok_or_else(|| Error::new("seccomp: not supported on this CPU"))?;
    let named = profile.architectures().as_deref().unwrap_or_default();
    let named = if named.is_empty() { &[Arch::ScmpArchNative] } else { named };
    let reachable = |table: &Table| match native {
        Table::Aarch64 => *table == Table::Aarch64,
        _ => *table != Table::Aarch64,
    };
    let mut tables = Vec::new();
    for table in named.iter().filter_map(|arch| Table::of(*arch)).filter(reachable) {
        if !tables.contains(&table) {
            tables.push(table);
        }
    }
    if tables.is_empty() {
        return Err(Error::new("seccomp: the profile is for no architecture of this CPU"));
    }
    Ok(tables)
}

fn flags(profile: &LinuxSeccomp) -> u32 {
    let bit = |flag: &Flag| match flag {
        Flag::SeccompFilterFlagLog => FLAG_LOG,
        Flag::SeccompFilterFlagTsync => FLAG_TSYNC,
        Flag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
        Flag::SeccompFilterFlagWaitKillableRecv => FLAG_WAIT_KILLABLE_RECV,
    };
    profile.flags().iter().flatten().map(bit).fold(0, |all, one| all | one)
}

/// Architecture first, then number, then arguments.
fn program(policies: &[Policy]) -> Vec<Instruction> {
    let mut out = vec![bpf::load(bpf::ARCH)];
    let of = |wanted: Table| policies.iter().find(|p| p.table == wanted);
    let bodies = [
        (
            Table::X86_64,
            of(Table::X86_64).or(of(Table::X32)).map(|_| x86_64(of(Table::X86_64), of(Table::X32))),
        ),
        (Table::I386, of(Table::I386).map(body)),
        (Table::Aarch64, of(Table::Aarch64).map(body)),
    ];
    for (table, body) in bodies {
        let Some(body) = body else { continue };
        out.push(bpf::equal(table.audit_arch(), 1, 0));
        out.push(bpf::jump(length(&body)));
        out.extend(body);
    }
    out.push(bpf::ret(policy::BAD_ARCHITECTURE));
    out
}

/// x86-64 and x32 have one architecture and are told apart by a bit.
fn x86_64(native: Option<&Policy>, x32: Option<&Policy>) -> Vec<Instruction> {
    let refuse = || vec![bpf::ret(policy::BAD_ARCHITECTURE)];
    let native = native.map_or_else(refuse, body);
    let x32 = x32.map_or_else(refuse, body);
    let mut out = vec![bpf::load(bpf::NR), bpf::at_least(X32_BIT, 0, 1), bpf::jump(length(&native))];
    out.extend(native);
    out.extend(x32);
    out
}

/// All calls of one table. Every path ends in a return.
fn body(policy: &Policy) -> Vec<Instruction> {
    let mut runs = runs(policy);
    if let Some(newest) = policy.newest {
        runs.push(Run { first: newest + 1, code: vec![bpf::ret(policy::no_such_call())] });
    }
    let mut out = vec![bpf::load(bpf::NR)];
    out.extend(search(&runs));
    out
}

/// Consecutive numbers that do the same, from `first` to the next run.
struct Run {
    first: u32,
    code: Vec<Instruction>,
}

fn runs(policy: &Policy) -> Vec<Run> {
    let default = vec![bpf::ret(policy.default)];
    let mut runs = vec![Run { first: 0, code: default.clone() }];
    let mut push = |first: u32, code: Vec<Instruction>| match runs.last_mut() {
        Some(last) if last.code == code => {}
        Some(last) if last.first == first => last.code = code,
        _ => runs.push(Run { first, code }),
    };
    let mut next = 0;
    for (number, rules) in &policy.rules {
        if *number > next {
            push(next, default.clone());
        }
        push(*number, decide(rules, policy.default));
        next = number + 1;
    }
    push(next, default);
    runs
}

/// A balanced tree of comparisons; the left half follows, the right half is
/// jumped to.
fn search(runs: &[Run]) -> Vec<Instruction> {
    match runs {
        [] => Vec::new(),
        [run] => run.code.clone(),
        _ => {
            let (low, high) = runs.split_at(runs.len() / 2);
            let left = search(low);
            let mut out = match u8::try_from(left.len()) {
                Ok(distance) => vec![bpf::at_least(high[0].first, distance, 0)],
                Err(_) => vec![bpf::at_least(high[0].first, 0, 1), bpf::jump(length(&left))],
            };
            out.extend(left);
            out.extend(search(high));
            out
        }
    }
}

/// The rules of one call, in order, then the default.
fn decide(rules: &[Rule], default: u32) -> Vec<Instruction> {
    let mut out = Vec::new();
    for rule in rules {
        if rule.conditions.is_empty() {
            out.push(bpf::ret(rule.action));
            return out;
        }
        out.extend(conjunction(&rule.conditions, rule.action));
    }
    out.push(bpf::ret(default));
    out
}

/// Returns `action` when all conditions hold, else falls off the end. At most
/// six conditions of at most six instructions: every jump is short.
fn conjunction(conditions: &[Condition], action: u32) -> Vec<Instruction> {
    let mut out = vec![bpf::ret(action)];
    for condition in conditions.iter().rev() {
        let rest = u8::try_from(out.len()).unwrap_or(u8::MAX);
        let mut with = compare(*condition, rest);
        with.extend(out);
        out = with;
    }
    out
}

/// Goes on with the next instruction when the condition holds; skips `rest`
/// further ones when it doesn't.
fn compare(condition: Condition, rest: u8) -> Vec<Instruction> {
    let low = bpf::load(bpf::argument(condition.index));
    let high = bpf::load(bpf::argument(condition.index) + 4);
    let words = |v: u64| {
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        let halves = ((v >> 32) as u32, v as u32);
        halves
    };
    // Five instructions: the high words decide unless they're equal.
    let ordered = |v: u64, greater_holds: bool, low_test: fn(u32, u8, u8) -> Instruction| {
        let (h, l) = words(v);
        let (above, below) = if greater_holds { (3, rest + 2) } else { (rest + 3, 2) };
        let low_jump = if greater_holds { low_test(l, 0, rest) } else { low_test(l, rest, 0) };
        vec![high, bpf::greater(h, above, 0), bpf::equal(h, 0, below), low, low_jump]
    };
    match condition.test {
        Test::Equal(v) => {
            let (h, l) = words(v);
            vec![high, bpf::equal(h, 0, rest + 2), low, bpf::equal(l, 0, rest)]
        }
        Test::NotEqual(v) => {
            let (h, l) = words(v);
            vec![high, bpf::equal(h, 0, 2), low, bpf::equal(l, rest, 0)]
        }
        Test::Masked { mask, value } => {
            let ((mh, ml), (h, l)) = (words(mask), words(value));
            vec![high, bpf::and(mh), bpf::equal(h, 0, rest + 3), low, bpf::and(ml), bpf::equal(l, 0, rest)]
        }
        Test::AtLeast(v) => ordered(v, true, bpf::at_least),
        Test::Greater(v) => ordered(v, true, bpf::greater),
        Test::Less(v) => ordered(v, false, bpf::at_least),
        Test::AtMost(v) => ordered(v, false, bpf::greater),
    }
}

fn length(code: &[Instruction]) -> u32 {
    u32::try_from(code.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
