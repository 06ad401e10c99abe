// SPDX-License-Identifier: Apache-2.0
//! Containers in units of a real systemd: a user's manager, which needs no
//! booted system, only a cgroup and a mount namespace of its own.

use std::{
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use berth_shim::{cgroup::Placement, runtime};
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

/// A systemd of our own, and where it is.
struct Systemd {
    process: Child,
    dir: tempfile::TempDir,
    cgroup: String,
}

impl Systemd {
    fn start() -> Option<Self> {
        let booted = Path::new("/run/systemd/system").exists();
        let Some(tree) =
            tracking_trees().into_iter().next().filter(|_| Path::new(PROGRAM).exists() && !booted)
        else {
            println!("skipped: needs systemd, installed and not running, and a cgroup tree for it");
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
        let systemd = Self { process, dir, cgroup };
        wait_until("systemd", || systemd.show("", "ControlGroup") == format!("/{}", systemd.cgroup));
        Some(systemd)
    }

    /// A property of a unit, or of systemd itself.
    fn show(&self, unit: &str, property: &str) -> String {
        let mut show = Command::new("systemctl");
        show.args(["--user", "show", "--value", "-p", property]).env("XDG_RUNTIME_DIR", self.dir.path());
        if !unit.is_empty() {
            show.arg(unit);
        }
        String::from_utf8(show.stderr(Stdio::null()).output().unwrap().stdout).unwrap().trim().to_owned()
    }

    /// As `linux.cgroupsPath` = `slice:prefix:name` gives it to this user.
    fn placement(&self, slice: &str, path: &str, unit: &str) -> Placement {
        let manager = json!({"cgroup": self.cgroup, "socket": self.dir.path().join("systemd/private")});
        serde_json::from_value(json!({
            "path": format!("{}/{path}/{unit}", self.cgroup),
            "scope": {"unit": unit, "slice": slice, "manager": {"user": manager}},
        }))
        .unwrap()
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        for tree in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let top = tree.path().join(&self.cgroup);
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
    bundle.placement = Some(systemd.placement(slice, path, unit));
    let (stdio, _streams) = pipes();
    let mut container = bundle.create(stdio).unwrap();
    container.start().unwrap();
    let expected = format!("/{}/{path}/{unit}", systemd.cgroup);
    // In systemd's tree, and in those of the limits.
    let cgroups = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).unwrap();
    for tree in ["0::", ":name=systemd:", ":memory:", ":pids:", ":cpu:"] {
        assert!(cgroups.contains(&format!("{tree}{expected}\n")), "{tree} in {cgroups}");
    }
    let limit = format!("/sys/fs/cgroup/memory{expected}/memory.limit_in_bytes");
    assert_eq!(fs::read_to_string(&limit).unwrap().trim(), "33554432");
    // Nobody but the container is in it.
    assert_eq!(container.pids().unwrap(), [container.pid()]);
    for (property, value) in [
        ("ActiveState", "active"),
        ("ControlGroup", expected.as_str()),
        ("Slice", slice),
        ("Delegate", "yes"),
        ("MemoryLimit", "33554432"),
        ("TasksMax", "17"),
        ("CPUQuotaPerSecUSec", "130ms"),
        ("AllowedCPUs", "0"),
    ] {
        assert_eq!(systemd.show(unit, property), value, "{property}");
    }
    let resources = serde_json::from_value(json!({"memory": {"limit": 67_108_864}, "pids": {"limit": -1}}));
    container.update(&resources.unwrap()).unwrap();
    assert_eq!(systemd.show(unit, "MemoryLimit"), "67108864");
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
    let placement = systemd.placement("user.slice", "user.slice", unit);
    let mut refused = Bundle::new(&["true"]).set("/linux/resources/unified", json!({"memory.high": "1"}));
    refused.placement = Some(placement.clone());
    assert!(refused.error().to_string().contains("linux.resources.unified"), "v1");
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
