// SPDX-License-Identifier: Apache-2.0
//! `kill`: a signal to the first process, or to all.

use std::{os::fd::AsFd as _, path::PathBuf, process::ExitCode};

use nix::{errno::Errno, sys::signal::Signal};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType, Spec};

use super::{
    Context, Failure, Outcome,
    cli::{Matches, Verb, switch},
};
use crate::kernel::process;

/// The words that callers look for.
pub(super) const NOT_RUNNING: &str = "container not running";

pub(super) const VERB: Verb = Verb {
    name: "kill",
    usage: "kill sends the specified signal (default: SIGTERM) to the container's init process",
    arguments: "<container-id> [signal]",
    flags: &[switch("all", "a", "send the specified signal to all processes inside the container")],
    flags_until: 1,
    takes: (1, 2),
    run: kill,
};

fn kill(context: &Context, matches: &Matches) -> Outcome {
    let signal = parse(matches.argument(1)?.unwrap_or("SIGTERM"))?;
    let known = context.store.load(matches.id()?)?;
    if matches.has("all") {
        // What is left of a container whose first process has ended, too.
        known.group()?.signal(signal)?;
        return Ok(ExitCode::SUCCESS);
    }
    if signal == libc::SIGKILL && !has_own_pids(&known.spec()?) {
        // The end of the first process would not be that of the others.
        let group = known.group()?;
        if group.pids()?.is_empty() {
            return Err(Failure::new(NOT_RUNNING));
        }
        group.signal(signal)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(init) = known.init()? else { return Err(Failure::new(NOT_RUNNING)) };
    match process::pidfd_send_signal(init.as_fd(), signal) {
        Err(e) if e.errno() == Errno::ESRCH => return Err(Failure::new(NOT_RUNNING)),
        result => result?,
    }
    if signal == libc::SIGKILL {
        known.group()?.let_die()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether the kernel ends all processes with the first.
fn has_own_pids(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref());
    let is_new = |path: &Option<PathBuf>| path.as_ref().is_none_or(|path| path.as_os_str().is_empty());
    let is_own = |n: &LinuxNamespace| n.typ() == LinuxNamespaceType::Pid && is_new(n.path());
    namespaces.unwrap_or_default().iter().any(is_own)
}

/// A number, or a name with or without `SIG`, in capitals or not.
pub(super) fn parse(text: &str) -> Result<i32, Failure> {
    if let Ok(number) = text.parse::<i32>() {
        return Ok(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let unknown = || Failure::new(format!("unknown signal \"{text}\""));
    let offset = |rest: &str| rest.parse::<i32>().ok().filter(|n| (0..=30).contains(n));
    match name {
        // Older names of ABRT, CHLD and IO.
        "IOT" => Ok(libc::SIGABRT),
        "CLD" => Ok(libc::SIGCHLD),
        "POLL" => Ok(libc::SIGIO),
        "RTMIN" => Ok(libc::SIGRTMIN()),
        "RTMAX" => Ok(libc::SIGRTMAX()),
        _ if name.starts_with("RTMIN+") => {
            offset(&name[6..]).map(|n| libc::SIGRTMIN() + n).ok_or_else(unknown)
        }
        _ if name.starts_with("RTMAX-") => {
            offset(&name[6..]).map(|n| libc::SIGRTMAX() - n).ok_or_else(unknown)
        }
        _ => format!("SIG{name}").parse::<Signal>().map(|signal| signal as i32).map_err(|_| unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_number_and_by_name() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("Hup", 1),
            ("SIGIOT", 6),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("0", 0),
        ] {
            assert_eq!(parse(text).expect(text), number, "{text}");
        }
        for bad in ["", "SIG", "NOPE", "SIGSIGKILL", "RTMIN+99", "RTMIN+x"] {
            assert_eq!(parse(bad).expect_err(bad).to_string(), format!("unknown signal \"{bad}\""));
        }
    }
}
