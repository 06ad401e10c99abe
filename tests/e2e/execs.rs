// SPDX-License-Identifier: Apache-2.0
//! Further processes in a container: what they see, how they end, who can
//! find and end them.

use std::{fs, path::Path};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Engine, command::sh, engine::with_busybox, until};

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

/// What was told of the container `box` and its execs, as "action code", and
/// the events themselves.
fn told(engine: &Engine) -> (Vec<String>, Vec<Value>) {
    let args = ["events", "--since", "0", "--until", "0s", "--filter", "container=box", "--format", "json"];
    let said = engine.berth(&args).ok().stdout;
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let show = |event: &Value| {
        let code = event["Actor"]["Attributes"]["exitCode"].as_str().unwrap_or_default();
        format!("{} {code}", event["Action"].as_str().expect("an action")).trim_end().to_owned()
    };
    (events.iter().map(show).collect(), events)
}

/// A container `box` in which everything waits for a file, and that file.
fn with_gate(command: &str) -> Option<(Engine, std::path::PathBuf)> {
    let engine = with_busybox()?;
    let gate = engine.dir().join("gate");
    fs::create_dir(&gate).expect("mkdir");
    let volume = format!("{}:/gate", gate.display());
    engine.berth(&["run", "-d", "--name", "box", "-v", &volume, "busybox", "sh", "-c", command]).ok();
    Some((engine, gate.join("open")))
}

const AT_THE_GATE: &str = "while [ ! -e /gate/open ]; do sleep 0.02; done; exit";

/// Waits for the ends of processes that their parent reaps.
fn until_gone<'a>(pids: impl IntoIterator<Item = &'a str>) {
    for pid in pids {
        let path = format!("/proc/{pid}");
        until("the process to be gone", || (!Path::new(&path).exists()).then_some(()));
    }
}

#[test]
fn an_end_that_no_engine_saw_is_told_by_the_next_one_and_only_once() {
    let Some((mut engine, gate)) = with_gate("sleep 1000") else { return };
    engine.berth(&["exec", "-d", "box", "sh", "-c", &format!("{AT_THE_GATE} 6")]).ok();
    let mut client = engine.background(&["exec", "box", "sh", "-c", &format!("echo up; {AT_THE_GATE} 7")]);
    client.expect("up");
    // One that ends while its engine looks.
    engine.berth(&["exec", "box", "sh", "-c", "exit 5"]).exits(5);
    until("that to be told", || told(&engine).0.contains(&"exec_die 5".to_owned()).then_some(()));
    let pids = engine.berth(&["exec", "ls", "--format", "{{.PID}}"]).ok().stdout;
    engine.kill9();
    client.wait();
    fs::write(&gate, "").expect("open the gate");
    until_gone(pids.lines());
    engine.fsck(&[]).ok();
    let before = sh("date", &["-u", "+%Y-%m-%dT%H:%M:%S"]);
    engine.restart();

    let ends = |actions: &[String]| {
        let mut ends: Vec<_> = actions.iter().filter(|a| a.starts_with("exec_die")).cloned().collect();
        ends.sort();
        ends
    };
    let all = ["exec_die 5", "exec_die 6", "exec_die 7"];
    until("the ends to be told", || (ends(&told(&engine).0).len() >= all.len()).then_some(()));
    // This engine has just told them; the next one finds them told, the one
    // after it as well.
    for _ in 0..2 {
        engine.kill9();
        engine.restart();
        // Listed as soon as it has been taken over.
        until("the execs to be known", || {
            let listed = engine.berth(&["exec", "ls", "-a"]).ok().stdout;
            (listed.contains("Exited (6)") && listed.contains("Exited (7)")).then_some(())
        });
    }
    let (actions, events) = told(&engine);
    assert_eq!(ends(&actions), all, "{actions:?}");
    assert_eq!(actions.iter().filter(|action| *action == "exec_start").count(), 3, "{actions:?}");
    for event in events.iter().filter(|event| event["Action"] == "exec_die") {
        let finished = event["Actor"]["Attributes"]["finishedAt"].as_str().expect("a time");
        assert!(finished.len() > 19 && finished[..19] <= *before.trim(), "{finished}, and then {before}");
    }
}

#[test]
fn ends_come_before_that_of_a_container_that_has_ended_with_them() {
    let Some((mut engine, gate)) = with_gate(&format!("{AT_THE_GATE} 4")) else { return };
    for _ in 0..3 {
        engine.berth(&["exec", "-d", "box", "sleep", "1000"]).ok();
    }
    let init = engine.inspect("box")["State"]["Pid"].to_string();
    engine.kill9();
    fs::write(&gate, "").expect("open the gate");
    until_gone([init.as_str()]);
    engine.restart();
    assert_eq!(engine.wait("box"), 4);
    let ends = ["exec_die 137", "exec_die 137", "exec_die 137", "die 4"];
    let (actions, _) = told(&engine);
    assert!(actions.ends_with(&ends.map(str::to_owned)), "{actions:?}");
}

#[test]
fn many_ends_come_before_that_of_their_container() {
    const MANY: usize = 20;
    let Some(engine) = with_container(&[]) else { return };
    for _ in 0..MANY {
        // Its child holds its output as well, and may end after it.
        engine.berth(&["exec", "-d", "box", "sh", "-c", "sleep 1000; true"]).ok();
    }
    engine.berth(&["kill", "box"]).ok();
    engine.wait("box");
    let (actions, _) = told(&engine);
    // That it was killed is told by whoever did it, at any time.
    let ends: Vec<_> = actions.iter().filter(|action| action.contains("die")).collect();
    let (last, execs) = ends.split_last().expect("ends");
    assert_eq!(*last, "die 137", "{actions:?}");
    assert_eq!(execs, vec!["exec_die 137"; MANY], "{actions:?}");
}

#[test]
fn a_start_that_was_not_told_is_told_before_the_end() {
    let Some((mut engine, gate)) = with_gate("sleep 1000") else { return };
    for code in [8, 9] {
        engine.berth(&["exec", "-d", "box", "sh", "-c", &format!("{AT_THE_GATE} {code}")]).ok();
    }
    until("both to be told", || {
        let (actions, _) = told(&engine);
        (actions.iter().filter(|action| *action == "exec_start").count() == 2).then_some(())
    });
    let pids = engine.berth(&["exec", "ls", "--format", "{{.PID}}"]).ok().stdout;
    engine.kill9();
    // As if it had been killed between the starts and their record.
    let meta = rusqlite::Connection::open(engine.dir().join("root/meta.db")).expect("open");
    assert_eq!(meta.execute("DELETE FROM events WHERE action = 'exec_start'", ()).expect("delete"), 2);
    drop(meta);
    engine.restart();
    until("they to be told again", || {
        let (actions, _) = told(&engine);
        (actions.iter().filter(|action| *action == "exec_start").count() == 2).then_some(())
    });
    engine.kill9();
    fs::write(&gate, "").expect("open the gate");
    until_gone(pids.lines());
    // Neither start nor end.
    let meta = rusqlite::Connection::open(engine.dir().join("root/meta.db")).expect("open");
    assert_eq!(meta.execute("DELETE FROM events WHERE action = 'exec_start'", ()).expect("delete"), 2);
    drop(meta);
    engine.restart();
    until("their ends to be told", || told(&engine).0.contains(&"exec_die 9".to_owned()).then_some(()));
    let (actions, events) = told(&engine);
    let of_execs: Vec<_> = (events.iter().zip(&actions))
        .filter(|(_, action)| action.starts_with("exec_") && *action != "exec_create")
        .map(|(event, action)| (&event["Actor"]["Attributes"]["execID"], action.as_str()))
        .collect();
    assert_eq!(of_execs.len(), 4, "{actions:?}");
    for pair in of_execs.chunks(2) {
        assert_eq!((pair[0].0, pair[0].1), (pair[1].0, "exec_start"), "{actions:?}");
    }
}

#[test]
fn an_end_that_may_have_been_told_and_forgotten_is_not_told_again() {
    let Some(mut engine) = Engine::start_with("[events]\nretain = 3\n") else { return };
    engine.load(&crate::support::Image::busybox(), "busybox");
    engine.berth(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    engine.berth(&["exec", "-d", "box", "sh", "-c", "exit 6"]).ok();
    until("its end to be told", || told(&engine).0.contains(&"exec_die 6".to_owned()).then_some(()));
    for name in ["one", "two", "three"] {
        engine.berth(&["create", "--name", name, "busybox"]).ok();
    }
    for _ in 0..2 {
        engine.kill9();
        engine.restart();
        until("the first events to be forgotten", || told(&engine).0.is_empty().then_some(()));
        until("the exec to be known", || {
            engine.berth(&["exec", "ls", "-a"]).ok().stdout.contains("Exited (6)").then_some(())
        });
    }
    assert_eq!(told(&engine).0, [""; 0]);
    engine.fsck(&[]).ok();
}
