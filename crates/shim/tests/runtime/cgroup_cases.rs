// SPDX-License-Identifier: Apache-2.0
//! Cgroups as the kernel has them: limits read back, changed while a container
//! runs, counted, frozen, and removed with all that a container made below.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use berth_shim::{
    cgroup::stats::report::Report,
    runtime::{Container, Kind},
};
use oci_spec::runtime::LinuxResources;
use serde_json::{Value, json};

use crate::harness::{Bundle, pipes, reap, wait_until};

pub(crate) const ALL: &[(&str, fn())] = &[
    ("every_limit_reaches_the_kernel", every_limit_reaches_the_kernel),
    ("what_only_v1_has_is_a_warning_on_v2", what_only_v1_has_is_a_warning_on_v2),
    ("block_devices_are_limited", block_devices_are_limited),
    ("c07_processes_unset_none_and_zero_differ", c07_processes_unset_none_and_zero_differ),
    ("what_the_host_has_not_is_named", what_the_host_has_not_is_named),
    ("limits_change_while_it_runs", limits_change_while_it_runs),
    ("devices_change_while_it_runs", devices_change_while_it_runs),
    ("a_running_container_joins_a_hierarchy", a_running_container_joins_a_hierarchy),
    ("the_counters_count", the_counters_count),
    ("a_childs_death_for_memory_is_counted", a_childs_death_for_memory_is_counted),
    ("a_paused_container_stands_still_and_can_be_killed", a_paused_container_stands_still_and_can_be_killed),
    ("cgroups_made_inside_go_with_it", cgroups_made_inside_go_with_it),
    ("a_process_in_one_hierarchy_alone_ends_with_it", a_process_in_one_hierarchy_alone_ends_with_it),
];

const ROOT: &str = "/sys/fs/cgroup";

fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// The directory of a container in a v1 hierarchy, or in v2's only one.
fn dir(bundle: &Bundle, controller: &str) -> PathBuf {
    let root = if is_v2() { PathBuf::from(ROOT) } else { Path::new(ROOT).join(controller) };
    root.join(&bundle.cgroup_parent[1..]).join(bundle.id())
}

/// The content of `controller/file` of v1, or of the file of v2.
fn value(bundle: &Bundle, v1: &str, v2: &str) -> String {
    let (controller, file) = v1.split_once('/').unwrap();
    let path = dir(bundle, controller).join(if is_v2() { v2 } else { file });
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
}

fn exists(bundle: &Bundle, v1: &str, v2: &str) -> bool {
    let (controller, file) = v1.split_once('/').unwrap();
    dir(bundle, controller).join(if is_v2() { v2 } else { file }).exists()
}

fn sleeping(resources: Value) -> Bundle {
    let mut bundle = Bundle::new(&["sleep", "1000"]);
    for (name, value) in resources.as_object().unwrap() {
        bundle = bundle.set(&format!("/linux/resources/{name}"), value.clone());
    }
    bundle
}

/// Runs it until `look` has looked, and ends it.
fn while_it_runs(bundle: &Bundle, look: impl FnOnce(&mut Container)) {
    let (stdio, _streams) = pipes();
    let mut container = bundle.create(stdio).unwrap();
    container.start().unwrap();
    look(&mut container);
    container.kill(libc::SIGKILL, false).unwrap();
    assert_eq!(reap(&container), 137);
    container.cleanup().unwrap();
}

fn update(container: &mut Container, resources: Value) -> berth_shim::runtime::Result<Vec<String>> {
    let resources: LinuxResources = serde_json::from_value(resources).unwrap();
    container.update(&resources)
}

fn every_limit_reaches_the_kernel() {
    let bundle = sleeping(json!({
        "memory": {"limit": 33_554_432, "reservation": 16_777_216, "swap": 67_108_864},
        "cpu": {"shares": 512, "quota": 50_000, "period": 100_000, "burst": 10_000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 17},
    }));
    while_it_runs(&bundle, |container| {
        for (v1, v2, expected) in [
            ("memory/memory.limit_in_bytes", "memory.max", ["33554432", "33554432"]),
            ("memory/memory.soft_limit_in_bytes", "memory.low", ["16777216", "16777216"]),
            ("cpu/cpu.shares", "cpu.weight", ["512", "59"]),
            ("cpu/cpu.cfs_quota_us", "cpu.max", ["50000", "50000 100000"]),
            ("cpu/cpu.cfs_burst_us", "cpu.max.burst", ["10000", "10000"]),
            ("cpuset/cpuset.cpus", "cpuset.cpus", ["0", "0"]),
            ("cpuset/cpuset.mems", "cpuset.mems", ["0", "0"]),
            ("pids/pids.max", "pids.max", ["17", "17"]),
        ] {
            assert_eq!(value(&bundle, v1, v2), expected[usize::from(is_v2())], "{v1}");
        }
        if exists(&bundle, "memory/memory.memsw.limit_in_bytes", "memory.swap.max") {
            let swap = value(&bundle, "memory/memory.memsw.limit_in_bytes", "memory.swap.max");
            assert_eq!(swap, if is_v2() { "33554432" } else { "67108864" });
        }
        let pid = container.pid().to_string();
        for controller in ["memory", "cpu", "cpuset", "pids", "devices"] {
            let procs = fs::read_to_string(dir(&bundle, controller).join("cgroup.procs")).unwrap();
            assert_eq!(procs.trim(), pid, "{controller}");
        }
    });
}

fn what_only_v1_has_is_a_warning_on_v2() {
    let bundle = sleeping(
        json!({"memory": {"limit": 33_554_432, "swappiness": 7, "disableOOMKiller": true, "kernel": 1_048_576}}),
    );
    while_it_runs(&bundle, |container| {
        let warned = |field: &str| {
            container
                .warnings()
                .iter()
                .any(|w| w.contains(&format!("linux.resources.memory.{field} is discarded")))
        };
        // The kernel has limited itself on v1 until 5.4, and nowhere since.
        assert!(warned("kernel"), "{:?}", container.warnings());
        assert_eq!((warned("swappiness"), warned("disableOOMKiller")), (is_v2(), is_v2()));
        if !is_v2() {
            assert_eq!(value(&bundle, "memory/memory.swappiness", ""), "7");
            assert!(value(&bundle, "memory/memory.oom_control", "").starts_with("oom_kill_disable 1"));
            update(container, json!({"memory": {"disableOOMKiller": false}})).unwrap();
            assert!(value(&bundle, "memory/memory.oom_control", "").starts_with("oom_kill_disable 0"));
        }
    });
}

/// A disk of the host, as `major:minor`.
fn disk() -> Option<(i64, i64)> {
    let disks = fs::read_dir("/sys/block").ok()?.flatten();
    let numbers = disks.filter(|disk| !disk.file_name().to_string_lossy().starts_with("loop"));
    let text = numbers.filter_map(|disk| fs::read_to_string(disk.path().join("dev")).ok()).next()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn block_devices_are_limited() {
    let Some((major, minor)) = disk() else { return println!("skipped: there is no disk") };
    let throttle = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let bundle = sleeping(json!({"blockIO": {
        "throttleReadBpsDevice": throttle(1_048_576), "throttleWriteIOPSDevice": throttle(100),
    }}));
    while_it_runs(&bundle, |container| {
        let bps = value(&bundle, "blkio/blkio.throttle.read_bps_device", "io.max");
        if is_v2() {
            assert_eq!(bps, format!("{major}:{minor} rbps=1048576 wbps=max riops=max wiops=100"));
        } else {
            assert_eq!(bps, format!("{major}:{minor} 1048576"));
            let iops = value(&bundle, "blkio/blkio.throttle.write_iops_device", "");
            assert_eq!(iops, format!("{major}:{minor} 100"));
        }
        // Zero takes it away again.
        let none = json!({"blockIO": {"throttleReadBpsDevice": throttle(0), "throttleWriteIOPSDevice": throttle(0)}});
        update(container, none).unwrap();
        assert_eq!(value(&bundle, "blkio/blkio.throttle.read_bps_device", "io.max"), "");
        if exists(&bundle, "blkio/blkio.bfq.weight", "io.bfq.weight") {
            update(container, json!({"blockIO": {"weight": 300}})).unwrap();
            assert!(value(&bundle, "blkio/blkio.bfq.weight", "io.bfq.weight").ends_with("300"));
        }
    });
}

fn c07_processes_unset_none_and_zero_differ() {
    for (limit, expected) in
        [(None, "max"), (Some(-1), "max"), (Some(0), "1"), (Some(1), "1"), (Some(9), "9")]
    {
        let resources = limit.map_or(json!({}), |limit| json!({"pids": {"limit": limit}}));
        let bundle = sleeping(resources);
        while_it_runs(&bundle, |_| {
            assert_eq!(value(&bundle, "pids/pids.max", "pids.max"), expected, "{limit:?}");
        });
    }
}

fn what_the_host_has_not_is_named() {
    let cases = [
        (json!({"network": {"classID": 1_048_577}}), "linux.resources.network.classID", "net_cls"),
        (json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}), "linux.resources.hugepageLimits", ""),
        (json!({"rdma": {"none": {"hcaHandles": 1}}}), "linux.resources.rdma", ""),
        (json!({"unified": {"memory.hihg": "1"}}), "linux.resources.unified", ""),
        (
            json!({"blockIO": {"weightDevice": [{"major": 4095, "minor": 1, "weight": 10}]}}),
            "linux.resources.blockIO.weightDevice",
            "",
        ),
    ];
    for (resources, field, controller) in cases {
        if !controller.is_empty() && Path::new(ROOT).join(controller).exists() {
            println!("skipped: the host has {controller}");
            continue;
        }
        let e = sleeping(resources).error();
        assert!(matches!(e.kind(), Kind::Unsupported | Kind::InvalidSpec), "{e:?}");
        assert!(e.to_string().contains(&format!("{field}: ")), "{e}");
    }
}

fn limits_change_while_it_runs() {
    let bundle = sleeping(json!({
        "memory": {"limit": 33_554_432, "swap": 33_554_432}, "cpu": {"quota": 50_000, "period": 100_000},
    }));
    while_it_runs(&bundle, |container| {
        let memory = || value(&bundle, "memory/memory.limit_in_bytes", "memory.max");
        let quota = || value(&bundle, "cpu/cpu.cfs_quota_us", "cpu.max");
        // Above the limit of both, and below it again: either order of writes
        // alone fails in one of the directions.
        for limit in [134_217_728, 20_971_520, 67_108_864] {
            update(container, json!({"memory": {"limit": limit, "swap": limit}})).unwrap();
            assert_eq!(memory(), limit.to_string());
        }
        // What isn't named stays.
        update(container, json!({"cpu": {"period": 50_000}})).unwrap();
        assert_eq!(quota(), if is_v2() { "50000 50000" } else { "50000" });
        assert_eq!(memory(), "67108864");
        update(container, json!({"cpu": {"quota": -1}, "pids": {"limit": 5}})).unwrap();
        assert_eq!(quota(), if is_v2() { "max 50000" } else { "-1" });
        assert_eq!(value(&bundle, "pids/pids.max", "pids.max"), "5");
        // Less than is in use can't be had, and says so.
        let e =
            update(container, json!({"memory": {"limit": 4096, "swap": 4096, "checkBeforeUpdate": true}}));
        let e = e.unwrap_err().to_string();
        assert!(e.starts_with("linux.resources.memory.") && e.contains("in use"), "{e}");
        assert_eq!(memory(), "67108864");
        update(container, json!({"memory": {"limit": -1}})).unwrap();
        assert_eq!(memory(), if is_v2() { "max" } else { "9223372036854771712" });
    });
}

fn devices_change_while_it_runs() {
    if !Path::new("/dev/fuse").exists() {
        return println!("skipped: needs the kernel's fuse");
    }
    // A round is a write, which tells the test when one has been made.
    let script = "mknod /tmp/full c 1 7; mknod /tmp/fuse c 10 229
        while read line; do for d in full fuse; do (: < /tmp/$d) 2>/dev/null && echo -n \"$d \"; done; echo; done";
    let bundle = Bundle::shell(script);
    let (input, mut theirs) = std::io::pipe().unwrap();
    let (stdout, out) = std::io::pipe().unwrap();
    let (_stderr, err) = std::io::pipe().unwrap();
    let stdio =
        berth_shim::runtime::Stdio::Pipes { stdin: input.into(), stdout: out.into(), stderr: err.into() };
    let mut container = bundle.create(stdio).unwrap();
    container.start().unwrap();
    let mut lines = std::io::BufReader::new(stdout);
    let mut round = || {
        theirs.write_all(b"go\n").unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
        line.trim().to_owned()
    };
    assert_eq!(round(), "full");
    let fuse = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"});
    update(&mut container, json!({"devices": [{"allow": false, "access": "rwm"}, fuse]})).unwrap();
    assert_eq!(round(), "full fuse");
    update(&mut container, json!({"devices": []})).unwrap();
    assert_eq!(round(), "full fuse", "no rules change nothing");
    update(&mut container, json!({"devices": [{"allow": false, "access": "rwm"}]})).unwrap();
    assert_eq!(round(), "full");
    container.kill(libc::SIGKILL, false).unwrap();
    assert_eq!(reap(&container), 137);
    container.cleanup().unwrap();
}

fn a_running_container_joins_a_hierarchy() {
    let bundle = Bundle::shell("sleep 1000 & sleep 1000 & sleep 1000 & wait");
    while_it_runs(&bundle, |container| {
        wait_until("all processes", || container.pids().unwrap().len() == 4);
        // Often mounted together with cpuacct, which every container is in.
        if Path::new(ROOT).join("cpu").read_link().is_err() && !is_v2() {
            assert!(!dir(&bundle, "cpu").exists(), "only what is used is made");
        }
        update(container, json!({"cpu": {"shares": 2048}})).unwrap();
        assert_eq!(value(&bundle, "cpu/cpu.shares", "cpu.weight"), if is_v2() { "174" } else { "2048" });
        let inside = fs::read_to_string(dir(&bundle, "cpu").join("cgroup.procs")).unwrap();
        assert_eq!(inside.lines().count(), 4, "{inside:?}");
    });
}

fn the_counters_count() {
    // Busy in user space and in the kernel, with memory of its own; a share of a
    // processor that a busy host leaves it, too.
    let bundle =
        Bundle::shell("(while :; do :; done) & dd if=/dev/zero of=/dev/shm/x bs=1M count=8; sleep 1000")
            .set("/linux/resources/memory", json!({"limit": 134_217_728}))
            .set("/linux/resources/pids", json!({"limit": 50}))
            .set("/linux/resources/cpu", json!({"quota": 10_000, "period": 100_000}));
    while_it_runs(&bundle, |container| {
        let counted = |container: &Container| {
            let stats = container.stats().unwrap();
            // Each of these is counted at moments of its own.
            let by_cpu = stats.cpu.per_cpu.iter().map(|one| one.user + one.kernel).sum::<u64>();
            let used = stats.cpu.user > 0
                && stats.cpu.throttled_periods > 0
                && stats.cpu.throttled > 0
                && stats.cpu.usage > 10_000_000
                && (is_v2() || by_cpu > 10_000_000);
            // The busy one, and the other once it sleeps.
            used && stats.memory.usage.usage > 8 << 20 && stats.pids.current == 2
        };
        wait_until("work to be counted", || counted(container));
        let stats = container.stats().unwrap();
        assert!(stats.cpu.usage > 10_000_000, "{:?}", stats.cpu);
        assert!(
            stats.cpu.periods >= stats.cpu.throttled_periods && stats.cpu.throttled > 0,
            "{:?}",
            stats.cpu
        );
        assert_eq!(stats.memory.usage.limit, 134_217_728);
        assert!(stats.memory.usage.max_usage >= stats.memory.usage.usage, "{:?}", stats.memory.usage);
        assert!(stats.memory.detail.contains_key("pgfault"));
        assert_eq!((stats.pids.current, stats.pids.limit), (2, 50));
        if !is_v2() {
            assert!(stats.cpu.per_cpu.iter().map(|one| one.user + one.kernel).sum::<u64>() > 10_000_000);
        }
        // v1 alone has no pressure.
        let tree = is_v2() || Path::new(ROOT).join("unified/cgroup.procs").exists();
        if tree && fs::read("/proc/pressure/cpu").is_ok() {
            assert!(stats.cpu.pressure.is_some() && stats.memory.pressure.is_some());
        }
        let report = serde_json::to_value(Report::from(&stats)).unwrap();
        assert_eq!(report["pids"], json!({"current": 2, "limit": 50}));
        assert_eq!(report["memory"]["usage"]["limit"], 134_217_728);
    });
}

fn a_childs_death_for_memory_is_counted() {
    let script = "dd if=/dev/zero of=/dev/null bs=64M count=1; echo $?; sleep 1000";
    let bundle = Bundle::shell(script)
        .set("/linux/resources/memory", json!({"limit": 16_777_216, "swap": 16_777_216}));
    let (stdio, [stdout, _stderr]) = pipes();
    let mut container = bundle.create(stdio).unwrap();
    container.start().unwrap();
    let mut lines = std::io::BufReader::new(stdout);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
    assert_eq!(line.trim(), "137", "the child is killed, the container lives");
    assert!(container.oom_killed());
    assert_eq!(container.stats().unwrap().memory.events.oom_kill, 1);
    container.kill(libc::SIGKILL, true).unwrap();
    reap(&container);
    assert!(container.oom_killed(), "also after its end");
    container.cleanup().unwrap();
}

fn a_paused_container_stands_still_and_can_be_killed() {
    let bundle = Bundle::shell("(while :; do :; done) & while :; do :; done");
    for end in [libc::SIGKILL, 0] {
        let (stdio, _streams) = pipes();
        let mut container = bundle.create(stdio).unwrap();
        container.start().unwrap();
        container.pause().unwrap();
        let used = container.stats().unwrap().cpu.usage;
        // Time passes: this process uses some of it.
        let begin = std::time::Instant::now();
        wait_until("a tenth of a second", || begin.elapsed().as_millis() > 100);
        assert_eq!(container.stats().unwrap().cpu.usage, used, "nothing runs");
        if end == 0 {
            container.resume().unwrap();
            wait_until("it to go on", || container.stats().unwrap().cpu.usage > used);
            container.pause().unwrap();
        } else {
            container.kill(end, true).unwrap();
        }
        // Frozen or killed: nothing is left.
        container.destroy().unwrap();
        assert!(!dir(&bundle, "memory").exists());
    }
}

fn cgroups_made_inside_go_with_it() {
    let bundle = sleeping(json!({}));
    let (stdio, _streams) = pipes();
    let mut container = bundle.create(stdio).unwrap();
    container.start().unwrap();
    let mut tops = vec![dir(&bundle, "memory")];
    if !is_v2() {
        tops.push(dir(&bundle, "pids"));
        tops.extend([dir(&bundle, "unified")].into_iter().filter(|dir| dir.exists()));
    }
    let mut children = Vec::new();
    for top in &tops {
        for n in 0..500 {
            fs::create_dir_all(top.join(format!("wide-{}/{n}", n % 10))).unwrap();
        }
        let deep = (0..30).fold(top.clone(), |dir, n| dir.join(format!("deep-{n}")));
        fs::create_dir_all(&deep).unwrap();
        children.push(sleep_in(&deep));
    }
    container.kill(libc::SIGKILL, false).unwrap();
    assert_eq!(reap(&container), 137);
    container.cleanup().unwrap();
    assert!(tops.iter().all(|top| !top.exists()));
    assert!(children.iter_mut().all(|child| !child.wait().unwrap().success()));
}

fn a_process_in_one_hierarchy_alone_ends_with_it() {
    let bundle = sleeping(json!({}));
    let mut child = None;
    while_it_runs(&bundle, |_| child = Some(sleep_in(&dir(&bundle, "memory"))));
    assert!(!dir(&bundle, "memory").exists());
    child.unwrap().wait().unwrap();
}

/// A process of the host in a cgroup.
fn sleep_in(dir: &Path) -> Child {
    let enter = format!("echo $$ > {}/cgroup.procs && echo in && exec sleep 1000", dir.display());
    let mut child = Command::new("sh")
        .args(["-c", &enter])
        .process_group(0)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 3];
    child.stdout.take().unwrap().read_exact(&mut said).unwrap();
    child
}
