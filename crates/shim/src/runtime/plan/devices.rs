// SPDX-License-Identifier: Apache-2.0
//! The device files of a container: those that every program expects, and
//! those that the specification adds.

use std::path::{Path, PathBuf};

use nix::sys::stat::SFlag;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::super::error::{Error, Result};
use super::mounts::{Dev, normalize};

/// A device file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Relative to the root of the tree that it is made in: /dev, or the
    /// container's.
    pub(crate) path: PathBuf,
    /// S_IFCHR, S_IFBLK or S_IFIFO.
    pub(crate) kind: SFlag,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// What every container has (runtime-spec, "Default Devices").
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Made by init itself, or the place of a mount.
const RESERVED: [&str; 8] = ["pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr", "core"];

/// Adds the nodes to a fresh /dev; returns those that belong elsewhere. In a
/// /dev of the host's its own files are, as a privileged container with a
/// bound /dev asks for them.
pub(super) fn add(mut dev: Dev, devices: &[LinuxDevice]) -> Result<(Dev, Vec<Node>)> {
    let mut below: Vec<_> =
        DEFAULT.iter().map(|(name, major, minor)| character(name, *major, *minor)).collect();
    let mut elsewhere: Vec<Node> = Vec::new();
    for device in devices {
        let mut node = node(device)?;
        let list = match node.path.strip_prefix("dev").map(Path::to_owned) {
            // The container has a terminal multiplexer of its own.
            Ok(path) if path == Path::new("ptmx") => continue,
            Ok(path) => {
                node.path = path;
                check_name(&node)?;
                &mut below
            }
            Err(_) => &mut elsewhere,
        };
        list.retain(|known| known.path != node.path);
        list.push(node);
    }
    if let Dev::Fresh { nodes, .. } = &mut dev {
        *nodes = below;
    }
    Ok((dev, elsewhere))
}

fn check_name(node: &Node) -> Result<()> {
    if RESERVED.iter().any(|name| node.path.starts_with(name)) || node.path.as_os_str().is_empty() {
        let path = Path::new("/dev").join(&node.path);
        return Err(Error::invalid(format!(
            "linux.devices: {} is made by the runtime itself",
            path.display()
        )));
    }
    Ok(())
}

fn character(name: &str, major: u32, minor: u32) -> Node {
    Node { path: name.into(), kind: SFlag::S_IFCHR, major, minor, mode: 0o666, uid: 0, gid: 0 }
}

fn node(device: &LinuxDevice) -> Result<Node> {
    let invalid = |why: &str| Error::invalid(format!("linux.devices: {}: {why}", device.path().display()));
    let path = normalize(device.path());
    // Nothing of an image's content is to be reached through these (D8).
    if path == Path::new("/") || path.starts_with("/proc") || path.starts_with("/sys") {
        return Err(invalid("is no place for a device file"));
    }
    let path = path.strip_prefix("/").map_err(|_| invalid("is not absolute"))?.to_owned();
    let kind = match device.typ() {
        LinuxDeviceType::B => SFlag::S_IFBLK,
        LinuxDeviceType::C | LinuxDeviceType::U => SFlag::S_IFCHR,
        LinuxDeviceType::P => SFlag::S_IFIFO,
        LinuxDeviceType::A => return Err(invalid("has no type")),
    };
    let number = |n: i64| u32::try_from(n).map_err(|_| invalid("its number is out of range"));
    Ok(Node {
        path,
        kind,
        major: if kind == SFlag::S_IFIFO { 0 } else { number(device.major())? },
        minor: if kind == SFlag::S_IFIFO { 0 } else { number(device.minor())? },
        mode: device.file_mode().unwrap_or(0o666) & 0o7777,
        uid: device.uid().unwrap_or(0),
        gid: device.gid().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxDeviceBuilder;

    use super::*;

    fn device(path: &str) -> LinuxDevice {
        let builder = LinuxDeviceBuilder::default().path(path).typ(LinuxDeviceType::C);
        builder.major(10_i64).minor(229_i64).file_mode(0o600_u32).build().expect("device")
    }

    fn fresh() -> Dev {
        Dev::Fresh { options: Vec::new(), attributes: 0, nodes: Vec::new(), after: 0 }
    }

    #[test]
    fn the_specification_adds_to_the_defaults() {
        let list = ["/dev/net/fuse", "/dev/null", "/dev/ptmx", "/srv/x"].map(device);
        let (Dev::Fresh { nodes, .. }, elsewhere) = add(fresh(), &list).expect("plan") else {
            panic!("fresh")
        };
        assert_eq!(elsewhere.iter().map(|n| n.path.as_path()).collect::<Vec<_>>(), [Path::new("srv/x")]);
        assert_eq!(nodes.len(), DEFAULT.len() + 1);
        let null = nodes.iter().find(|n| n.path == Path::new("null")).expect("null");
        assert_eq!((null.major, null.mode), (10, 0o600));
    }

    #[test]
    fn some_places_are_taken() {
        for path in ["/", "/dev", "/dev/../proc/x", "/sys/x", "/dev/pts/0", "/dev/fd"] {
            assert!(add(fresh(), &[device(path)]).is_err(), "{path}");
        }
        assert_eq!(add(Dev::Bound, &[device("/dev/x")]).expect("the host's"), (Dev::Bound, Vec::new()));
    }
}
