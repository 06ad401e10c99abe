// SPDX-License-Identifier: Apache-2.0
//! What containers use: counted by the kernel, shown as Docker does.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{Engine, engine::with_busybox, leaks::send};

fn lines(engine: &Engine, args: &[&str]) -> Vec<Value> {
    let said = engine.berth(&[&["stats", "--no-stream", "--format", "json"], args].concat()).ok();
    said.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn number(value: &Value) -> f64 {
    value.as_str().expect("text").trim_end_matches('%').parse().expect("a number")
}

#[test]
fn stats_count_what_each_container_uses() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "busy", "busybox", "sh", "-c", "while :; do :; done"]).ok();
    let script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=20; echo up; sleep 1000 & wait";
    let idle = ["run", "-d", "--name", "idle", "-m", "64m", "busybox", "sh", "-c", script];
    engine.berth(&idle).ok();
    engine.wait_log("idle", "up");
    engine.berth(&["create", "--name", "still", "busybox"]).ok();

    let seen = lines(&engine, &[]);
    let names: Vec<_> = seen.iter().map(|line| line["Name"].as_str().expect("a name")).collect();
    assert_eq!(names, ["idle", "busy"], "those that run");
    let (idle, busy) = (&seen[0], &seen[1]);
    assert!(number(&busy["CPUPerc"]) > 20.0 && number(&idle["CPUPerc"]) < 20.0, "{busy} {idle}");
    let memory = idle["MemUsage"].as_str().expect("text");
    assert!(memory.ends_with("MiB / 64MiB") && number(&idle["MemPerc"]) > 30.0, "{idle}");
    assert!(!busy["MemUsage"].as_str().expect("text").ends_with("64MiB"), "the host's: {busy}");
    assert_eq!((&idle["PIDs"], &busy["PIDs"]), (&"2".into(), &"1".into()));
    assert_eq!(idle["NetIO"], "0B / 0B");

    let named = lines(&engine, &["still", "id"].map(|name| if name == "id" { "busy" } else { name }));
    assert_eq!((&named[0]["Container"], &named[1]["Container"]), (&"still".into(), &"busy".into()));
    assert_eq!((&named[0]["CPUPerc"], &named[0]["MemUsage"]), (&"0.00%".into(), &"0B / 0B".into()));
    assert_eq!(lines(&engine, &["-a"]).len(), 3);
    engine.berth(&["stats", "--no-stream", "missing"]).exits(1).complains(&["No such container: missing"]);
    let whole = engine.berth(&["stats", "--no-stream", "--no-trunc", "--format", "{{.ID}}", "busy"]).ok();
    assert_eq!(whole.line().len(), 64);
}

#[test]
fn top_shows_the_containers_processes_and_no_others() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "two", "busybox", "sh", "-c", "sleep 1234 & echo up; wait"]).ok();
    engine.berth(&["run", "-d", "--name", "other", "busybox", "sleep", "4321"]).ok();
    engine.wait_log("two", "up");
    let said = engine.berth(&["top", "two"]).ok().stdout;
    let rows: Vec<Vec<_>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    assert_eq!(rows.len(), 3, "{said}");
    let pid = engine.inspect("two")["State"]["Pid"].to_string();
    assert_eq!((rows[1][0], rows[1][1], rows[2][2]), ("root", pid.as_str(), pid.as_str()), "{said}");
    assert!(rows[2].ends_with(&["sleep", "1234"]), "{said}");

    let said = engine.berth(&["container", "top", "two", "-o", "pid,stat,comm"]).ok().stdout;
    assert!(said.starts_with("PID                 STAT                COMMAND\n"), "{said}");
    engine.berth(&["top", "two", "--forest"]).exits(1).complains(&["--forest"]);
    engine.berth(&["kill", "other"]).ok();
    engine.wait("other");
    engine.berth(&["top", "other"]).exits(1).complains(&["is not running"]);
}

#[test]
fn a_live_table_follows_who_comes_and_goes() {
    let Some(engine) = with_busybox() else { return };
    let mut all = engine.background(&["stats", "--format", "{{.Name}} {{.PIDs}}"]);
    engine.berth(&["run", "-d", "--name", "later", "busybox", "sleep", "1000"]).ok();
    all.expect("later 1\nlater 1\n");
    all.child.kill().expect("kill");
    all.wait();
    let mut table = engine.terminal(&["stats"]);
    table.expect("MEM USAGE / LIMIT");
    table.expect("later");
}

#[test]
fn top_of_all_is_sorted_by_use() {
    let Some(engine) = with_busybox() else { return };
    let run = |name: &str, script: &str| {
        engine.berth(&["run", "-d", "--name", name, "busybox", "sh", "-c", script]).ok();
    };
    run("a-idle", "sleep 1000");
    run("b-busy", "while :; do :; done");
    run("c-many", "sleep 999 & sleep 998 & sleep 997 & sleep 1000");
    engine.berth(&["create", "--name", "d-rests", "busybox"]).ok();
    let names = |args: &[&str]| {
        let flags = [&["top", "--no-stream", "--format", "{{.Name}}"], args].concat();
        engine.berth(&flags).ok().stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&[])[0], "b-busy");
    assert_eq!(names(&[]).len(), 3);
    assert_eq!(names(&["--sort", "pids"])[0], "c-many");
    assert_eq!(names(&["--sort", "name", "--all"]), ["a-idle", "b-busy", "c-many", "d-rests"]);
    assert_eq!(names(&["--sort", "memory", "-a"])[3], "d-rests");
    let line = engine.berth(&["top", "--no-stream", "--format", "json"]).ok().stdout;
    let first: Value = serde_json::from_str(line.lines().next().expect("a line")).expect("JSON");
    assert_eq!(first["Name"], "b-busy");
    engine.berth(&["top", "--sort", "size"]).exits(125).complains(&["size"]);
    engine
        .berth(&["top", "--no-stream", "a-idle"])
        .exits(125)
        .complains(&["cannot specify both --no-stream and"]);

    let mut screen = engine.terminal(&["top"]);
    screen.expect("MEM USAGE / LIMIT");
    screen.expect("b-busy");
    run("e-late", "sleep 1000");
    screen.expect("e-late");
}

#[test]
fn a_shim_that_does_not_answer_costs_its_own_line() {
    let Some(engine) = with_busybox() else { return };
    for name in ["stuck", "fine"] {
        engine.berth(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]).ok();
    }
    let shim = engine.shim_pid("stuck");
    send(shim, Signal::SIGSTOP);
    let seen = lines(&engine, &["stuck", "fine"]);
    send(shim, Signal::SIGCONT);
    assert_eq!((&seen[0]["PIDs"], &seen[1]["PIDs"]), (&"--".into(), &"1".into()));
    assert_eq!(seen[0]["MemUsage"], "-- / --");
}
