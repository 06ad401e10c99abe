// SPDX-License-Identifier: Apache-2.0
//! Namespaces that are the host's or another container's.

use std::fs;

use crate::support::{Engine, engine::with_busybox, until};

/// The namespace of a container's first process, as the kernel names it.
fn namespace(engine: &Engine, container: &str, kind: &str) -> String {
    let pid = &engine.inspect(container)["State"]["Pid"];
    let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("a namespace");
    link.to_str().expect("text").to_owned()
}

fn hosts(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace").to_str().expect("text").to_owned()
}

fn sleeper(engine: &Engine, name: &str, flags: &[&str]) {
    let args = [&["run", "-d", "--name", name][..], flags, &["busybox", "sleep", "1000"]].concat();
    engine.berth(&args).ok();
}

#[test]
fn a_containers_namespaces_are_its_own_unless_it_says_otherwise() {
    let Some(engine) = with_busybox() else { return };
    sleeper(&engine, "own", &[]);
    sleeper(&engine, "hosts", &["--pid", "host", "--ipc", "host", "--uts", "host", "--cgroupns", "host"]);
    for kind in ["pid", "ipc", "uts", "cgroup"] {
        assert_ne!(namespace(&engine, "own", kind), hosts(kind), "{kind}");
        assert_eq!(namespace(&engine, "hosts", kind), hosts(kind), "{kind}");
    }
    let host = &engine.inspect("hosts")["HostConfig"];
    let modes = ["PidMode", "IpcMode", "UTSMode", "CgroupnsMode"].map(|mode| host[mode].clone());
    assert_eq!(modes, ["host"; 4]);
    let name = engine.berth(&["exec", "hosts", "hostname"]).ok();
    assert_eq!(name.line(), fs::read_to_string("/proc/sys/kernel/hostname").expect("name").trim_end());
    // Its end is noticed, and ends all of it, among the host's processes.
    engine.berth(&["exec", "-d", "hosts", "sleep", "1001"]).ok();
    engine.berth(&["stop", "-t", "0", "hosts"]).ok();
    engine.berth(&["rm", "-f", "own"]).ok();
    until("its processes to be gone", || engine.processes().is_empty().then_some(()));

    engine.berth(&["run", "--rm", "--ipc", "none", "busybox", "test", "!", "-e", "/dev/shm"]).ok();
}

#[test]
fn another_containers_are_joined_by_name() {
    let Some(mut engine) = with_busybox() else { return };
    sleeper(
        &engine,
        "donor",
        &["--ipc", "shareable", "--hostname", "giver", "--add-host", "friend:10.0.0.9"],
    );
    let flags = ["--pid", "container:donor", "--ipc", "container:donor", "--network", "container:donor"];
    sleeper(&engine, "guest", &flags);
    for kind in ["pid", "ipc", "net"] {
        assert_eq!(namespace(&engine, "guest", kind), namespace(&engine, "donor", kind), "{kind}");
    }
    assert_ne!(namespace(&engine, "guest", "uts"), namespace(&engine, "donor", "uts"));
    assert_eq!(engine.berth(&["exec", "guest", "hostname"]).ok().line(), "giver");
    assert_eq!(engine.berth(&["exec", "guest", "grep", "-c", "friend", "/etc/hosts"]).ok().line(), "1");
    let seen = engine.berth(&["exec", "guest", "pidof", "sleep"]).ok();
    assert_eq!(seen.line().split_whitespace().count(), 2, "both: {}", seen.stdout);
    let id = engine.inspect("donor")["Id"].as_str().expect("Id").to_owned();
    assert_eq!(engine.inspect("guest")["HostConfig"]["NetworkMode"], format!("container:{id}"));

    // By its id: names may change, and the engine may die.
    engine.berth(&["rename", "donor", "giver"]).ok();
    engine.berth(&["stop", "-t", "0", "guest"]).ok();
    engine.kill9();
    engine.restart();
    engine.berth(&["start", "guest"]).ok();
    assert_eq!(namespace(&engine, "guest", "net"), namespace(&engine, "giver", "net"));

    // The network outlives who has made it, for whoever is there; nobody else
    // gets in.
    let network = namespace(&engine, "guest", "net");
    sleeper(&engine, "last", &["--network", "container:guest"]);
    engine.berth(&["stop", "-t", "0", "giver"]).ok();
    assert_eq!(engine.wait("guest"), 137, "its processes were the donor's");
    assert_eq!(namespace(&engine, "last", "net"), network);
    let refused = engine.berth(&["start", "guest"]).exits(1);
    assert!(
        refused.stderr.contains("cannot join network of a non running container: giver"),
        "{}",
        refused.stderr
    );
    engine.berth(&["rm", "giver"]).ok();
    let refused = engine.berth(&["start", "guest"]).exits(1).stderr;
    assert!(
        refused.contains("cannot join network of container") && refused.contains("it is gone"),
        "{refused}"
    );
}

#[test]
fn shared_memory_goes_with_ipc_and_is_the_donors_alone() {
    let Some(mut engine) = with_busybox() else { return };
    sleeper(&engine, "donor", &["--ipc", "shareable", "--shm-size", "1m", "--cap-add", "SYS_ADMIN"]);
    sleeper(&engine, "guest", &["--ipc", "container:donor"]);
    let run = |name: &str, script: &str| engine.berth(&["exec", name, "sh", "-c", script]).ok();
    run("donor", "echo theirs > /dev/shm/note");
    assert_eq!(run("guest", "cat /dev/shm/note; echo ours >> /dev/shm/note").line(), "theirs");
    assert_eq!(run("donor", "cat /dev/shm/note").stdout, "theirs\nours\n");
    // One file system, with the donor's size, in no mount table but theirs.
    let full = "dd if=/dev/zero of=/dev/shm/big bs=64k count=64 2>/dev/null; stat -c %s /dev/shm/big; rm /dev/shm/big";
    assert!(run("guest", full).line().parse::<u32>().expect("a size") <= 1 << 20);
    let options = run("guest", "grep ' /dev/shm ' /proc/mounts").stdout;
    assert!(["nosuid", "nodev", "noexec"].iter().all(|word| options.contains(word)), "{options}");
    sleeper(&engine, "own", &[]);
    assert_eq!(engine.berth(&["exec", "own", "ls", "/dev/shm"]).ok().stdout, "");

    // It outlives the donor for whoever is there, and the engine.
    engine.berth(&["stop", "-t", "0", "guest"]).ok();
    engine.kill9();
    engine.restart();
    engine.berth(&["start", "guest"]).ok();
    let run = |name: &str, script: &str| engine.berth(&["exec", name, "sh", "-c", script]).ok();
    assert_eq!(run("guest", "head -n 1 /dev/shm/note").line(), "theirs");

    // A donor that has put a link there gives away nothing.
    run("donor", "umount /dev/shm && rmdir /dev/shm && ln -s / /dev/shm");
    let args = ["run", "--rm", "--ipc", "container:donor", "busybox", "ls", "/dev/shm"];
    let refused = engine.berth(&args);
    assert!(refused.code != 0 && refused.stderr.contains("/dev/shm"), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
    engine.berth(&["stop", "-t", "0", "donor"]).ok();
    assert_eq!(run("guest", "head -n 1 /dev/shm/note").line(), "theirs");
}

#[test]
fn what_can_not_be_shared_is_said_in_dockers_words() {
    let Some(engine) = with_busybox() else { return };
    sleeper(&engine, "donor", &[]);
    for (flags, words) in [
        (&["--ipc", "container:donor"][..], "non-shareable IPC (hint: use IpcMode:shareable"),
        (&["--pid", "container:nobody"], "No such container: nobody"),
        (&["--pid", "mine"], "invalid PID mode: mine"),
        (&["--ipc", "container:"], "invalid IPC mode: container:"),
        (&["--uts", "container:donor"], "invalid UTS mode"),
        (&["--cgroupns", "x"], "invalid CgroupNS mode: x"),
        (&["--network", "bridge"], "network bridge not found"),
        (&["--uts", "host", "--hostname", "x"], "conflicting options: hostname and the UTS mode"),
        (
            &["--network", "container:donor", "--hostname", "x"],
            "conflicting options: hostname and the network mode",
        ),
        (&["--network", "container:donor", "--dns", "10.0.0.1"], "conflicting options: dns and the network"),
        (&["--network", "container:donor", "--add-host", "x:10.0.0.1"], "custom host-to-IP mapping"),
        (&["--network", "container:donor", "--sysctl", "net.a=1"], "another container's network namespace"),
        (&["--ipc", "host", "--sysctl", "kernel.shmmni=1"], "not allowed in host ipc namespace"),
        (
            &["--userns", "0:100000:65536", "--pid", "host"],
            "cannot share the host's PID namespace when user namespaces are enabled",
        ),
        (&["--userns", "0:100000:65536", "--pid", "container:donor"], "cannot join another container's"),
    ] {
        let refused = engine.berth(&[&["create"][..], flags, &["busybox", "true"]].concat());
        assert!(refused.code != 0 && refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
    engine.berth(&["create", "--name", "early", "--pid", "container:donor", "busybox", "true"]).ok();
    engine.berth(&["stop", "-t", "0", "donor"]).ok();
    let refused = engine.berth(&["start", "early"]).exits(1).stderr;
    assert!(refused.contains("cannot join PID namespace of a non running container: donor"), "{refused}");
}
