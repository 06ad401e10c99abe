// SPDX-License-Identifier: Apache-2.0
//! Paused is frozen by the kernel, shown as such, and no way to get stuck.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::{Engine, engine::with_busybox, leaks::send, until};

const WAITER: &str = "trap 'exit 9' USR1; trap 'exit 15' TERM; echo up; while :; do sleep 0.05; done";

/// An engine with the container `ice`, paused.
fn with_paused() -> Option<Engine> {
    let engine = with_busybox()?;
    engine.berth(&["run", "-d", "--name", "ice", "busybox", "sh", "-c", WAITER]).ok();
    engine.wait_log("ice", "up");
    assert_eq!(engine.berth(&["pause", "ice"]).ok().line(), "ice");
    Some(engine)
}

/// Whether the kernel holds the container's processes.
fn frozen(engine: &Engine) -> bool {
    let pid = engine.inspect("ice")["State"]["Pid"].as_i64().expect("a pid");
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroups");
    groups.lines().any(|line| {
        let path = line.rsplit(':').next().unwrap_or_default();
        let holds = |file: String, text: &str| {
            fs::read_to_string(file).is_ok_and(|found| found.lines().any(|line| line == text))
        };
        ["", "/unified"].iter().any(|root| {
            line.starts_with("0::") && holds(format!("/sys/fs/cgroup{root}{path}/cgroup.events"), "frozen 1")
        }) || line.contains(":freezer:")
            && holds(format!("/sys/fs/cgroup/freezer{path}/freezer.state"), "FROZEN")
    })
}

fn actions(engine: &Engine) -> Vec<String> {
    let flags = ["events", "--since", "1h", "--until", "0s", "--filter", "container=ice"];
    let said = engine.berth(&[&flags[..], &["--format", "{{.Action}}"]].concat()).ok();
    said.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_paused_container_is_frozen_and_shown_so() {
    let Some(engine) = with_paused() else { return };
    assert!(frozen(&engine));
    let state = &engine.inspect("ice")["State"];
    assert_eq!(
        (&state["Status"], &state["Running"], &state["Paused"]),
        (&"paused".into(), &true.into(), &true.into())
    );
    let status = engine.berth(&["ps", "--format", "{{.Status}}"]).ok();
    assert!(status.line().starts_with("Up ") && status.line().ends_with(" (Paused)"), "{}", status.line());
    let names = |filter| engine.berth(&["ps", "--filter", filter, "--format", "{{.Names}}"]).ok().stdout;
    assert_eq!((names("status=paused").as_str(), names("status=running").as_str()), ("ice\n", ""));
    let counted = "{{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}}";
    assert_eq!(engine.berth(&["info", "-f", counted]).ok().line(), "0 1 0");

    engine.berth(&["pause", "ice"]).exits(1).complains(&["is already paused"]);
    engine.berth(&["start", "ice"]).exits(1);
    engine.berth(&["rm", "ice"]).exits(1).complains(&["container is paused: unpause and then stop"]);

    assert_eq!(engine.berth(&["unpause", "ice"]).ok().line(), "ice");
    assert!(!frozen(&engine));
    assert_eq!(engine.status("ice"), "running");
    engine.berth(&["unpause", "ice"]).exits(1).complains(&["is not paused"]);
    engine.berth(&["kill", "-s", "USR1", "ice"]).ok();
    assert_eq!(engine.wait("ice"), 9);
    engine.berth(&["pause", "ice"]).exits(1).complains(&["is not running"]);
    engine.berth(&["pause", "missing"]).exits(1).complains(&["No such container: missing"]);
    assert_eq!(actions(&engine), ["create", "start", "pause", "unpause", "kill", "die"]);
}

#[test]
fn a_paused_container_stops_as_another_does() {
    let Some(engine) = with_paused() else { return };
    engine.berth(&["stop", "-t", "60", "ice"]).ok();
    assert_eq!(engine.inspect("ice")["State"]["ExitCode"], 15, "it had its say");
    assert_eq!(engine.status("ice"), "exited");
    assert!(actions(&engine).contains(&"unpause".to_owned()));
}

#[test]
fn a_signal_waits_until_it_goes_on_and_sigkill_does_not() {
    let Some(engine) = with_paused() else { return };
    engine.berth(&["kill", "-s", "USR1", "ice"]).ok();
    assert!(frozen(&engine), "it doesn't let it go on");
    engine.berth(&["unpause", "ice"]).ok();
    assert_eq!(engine.wait("ice"), 9);
    engine.berth(&["start", "ice"]).ok();
    assert_eq!(engine.status("ice"), "running", "nothing is left of the pause");
    engine.berth(&["pause", "ice"]).ok();
    engine.berth(&["kill", "ice"]).ok();
    assert_eq!(engine.wait("ice"), 137);
}

#[test]
fn rm_force_does_not_care() {
    let Some(engine) = with_paused() else { return };
    engine.berth(&["rm", "-f", "ice"]).ok();
    assert_eq!(engine.berth(&["ps", "-aq"]).ok().line(), "");
    until("its processes to be gone", || engine.processes().is_empty().then_some(()));
}

#[test]
fn it_stays_paused_when_the_engine_starts_again() {
    let Some(mut engine) = with_paused() else { return };
    engine.kill9();
    engine.restart();
    assert_eq!(engine.status("ice"), "paused");
    assert!(frozen(&engine));
    engine.berth(&["unpause", "ice"]).ok();
    engine.berth(&["stop", "ice"]).ok();
    assert_eq!(engine.inspect("ice")["State"]["ExitCode"], 15);
}

#[test]
fn a_paused_container_whose_shim_dies_is_cleaned_up() {
    let Some(engine) = with_paused() else { return };
    engine.expect_error("shim");
    send(engine.shim_pid("ice"), Signal::SIGKILL);
    assert_eq!(engine.wait("ice"), 137);
    until("its processes to be gone", || engine.processes().is_empty().then_some(()));
}
