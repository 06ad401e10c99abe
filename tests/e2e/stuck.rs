// SPDX-License-Identifier: Apache-2.0
//! A container that is stuck sticks nothing else, and can always be removed.

use std::{
    fs,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::support::{Engine, engine::with_busybox, leaks::send, until};

/// Longer than any answer that waits for nobody, and far shorter than any
/// time-out for a shim: what waits for a stuck one takes longer than this.
const AT_ONCE: Duration = Duration::from_millis(1500);

/// Runs some containers and stops their shims.
fn stuck(engine: &Engine, count: usize) -> Vec<i32> {
    let names: Vec<String> = (0..count).map(|n| format!("stuck{n}")).collect();
    for name in &names {
        engine.berth(&["run", "-d", "--name", name, "busybox", "sleep", "100000"]).ok();
    }
    let shims: Vec<i32> = names.iter().map(|name| engine.shim_pid(name)).collect();
    for shim in &shims {
        send(*shim, Signal::SIGSTOP);
    }
    shims
}

/// Half of the times are shorter than this: one answer in a busy moment says
/// nothing.
fn median(mut once: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..9)
        .map(|_| {
            let begun = Instant::now();
            once();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[4]
}

#[test]
fn shims_that_are_stopped_delay_nobody_else() {
    let Some(mut engine) = with_busybox() else { return };
    engine.expect_error("shim");
    engine.berth(&["run", "-d", "--name", "free", "busybox", "sleep", "100000"]).ok();
    let shims = stuck(&engine, 10);
    // Those who ask them wait, all at once.
    let mut waiting: Vec<_> =
        (0..10).map(|n| engine.background(&["exec", &format!("stuck{n}"), "true"])).collect();
    for (what, args) in [
        ("ps", &["ps", "-a"][..]),
        ("inspect", &["inspect", "free"]),
        ("exec", &["exec", "free", "true"]),
        ("logs", &["logs", "free"]),
        ("stats", &["stats", "--no-stream", "free"]),
    ] {
        let took = median(|| drop(engine.berth(args).ok()));
        println!("stuck: {what} beside ten stopped shims took {took:?}");
        assert!(took < AT_ONCE, "{what} took {took:?}");
    }
    engine.berth(&["run", "--rm", "busybox", "echo", "new"]).ok();

    // What is known of them: that they don't answer. Scripts see what they saw.
    for exec in &mut waiting {
        assert_ne!(exec.wait(), 0, "nobody was there to execute it");
    }
    let line = ["ps", "--filter", "name=stuck3", "--format", "{{.State}} {{.Status}}"];
    let shown = until("ps to say so", || {
        let shown = engine.berth(&line).ok().stdout;
        shown.contains("(Unresponsive)").then_some(shown)
    });
    assert!(shown.starts_with("running Up "), "{shown}");
    let running = engine.berth(&["ps", "-q", "--filter", "status=running"]).ok().stdout;
    assert_eq!(running.lines().count(), 11, "{running}");
    let unknown = engine.berth(&["ps", "-q", "--filter", "status=unknown"]).ok().stdout;
    assert_eq!(unknown.lines().count(), 10, "{unknown}");
    assert_eq!(engine.inspect("stuck3")["State"]["Unresponsive"], true);
    let begun = Instant::now();
    engine.berth(&["exec", "ls"]).ok();
    assert!(begun.elapsed() < 2 * AT_ONCE, "exec ls took {:?}", begun.elapsed());

    // A new engine serves at once, too, and whoever goes on is found again.
    engine.kill9();
    let begun = Instant::now();
    engine.restart();
    println!("stuck: an engine with ten stopped shims served after {:?}", begun.elapsed());
    assert!(begun.elapsed() < 10 * AT_ONCE, "{:?}", begun.elapsed());
    assert_eq!(engine.berth(&["ps", "-q"]).ok().stdout.lines().count(), 11);
    for shim in &shims {
        send(*shim, Signal::SIGCONT);
    }
    for n in 0..10 {
        let name = format!("stuck{n}");
        until("the shim to be heard again", || {
            let state = &engine.inspect(&name)["State"];
            (state["Status"] == "running" && state.get("Unresponsive").is_none()).then_some(())
        });
        engine.berth(&["exec", &name, "true"]).ok();
    }
}

#[test]
fn a_container_whose_shim_is_stopped_can_be_stopped_and_removed() {
    let Some(mut engine) = with_busybox() else { return };
    // Killed on purpose: that is no error.
    for restarted in [false, true] {
        stuck(&engine, 2);
        if restarted {
            engine.kill9();
            engine.restart();
        }
        engine.berth(&["rm", "-f", "stuck0"]).ok();
        engine.berth(&["stop", "-t", "1", "stuck1"]).ok();
        assert_eq!(engine.inspect("stuck1")["State"]["ExitCode"], 137);
        engine.berth(&["start", "stuck1"]).ok();
        engine.berth(&["rm", "-f", "stuck1"]).ok();
        assert_eq!(engine.berth(&["ps", "-aq"]).ok().stdout, "");
        engine.assert_sound();
    }
}

#[test]
fn a_container_whose_bundle_is_gone_can_be_removed() {
    let Some(mut engine) = with_busybox() else { return };
    engine.expect_error("shim");
    for restarted in [false, true] {
        engine.berth(&["run", "-d", "--name", "lost", "busybox", "sleep", "100000"]).ok();
        let id = engine.inspect("lost")["Id"].as_str().expect("id").to_owned();
        let pid = engine.inspect("lost")["State"]["Pid"].as_i64().expect("pid");
        fs::remove_dir_all(engine.dir().join("state/bundles/default").join(id)).expect("remove");
        if restarted {
            engine.kill9();
            engine.restart();
            // Nobody can speak to it, and it goes on all the same.
            assert_eq!(engine.status("lost"), "running");
            assert!(fs::metadata(format!("/proc/{pid}")).is_ok(), "it was killed");
        }
        engine.berth(&["rm", "-f", "lost"]).ok();
        until("its processes to be gone", || engine.processes().is_empty().then_some(()));
        engine.assert_sound();
    }
}

#[test]
fn a_container_whose_socket_is_gone_can_be_removed() {
    let Some(mut engine) = with_busybox() else { return };
    engine.expect_error("shim");
    engine.berth(&["run", "-d", "--name", "deaf", "busybox", "sleep", "100000"]).ok();
    let id = engine.inspect("deaf")["Id"].as_str().expect("id").to_owned();
    fs::remove_file(engine.dir().join("state/bundles/default").join(id).join("shim.sock")).expect("unlink");
    engine.kill9();
    engine.restart();
    assert_eq!(engine.status("deaf"), "running");
    engine.berth(&["rm", "-f", "deaf"]).ok();
    until("its processes to be gone", || engine.processes().is_empty().then_some(()));
}
