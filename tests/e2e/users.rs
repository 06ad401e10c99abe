// SPDX-License-Identifier: Apache-2.0
//! Containers with users of their own: root inside, nobody in particular
//! outside, and no file copied or changed for it.

use std::os::unix::fs::MetadataExt as _;

use crate::support::{Engine, engine::with_busybox};

/// The first id on the host of a container's map.
fn host_root(engine: &Engine, container: &str) -> u32 {
    let map = engine.berth(&["exec", container, "cat", "/proc/self/uid_map"]).ok().stdout;
    let words: Vec<&str> = map.split_whitespace().collect();
    assert_eq!((words[0], words[2]), ("0", "65536"), "{map}");
    words[1].parse().expect("a number")
}

#[test]
fn root_inside_is_nobody_outside() {
    let Some(mut engine) = with_busybox() else { return };
    for name in ["one", "two"] {
        engine.berth(&["run", "-d", "--userns", "auto", "--name", name, "busybox", "sleep", "1000"]).ok();
    }
    let (one, two) = (host_root(&engine, "one"), host_root(&engine, "two"));
    assert!(one > 0 && one.abs_diff(two) >= 65_536, "{one} {two}");
    // The image's files are root's; what is written is, too, and only there.
    let listed = engine.berth(&["exec", "one", "ls", "-ln", "/bin/busybox"]).ok().stdout;
    assert!(listed.contains(" 0        0 "), "{listed}");
    engine
        .berth(&[
            "exec",
            "one",
            "sh",
            "-c",
            "echo x >/new && echo 127.0.0.9 here >>/etc/hosts && chown 7:8 /new",
        ])
        .ok();
    let owner = engine.berth(&["exec", "one", "stat", "-c", "%u:%g", "/new"]).ok().stdout;
    assert_eq!(owner, "7:8\n");
    let pid = engine.inspect("one")["State"]["Pid"].as_u64().expect("pid");
    let process = std::fs::metadata(format!("/proc/{pid}")).expect("it runs");
    assert_eq!((process.uid(), process.gid()), (one, one));
    // Users that are nobody's special, with no right beyond the container.
    engine.berth(&["exec", "-u", "1000:1000", "one", "id"]).ok();
    assert_eq!(engine.inspect("one")["HostConfig"]["UsernsMode"], "auto");
    // The ids are the container's for its whole life.
    engine.kill9();
    engine.restart();
    assert_eq!(host_root(&engine, "one"), one);
    engine.berth(&["kill", "one"]).ok();
    engine.wait("one");
    engine.berth(&["start", "one"]).ok();
    assert_eq!(host_root(&engine, "one"), one);
    assert_eq!(engine.berth(&["exec", "one", "cat", "/new"]).ok().stdout, "x\n");
    // And somebody else's afterwards.
    engine.berth(&["rm", "-f", "one"]).ok();
    engine.berth(&["run", "-d", "--userns", "auto", "--name", "three", "busybox", "sleep", "1000"]).ok();
    assert_eq!(host_root(&engine, "three"), one.min(two));
}

#[test]
fn maps_are_as_asked_for_or_refused() {
    let Some(engine) = with_busybox() else { return };
    let map = "0:300000:1000,1000:500000:10";
    let said = engine.berth(&["run", "--rm", "--userns", map, "busybox", "cat", "/proc/self/gid_map"]).ok();
    let words: Vec<&str> = said.stdout.split_whitespace().collect();
    assert_eq!(words, ["0", "300000", "1000", "1000", "500000", "10"]);
    let said =
        engine.berth(&["run", "--rm", "--userns", "host", "busybox", "cat", "/proc/self/uid_map"]).ok();
    assert!(said.stdout.contains("4294967295"), "{}", said.stdout);
    let refused = |args: &[&str], why: &str| {
        let mut all = vec!["run", "--rm"];
        all.extend(args);
        all.extend(["busybox", "true"]);
        engine.berth(&all).exits(125).complains(&[why]);
    };
    refused(&["--userns", "keep-id"], "expected host, auto or CONTAINER:HOST:SIZE[,...]");
    refused(&["--userns", "auto", "--privileged"], "privileged mode is incompatible with user namespaces");
    refused(
        &["--userns", "auto", "--network", "host"],
        "cannot share the host's network namespace when user namespaces are enabled",
    );
}
