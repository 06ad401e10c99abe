// SPDX-License-Identifier: Apache-2.0
//! A container's mounts, in the order in which they are made.

use berth::bundle::MOUNT_NAMESPACE;
use oci_spec::runtime::Mount;

use super::EtcFiles;
use crate::domain::{
    container::{Config, Mount as UserMount, MountKind, ReadOnlyReach},
    namespaces::{IpcMode, Joined},
};

/// Bytes of /dev/shm where the user says nothing.
const DEFAULT_SHM_SIZE: i64 = 64 << 20;

/// The system's mounts, the files of /etc, then the user's. A user's mount at
/// the same place replaces one of ours.
pub(super) fn all(config: &Config, etc: &EtcFiles, joined: &Joined) -> Vec<Mount> {
    let mut user: Vec<Mount> = config.host.mounts.iter().map(user_mount).collect();
    user.extend(config.host.tmpfs.iter().map(|(path, options)| tmpfs(path, options)));
    // Parents before children, otherwise as they were given.
    user.sort_by_key(|mount| mount.destination().components().count());
    let mut all = system(config, joined);
    all.extend(files(etc));
    all.retain(|ours| user.iter().all(|theirs| theirs.destination() != ours.destination()));
    all.extend(user);
    all
}

/// The propagation of the root that the user's bind mounts need; `None` is
/// private. Without it a mount made on the host later could not show up.
pub(super) fn rootfs_propagation(mounts: &[UserMount]) -> Option<String> {
    let wants = |words: [&str; 2]| mounts.iter().any(|m| words.contains(&m.propagation.as_str()));
    if wants(["shared", "rshared"]) {
        Some("shared".to_owned())
    } else if wants(["slave", "rslave"]) {
        Some("rslave".to_owned())
    } else {
        None
    }
}

fn mount(target: &str, kind: &str, source: &str, options: &[impl AsRef<str>]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(target.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(|o| o.as_ref().to_owned()).collect()));
    mount
}

fn system(config: &Config, joined: &Joined) -> Vec<Mount> {
    // A privileged container may change the host's kernel by design.
    let access = if config.host.privileged { "rw" } else { "ro" };
    let shm = if config.host.shm_size == 0 { DEFAULT_SHM_SIZE } else { config.host.shm_size };
    let shm_size = format!("size={shm}");
    let inert = ["nosuid", "noexec", "nodev"];
    let with = |options: &[&str]| -> Vec<String> {
        inert.iter().chain(options).map(|option| (*option).to_owned()).collect()
    };
    let mut all = vec![
        mount("/proc", "proc", "proc", &inert),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &with(&[access])),
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &with(&[access])),
        mount("/dev/mqueue", "mqueue", "mqueue", &inert),
    ];
    match (&config.host.ipc, &joined.shm) {
        // With the host's queues goes the host's memory.
        (IpcMode::Host, _) => {
            all.push(mount("/dev/shm", "bind", "/dev/shm", &with(&["rbind", "rw", "rprivate"])))
        }
        (IpcMode::None, _) => {}
        (IpcMode::Container(_), Some(theirs)) => {
            let there = format!("{MOUNT_NAMESPACE}{}", theirs.display());
            all.push(mount("/dev/shm", "bind", "/dev/shm", &with(&["bind", "rw", "rprivate", &there])));
        }
        (IpcMode::Private | IpcMode::Shareable | IpcMode::Container(_), _) => {
            all.push(mount("/dev/shm", "tmpfs", "shm", &with(&["mode=1777", &shm_size])));
        }
    }
    all
}

/// Of the container, not of the image; writable, as programs expect.
fn files(etc: &EtcFiles) -> [Mount; 3] {
    [("/etc/resolv.conf", &etc.resolv_conf), ("/etc/hostname", &etc.hostname), ("/etc/hosts", &etc.hosts)]
        .map(|(target, source)| {
            let mut file = mount(target, "bind", "", &["bind", "rprivate"]);
            file.set_source(Some(source.clone()));
            file
        })
}

fn user_mount(wanted: &UserMount) -> Mount {
    match wanted.kind {
        MountKind::Bind => {
            let propagation = if wanted.propagation.is_empty() { "rprivate" } else { &wanted.propagation };
            let reach = if wanted.non_recursive { "bind" } else { "rbind" };
            let access: &[&str] = match (wanted.read_only, wanted.read_only_reach) {
                (false, _) => &["rw"],
                (true, ReadOnlyReach::Top) => &["ro"],
                // Docker's since 25: what is mounted below isn't writable, either.
                (true, ReadOnlyReach::All | ReadOnlyReach::Forced) => &["ro", "rro"],
            };
            let options = [&[reach], access, &[propagation]].concat();
            mount(clean(&wanted.target), "bind", &wanted.source, &options)
        }
        MountKind::Tmpfs => {
            let mode = if wanted.tmpfs_mode == 0 { 0o1777 } else { wanted.tmpfs_mode };
            let mut options = vec![format!("mode={mode:o}")];
            if wanted.tmpfs_size > 0 {
                options.push(format!("size={}", wanted.tmpfs_size));
            }
            if wanted.read_only {
                options.push("ro".to_owned());
            }
            tmpfs(&wanted.target, &options.join(","))
        }
    }
}

/// Inert unless the options say otherwise: the kernel takes the last word.
fn tmpfs(target: &str, options: &str) -> Mount {
    let mut all = vec!["nosuid", "nodev", "noexec"];
    if !options.split(',').any(|o| o.starts_with("mode=")) {
        all.push("mode=1777");
    }
    all.extend(options.split(',').filter(|o| !o.is_empty()));
    mount(clean(target), "tmpfs", "tmpfs", &all)
}

fn clean(target: &str) -> &str {
    target.trim_end_matches('/')
}
