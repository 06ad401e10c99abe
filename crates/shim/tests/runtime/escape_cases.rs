// SPDX-License-Identifier: Apache-2.0
//! Known escapes from other runtimes, by the rows of our list of them: R runc,
//! C crun and youki. Each looks at what an attacker would have gained.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
};

use berth_shim::{
    cgroup::{Driver, Layout, Placement},
    kernel::{
        process::{self, CapSets},
        seccomp,
    },
    runtime::Kind,
};
use serde_json::json;

use crate::{
    harness::{Bundle, host_state, in_a_child, is_clean},
    join_cases::{Running, mapped},
    race_cases::in_a_terminal,
};

/// Name and body of each.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("r01_a_number_is_never_a_name", r01_a_number_is_never_a_name),
    ("r04_nothing_but_proc_is_proc", r04_nothing_but_proc_is_proc),
    ("r05_c06_a_link_is_no_proc_and_no_sys", r05_c06_a_link_is_no_proc_and_no_sys),
    ("r07_long_names_and_many_mounts", r07_long_names_and_many_mounts),
    ("r08_nothing_is_inheritable", r08_nothing_is_inheritable),
    ("r09_cgroups_are_not_written_to", r09_cgroups_are_not_written_to),
    ("r12_c06_what_hides_is_not_the_images", r12_c06_what_hides_is_not_the_images),
    ("r13_the_console_is_not_the_images", r13_the_console_is_not_the_images),
    ("r15_c01_c04_a_linked_dev_leads_nowhere", r15_c01_c04_a_linked_dev_leads_nowhere),
    ("r16_a_list_of_devices_is_no_list_of_exceptions", r16_a_list_of_devices_is_no_list_of_exceptions),
    ("r17_many_are_made_and_nothing_grows", r17_many_are_made_and_nothing_grows),
    (
        "c02_files_of_the_hosts_are_put_where_the_image_leads",
        c02_files_of_the_hosts_are_put_where_the_image_leads,
    ),
    ("c05_words_are_taken_whole", c05_words_are_taken_whole),
    ("c05_without_openat2_nothing_is_made", c05_without_openat2_nothing_is_made),
    ("c03_users_are_numbers_or_names_or_refused", c03_users_are_numbers_or_names_or_refused),
];

/// A directory of the host that nothing may touch.
struct Canary {
    dir: tempfile::TempDir,
    before: Vec<(PathBuf, u64, i64)>,
}

impl Canary {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["null", "console", "ptmx", "file"] {
            fs::write(dir.path().join(name), "canary").unwrap();
        }
        let before = look(dir.path());
        Self { dir, before }
    }

    #[track_caller]
    fn lives(&self) {
        assert_eq!(look(self.dir.path()), self.before);
        assert_eq!(fs::read_to_string(self.dir.path().join("null")).unwrap(), "canary");
    }
}

/// Names, inodes with their owners and modes, and times.
fn look(dir: &Path) -> Vec<(PathBuf, u64, i64)> {
    let entry = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        (
            path,
            metadata.ino() ^ u64::from(metadata.mode()) << 32 ^ u64::from(metadata.uid()),
            metadata.mtime_nsec(),
        )
    };
    let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(entry).collect();
    all.sort();
    all
}

/// CVE-2016-3697.
fn r01_a_number_is_never_a_name() {
    let mut bundle = Bundle::shell("id -u; id -g");
    fs::write(bundle.rootfs().join("etc/passwd"), "1000:x:0:0::/:/bin/sh\nroot:x:0:0::/:/bin/sh\n").unwrap();
    fs::write(bundle.rootfs().join("etc/group"), "100:x:0:\nroot:x:0:\n").unwrap();
    bundle.user = "1000:100".to_owned();
    assert_eq!(bundle.output(), "1000\n100\n");
}

/// CVE-2019-16884.
fn r04_nothing_but_proc_is_proc() {
    let fake = tempfile::tempdir().unwrap();
    let attacks = [
        json!({"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/proc", "type": "bind", "source": fake.path(), "options": ["bind"]}),
        json!({"destination": "/proc/self", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/proc/sys/kernel", "type": "bind", "source": fake.path(), "options": ["rbind"]}),
        json!({"destination": "/proc/../proc", "type": "tmpfs", "source": "tmpfs"}),
    ];
    for attack in attacks {
        let e = Bundle::new(&["true"]).mount(attack.clone()).error();
        assert_eq!(e.kind(), Kind::InvalidSpec, "{attack}: {e}");
        assert!(e.to_string().contains("/proc"), "{e}");
    }
}

/// CVE-2019-19921, 2023-27561, 2023-28642; youki 2025-62161.
fn r05_c06_a_link_is_no_proc_and_no_sys() {
    let canary = Canary::new();
    for name in ["proc", "sys"] {
        let mut bundle = Bundle::new(&["true"]);
        let spot = bundle.rootfs().join(name);
        fs::remove_dir(&spot).unwrap();
        symlink(canary.dir.path(), &spot).unwrap();
        if name == "sys" {
            bundle = bundle.mount(json!({"destination": "/sys", "type": "sysfs", "source": "sysfs"}));
        }
        let e = bundle.error();
        assert!(e.to_string().contains("must be mounted on ordinary directory"), "{name}: {e}");
        canary.lives();
    }
}

/// CVE-2021-43784: lengths that a wire format may not hold.
fn r07_long_names_and_many_mounts() {
    let long = format!("/{}", "a/".repeat(40_000));
    let mount = json!({"destination": "/tmp/x", "type": "bind", "source": long, "options": ["bind"]});
    let e = Bundle::new(&["true"]).mount(mount).error();
    // The kernel has refused the name; what is said of it is cut.
    let said = e.to_string();
    assert!(said.starts_with("error mounting \"/a/a/") && said.len() < 5000, "{said}");
    let mut bundle = Bundle::shell("cat /proc/self/mountinfo | grep -c ' /many/'");
    for n in 0..500 {
        let destination = format!("/many/{n}/{}", "n".repeat(200));
        bundle = bundle.mount(json!({"destination": destination, "type": "tmpfs", "source": "tmpfs"}));
    }
    assert_eq!(bundle.output(), "500\n");
}

/// CVE-2025-31133; youki 2025-54867.
fn r12_c06_what_hides_is_not_the_images() {
    let canary = Canary::new();
    let bundle =
        Bundle::shell("cat /proc/keys /tmp/secret; ls -ln /tmp/secret; echo x >/tmp/secret; cat /tmp/secret");
    fs::write(bundle.rootfs().join("tmp/secret"), "secret").unwrap();
    symlink(canary.dir.path().join("null"), bundle.rootfs().join("dev/null")).unwrap();
    let said = bundle.set("/linux/maskedPaths", json!(["/proc/keys", "/tmp/secret", "/not/there"])).output();
    assert!(said.starts_with("crw-rw-rw-") && said.ends_with("/tmp/secret\n"), "{said}");
    canary.lives();
}

/// CVE-2026-41579, CVE-2019-18837, CVE-2026-88264: the image's /dev is a link,
/// and the specification says nothing of /dev.
fn r15_c01_c04_a_linked_dev_leads_nowhere() {
    let canary = Canary::new();
    for mounted in [true, false] {
        let mut bundle = Bundle::shell("ls -ln /dev/null /dev/ptmx; ls /dev/file 2>/dev/null || echo own");
        fs::remove_dir(bundle.rootfs().join("dev")).unwrap();
        symlink(canary.dir.path(), bundle.rootfs().join("dev")).unwrap();
        if !mounted {
            bundle.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] == "/proc");
        }
        match bundle.run() {
            Ok(output) => {
                assert!(output.stdout.starts_with("crw") && output.stdout.ends_with("own\n"), "{output:?}")
            }
            Err(e) => assert!(e.to_string().contains("/dev"), "{e}"),
        }
        canary.lives();
    }
}

/// CVE-2026-30892.
fn c03_users_are_numbers_or_names_or_refused() {
    let said = |user: &str| {
        let mut bundle = Bundle::shell("id -u; id -g");
        bundle.user = user.to_owned();
        bundle.run().map(|output| output.stdout)
    };
    for (user, ids) in
        [("1", "1\n0\n"), ("1:2", "1\n2\n"), ("web", "1000\n100\n"), ("web:logs", "1000\n200\n")]
    {
        assert_eq!(said(user).unwrap(), ids, "{user}");
    }
    for user in ["0x1", "+1", "-1", " 1", "4294967295", "4294967296", "99999999999", "nobody-here", "1:-1"] {
        let e = said(user).expect_err(user);
        assert_eq!(e.kind(), Kind::InvalidSpec, "{user}: {e}");
    }
}

/// CVE-2022-29162: whatever the runtime itself could hand on.
fn r08_nothing_is_inheritable() {
    let _own = Inheritable::all();
    let look = "grep -E '^Cap(Inh|Amb)' /proc/self/status";
    let none = "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000\n";
    for (user, more) in [("", false), ("1000:100", false), ("", true), ("web", true)] {
        let mut bundle = Bundle::shell(look);
        bundle.user = user.to_owned();
        if more {
            for set in ["bounding", "effective", "permitted"] {
                let names = bundle.spec["process"]["capabilities"][set].as_array_mut().unwrap();
                names.push(json!("CAP_SYS_ADMIN"));
            }
        }
        assert_eq!(bundle.output(), none, "{user} {more}");
    }
    let running = Running::new(Bundle::new(&["sleep", "1000"]));
    for user in ["", "web"] {
        assert_eq!(running.join_as(user, running.process(look)).unwrap(), (0, none.to_owned()), "{user}");
    }
}

/// While it lives, this process could hand on all its capabilities.
struct Inheritable(CapSets);

impl Inheritable {
    fn all() -> Self {
        let own = process::capabilities().unwrap();
        process::set_capabilities(CapSets { inheritable: own.permitted, ..own }).unwrap();
        process::set_ambient(own.permitted).unwrap();
        Self(own)
    }
}

impl Drop for Inheritable {
    fn drop(&mut self) {
        process::set_ambient(0).unwrap();
        process::set_capabilities(self.0).unwrap();
    }
}

/// CVE-2023-25809: whichever cgroup and user namespaces there are.
fn r09_cgroups_are_not_written_to() {
    let script = "for dir in /sys/fs/cgroup /sys/fs/cgroup/*; do
            busybox mkdir $dir/r09 2>/dev/null && echo made $dir
            for file in cgroup.procs release_agent notify_on_release devices.allow memory.limit_in_bytes memory.max; do
                test -e $dir/$file && (echo 1 >$dir/$file) 2>/dev/null && echo wrote $dir/$file
            done
        done
        mount -o remount,rw /sys/fs/cgroup 2>/dev/null && echo remounted
        mount -o remount,bind,rw /sys/fs/cgroup 2>/dev/null && echo remounted
        for type in cgroup cgroup2; do mount -t $type -o all x /tmp 2>/dev/null && echo mounted; done
        echo done";
    for has_own in [true, false] {
        for bundle in [Bundle::shell(script), mapped(script)] {
            let mut bundle = bundle;
            if !has_own {
                let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
                namespaces.retain(|namespace| namespace["type"] != "cgroup");
            }
            assert_eq!(bundle.output(), "done\n", "own cgroup namespace: {has_own}");
        }
    }
}

/// CVE-2025-52565: a console that the image has prepared.
fn r13_the_console_is_not_the_images() {
    let canary = Canary::new();
    let prepared = |dir: &Path| {
        for name in ["console", "ptmx", "null"] {
            symlink(canary.dir.path().join(name), dir.join(name)).unwrap();
        }
    };
    let say = "echo to the terminal; echo to the console > /dev/console";
    let bundle = Bundle::shell(say).set("/process/terminal", json!(true));
    prepared(&bundle.rootfs().join("dev"));
    let said = in_a_terminal(&bundle).unwrap();
    assert!(said.contains("to the terminal") && said.contains("to the console"), "{said:?}");
    canary.lives();
    // And a /dev that isn't the runtime's.
    for link in ["console", "pts"] {
        let mut bundle = Bundle::shell("echo to the terminal").set("/process/terminal", json!(true));
        let shared = bundle.dir.path().join("dev");
        for name in ["pts", "shm", "mqueue"] {
            fs::create_dir_all(shared.join(name)).unwrap();
        }
        if link == "pts" {
            fs::remove_dir(shared.join("pts")).unwrap();
            symlink(canary.dir.path(), shared.join("pts")).unwrap();
        } else {
            prepared(&shared);
        }
        for mount in bundle.spec["mounts"].as_array_mut().unwrap() {
            if mount["destination"] == "/dev" {
                *mount =
                    json!({"destination": "/dev", "type": "bind", "source": shared, "options": ["bind"]});
            }
        }
        match in_a_terminal(&bundle) {
            Ok(said) => assert!(said.contains("to the terminal"), "{said:?}"),
            Err(e) => assert!(e.to_string().contains("/dev"), "{e}"),
        }
        canary.lives();
    }
}

/// GHSA-g54h-m393-cpwq: a list of devices says what is allowed, all else isn't.
fn r16_a_list_of_devices_is_no_list_of_exceptions() {
    let script = "mknod /tmp/disk b 8 0 2>/dev/null; mknod /tmp/zero c 1 5 && dd if=/tmp/zero of=/dev/null bs=1 count=1 2>/dev/null && echo zero
        mknod /tmp/mem c 1 1 2>/dev/null; for name in disk mem; do (: </tmp/$name) 2>/dev/null && echo opened $name; done; echo done";
    let zero = json!({"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"});
    let disks = json!({"allow": false, "type": "b", "access": "rwm"});
    for rules in [json!([zero]), json!([{"allow": false, "access": "rwm"}, zero]), json!([disks, zero])] {
        let bundle = Bundle::shell(script).set("/linux/resources/devices", rules.clone());
        assert_eq!(bundle.output(), "zero\ndone\n", "{rules}");
    }
}

/// Containers by the hundred leave this process as it was.
fn r17_many_are_made_and_nothing_grows() {
    let bundle = Bundle::new(&["true"]);
    let failing = Bundle::new(&["/nothing/there"]);
    let round = |times: usize| {
        for number in 0..times {
            bundle.run().unwrap();
            if number % 4 == 0 {
                failing.run().unwrap_err();
            }
        }
    };
    round(20);
    let (before, memory) = (host_state(), resident());
    round(200);
    assert!(is_clean(&before));
    let grown = resident().saturating_sub(memory);
    assert!(grown < 1024, "{grown} KiB");
}

/// KiB of this process that no file backs (proc_pid_status(5)).
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// CVE-2025-24965, CVE-2024-5154: files that are put into a container land
/// where its own names lead, and nowhere else.
fn c02_files_of_the_hosts_are_put_where_the_image_leads() {
    let canary = Canary::new();
    let put = tempfile::tempdir().unwrap();
    let names = ["hosts", "hostname", "resolv.conf"];
    for whole in [false, true] {
        let mut bundle = Bundle::shell("cat /etc/hosts /etc/hostname /etc/resolv.conf");
        let etc = bundle.rootfs().join("etc");
        if whole {
            fs::remove_dir_all(&etc).unwrap();
            symlink(canary.dir.path(), &etc).unwrap();
        }
        for name in names {
            fs::write(put.path().join(name), format!("{name}\n")).unwrap();
            if !whole {
                symlink(canary.dir.path().join("file"), etc.join(name)).unwrap();
            }
            let destination = format!("/etc/{name}");
            let source = put.path().join(name);
            bundle = bundle.mount(
                json!({"destination": destination, "type": "bind", "source": source, "options": ["bind"]}),
            );
        }
        let said = bundle.output();
        // Three links to one file are three mounts on it: the last is seen.
        let expected =
            if whole { "hosts\nhostname\nresolv.conf\n" } else { "resolv.conf\nresolv.conf\nresolv.conf\n" };
        assert_eq!(said, expected);
        canary.lives();
    }
}

/// What crun has hardened: names that could be paths, words that begin like
/// others.
fn c05_words_are_taken_whole() {
    for profile in ["unconfined_foo", "unconfined "] {
        let e = Bundle::new(&["true"]).set("/process/apparmorProfile", json!(profile)).error();
        assert!(e.to_string().contains("process.apparmorProfile"), "{profile}: {e}");
    }
    assert_eq!(Bundle::new(&["true"]).set("/process/apparmorProfile", json!("unconfined")).output(), "");
    for path in ["/../../../r05", "../../r05", "/a/../../../../r05"] {
        let layout = Layout::of_host().unwrap();
        let e = Placement::of_spec(&layout, Driver::Cgroupfs, path, "id").unwrap_err();
        assert!(e.to_string().starts_with("linux.cgroupsPath"), "{e}");
    }
}

/// crun falls back on other calls where a filter around it blocks openat2; we
/// say so, and leave nothing.
fn c05_without_openat2_nothing_is_made() {
    let bundle = Bundle::new(&["true"]);
    let canary = Canary::new();
    symlink(canary.dir.path(), bundle.rootfs().join("link")).unwrap();
    let bundle = bundle.mount(json!({"destination": "/link/x", "type": "tmpfs", "source": "tmpfs"}));
    for errno in [nix::libc::ENOSYS, nix::libc::EPERM] {
        let profile = serde_json::from_value(json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["openat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno}],
        }));
        let filter = berth_seccomp::compile(&profile.unwrap()).unwrap();
        in_a_child(0, || {
            seccomp::install(&filter.raw(), filter.flags).unwrap();
            let e = bundle.error();
            assert!(e.to_string().contains("openat2(2) is missing"), "{e}");
        });
    }
    assert_eq!(bundle.output(), "");
    canary.lives();
}
