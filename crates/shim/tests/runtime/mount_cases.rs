// SPDX-License-Identifier: Apache-2.0
//! Mounts and device files, and the gate against escapes by path: which calls
//! reach below a root, and what a racing neighbour can make of them.

use std::{
    fs,
    os::{
        fd::AsFd as _,
        unix::fs::{PermissionsExt as _, symlink},
    },
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use berth_shim::kernel::process;
use nix::{
    fcntl::{RenameFlags, renameat2},
    sys::wait::{Id, WaitPidFlag, waitid},
};
use serde_json::json;

use crate::harness::{Bundle, Canary};

/// Name and body of each.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("a_tmpfs_starts_with_what_it_covers", a_tmpfs_starts_with_what_it_covers),
    ("devices_anywhere", devices_anywhere),
    ("no_path_below_the_root_is_trusted", no_path_below_the_root_is_trusted),
    ("r06_r11_a_racing_link_leads_nowhere", r06_r11_a_racing_link_leads_nowhere),
];

fn a_tmpfs_starts_with_what_it_covers() {
    let tmpfs = |destination: &str, options: &[&str]| json!({"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options});
    let bundle = Bundle::shell(
        "cd /data && cat sub/file && readlink sub/link && ls -ldn sub/file sub | grep -cE '^(-rwsr-x---|drwxrws---) .* 7 +8 ';
         touch /data/x 2>&1; ls -ld /open | head -c 10; echo; ls -ld /shut | head -c 10; echo; ls -A /open",
    );
    let bundle = bundle
        .mount(tmpfs("/data", &["tmpcopyup", "ro"]))
        .mount(tmpfs("/open", &[]))
        .mount(tmpfs("/shut", &["mode=700"]))
        .mount(tmpfs("/new", &["tmpcopyup"]));
    let (root, canary) = (bundle.rootfs(), Canary::new(&bundle));
    fs::create_dir_all(root.join("data/sub")).unwrap();
    fs::write(root.join("data/sub/file"), "image\n").unwrap();
    symlink(canary.path().join("passwd"), root.join("data/sub/link")).unwrap();
    for (name, mode) in [("data/sub/file", 0o4750), ("data/sub", 0o2770)] {
        std::os::unix::fs::chown(root.join(name), Some(7), Some(8)).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    for name in ["open", "shut"] {
        fs::create_dir(root.join(name)).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o1777)).unwrap();
    }
    fs::write(root.join("open/hidden"), "").unwrap();
    let link = canary.path().join("passwd").display().to_string();
    let expected =
        format!("image\n{link}\n2\ntouch: /data/x: Read-only file system\ndrwxrwxrwt\ndrwx------\n");
    let output = bundle.run().unwrap();
    assert_eq!(output.stdout, expected, "{output:?}");
    canary.assert_untouched();
}

fn devices_anywhere() {
    let device =
        |path: &str| json!({"path": path, "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 5});
    let bundle = Bundle::shell("ls -ln /srv/made /there /link/made | grep -c '^cr.* 1, *3 '")
        .set("/linux/devices", json!([device("/srv/made"), device("/there"), device("/link/made")]));
    let (root, canary) = (bundle.rootfs(), Canary::new(&bundle));
    symlink(canary.path(), root.join("link")).unwrap();
    let null = nix::sys::stat::makedev(1, 3);
    let (kind, mode) = (nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::S_IRWXU);
    nix::sys::stat::mknod(&root.join("there"), kind, mode, null).unwrap();
    assert_eq!(bundle.output(), "3\n");
    canary.assert_untouched();
    // A file of the image does not pass for the device.
    fs::remove_file(root.join("there")).unwrap();
    fs::write(root.join("there"), "").unwrap();
    let e = bundle.error();
    assert!(e.to_string().contains("make the device /there"), "{e}");
}

/// Where the binary is: elsewhere on a machine that it wasn't built on.
fn program() -> String {
    std::env::var("BERTH_OCI").unwrap_or_else(|_| env!("CARGO_BIN_EXE_berth-oci").to_owned())
}

/// The gate of point 1 of the escapes: under strace, what reaches below the
/// root is openat2, or one component below a descriptor.
fn no_path_below_the_root_is_trusted() {
    let bundle = Bundle::new(&["true"])
        .mount(json!({"destination": "/var/run/deep", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}))
        .mount(json!({"destination": "/etc/file", "type": "bind", "source": "/proc/version", "options": ["bind", "ro"]}))
        .set("/process/cwd", json!("/made/here"))
        .set("/linux/devices", json!([{"path": "/srv/null", "type": "c", "major": 1, "minor": 3}]));
    fs::create_dir(bundle.rootfs().join("var")).unwrap();
    symlink("/run", bundle.rootfs().join("var/run")).unwrap();
    let (dir, log) = (bundle.dir.path(), bundle.dir.path().join("trace"));
    fs::write(dir.join("config.json"), bundle.spec.to_string()).unwrap();
    let status = Command::new("strace")
        .args([
            "-f",
            "-qq",
            "-s",
            "4096",
            "-e",
            "trace=%file,mount,move_mount,open_tree,openat2,mount_setattr",
            "-o",
        ])
        .arg(&log)
        .args([program().as_str(), "--root"])
        .arg(dir.join("state"))
        .args(["run", "--bundle"])
        .arg(dir)
        .arg(bundle.id())
        .status()
        .expect("strace: scripts/test-deps.sh installs it");
    let trace = fs::read_to_string(&log).unwrap();
    assert!(status.success(), "{trace}");
    let init =
        trace.lines().find(|line| line.contains("pivot_root(")).expect("a pivot_root").split(' ').next();
    let mine: Vec<_> = trace.lines().filter(|line| line.split(' ').next() == init).collect();
    let end = mine.iter().position(|line| line.contains("execve(")).expect("an execve");
    let (mut resolved, mut inside, mut trusting) = (0, false, Vec::new());
    for line in &mine[..end] {
        resolved += usize::from(line.contains("RESOLVE_IN_ROOT"));
        if !is_safe(line, &bundle.rootfs(), inside) {
            trusting.push(*line);
        }
        inside |= line.contains("pivot_root(");
    }
    assert!(trusting.is_empty(), "{trusting:#?}");
    assert!(resolved > 20, "{resolved} paths were resolved in {mine:#?}");
}

/// Whether a traced call can't be led out of the root by what is in it.
fn is_safe(line: &str, root: &Path, inside: bool) -> bool {
    let call = line.split_once(' ').map_or("", |(_, call)| call.trim_start());
    let (name, arguments) = call.split_once('(').unwrap_or_default();
    let below = format!("{}/", root.display());
    let paths: Vec<_> = arguments.split('"').skip(1).step_by(2).collect();
    match name {
        "openat2" => arguments.contains("RESOLVE_IN_ROOT") || arguments.contains("RESOLVE_BENEATH"),
        // The first is the content of a link, and the kernel leaves it alone.
        "symlinkat" => paths.last().is_some_and(|name| !name.contains('/')),
        "pivot_root" | "umount2" => paths.iter().all(|path| *path == "."),
        "chdir" => paths == ["/"],
        // The second is what the link says.
        "readlinkat" => !paths[0].contains('/'),
        // The program is looked for as the container's user, from its root.
        "newfstatat" | "faccessat2" if inside => true,
        // These answer or take nothing of a path.
        "fsconfig" | "getcwd" | "" | "+++" | "---" => true,
        _ if paths.iter().all(|path| path.is_empty()) => true,
        // The host's own files, which no image has a say in.
        _ if !inside && paths.iter().all(|path| path.starts_with('/') && !path.starts_with(&below)) => true,
        _ if arguments.starts_with("AT_FDCWD") => false,
        "openat" => !paths[0].contains('/') && (arguments.contains("O_NOFOLLOW") || paths[0] == ".."),
        _ => paths.iter().all(|path| !path.contains('/')),
    }
}

/// A neighbour that shares the tree swaps a directory for a link to the host,
/// again and again, below a mount, a device, a masked path and the working
/// directory. BERTH_RACE_SECONDS makes it longer.
fn r06_r11_a_racing_link_leads_nowhere() {
    let seconds = std::env::var("BERTH_RACE_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(5);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let bundle = Bundle::new(&["true"])
        .mount(json!({"destination": "/swap/made/mount", "type": "tmpfs", "source": "tmpfs", "options": []}))
        .mount(json!({"destination": "/swap/hosts", "type": "bind", "source": "/proc/version", "options": ["bind"]}))
        .set("/linux/maskedPaths", json!(["/swap/passwd"]))
        .set("/linux/devices", json!([{"path": "/swap/null0", "type": "c", "major": 1, "minor": 3}]))
        .set("/process/cwd", json!("/swap/cwd"));
    let (root, canary) = (bundle.rootfs(), Canary::new(&bundle));
    fs::create_dir(root.join("swap")).unwrap();
    fs::write(root.join("swap/passwd"), "").unwrap();
    symlink(canary.path(), root.join("other")).unwrap();
    let (swap, other) = (root.join("swap"), root.join("other"));
    let exchange = || {
        let cwd = nix::fcntl::AT_FDCWD;
        renameat2(cwd, &swap, cwd, &other, RenameFlags::RENAME_EXCHANGE)
    };
    exchange().unwrap();
    // A process, because the runtime is for one with a single thread.
    let racer = process::clone3(0, None, || {
        while Instant::now() < deadline + Duration::from_secs(60) {
            exchange().unwrap();
        }
        process::exit_now(0)
    })
    .unwrap();
    let (mut started, mut refused) = (0, 0);
    while Instant::now() < deadline {
        match bundle.run() {
            Ok(_) => started += 1,
            Err(_) => refused += 1,
        }
        canary.assert_untouched();
    }
    process::pidfd_send_signal(racer.pidfd.as_fd(), libc::SIGKILL).unwrap();
    waitid(Id::PIDFd(racer.pidfd.as_fd()), WaitPidFlag::WEXITED).unwrap();
    println!("{started} started, {refused} refused");
    assert!(started + refused > 10);
}
