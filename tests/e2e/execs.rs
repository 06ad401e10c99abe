// SPDX-License-Identifier: Apache-2.0
//! Further processes in a container: what they see, how they end, who can
//! find and end them.

use nix::sys::signal::Signal;

use crate::support::{Engine, engine::with_busybox, until};

/// An engine with a container `box` that goes on until it is killed.
fn with_container(args: &[&str]) -> Option<Engine> {
    let engine = with_busybox()?;
    let mut all = vec!["run", "-d", "--name", "box"];
    all.extend(args);
    all.extend(["busybox", "sleep", "1000"]);
    engine.berth(&all).ok();
    Some(engine)
}

#[test]
fn streams_and_exit_codes_are_the_commands_own() {
    let Some(engine) = with_container(&[]) else { return };
    let ran = engine.berth(&["exec", "box", "sh", "-c", "echo out; echo err >&2; exit 7"]).exits(7);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    engine.berth(&["exec", "box", "sh", "-c", "kill -9 $$"]).exits(137);
    let piped = engine.berth_with_input(&["exec", "-i", "box", "cat"], b"through\nand through").ok();
    assert_eq!(piped.stdout, "through\nand through");
    // Without -i there is nothing to read.
    assert_eq!(engine.berth_with_input(&["exec", "box", "cat"], b"nothing").ok().stdout, "");
    let all: String = (1..=40_000).map(|n| format!("{n}\n")).collect();
    assert!(engine.berth(&["exec", "box", "seq", "1", "40000"]).ok().stdout == all);
}

#[test]
fn what_cannot_be_executed_has_a_shells_exit_code() {
    let Some(engine) = with_container(&[]) else { return };
    engine.berth(&["exec", "box", "nothing-like-it"]).exits(127).complains(&[
        "OCI runtime exec failed: exec failed: unable to start container process",
        "exec: \"nothing-like-it\": executable file not found in $PATH",
    ]);
    engine.berth(&["exec", "box", "/etc"]).exits(126).complains(&["permission denied"]);
    engine.berth(&["exec", "box"]).exits(1).complains(&["requires a container and a command"]);
    engine.berth(&["exec", "nobody", "true"]).exits(1).complains(&["No such container: nobody"]);
    engine.berth(&["exec", "-w", "tmp", "box", "true"]).exits(1).complains(&["Cwd must be an absolute path"]);
    engine.berth(&["exec", "-u", "nobody-here", "box", "true"]).exits(1).complains(&["nobody-here"]);
    engine.berth(&["kill", "box"]).ok();
    engine.wait("box");
    engine.berth(&["exec", "box", "true"]).exits(1).complains(&["is not running"]);
}

#[test]
fn it_is_in_the_container_with_what_was_asked_for() {
    let Some(engine) = with_container(&["-e", "FROM=container", "--hostname", "inside", "-w", "/tmp"]) else {
        return;
    };
    let line = |args: &[&str]| {
        let mut all = vec!["exec"];
        all.extend(args);
        engine.berth(&all).ok().stdout.trim_end().to_owned()
    };
    assert_eq!(line(&["box", "hostname"]), "inside");
    assert_eq!(line(&["box", "pwd"]), "/tmp");
    assert_eq!(line(&["-w", "/etc", "box", "pwd"]), "/etc");
    assert_eq!(line(&["box", "sh", "-c", "echo $FROM"]), "container");
    assert_eq!(line(&["-e", "FROM=exec", "-e", "X=1", "box", "sh", "-c", "echo $FROM $X"]), "exec 1");
    assert_eq!(line(&["-u", "1234:5678", "box", "sh", "-c", "id -u; id -g"]), "1234\n5678");
    assert_eq!(line(&["box", "cat", "/proc/1/comm"]), "sleep");
    let caps = |args: &[&str]| {
        let mut all = args.to_vec();
        all.extend(["box", "grep", "-E", "CapBnd|Seccomp:", "/proc/self/status"]);
        line(&all)
    };
    let (usual, privileged) = (caps(&[]), caps(&["--privileged"]));
    assert!(usual.contains("00000000a80425fb") && usual.contains("Seccomp:\t2"), "{usual}");
    assert_ne!(usual, privileged);
    let file = engine.dir().join("env");
    std::fs::write(&file, "# a comment\nY=from file\n").expect("write");
    assert_eq!(
        line(&["--env-file", file.to_str().expect("text"), "box", "sh", "-c", "echo $Y"]),
        "from file"
    );
}

#[test]
fn a_terminal_and_its_size() {
    let Some(engine) = with_container(&[]) else { return };
    let mut terminal = engine.terminal(&["exec", "-it", "box", "sh"]);
    terminal.expect("# ");
    terminal.send("tty; echo is=$?\r");
    terminal.expect("is=0");
    terminal.send("exit 9\r");
    assert_eq!(terminal.wait(), 9);
    // Leaving it is not ending it.
    let mut terminal = engine.terminal(&["exec", "-it", "box", "sh"]);
    terminal.expect("# ");
    terminal.send("\x10\x11");
    assert_eq!(terminal.wait(), 0);
    assert_eq!(engine.berth(&["exec", "ls", "-q"]).ok().stdout.lines().count(), 1);
}

#[test]
fn they_are_listed_and_killed_one_by_one() {
    let Some(engine) = with_container(&[]) else { return };
    assert_eq!(engine.berth(&["exec", "-d", "box", "sleep", "2000"]).ok().stdout, "");
    let other = engine.background(&["exec", "box", "sh", "-c", "echo up; sleep 3000; true"]);
    other.expect("up");
    let table = engine.berth(&["exec", "ls"]).ok().stdout;
    assert!(table.starts_with("EXEC ID") && table.contains("\"sleep 2000\""), "{table}");
    let ids = engine.berth(&["exec", "ls", "-q", "box"]).ok().stdout;
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    let mut other = other;
    for id in &ids {
        engine.berth(&["exec", "kill", id]).ok();
    }
    assert_eq!(other.wait(), 137);
    until("both have ended", || engine.berth(&["exec", "ls", "-q"]).ok().stdout.is_empty().then_some(()));
    // Also what the shell had started.
    until("only the first process is left", || {
        let processes = engine.berth(&["exec", "box", "ps"]).ok().stdout;
        let gone = !processes.contains("sleep 2000") && !processes.contains("sleep 3000");
        gone.then_some(())
    });
    engine.berth(&["exec", "kill", "ffff"]).exits(1).complains(&["No such exec instance: ffff"]);
    engine.berth(&["exec", "kill", "-s", "NOPE", ids[0]]).exits(1).complains(&["NOPE"]);
    assert_eq!(engine.status("box"), "running");
    // The detached one is still told of, with how it ended.
    let ended = engine.berth(&["exec", "ls", "-a"]).ok().stdout;
    assert!(ended.contains("Exited (137)"), "{ended}");
}

#[test]
fn signals_reach_the_process_through_its_client() {
    let Some(engine) = with_container(&[]) else { return };
    let script = "trap 'echo got; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let mut client = engine.background(&["exec", "box", "sh", "-c", script]);
    client.expect("up");
    client.signal(Signal::SIGTERM);
    client.expect("got");
    assert_eq!(client.wait(), 3);
}

#[test]
fn a_client_that_goes_takes_it_along_only_when_asked_to() {
    let Some(engine) = with_container(&[]) else { return };
    for (flags, left) in [(&["--kill-on-disconnect"][..], 0), (&[][..], 1)] {
        let mut args = vec!["exec"];
        args.extend(flags);
        args.extend(["box", "sh", "-c", "echo up; sleep 3000"]);
        let mut client = engine.background(&args);
        client.expect("up");
        client.signal(Signal::SIGKILL);
        client.wait();
        until("as asked", || {
            let running = engine.berth(&["exec", "ls", "-q"]).ok().stdout;
            (running.lines().count() == left).then_some(())
        });
    }
}

#[test]
fn a_background_process_keeps_nobody_waiting() {
    let Some(engine) = with_container(&[]) else { return };
    let ran = engine.berth(&["exec", "box", "sh", "-c", "sleep 3000 & echo started"]).ok();
    assert_eq!(ran.stdout, "started\n");
}

#[test]
fn an_engine_that_was_killed_finds_them_again() {
    let Some(mut engine) = with_container(&[]) else { return };
    engine
        .berth(&["exec", "-d", "box", "sh", "-c", "while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 6"])
        .ok();
    let before = engine.berth(&["exec", "ls", "-q"]).ok().stdout;
    engine.kill9();
    engine.restart();
    assert_eq!(engine.berth(&["exec", "ls", "-q"]).ok().stdout, before);
    engine.berth(&["exec", "box", "touch", "/tmp/end"]).ok();
    until("it has ended", || {
        let listed = engine.berth(&["exec", "ls", "-a"]).ok().stdout;
        listed.contains("Exited (6)").then_some(())
    });
    let events =
        engine.berth(&["events", "--since", "0", "--until", "0s", "--filter", "event=exec_die"]).ok();
    assert!(events.stdout.contains("exitCode=6"), "{}", events.stdout);
}
