// SPDX-License-Identifier: Apache-2.0
//! A container's life: created, started, stopped, killed, waited for, removed.

use std::time::Instant;

use serde_json::Value;

use crate::support::{engine::with_busybox, until};

/// Ends with 9 on USR1, says when it is ready for it.
const WAITER: &str = "trap 'exit 9' USR1; trap 'exit 15' TERM; echo up; while :; do sleep 0.05; done";
/// Doesn't care about SIGTERM.
const STUBBORN: &str = "trap '' TERM; echo up; while :; do sleep 0.05; done";

#[test]
fn step_by_step_from_create_to_rm() {
    let Some(engine) = with_busybox() else { return };
    let id = engine.berth(&["create", "--name", "steps", "busybox", "sh", "-c", "echo out; exit 4"]).ok();
    let id = id.line();
    assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    assert_eq!(engine.status("steps"), "created");

    assert_eq!(engine.berth(&["start", "steps"]).ok().line(), "steps");
    assert_eq!(engine.berth(&["wait", "steps"]).ok().line(), "4");
    assert_eq!(engine.status(&id[..12]), "exited");
    assert_eq!(engine.berth(&["logs", "steps"]).ok().stdout, "out\n");

    // An exited container starts again, with what it has written.
    assert_eq!(engine.berth(&["start", "--attach", "steps"]).exits(4).stdout, "out\n");
    assert_eq!(engine.berth(&["logs", "steps"]).ok().stdout, "out\nout\n");

    assert_eq!(engine.berth(&["rm", "steps"]).ok().line(), "steps");
    engine.berth(&["inspect", "steps"]).exits(1).complains(&["No such", "steps"]);
}

#[test]
fn a_files_changes_stay_until_the_container_goes() {
    let Some(engine) = with_busybox() else { return };
    engine
        .berth(&[
            "run",
            "--name",
            "writer",
            "busybox",
            "sh",
            "-c",
            "cat /tmp/n 2>/dev/null; echo again >>/tmp/n",
        ])
        .ok();
    assert_eq!(engine.berth(&["start", "-a", "writer"]).ok().stdout, "again\n");
    // Another container of the image has none of it.
    engine.berth(&["run", "--rm", "busybox", "test", "!", "-e", "/tmp/n"]).ok();
}

#[test]
fn stop_asks_first_and_kills_after_its_time() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "polite", "busybox", "sh", "-c", WAITER]).ok();
    engine.wait_log("polite", "up");
    assert_eq!(engine.berth(&["stop", "polite"]).ok().line(), "polite");
    assert_eq!(engine.inspect("polite")["State"]["ExitCode"], 15);

    engine.berth(&["run", "-d", "--name", "stubborn", "busybox", "sh", "-c", STUBBORN]).ok();
    engine.wait_log("stubborn", "up");
    let start = Instant::now();
    engine.berth(&["stop", "-t", "1", "stubborn"]).ok();
    assert!(start.elapsed().as_millis() >= 1000, "it had a second");
    assert_eq!(engine.inspect("stubborn")["State"]["ExitCode"], 137);

    // Stopping what has stopped is no error.
    engine.berth(&["stop", "stubborn"]).ok();
}

#[test]
fn the_images_stop_signal_is_what_stop_sends() {
    let Some(engine) = with_busybox() else { return };
    engine
        .berth(&["run", "-d", "--name", "usr1", "--stop-signal", "USR1", "busybox", "sh", "-c", WAITER])
        .ok();
    engine.wait_log("usr1", "up");
    engine.berth(&["stop", "usr1"]).ok();
    assert_eq!(engine.inspect("usr1")["State"]["ExitCode"], 9);
}

#[test]
fn kill_sends_any_signal_and_kills_by_default() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "usr1", "busybox", "sh", "-c", WAITER]).ok();
    engine.wait_log("usr1", "up");
    assert_eq!(engine.berth(&["kill", "-s", "SIGUSR1", "usr1"]).ok().line(), "usr1");
    assert_eq!(engine.wait("usr1"), 9);

    engine.berth(&["run", "-d", "--name", "killed", "busybox", "sleep", "1000"]).ok();
    engine.berth(&["kill", "killed"]).ok();
    assert_eq!(engine.wait("killed"), 137);
    engine.berth(&["kill", "killed"]).exits(1).complains(&["is not running"]);

    engine.berth(&["kill", "-s", "NOSUCH", "usr1"]).exits(1).complains(&["NOSUCH"]);
}

#[test]
fn several_are_waited_for_in_their_order() {
    let Some(engine) = with_busybox() else { return };
    for (name, code) in [("w3", "3"), ("w5", "5")] {
        engine.berth(&["run", "-d", "--name", name, "busybox", "sh", "-c", &format!("exit {code}")]).ok();
    }
    assert_eq!(engine.berth(&["wait", "w3", "w5"]).ok().stdout, "3\n5\n");
}

#[test]
fn wait_hears_of_an_exit_that_is_yet_to_come() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "later", "busybox", "sh", "-c", WAITER]).ok();
    engine.wait_log("later", "up");
    let mut waiting = engine.background(&["wait", "later"]);
    engine.berth(&["kill", "-s", "USR1", "later"]).ok();
    waiting.expect("9\n");
    assert_eq!(waiting.wait(), 0);
}

#[test]
fn rm_wants_force_for_what_runs() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "busy", "busybox", "sleep", "1000"]).ok();
    let refused = engine.berth(&["rm", "busy"]).exits(1);
    assert!(refused.stderr.contains("running") && refused.stderr.contains("force"), "{}", refused.stderr);
    assert_eq!(engine.status("busy"), "running");
    engine.berth(&["rm", "-f", "busy"]).ok();
    assert_eq!(engine.berth(&["ps", "-aq"]).ok().line(), "");
    until("its processes to be gone", || {
        let engine_only = engine.processes().is_empty();
        engine_only.then_some(())
    });
}

#[test]
fn rm_goes_on_after_an_unknown_one() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["create", "--name", "known", "busybox"]).ok();
    let said = engine.berth(&["rm", "unknown", "known"]).exits(1).complains(&["No such container: unknown"]);
    assert_eq!(said.line(), "known");
}

#[test]
fn a_container_with_rm_is_gone_when_it_ends() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "--rm", "busybox", "true"]).ok();
    assert_eq!(engine.berth(&["ps", "-aq"]).ok().line(), "", "in the foreground");
    engine.berth(&["run", "-d", "--rm", "--name", "brief", "busybox", "sh", "-c", WAITER]).ok();
    engine.wait_log("brief", "up");
    engine.berth(&["kill", "-s", "USR1", "brief"]).ok();
    until("the container to be gone", || engine.berth(&["ps", "-aq"]).ok().line().is_empty().then_some(()));
}

#[test]
fn ps_filters_and_formats() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["create", "--name", "alpha", "--label", "tier=web", "busybox"]).ok();
    engine.berth(&["run", "--name", "beta", "--label", "tier=db", "busybox", "sh", "-c", "exit 2"]).exits(2);
    engine.berth(&["run", "-d", "--name", "gamma", "busybox", "sleep", "1000"]).ok();

    let names = |filters: &[&str]| {
        let mut args = vec!["ps", "-a", "--format", "{{.Names}}"];
        args.extend(filters.iter().flat_map(|f| ["--filter", *f]));
        engine.berth(&args).ok().stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["gamma", "beta", "alpha"]);
    assert_eq!(names(&["name=a$"]), ["gamma", "beta", "alpha"]);
    assert_eq!(names(&["name=^al"]), ["alpha"]);
    assert_eq!(names(&["status=exited"]), ["beta"]);
    assert_eq!(names(&["status=exited", "status=created"]), ["beta", "alpha"]);
    assert_eq!(names(&["exited=2"]), ["beta"]);
    assert_eq!(names(&["label=tier"]), ["beta", "alpha"]);
    assert_eq!(names(&["label=tier=web"]), ["alpha"]);
    assert_eq!(names(&["label=tier", "status=created"]), ["alpha"]);
    assert_eq!(names(&["ancestor=busybox", "since=alpha"]), ["gamma", "beta"]);
    assert_eq!(names(&["before=beta"]), ["alpha"]);
    engine.berth(&["ps", "--filter", "colour=red"]).exits(1).complains(&["colour"]);

    assert_eq!(engine.berth(&["ps", "-q"]).ok().line().len(), 12);
    assert_eq!(engine.berth(&["ps", "-q", "--no-trunc"]).ok().line().len(), 64);
    assert_eq!(engine.berth(&["ps", "-n", "2", "--format", "{{.Names}}"]).ok().stdout, "gamma\nbeta\n");
    assert_eq!(engine.berth(&["ps", "-l", "--format", "{{.Names}}"]).ok().stdout, "gamma\n");
    let json = engine.berth(&["ps", "-a", "--format", "json"]).ok().stdout;
    let states: Vec<_> = json
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).expect("JSON")["State"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(states, ["running", "exited", "created"].map(|s| Some(s.to_owned())));
    let table = engine.berth(&["ps", "-a", "--format", "table {{.Names}}\t{{.Image}}"]).ok().stdout;
    let rows: Vec<Vec<_>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!((&rows[0][..], &rows[1][..]), (&["NAMES", "IMAGE"][..], &["gamma", "busybox"][..]));
}

#[test]
fn an_id_may_be_shortened() {
    let Some(engine) = with_busybox() else { return };
    let id = engine.berth(&["create", "busybox"]).ok().line().to_owned();
    for length in [64, 20, 12, 6] {
        assert_eq!(engine.inspect(&id[..length])["Id"], id);
    }
}

#[test]
fn namespaces_do_not_see_each_other() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["create", "--name", "same", "busybox"]).ok();
    let archive = crate::support::Image::busybox().oci_archive("docker.io/library/busybox:latest");
    engine.berth_with_input(&["--namespace", "other", "load"], &archive).ok();
    assert_eq!(engine.berth(&["--namespace", "other", "ps", "-aq"]).ok().line(), "");
    let created = engine.berth(&["--namespace", "other", "create", "--name", "same", "busybox"]).ok();
    engine.berth(&["inspect", created.line()]).exits(1);
    engine.berth(&["--namespace", "other", "rm", "same"]).ok();
    assert_eq!(engine.status("same"), "created");
}

#[test]
fn twenty_at_once_all_end_as_they_should() {
    let Some(engine) = with_busybox() else { return };
    let engine = &engine;
    std::thread::scope(|scope| {
        for n in 0..20 {
            scope.spawn(move || {
                let script = format!("echo from {n}; exit {n}");
                let said = engine.berth(&["run", "--rm", "busybox", "sh", "-c", &script]).exits(n);
                assert_eq!(said.stdout, format!("from {n}\n"));
            });
        }
    });
    assert_eq!(engine.berth(&["ps", "-aq"]).ok().line(), "");
}
