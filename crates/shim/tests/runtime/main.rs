// SPDX-License-Identifier: Apache-2.0
//! Drives the runtime directly: real containers from a busybox root, looked at
//! from inside and from the host. Needs root, and Debian's busybox-static.
//!
//! The runtime is for a process with one thread, so there is no test harness:
//! the cases run one after the other. An argument picks those that contain it.
#![allow(clippy::unwrap_used, reason = "a test")]

mod cases;
mod cgroup_cases;
mod escape_cases;
mod exec_cases;
mod gate_cases;
mod harness;
mod hooks_cases;
mod join_cases;
mod mount_cases;
mod process_cases;
mod race_cases;
mod systemd_cases;
mod users_cases;

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        // nextest asks for the ignored ones as well: there are none.
        if arguments.iter().any(|a| a == "--ignored") {
            return ExitCode::SUCCESS;
        }
        all().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    if let Some(reason) = missing() {
        println!("skipped: the runtime's tests need {reason}");
        return ExitCode::SUCCESS;
    }
    // What others mount on this host meanwhile is no leak of ours.
    harness::leave_the_hosts_mounts();
    let filter = arguments.iter().find(|a| !a.starts_with('-'));
    let chosen = all().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter.as_str())));
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in chosen {
        let before = harness::host_state();
        let result = std::panic::catch_unwind(case).is_ok() && harness::is_clean(&before);
        println!("test {name} ... {}", if result { "ok" } else { "FAILED" });
        if result { passed += 1 } else { failed += 1 }
    }
    harness::remove_parents();
    println!("\ntest result: {passed} passed; {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The cases of all files.
fn all() -> impl Iterator<Item = &'static (&'static str, fn())> {
    [
        cases::ALL,
        cgroup_cases::ALL,
        hooks_cases::ALL,
        escape_cases::ALL,
        exec_cases::ALL,
        gate_cases::ALL,
        race_cases::ALL,
        join_cases::ALL,
        users_cases::ALL,
        mount_cases::ALL,
        process_cases::ALL,
        systemd_cases::ALL,
    ]
    .into_iter()
    .flatten()
}

fn missing() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root");
    }
    (!Path::new(harness::BUSYBOX).exists()).then_some("busybox-static")
}
