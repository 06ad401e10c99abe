// SPDX-License-Identifier: Apache-2.0
//! `--init`: what process 1 does for a program that isn't made to be it; and
//! the time after which a container is ended, whoever is there to see.

use std::path::Path;

use crate::support::{Engine, engine::with_busybox, until};

/// How many zombies there are in a container.
fn zombies(engine: &Engine, container: &str) -> usize {
    let count = "cat /proc/[0-9]*/status 2>/dev/null | grep -c '^State:.Z'; true";
    let said = engine.berth(&["exec", container, "sh", "-c", count]).ok();
    said.line().parse().expect("a number")
}

#[test]
fn it_hands_on_signals_and_ends_as_the_program_does() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "--rm", "--init", "busybox", "sh", "-c", "exit 42"]).exits(42);
    engine.berth(&["run", "--rm", "--init", "busybox", "sh", "-c", "kill -9 $$"]).exits(137);
    engine.berth(&["run", "--rm", "--init", "busybox", "/none"]).exits(127);
    engine.berth(&["run", "--rm", "--init", "busybox", "/etc"]).exits(126);

    // No handler: process 1 wouldn't get it.
    engine.berth(&["run", "-d", "--name", "sleeper", "--init", "busybox", "sleep", "1000"]).ok();
    engine.berth(&["stop", "-t", "25", "sleeper"]).ok();
    assert_eq!(engine.wait("sleeper"), 143);

    let script = "trap 'exit 9' USR1; trap 'exit 37' 37; echo up; while :; do sleep 0.05; done";
    for (signal, code) in [("USR1", 9), ("37", 37)] {
        let name = format!("trap-{signal}");
        engine.berth(&["run", "-d", "--name", &name, "--init", "busybox", "sh", "-c", script]).ok();
        engine.wait_log(&name, "up");
        engine.berth(&["kill", "-s", signal, &name]).ok();
        assert_eq!(engine.wait(&name), code);
    }
    assert_eq!(engine.inspect("sleeper")["HostConfig"]["Init"], true);
}

#[test]
fn it_reaps_what_is_left_to_it() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "with", "--init", "busybox", "sleep", "1000"]).ok();
    engine.berth(&["run", "-d", "--name", "without", "busybox", "sleep", "1000"]).ok();
    for name in ["with", "without"] {
        engine.berth(&["exec", name, "sh", "-c", "for n in 1 2 3; do sleep 0.2 & done"]).ok();
    }
    until("orphans to be zombies of a program that doesn't reap", || {
        (zombies(&engine, "without") == 3).then_some(())
    });
    until("orphans to be reaped", || {
        let left = engine.berth(&["exec", "with", "sh", "-c", "pidof sleep"]).ok();
        (left.line().split_whitespace().count() == 1 && zombies(&engine, "with") == 0).then_some(())
    });
}

#[test]
fn nothing_of_it_is_the_containers_to_see_or_change() {
    let Some(engine) = with_busybox() else { return };
    let look = "cat /proc/1/comm; tr '\\0' '.' </proc/1/cmdline; echo; cat /proc/1/environ; \
                echo x >/proc/1/exe; ls /proc/1/fd; dd if=/proc/1/mem bs=1 count=1; echo $$";
    let said = engine.berth(&["run", "--rm", "--init", "busybox", "sh", "-c", look]).ok();
    let lines: Vec<_> = said.stdout.lines().collect();
    assert_eq!(lines[0], "berth-init");
    assert_eq!(lines[1].trim_end_matches('.'), "berth-init", "{}", said.stdout);
    assert_eq!(lines[2..], ["0", "1", "2", "2"], "its descriptors and the shell: {}", said.stdout);
    assert_eq!(said.stderr.matches("ermission denied").count(), 3, "{}", said.stderr);

    // With as few rights as there can be.
    let flags = ["--user", "1000:1000", "--read-only", "--cap-drop", "ALL"];
    for more in [&[][..], &["--security-opt", "no-new-privileges"], &["--userns", "auto"]] {
        let args =
            [&["run", "--rm", "--init"][..], &flags, more, &["busybox", "sh", "-c", "exit 6"]].concat();
        let said = engine.berth(&args);
        // Where nobody has given berth ids to hand out.
        if said.stderr.contains("/etc/subuid") {
            eprintln!("skipped: {}", said.stderr);
            continue;
        }
        said.exits(6);
    }
}

#[test]
fn what_is_typed_comes_once_to_whoever_is_in_the_foreground() {
    let Some(engine) = with_busybox() else { return };
    let mut terminal = engine.terminal(&["run", "-it", "--rm", "--init", "busybox", "sh"]);
    terminal.expect("# ");
    terminal.send("n=0; trap 'n=$((n+1))' INT; sleep 1000\r");
    terminal.expect("sleep 1000\r\n");
    until("the sleep to be in the foreground", || {
        terminal.send("\x03");
        terminal.sees("^C")
    });
    terminal.send("\recho done-$((1+1))\r");
    terminal.expect("done-2");
    terminal.send("exit 4\r");
    assert_eq!(terminal.wait(), 4);
}

#[test]
fn it_goes_on_without_an_engine() {
    let Some(mut engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "c1", "--init", "busybox", "sleep", "1000"]).ok();
    engine.kill9();
    engine.restart();
    engine.berth(&["exec", "c1", "true"]).ok();
    engine.berth(&["stop", "-t", "25", "c1"]).ok();
    assert_eq!(engine.inspect("c1")["State"]["ExitCode"], 143);
}

#[test]
fn a_container_ends_when_its_time_is_over_also_without_an_engine() {
    let Some(mut engine) = with_busybox() else { return };
    engine.berth(&["run", "--name", "short", "--timeout", "1", "busybox", "sleep", "1000"]).exits(137);
    assert_eq!(engine.inspect("short")["Config"]["Timeout"], 1);
    engine.berth(&["run", "--rm", "--timeout", "100", "busybox", "sh", "-c", "exit 3"]).exits(3);

    engine.berth(&["run", "-d", "--name", "alone", "--timeout", "3", "busybox", "sleep", "1000"]).ok();
    let pid = engine.inspect("alone")["State"]["Pid"].as_i64().expect("a pid");
    assert!(pid > 0, "it ran when the engine died");
    engine.kill9();
    until("the shim to end it", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    engine.restart();
    assert_eq!(engine.wait("alone"), 137);
}

#[test]
fn bind_mounts_are_read_only_as_far_as_they_are_asked_to_be() {
    let Some(engine) = with_busybox() else { return };
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    if !mounts.lines().any(|line| line.split(' ').nth(1) == Some("/dev/shm")) {
        eprintln!("skipped: /dev/shm is no mount of its own here");
        return;
    }
    let name = format!("berth-e2e-{}", std::process::id());
    let host = Path::new("/dev/shm").join(&name);
    let touch = format!("touch /host/shm/{name}");
    let run = |flags: &[&str]| {
        let args = [&["run", "--rm"][..], flags, &["busybox", "sh", "-c", &touch]].concat();
        engine.berth(&args)
    };
    let mount = |more: &str| format!("type=bind,src=/dev,dst=/host,ro{more}");
    let refused = run(&["-v", "/dev:/host:ro"]).exits(1);
    assert!(refused.stderr.contains("Read-only file system"), "{}", refused.stderr);
    let forced = mount(",bind-propagation=rprivate,bind-recursive=readonly");
    run(&["--mount", &forced]).exits(1);
    assert!(!host.exists());
    let disabled = run(&["--mount", &mount(",bind-recursive=disabled")]).exits(1);
    assert!(disabled.stderr.contains("Read-only file system") || disabled.stderr.contains("No such file"));
    let done = run(&["--mount", &mount(",bind-recursive=writable")]);
    let made = host.exists();
    if made {
        std::fs::remove_file(&host).expect("remove what the container has made");
    }
    done.ok();
    assert!(made);
}

#[test]
fn annotations_are_for_the_runtime() {
    let Some(engine) = with_busybox() else { return };
    let flags = ["--annotation", "org.example.a=b c", "--annotation", "empty="];
    engine
        .berth(&[&["run", "-d", "--name", "noted"][..], &flags, &["busybox", "sleep", "1000"]].concat())
        .ok();
    let inspect = engine.inspect("noted");
    assert_eq!(inspect["HostConfig"]["Annotations"]["org.example.a"], "b c");
    let config = Path::new(inspect["BundlePath"].as_str().expect("a path")).join("config.json");
    let config: serde_json::Value =
        serde_json::from_slice(&std::fs::read(config).expect("config.json")).expect("JSON");
    assert_eq!(config["annotations"]["org.example.a"], "b c");
    assert_eq!(config["annotations"]["empty"], "");
    let refused = engine.berth(&["create", "--annotation", "a", "busybox"]);
    assert_eq!(refused.code, 125, "{}", refused.stderr);
}
