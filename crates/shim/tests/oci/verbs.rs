// SPDX-License-Identifier: Apache-2.0
//! The verbs that look at a container, or change it while it runs.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::harness::{Host, is_by_user, wait_until};

#[test]
fn pause_stops_and_resume_goes_on() {
    let host = Host::shell("while :; do echo x; sleep 0.02; done");
    let mut command = host.command();
    host.add(&mut command, "run -d --bundle BUNDLE ID");
    let file = host.path("output");
    assert!(command.stdout(fs::File::create(&file).unwrap()).status().unwrap().success());
    let length = || fs::metadata(&file).unwrap().len();
    host.run("pause ID").ok();
    assert_eq!(host.status(), "paused");
    let stopped_at = length();
    // As long as a few lines would take.
    let pid = host.state()["pid"].as_u64().unwrap();
    wait_until("the kernel to say so", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") S") || length() == stopped_at
    });
    assert_eq!(length(), stopped_at);
    host.run("resume ID").ok();
    assert_eq!(host.status(), "running");
    wait_until("more output", || length() > stopped_at);
    host.run("pause ID").ok();
    host.run("delete --force ID").ok();
    host.assert_gone();
}

#[test]
fn ps_shows_the_processes_of_the_container_alone() {
    let host = Host::shell("sleep 77 & sleep 77");
    host.run("run -d --bundle BUNDLE ID").ok();
    let count = || serde_json::from_str::<Vec<u32>>(&host.run("ps --format json ID").ok()).unwrap().len();
    wait_until("three processes", || count() == 3 || count() == 2);
    let table = host.run("ps ID").ok();
    let mut lines = table.lines();
    assert!(lines.next().unwrap().contains("PID"), "{table}");
    assert!(lines.all(|line| line.contains("sleep 77")), "{table}");
    let formatted = host.run("ps ID -o pid,comm").ok();
    assert!(
        formatted.lines().skip(1).all(|line| line.contains("sleep") || line.contains("sh")),
        "{formatted}"
    );
}

#[test]
fn list_has_a_row_for_each_container() {
    let host = Host::sleeper();
    assert_eq!(host.run("--root DIR/root list --quiet").status, 1, "a root that isn't there");
    host.run("create --bundle BUNDLE ID").ok();
    assert_eq!(host.run("list -q").ok(), format!("{}\n", host.id));
    let rows: Value = serde_json::from_str(&host.run("list --format json").ok()).unwrap();
    assert_eq!(rows[0]["id"], json!(host.id));
    let owner = if is_by_user() { "#4711" } else { "root" };
    assert_eq!((&rows[0]["status"], &rows[0]["owner"]), (&json!("created"), &json!(owner)));
    let table = host.run("list").ok();
    let header: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    let row: Vec<_> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[2], row[5]), (host.id.as_str(), "created", owner));
}

#[test]
fn events_tell_what_is_used() {
    let host = Host::sleeper();
    host.run("run -d --bundle BUNDLE ID").ok();
    let event: Value = serde_json::from_str(&host.run("events --stats ID").ok()).unwrap();
    assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(host.id)));
    assert!(event["data"]["pids"]["current"].as_u64().unwrap() >= 1, "{event}");
    assert!(event["data"]["cpu"]["usage"]["total"].as_u64().unwrap() > 0, "{event}");
    // Without --stats it goes on until the container's end.
    let mut follow = host.spawn("events --interval 20ms ID");
    let mut text = [0; 16];
    std::io::Read::read_exact(follow.stdout.as_mut().unwrap(), &mut text).unwrap();
    assert_eq!(&text, b"{\"type\":\"stats\",");
    host.run("kill ID KILL").ok();
    drop(follow.stdout.take());
    follow.wait().unwrap();
}

#[test]
fn update_changes_limits() {
    let host = Host::sleeper();
    host.run("run -d --bundle BUNDLE ID").ok();
    host.run("update --memory 64m --pids-limit 33 ID").ok();
    let read = |files: &[&str]| {
        let files = host.cgroups().into_iter().flat_map(|dir| files.iter().map(move |file| dir.join(file)));
        let mut found = files.filter_map(|file| fs::read_to_string(file).ok());
        found.next().unwrap().trim().to_owned()
    };
    assert_eq!(read(&["memory.limit_in_bytes", "memory.max"]), (64 << 20).to_string());
    assert_eq!(read(&["pids.max"]), "33");
    fs::write(host.path("r.json"), "{\"pids\": {\"limit\": 44}, \"memory\": {\"limit\": 0}}").unwrap();
    host.run("update --resources DIR/r.json ID").ok();
    assert_eq!(read(&["pids.max"]), "44");
    assert_eq!(read(&["memory.limit_in_bytes", "memory.max"]), (64 << 20).to_string());
    let why = host.run("update --memory x ID").error_message();
    assert_eq!(why, "invalid value for memory: \"x\"");
}

#[test]
fn kill_reaches_all_processes_when_asked() {
    let mut host = Host::shell("trap '' TERM; sleep 88 & sleep 88");
    // Without a pid namespace the others outlive the first.
    let namespaces = host.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    host.run("run -d --bundle BUNDLE ID").ok();
    let pids = || serde_json::from_str::<Vec<u32>>(&host.run("ps -f json ID").ok()).unwrap();
    wait_until("the second process", || pids().len() >= 2);
    host.run("kill --all ID KILL").ok();
    wait_until("the end", || host.status() == "stopped");
    host.run("delete ID").ok();
    host.assert_gone();
}

#[test]
fn sigkill_ends_all_where_the_pid_namespace_is_not_the_containers() {
    let mut host = Host::shell("sleep 89 & sleep 89");
    let namespaces = host.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    host.run("run -d --bundle BUNDLE ID").ok();
    let pids = || serde_json::from_str::<Vec<u32>>(&host.run("ps -f json ID").ok()).unwrap();
    wait_until("the second process", || pids().len() >= 2);
    // The first process ends; the other one is still the container's.
    host.run("kill ID HUP").ok();
    wait_until("the end", || host.status() == "stopped");
    assert!(!pids().is_empty());
    host.run("kill ID KILL").ok();
    wait_until("the end of all", || pids().is_empty());
    assert_eq!(host.run("kill ID KILL").error_message(), "container not running");
    host.run("delete ID").ok();
    host.assert_gone();
}

#[test]
fn every_mount_option_of_features_is_taken() {
    let mut host = Host::new(&["true"]);
    let features: Value = serde_json::from_str(&host.run("features").ok()).unwrap();
    let options = features["mountOptions"].as_array().unwrap();
    assert!(options.len() > 30);
    let mounts = host.spec["mounts"].as_array().unwrap().clone();
    let is_refused = |option: &&Value| {
        let source = host.path("bundle");
        let mount =
            json!({"destination": "/tmp", "type": "bind", "source": source, "options": ["bind", option]});
        host.spec["mounts"] = mounts.iter().cloned().chain([mount]).collect();
        host.run("run --bundle BUNDLE ID").status != 0
    };
    // Those that aren't of a plain bind have tests of their own.
    let others = ["idmap", "remount", "ridmap", "tmpcopyup"].map(Value::from);
    assert!(others.iter().all(|option| options.contains(option)));
    // mount_namespaces(7): the flags about access times of the host's mounts are
    // locked together in a user namespace.
    let is_locked =
        |option: &Value| is_by_user() && option.as_str().is_some_and(|name| name.ends_with("atime"));
    let wanted = options.iter().filter(|o| !others.contains(o) && !is_locked(o));
    let refused: Vec<_> = wanted.filter(is_refused).collect();
    assert_eq!(refused, Vec::<&Value>::new());
}

#[test]
fn spec_writes_what_run_takes_and_nothing_twice() {
    let host = Host::new(&["true"]);
    host.run("run --bundle BUNDLE ID").ok();
    let why = host.run("spec --bundle BUNDLE").error_message();
    assert_eq!(why, "File config.json exists. Remove it first");
}

#[test]
fn version_and_help_say_who_this_is() {
    let host = Host::new(&["true"]);
    let version = host.run("--version").ok();
    assert!(version.starts_with("berth-oci version ") && version.contains("\nspec: 1.3.0\n"), "{version}");
    let help = host.run("--help").ok();
    for verb in [
        "create", "start", "state", "kill", "delete", "run", "ps", "list", "pause", "resume", "update",
        "events", "features", "spec",
    ] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(verb)), "{verb}");
        assert!(host.run(&format!("{verb} --help")).ok().contains("USAGE:"), "{verb}");
    }
    assert!(Path::new("/run").exists());
}
