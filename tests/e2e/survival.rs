// SPDX-License-Identifier: Apache-2.0
//! Programs die. What runs goes on, what ended is known, what was written is
//! there.

use std::{fs, time::Duration};

use nix::sys::signal::Signal;

use crate::support::{engine::with_busybox, leaks::send, until, wait::within};

/// Writes numbered lines until it is told to stop.
const COUNTER: &str = "trap 'echo end; exit 0' TERM; n=0; while :; do n=$((n+1)); echo $n; sleep 0.005; done";

#[test]
fn a_killed_engine_comes_back_to_everything_as_it_was() {
    let Some(mut engine) = with_busybox() else { return };
    engine.berth(&["create", "--name", "made", "busybox"]).ok();
    engine.berth(&["run", "--name", "done", "busybox", "sh", "-c", "exit 5"]).exits(5);
    engine.berth(&["run", "-d", "--name", "counter", "busybox", "sh", "-c", COUNTER]).ok();
    let gate = engine.dir().join("gate");
    fs::create_dir(&gate).expect("mkdir");
    let flag = format!("{}:/gate", gate.display());
    let script = "echo up; while [ ! -e /gate/open ]; do sleep 0.02; done; echo bye; exit 42";
    engine.berth(&["run", "-d", "--name", "leaver", "-v", &flag, "busybox", "sh", "-c", script]).ok();
    let mut terminal = engine.terminal(&["run", "-it", "--name", "shell", "busybox", "sh"]);
    terminal.expect("# ");
    terminal.send("kept=alive\r");
    terminal.expect("# ");
    engine.wait_log("counter", "\n20\n");
    engine.wait_log("leaver", "up");
    let pids = ["counter", "shell"].map(|name| engine.inspect(name)["State"]["Pid"].clone());
    let leaver = engine.inspect("leaver")["State"]["Pid"].as_i64().expect("a pid");

    engine.kill9();
    // Meanwhile one of them ends, and nobody hears it.
    fs::write(gate.join("open"), "").expect("open the gate");
    until("the container to end on its own", || (!running(leaver)).then_some(()));
    engine.restart();

    assert_eq!(engine.status("made"), "created");
    assert_eq!(engine.inspect("done")["State"]["ExitCode"], 5);
    let state = &engine.inspect("leaver")["State"];
    assert_eq!((&state["Status"], &state["ExitCode"]), (&"exited".into(), &42.into()));
    assert_eq!(engine.berth(&["logs", "leaver"]).ok().stdout, "up\nbye\n");
    assert_eq!(engine.wait("leaver"), 42);
    for (name, pid) in ["counter", "shell"].iter().zip(&pids) {
        let state = &engine.inspect(name)["State"];
        assert_eq!((&state["Status"], &state["Pid"]), (&"running".into(), pid), "{name}");
    }

    // Whoever sat at the terminal just goes on.
    terminal.send("echo really $kept\r");
    terminal.expect("really alive\r\n");
    let mut again = engine.terminal(&["attach", "shell"]);
    again.send("echo still $kept\r");
    again.expect("still alive\r\n");
    again.send("exit 6\r");
    assert_eq!((again.wait(), terminal.wait()), (6, 6));

    engine.berth(&["stop", "counter"]).ok();
    assert_counted(&engine.berth(&["logs", "counter"]).ok().stdout);
    assert_eq!(engine.inspect("counter")["State"]["ExitCode"], 0);
    // What existed before is as good as new.
    engine.berth(&["start", "-a", "made"]).ok();
}

#[test]
fn an_engine_that_stops_leaves_its_containers_running() {
    let Some(mut engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "counter", "busybox", "sh", "-c", COUNTER]).ok();
    engine.wait_log("counter", "\n5\n");
    let pid = engine.inspect("counter")["State"]["Pid"].as_i64().expect("a pid");
    assert_eq!(engine.stop(), 0);
    assert!(running(pid));
    engine.restart();
    assert_eq!(engine.inspect("counter")["State"]["Pid"], pid);
    engine.wait_log("counter", "\n50\n");
    engine.berth(&["stop", "counter"]).ok();
    assert_counted(&engine.berth(&["logs", "counter"]).ok().stdout);
}

#[test]
fn following_a_log_again_after_a_restart_has_every_line() {
    let Some(mut engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "counter", "busybox", "sh", "-c", COUNTER]).ok();
    for _ in 0..3 {
        let follow = engine.background(&["logs", "-f", "counter"]);
        follow.expect("\n10\n");
        engine.kill9();
        engine.restart();
    }
    let mut follow = engine.background(&["logs", "-f", "counter"]);
    engine.berth(&["stop", "counter"]).ok();
    assert_eq!(follow.wait(), 0);
    assert_counted(&follow.output());
}

#[test]
fn a_command_in_the_foreground_goes_on_as_if_nothing_had_happened() {
    let Some(mut engine) = with_busybox() else { return };
    let mut run = engine.background(&["run", "--name", "counter", "busybox", "sh", "-c", COUNTER]);
    for mark in ["\n10\n", "\n100\n"] {
        run.expect(mark);
        engine.kill9();
        engine.restart();
    }
    run.expect("\n200\n");
    engine.berth(&["stop", "counter"]).ok();
    assert_eq!(run.wait(), 0);
    assert_counted(&run.output());
}

#[test]
fn a_killed_shim_is_noticed_and_nothing_of_its_container_stays() {
    let Some(engine) = with_busybox() else { return };
    engine.expect_error("shim");
    let script = "sleep 1000 & sleep 1000 & echo up; wait";
    engine.berth(&["run", "-d", "--name", "orphan", "busybox", "sh", "-c", script]).ok();
    engine.wait_log("orphan", "up");
    assert!(engine.processes().len() >= 4, "a shim, a shell, two sleeps: {:?}", engine.processes());
    send(engine.shim_pid("orphan"), Signal::SIGKILL);
    within(Duration::from_secs(2), "the engine to report it", || {
        (engine.status("orphan") == "exited").then_some(())
    });
    assert_eq!(engine.inspect("orphan")["State"]["ExitCode"], 137);
    assert_eq!(engine.wait("orphan"), 137);
    until("its processes to be gone", || engine.processes().is_empty().then_some(()));
    assert_eq!(engine.berth(&["logs", "orphan"]).ok().stdout, "up\n");
    // It can be started again.
    engine.berth(&["start", "orphan"]).ok();
    assert_eq!(engine.status("orphan"), "running");
}

#[test]
fn a_shim_killed_while_nobody_watched_is_noticed_at_the_next_start() {
    let Some(mut engine) = with_busybox() else { return };
    engine.expect_error("shim");
    engine.berth(&["run", "-d", "--name", "orphan", "busybox", "sh", "-c", "echo up; sleep 1000"]).ok();
    engine.wait_log("orphan", "up");
    let shim = engine.shim_pid("orphan");
    engine.kill9();
    send(shim, Signal::SIGKILL);
    engine.restart();
    until("the container to be reported", || (engine.status("orphan") == "exited").then_some(()));
    assert_eq!(engine.inspect("orphan")["State"]["ExitCode"], 137);
    until("its processes to be gone", || engine.processes().is_empty().then_some(()));
}

#[test]
fn an_engine_killed_again_and_again_in_the_middle_of_runs_loses_nothing() {
    let Some(mut engine) = with_busybox() else { return };
    for round in 0..5 {
        let mut children: Vec<_> = (0..4)
            .map(|n| {
                let script = format!("exit {n}");
                engine.background(&[
                    "run",
                    "--name",
                    &format!("c{round}-{n}"),
                    "busybox",
                    "sh",
                    "-c",
                    &script,
                ])
            })
            .collect();
        // As soon as the first is known the engine dies, in the middle of the
        // others.
        let list = ["ps", "-aq", "--filter", &format!("name=c{round}-")];
        until("a container", || (!engine.berth(&list).ok().stdout.is_empty()).then_some(()));
        engine.kill9();
        engine.restart();
        for child in &mut children {
            child.wait();
        }
        // Whatever state each had reached: it is one that can be told, nothing
        // is in between, and it can be removed.
        let states = engine.berth(&["ps", "-a", "--format", "{{.Names}} {{.State}}"]).ok().stdout;
        for line in states.lines() {
            let (name, state) = line.split_once(' ').expect("two words");
            assert!(["created", "running", "exited"].contains(&state), "{line}");
            engine.berth(&["rm", "-f", name]).ok();
        }
    }
}

fn running(pid: i64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Every number from 1 on, each once, and the end.
fn assert_counted(log: &str) {
    let (numbers, end) = log.strip_suffix("end\n").map_or((log, false), |n| (n, true));
    assert!(end, "no end in: …{}", &log[log.len().saturating_sub(100)..]);
    for (n, line) in numbers.lines().enumerate() {
        assert_eq!(line, (n + 1).to_string());
    }
}
