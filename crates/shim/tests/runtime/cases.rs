// SPDX-License-Identifier: Apache-2.0
//! The cases: each runs a container and looks at what it, or the host, sees.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::Path,
};

use berth_shim::{
    kernel::process,
    runtime::{self, Kind, Stdio},
};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use serde_json::json;

use crate::harness::{Bundle, Canary, pipes, reap, wait_until};

/// Name and body of each.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("exit_code_and_streams", exit_code_and_streams),
    ("namespaces_are_new", namespaces_are_new),
    ("a_network_can_be_joined", a_network_can_be_joined),
    ("nothing_is_inherited", nothing_is_inherited),
    ("paths_are_masked", paths_are_masked),
    ("capabilities_are_those_of_the_specification", capabilities_are_those_of_the_specification),
    ("a_user_has_no_capabilities", a_user_has_no_capabilities),
    ("users_are_looked_up_inside", users_are_looked_up_inside),
    ("passwd_is_only_read_inside", passwd_is_only_read_inside),
    ("an_overlay_keeps_its_layers", an_overlay_keeps_its_layers),
    ("a_read_only_root", a_read_only_root),
    ("a_terminal", a_terminal),
    ("programs_that_do_not_run", programs_that_do_not_run),
    ("links_in_the_root_stay_inside", links_in_the_root_stay_inside),
    ("proc_must_be_a_directory", proc_must_be_a_directory),
    ("devices_are_fresh_and_limited", devices_are_fresh_and_limited),
    ("cgroups_are_seen_read_only", cgroups_are_seen_read_only),
    ("limits_are_set", limits_are_set),
    ("out_of_memory_is_counted", out_of_memory_is_counted),
    ("binds", binds),
    ("working_directories", working_directories),
    ("parameters_of_namespaces", parameters_of_namespaces),
    ("killing_reaches_all", killing_reaches_all),
    ("a_created_container_can_be_ended", a_created_container_can_be_ended),
    ("death_of_the_shim_is_death_of_the_container", death_of_the_shim_is_death_of_the_container),
    ("what_is_unsupported_is_refused", what_is_unsupported_is_refused),
];

fn exit_code_and_streams() {
    let output = Bundle::shell("echo out; echo err >&2; exit 42").run().unwrap();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str(), output.status), ("out\n", "err\n", 42));
}

fn namespaces_are_new() {
    let script = "hostname; echo $$; cat /proc/1/comm; ls /proc/self/ns -1 | sort | head -1;
        ip link show lo | grep -c LOOPBACK,UP; ls /sys/class/net; cat /proc/self/mounts | grep -c berth";
    let output = Bundle::shell(script).run().unwrap();
    assert_eq!(output.stdout, "inside\n1\nsh\ncgroup\n1\nlo\n0\n", "{output:?}");
    assert_ne!(nix::unistd::gethostname().unwrap(), "inside");
    let script = "for n in mnt uts ipc net pid cgroup; do readlink /proc/self/ns/$n; done";
    for line in Bundle::shell(script).output().lines() {
        let name = line.split(':').next().unwrap();
        let host = fs::read_link(Path::new("/proc/self/ns").join(name)).unwrap();
        assert_ne!(host, Path::new(line));
    }
}

fn a_network_can_be_joined() {
    let bundle = Bundle::shell("readlink /proc/self/ns/net");
    let mut bundle =
        bundle.set("/linux/namespaces/4", json!({"type": "network", "path": "/proc/self/ns/net"}));
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(Path::new(bundle.output().trim()), host);
    bundle = bundle.set("/linux/namespaces/4/path", json!("/proc/self/ns/none"));
    let e = bundle.error();
    assert!(e.to_string().contains("open(\"/proc/self/ns/none\", O_RDONLY): ENOENT"), "{e}");
}

fn nothing_is_inherited() {
    // The fourth descriptor is the one that ls reads the directory with.
    let script = "ls -1 /proc/self/fd; env; grep -E 'Sig(Blk|Ign|Cgt)|NoNewPrivs' /proc/self/status; umask";
    let output = Bundle::shell(script).set("/process/noNewPrivileges", json!(true)).output();
    let zero = "0000000000000000";
    let expected = format!(
        "0\n1\n2\n3\nHOME=/root\nPATH=/usr/bin:/bin\nPWD=/\nNoNewPrivs:\t1\nSigBlk:\t{zero}\nSigIgn:\t{zero}\nSigCgt:\t{zero}\n0022\n"
    );
    let sort = |text: &str| {
        let mut lines: Vec<_> = text.lines().filter(|l| !l.starts_with("SHLVL")).map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sort(&output), sort(&expected));
}

fn paths_are_masked() {
    let script = "cat /proc/keys /proc/timer_list /proc/interrupts; ls -A /sys/firmware;
        for f in /proc/sys/kernel/core_pattern /proc/sys/kernel/msgmax /sys/firmware/x; do (echo x > $f) 2>&1; done; true";
    let output = Bundle::shell(script).output();
    let lines: Vec<_> = output.lines().collect();
    assert_eq!(lines.len(), 3, "{output}");
    assert!(lines.iter().all(|line| line.contains("Read-only file system")), "{output}");
    // What hides a file is the host's null device, whatever is in /dev.
    let bundle = Bundle::shell("ls -l /proc/keys | grep -c '^crw-rw-rw- .* 1,  *3 '");
    assert_eq!(bundle.output(), "1\n");
}

fn capabilities_are_those_of_the_specification() {
    let output = Bundle::shell("grep Cap /proc/self/status").output();
    let set = "00000000a80425fb";
    let zero = "0000000000000000";
    let expected =
        format!("CapInh:\t{zero}\nCapPrm:\t{set}\nCapEff:\t{set}\nCapBnd:\t{set}\nCapAmb:\t{zero}\n");
    assert_eq!(output, expected);
}

fn a_user_has_no_capabilities() {
    let mut bundle = Bundle::shell("grep Cap /proc/self/status; echo through > /dev/stdout");
    bundle.user = "1000".to_owned();
    let output = bundle.output();
    let zero = "0000000000000000";
    assert!(output.contains(&format!("CapEff:\t{zero}\n")), "{output}");
    assert!(output.contains(&format!("CapPrm:\t{zero}\n")), "{output}");
    assert!(output.ends_with("through\n"), "{output}");
    let both = json!(["CAP_NET_BIND_SERVICE"]);
    let bundle = bundle
        .set("/process/capabilities/inheritable", both.clone())
        .set("/process/capabilities/ambient", both);
    let ambient = "0000000000000400";
    let output = bundle.output();
    assert!(output.contains(&format!("CapEff:\t{ambient}\n")), "{output}");
}

fn users_are_looked_up_inside() {
    let run = |user: &str| {
        let mut bundle = Bundle::shell("id; echo $HOME");
        bundle.user = user.to_owned();
        bundle.run().map(|output| output.stdout).map_err(|e| (e.kind(), e.to_string()))
    };
    assert_eq!(run("web").unwrap(), "uid=1000(web) gid=100(users) groups=100(users),200(logs)\n/srv\n");
    assert_eq!(run("web:logs").unwrap(), "uid=1000(web) gid=200(logs) groups=200(logs)\n/srv\n");
    assert_eq!(run("7:8").unwrap(), "uid=7 gid=8 groups=8\n/\n");
    let none = "unable to find user foo: no matching entries in passwd file".to_owned();
    assert_eq!(run("foo").unwrap_err(), (Kind::InvalidSpec, none));
    assert_eq!(run("4294967295").unwrap_err().0, Kind::InvalidSpec);
    let bundle = Bundle::shell("id -u; id -G")
        .set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [9]}));
    assert_eq!(bundle.output(), "5\n6 9\n");
}

fn passwd_is_only_read_inside() {
    let with = |prepare: &dyn Fn(&Path)| {
        let mut bundle = Bundle::shell("id -u");
        bundle.user = "web".to_owned();
        let passwd = bundle.rootfs().join("etc/passwd");
        fs::remove_file(&passwd).unwrap();
        prepare(&passwd);
        bundle.run().map(|o| o.stdout).map_err(|e| e.to_string())
    };
    let host = tempfile::NamedTempFile::new().unwrap();
    fs::write(host.path(), "web:x:666:666::/:\n").unwrap();
    let e = with(&|passwd| symlink(host.path(), passwd).unwrap()).unwrap_err();
    assert_eq!(e, "unable to find user web: no matching entries in passwd file");
    let fifo = |passwd: &Path| nix::unistd::mkfifo(passwd, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let e = with(&fifo).unwrap_err();
    assert!(e.contains("not a regular file"), "{e}");
    let e = with(&|passwd| fs::File::create(passwd).unwrap().set_len(1 << 40).unwrap()).unwrap_err();
    assert!(e.contains("more than 10485760 bytes"), "{e}");
    let inside = |passwd: &Path| {
        fs::write(passwd.with_file_name("real"), "web:x:77:77::/:\n").unwrap();
        symlink("/etc/real", passwd).unwrap();
    };
    assert_eq!(with(&inside).unwrap(), "77\n");
}

fn an_overlay_keeps_its_layers() {
    let mut bundle = Bundle::shell("echo new > /etc/new; grep -c ' / overlay ' /proc/self/mounts");
    bundle.overlay = true;
    assert_eq!(bundle.output(), "1\n");
    assert_eq!(fs::read_to_string(bundle.dir.path().join("upper/etc/new")).unwrap(), "new\n");
    assert!(!bundle.rootfs().join("etc/new").exists());
    // Names that mean something to overlayfs, or are too long for fsconfig.
    for name in ["a:b,c\\d", &"x".repeat(250)] {
        let mut bundle = Bundle::shell("cat /layer");
        let layer = bundle.dir.path().join(name);
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join("layer"), "seen").unwrap();
        let escaped = layer.display().to_string().replace('\\', "\\\\").replace(':', "\\:");
        bundle.overlay = true;
        bundle.more_lower = Some(escaped);
        assert_eq!(bundle.output(), "seen", "{name}");
    }
}

fn a_read_only_root() {
    for overlay in [false, true] {
        let mut bundle =
            Bundle::shell("touch /x; touch /dev/shm/x && echo shm").set("/root/readonly", json!(true));
        bundle.overlay = overlay;
        let output = bundle.run().unwrap();
        assert_eq!(output.stdout, "shm\n");
        assert!(output.stderr.contains("Read-only file system"), "{output:?}");
    }
}

fn a_terminal() {
    let script = "tty; stty size; cat /proc/self/stat > /tmp/stat; echo to-console > /dev/console; read line; echo got $line; exit 7";
    let bundle = Bundle::shell(script).set("/process/terminal", json!(true));
    let mut container = bundle.create(Stdio::Terminal { rows: 33, columns: 101, plain: false }).unwrap();
    let mut master = fs::File::from(container.take_console().unwrap());
    assert!(container.take_console().is_none());
    container.start().unwrap();
    master.write_all(b"hello\n").unwrap();
    let mut output = Vec::new();
    let mut buffer = [0; 1024];
    // The end of a terminal is EIO.
    while let Ok(n) = master.read(&mut buffer) {
        output.extend_from_slice(&buffer[..n]);
    }
    let text = String::from_utf8(output).unwrap().replace('\r', "");
    assert_eq!(reap(&container), 7, "{text}");
    container.cleanup().unwrap();
    for expected in ["/dev/pts/0\n", "33 101\n", "to-console\n", "got hello\n"] {
        assert!(text.contains(expected), "{expected:?} in {text:?}");
    }
    let stat = fs::read_to_string(bundle.rootfs().join("tmp/stat")).unwrap();
    let fields: Vec<_> = stat.split(' ').collect();
    // tty_nr of proc_pid_stat(5): 136:0.
    assert_eq!(fields[6], "34816", "{stat}");
}

fn programs_that_do_not_run() {
    let of = |program: &str| {
        let bundle = Bundle::new(&[program]);
        let root = bundle.rootfs();
        fs::write(root.join("bin/plain"), "#!/bin/sh\n").unwrap();
        for (name, text) in [("script", "#!/none\n"), ("garbage", "\u{1}garbage")] {
            fs::write(root.join("bin").join(name), text).unwrap();
            fs::set_permissions(root.join("bin").join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let e = bundle.error();
        (e.kind(), e.to_string())
    };
    let expected = [
        ("foo", Kind::ExecNotFound, "exec: \"foo\": executable file not found in $PATH"),
        ("/x", Kind::ExecNotFound, "exec: \"/x\": stat /x: no such file or directory"),
        ("/etc", Kind::ExecNotPermitted, "exec: \"/etc\": permission denied"),
        ("/bin/plain", Kind::ExecNotPermitted, "exec: \"/bin/plain\": permission denied"),
        ("/bin/script", Kind::ExecNotFound, "exec /bin/script: no such file or directory"),
        ("/bin/garbage", Kind::ExecNotPermitted, "exec /bin/garbage: exec format error"),
    ];
    for (program, kind, text) in expected {
        assert_eq!(of(program), (kind, text.to_owned()));
    }
}

fn links_in_the_root_stay_inside() {
    // Files and directories of the host that the root points to.
    let bundle = Bundle::shell("cat /etc/added; ls -1 /data").mount(
        json!({"destination": "/etc/added", "type": "bind", "source": "/proc/sys/kernel/ostype", "options": ["bind", "ro"]}),
    );
    let canary = Canary::new(&bundle);
    let root = bundle.rootfs();
    fs::remove_dir_all(root.join("etc")).unwrap();
    symlink(canary.path(), root.join("etc")).unwrap();
    symlink("../../../../../../etc", root.join("data")).unwrap();
    let bundle =
        bundle.mount(json!({"destination": "/data/made", "type": "tmpfs", "source": "tmpfs", "options": []}));
    let output = bundle.run().unwrap();
    assert_eq!(output.stdout, "Linux\nadded\nmade\n", "{output:?}");
    canary.assert_untouched();

    for name in ["dev", "dev/pts"] {
        let bundle = Bundle::new(&["true"]);
        let canary = Canary::new(&bundle);
        let link = bundle.rootfs().join(name);
        if link.exists() {
            fs::remove_dir(&link).unwrap();
        }
        symlink(canary.path(), &link).unwrap();
        // A link at /dev is refused, one below is covered by the fresh /dev.
        match bundle.run() {
            Err(e) => assert!(e.to_string().contains("ELOOP"), "{e}"),
            Ok(output) => assert_eq!((name, output.status), ("dev/pts", 0)),
        }
        canary.assert_untouched();
    }
}

fn proc_must_be_a_directory() {
    // An image's link does not lead a volume into /proc.
    for destination in ["/link/attr", "/link"] {
        let bundle = Bundle::new(&["true"])
            .mount(json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": []}));
        symlink("/proc/self", bundle.rootfs().join("link")).unwrap();
        let e = bundle.error();
        assert_eq!(e.kind(), Kind::InvalidSpec, "{e}");
    }
    for name in ["proc", "sys"] {
        let bundle = Bundle::new(&["true"]);
        let root = bundle.rootfs();
        fs::remove_dir(root.join(name)).unwrap();
        symlink("/tmp", root.join(name)).unwrap();
        let e = bundle.error();
        assert!(e.to_string().contains("ELOOP"), "{e}");
        fs::remove_file(root.join(name)).unwrap();
        assert_eq!(bundle.run().unwrap().status, 0, "a missing /{name} is made");
    }
}

fn devices_are_fresh_and_limited() {
    let bundle = Bundle::shell(
        "ls -1 /dev; cat /dev/zero | head -c 4 | dd of=/dev/full 2>&1 | grep -c 'No space';
         mknod /tmp/loop b 7 0 && cat /tmp/loop 2>&1; mknod /tmp/null c 1 3 && echo x > /tmp/null && readlink /dev/ptmx; true",
    );
    fs::write(bundle.rootfs().join("dev/leftover"), "").unwrap();
    let expected = "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n\
        1\ncat: can't open '/tmp/loop': Operation not permitted\npts/ptmx\n";
    assert_eq!(bundle.output(), expected);
    // FUSE: a device that needs no capability to be opened.
    let device = json!([{"path": "/dev/net/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "gid": 9}]);
    let bundle = Bundle::shell(
        "ls -ln /dev/net/fuse | grep -c '^crw-r----- .* 0 .* 9 .* 10,'; (: < /dev/net/fuse) 2>/dev/null && echo may; true",
    );
    let bundle = bundle.set("/linux/devices", device);
    assert_eq!(bundle.output(), "1\n", "a file is no right to open it");
    let rule = json!([{"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"}]);
    assert_eq!(bundle.set("/linux/resources/devices", rule).output(), "1\nmay\n");
    let made =
        || Bundle::shell("mknod /tmp/fuse c 10 229; (: < /tmp/fuse) 2>/dev/null && echo may || echo may not");
    assert_eq!(made().output(), "may not\n");
    let privileged = made().set("/linux/resources/devices", json!([{"allow": true, "access": "rwm"}]));
    assert_eq!(privileged.output(), "may\n");
}

fn cgroups_are_seen_read_only() {
    let bundle = Bundle::shell(
        "cat /proc/self/cgroup | grep -v ':/$' | grep berth; grep -l '^1$' /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null;
         (echo 1 > $(ls /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/cgroup.procs 2>/dev/null | head -1)) 2>&1; true",
    );
    let output = bundle.output();
    assert!(output.contains("/sys/fs/cgroup/"), "{output}");
    assert!(output.contains("Read-only file system"), "{output}");
    assert!(!output.contains("berth"), "{output}");
}

fn limits_are_set() {
    let bundle = Bundle::new(&["sleep", "1000"]).set("/linux/resources/memory", json!({"limit": 16_777_216}));
    let bundle = bundle
        .set("/linux/resources/pids", json!({"limit": 17}))
        .set("/linux/resources/cpu", json!({"shares": 512, "quota": 50000, "period": 100_000, "cpus": "0"}));
    let (stdio, _streams) = pipes();
    let mut container = bundle.create(stdio).unwrap();
    let file = |v1: &str, v2: &str| {
        let name = format!("berth-runtime-test/{}", bundle.id());
        let (controller, file) = v1.split_once('/').unwrap();
        let v1 = Path::new("/sys/fs/cgroup").join(controller).join(&name).join(file);
        let v2 = Path::new("/sys/fs/cgroup").join(&name).join(v2);
        let path = if v1.exists() { (v1, 1) } else { (v2, 2) };
        (fs::read_to_string(&path.0).unwrap().trim().to_owned(), path.1)
    };
    assert_eq!(file("memory/memory.limit_in_bytes", "memory.max").0, "16777216");
    assert_eq!(file("pids/pids.max", "pids.max").0, "17");
    assert_eq!(file("cpuset/cpuset.cpus", "cpuset.cpus").0, "0");
    match file("cpu/cpu.cfs_quota_us", "cpu.max") {
        (quota, 1) => assert_eq!(quota, "50000"),
        (quota, _) => assert_eq!(quota, "50000 100000"),
    }
    assert_eq!(file("memory/cgroup.procs", "cgroup.procs").0, container.pid().to_string());
    container.start().unwrap();
    container.kill(libc::SIGKILL, false).unwrap();
    assert_eq!(reap(&container), 137);
    container.cleanup().unwrap();
}

fn out_of_memory_is_counted() {
    let limit = json!({"limit": 16_777_216, "swap": 16_777_216});
    let hungry = Bundle::new(&["dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"]);
    let hungry = hungry.set("/linux/resources/memory", limit.clone());
    let modest = Bundle::new(&["true"]).set("/linux/resources/memory", limit);
    for (bundle, status, oom) in [(hungry, 137, true), (modest, 0, false)] {
        let (stdio, _streams) = pipes();
        let mut container = bundle.create(stdio).unwrap();
        container.start().unwrap();
        assert_eq!((reap(&container), container.oom_killed()), (status, oom));
        container.cleanup().unwrap();
    }
}

fn binds() {
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("file"), "content").unwrap();
    let source = host.path().display().to_string();
    let bind = |destination: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": "bind", "source": source, "options": options});
    let bundle = Bundle::shell(
        "cat /a/b/file; touch /rw/made; touch /ro/made 2>&1; cat /one; grep -E ' /(ro|rw) ' /proc/self/mounts | grep -oE '(ro|rw),nosuid,noexec|rw,nodev'",
    );
    let bundle = bundle
        .mount(bind("/a/b", &source, &["rbind"]))
        .mount(bind("/rw", &source, &["bind", "nodev", "rprivate"]))
        .mount(bind("/ro", &source, &["rbind", "rro", "nosuid", "noexec"]))
        .mount(bind("/one", &format!("{source}/file"), &["bind", "ro"]));
    let output = bundle.run().unwrap();
    let expected = "contenttouch: /ro/made: Read-only file system\ncontentrw,nodev\nro,nosuid,noexec\n";
    assert_eq!(output.stdout, expected, "{output:?}");
    assert!(host.path().join("made").exists());
    let e = Bundle::new(&["true"]).mount(bind("/x", "/none/of/this", &["rbind"])).error();
    assert!(e.to_string().starts_with("error mounting "), "{e}");
    assert!(e.to_string().ends_with("stat /none/of/this: no such file or directory"), "{e}");
    let e = Bundle::new(&["true"]).mount(bind("/proc/self/attr", &source, &["rbind"])).error();
    assert_eq!(e.kind(), Kind::InvalidSpec);
}

fn working_directories() {
    let bundle = Bundle::shell("pwd; ls -ld . | grep -c '^drwxr-xr-x .* root '");
    let bundle = bundle.set("/process/cwd", json!("/made/here"));
    assert_eq!(bundle.output(), "/made/here\n1\n");
    for number in [3, 7, 9, 10, 11] {
        let path = format!("/proc/self/fd/{number}");
        let e = Bundle::shell("pwd").set("/process/cwd", json!(path)).error();
        assert!(!e.to_string().is_empty());
    }
    // A link in the image leads to the container's directory, not the host's.
    let bundle = Bundle::shell("pwd -P").set("/process/cwd", json!("/link/new"));
    let canary = Canary::new(&bundle);
    symlink(canary.path(), bundle.rootfs().join("link")).unwrap();
    assert_eq!(bundle.output().trim(), canary.path().join("new").display().to_string());
    canary.assert_untouched();
}

fn parameters_of_namespaces() {
    let bundle = Bundle::shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shm_rmid_forced");
    let read = |name: &str| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap();
    let names = ["net/ipv4/ip_forward", "kernel/shm_rmid_forced"];
    let before = names.map(read);
    let bundle =
        bundle.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"}));
    assert_eq!(bundle.output(), "1\n1\n");
    assert_eq!(names.map(read), before);
    let e = bundle.set("/linux/sysctl", json!({"kernel.core_pattern": "x"})).error();
    assert_eq!(e.kind(), Kind::InvalidSpec);
}

fn killing_reaches_all() {
    let bundle = Bundle::shell("setsid sleep 1000 & setsid sleep 1000 & echo up; exec sleep 1000");
    let (stdio, [mut stdout, _stderr]) = pipes();
    let mut container = bundle.create(stdio).unwrap();
    container.start().unwrap();
    let mut up = [0; 3];
    stdout.read_exact(&mut up).unwrap();
    wait_until("three processes", || container.pids().unwrap().len() == 3);
    assert!(container.pids().unwrap().contains(&container.pid()));
    // The first process of a pid namespace ignores what it doesn't handle.
    container.kill(libc::SIGTERM, false).unwrap();
    container.kill(libc::SIGKILL, true).unwrap();
    assert_eq!(reap(&container), 137);
    wait_until("no process", || container.pids().unwrap().is_empty());
    assert_eq!(container.kill(libc::SIGTERM, false).unwrap_err().kind(), Kind::NotRunning);
    container.cleanup().unwrap();
    container.cleanup().unwrap();
}

fn a_created_container_can_be_ended() {
    let (stdio, _streams) = pipes();
    let mut container = Bundle::new(&["true"]).create(stdio).unwrap();
    assert!(process::is_running(container.pidfd()).unwrap());
    container.cleanup().unwrap();
    assert_eq!(reap(&container), 137);
    assert_eq!(container.start().unwrap_err().kind(), Kind::NotRunning);
}

fn death_of_the_shim_is_death_of_the_container() {
    for started in [false, true] {
        let mut bundle = Bundle::new(&["sleep", "1000"]);
        bundle.user = "web".to_owned();
        let (mut pids, told) = std::io::pipe().unwrap();
        // The child plays a shim that is killed.
        let shim = process::clone3(0, None, || {
            let (stdio, _streams) = pipes();
            let mut container = bundle.create(stdio).unwrap();
            if started {
                container.start().unwrap();
            }
            (&told).write_all(&container.pid().to_ne_bytes()).unwrap();
            loop {
                nix::unistd::pause();
            }
        })
        .unwrap();
        let mut pid = [0; 4];
        pids.read_exact(&mut pid).unwrap();
        let init = process::pidfd_open(u32::from_ne_bytes(pid)).unwrap();
        assert!(process::is_running(&init).unwrap());
        process::pidfd_send_signal(shim.pidfd.as_fd(), libc::SIGKILL).unwrap();
        wait_until("the container to end", || !process::is_running(&init).unwrap());
        waitid(Id::PIDFd(shim.pidfd.as_fd()), WaitPidFlag::WEXITED).unwrap();
        for _ in 0..2 {
            runtime::cleanup_dead(&bundle.cgroups()).unwrap();
        }
    }
}

fn what_is_unsupported_is_refused() {
    // A profile that nobody enforces is not taken for enforced.
    if !Path::new("/sys/kernel/security/apparmor").exists() {
        let e = Bundle::new(&["true"]).set("/process/apparmorProfile", json!("docker-default")).error();
        assert_eq!(e.kind(), Kind::InvalidSpec, "{e}");
    }
    assert_eq!(Bundle::new(&["true"]).set("/hooks", json!({})).run().unwrap().status, 0);
    assert_eq!(fs::metadata("/dev/null").unwrap().mode() & 0o777, 0o666);
}
