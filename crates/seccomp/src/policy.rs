// SPDX-License-Identifier: Apache-2.0
//! A profile's meaning for one architecture: what each number does.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator};

use super::{arch::Table, compile::Error};

// SECCOMP_RET_*, linux/seccomp.h.
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0x0000_0000;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_USER_NOTIF: u32 = 0x7fc0_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

/// The filter's answer for an architecture that the profile doesn't name.
pub(super) const BAD_ARCHITECTURE: u32 = RET_KILL_PROCESS;

/// The part of an answer that says what is done; the rest is a number for it.
const ACTION: u32 = 0xffff_0000;

/// Largest errno that a filter can return (MAX_ERRNO, linux/err.h).
const MAX_ERRNO: u32 = 4095;

/// One comparison of an argument, all 64 bits, unsigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) index: u32,
    pub(super) test: Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Test {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    AtMost(u64),
    AtLeast(u64),
    Greater(u64),
    /// argument & mask = value
    Masked {
        mask: u64,
        value: u64,
    },
}

/// When all conditions hold: this action. Rules are tried in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: u32,
}

/// What the calls of one architecture do.
#[derive(Debug)]
pub(super) struct Policy {
    pub(super) table: Table,
    /// Of a call without a rule that holds.
    pub(super) default: u32,
    /// By number: one without conditions, or any number with some.
    pub(super) rules: BTreeMap<u32, Vec<Rule>>,
    /// Calls above this number don't exist for us: the kernel may have them,
    /// the profile's author didn't know them, so they answer ENOSYS and the
    /// caller falls back to an older one. `None` when the default action lets
    /// unknown calls through or ends the process.
    pub(super) newest: Option<u32>,
}

/// What `profile` means for `table`.
pub(super) fn policy(profile: &LinuxSeccomp, table: Table) -> Result<Policy, Error> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let calls: BTreeMap<&str, u32> = table.calls().collect();
    let mut rules: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    for syscall in profile.syscalls().iter().flatten() {
        let action = action(syscall.action(), syscall.errno_ret())?;
        // A rule that says what is done anyway is none, and none of the others
        // gives way to it: libseccomp takes none such.
        if action == default {
            continue;
        }
        let alternatives = alternatives(syscall.args().as_deref().unwrap_or_default(), table)?;
        for name in syscall.names() {
            // A name that this architecture doesn't have can't be called on it.
            if let Some(number) = calls.get(name.as_str()) {
                let rules = rules.entry(*number).or_default();
                rules.extend(alternatives.iter().map(|c| Rule { conditions: c.clone(), action }));
            }
            // The arguments are behind a pointer then, where no condition
            // looks: who restricts some, restricts all; who allows some,
            // allows none.
            let conditional = alternatives.iter().any(|conditions| !conditions.is_empty());
            if let Some(other) = table.multiplexed(name)
                && (!conditional || restricts(action, default))
            {
                let test = Test::Masked { mask: other.mask, value: other.code };
                let conditions = vec![Condition { index: 0, test }];
                rules.entry(other.number).or_default().push(Rule { conditions, action });
            }
        }
    }
    rules.values_mut().for_each(tidy);
    let newest = (default & ACTION == RET_ERRNO).then(|| calls.values().copied().max()).flatten();
    Ok(Policy { table, default, rules, newest })
}

/// Whether `action` lets less happen than `default`. The kernel's own order of
/// actions, whose numbers compare as signed ones.
fn restricts(action: u32, default: u32) -> bool {
    (action & ACTION).cast_signed() < (default & ACTION).cast_signed()
}

/// Whether a call that a filter gives this answer is made at once.
pub(super) fn lets_pass(answer: u32) -> bool {
    matches!(answer & ACTION, RET_ALLOW | RET_LOG)
}

/// A rule without conditions is the only one of its call, the first of several,
/// whatever the others say and wherever they stand: that is what profiles mean
/// where libseccomp reads them.
fn tidy(rules: &mut Vec<Rule>) {
    if let Some(at) = rules.iter().position(|rule| rule.conditions.is_empty()) {
        rules.swap(0, at);
        rules.truncate(1);
    }
}

/// `errno` for a call that the kernel doesn't have.
pub(super) fn no_such_call() -> u32 {
    RET_ERRNO | libc::ENOSYS.unsigned_abs()
}

fn action(action: Action, errno: Option<u32>) -> Result<u32, Error> {
    let errno_or = |default: i32| match errno.unwrap_or(default.unsigned_abs()) {
        e if e <= MAX_ERRNO => Ok(e),
        e => Err(Error::new(format!("seccomp: errnoRet {e} is above {MAX_ERRNO}"))),
    };
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => RET_KILL_THREAD,
        Action::ScmpActKillProcess => RET_KILL_PROCESS,
        Action::ScmpActTrap => RET_TRAP,
        Action::ScmpActErrno => RET_ERRNO | errno_or(libc::EPERM)?,
        Action::ScmpActNotify => RET_USER_NOTIF,
        Action::ScmpActTrace => RET_TRACE | errno_or(libc::EPERM)?,
        Action::ScmpActLog => RET_LOG,
        Action::ScmpActAllow => RET_ALLOW,
    })
}

/// The rule's conditions as a list of conjunctions. Conditions on different
/// arguments hold together; as soon as one argument is named twice, each
/// condition stands alone, as runc and the profiles written for it have it.
fn alternatives(args: &[LinuxSeccompArg], table: Table) -> Result<Vec<Vec<Condition>>, Error> {
    let conditions = args.iter().map(|arg| condition(arg, table)).collect::<Result<Vec<_>, _>>()?;
    let twice =
        conditions.iter().enumerate().any(|(n, c)| conditions[..n].iter().any(|d| d.index == c.index));
    Ok(if twice { conditions.into_iter().map(|c| vec![c]).collect() } else { vec![conditions] })
}

fn condition(arg: &LinuxSeccompArg, table: Table) -> Result<Condition, Error> {
    use LinuxSeccompOperator as Op;
    let index = u32::try_from(arg.index())
        .ok()
        .filter(|i| *i < 6)
        .ok_or_else(|| Error::new(format!("seccomp: argument index {} is above 5", arg.index())))?;
    let value = arg.value();
    // Where arguments have 32 bits, -1 is as long.
    let short = |value: u64| value & table.argument_mask();
    let test = match arg.op() {
        Op::ScmpCmpNe => Test::NotEqual(short(value)),
        Op::ScmpCmpLt => Test::Less(value),
        Op::ScmpCmpLe => Test::AtMost(value),
        Op::ScmpCmpEq => Test::Equal(short(value)),
        Op::ScmpCmpGe => Test::AtLeast(value),
        Op::ScmpCmpGt => Test::Greater(value),
        Op::ScmpCmpMaskedEq => {
            Test::Masked { mask: short(value), value: short(arg.value_two().unwrap_or(0)) }
        }
    };
    Ok(Condition { index, test })
}

#[cfg(test)]
impl Policy {
    /// The profile's meaning said once more, as plainly as can be: the tests
    /// hold the compiled program against it.
    pub(super) fn decide(&self, nr: u32, args: &[u64; 6]) -> u32 {
        if self.newest.is_some_and(|newest| nr > newest) {
            return no_such_call();
        }
        let holds = |c: &Condition| {
            let arg = args[c.index as usize];
            match c.test {
                Test::Equal(v) => arg == v,
                Test::NotEqual(v) => arg != v,
                Test::Less(v) => arg < v,
                Test::AtMost(v) => arg <= v,
                Test::AtLeast(v) => arg >= v,
                Test::Greater(v) => arg > v,
                Test::Masked { mask, value } => arg & mask == value,
            }
        };
        self.rules
            .get(&nr)
            .and_then(|rules| rules.iter().find(|rule| rule.conditions.iter().all(holds)))
            .map_or(self.default, |rule| rule.action)
    }
}
