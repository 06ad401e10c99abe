// SPDX-License-Identifier: Apache-2.0
//! What people do to a container that is there: another name, a restart, a
//! wait for this or that.

use serde_json::Value;

use crate::support::{engine::with_busybox, until};

const WAITER: &str = "trap 'exit 9' USR1; trap 'exit 15' TERM; echo up; while :; do sleep 0.05; done";

#[test]
fn a_container_has_its_new_name_everywhere() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "old", "busybox", "sh", "-c", WAITER]).ok();
    engine.berth(&["create", "--name", "taken", "busybox"]).ok();
    assert_eq!(engine.berth(&["rename", "old", "new"]).ok().stdout, "");
    assert_eq!(engine.inspect("new")["Name"], "/new");
    engine.berth(&["inspect", "old"]).exits(1);

    let refused = engine.berth(&["rename", "new", "taken"]).exits(1);
    refused.complains(&["The container name \"/taken\" is already in use"]);
    engine.berth(&["rename", "new", "new"]).exits(1).complains(&["same name as its current name"]);
    engine.berth(&["rename", "new", "a b"]).exits(1).complains(&["Invalid container name (a b)"]);
    engine.berth(&["rename", "new", ""]).exits(1).complains(&["names may be empty"]);

    // The old one is free, and what happens later has the new one.
    engine.berth(&["create", "--name", "old", "busybox"]).ok();
    engine.berth(&["stop", "new"]).ok();
    let flags = ["events", "--since", "1h", "--until", "0s", "--filter", "container=new", "--format", "json"];
    let said = engine.berth(&flags).ok().stdout;
    let events: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |action: &str| {
        let found = events.iter().find(|event| event["Action"] == action);
        found.unwrap_or_else(|| panic!("no {action} in {said}"))["Actor"]["Attributes"].clone()
    };
    assert_eq!(of("rename")["oldName"], "/old");
    assert_eq!((&of("die")["name"], &of("stop")["name"]), (&"new".into(), &"new".into()));
}

#[test]
fn restart_stops_and_starts() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "ever", "busybox", "sh", "-c", WAITER]).ok();
    engine.wait_log("ever", "up");
    let pid = || engine.inspect("ever")["State"]["Pid"].as_i64().expect("a pid");
    let before = pid();
    assert_eq!(engine.berth(&["restart", "-s", "USR1", "ever"]).ok().line(), "ever");
    assert!(engine.status("ever") == "running" && pid() != before && pid() > 0);
    until("two starts in the log", || {
        (engine.berth(&["logs", "ever"]).ok().stdout == "up\nup\n").then_some(())
    });
    let flags = ["events", "--since", "1h", "--until", "0s", "--filter", "container=ever"];
    let said = engine.berth(&[&flags[..], &["--format", "{{.Action}}"]].concat()).ok().stdout;
    let said: Vec<_> = said.lines().collect();
    assert_eq!(said, ["create", "start", "die", "stop", "start", "restart"]);

    // A paused one, and one that has ended.
    engine.berth(&["pause", "ever"]).ok();
    engine.berth(&["restart", "-t", "60", "ever"]).ok();
    assert_eq!(engine.status("ever"), "running");
    engine.berth(&["kill", "ever"]).ok();
    engine.wait("ever");
    engine.berth(&["restart", "ever"]).ok();
    assert_eq!(engine.status("ever"), "running");
    engine.berth(&["restart", "missing"]).exits(1).complains(&["No such container: missing"]);
}

#[test]
fn restart_keeps_what_rm_would_remove() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--rm", "--name", "kept", "busybox", "sh", "-c", WAITER]).ok();
    engine.wait_log("kept", "up");
    engine.berth(&["restart", "kept"]).ok();
    assert_eq!(engine.status("kept"), "running");
    engine.berth(&["stop", "kept"]).ok();
    until("it to be gone", || engine.berth(&["ps", "-aq"]).ok().line().is_empty().then_some(()));
}

#[test]
fn wait_has_conditions() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "--name", "one", "busybox", "sh", "-c", "exit 4"]).exits(4);
    engine.berth(&["run", "-d", "--name", "two", "busybox", "sh", "-c", WAITER]).ok();
    engine.wait_log("two", "up");
    let mut next = engine.background(&["wait", "--condition", "next-exit", "one"]);
    let mut removed = engine.background(&["wait", "--condition=removed", "one", "two"]);
    // It waits for the next end, although there was one: only a start brings it.
    until("somebody to wait", || {
        engine.berth(&["start", "one"]).ok();
        engine.wait("one");
        next.child.try_wait().expect("wait").map(drop)
    });
    assert_eq!((next.wait(), next.output().as_str()), (0, "4\n"));
    engine.berth(&["kill", "-s", "USR1", "two"]).ok();
    engine.wait("two");
    assert!(removed.child.try_wait().expect("wait").is_none(), "an end isn't enough");
    engine.berth(&["rm", "one", "two"]).ok();
    assert_eq!((removed.wait(), removed.output().as_str()), (0, "4\n9\n"));
    engine.berth(&["wait", "--condition", "later", "two"]).exits(125);
}

#[test]
fn port_knows_of_none_yet() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["create", "--name", "pp", "busybox"]).ok();
    assert_eq!(engine.berth(&["port", "pp"]).ok().stdout, "");
    engine.berth(&["port", "pp", "80"]).exits(1).complains(&["no public port '80/tcp' published for pp"]);
    engine.berth(&["port", "missing"]).exits(1).complains(&["No such container: missing"]);
}

/// A file of the container's cgroup, of whichever version.
fn limit(engine: &crate::support::Engine, container: &str, files: [&str; 2]) -> String {
    let pid = engine.inspect(container)["State"]["Pid"].as_i64().expect("a pid");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroups");
    let found = groups.lines().find_map(|line| {
        let [_, controllers, path] = line.splitn(3, ':').collect::<Vec<_>>()[..] else { return None };
        let first = controllers.split(',').map(|name| format!("/sys/fs/cgroup/{name}{path}/{}", files[0]));
        let mut all = first.chain([format!("/sys/fs/cgroup{path}/{}", files[1])]);
        all.find_map(|file| std::fs::read_to_string(file).ok())
    });
    found.unwrap_or_else(|| panic!("none of {files:?} in {groups}")).trim().to_owned()
}

#[test]
fn update_changes_what_runs_and_what_starts_next() {
    let Some(engine) = with_busybox() else { return };
    engine
        .berth(&["run", "-d", "--name", "grow", "-m", "32m", "--label", "a=1", "busybox", "sh", "-c", WAITER])
        .ok();
    engine.wait_log("grow", "up");
    let memory = || limit(&engine, "grow", ["memory.limit_in_bytes", "memory.max"]);
    let pids = || limit(&engine, "grow", ["pids.max", "pids.max"]);
    assert_eq!(memory(), "33554432");
    let flags = ["update", "-m", "64m", "--pids-limit", "20", "--cpus", "0.5"];
    let labels = ["--label-add", "b=2", "--label-rm", "a", "grow"];
    assert_eq!(engine.berth(&[&flags[..], &labels].concat()).ok().line(), "grow");
    let check = || {
        assert_eq!((memory(), pids()), ("67108864".to_owned(), "20".to_owned()));
        let quota = limit(&engine, "grow", ["cpu.cfs_quota_us", "cpu.max"]);
        assert!(quota == "50000" || quota == "50000 100000", "{quota}");
    };
    check();
    let seen = engine.inspect("grow");
    assert_eq!(
        (&seen["HostConfig"]["Memory"], &seen["HostConfig"]["PidsLimit"]),
        (&67_108_864.into(), &20.into())
    );
    let names = |filter| engine.berth(&["ps", "--filter", filter, "--format", "{{.Names}}"]).ok().stdout;
    assert_eq!((names("label=b=2").as_str(), names("label=a").as_str()), ("grow\n", ""));

    // All or nothing.
    let refused = engine.berth(&["update", "--pids-limit", "7", "--cpuset-cpus", "4000", "grow"]).exits(1);
    refused.complains(&["Cannot update container grow", "cpu"]);
    assert_eq!(pids(), "20");
    assert_eq!(engine.inspect("grow")["HostConfig"]["PidsLimit"], 20);

    engine.berth(&["restart", "grow"]).ok();
    check();
    engine.berth(&["update", "-m", "0", "--pids-limit", "-1", "grow"]).ok();
    assert_eq!(pids(), "max");
    assert_ne!(memory(), "67108864");

    engine.berth(&["stop", "grow"]).ok();
    engine.berth(&["update", "--pids-limit", "30", "grow"]).ok();
    engine.berth(&["start", "grow"]).ok();
    assert_eq!(pids(), "30");
    engine.berth(&["update", "grow"]).exits(1).complains(&["one or more flags"]);
    engine.berth(&["update", "-m", "1", "grow"]).exits(1).complains(&["6MB"]);
    engine.berth(&["update", "-m", "32m", "missing"]).exits(1).complains(&["No such container: missing"]);
}

#[test]
fn diff_tells_what_was_added_changed_and_deleted() {
    let Some(engine) = with_busybox() else { return };
    let script = "mkdir /new && echo x >/new/file && rm /bin/vi && echo up; sleep 1000";
    engine.berth(&["run", "-d", "--name", "changer", "busybox", "sh", "-c", script]).ok();
    engine.wait_log("changer", "up");
    let seen = engine.berth(&["diff", "changer"]).ok().stdout;
    let seen: Vec<_> = seen.lines().collect();
    for line in ["C /bin", "D /bin/vi", "A /new", "A /new/file"] {
        assert!(seen.contains(&line), "{line} in {seen:?}");
    }
    let at = |line: &str| seen.iter().position(|seen| *seen == line);
    assert!(at("C /bin") < at("D /bin/vi") && at("A /new") < at("A /new/file"), "{seen:?}");
    assert!(!seen.iter().any(|line| line.ends_with("/etc/hosts")), "ours isn't the container's: {seen:?}");
    engine.berth(&["create", "--name", "untouched", "busybox"]).ok();
    assert_eq!(engine.berth(&["diff", "untouched"]).ok().stdout, "");
    engine.berth(&["diff", "missing"]).exits(1).complains(&["No such container: missing"]);
}

#[test]
fn prune_removes_what_does_not_run() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "running", "busybox", "sleep", "1000"]).ok();
    engine.berth(&["run", "--name", "done", "busybox", "sh", "-c", "echo 12345 >/file"]).ok();
    engine.berth(&["create", "--name", "made", "busybox"]).ok();
    engine.berth(&["create", "--name", "kept", "--label", "keep", "busybox"]).ok();
    let names = || engine.berth(&["ps", "-a", "--format", "{{.Names}}"]).ok().stdout;
    let prune = |args: &[&str]| engine.berth(&[&["container", "prune", "-f"], args].concat()).ok().stdout;

    assert_eq!(prune(&["--filter", "until=1h"]), "Total reclaimed space: 0B\n");
    assert_eq!(names(), "kept\nmade\ndone\nrunning\n");
    let done = engine.inspect("done")["Id"].as_str().expect("an id").to_owned();
    let said = prune(&["--filter", "label!=keep"]);
    assert!(said.starts_with("Deleted Containers:\n") && said.contains(&done), "{said}");
    assert!(said.ends_with("\n\nTotal reclaimed space: 6B\n"), "{said}");
    assert_eq!(names(), "kept\nrunning\n");
    // Asked first: only a yes counts.
    engine.berth_with_input(&["container", "prune"], b"n\n").ok();
    assert_eq!(names(), "kept\nrunning\n");
    engine.berth_with_input(&["container", "prune", "--filter", "label=keep"], b"y\n").ok();
    assert_eq!(names(), "running\n");
}
