// SPDX-License-Identifier: Apache-2.0
//! Known escapes from other runtimes, by the rows of our list of them: R runc,
//! C crun and youki. Each looks at what an attacker would have gained.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::{Path, PathBuf},
};

use berth_shim::runtime::Kind;
use serde_json::json;

use crate::harness::Bundle;

/// Name and body of each.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("r01_a_number_is_never_a_name", r01_a_number_is_never_a_name),
    ("r04_nothing_but_proc_is_proc", r04_nothing_but_proc_is_proc),
    ("r05_c06_a_link_is_no_proc_and_no_sys", r05_c06_a_link_is_no_proc_and_no_sys),
    ("r07_long_names_and_many_mounts", r07_long_names_and_many_mounts),
    ("r12_what_hides_is_not_the_images", r12_what_hides_is_not_the_images),
    ("r15_c01_c04_a_linked_dev_leads_nowhere", r15_c01_c04_a_linked_dev_leads_nowhere),
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

/// CVE-2025-31133.
fn r12_what_hides_is_not_the_images() {
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
