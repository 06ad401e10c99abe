// SPDX-License-Identifier: Apache-2.0
//! A container from its creation to its end, verb by verb.

use std::{fs, path::Path};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Host, wait_until};

#[test]
fn create_start_kill_delete() {
    let host = Host::sleeper();
    host.run("create --bundle BUNDLE --pid-file DIR/pid ID").ok();
    let pid: u32 = fs::read_to_string(host.path("pid")).unwrap().parse().unwrap();
    let state = host.state();
    assert_eq!((&state["status"], &state["pid"]), (&json!("created"), &json!(pid)));
    assert_eq!((&state["id"], &state["ociVersion"]), (&json!(host.id), &json!("1.3.0")));
    assert_eq!(state["bundle"], json!(host.path("bundle")));
    assert_eq!(state["rootfs"], json!(host.path("bundle/rootfs")));
    // Nothing of the program has been executed.
    let before = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert!(!before.ends_with("bin/busybox"), "{before:?}");
    host.run("start ID").ok();
    assert_eq!(host.status(), "running");
    assert!(fs::read_link(format!("/proc/{pid}/exe")).unwrap().ends_with("bin/busybox"));
    assert!(!host.cgroups().is_empty());
    host.run("kill ID KILL").ok();
    wait_until("the end", || host.status() == "stopped");
    assert_eq!(host.state()["pid"], json!(0));
    host.run("delete ID").ok();
    host.assert_gone();
}

#[test]
fn run_waits_and_ends_as_the_container_does() {
    let ran = Host::shell("echo out; echo err >&2; exit 3").run("run --bundle BUNDLE ID");
    assert_eq!((ran.status, ran.stdout.as_str(), ran.stderr.as_str()), (3, "out\n", "err\n"));
    let host = Host::shell("kill -9 $$; sleep 5");
    // The first process of a pid namespace can't kill itself so.
    assert_eq!(host.spawn("run --bundle BUNDLE ID").kill().map_err(|e| e.kind()), Ok(()));
}

#[test]
fn a_run_leaves_nothing_unless_it_is_kept() {
    let host = Host::new(&["true"]);
    host.run("run --bundle BUNDLE ID").ok();
    host.assert_gone();
    host.run("run --bundle BUNDLE --keep ID").ok();
    assert_eq!(host.status(), "stopped");
    host.run("delete ID").ok();
    host.assert_gone();
}

#[test]
fn a_container_that_is_killed_ends_its_run_with_137() {
    let host = Host::sleeper();
    let mut run = host.spawn("run --bundle BUNDLE ID");
    wait_until("the start", || host.run("state ID").stdout.contains("\"running\""));
    host.run("kill ID 9").ok();
    assert_eq!(run.wait().unwrap().code(), Some(137));
    host.assert_gone();
}

#[test]
fn a_foreground_run_leaves_its_container_to_other_verbs() {
    let host = Host::sleeper();
    let mut run = host.spawn("run --bundle BUNDLE ID");
    wait_until("the start", || host.run("state ID").stdout.contains("\"running\""));
    host.run("pause ID").ok();
    host.run("resume ID").ok();
    host.run("update --pids-limit 50 ID").ok();
    host.run("delete --force ID").ok();
    assert_eq!(run.wait().unwrap().code(), Some(137));
    host.assert_gone();
}

#[test]
fn signals_reach_the_container_of_a_foreground_run() {
    let host = Host::shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done");
    let mut run = host.spawn("run --bundle BUNDLE ID");
    let mut line = [0; 6];
    std::io::Read::read_exact(run.stdout.as_mut().unwrap(), &mut line).unwrap();
    assert_eq!(&line, b"ready\n");
    let pidfd = berth_shim::kernel::process::pidfd_open(run.id()).unwrap();
    let pidfd = std::os::fd::AsFd::as_fd(&pidfd);
    berth_shim::kernel::process::pidfd_send_signal(pidfd, Signal::SIGTERM as i32).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(7));
}

#[test]
fn a_detached_run_outlives_its_runtime() {
    let host = Host::sleeper();
    host.run("run --detach --bundle BUNDLE --pid-file DIR/pid ID").ok();
    assert_eq!(host.status(), "running");
    let pid = fs::read_to_string(host.path("pid")).unwrap();
    assert!(Path::new("/proc").join(&pid).exists());
    host.run("delete --force ID").ok();
    host.assert_gone();
}

#[test]
fn a_created_container_is_killed_or_deleted_as_it_is() {
    let host = Host::sleeper();
    host.run("create --bundle BUNDLE ID").ok();
    host.run("kill ID KILL").ok();
    wait_until("the end", || host.status() == "stopped");
    assert_eq!(host.run("start ID").error_message(), "cannot start a container that has stopped");
    host.run("delete ID").ok();
    host.run("create --bundle BUNDLE ID").ok();
    host.run("delete ID").ok();
    host.assert_gone();
}

#[test]
fn a_program_that_is_not_there_is_told_by_create() {
    let host = Host::new(&["nothing"]);
    let ran = host.run("create --bundle BUNDLE ID");
    assert_eq!(ran.status, 1);
    let message = ran.error_message();
    assert!(message.contains("exec: \"nothing\": executable file not found in $PATH"), "{message}");
    host.assert_gone();
}

#[test]
fn a_program_that_goes_away_is_told_by_start() {
    let host = Host::new(&["/bin/busybox", "true"]);
    host.run("create --bundle BUNDLE ID").ok();
    fs::remove_file(host.path("bundle/rootfs/bin/busybox")).unwrap();
    let message = host.run("start ID").error_message();
    assert!(message.contains("exec /bin/busybox: no such file or directory"), "{message}");
    wait_until("the end", || host.status() == "stopped");
}

#[test]
fn of_two_creations_one_wins() {
    let host = Host::sleeper();
    let both = [0, 1].map(|_| host.spawn("create --bundle BUNDLE ID"));
    let mut codes = both.map(|mut child| {
        drop((child.stdout.take(), child.stderr.take()));
        child.wait().unwrap().code()
    });
    codes.sort();
    assert_eq!(codes, [Some(0), Some(1)]);
    assert_eq!(host.status(), "created");
}

#[test]
fn hooks_run_at_their_verbs() {
    let mut host = Host::sleeper();
    let log = host.path("hooks");
    let hook = |name: &str| {
        let script =
            format!("echo {name} $(cat | tr -d ' ' | grep -o '\"status\":\"[a-z]*\"') >>{}", log.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
    };
    host.spec["hooks"] = json!({
        "createRuntime": hook("createRuntime"), "poststart": hook("poststart"), "poststop": hook("poststop"),
    });
    let lines = || fs::read_to_string(host.path("hooks")).unwrap_or_default();
    host.run("create --bundle BUNDLE ID").ok();
    assert_eq!(lines(), "createRuntime \"status\":\"creating\"\n");
    host.run("start ID").ok();
    host.run("delete --force ID").ok();
    let expected = "createRuntime \"status\":\"creating\"\npoststart \"status\":\"running\"\npoststop \"status\":\"stopped\"\n";
    assert_eq!(lines(), expected);
}

/// The program never runs, and the container can be deleted without force as
/// soon as its start has failed.
#[test]
fn a_start_whose_hook_fails_ends_the_container() {
    for moment in ["startContainer", "poststart"] {
        let mut host = Host::sleeper();
        let log = host.path("hooks");
        let fails = json!([{"path": "/bin/sh", "args": ["sh", "-c", "echo why >&2; exit 3"]}]);
        let says = |name: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("echo {name} >>{}", log.display())]}]);
        host.spec["hooks"] = json!({"poststart": says("poststart"), "poststop": says("poststop")});
        host.spec["hooks"][moment] = fails;
        host.run("create --bundle BUNDLE ID").ok();
        let message = host.run("start ID").error_message();
        let expected =
            format!("error running {moment} hook #0: /bin/sh: exit status 3, stdout: , stderr: why");
        assert!(message.ends_with(&expected), "{message}");
        host.run("delete ID").ok();
        let said = fs::read_to_string(&log).unwrap();
        assert!(said.ends_with("poststop\n"), "{said}");
    }
}

/// What oci-spec doesn't know is left out with a warning.
#[test]
fn an_unknown_capability_is_warned_of() {
    let mut host = Host::new(&["true"]);
    host.spec["process"]["capabilities"] = json!({"bounding": ["CAP_CHOWN", "CAP_NO_SUCH"]});
    let ran = host.run("run --bundle BUNDLE ID");
    assert!(
        ran.stderr.contains("ignoring unknown or unavailable capabilities: [CAP_NO_SUCH]"),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_pid_that_another_process_has_is_not_the_containers() {
    let host = Host::sleeper();
    host.run("run -d --bundle BUNDLE ID").ok();
    let path = host.path("root").join(&host.id).join("state.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut other = record.clone();
    other["init"]["start_time"] = json!(record["init"]["start_time"].as_u64().unwrap() + 1);
    fs::write(&path, other.to_string()).unwrap();
    assert_eq!(host.status(), "stopped");
    assert_eq!(host.run("kill ID").error_message(), "container not running");
    record["annotations"] = json!({"a": "b"});
    fs::write(&path, record.to_string()).unwrap();
    assert_eq!(host.state()["annotations"], json!({"a": "b"}));
    assert_eq!(host.status(), "running");
}

#[test]
fn a_root_in_the_hosts_mount_namespace_goes_with_the_container() {
    let mut host = Host::sleeper();
    host.spec["linux"]["namespaces"] = json!([]);
    host.spec["linux"]["maskedPaths"] = json!([]);
    host.spec["linux"]["readonlyPaths"] = json!([]);
    host.spec.as_object_mut().unwrap().remove("hostname");
    host.spec["mounts"] =
        json!([{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]}]);
    let rootfs = host.path("bundle/rootfs");
    let shown = || {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().filter(|line| line.contains(rootfs.to_str().unwrap())).count()
    };
    host.run("create --bundle BUNDLE ID").ok();
    // The root, /dev and /tmp.
    assert_eq!(shown(), 3);
    host.run("delete --force ID").ok();
    assert_eq!(shown(), 0);
    host.assert_gone();
    // Somebody has been there before.
    host.run("create --bundle BUNDLE ID").ok();
    nix::mount::umount2(&rootfs, nix::mount::MntFlags::MNT_DETACH).unwrap();
    host.run("delete --force ID").ok();
    host.assert_gone();
    // A creation that fails leaves none.
    host.spec["mounts"] = json!([{"destination": "/tmp", "type": "nothing", "source": "none"}]);
    assert!(host.run("create --bundle BUNDLE ID").status != 0);
    assert_eq!(shown(), 0);
}
