// SPDX-License-Identifier: Apache-2.0
//! Mounts and device files.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use serde_json::json;

use crate::harness::{Bundle, Canary};

/// Name and body of each.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("a_tmpfs_starts_with_what_it_covers", a_tmpfs_starts_with_what_it_covers),
    ("devices_anywhere", devices_anywhere),
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
