// SPDX-License-Identifier: Apache-2.0
//! The checker finds what is broken on purpose, and nothing else. That it finds
//! nothing in a sound engine is what every other test ends with.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use serde_json::Value;

use crate::support::{Engine, command::Background, engine::with_busybox, leaks::send, until};

/// What `berthd fsck` says has to contain every line with these words, and no
/// other finding.
#[track_caller]
fn assert_finds(engine: &Engine, expected: &[&[&str]]) {
    let fsck = engine.fsck(&[]).exits(1);
    let findings: Vec<&str> =
        fsck.stdout.lines().filter(|l| !l.starts_with("pending: ") && !l.contains("; looked at ")).collect();
    for words in expected {
        let found = findings.iter().any(|line| words.iter().all(|word| line.contains(word)));
        assert!(found, "no finding with {words:?} in:\n{}", fsck.stdout);
    }
    assert_eq!(findings.len(), expected.len(), "{}", fsck.stdout);
}

/// Where cgroups are of which the container's own is one.
fn hierarchies(engine: &Engine) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    let points = mounts.lines().filter(|l| l.contains(" cgroup2 ") || l.contains(" cgroup "));
    let dirs = points.filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let parent = engine.cgroup_parent().trim_start_matches('/');
    dirs.map(|dir| dir.join(parent)).filter(|dir| dir.is_dir()).collect()
}

fn hierarchy(engine: &Engine) -> PathBuf {
    hierarchies(engine).into_iter().next().expect("the engine's cgroup")
}

/// The container's file with one of these names, in whichever hierarchy; not
/// every kernel has all of them.
fn limit(engine: &Engine, container: &str, names: [&str; 2]) -> Option<PathBuf> {
    let id = engine.inspect(container)["Id"].as_str().expect("id").to_owned();
    let dirs = hierarchies(engine).into_iter().map(|dir| dir.join(format!("default-{id}")));
    let mut files = dirs.flat_map(|dir| names.map(|name| dir.join(name)));
    files.find(|file| file.exists())
}

fn layer_of(engine: &Engine, container: &str) -> PathBuf {
    let pid = &engine.inspect(container)["State"]["Pid"];
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("mountinfo");
    let (_, rest) = mounts.split_once("upperdir=").expect("an overlay");
    let upper = rest.split([',', '\n']).next().expect("a path");
    Path::new(upper).parent().expect("a snapshot").to_owned()
}

#[test]
fn every_kind_of_orphan_is_found_beside_a_running_engine() {
    let Some(mut engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).ok();
    engine.berth(&["create", "--name", "made", "busybox"]).ok();
    engine.fsck(&[]).ok();

    let name = format!("default-{}", "0f".repeat(32));
    let stray = hierarchy(&engine).join(&name);
    // The other is somebody else's.
    let others = hierarchy(&engine).join("some-other.service");
    for cgroup in [&stray, &others] {
        fs::create_dir(cgroup).expect("cgroup");
    }
    let bundle = engine.dir().join("state/bundles/default/stray");
    let directory = engine.dir().join("root/containers/default/stray");
    let snapshot = engine.dir().join("root/snapshots/4711");
    for dir in [&bundle, &directory, &snapshot] {
        fs::create_dir(dir).expect("mkdir");
    }
    let layer = layer_of(&engine, "up");
    let none: Option<&str> = None;
    mount(Some("tmpfs"), &layer.join("fs/mnt"), Some("tmpfs"), MsFlags::empty(), none)
        .or_else(|_| {
            fs::create_dir(layer.join("fs/mnt")).expect("mkdir");
            mount(Some("tmpfs"), &layer.join("fs/mnt"), Some("tmpfs"), MsFlags::empty(), none)
        })
        .expect("mount");
    let pid = engine.inspect("up")["State"]["Pid"].to_string();
    let mut enter = Command::new("nsenter");
    enter.args(["-t", &pid, "-m", "/bin/sleep", "1000"]);
    let guest = Background::start(enter);
    let guest_pid = guest.child.id();
    let ours = fs::read_link("/proc/self/ns/mnt").expect("ns");
    until("it to be in the container's namespace", || {
        let its = fs::read_link(format!("/proc/{guest_pid}/ns/mnt")).expect("ns");
        (its != ours).then_some(())
    });

    assert_finds(
        &engine,
        &[
            &["cgroup", &format!("/{name}: no container has it; expected: nothing there")],
            &["bundle", "/state/bundles/default/stray: no container has it; expected: nothing there"],
            &["directory", "/root/containers/default/stray: no container has it"],
            &["snapshot", "/root/snapshots/4711: no row has it"],
            &["mount", "/fs/mnt: the host sees it; expected: no mount"],
            &["process", &format!("{guest_pid}: it sees the files of "), "is not in its cgroup"],
        ],
    );

    drop(guest);
    umount2(&layer.join("fs/mnt"), MntFlags::empty()).expect("umount");
    for dir in [&directory, &snapshot] {
        fs::remove_dir(dir).expect("rmdir");
    }
    engine.kill9();
    engine.restart();
    until("the next engine to remove what is nobody's", || {
        (!stray.exists() && !bundle.exists()).then_some(())
    });
    assert!(others.exists(), "what is not the engine's is left alone");
    fs::remove_dir(&others).expect("rmdir");
}

#[test]
fn what_a_container_or_an_image_lacks_is_found() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).ok();
    engine.berth(&["create", "--name", "made", "busybox"]).ok();
    let made = engine.inspect("made")["Id"].as_str().expect("id").to_owned();
    let up = engine.inspect("up")["Id"].as_str().expect("id").to_owned();

    let directory = engine.dir().join("root/containers/default").join(&made);
    fs::remove_dir(&directory).expect("rmdir");
    let work = layer_of(&engine, "up").join("work");
    fs::rename(&work, work.with_extension("gone")).expect("rename");
    let bundle = engine.dir().join("state/bundles/default").join(&up);
    let record = fs::read(bundle.join("init.json")).expect("init.json");
    fs::write(bundle.join("init.json"), "{").expect("write");
    let blobs = engine.dir().join("root/content/blobs/sha256");
    let blob = fs::read_dir(&blobs).expect("blobs").next().expect("a blob").expect("entry").path();
    let content = fs::read(&blob).expect("read");
    let digest = format!("sha256:{}", blob.file_name().expect("name").to_string_lossy());
    fs::write(&blob, [&content[..], b"x"].concat()).expect("write");
    assert_finds(
        &engine,
        &[
            &["container", &made, "it has no ", "; expected: its directory"],
            &["snapshot", "there is no ", "/work; expected: a directory"],
            &["container", &up, "init.json", "; expected: a record that can be read"],
            &["blob", &digest, &format!("it has {} bytes", content.len() + 1)],
        ],
    );

    // The right size says nothing about what is in it.
    let mut damaged = content.clone();
    damaged[0] ^= 1;
    fs::write(&blob, &damaged).expect("write");
    fs::create_dir(&directory).expect("mkdir");
    fs::rename(work.with_extension("gone"), &work).expect("rename");
    fs::write(bundle.join("init.json"), &record).expect("write");
    engine.fsck(&[]).ok();
    let deep = engine.fsck(&["--digests"]).exits(1);
    assert!(
        deep.stdout.contains(&format!("blob {digest}: its content has digest sha256:")),
        "{}",
        deep.stdout
    );
    fs::write(&blob, &content).expect("write");
    engine.fsck(&["--digests"]).ok();

    // A bundle that is gone, its container still there.
    fs::rename(&bundle, bundle.with_extension("away")).expect("rename");
    symlink("/nowhere", &bundle).expect("symlink");
    let fsck = engine.fsck(&[]);
    assert_ne!(fsck.code, 0, "{}", fsck.stdout);
    fs::remove_file(&bundle).expect("unlink");
    fs::rename(bundle.with_extension("away"), &bundle).expect("rename");
}

#[test]
fn a_database_from_before_is_told_apart_and_its_engine_cleans_up() {
    let Some(mut engine) = with_busybox() else { return };
    engine.berth(&["create", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let id = engine.inspect("box")["Id"].as_str().expect("id").to_owned();
    engine.stop();
    let (now, before) = (engine.dir().join("root/meta.db"), engine.dir().join("before.db"));
    fs::copy(&now, &before).expect("copy");
    engine.restart();
    engine.berth(&["start", "box"]).ok();
    let shim = engine.inspect("box")["ShimPid"].to_string();
    engine.kill9();
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(engine.dir().join(format!("root/meta.db{suffix}")));
    }
    fs::copy(&before, &now).expect("copy");

    let expected: [&[&str]; 4] = [
        &["shim", &shim, &format!("it serves {id}, which is created; expected: no shim")],
        &["bundle", &id, "is created; expected: no bundle"],
        &["cgroup", &id, "is created; expected: no cgroup"],
        &["process", &format!("it sees the files of {id}, which is created; expected: no such process")],
    ];
    assert_finds(&engine, &expected);
    engine.restart();
    until("the engine to have cleaned up", || (engine.fsck(&[]).code == 0).then_some(()));
    assert_eq!(engine.status("box"), "created");
    engine.berth(&["start", "box"]).ok();
    // Its events speak of one start: the other was never recorded.
    engine.fsck(&[]).ok();
}

#[test]
fn its_exit_status_and_its_json_can_be_relied_on() {
    let Some(mut engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).ok();
    let json = |engine: &Engine, code| -> Value {
        serde_json::from_str(&engine.fsck(&["--json"]).exits(code).stdout).expect("JSON")
    };
    let report = json(&engine, 0);
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(0));
    assert_eq!((&report["checked"]["containers"], &report["checked"]["shims"]), (&1.into(), &1.into()));
    // Without an engine the container goes on, and nothing is wrong with that.
    engine.kill9();
    let report = json(&engine, 0);
    assert_eq!(report["checked"]["shims"], 1);
    let stray = engine.dir().join("state/bundles/default/stray");
    fs::create_dir(&stray).expect("mkdir");
    let report = json(&engine, 1);
    let finding = &report["findings"][0];
    assert_eq!((&finding["what"], &finding["found"]), (&"bundle".into(), &"no container has it".into()));
    fs::remove_dir(&stray).expect("rmdir");
    engine.restart();

    // What can't be looked at is neither sound nor wrong.
    let Some(empty) = Engine::prepare("") else { return };
    let fsck = empty.fsck(&[]).exits(2);
    assert!(fsck.stderr.contains("no metadata at "), "{}", fsck.stderr);
    fs::create_dir(empty.dir().join("root")).expect("mkdir");
    fs::write(empty.dir().join("root/meta.db"), "not a database, and long enough to be one").expect("write");
    empty.fsck(&[]).exits(2);
}

/// What is to be written so that the file says `text` again.
fn as_written(text: &str) -> &str {
    let first = text.lines().next().unwrap_or_default();
    first.trim_start_matches("oom_kill_disable ")
}

#[test]
fn limits_that_the_kernel_does_not_keep_are_found_and_set_again() {
    let Some(mut engine) = with_busybox() else { return };
    let limits =
        ["-m", "64m", "--memory-reservation", "32m", "--cpus", "0.5", "-c", "512", "--pids-limit", "50"];
    let sets = ["--cpuset-cpus", "0", "--cpuset-mems", "0"];
    let command = ["--name", "up", "busybox", "sleep", "1000"];
    engine.berth(&["run", "-d", "--name", "free", "busybox", "sleep", "1000"]).ok();
    // Discarded with a warning where the kernel has no such thing.
    let of_v1 = ["--memory-swappiness", "10"];
    let weight: &[&str] = match limit(&engine, "free", ["blkio.bfq.weight", "io.weight"]) {
        Some(_) => &["--blkio-weight", "100"],
        None => &[],
    };
    engine.berth(&[&["run", "-d"][..], &limits, &sets, &of_v1, weight, &command].concat()).ok();
    engine.fsck(&[]).ok();

    let one_cpu = std::thread::available_parallelism().is_ok_and(|n| n.get() == 1);
    // The name in either version, what is written there, and what is said of it.
    let disturbed = [
        (
            ["memory.limit_in_bytes", "memory.max"],
            ["50331648"; 2],
            "its memory in the kernel: 50331648 bytes; expected: 67108864 bytes",
        ),
        (
            ["memory.soft_limit_in_bytes", "memory.low"],
            ["1048576"; 2],
            "its reserved memory in the kernel: 1048576 bytes; expected: 33554432 bytes",
        ),
        (
            ["cpu.cfs_quota_us", "cpu.max"],
            ["20000", "20000 100000"],
            "its CPU time in the kernel: 20000 of 100000 microseconds; expected: 50000 of 100000",
        ),
        (["cpu.shares", "cpu.weight"], ["2", "1"], "its weight of CPU in the kernel: "),
        (["pids.max"; 2], ["max"; 2], "its processes in the kernel: no limit; expected: 50 processes"),
        (
            ["memory.memsw.limit_in_bytes", "memory.swap.max"],
            ["100663296", "33554432"],
            "its memory and swap in the kernel: 100663296 bytes; expected: 134217728 bytes",
        ),
        (["cpuset.cpus"; 2], ["0-1"; 2], "its CPUs in the kernel: 0-1; expected: 0"),
        (["memory.swappiness"; 2], ["50"; 2], "its swappiness in the kernel: 50; expected: 10"),
        (
            ["memory.oom_control"; 2],
            ["1"; 2],
            "its out-of-memory killer in the kernel: disabled; expected: enabled",
        ),
        (
            ["blkio.bfq.weight", "io.weight"],
            ["700", "default 7000"],
            "its weight of block I/O in the kernel: 7",
        ),
    ];
    let mut files = Vec::new();
    for (names, values, words) in disturbed {
        let Some(file) = limit(&engine, "up", names).filter(|_| !one_cpu || names[0] != "cpuset.cpus") else {
            println!("skipped: this host has none of {names:?}, or no other value for it");
            continue;
        };
        let before = fs::read_to_string(&file).expect("read");
        let old = file.file_name().is_some_and(|name| name == names[0]);
        let wrong = values[usize::from(!old)];
        fs::write(&file, wrong).expect("write");
        assert_finds(&engine, &[&["container ", words]]);
        fs::write(&file, as_written(&before)).expect("write");
        files.push((file, before, wrong));
    }
    let free = limit(&engine, "free", ["pids.max"; 2]).expect("of every version");
    fs::write(&free, "7").expect("write");
    assert_finds(&engine, &[&["its processes in the kernel: 7 processes; expected: no limit"]]);

    // What an engine that was killed in an update has left is put right by the
    // next one.
    engine.kill9();
    for (file, _, wrong) in &files {
        fs::write(file, wrong).expect("write");
    }
    engine.fsck(&[]).ok();
    engine.restart();
    until("the limits to be set again", || {
        files.iter().all(|(file, before, _)| fs::read_to_string(file).expect("read") == *before).then_some(())
    });
    assert_eq!(fs::read_to_string(&free).expect("read"), "max\n");
    engine.fsck(&[]).ok();
}

#[test]
fn what_was_told_of_an_exec_is_compared_with_what_its_shim_knows() {
    let Some(mut engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).ok();
    for command in [&["sleep", "1000"][..], &["true"]] {
        engine.berth(&[&["exec", "-d", "up"], command].concat()).ok();
    }
    let told = |engine: &Engine, action: &str| {
        let filter = format!("event={action}");
        let args = ["events", "--since", "0", "--until", "0s", "--filter", &filter];
        engine.berth(&args).ok().stdout.lines().count()
    };
    until("the end of one to be told", || (told(&engine, "exec_die") == 1).then_some(()));
    engine.fsck(&[]).ok();

    let meta = rusqlite::Connection::open(engine.dir().join("root/meta.db")).expect("open");
    let change = |sql: &str, rows| assert_eq!(meta.execute(sql, ()).expect("change"), rows, "{sql}");
    let copy = "INSERT INTO events (time, namespace, type, action, id, attributes)
                SELECT time, namespace, type, action, id, attributes FROM events WHERE action = 'exec_die'";
    change(copy, 1);
    assert_finds(
        &engine,
        &[&["events ", "exec_die of exec ", "expected: exec_start, then exec_die, each once"]],
    );
    change("DELETE FROM events WHERE action = 'exec_die'", 2);
    assert_finds(&engine, &[&["events ", "has ended and nobody was told; expected: exec_die"]]);
    change("DELETE FROM events WHERE action = 'exec_start'", 2);
    let untold: [&[&str]; 2] = [
        &["events ", "has ended and nobody was told; expected: exec_die"],
        &["events ", "has started and nobody was told; expected: exec_start"],
    ];
    assert_finds(&engine, &untold);

    // Without an engine it's the next one's business.
    engine.kill9();
    assert_eq!(engine.fsck(&[]).ok().stdout.matches("nobody was told").count(), 2);
    engine.restart();
    until("it to be told", || (told(&engine, "exec_start") == 2).then_some(()));
    assert_eq!(told(&engine, "exec_die"), 1);
    engine.fsck(&[]).ok();
}

#[test]
fn namespaces_and_execs_that_are_not_as_recorded_are_found() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "up", "busybox", "sleep", "1000"]).ok();
    engine
        .berth(&["run", "-d", "--name", "guest", "--network", "container:up", "busybox", "sleep", "1000"])
        .ok();
    engine.berth(&["exec", "-d", "up", "sleep", "1000"]).ok();
    engine.fsck(&[]).ok();

    let meta = rusqlite::Connection::open(engine.dir().join("root/meta.db")).expect("open");
    let network = |name: &str, value: &str| {
        let sql = "UPDATE containers SET document = json_set(document, '$.config.host.network', json(?1)) WHERE name = ?2";
        assert_eq!(meta.execute(sql, [value, name]).expect("update"), 1);
    };
    let pid = engine.inspect("guest")["State"]["Pid"].to_string();
    network("guest", "\"host\"");
    assert_finds(
        &engine,
        &[&["process", &pid, "it is in network namespace net:[", "; expected: the host's"]],
    );
    engine.berth(&["run", "-d", "--name", "other", "busybox", "sleep", "1000"]).ok();
    let other = engine.inspect("other")["Id"].as_str().expect("id").to_owned();
    engine.berth(&["restart", "-t", "0", "up"]).ok();
    let up = engine.inspect("up")["Id"].as_str().expect("id").to_owned();
    // Who was started again has another network, and that is as it should be.
    network("guest", &format!("{{\"container\": \"{up}\"}}"));
    engine.fsck(&[]).ok();
    engine.berth(&["restart", "-t", "0", "guest"]).ok();
    let pid = engine.inspect("guest")["State"]["Pid"].to_string();
    network("guest", &format!("{{\"container\": \"{other}\"}}"));
    assert_finds(
        &engine,
        &[&["process", &pid, "it is in network namespace", &format!("that of container {other}")]],
    );
    network("guest", &format!("{{\"container\": \"{up}\"}}"));

    engine.berth(&["exec", "-d", "up", "sleep", "1000"]).ok();
    let group = hierarchies(&engine).into_iter().map(|dir| dir.join(format!("default-{up}")));
    let Some(unified) = group.into_iter().find(|dir| dir.join("cgroup.kill").exists()) else {
        println!("skipped: no cgroup v2 tree, so that no exec has a cgroup of its own");
        return;
    };
    let stray = unified.join("exec-stray");
    fs::create_dir(&stray).expect("mkdir");
    assert_finds(&engine, &[&["cgroup", "/exec-stray: no exec of ", &up, "has it; expected: nothing there"]]);
    fs::remove_dir(&stray).expect("rmdir");
    // A process that its shim knows, outside of the container's cgroups.
    let exec = engine.berth(&["exec", "ls", "--format", "{{.PID}}"]).ok().stdout.trim().to_owned();
    let own: Vec<_> = hierarchies(&engine);
    for dir in &own {
        fs::write(dir.parent().expect("above").join("cgroup.procs"), &exec).expect("move");
    }
    let found = engine.fsck(&[]).exits(1).stdout;
    assert!(found.contains(&format!("process {exec}: it is exec ")), "{found}");
    send(exec.parse().expect("pid"), Signal::SIGKILL);
    until("its end", || (engine.fsck(&[]).code == 0).then_some(()));
}
