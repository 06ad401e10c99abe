// SPDX-License-Identifier: Apache-2.0
//! `exec`: more processes in a container that runs.

use std::fs;

use serde_json::json;

use crate::harness::{Host, wait_until};

fn running() -> Host {
    let host = Host::sleeper();
    host.run("run -d --bundle BUNDLE ID").ok();
    host
}

#[test]
fn a_process_joins_all_of_the_container() {
    let host = running();
    let pid = host.state()["pid"].as_u64().unwrap();
    let own = host.run("exec ID ls -l /proc/self/ns").ok();
    for kind in ["ipc", "mnt", "net", "pid", "uts"] {
        let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert!(own.contains(link.to_str().unwrap()), "{kind}: {own}");
    }
    let inits = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert_eq!(host.run("exec ID cat /proc/self/cgroup").ok(), inits);
    // The specification's, as for the first process.
    let limits = host.run("exec ID cat /proc/self/limits").ok();
    assert!(limits.lines().any(|l| l.starts_with("Max open files") && l.contains("1024")), "{limits}");
    let status = host.run("exec ID cat /proc/self/status").ok();
    let of_init = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for field in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:"] {
        let line = |text: &str| text.lines().find(|line| line.starts_with(field)).unwrap().to_owned();
        assert_eq!(line(&status), line(&of_init));
    }
}

#[test]
fn its_exit_code_is_the_programs_or_255() {
    let host = running();
    fs::write(host.path("bundle/rootfs/bin/fail"), "#!/bin/sh\nexit 9\n").unwrap();
    assert_eq!(host.run("exec ID sh /bin/fail").status, 9);
    let ran = host.run("exec ID nothing");
    assert_eq!(ran.status, 255);
    let message = ran.error_message();
    assert!(message.contains("exec: \"nothing\": executable file not found in $PATH"), "{message}");
    let ran = host.run("exec ID /bin/fail");
    assert_eq!(ran.status, 255);
    assert!(ran.error_message().contains("permission denied"));
}

#[test]
fn flags_change_the_process() {
    let host = running();
    let output = host
        .run("exec --user 7:8 --additional-gids 9 --cwd /tmp --env A=b ID sh -c id;pwd;echo${IFS}$A")
        .ok();
    assert!(output.starts_with("uid=7 gid=8 groups="), "{output}");
    assert!(output.ends_with("9\n/tmp\nb\n"), "{output}");
    for bad in ["root", "-1", "4294967296", "1:x"] {
        let ran = host.run(&format!("exec --user={bad} ID true"));
        assert_eq!(ran.status, 255, "{bad}");
    }
}

#[test]
fn a_process_comes_out_of_a_file() {
    let host = running();
    let mut process = host.spec["process"].clone();
    process["args"] = json!(["sh", "-c", "echo $X; exit 6"]);
    process["env"] = json!(["PATH=/bin", "X=file"]);
    fs::write(host.path("process.json"), process.to_string()).unwrap();
    let ran = host.run("exec --process DIR/process.json ID");
    assert_eq!((ran.status, ran.stdout.as_str()), (6, "file\n"));
}

#[test]
fn a_detached_one_goes_on_by_itself() {
    let host = running();
    host.run("exec --detach --pid-file DIR/pid ID sleep 66").ok();
    let pid = fs::read_to_string(host.path("pid")).unwrap();
    wait_until("the program", || {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap() == "sleep\x0066\0"
    });
    assert!(host.run("ps ID").ok().contains("sleep 66"));
}

#[test]
fn only_a_container_that_runs_takes_one() {
    let host = running();
    host.run("pause ID").ok();
    let why = "exec failed: cannot exec in a paused container (use --ignore-paused to override)";
    assert_eq!(host.run("exec ID true").error_message(), why);
    host.run("resume ID").ok();
    host.run("exec ID true").ok();
    let why = "exec failed: process args cannot be empty";
    assert_eq!(host.run("exec ID").error_message(), why);
    host.run("kill ID KILL").ok();
    wait_until("the end", || host.status() == "stopped");
    let why = "exec failed: container not running";
    assert_eq!(host.run("exec ID true").error_message(), why);
}

#[test]
fn nothing_of_the_host_comes_along() {
    let host = running();
    // The last is the directory that ls reads.
    assert_eq!(host.run("exec ID ls /proc/self/fd").ok(), "0\n1\n2\n3\n");
    for number in 0..12 {
        let ran = host.run(&format!("exec --cwd /proc/self/fd/{number} ID true"));
        assert_eq!(ran.status, 255, "{number}: a descriptor is no directory of the container's");
    }
}
