// SPDX-License-Identifier: Apache-2.0
//! Containers in units of a real systemd: the host's, where it runs; else a
//! user's manager of our own, which needs no booted system, only a cgroup and
//! a mount namespace.

use std::{
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use berth_shim::{
    cgroup::{Driver, Layout, Placement},
    runtime,
};
use serde_json::json;

use crate::harness::{Bundle, pipes, reap, wait_until};

pub(crate) const ALL: &[(&str, fn())] = &[
    ("a_unit_of_systemd_holds_the_container", a_unit_of_systemd_holds_the_container),
    (
        "a_unit_goes_with_a_container_that_could_not_be_made",
        a_unit_goes_with_a_container_that_could_not_be_made,
    ),
];

const PROGRAM: &str = "/lib/systemd/systemd";

/// A systemd, and the cgroup that its units are in.
struct Systemd {
    own: Option<Own>,
    cgroup: String,
}

/// A process of ours.
struct Own {
    process: Child,
    dir: tempfile::TempDir,
}

impl Systemd {
    fn start() -> Option<Self> {
        if Path::new("/run/systemd/system").exists() {
            return Some(Self { own: None, cgroup: String::new() });
        }
        let Some(tree) = tracking_trees().into_iter().next().filter(|_| Path::new(PROGRAM).exists()) else {
            println!("skipped: needs systemd, and a cgroup tree for it");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let cgroup = format!("berth-runtime-systemd-{}", std::process::id());
        fs::create_dir_all(tree.join(&cgroup)).unwrap();
        let enter: String = tracking_trees()
            .iter()
            .map(|tree| {
                format!("mkdir -p {0} && echo $$ > {0}/cgroup.procs && ", tree.join(&cgroup).display())
            })
            .collect();
        // A user's manager looks for this directory of a booted system.
        let script = format!(
            "{enter} exec unshare -m sh -c 'mount -t tmpfs none /run/systemd && mkdir /run/systemd/system && exec {PROGRAM} --user'"
        );
        let process = Command::new("sh")
            .args(["-c", &script])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("XDG_RUNTIME_DIR", dir.path())
            .env("SYSTEMD_LOG_TARGET", "console")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let systemd = Self { own: Some(Own { process, dir }), cgroup: format!("/{cgroup}") };
        wait_until("systemd", || systemd.show("", "ControlGroup") == systemd.cgroup);
        Some(systemd)
    }

    /// A property of a unit, or of systemd itself.
    fn show(&self, unit: &str, property: &str) -> String {
        let mut show = Command::new("systemctl");
        if let Some(own) = &self.own {
            show.arg("--user").env("XDG_RUNTIME_DIR", own.dir.path());
        }
        show.args(["show", "--value", "-p", property]);
        if !unit.is_empty() {
            show.arg(unit);
        }
        String::from_utf8(show.stderr(Stdio::null()).output().unwrap().stdout).unwrap().trim().to_owned()
    }

    /// As `linux.cgroupsPath` places a container; of a user's manager only
    /// its user could ask.
    fn placement(&self, slice: &str, path: &str, prefix: &str, name: &str) -> Placement {
        let Some(own) = &self.own else {
            let path = format!("{slice}:{prefix}:{name}");
            return Placement::of_spec(&Layout::of_host().unwrap(), Driver::Systemd, &path, "").unwrap();
        };
        let unit = format!("{prefix}-{name}.scope");
        let manager = json!({"cgroup": self.cgroup[1..], "socket": own.dir.path().join("systemd/private")});
        serde_json::from_value(json!({
            "path": format!("{}/{path}/{unit}", &self.cgroup[1..]),
            "scope": {"unit": unit, "slice": slice, "manager": {"user": manager}},
        }))
        .unwrap()
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let Some(own) = &mut self.own else { return };
        let _ = own.process.kill();
        let _ = own.process.wait();
        for tree in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let top = tree.path().join(&self.cgroup[1..]);
            if let Ok(mut kill) = fs::OpenOptions::new().write(true).open(top.join("cgroup.kill")) {
                let _ = kill.write_all(b"1");
            }
            wait_until("the cgroups of systemd to go", || remove(&top));
        }
    }
}

/// Whether nothing is left of it.
fn remove(dir: &Path) -> bool {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove(&entry.path());
    }
    let _ = fs::remove_dir(dir);
    !dir.exists()
}

/// The trees that systemd finds its processes in.
fn tracking_trees() -> Vec<PathBuf> {
    let trees = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"].map(PathBuf::from);
    trees.into_iter().filter(|tree| tree.join("cgroup.procs").exists()).collect()
}

fn a_unit_of_systemd_holds_the_container() {
    let Some(systemd) = Systemd::start() else { return };
    let (slice, unit) = ("berth-test.slice", "docker-1.scope");
    let path = "berth.slice/berth-test.slice";
    let mut bundle = Bundle::new(&["sleep", "1000"])
        .set("/linux/resources/memory", json!({"limit": 33_554_432}))
        .set("/linux/resources/pids", json!({"limit": 17}))
        .set("/linux/resources/cpu", json!({"quota": 12_345, "period": 100_000, "cpus": "0"}));
    bundle.placement = Some(systemd.placement(slice, path, "docker", "1"));
    let (stdio, _streams) = pipes();
    let mut container = bundle.create(stdio).unwrap();
    container.start().unwrap();
    let expected = format!("{}/{path}/{unit}", systemd.cgroup);
    // In systemd's tree, and in those of the limits.
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let trees: &[_] =
        if v2 { &["0::"] } else { &["0::", ":name=systemd:", ":memory:", ":pids:", ":cpuset:"] };
    // Without a v2 tree the process is in its root.
    let unified = v2 || Path::new("/sys/fs/cgroup/unified").exists();
    for tree in trees.iter().filter(|tree| **tree != "0::" || unified) {
        assert!(cgroups.contains(&format!("{tree}{expected}\n")), "{tree} in {cgroups}");
    }
    let (limit, property) = if v2 {
        (format!("/sys/fs/cgroup{expected}/memory.max"), "MemoryMax")
    } else {
        (format!("/sys/fs/cgroup/memory{expected}/memory.limit_in_bytes"), "MemoryLimit")
    };
    assert_eq!(fs::read_to_string(&limit).unwrap().trim(), "33554432");
    // Nobody but the container is in it.
    assert_eq!(container.pids().unwrap(), [container.pid()]);
    for (property, value) in [
        ("ActiveState", "active"),
        ("ControlGroup", expected.as_str()),
        ("Slice", slice),
        ("Delegate", "yes"),
        (property, "33554432"),
        ("TasksMax", "17"),
        ("CPUQuotaPerSecUSec", "130ms"),
        ("AllowedCPUs", "0"),
    ] {
        assert_eq!(systemd.show(unit, property), value, "{property}");
    }
    let resources = serde_json::from_value(json!({"memory": {"limit": 67_108_864}, "pids": {"limit": -1}}));
    container.update(&resources.unwrap()).unwrap();
    assert_eq!(systemd.show(unit, property), "67108864");
    assert_eq!(systemd.show(unit, "TasksMax"), "infinity");
    assert_eq!(fs::read_to_string(&limit).unwrap().trim(), "67108864");
    container.kill(libc::SIGKILL, false).unwrap();
    assert_eq!(reap(&container), 137);
    container.cleanup().unwrap();
    assert!(!Path::new(&limit).exists());
    assert_eq!(systemd.show(unit, "LoadState"), "not-found");
    // Another process, which knows no more than what was written down.
    runtime::cleanup_dead(&bundle.cgroups()).unwrap();
}

fn a_unit_goes_with_a_container_that_could_not_be_made() {
    let Some(systemd) = Systemd::start() else { return };
    let unit = "berth-x.scope";
    let placement = systemd.placement("user.slice", "user.slice", "berth", "x");
    let mut refused = Bundle::new(&["true"]).set("/linux/resources/unified", json!({"memory.hihg": "1"}));
    refused.placement = Some(placement.clone());
    let e = refused.error().to_string();
    assert!(e.contains("linux.resources.unified"), "{e}");
    assert_eq!(systemd.show(unit, "LoadState"), "not-found");
    // Of two containers in one place the second is refused, the first lives.
    let bundle = || {
        let mut bundle = Bundle::new(&["sleep", "1000"]);
        bundle.placement = Some(placement.clone());
        bundle
    };
    let (first, second) = (bundle(), bundle());
    let (stdio, _streams) = pipes();
    let mut container = first.create(stdio).unwrap();
    let e = second.error().to_string();
    assert!(e.contains("is not empty"), "{e}");
    assert_eq!(systemd.show(unit, "ActiveState"), "active");
    container.destroy().unwrap();
}
