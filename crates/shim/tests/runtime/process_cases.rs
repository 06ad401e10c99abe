// SPDX-License-Identifier: Apache-2.0
//! Fields of `process`, and of `linux` that are about it: what the kernel says
//! of the process that runs.

use std::{fs, io::Read as _};

use berth_shim::runtime::{Kind, Stdio};
use serde_json::{Value, json};

use crate::harness::{Bundle, in_a_child, pipes, reap};

/// Name and body of each.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("a_scheduler_is_set", a_scheduler_is_set),
    ("input_and_output_have_a_priority", input_and_output_have_a_priority),
    ("a_personality_is_set", a_personality_is_set),
    ("memory_has_a_policy", memory_has_a_policy),
    ("a_terminal_has_the_size_of_the_specification", a_terminal_has_the_size_of_the_specification),
    ("the_five_sets_are_set", the_five_sets_are_set),
    ("capabilities_that_nobody_has_are_warned_of", capabilities_that_nobody_has_are_warned_of),
    ("the_mask_is_given_or_inherited", the_mask_is_given_or_inherited),
    ("limits_are_as_given_or_refused", limits_are_as_given_or_refused),
    ("a_score_is_inherited_or_set", a_score_is_inherited_or_set),
    ("groups_are_added", groups_are_added),
    ("labels_need_their_module", labels_need_their_module),
    ("network_devices_move_in", network_devices_move_in),
    ("caches_need_their_file_system", caches_need_their_file_system),
    ("the_hosts_namespaces_are_not_changed", the_hosts_namespaces_are_not_changed),
    ("names_of_the_host", names_of_the_host),
    (
        "a_container_without_a_process_is_created_but_not_started",
        a_container_without_a_process_is_created_but_not_started,
    ),
    ("a_filter_that_is_handed_over_is_installed", a_filter_that_is_handed_over_is_installed),
    ("wrong_processes_are_refused_by_name", wrong_processes_are_refused_by_name),
];

/// The first process is the program itself, not a shell.
fn with(pointer: &str, value: Value, args: &[&str]) -> Bundle {
    Bundle::new(args).set(pointer, value)
}

/// A field of /proc/self/stat, by its number in proc(5).
fn stat_field(stat: &str, number: usize) -> i64 {
    let rest = stat.rsplit_once(") ").unwrap().1;
    rest.split(' ').nth(number - 3).unwrap().trim().parse().unwrap()
}

fn status_field(status: &str, name: &str) -> String {
    let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name}"));
    line.split_once('\t').unwrap().1.to_owned()
}

fn a_scheduler_is_set() {
    let stat = |scheduler: Value| with("/process/scheduler", scheduler, &["cat", "/proc/self/stat"]);
    let batch = stat(json!({"policy": "SCHED_BATCH", "nice": 5})).output();
    assert_eq!((stat_field(&batch, 41), stat_field(&batch, 19)), (3, 5));
    let fast = stat(json!({"policy": "SCHED_OTHER", "nice": -7})).output();
    assert_eq!((stat_field(&fast, 41), stat_field(&fast, 19)), (0, -7));
    assert_eq!(stat_field(&stat(json!({"policy": "SCHED_IDLE"})).output(), 41), 5);
    // Its children don't inherit what is better than usual.
    let fast = json!({"policy": "SCHED_OTHER", "nice": -7, "flags": ["SCHED_FLAG_RESET_ON_FORK"]});
    let both =
        with("/process/scheduler", fast, &["sh", "-c", "cat /proc/$$/stat; cat /proc/self/stat; true"]);
    let nice: Vec<_> = both.output().lines().map(|stat| stat_field(stat, 19)).collect();
    assert_eq!(nice, [-7, 0]);
    // A cgroup without a budget for it refuses real time; the field is named.
    let fifo = json!({"policy": "SCHED_FIFO", "priority": 3});
    match stat(fifo).run() {
        Ok(output) => assert_eq!((stat_field(&output.stdout, 41), stat_field(&output.stdout, 40)), (1, 3)),
        Err(e) => assert!(e.to_string().starts_with("process.scheduler: sched_setattr("), "{e}"),
    }
    let e = stat(json!({"policy": "SCHED_ISO"})).error();
    assert_eq!(e.kind(), Kind::Unsupported, "{e}");
}

fn input_and_output_have_a_priority() {
    let of = |class: &str, priority: u32| {
        with("/process/ioPriority", json!({"class": class, "priority": priority}), &["busybox", "ionice"])
            .output()
    };
    assert_eq!(of("IOPRIO_CLASS_IDLE", 0).trim(), "idle");
    assert_eq!(of("IOPRIO_CLASS_BE", 6).trim(), "best-effort: prio 6");
    assert_eq!(of("IOPRIO_CLASS_RT", 2).trim(), "realtime: prio 2");
}

fn a_personality_is_set() {
    let of = |domain: &str| {
        with("/linux/personality", json!({"domain": domain}), &["busybox", "uname", "-m"]).output()
    };
    assert_eq!(of("LINUX").trim(), std::env::consts::ARCH);
    if cfg!(target_arch = "x86_64") {
        assert_eq!(of("LINUX32").trim(), "i686");
    }
    let flags = json!({"domain": "LINUX", "flags": ["STICKY_TIMEOUTS"]});
    assert_eq!(with("/linux/personality", flags, &["true"]).error().kind(), Kind::Unsupported);
}

fn memory_has_a_policy() {
    let of =
        |policy: Value| with("/linux/memoryPolicy", policy, &["head", "-n", "1", "/proc/self/numa_maps"]);
    let maps = of(json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]})).output();
    assert!(maps.contains(" bind=static:0 "), "{maps}");
    let maps = of(json!({"mode": "MPOL_INTERLEAVE", "nodes": "0"})).output();
    assert!(maps.contains(" interleave:0 "), "{maps}");
    assert!(of(json!({"mode": "MPOL_DEFAULT"})).output().contains(" default "));
    let e = of(json!({"mode": "MPOL_BIND", "nodes": "4000"})).error().to_string();
    assert!(e.starts_with("linux.memoryPolicy: set_mempolicy("), "{e}");
}

fn a_terminal_has_the_size_of_the_specification() {
    let size = |rows, columns| {
        let bundle = with("/process/consoleSize", json!({"height": 33, "width": 111}), &["stty", "size"])
            .set("/process/terminal", json!(true));
        let mut container = bundle.create(Stdio::Terminal { rows, columns, plain: false }).unwrap();
        let console = container.take_console().unwrap();
        container.start().unwrap();
        assert_eq!(reap(&container), 0);
        let mut text = [0; 64];
        let n = fs::File::from(console).read(&mut text).unwrap();
        container.cleanup().unwrap();
        String::from_utf8_lossy(&text[..n]).trim().to_owned()
    };
    assert_eq!(size(0, 0), "33 111");
    // Whoever holds the terminal knows better.
    assert_eq!(size(5, 6), "5 6");
    // Without a terminal there is nothing to say of its size.
    with("/process/consoleSize", json!({"height": 70_000, "width": 1}), &["true"]).output();
}

fn the_five_sets_are_set() {
    let sets = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
        "inheritable": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "ambient": ["CAP_CHOWN"],
    });
    // What execve leaves of them for a user other than root is the ambient set.
    let status = with("/process/capabilities", sets, &["cat", "/proc/self/status"])
        .set("/process/user", json!({"uid": 1000, "gid": 1000}))
        .output();
    let set = |name: &str| u64::from_str_radix(&status_field(&status, name), 16).unwrap();
    let (chown, kill, setuid, raw) = (1, 1 << 5, 1 << 7, 1 << 13);
    assert_eq!(set("CapBnd"), chown | kill | setuid | raw);
    assert_eq!(set("CapInh"), chown | kill);
    assert_eq!(set("CapAmb"), chown);
    assert_eq!((set("CapEff"), set("CapPrm")), (chown, chown));
}

fn capabilities_that_nobody_has_are_warned_of() {
    let sets = json!({
        "bounding": ["CAP_CHOWN", "CAP_NO_SUCH", "CAP_SYS_RESOURCE"],
        "permitted": ["CAP_CHOWN", "CAP_SYS_RESOURCE"],
        "effective": ["CAP_CHOWN", "CAP_SYS_RESOURCE"],
        "inheritable": ["CAP_KILL"],
        "ambient": ["CAP_CHOWN"],
    });
    let bundle = with("/process/capabilities", sets, &["cat", "/proc/self/status"]);
    let (stdio, [mut stdout, _stderr]) = pipes();
    let mut container = bundle.create(stdio).unwrap();
    container.start().unwrap();
    let mut status = String::new();
    stdout.read_to_string(&mut status).unwrap();
    reap(&container);
    container.cleanup().unwrap();
    let own = status_field(&fs::read_to_string("/proc/self/status").unwrap(), "CapPrm");
    let has_resource = u64::from_str_radix(&own, 16).unwrap() & 1 << 24 != 0;
    // What is inheritable has to be in the bounding set.
    let mut expected = vec!["CAP_KILL"];
    expected.extend((!has_resource).then_some("CAP_SYS_RESOURCE"));
    let granted = u64::from_str_radix(&status_field(&status, "CapEff"), 16).unwrap();
    assert_eq!(granted & (1 | 1 << 24), if has_resource { 1 | 1 << 24 } else { 1 });
    let warning = format!("ignoring unknown or unavailable capabilities: [{}]", expected.join(" "));
    assert!(container.warnings().contains(&warning), "{:?}", container.warnings());
    assert!(bundle.reading_warnings().iter().any(|w| w.contains("CAP_NO_SUCH")));
}

fn the_mask_is_given_or_inherited() {
    let user = |umask: u32| json!({"uid": 0, "gid": 0, "umask": umask});
    assert_eq!(with("/process/user", user(0o77), &["sh", "-c", "umask"]).output(), "0077\n");
    let own = nix::sys::stat::Mode::from_bits_truncate(0o027);
    let before = nix::sys::stat::umask(own);
    let bundle = Bundle::new(&["sh", "-c", "umask; ls -ld /made | head -c 10"])
        .mount(json!({"destination": "/made", "type": "tmpfs", "source": "tmpfs", "options": ["mode=777"]}));
    let output = bundle.output();
    nix::sys::stat::umask(before);
    assert_eq!(output, "0027\ndrwxrwxrwx");
}

fn limits_are_as_given_or_refused() {
    let bundle = with(
        "/process/rlimits",
        json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}, {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_STACK", "soft": u64::MAX, "hard": u64::MAX},
            {"type": "RLIMIT_NICE", "soft": 0, "hard": 0}, {"type": "RLIMIT_MSGQUEUE", "soft": 4096, "hard": 8192},
        ]),
        &["cat", "/proc/self/limits"],
    );
    let limits = bundle.output();
    let of = |name: &str| {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].split_whitespace().take(2).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of("Max open files"), ["100", "200"]);
    assert_eq!(of("Max core file size"), ["0", "0"]);
    assert_eq!(of("Max stack size"), ["unlimited", "unlimited"]);
    assert_eq!(of("Max msgqueue size"), ["4096", "8192"]);
    // The hard limit may be raised with CAP_SYS_RESOURCE only.
    let more = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 1_000_000}]);
    match with("/process/rlimits", more, &["sh", "-c", "ulimit -Hn"]).run() {
        Ok(output) => assert_eq!(output.stdout, "1000000\n"),
        Err(e) => {
            assert!(e.to_string().starts_with("process.rlimits: RLIMIT_NOFILE: 1000000 is above"), "{e}")
        }
    }
}

fn a_score_is_inherited_or_set() {
    let args = ["cat", "/proc/self/oom_score_adj"];
    assert_eq!(with("/process/oomScoreAdj", json!(321), &args).output(), "321\n");
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    assert_eq!(with("/process/oomScoreAdj", Value::Null, &args).output(), own);
    let e = with("/process/oomScoreAdj", json!(1001), &args).error();
    assert_eq!(
        (e.kind(), e.to_string().as_str()),
        (Kind::InvalidSpec, "process.oomScoreAdj: 1001 is not between -1000 and 1000")
    );
}

fn groups_are_added() {
    let user = json!({"uid": 7, "gid": 8, "additionalGids": [9, 10], "username": "of Windows"});
    let status = with("/process/user", user, &["cat", "/proc/self/status"]).output();
    assert_eq!(status_field(&status, "Uid"), "7\t7\t7\t7");
    assert_eq!(status_field(&status, "Gid"), "8\t8\t8\t8");
    assert_eq!(status_field(&status, "Groups").trim(), "9 10");
}

fn labels_need_their_module() {
    for (field, module) in [("apparmorProfile", "apparmor"), ("selinuxLabel", "selinux")] {
        let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default();
        if modules.contains(module) {
            println!("skipped: {module} is there, and its profiles are unknown");
            continue;
        }
        let e = with(&format!("/process/{field}"), json!("some-label"), &["true"]).error();
        assert_eq!(e.kind(), Kind::InvalidSpec, "{e}");
        assert!(
            e.to_string().starts_with(&format!("process.{field}: the host has no security module")),
            "{e}"
        );
        with(&format!("/process/{field}"), json!(""), &["true"]).output();
    }
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        let output = with("/linux/mountLabel", json!("system_u:object_r:x:s0"), &["true"]).run().unwrap();
        let expected = r#"linux.mountLabel: "system_u:object_r:x:s0" is discarded: the host has no SELinux"#;
        assert_eq!(output.warnings, [expected]);
    }
}

/// No machine that tests run on has it: see the unit tests for what is done.
fn caches_need_their_file_system() {
    if fs::read_to_string("/proc/self/mountinfo").unwrap().contains(" - resctrl ") {
        println!("skipped: resctrl is mounted");
        return;
    }
    let e = with("/linux/intelRdt", json!({"closID": "x"}), &["true"]).error();
    assert_eq!(e.kind(), Kind::Unsupported);
    assert!(e.to_string().starts_with("linux.intelRdt: no resctrl file system is mounted"), "{e}");
}

fn wrong_processes_are_refused_by_name() {
    let cases = [
        ("/process/args", json!([]), "process.args: no command specified"),
        ("/process/args", json!(["a\0"]), r#"process.args: "a\0" contains NUL"#),
        ("/process/env", json!(["a\0"]), r#"process.env: "a\0" contains NUL"#),
        ("/process/cwd", json!("relative"), r#"process.cwd: "relative" is not absolute"#),
        ("/process/cwd", json!(""), r#"process.cwd: "" is not absolute"#),
        ("/process/user", json!({"uid": u32::MAX, "gid": 0}), "process.user: 4294967295 is no id"),
        (
            "/process/execCPUAffinity",
            json!({"initial": "3-1"}),
            r#"process.execCPUAffinity.initial: "3-1" in "3-1" is no number or range"#,
        ),
    ];
    for (pointer, value, expected) in cases {
        let e = with(pointer, value, &["true"]).error();
        assert_eq!((e.kind(), e.to_string().as_str()), (Kind::InvalidSpec, expected));
    }
}

/// A network namespace with two pairs of devices in it plays the host.
fn network_devices_move_in() {
    let host = [
        "ip link add name veth7a type veth peer name veth7b",
        "ip link add name veth8a type veth peer name veth8b",
        "ip addr add 10.7.0.1/24 dev veth7a",
        "ip -6 addr add fd07::1/64 dev veth7a nodad",
        "ip link set veth7a mtu 1400 up",
        "ip link set veth7b up",
        "ip link add br7 type bridge",
    ];
    in_a_child(libc::CLONE_NEWNET as u64, || {
        for command in host {
            let mut words = command.split(' ');
            assert!(
                std::process::Command::new(words.next().unwrap()).args(words).status().unwrap().success(),
                "{command}"
            );
        }
        let show =
            "ip -o link show dev in0; ip -o addr show dev in0; ip -o link show dev x0; ip -o link | wc -l";
        let bundle = with(
            "/linux/netDevices",
            json!({"veth7a": {"name": "in0"}, "veth8a": {"name": "x%d"}}),
            &["sh", "-c", show],
        );
        let output = bundle.output();
        let lines: Vec<_> = output.lines().collect();
        assert!(lines[0].contains("mtu 1400") && lines[0].contains(",UP"), "{output}");
        assert!(
            output.contains("inet 10.7.0.1/24") && output.contains("inet6 fd07::1/64 scope global"),
            "{output}"
        );
        assert_eq!(lines.last(), Some(&"3"), "{output}");
        // A device that isn't there, and one whose name is taken.
        let e = with("/linux/netDevices", json!({"none7": {}}), &["true"]).error().to_string();
        assert_eq!(e, "linux.netDevices: none7: RTM_GETLINK(\"none7\"): ENODEV (No such device)");
        let e = with("/linux/netDevices", json!({"br7": {"name": "lo"}}), &["true"]).error().to_string();
        assert_eq!(e, "linux.netDevices: br7: lo: the container has a network device of that name");
    });
}

/// A namespace that is joined may still be the host's.
fn the_hosts_namespaces_are_not_changed() {
    let joined = |index: usize, kind: &str, file: &str| {
        let path = format!("/proc/self/ns/{file}");
        with(&format!("/linux/namespaces/{index}"), json!({"type": kind, "path": path}), &["true"])
    };
    let host_name = nix::unistd::gethostname().unwrap();
    for (bundle, expected) in [
        (joined(2, "uts", "uts"), "hostname: /proc/self/ns/uts is the host's own namespace"),
        (
            joined(4, "network", "net").set("/linux/sysctl", json!({"net.ipv4.ip_default_ttl": "7"})),
            "linux.sysctl: net/ipv4/ip_default_ttl: /proc/self/ns/net is the host's own namespace",
        ),
        (
            joined(3, "ipc", "ipc").set("/linux/sysctl", json!({"kernel.msgmax": "7"})),
            "linux.sysctl: kernel/msgmax: /proc/self/ns/ipc is the host's own namespace",
        ),
        (
            joined(4, "network", "net").set("/linux/netDevices", json!({"lo": {"name": "lo2"}})),
            "linux.netDevices: lo: /proc/self/ns/net is the host's own namespace",
        ),
    ] {
        let e = bundle.error();
        assert_eq!((e.kind(), e.to_string().as_str()), (Kind::InvalidSpec, expected));
    }
    assert_eq!(nix::unistd::gethostname().unwrap(), host_name);
}

fn names_of_the_host() {
    let bundle = with(
        "/domainname",
        json!("inside.example"),
        &["cat", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname"],
    );
    assert_eq!(bundle.output(), "inside\ninside.example\n");
}

fn a_container_without_a_process_is_created_but_not_started() {
    let mut bundle = Bundle::new(&["true"]);
    bundle.spec.as_object_mut().unwrap().remove("process");
    let (stdio, _streams) = pipes();
    let mut container = bundle.create(stdio).unwrap();
    let e = container.start().unwrap_err();
    assert_eq!(e.to_string(), "process is not set: the container has nothing to start");
    reap(&container);
    container.cleanup().unwrap();
}

/// The program is believed, not compiled again: here it says something else
/// than the specification.
fn a_filter_that_is_handed_over_is_installed() {
    let refusing = |names: &[&str]| {
        let rule = json!({"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 37});
        json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    };
    let script = "mkdir /dev/x 2>&1; chmod 700 /dev/shm 2>&1; true";
    let mut bundle = Bundle::shell(script).set("/linux/seccomp", refusing(&["chmod", "fchmodat"]));
    assert_eq!(bundle.output(), "chmod: /dev/shm: No locks available\n");
    let other = serde_json::from_value(refusing(&["mkdir", "mkdirat"])).unwrap();
    bundle.filter = berth_seccomp::compile(&other).unwrap().bytes();
    assert_eq!(bundle.output(), "mkdir: can't create directory '/dev/x': No locks available\n");
    // Without a return.
    bundle.filter.truncate(8);
    let e = bundle.error();
    assert_eq!((e.kind(), e.to_string().contains("linux.seccomp")), (Kind::InvalidSpec, true), "{e}");
}
