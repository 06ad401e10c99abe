// SPDX-License-Identifier: Apache-2.0
//! Namespaces of users, time and mounts, and processes that join a container.

use std::{fs, io::Read as _, os::fd::AsFd as _};

use berth_shim::runtime::{self, Bound, Container, Exec, Keyring, Kind, Stdio, Target};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use serde_json::{Value, json};

use crate::harness::{Bundle, pipes, reap};

/// Name and body of each.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("users_are_mapped", users_are_mapped),
    ("a_mapping_without_its_root_is_refused", a_mapping_without_its_root_is_refused),
    ("clocks_are_off_by_what_was_asked", clocks_are_off_by_what_was_asked),
    (
        "a_root_in_the_hosts_mount_namespace_is_mounted_there",
        a_root_in_the_hosts_mount_namespace_is_mounted_there,
    ),
    ("a_process_joins", a_process_joins),
    ("a_joined_process_has_the_containers_rights", a_joined_process_has_the_containers_rights),
    ("joining_needs_a_container_that_runs", joining_needs_a_container_that_runs),
    ("no_directory_outside_is_the_working_one", no_directory_outside_is_the_working_one),
    ("a_leaf_is_killed_as_a_whole_and_goes", a_leaf_is_killed_as_a_whole_and_goes),
    ("many_join_and_nothing_grows", many_join_and_nothing_grows),
];

pub(crate) fn with_namespace(bundle: Bundle, namespace: Value) -> Bundle {
    let mut bundle = bundle;
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(namespace);
    bundle
}

pub(crate) fn mapped(script: &str) -> Bundle {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let bundle = Bundle::shell(script).set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    // The bundle's own directory lets only its owner in.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bundle.dir.path(), open).unwrap();
    with_namespace(bundle, json!({"type": "user"}))
}

fn users_are_mapped() {
    let said = mapped("cat /proc/self/uid_map; id -u; touch /tmp/x 2>/dev/null || echo foreign; grep CapEff /proc/self/status").output();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    // The root file system is the host root's, who has no id in there.
    assert_eq!(lines[1..3], ["0", "foreign"]);
}

fn a_mapping_without_its_root_is_refused() {
    let e =
        mapped("true").set("/linux/gidMappings", json!([{"containerID": 1, "hostID": 5, "size": 1}])).error();
    assert_eq!(e.kind(), Kind::InvalidSpec);
    assert!(e.to_string().starts_with("linux.gidMappings"), "{e}");
}

fn clocks_are_off_by_what_was_asked() {
    let offsets = json!({"monotonic": {"secs": 1_000_000}, "boottime": {"secs": 2_000_000}});
    let bundle =
        Bundle::shell("cat /proc/self/timens_offsets /proc/uptime").set("/linux/timeOffsets", offsets);
    let said = with_namespace(bundle, json!({"type": "time"})).output();
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!(words[..6], ["monotonic", "1000000", "0", "boottime", "2000000", "0"]);
    assert!(words[6].parse::<f64>().unwrap() > 2_000_000.0, "{said}");
}

fn a_root_in_the_hosts_mount_namespace_is_mounted_there() {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut bundle = Bundle::shell("readlink /proc/self/ns/mnt; grep -c bundle/rootfs /proc/self/mountinfo");
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|n| n["type"] != "mount");
    // Without one of its own it has the host's, and yet its own root.
    let own = fs::read_link("/proc/self/ns/mnt").unwrap();
    let output = bundle.run().unwrap();
    assert_eq!(output.stdout.lines().next(), own.to_str(), "{output:?}");
    // Which is gone with it.
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
}

/// A container that waits to be ended.
pub(crate) struct Running {
    pub(crate) bundle: Bundle,
    pub(crate) container: Container,
}

impl Running {
    pub(crate) fn new(bundle: Bundle) -> Self {
        let (stdio, _ends) = pipes();
        let mut container = bundle.create(stdio).unwrap();
        container.start().unwrap();
        Self { bundle, container }
    }

    pub(crate) fn process(&self, script: &str) -> oci_spec::runtime::Process {
        let mut process = self.bundle.spec["process"].clone();
        process["args"] = json!(["sh", "-c", script]);
        serde_json::from_value(process).unwrap()
    }

    pub(crate) fn join(
        &self,
        process: oci_spec::runtime::Process,
        leaf: Option<&str>,
    ) -> Result<(i32, String), runtime::Error> {
        let (stdio, [stdout, _stderr]) = pipes();
        let joined = self.begin(process, leaf, stdio)?;
        Ok(end_of(joined, stdout))
    }

    /// As a user that is looked up in the container.
    pub(crate) fn join_as(
        &self,
        user: &str,
        process: oci_spec::runtime::Process,
    ) -> Result<(i32, String), runtime::Error> {
        let (stdio, [stdout, _stderr]) = pipes();
        let joined = self.begin_as(user, process, None, stdio)?;
        Ok(end_of(joined, stdout))
    }

    pub(crate) fn begin(
        &self,
        process: oci_spec::runtime::Process,
        leaf: Option<&str>,
        stdio: Stdio,
    ) -> Result<runtime::Joined, runtime::Error> {
        self.begin_as("", process, leaf, stdio)
    }

    fn begin_as(
        &self,
        user: &str,
        process: oci_spec::runtime::Process,
        leaf: Option<&str>,
        stdio: Stdio,
    ) -> Result<runtime::Joined, runtime::Error> {
        let spec = runtime::spec::read(self.bundle.spec.to_string().as_bytes()).unwrap().value;
        let (pid, cgroups) = (self.container.pid(), self.bundle.cgroups());
        let (id, bundle) = (self.bundle.id(), self.bundle.dir.path());
        let target =
            Target { id, bundle, pid, pidfd: self.container.pidfd(), spec: &spec, cgroups: &cgroups };
        let (bound, keyring) = (Bound::ToUs, Keyring::New);
        runtime::exec(Exec {
            target,
            process,
            user,
            stdio,
            bound,
            preserve_fds: 0,
            keyring,
            leaf,
            inside: &[],
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.container.kill(9, true);
        reap(&self.container);
        self.container.cleanup().unwrap();
    }
}

fn end_of(mut joined: runtime::Joined, mut stdout: std::io::PipeReader) -> (i32, String) {
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    let status = status_of(&joined);
    joined.cleanup();
    (status, text)
}

pub(crate) fn status_of(joined: &runtime::Joined) -> i32 {
    match waitid(Id::PIDFd(joined.pidfd().as_fd()), WaitPidFlag::WEXITED).unwrap() {
        nix::sys::wait::WaitStatus::Exited(_, code) => code,
        nix::sys::wait::WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        other => panic!("{other:?}"),
    }
}

fn a_process_joins() {
    let running = Running::new(Bundle::shell("echo here > /tmp/mark; exec sleep 1000"));
    let script = "while ! cat /tmp/mark 2>/dev/null; do :; done; hostname; readlink /proc/1/exe; cat /proc/self/cgroup | head -1; exit 7";
    let (status, said) = running.join(running.process(script), None).unwrap();
    assert_eq!(status, 7);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "here");
    assert_eq!(lines[2], "/bin/busybox");
    // Its own view begins at the container's cgroup, in the container's namespace.
    assert!(lines[3].ends_with(":/"), "{said}");
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let (_, said) = running
            .join(running.process(&format!("readlink /proc/self/ns/{kind} /proc/1/ns/{kind}")), None)
            .unwrap();
        let mut links = said.lines();
        assert_eq!(links.next(), links.next(), "{kind}");
    }
    let e =
        running.join(running.process("").set_args(Some(vec!["none".to_owned()])).clone(), None).unwrap_err();
    assert_eq!(e.kind(), Kind::ExecNotFound);
}

fn a_joined_process_has_the_containers_rights() {
    let running = Running::new(Bundle::new(&["sleep", "1000"]));
    let look = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; ls /proc/self/fd | head -4";
    let (_, joined) = running.join(running.process(look), None).unwrap();
    let first = Bundle::shell(look).output();
    assert_eq!(joined, first);
    // Whom it doesn't name it can't look into, nor what the runtime has open.
    let (_, said) = running.join(running.process("ls -l /proc/self/fd"), None).unwrap();
    assert!(!said.contains("/proc/") || !said.contains("cgroup"), "{said}");
}

fn joining_needs_a_container_that_runs() {
    let running = Running::new(Bundle::new(&["true"]));
    let mut set = [nix::poll::PollFd::new(running.container.pidfd(), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut set, nix::poll::PollTimeout::NONE).unwrap();
    let e = running.join(running.process("true"), None).unwrap_err();
    assert_eq!(e.kind(), Kind::NotRunning, "{e}");
}

/// R10: a descriptor of the runtime's, or a link, as the working directory.
fn no_directory_outside_is_the_working_one() {
    let running = Running::new(Bundle::new(&["sleep", "1000"]));
    for number in 0..20 {
        let mut process = running.process("pwd; ls /");
        process.set_cwd(format!("/proc/self/fd/{number}").into());
        if let Ok((0, said)) = running.join(process, None) {
            assert!(said.contains("busybox") || said.lines().any(|l| l == "bin"), "{number}: {said}");
        }
    }
}

fn a_leaf_is_killed_as_a_whole_and_goes() {
    let running = Running::new(Bundle::new(&["sleep", "1000"]));
    let (stdio, [mut stdout, _stderr]) = pipes();
    let mut joined = running
        .begin(running.process("setsid sleep 1000 & echo up; exec sleep 1000"), Some("exec-1"), stdio)
        .unwrap();
    let mut up = [0; 3];
    stdout.read_exact(&mut up).unwrap();
    joined.kill(9, true).unwrap();
    assert_eq!(status_of(&joined), 128 + 9);
    // The one in a session of its own has the pipe open: it has ended, too.
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    joined.cleanup();
    let left = nix::poll::PollTimeout::ZERO;
    let mut set = [nix::poll::PollFd::new(running.container.pidfd(), nix::poll::PollFlags::POLLIN)];
    assert_eq!(nix::poll::poll(&mut set, left).unwrap(), 0, "the container goes on");
}

fn many_join_and_nothing_grows() {
    let running = Running::new(Bundle::new(&["sleep", "1000"]));
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let (status, _) = running.join(running.process("true"), Some("exec-0")).unwrap();
    assert_eq!(status, 0);
    let before = open();
    for number in 0..50 {
        running.join(running.process("true"), Some(&format!("exec-{number}"))).unwrap();
    }
    assert_eq!(open(), before);
}
