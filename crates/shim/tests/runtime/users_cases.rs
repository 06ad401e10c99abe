// SPDX-License-Identifier: Apache-2.0
//! Users of a container's own: joined ones, and mounts and layers whose files
//! have them for owners without being changed.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
};

use berth_shim::runtime::Kind;
use serde_json::{Value, json};

use crate::{
    harness::{Bundle, pipes},
    join_cases::{mapped, with_namespace},
};

/// Name and body of each.
pub(crate) const ALL: &[(&str, fn())] = &[
    ("layers_belong_to_the_containers_root_unchanged", layers_belong_to_the_containers_root_unchanged),
    ("an_overlay_that_is_not_mapped_needs_no_open_door", an_overlay_that_is_not_mapped_needs_no_open_door),
    ("a_bind_shows_the_containers_ids", a_bind_shows_the_containers_ids),
    (
        "a_bind_has_ids_of_its_own_without_a_user_namespace",
        a_bind_has_ids_of_its_own_without_a_user_namespace,
    ),
    ("ids_of_a_mount_that_make_no_sense", ids_of_a_mount_that_make_no_sense),
    ("users_of_another_container_are_joined", users_of_another_container_are_joined),
    ("joined_users_are_as_the_specification_says", joined_users_are_as_the_specification_says),
];

const HOST_ROOT: u32 = 100_000;

/// A remapped container whose layers are remapped, too, and closed to anybody
/// but the host's root; the writable directory is the container's.
fn remapped(script: &str) -> Bundle {
    let mut bundle = mapped(script);
    bundle.overlay = true;
    bundle.more_options = vec!["uidmap=0:100000:65536".to_owned(), "gidmap=0:100000:65536".to_owned()];
    fs::create_dir(bundle.dir.path().join("upper")).unwrap();
    chown(bundle.dir.path().join("upper"), Some(HOST_ROOT), Some(HOST_ROOT)).unwrap();
    fs::set_permissions(bundle.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    bundle
}

fn layers_belong_to_the_containers_root_unchanged() {
    let script = "ls -ln /etc/passwd; id -u; echo new >/etc/new; echo more >>/etc/passwd; cat /etc/passwd";
    let bundle = remapped(script);
    let said = bundle.output();
    let lines: Vec<_> = said.lines().collect();
    let owner: Vec<_> = lines[0].split_whitespace().skip(2).take(2).collect();
    assert_eq!((owner, lines[1]), (vec!["0", "0"], "0"), "{said}");
    assert_eq!(*lines.last().unwrap(), "more", "{said}");
    // The layer is as it was; what was written is its own.
    let lower = fs::metadata(bundle.rootfs().join("etc/passwd")).unwrap();
    assert_eq!((lower.uid(), lower.gid()), (0, 0));
    assert!(!fs::read_to_string(bundle.rootfs().join("etc/passwd")).unwrap().contains("more"));
    for name in ["etc/new", "etc/passwd", "etc"] {
        let upper = fs::metadata(bundle.dir.path().join("upper").join(name)).unwrap();
        assert_eq!((upper.uid(), upper.gid()), (HOST_ROOT, HOST_ROOT), "{name}");
    }
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!table.contains(bundle.dir.path().to_str().unwrap()), "{table}");
}

fn an_overlay_that_is_not_mapped_needs_no_open_door() {
    let mut bundle = remapped("ls -ln /etc/passwd; touch /etc/passwd 2>/dev/null || echo foreign");
    bundle.more_options.clear();
    let said = bundle.output();
    assert!(said.contains(" 65534 ") && said.contains("foreign"), "{said}");
}

/// A directory with a file of the host's root, bound to `/data`.
fn data(bundle: Bundle, options: &[&str], more: Value) -> Bundle {
    let dir = bundle.dir.path().join("data");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "").unwrap();
    let mut mount = json!({"destination": "/data", "source": dir, "type": "bind", "options": options});
    mount.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    bundle.mount(mount)
}

fn a_bind_shows_the_containers_ids() {
    for option in ["idmap", "ridmap"] {
        let script = "ls -ln /data/file; touch /data/new";
        let bundle = data(remapped(script), &["rbind", option], json!({}));
        let said = bundle.output();
        assert!(said.contains(" 0        0 "), "{said}");
        // On disk it is the host root's: that is what the mapping says.
        assert_eq!(fs::metadata(bundle.dir.path().join("data/new")).unwrap().uid(), 0);
    }
}

fn a_bind_has_ids_of_its_own_without_a_user_namespace() {
    let map = json!([{"containerID": 0, "hostID": 4000, "size": 10}]);
    let more = json!({"uidMappings": map, "gidMappings": map});
    let said = data(Bundle::shell("ls -ln /data/file"), &["bind"], more).output();
    assert!(said.contains(" 4000     4000 "), "{said}");
}

fn ids_of_a_mount_that_make_no_sense() {
    let map = json!([{"containerID": 0, "hostID": 4000, "size": 10}]);
    let bind = |options: &[&str], more| data(Bundle::new(&["true"]), options, more).error();
    let e = bind(&["bind", "idmap"], json!({}));
    assert_eq!(e.to_string(), "mounts: /data: idmap needs mappings, or a user namespace");
    let e = bind(&["bind"], json!({"uidMappings": map}));
    assert_eq!(e.to_string(), "mounts: /data: mappings of users and of groups go together");
    let tmpfs =
        json!({"destination": "/t", "type": "tmpfs", "source": "t", "uidMappings": map, "gidMappings": map});
    let e = Bundle::new(&["true"]).mount(tmpfs).error();
    assert_eq!(e.kind(), Kind::InvalidSpec, "{e}");
    // What procfs can't do is said by name.
    let proc = json!({"destination": "/data", "source": "/proc/fs", "type": "bind", "uidMappings": map, "gidMappings": map});
    let e = Bundle::new(&["true"]).mount(proc).error();
    assert_eq!(e.kind(), Kind::Unsupported, "{e}");
    assert!(e.to_string().contains("the file system of /proc/fs can't map ids"), "{e}");
}

/// A second container with the users of a first one, which is killed at the end.
fn among(change: impl FnOnce(Bundle) -> Bundle, look: impl FnOnce(Bundle)) {
    let first = mapped("exec sleep 1000");
    let (stdio, _ends) = pipes();
    let mut container = first.create(stdio).unwrap();
    container.start().unwrap();
    let second = Bundle::shell("cat /proc/self/uid_map; id -u; readlink /proc/self/ns/user; hostname");
    fs::set_permissions(second.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("/proc/{}/ns/user", container.pid());
    let users = fs::read_link(&path).unwrap();
    let second = with_namespace(second.set("/hostname", json!("own")), json!({"type": "user", "path": path}));
    let mut second = change(second);
    second.note = users.display().to_string();
    look(second);
    container.destroy().unwrap();
}

fn users_of_another_container_are_joined() {
    among(
        |bundle| bundle,
        |bundle| {
            let said = bundle.output();
            let lines: Vec<_> = said.lines().collect();
            assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
            // The uts namespace is owned by those users, so that it can be changed.
            assert_eq!(lines[1..], ["0", bundle.note.as_str(), "own"], "{said}");
        },
    );
}

fn joined_users_are_as_the_specification_says() {
    let map = |first| json!([{"containerID": 0, "hostID": first, "size": 65_536}]);
    let with = |map: Value| {
        |bundle: Bundle| bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map)
    };
    among(with(map(100_000)), |bundle| assert!(bundle.output().ends_with("own\n")));
    among(with(map(200_000)), |bundle| {
        let e = bundle.error();
        assert_eq!(e.kind(), Kind::InvalidSpec, "{e}");
        assert!(e.to_string().contains("linux.uidMappings"), "{e}");
    });
    let e = with_namespace(Bundle::new(&["true"]), json!({"type": "user", "path": "/nothing"})).error();
    assert!(e.to_string().contains("linux.namespaces: user"), "{e}");
}
