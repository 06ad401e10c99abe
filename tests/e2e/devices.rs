// SPDX-License-Identifier: Apache-2.0
//! Devices of the host, and limits of block devices.

use std::{fs, os::unix::fs::FileTypeExt as _};

use crate::support::{Engine, Image, engine::with_busybox};

#[test]
fn a_device_is_there_and_may_be_used_as_far_as_it_was_said() {
    let Some(engine) = with_busybox() else { return };
    let run = |flags: &[&str], script: &str| {
        // The kernel's messages are for who may read its log.
        let run = ["run", "--rm", "--cap-add", "SYSLOG"];
        engine.berth(&[&run[..], flags, &["busybox", "sh", "-c", script]].concat())
    };
    // /dev/kmsg is no device of every container.
    run(&[], "test ! -e /dev/kmsg").ok();
    run(&["--device", "/dev/kmsg"], "test -c /dev/kmsg && head -c 1 /dev/kmsg >/dev/null").ok();
    run(&["--device", "/dev/kmsg:/dev/other:r"], "head -c 1 /dev/other >/dev/null").ok();
    let refused = run(&["--device", "/dev/kmsg:/dev/other:w"], "head -c 1 /dev/other").exits(1);
    assert!(refused.stderr.contains("not permitted"), "{}", refused.stderr);
    // Another of its own making, where the rules allow it.
    let make = "mknod /tmp/kmsg c 1 11 && head -c 1 /tmp/kmsg >/dev/null";
    let refused = run(&[], make).exits(1);
    assert!(refused.stderr.contains("not permitted"), "{}", refused.stderr);
    run(&["--device-cgroup-rule", "c 1:11 r"], make).ok();

    // All in a directory.
    let Ok(found) = fs::read_dir("/dev/net") else {
        eprintln!("skipped: there is no /dev/net here");
        return;
    };
    let is_node = |entry: fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_char_device());
    if found.flatten().any(is_node) {
        run(&["--device", "/dev/net:/dev/mine"], "test -c /dev/mine/tun").ok();
    }
}

#[test]
fn what_is_no_device_is_said_in_dockers_words() {
    let Some(engine) = with_busybox() else { return };
    let file = engine.dir().join("file");
    fs::write(&file, "").expect("write");
    let file = file.to_str().expect("text");
    for (flags, words) in [
        (&["--device", "/dev/none"][..], "error gathering device information while adding custom device"),
        (&["--device", file], "not a device node"),
        (&["--device", "/dev/null:/dev/x:q"], "invalid device mode: q"),
        (&["--device", "/dev/null:x"], "is not an absolute path"),
        (&["--device", "vendor.com/class=name"], "CDI"),
        (&["--device-cgroup-rule", "c 1"], "invalid device cgroup rule format: 'c 1'"),
        (&["--device-read-bps", "/dev/null:x"], "invalid rate for device"),
        (&["--device-read-bps", "null:1"], "bad format for device path"),
        (&["--device-write-iops", "/dev/null:5"], "not a block device"),
        (&["--blkio-weight-device", "/dev/null:5"], "invalid weight for device: /dev/null:5"),
        (&["--group-add", "wheel"], "Unable to find group wheel"),
        (&["--memory-swappiness", "101"], "valid memory swappiness range is 0-100"),
        (&["--memory-swappiness", "-2"], "Valid memory swappiness range is 0-100"),
    ] {
        let args = [&["run", "--rm"][..], flags, &["busybox", "true"]].concat();
        let refused = engine.berth(&args);
        assert!(refused.code != 0 && refused.stderr.contains(words), "{words}: {}", refused.stderr);
    }
}

#[test]
fn groups_are_added_and_limits_arrive() {
    let Some(engine) = with_busybox() else { return };
    let groups = ["run", "--rm", "--group-add", "777", "--group-add", "778", "busybox", "id", "-G"];
    let said = engine.berth(&groups).ok();
    let all: Vec<_> = said.line().split(' ').collect();
    assert!(all.contains(&"777") && all.contains(&"778") && all.contains(&"0"), "{}", said.stdout);

    // By name: the container's own file says which, whoever the user is, and
    // for what joins it, too.
    let file = engine.dir().join("group");
    fs::write(&file, "root:x:0:\nlogs:x:4321:\nadm:x:4322:\n").expect("write");
    let volume = format!("{}:/etc/group:ro", file.display());
    let named = ["--group-add", "logs", "--group-add", "adm", "--group-add", "777", "-v", &volume];
    let sleep = ["busybox", "sleep", "1000"];
    engine.berth(&[&["run", "-d", "--name", "named", "-u", "5:6"][..], &named, &sleep].concat()).ok();
    let pid = engine.inspect("named")["State"]["Pid"].to_string();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).expect("groups");
    assert_eq!(groups.split_whitespace().collect::<Vec<_>>(), ["6", "777", "4321", "4322"]);
    assert_eq!(engine.berth(&["exec", "named", "id", "-G"]).ok().line(), "6 777 4321 4322");
    assert_eq!(engine.berth(&["exec", "-u", "9", "named", "id", "-G"]).ok().line(), "0 777 4321 4322");
    engine.berth(&["exec", "-d", "named", "sleep", "1000"]).ok();
    assert_eq!(engine.berth(&["exec", "ls", "--format", "{{.User}}"]).ok().line(), "5:6");
    for bad in ["nobody", "a,b", "a:b", ""] {
        let args = ["run", "--rm", "--group-add", bad, "-v", &volume, "busybox", "true"];
        let words = format!("Unable to find group {bad}: no matching entries in group file");
        let refused = engine.berth(&args);
        assert!(refused.code != 0 && refused.stderr.contains(&words), "{}", refused.stderr);
    }

    let mut disks = fs::read_dir("/dev").expect("/dev").flatten();
    let Some(disk) = disks.find(|entry| entry.file_type().is_ok_and(|kind| kind.is_block_device())) else {
        eprintln!("skipped: there is no block device here");
        return;
    };
    let disk = disk.path();
    let limit = format!("{}:1mb", disk.display());
    engine
        .berth(&["run", "-d", "--name", "slow", "--device-read-bps", &limit, "busybox", "sleep", "1000"])
        .ok();
    let inspect = engine.inspect("slow");
    let rate = &inspect["HostConfig"]["BlkioDeviceReadBps"][0];
    assert_eq!((&rate["Path"], &rate["Rate"]), (&disk.to_str().into(), &(1 << 20).into()));
    let pid = &inspect["State"]["Pid"];
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
    let v1 = cgroups.lines().find_map(|line| line.split_once(":blkio:"));
    let (file, group) = match v1 {
        Some((_, group)) => ("/sys/fs/cgroup/blkio", format!("{group}/blkio.throttle.read_bps_device")),
        None => ("/sys/fs/cgroup", format!("{}/io.max", cgroups.trim().trim_start_matches("0::"))),
    };
    let text = fs::read_to_string(format!("{file}{group}")).expect("its limit");
    assert!(text.contains("1048576"), "{text}");
}

#[test]
fn a_device_by_name_brings_what_its_file_says() {
    let files = tempfile::tempdir().expect("tempdir");
    let (etc, run) = (files.path().join("etc"), files.path().join("run"));
    fs::create_dir_all(&etc).expect("a directory");
    fs::write(files.path().join("lib"), "a library\n").expect("a file");
    let note = files.path().join("note");
    let yaml = format!(
        "cdiVersion: 0.6.0\nkind: example.com/thing\n\
         devices:\n- name: one\n  containerEdits:\n    deviceNodes:\n    - {{path: /dev/thing0, hostPath: /dev/kmsg}}\n\
         containerEdits:\n  env: [THING=yes]\n  additionalGids: [4242]\n\
         \x20 mounts:\n  - {{hostPath: {dir}/lib, containerPath: /opt/lib, options: [ro, bind]}}\n\
         \x20 hooks:\n  - {{hookName: createRuntime, path: /bin/sh, args: [sh, -c, 'echo hooked > {note}']}}\n",
        dir = files.path().display(),
        note = note.display()
    );
    fs::write(etc.join("thing.yaml"), yaml).expect("a file");
    fs::write(etc.join("broken.json"), "{").expect("a file");
    let config = format!("[containers]\ncdi_spec_dirs = [{etc:?}, {run:?}]\n");
    let Some(engine) = Engine::start_with(&config) else { return };
    engine.load(&Image::busybox(), "busybox");
    let script = "set -e; head -c 1 /dev/thing0 >/dev/null; cat /opt/lib; echo $THING; id -G";
    let thing = ["--cap-add", "SYSLOG", "--device", "example.com/thing=one"];
    let run_it = |name: &str| {
        engine.berth(&[&["run", "--name", name], &thing[..], &["busybox", "sh", "-c", script]].concat())
    };
    let shown = run_it("first").ok().stdout;
    assert!(shown.starts_with("a library\nyes\n0 "), "{shown}");
    assert!(shown.trim_end().ends_with(" 4242"), "{shown}");
    assert_eq!(fs::read_to_string(&note).expect("the hook's note"), "hooked\n");
    let requests = &engine.inspect("first")["HostConfig"]["DeviceRequests"];
    assert_eq!(requests, &serde_json::json!([{"Driver": "cdi", "DeviceIDs": ["example.com/thing=one"]}]));

    let missing = engine.berth(&["run", "--rm", "--gpus", "2", "busybox", "true"]).exits(125).stderr;
    let expected = "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=0, nvidia.com/gpu=1";
    assert!(missing.contains(expected), "{missing}");
    let bad = engine.berth(&["run", "--rm", "--device", "a=b", "busybox", "true"]).exits(125).stderr;
    assert!(bad.contains("invalid CDI device name \"a=b\""), "{bad}");

    // What is read is what is there at the start.
    fs::remove_file(etc.join("thing.yaml")).expect("remove");
    let gone = engine.berth(&["start", "first"]).exits(1).stderr;
    assert!(gone.contains("unresolvable CDI devices example.com/thing=one"), "{gone}");
}
