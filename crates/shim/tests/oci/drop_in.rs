// SPDX-License-Identifier: Apache-2.0
//! What callers of runc rely on beside its verbs.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt as _, net::UnixDatagram},
    },
    process::Stdio,
    time::Duration,
};

use serde_json::json;

use crate::harness::{Host, wait_until};

#[test]
fn without_pivot_root_the_root_is_the_containers_all_the_same() {
    let host = Host::shell("ls /; ls -d /work /usr 2>/dev/null; sleep 60");
    host.run("run --no-pivot --detach --bundle BUNDLE ID").ok();
    let inside = "bin\ndev\netc\nproc\nsys\ntmp\n";
    assert_eq!(host.run("exec ID ls /").ok(), inside);
    // Nothing of the host's is mounted where the container could see it whole.
    let mounts = host.run("exec ID cat /proc/self/mountinfo").ok();
    let procs = mounts.lines().filter(|line| line.contains(" - proc ") && line.contains(" / /proc ")).count();
    assert_eq!(procs, 1, "{mounts}");
}

#[test]
fn an_exec_goes_into_a_cgroup_below_the_containers() {
    let host = Host::sleeper();
    host.run("run --detach --bundle BUNDLE ID").ok();
    let of = |name: &str| host.cgroups().into_iter().find(|dir| dir.to_str().unwrap().contains(name));
    let (dir, argument) = match of("/pids/") {
        Some(pids) => (pids, "pids:sub"),
        None => (host.cgroups().remove(0), "sub"),
    };
    let missing = host.run(&format!("exec --cgroup {argument} ID true")).error_message();
    assert!(missing.contains("adding pid") || missing.contains("cgroup"), "{missing}");
    assert!(missing.contains("o such file or directory"), "{missing}");
    fs::create_dir(dir.join("sub")).unwrap();
    let line = format!("exec --detach --pid-file DIR/pid --cgroup {argument} ID sleep 60");
    host.run(&line).ok();
    let pid = fs::read_to_string(host.path("pid")).unwrap();
    assert_eq!(fs::read_to_string(dir.join("sub/cgroup.procs")).unwrap().trim(), pid);
    for (argument, message) in [
        ("..", "bad sub cgroup path: .."),
        ("whaaat:/", "unknown controller whaaat"),
        (":a", "invalid --cgroup argument: :a (empty <controller> prefix)"),
        ("a --cgroup b", "invalid --cgroup argument: a (missing <controller>: prefix)"),
        ("a:b --cgroup a:c", "invalid --cgroup argument: a:c (controller a specified multiple times)"),
    ] {
        let said = host.run(&format!("exec --cgroup {argument} ID true")).error_message();
        assert!(said.ends_with(message), "{said}");
    }
}

#[test]
fn a_service_manager_hears_when_the_container_is_ready() {
    let mut host = Host::shell("[ -S $NOTIFY_SOCKET ] && while :; do sleep 0.05; done");
    host.spec["process"]["env"] = json!(["PATH=/bin"]);
    let manager = UnixDatagram::bind(host.path("manager")).unwrap();
    // Anybody may send to it.
    fs::set_permissions(host.path("manager"), fs::Permissions::from_mode(0o777)).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let begin = |line: &str| {
        let mut command = host.command();
        host.add(&mut command, line);
        command.env("NOTIFY_SOCKET", host.path("manager")).stdout(Stdio::null());
        command.spawn().unwrap()
    };
    assert!(begin("create --bundle BUNDLE ID").wait().unwrap().success());
    let mut start = begin("start ID");
    let socket = host.path("root").join(&host.id).join("notify/notify.sock");
    wait_until("the socket", || socket.exists());
    let inside = UnixDatagram::unbound().unwrap();
    wait_until("a listener", || inside.send_to(b"STATUS=nearly", &socket).is_ok());
    assert!(start.try_wait().unwrap().is_none(), "it waits until the container is ready");
    inside.send_to(b"STATUS=there\nREADY=1\n", &socket).unwrap();
    let hear = || {
        let mut message = [0; 256];
        let (length, fd) = crate::harness::receive(&manager, &mut message);
        (String::from_utf8_lossy(&message[..length]).into_owned(), fd)
    };
    assert_eq!(hear().0, "READY=1\n");
    assert_eq!(hear().0, format!("MAINPID={}\n", host.state()["pid"]));
    let (text, barrier): (String, Option<OwnedFd>) = hear();
    assert_eq!(text, "BARRIER=1");
    assert!(start.try_wait().unwrap().is_none(), "it waits until it has been heard");
    drop(barrier);
    assert!(start.wait().unwrap().success());
    assert_eq!(host.status(), "running");
}

#[test]
fn a_created_container_ends_when_it_is_asked_to() {
    for signal in ["TERM", "INT", "HUP"] {
        let host = Host::new(&["true"]);
        host.run("create --bundle BUNDLE ID").ok();
        host.run(&format!("kill ID {signal}")).ok();
        wait_until(signal, || host.status() == "stopped");
    }
}

#[test]
fn debug_lines_go_where_the_log_goes() {
    let host = Host::new(&["true"]);
    let ran = host.run("--debug run --bundle BUNDLE ID");
    assert!(ran.stderr.contains("level=debug") && ran.status == 0, "{ran:?}");
    let ran = host.run("--debug --log DIR/log --log-format json run --bundle BUNDLE ID");
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    let log = fs::read_to_string(host.path("log")).unwrap();
    assert!(log.lines().all(|line| line.contains(r#""level":"debug""#)) && !log.is_empty(), "{log}");
}

#[test]
fn a_file_needn_t_say_who_runs_its_process() {
    let host = Host::sleeper();
    host.run("run --detach --bundle BUNDLE ID").ok();
    let process = json!({"args": ["env"], "cwd": "/", "env": ["PATH=/bin"]});
    fs::write(host.path("process.json"), process.to_string()).unwrap();
    assert_eq!(host.run("exec --process DIR/process.json ID").ok(), "PATH=/bin\nHOME=/\n");
}

#[test]
fn a_read_only_dev_has_all_that_belongs_there() {
    let mut host = Host::shell("ls /dev/null /dev/fd >/dev/null && echo > /dev/new");
    for mount in host.spec["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev" {
            mount["options"].as_array_mut().unwrap().push(json!("ro"));
        }
    }
    let ran = host.run("run --bundle BUNDLE ID");
    assert!(ran.stderr.contains("Read-only file system"), "{ran:?}");
}

#[test]
fn a_mask_that_is_listed_twice_is_put_on_once() {
    let mut host = Host::shell("cat /proc/mounts");
    host.spec["linux"]["maskedPaths"] = json!(["/etc", "/etc"]);
    let mounts = host.run("run --bundle BUNDLE ID").ok();
    assert_eq!(mounts.lines().filter(|line| line.contains(" /etc ")).count(), 1, "{mounts}");
}

#[test]
fn a_mount_goes_through_a_link_to_a_file_that_is_not_there() {
    let mut host = Host::shell("cat /tmp/new");
    fs::write(host.path("file"), "there").unwrap();
    std::os::unix::fs::symlink("/tmp/new", host.path("bundle/rootfs/etc/link")).unwrap();
    let mount = json!({"destination": "/etc/link", "source": host.path("file"), "options": ["bind"]});
    host.spec["mounts"].as_array_mut().unwrap().push(mount);
    assert_eq!(host.run("run --bundle BUNDLE ID").ok(), "there");
}

#[test]
fn processors_that_the_caller_has_given_up_are_the_containers() {
    let host = Host::shell(
        "while read name value; do [ $name = Cpus_allowed: ] && echo $value; done < /proc/self/status; true",
    );
    let all = host.run("run --bundle BUNDLE ID").ok();
    let mut command = host.command();
    host.add(&mut command, "run --bundle BUNDLE ID");
    let words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let mut pinned = std::process::Command::new("taskset");
    pinned.args(["--cpu-list", "0"]).arg(command.get_program()).args(words);
    let output = pinned.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), all);
}

#[test]
fn what_can_be_inherited_is_in_the_bounding_set() {
    let mut host = Host::new(&["true"]);
    host.spec["process"]["capabilities"] = json!({"inheritable": ["CAP_KILL"], "permitted": ["CAP_KILL"]});
    let said = host.run("run --bundle BUNDLE ID").error_message();
    assert!(said.contains("CAP_KILL: operation not permitted"), "{said}");
}

#[test]
fn a_remount_changes_a_mount_that_is_there() {
    let mut host = Host::shell("echo x > /mnt/a; grep ' /mnt ' /proc/mounts");
    host.spec["mounts"].as_array_mut().unwrap().extend([
        json!({"destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k"]}),
        json!({"destination": "/mnt", "options": ["remount", "ro", "nosuid", "size=128k"]}),
    ]);
    std::os::unix::fs::symlink("busybox", host.path("bundle/rootfs/bin/grep")).unwrap();
    let ran = host.run("run --bundle BUNDLE ID");
    assert!(ran.stderr.contains("Read-only file system"), "{ran:?}");
    let options = ran.ok();
    assert!(options.contains(" ro,nosuid,") && options.contains("size=128k"), "{options}");
    host.spec["mounts"]
        .as_array_mut()
        .unwrap()
        .push(json!({"destination": "/tmp", "options": ["remount", "ro"]}));
    let said = host.run("run --bundle BUNDLE ID").error_message();
    assert!(said.contains("at \"/tmp\"") && said.contains("EINVAL"), "{said}");
}

#[test]
fn an_overlay_may_have_more_layers_than_an_option_has_room_for() {
    let mut host = Host::shell("cat /mnt/*");
    let layers: Vec<_> = (0..4).map(|n| host.path(&format!("{n}{}", "l".repeat(120)))).collect();
    for (number, layer) in layers.iter().enumerate() {
        fs::create_dir(layer).unwrap();
        fs::write(layer.join(number.to_string()), format!("{number}\n")).unwrap();
    }
    let list: Vec<_> = layers.iter().map(|layer| layer.to_str().unwrap()).collect();
    let option = format!("lowerdir={}", list.join(":"));
    let mount = json!({"destination": "/mnt", "type": "overlay", "source": "overlay", "options": [option]});
    host.spec["mounts"].as_array_mut().unwrap().push(mount);
    assert_eq!(host.run("run --bundle BUNDLE ID").ok(), "0\n1\n2\n3\n");
}

#[test]
fn a_source_that_is_missing_is_said_as_runc_says_it() {
    let mut host = Host::new(&["true"]);
    let mount = json!({"destination": "/mnt", "source": "/no/such", "options": ["bind"]});
    host.spec["mounts"].as_array_mut().unwrap().push(mount);
    let said = host.run("run --bundle BUNDLE ID").error_message();
    let expected =
        "error mounting \"/no/such\" to rootfs at \"/mnt\": stat /no/such: no such file or directory";
    assert!(said.ends_with(expected), "{said}");
}
