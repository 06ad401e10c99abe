// SPDX-License-Identifier: Apache-2.0
//! Restart policies: who is started again, when, and what ends that; over the
//! death of the engine, and over what looks like a reboot.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::{Engine, engine::with_busybox, leaks::send, until};

/// Ends with 15 when it is stopped, and with 3 when the gate is opened.
const GATED: &str = "trap 'exit 15' TERM; echo up; while [ ! -e /gate/open ]; do sleep 0.02; done; exit 3";

fn state(engine: &Engine, container: &str) -> (String, i64) {
    let inspect = engine.inspect(container);
    let status = inspect["State"]["Status"].as_str().expect("Status").to_owned();
    (status, inspect["RestartCount"].as_i64().expect("RestartCount"))
}

/// Waits until its policy has had it started `count` times or more.
fn restarted(engine: &Engine, container: &str, count: i64) {
    until(&format!("{count} restarts of {container}"), || {
        (state(engine, container).1 >= count).then_some(())
    });
}

fn until_status(engine: &Engine, container: &str, wanted: &str) {
    until(&format!("{container} to be {wanted}"), || (engine.status(container) == wanted).then_some(()));
}

/// How often it has been started.
fn starts(engine: &Engine, container: &str) -> usize {
    let filter = format!("container={container}");
    let flags = ["events", "--since", "1h", "--until", "0s", "--filter", &filter, "--format", "{{.Action}}"];
    engine.berth(&flags).ok().stdout.lines().filter(|action| *action == "start").count()
}

/// A container that runs until its gate is opened: a file in the directory
/// that this makes.
fn gated(engine: &Engine, name: &str, policy: &str) -> std::path::PathBuf {
    let gate = engine.dir().join(format!("gate-{name}"));
    fs::create_dir(&gate).expect("mkdir");
    let volume = format!("{}:/gate", gate.display());
    let run = ["run", "-d", "--name", name, "--restart", policy, "-v", &volume, "busybox", "sh", "-c", GATED];
    engine.berth(&run).ok();
    engine.wait_log(name, "up");
    gate.join("open")
}

#[test]
fn what_ends_is_started_again_with_longer_waits_until_it_is_stopped() {
    let Some(engine) = with_busybox() else { return };
    engine
        .berth(&["run", "-d", "--name", "loop", "--restart", "always", "busybox", "sh", "-c", "exit 3"])
        .ok();
    restarted(&engine, "loop", 5);
    // The wait is 1.6 seconds by now: there is time to look.
    until_status(&engine, "loop", "restarting");
    let inspect = engine.inspect("loop");
    assert_eq!(inspect["State"]["Restarting"], true);
    assert_eq!(inspect["State"]["ExitCode"], 3);
    assert_eq!(inspect["HostConfig"]["RestartPolicy"]["Name"], "always");
    let shown = until("a restarting line of ps", || {
        let line = engine.berth(&["ps", "--format", "{{.Status}}"]).ok().line().to_owned();
        line.starts_with("Restarting").then_some(line)
    });
    assert!(shown.starts_with("Restarting (3) ") && shown.ends_with(" ago"), "{shown}");
    until("the filter to find it", || {
        let found = engine.berth(&["ps", "-q", "--filter", "status=restarting"]).ok();
        (!found.line().is_empty()).then_some(())
    });

    engine.berth(&["stop", "loop"]).ok();
    assert_eq!(engine.status("loop"), "exited");
    let count = starts(&engine, "loop");
    assert_eq!(engine.wait("loop"), 3, "it is at rest");
    // The restart that it was stopped before counts, too, as in Docker.
    let counted = state(&engine, "loop").1;
    assert!([0, 1].contains(&(i64::try_from(count).expect("few") - counted)), "{count} {counted}");
    // A start by its user counts from the beginning.
    engine.berth(&["update", "--restart", "no", "loop"]).ok();
    engine.berth(&["start", "loop"]).ok();
    until_status(&engine, "loop", "exited");
    assert_eq!(state(&engine, "loop").1, 0);
    assert_eq!(starts(&engine, "loop"), count + 1);
}

#[test]
fn on_failure_tries_so_often_and_leaves_success_alone() {
    let Some(engine) = with_busybox() else { return };
    let run = |name: &str, policy: &str, code: &str| {
        let script = format!("exit {code}");
        engine
            .berth(&["run", "-d", "--name", name, "--restart", policy, "busybox", "sh", "-c", &script])
            .ok();
    };
    run("bad", "on-failure:2", "7");
    run("good", "on-failure", "0");
    until("two more attempts", || (state(&engine, "bad") == ("exited".to_owned(), 2)).then_some(()));
    assert_eq!(starts(&engine, "bad"), 3);
    assert_eq!(engine.inspect("bad")["HostConfig"]["RestartPolicy"]["MaximumRetryCount"], 2);
    until_status(&engine, "good", "exited");
    assert_eq!(starts(&engine, "good"), 1);
}

#[test]
fn stop_kill_and_rm_end_the_waiting() {
    let Some(engine) = with_busybox() else { return };
    let waiting = |name: &str| {
        let run = ["run", "-d", "--name", name, "--restart", "unless-stopped", "busybox", "false"];
        engine.berth(&run).ok();
        restarted(&engine, name, 5);
        until_status(&engine, name, "restarting");
    };
    waiting("killed");
    engine.berth(&["kill", "-s", "HUP", "killed"]).exits(1).complains(&["restarting"]);
    engine.berth(&["kill", "killed"]).ok();
    assert_eq!(engine.status("killed"), "exited");

    waiting("waited");
    let mut wait = engine.background(&["wait", "waited"]);
    engine.berth(&["stop", "waited"]).ok();
    assert_eq!(wait.wait(), 0);
    assert_eq!(wait.output(), "1\n");

    waiting("removed");
    let refused = engine.berth(&["rm", "removed"]).exits(1);
    refused.complains(&["container is restarting: stop the container before removing or force remove"]);
    engine.berth(&["exec", "removed", "true"]).exits(1).complains(&["is restarting, wait until"]);
    engine.berth(&["attach", "removed"]).exits(1).complains(&["attach to a restarting container"]);
    engine.berth(&["container", "prune", "-f"]).ok();
    assert_eq!(engine.berth(&["ps", "-a", "--format", "{{.Names}}"]).ok().line(), "removed");
    engine.berth(&["rm", "-f", "removed"]).ok();
    assert_eq!(engine.berth(&["ps", "-aq"]).ok().line(), "");

    // A start doesn't wait, and an update may think better of it.
    waiting("updated");
    engine.berth(&["update", "--restart", "no", "updated"]).ok();
    until_status(&engine, "updated", "exited");
    waiting("started");
    engine.berth(&["start", "started"]).ok();
    assert!(state(&engine, "started").1 < 5, "counted anew");
}

#[test]
fn a_stop_at_any_moment_is_obeyed() {
    let Some(engine) = with_busybox() else { return };
    let script = "usleep 3000; exit 1";
    engine
        .berth(&["run", "-d", "--name", "churn", "--restart", "always", "busybox", "sh", "-c", script])
        .ok();
    for round in 0..12 {
        // Somewhere in a start, a run, an end or a wait.
        restarted(&engine, "churn", round % 3);
        engine.berth(&["stop", "-t", "0", "churn"]).ok();
        let count = starts(&engine, "churn");
        assert_eq!(engine.status("churn"), "exited");
        assert_eq!(engine.berth(&["ps", "-q"]).ok().line(), "");
        assert_eq!(starts(&engine, "churn"), count);
        engine.berth(&["start", "churn"]).ok();
    }
    engine.berth(&["rm", "-f", "churn"]).ok();
}

#[test]
fn a_killed_container_of_a_policy_comes_back_unless_its_user_killed_it() {
    let Some(engine) = with_busybox() else { return };
    gated(&engine, "victim", "unless-stopped");
    let pid = engine.inspect("victim")["State"]["Pid"].as_i64().expect("a pid");
    // The kernel, or somebody on the host.
    send(i32::try_from(pid).expect("a pid"), Signal::SIGKILL);
    restarted(&engine, "victim", 1);
    until_status(&engine, "victim", "running");
    engine.berth(&["kill", "victim"]).ok();
    until_status(&engine, "victim", "exited");
    assert_eq!(state(&engine, "victim").1, 1);
    // A restart by its user keeps the policy.
    engine.berth(&["start", "victim"]).ok();
    engine.berth(&["restart", "-t", "20", "victim"]).ok();
    assert_eq!(state(&engine, "victim"), ("running".to_owned(), 0));
}

#[test]
fn what_was_wanted_is_known_to_the_next_engine() {
    let Some(mut engine) = with_busybox() else { return };
    let open = ["ends", "ends-always", "on-failure", "no"].map(|name| {
        let policy = match name {
            "ends" => "unless-stopped",
            "ends-always" => "always",
            other => other,
        };
        gated(&engine, name, policy)
    });
    gated(&engine, "runs", "always");
    for (name, policy) in
        [("stopped", "unless-stopped"), ("stopped-always", "always"), ("stopped-failure", "on-failure")]
    {
        gated(&engine, name, policy);
        engine.berth(&["stop", name]).ok();
    }
    engine.berth(&["create", "--name", "never", "--restart", "always", "busybox", "true"]).ok();
    let pids: Vec<_> = ["ends", "ends-always", "on-failure", "no"]
        .iter()
        .map(|name| engine.inspect(name)["State"]["Pid"].as_i64().expect("a pid"))
        .collect();
    let before = engine.inspect("runs")["State"]["Pid"].clone();

    engine.kill9();
    for gate in &open {
        fs::write(gate, "").expect("open the gate");
    }
    for pid in pids {
        until("it to end while nobody watches", || (!alive(pid)).then_some(()));
    }
    for gate in &open {
        fs::remove_file(gate).expect("close the gate");
    }
    engine.restart();

    for name in ["ends", "ends-always", "on-failure", "stopped-always"] {
        until_status(&engine, name, "running");
    }
    for name in ["stopped", "stopped-failure", "no"] {
        assert_eq!((name, engine.status(name).as_str()), (name, "exited"));
    }
    assert_eq!(engine.inspect("no")["State"]["ExitCode"], 3);
    assert_eq!(engine.status("never"), "created");
    assert_eq!(engine.inspect("runs")["State"]["Pid"], before, "it ran all the time");
}

#[test]
fn a_wait_goes_on_in_the_next_engine_and_so_does_its_length() {
    let Some(mut engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "loop", "--restart", "on-failure:40", "busybox", "false"]).ok();
    for round in 1..4 {
        restarted(&engine, "loop", round * 2);
        engine.kill9();
        engine.restart();
        let (status, count) = state(&engine, "loop");
        assert!(count >= round * 2, "{count} in round {round}");
        assert!(["restarting", "running", "exited"].contains(&status.as_str()), "{status}");
    }
    restarted(&engine, "loop", 7);
    engine.berth(&["stop", "loop"]).ok();
    engine.kill9();
    engine.restart();
    assert_eq!(engine.status("loop"), "exited");
}

#[test]
fn after_a_reboot_those_wanted_running_start() {
    let Some(mut engine) = with_busybox() else { return };
    for (name, policy) in
        [("always", "always"), ("unless", "unless-stopped"), ("failure", "on-failure"), ("no", "no")]
    {
        gated(&engine, name, policy);
    }
    gated(&engine, "stopped", "unless-stopped");
    engine.berth(&["stop", "stopped"]).ok();

    // A reboot: no process is left, /run is empty, and the boot has another id.
    engine.kill9();
    for pid in engine.processes() {
        send(pid, Signal::SIGKILL);
    }
    until("all processes to be gone", || engine.processes().is_empty().then_some(()));
    fs::remove_dir_all(engine.dir().join("state/bundles")).expect("empty /run");
    let meta = rusqlite::Connection::open(engine.dir().join("root/meta.db")).expect("open the database");
    let boot = "00000000-0000-4000-8000-000000000000";
    let sql = "UPDATE containers SET shim = json_set(shim, '$.boot_id', ?1) WHERE shim IS NOT NULL";
    // The stopped one's may still have been on its way out.
    assert!(meta.execute(sql, [boot]).expect("another boot") >= 4);
    drop(meta);
    engine.restart();

    for name in ["always", "unless", "failure"] {
        until_status(&engine, name, "running");
        assert_eq!(starts(&engine, name), 2);
    }
    assert_eq!(engine.status("stopped"), "exited");
    let no = &engine.inspect("no")["State"];
    assert_eq!((&no["Status"], &no["ExitCode"]), (&"exited".into(), &255.into()));
    assert!(no["Error"].as_str().expect("Error").contains("the host was restarted"), "{no}");
}

#[test]
fn what_can_not_be_is_said_in_dockers_words() {
    let Some(engine) = with_busybox() else { return };
    for (flags, words) in [
        (&["--rm", "--restart", "always"][..], "conflicting options: cannot specify both --restart and --rm"),
        (&["--restart", "sometimes"], "invalid restart policy: unknown policy 'sometimes'"),
        (&["--restart", "always:3"], "maximum retry count can only be used with 'on-failure'"),
        (&["--restart", "on-failure:-1"], "maximum retry count cannot be negative"),
        (&["--restart", "on-failure:x"], "maximum retry count must be an integer"),
        (&["--restart", ":1"], "no policy provided before colon"),
    ] {
        let args = [&["create"][..], flags, &["busybox", "true"]].concat();
        let refused = engine.berth(&args);
        assert!(refused.code != 0 && refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    engine.berth(&["run", "--rm", "--restart", "no", "busybox", "true"]).ok();
    engine.berth(&["create", "--name", "rm", "--rm", "busybox"]).ok();
    let refused = engine.berth(&["update", "--restart", "always", "rm"]).exits(1);
    refused.complains(&["AutoRemove is enabled"]);

    // A start that fails is told to whoever asked, and isn't tried again.
    engine.berth(&["run", "-d", "--name", "none", "--restart", "always", "busybox", "/none"]).exits(127);
    assert_eq!(state(&engine, "none"), ("exited".to_owned(), 0));
}

fn alive(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
