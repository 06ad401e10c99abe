// SPDX-License-Identifier: Apache-2.0
//! What a container is told to be, seen from inside it.

use std::{collections::BTreeMap, fs};

use crate::support::{Engine, engine::with_busybox};

/// Runs a script in a new container with `flags`; its output.
fn inside(engine: &Engine, flags: &[&str], script: &str) -> String {
    let mut args = vec!["run", "--rm"];
    args.extend(flags);
    args.extend(["busybox", "sh", "-c", script]);
    engine.berth(&args).ok().stdout
}

/// /proc/self/status of a process in a container with `flags`.
fn status(engine: &Engine, flags: &[&str]) -> BTreeMap<String, String> {
    let text = inside(engine, flags, "cat /proc/self/status");
    let pairs = text.lines().filter_map(|l| l.split_once(':'));
    pairs.map(|(k, v)| (k.to_owned(), v.trim().to_owned())).collect()
}

#[test]
fn environment_directory_and_host_name() {
    let Some(engine) = with_busybox() else { return };
    let env =
        inside(&engine, &["-e", "A=1", "-e", "B=two words", "-h", "box"], "env | sort; cat /etc/hostname");
    for line in ["A=1", "B=two words", "HOSTNAME=box", "HOME=/root"] {
        assert!(env.lines().any(|l| l == line), "{line} in: {env}");
    }
    assert!(env.ends_with("\nbox\n"), "{env}");
    assert!(env.contains("PATH=/usr/local/sbin:"), "{env}");

    let file = engine.dir().join("env");
    fs::write(&file, "# comment\nFROM_FILE=yes\n").expect("write");
    let said = inside(&engine, &["--env-file", file.to_str().expect("UTF-8")], "echo $FROM_FILE");
    assert_eq!(said, "yes\n");
    assert_eq!(inside(&engine, &["-w", "/new/dir"], "pwd"), "/new/dir\n");
    let hosts = inside(&engine, &["-h", "box", "--add-host", "db:10.1.2.3"], "cat /etc/hosts");
    assert!(hosts.lines().any(|l| l.split_whitespace().eq(["10.1.2.3", "db"])), "{hosts}");
    assert!(hosts.lines().any(|l| l.split_whitespace().eq(["127.0.0.1", "localhost"])), "{hosts}");
}

#[test]
fn users_by_name_and_by_number() {
    let Some(engine) = with_busybox() else { return };
    let id = "echo $(id -u):$(id -g):$(id -G)";
    assert_eq!(inside(&engine, &[], id), "0:0:0\n");
    assert_eq!(inside(&engine, &["-u", "app"], id), "1000:1000:1000 29\n");
    assert_eq!(inside(&engine, &["-u", "app:audio"], id), "1000:29:29\n");
    assert_eq!(inside(&engine, &["-u", "1234:5678"], id), "1234:5678:5678\n");
    assert_eq!(inside(&engine, &["-u", "app"], "echo $HOME"), "/home/app\n");
    let unknown = engine.berth(&["run", "--rm", "-u", "stranger", "busybox", "true"]).exits(125);
    assert!(unknown.stderr.contains("stranger"), "{}", unknown.stderr);
    assert_eq!(engine.berth(&["ps", "-aq"]).ok().line(), "", "nothing half done");
}

#[test]
fn the_root_can_be_read_only_with_writable_places() {
    let Some(engine) = with_busybox() else { return };
    let script = "touch /x 2>&1; touch /run/y && echo fine; stat -f -c %T /run; touch /dev/shm/z && echo shm";
    let said = inside(&engine, &["--read-only", "--tmpfs", "/run:size=1m"], script);
    assert_eq!(said, "touch: /x: Read-only file system\nfine\ntmpfs\nshm\n");
}

#[test]
fn host_directories_are_bound() {
    let Some(engine) = with_busybox() else { return };
    let host = engine.dir().join("shared");
    fs::create_dir(&host).expect("mkdir");
    fs::write(host.join("in"), "from the host\n").expect("write");
    let path = host.to_str().expect("UTF-8");

    let said = inside(&engine, &["-v", &format!("{path}:/data")], "cat /data/in; echo back >/data/out");
    assert_eq!(said, "from the host\n");
    assert_eq!(fs::read_to_string(host.join("out")).expect("written inside"), "back\n");

    let flag = format!("{path}:/data:ro");
    let said = inside(&engine, &["-v", &flag], "touch /data/x 2>&1 || true");
    assert_eq!(said, "touch: /data/x: Read-only file system\n");
    let flag = format!("type=bind,source={path},target=/one,readonly");
    assert_eq!(inside(&engine, &["--mount", &flag], "cat /one/in"), "from the host\n");
    // A single file, too.
    assert_eq!(inside(&engine, &["-v", &format!("{path}/in:/etc/motd")], "cat /etc/motd"), "from the host\n");
    // --mount never makes the source up.
    let flag = format!("type=bind,source={path}/missing,target=/one");
    let refused = engine.berth(&["run", "--rm", "--mount", &flag, "busybox", "true"]).exits(125);
    assert!(refused.stderr.contains("missing"), "{}", refused.stderr);
}

#[test]
fn a_link_in_the_image_does_not_lead_a_mount_out_of_it() {
    let Some(engine) = Engine::start() else { return };
    let target = engine.dir().join("outside");
    fs::create_dir(&target).expect("mkdir");
    let mut layer = crate::support::image::Layer::new();
    layer.symlink("escape", target.to_str().expect("UTF-8"));
    let image = crate::support::image::Builder::new()
        .layer(crate::support::image::busybox_layer())
        .layer(layer)
        .build();
    engine.load(&image, "busybox");
    let source = engine.dir().join("source");
    fs::create_dir(&source).expect("mkdir");
    fs::write(source.join("file"), "x").expect("write");
    let flag = format!("{}:/escape/deep", source.display());
    assert_eq!(inside(&engine, &["-v", &flag], "ls /escape/deep"), "file\n");
    assert_eq!(fs::read_dir(&target).expect("list").count(), 0, "made on the host");
}

#[test]
fn capabilities_are_dockers_and_can_be_changed() {
    let Some(engine) = with_busybox() else { return };
    // chown dac_override fowner fsetid kill setgid setuid setpcap
    // net_bind_service net_raw sys_chroot mknod audit_write setfcap
    let default = status(&engine, &[]);
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(default[set], "00000000a80425fb", "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(default[set], "0000000000000000", "{set}");
    }
    assert_eq!(status(&engine, &["--cap-drop", "ALL"])["CapBnd"], "0000000000000000");
    let one = status(&engine, &["--cap-drop", "ALL", "--cap-add", "NET_ADMIN"]);
    assert_eq!(one["CapEff"], "0000000000001000");
    // Somebody else than root has none in force, but what is allowed stays.
    let user = status(&engine, &["-u", "app"]);
    assert_eq!((user["CapEff"].as_str(), user["CapBnd"].as_str()), ("0000000000000000", "00000000a80425fb"));
    let refused = engine.berth(&["run", "--rm", "--cap-add", "FLY", "busybox", "true"]).exits(125);
    assert!(refused.stderr.contains("FLY"), "{}", refused.stderr);
}

#[test]
fn no_new_privileges_is_a_choice() {
    let Some(engine) = with_busybox() else { return };
    assert_eq!(status(&engine, &[])["NoNewPrivs"], "0");
    assert_eq!(status(&engine, &["--security-opt", "no-new-privileges"])["NoNewPrivs"], "1");
}

/// Allows everything but `mkdir` (and its newer form), which answers ENOLCK.
const NO_MKDIR: &str = r#"{
    "defaultAction": "SCMP_ACT_ALLOW",
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
    "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 37,
         "comment": "", "includes": {"minKernel": "3.0"}, "excludes": {"caps": ["CAP_SYS_ADMIN"]}}
    ]
}"#;

#[test]
fn a_seccomp_profile_of_the_users_own() {
    let Some(engine) = with_busybox() else { return };
    let file = engine.dir().join("profile.json");
    fs::write(&file, NO_MKDIR).expect("write");
    let opt = format!("seccomp={}", file.display());
    let script = "grep Seccomp: /proc/self/status; mkdir /x 2>&1; [ -d /x ] || echo none";
    let said = inside(&engine, &["--security-opt", &opt], script);
    assert_eq!(said, "Seccomp:\t2\nmkdir: can't create directory '/x': No locks available\nnone\n");
    // The profile makes an exception of it.
    let said = inside(&engine, &["--security-opt", &opt, "--cap-add", "SYS_ADMIN"], script);
    assert_eq!(said, "Seccomp:\t2\n");
    // Every start has it.
    engine.berth(&["create", "--name", "again", "--security-opt", &opt, "busybox", "mkdir", "/y"]).ok();
    for _ in 0..2 {
        engine.berth(&["start", "-a", "again"]).exits(1).complains(&["No locks available"]);
    }
    let said = inside(&engine, &["--security-opt", "seccomp=unconfined"], script);
    assert_eq!(said, "Seccomp:\t0\n");
    assert_eq!(inside(&engine, &["--security-opt", "seccomp=builtin"], script), "Seccomp:\t2\n");
}

#[test]
fn a_seccomp_profile_that_is_none() {
    let Some(engine) = with_busybox() else { return };
    let file = engine.dir().join("profile.json");
    let refused = |words: &[&str]| {
        let opt = format!("seccomp={}", file.display());
        engine.berth(&["run", "--rm", "--security-opt", &opt, "busybox", "true"]).exits(125).complains(words);
    };
    refused(&["opening seccomp profile (", ") failed: no such file or directory"]);
    fs::write(&file, "{").expect("write");
    refused(&["compacting json for seccomp profile ("]);
    fs::write(&file, "{}").expect("write");
    refused(&["Decoding seccomp profile failed: missing field `defaultAction`"]);
    // What only the compiler knows is wrong.
    let long = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"],
        "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#;
    fs::write(&file, long).expect("write");
    refused(&["linux.seccomp", "argument index 6"]);
    let opt = ["run", "--rm", "--security-opt", "fly=yes", "busybox", "true"];
    engine.berth(&opt).exits(125).complains(&["invalid --security-opt: \"fly=yes\""]);
    assert_eq!(engine.berth(&["ps", "-aq"]).ok().line(), "");
}

#[test]
fn system_paths_can_be_opened() {
    let Some(engine) = with_busybox() else { return };
    let script = "wc -c </proc/keys | grep -qx 0 && echo masked; grep -c ' /proc/sys ' /proc/mounts";
    assert_eq!(inside(&engine, &[], &format!("{script}; true")), "masked\n1\n");
    let open = inside(&engine, &["--security-opt", "systempaths=unconfined"], &format!("{script}; true"));
    assert_eq!(open, "0\n");
    assert_eq!(status(&engine, &["--security-opt", "label=disable"])["NoNewPrivs"], "0");
}

#[test]
fn resource_limits_of_processes() {
    let Some(engine) = with_busybox() else { return };
    let said = inside(
        &engine,
        &["--ulimit", "nofile=100:200", "--ulimit", "core=0"],
        "ulimit -Sn; ulimit -Hn; ulimit -c",
    );
    assert_eq!(said, "100\n200\n0\n");
}

#[test]
fn what_tells_of_the_host_is_masked() {
    let Some(engine) = with_busybox() else { return };
    let script = "for f in /proc/kcore /proc/keys /proc/timer_list; do [ -e $f ] && wc -c <$f; done; ls /sys/firmware; echo x >/proc/sys/kernel/hostname; touch /sys/x";
    let said = engine.berth(&["run", "--rm", "busybox", "sh", "-c", script]).exits(1);
    assert!(!said.stdout.is_empty() && said.stdout.lines().all(|l| l == "0"), "{}", said.stdout);
    assert_eq!(said.stderr.matches("Read-only file system").count(), 2, "{}", said.stderr);
    assert!(!said.stderr.contains("nonexistent"), "{}", said.stderr);
}

#[test]
fn it_sees_its_own_processes_and_nobody_elses() {
    let Some(engine) = with_busybox() else { return };
    // The shell, and what its pipe and the pattern take for a moment.
    let pids = inside(&engine, &[], "echo $$; ls -d /proc/[0-9]*");
    let (own, seen) = pids.split_once('\n').expect("two lines");
    assert_eq!(own, "1");
    assert!(seen.lines().any(|l| l == "/proc/1") && seen.lines().count() <= 3, "{seen}");
    let said = inside(&engine, &[], "ls /dev | tr '\\n' ' '; stat -c '%a %t:%T' /dev/null /dev/zero");
    for name in
        ["full", "null", "ptmx", "pts", "random", "shm", "stdout", "tty", "urandom", "zero", "fd", "mqueue"]
    {
        assert!(said.split_whitespace().any(|w| w == name), "{name} in {said}");
    }
    assert!(said.ends_with("666 1:3\n666 1:5\n"), "{said}");
}

#[test]
fn too_much_memory_is_an_oom_kill() {
    let Some(engine) = with_busybox() else { return };
    // Fills /dev/shm, which counts as memory of the container.
    let flags = ["run", "--name", "greedy", "--memory", "16m", "--memory-swap", "16m", "busybox"];
    let fill = ["dd", "if=/dev/zero", "of=/dev/shm/fill", "bs=1M", "count=60"];
    engine.berth(&[&flags[..], &fill[..]].concat()).exits(137);
    let state = &engine.inspect("greedy")["State"];
    assert_eq!((&state["OOMKilled"], &state["ExitCode"]), (&true.into(), &137.into()));

    engine.berth(&["run", "--name", "modest", "--memory", "64m", "busybox", "true"]).ok();
    assert_eq!(engine.inspect("modest")["State"]["OOMKilled"], false);
}

#[test]
fn the_number_of_processes_is_limited() {
    let Some(engine) = with_busybox() else { return };
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done; echo all";
    let said = engine.berth(&["run", "--rm", "--pids-limit", "4", "busybox", "sh", "-c", script]);
    assert!(said.stderr.contains("fork") && !said.stdout.contains("all"), "{said:?}");
}

#[test]
fn cpus_are_limited_by_the_kernel() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "slow", "--cpus", "0.5", "busybox", "sleep", "1000"]).ok();
    let id = engine.inspect("slow")["Id"].as_str().expect("id").to_owned();
    let below = format!("{}/default-{id}", engine.cgroup_parent().trim_start_matches('/'));
    let v1 = format!("/sys/fs/cgroup/cpu/{below}/");
    let (quota, period) = match fs::read_to_string(format!("{v1}cpu.cfs_quota_us")) {
        Ok(quota) => (quota, fs::read_to_string(format!("{v1}cpu.cfs_period_us")).expect("period")),
        Err(_) => {
            let max = fs::read_to_string(format!("/sys/fs/cgroup/{below}/cpu.max")).expect("cpu.max");
            let (quota, period) = max.split_once(' ').expect("two numbers");
            (quota.to_owned(), period.to_owned())
        }
    };
    let (quota, period): (u64, u64) = (quota.trim().parse().expect("µs"), period.trim().parse().expect("µs"));
    assert_eq!(quota * 2, period);
}

#[test]
fn there_is_no_network_unless_the_hosts_is_asked_for() {
    let Some(engine) = with_busybox() else { return };
    let interfaces = "ls /sys/class/net | sort | tr '\\n' ' '";
    assert_eq!(inside(&engine, &[], interfaces), "lo ");
    assert_eq!(inside(&engine, &["--network", "none"], interfaces), "lo ");
    assert_eq!(inside(&engine, &["--network", "none"], "ip -o addr show lo | grep -c 127.0.0.1"), "1\n");
    let mut names: Vec<_> = fs::read_dir("/sys/class/net")
        .expect("list")
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let host = inside(&engine, &["--network", "host"], interfaces);
    assert_eq!(host.split_whitespace().collect::<Vec<_>>(), names);
}

#[test]
fn privileged_has_everything() {
    let Some(engine) = with_busybox() else { return };
    let own = fs::read_to_string("/proc/self/status").expect("status");
    let bounding = own.lines().find_map(|l| l.strip_prefix("CapBnd:")).expect("CapBnd").trim().to_owned();
    assert_eq!(status(&engine, &["--privileged"])["CapEff"], bounding);
    inside(
        &engine,
        &["--privileged"],
        "mount -t tmpfs none /mnt 2>/dev/null || (mkdir /mnt && mount -t tmpfs none /mnt)",
    );
}

#[test]
fn kernel_parameters_of_its_namespaces() {
    let Some(engine) = with_busybox() else { return };
    let said = inside(&engine, &["--sysctl", "kernel.shmmax=123456"], "cat /proc/sys/kernel/shmmax");
    assert_eq!(said, "123456\n");
    let refused = engine.berth(&["run", "--rm", "--sysctl", "vm.swappiness=1", "busybox", "true"]).exits(125);
    assert!(refused.stderr.contains("vm.swappiness"), "{}", refused.stderr);
}

/// The environment that a process was started with.
fn environment(pid: i32) -> String {
    String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/environ")).expect("environ")).replace('\0', "\n")
}

#[test]
#[cfg(target_env = "gnu")]
fn how_the_engine_keeps_memory_is_its_own_matter() {
    let Some(engine) = with_busybox() else { return };
    assert!(environment(engine.pid()).contains("GLIBC_TUNABLES=glibc.malloc."));
    let name = fs::read_to_string(format!("/proc/{}/comm", engine.pid())).expect("comm");
    assert_eq!(name, "berthd\n", "though it executed itself");
    engine.berth(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let shim = engine.shim_pid("box");
    assert!(!environment(shim).contains("GLIBC_TUNABLES"));
    assert!(!engine.berth(&["exec", "box", "env"]).ok().stdout.contains("GLIBC_TUNABLES"));
}
