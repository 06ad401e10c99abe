// SPDX-License-Identifier: Apache-2.0
//! Containers whose cgroups are made in others than the engine's.

use std::fs;

use crate::support::{Engine, engine::with_busybox};

fn cgroups(engine: &Engine, container: &str) -> String {
    let pid = engine.inspect(container)["State"]["Pid"].to_string();
    fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups")
}

/// Removes an empty cgroup wherever it is; those of others aren't the engine's
/// to remove.
fn remove(path: &str) {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts");
    for line in mounts.lines().filter(|line| line.contains(" cgroup2 ") || line.contains(" cgroup ")) {
        let root = line.split(' ').nth(1).expect("a mount point");
        let _ = fs::remove_dir(format!("{root}{path}"));
    }
}

#[test]
fn a_container_may_have_another_cgroup_above_it() {
    let Some(mut engine) = with_busybox() else { return };
    let inside = format!("{}/inside", engine.cgroup_parent());
    let outside = format!("{}-outside", engine.cgroup_parent());
    let sleep = ["busybox", "sleep", "1000"];
    let ids: Vec<_> = [("in", inside.as_str()), ("out", outside.trim_start_matches('/'))]
        .into_iter()
        .map(|(name, parent)| {
            let flags = ["run", "-d", "--name", name, "--pids-limit", "20", "--cgroup-parent", parent];
            engine.berth(&[&flags[..], &sleep].concat()).ok().line().to_owned()
        })
        .collect();
    engine.berth(&[&["run", "-d", "--name", "plain"][..], &sleep].concat()).ok();
    for ((name, parent), id) in [("in", &inside), ("out", &outside)].into_iter().zip(&ids) {
        let found = cgroups(&engine, name);
        assert!(found.contains(&format!(":{parent}/default-{id}")), "{found}");
        assert_eq!(engine.berth(&["exec", name, "echo", "joined"]).ok().line(), "joined");
    }
    assert_eq!(engine.inspect("in")["HostConfig"]["CgroupParent"], inside);
    engine.fsck(&[]).ok();

    // The next engine finds them, updates them, and removes none of them.
    engine.kill9();
    engine.restart();
    engine.berth(&["update", "--pids-limit", "30", "in", "out"]).ok();
    engine.fsck(&[]).ok();
    let count = engine.berth(&["stats", "--no-stream", "--format", "{{.PIDs}}", "out"]).ok();
    assert_eq!(count.line(), "1");
    engine.berth(&["restart", "-t", "0", "in"]).ok();
    assert!(cgroups(&engine, "in").contains(&format!(":{inside}/default-")));
    engine.berth(&["rm", "-f", "in", "out"]).ok();
    let left = fs::read_to_string("/proc/self/mounts").expect("mounts");
    for line in left.lines().filter(|line| line.contains(" cgroup2 ") || line.contains(" cgroup ")) {
        let root = line.split(' ').nth(1).expect("a mount point");
        for (parent, id) in [&inside, &outside].into_iter().zip(&ids) {
            assert!(!fs::exists(format!("{root}{parent}/default-{id}")).expect("look"), "{root}{parent}");
        }
    }
    engine.fsck(&[]).ok();
    engine.kill9();
    engine.restart();
    engine.fsck(&[]).ok();
    assert_eq!(engine.status("plain"), "running");
    remove(&inside);
    remove(&outside);

    for bad in ["/", "a/../b", "/a//b", ".."] {
        let create = ["create", "--cgroup-parent", bad, "busybox", "true"];
        engine.berth(&create).exits(125).complains(&["invalid cgroup parent", bad]);
    }
}
