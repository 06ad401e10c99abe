// SPDX-License-Identifier: Apache-2.0
//! What a racing neighbour can make of paths: it shares the tree that a
//! container begins in, and swaps directories for links to the host, again and
//! again. BERTH_RACE_SECONDS makes each case longer.

use std::{
    fs,
    io::Read as _,
    os::{fd::AsFd as _, unix::fs::symlink},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use berth_shim::{
    kernel::process,
    runtime::{self, Stdio},
};
use nix::{
    fcntl::{RenameFlags, renameat2},
    sys::wait::{Id, WaitPidFlag, waitid},
};
use serde_json::json;

use crate::{
    harness::{Bundle, Canary, reap},
    join_cases::Running,
};

/// Name and body of each.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("r06_r11_a_racing_link_leads_nowhere", r06_r11_a_racing_link_leads_nowhere),
    ("r05_r12_r15_racing_dev_proc_and_sys_lead_nowhere", r05_r12_r15_racing_dev_proc_and_sys_lead_nowhere),
    ("r13_a_racing_console_leads_nowhere", r13_a_racing_console_leads_nowhere),
    ("who_joins_is_not_led_astray_by_a_race", who_joins_is_not_led_astray_by_a_race),
];

/// A process that swaps names until it is dropped.
struct Racer(process::Child);

impl Racer {
    /// Swaps each path for its neighbour of the same name with `-other`, which
    /// is made: a link to the canary.
    fn begin(paths: &[PathBuf], canary: &Path) -> Self {
        let other = |path: &PathBuf| PathBuf::from(format!("{}-other", path.display()));
        for path in paths {
            symlink(canary.join(path.file_name().unwrap()), other(path)).unwrap();
        }
        let exchange = |path: &PathBuf| {
            let here = nix::fcntl::AT_FDCWD;
            renameat2(here, path, here, &other(path), RenameFlags::RENAME_EXCHANGE)
        };
        // It works once, so it will.
        paths.iter().for_each(|path| (0..2).for_each(|_| exchange(path).unwrap()));
        // A process, because the runtime is for one with a single thread.
        let racer = process::clone3(0, None, || {
            let deadline = Instant::now() + Duration::from_secs(600);
            while Instant::now() < deadline {
                for path in paths {
                    // Busy where something is mounted on it just now.
                    let _ = exchange(path);
                }
            }
            process::exit_now(0)
        });
        Self(racer.unwrap())
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        process::pidfd_send_signal(self.0.pidfd.as_fd(), nix::libc::SIGKILL).unwrap();
        waitid(Id::PIDFd(self.0.pidfd.as_fd()), WaitPidFlag::WEXITED).unwrap();
    }
}

fn deadline() -> Instant {
    let seconds = std::env::var("BERTH_RACE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(4);
    Instant::now() + Duration::from_secs(seconds)
}

/// Runs `once` until the time is up; neither the canary nor the machine's own
/// settings change.
fn race(canary: &Canary, mut once: impl FnMut() -> bool) {
    let settings = || {
        ["core_pattern", "modprobe"]
            .map(|name| fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).ok())
    };
    let (deadline, before) = (deadline(), settings());
    let (mut started, mut refused) = (0, 0);
    while Instant::now() < deadline || started + refused < 10 {
        if once() {
            started += 1
        } else {
            refused += 1
        }
        canary.assert_untouched();
        assert_eq!(settings(), before);
    }
    println!("{started} started, {refused} refused");
}

/// Below a mount, a device, a masked path and the working directory.
fn r06_r11_a_racing_link_leads_nowhere() {
    let bundle = Bundle::new(&["true"])
        .mount(json!({"destination": "/swap/made/mount", "type": "tmpfs", "source": "tmpfs", "options": []}))
        .mount(json!({"destination": "/swap/hosts", "type": "bind", "source": "/proc/version", "options": ["bind"]}))
        .set("/linux/maskedPaths", json!(["/swap/passwd"]))
        .set("/linux/readonlyPaths", json!(["/swap/console"]))
        .set("/linux/devices", json!([{"path": "/swap/null0", "type": "c", "major": 1, "minor": 3}]))
        .set("/process/cwd", json!("/swap/cwd"));
    let (root, canary) = (bundle.rootfs(), Canary::new(&bundle));
    fs::create_dir(root.join("swap")).unwrap();
    for name in ["passwd", "console"] {
        fs::write(root.join("swap").join(name), "").unwrap();
    }
    let all = canary.path().join("..");
    symlink(canary.path(), bundle.dir.path().join("swap")).unwrap();
    let racer = Racer::begin(&[root.join("swap")], &all);
    race(&canary, || bundle.run().is_ok());
    drop(racer);
}

/// The places that the runtime itself fills, and the files that it reads: the
/// user is the image's, whoever else the host knows by that name.
fn r05_r12_r15_racing_dev_proc_and_sys_lead_nowhere() {
    let mut bundle =
        Bundle::shell("id -u; cat /proc/self/attr/current /dev/null; ls /sys/kernel >/dev/null && pwd -P");
    bundle.user = "web".to_owned();
    let bundle = bundle.set("/process/cwd", json!("/work/deep"));
    let (root, canary) = (bundle.rootfs(), Canary::new(&bundle));
    fs::create_dir_all(root.join("work/deep")).unwrap();
    // Who follows the link ends in a directory of that name on the host.
    let host = tempfile::tempdir().unwrap();
    let names = ["dev", "proc", "sys", "etc", "work"];
    for name in names {
        let place = host.path().join(name);
        fs::create_dir_all(place.join("deep")).unwrap();
        fs::write(place.join("passwd"), "web:x:4242:4242::/:/bin/sh\n").unwrap();
        fs::write(place.join("null"), "host\n").unwrap();
    }
    let before = tree(host.path());
    let racer = Racer::begin(&names.map(|name| root.join(name)), host.path());
    race(&canary, || match bundle.run() {
        Ok(output) => {
            let lines: Vec<_> = output.stdout.lines().collect();
            // Without /etc/passwd there is no such user, and with it one.
            assert_eq!(lines.first(), Some(&"1000"), "{output:?}");
            assert!(!output.stdout.contains("host"), "{output:?}");
            assert_eq!(tree(host.path()), before);
            true
        }
        Err(_) => {
            assert_eq!(tree(host.path()), before);
            false
        }
    });
    drop(racer);
}

/// All names below a directory.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.file_type().unwrap().is_dir() {
            all.extend(tree(&entry.path()));
        }
        all.push(entry.path());
    }
    all.sort();
    all
}

/// CVE-2025-52565: a terminal in a /dev that is the neighbour's, too.
fn r13_a_racing_console_leads_nowhere() {
    let mut bundle = Bundle::shell("echo to the terminal").set("/process/terminal", json!(true));
    let shared = bundle.dir.path().join("dev");
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir_all(shared.join(name)).unwrap();
    }
    fs::write(shared.join("console"), "").unwrap();
    for mount in bundle.spec["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev" {
            *mount = json!({"destination": "/dev", "type": "bind", "source": shared, "options": ["bind"]});
        }
    }
    let canary = Canary::new(&bundle);
    let host = tempfile::tempdir().unwrap();
    fs::create_dir(host.path().join("pts")).unwrap();
    fs::write(host.path().join("pts/ptmx"), "").unwrap();
    symlink(canary.path().join("console"), host.path().join("console")).unwrap();
    let before = tree(host.path());
    let racer = Racer::begin(&["pts", "console"].map(|name| shared.join(name)), host.path());
    race(&canary, || {
        let started = in_a_terminal(&bundle);
        assert_eq!(tree(host.path()), before);
        if let Ok(said) = &started {
            assert!(said.contains("to the terminal"), "{said:?}");
        }
        started.is_ok()
    });
    drop(racer);
}

/// What a container says on a terminal of its own.
pub(crate) fn in_a_terminal(bundle: &Bundle) -> runtime::Result<String> {
    let mut container = bundle.create(Stdio::Terminal { rows: 24, columns: 80, plain: true })?;
    let mut master = fs::File::from(container.take_console().unwrap());
    let started = container.start();
    let mut said = Vec::new();
    // Its end is an error of the terminal's (EIO).
    let _ = started.is_ok().then(|| master.read_to_end(&mut said));
    reap(&container);
    container.cleanup().unwrap();
    started.map(|()| String::from_utf8(said).unwrap())
}

/// The same for a process that joins: the user and the working directory.
fn who_joins_is_not_led_astray_by_a_race() {
    let bundle = Bundle::new(&["sleep", "1000"]);
    let (root, canary) = (bundle.rootfs(), Canary::new(&bundle));
    fs::create_dir_all(root.join("work/deep")).unwrap();
    let host = tempfile::tempdir().unwrap();
    for name in ["etc", "work"] {
        let place = host.path().join(name);
        fs::create_dir_all(place.join("deep")).unwrap();
        fs::write(place.join("passwd"), "web:x:4242:4242::/:/bin/sh\n").unwrap();
    }
    let running = Running::new(bundle);
    let racer = Racer::begin(&["etc", "work"].map(|name| root.join(name)), host.path());
    race(&canary, || {
        let mut process = running.process("id -u; pwd -P");
        process.set_cwd("/work/deep".into());
        match running.join_as("web", process) {
            Ok((_, said)) => {
                assert_eq!(said.lines().next(), Some("1000"), "{said}");
                let place = said.lines().nth(1).unwrap_or_default();
                assert!(["/work/deep", "/work-other/deep", ""].contains(&place), "{said}");
                true
            }
            Err(_) => false,
        }
    });
    drop(racer);
}
