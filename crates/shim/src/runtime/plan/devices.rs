// SPDX-License-Identifier: Apache-2.0
//! The device files of a container: those that every program expects, and
//! those that the specification adds.

use std::path::{Path, PathBuf};

use nix::sys::stat::SFlag;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};

use super::super::error::{Error, Result};
use super::mounts::{Dev, normalize};

/// A device file below /dev.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Relative to /dev.
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

/// Made by init itself.
const RESERVED: [&str; 10] =
    ["ptmx", "console", "pts", "shm", "mqueue", "fd", "stdin", "stdout", "stderr", "core"];

/// Adds the nodes to a fresh /dev.
pub(super) fn add(dev: Dev, devices: &[LinuxDevice]) -> Result<Dev> {
    let Dev::Fresh { options, attributes, after, .. } = dev else {
        return match devices {
            [] => Ok(Dev::Bound),
            _ => Err(Error::invalid("linux.devices: /dev is the host's")),
        };
    };
    let mut nodes: Vec<_> =
        DEFAULT.iter().map(|(name, major, minor)| character(name, *major, *minor)).collect();
    for device in devices {
        let node = node(device)?;
        nodes.retain(|known| known.path != node.path);
        nodes.push(node);
    }
    Ok(Dev::Fresh { options, attributes, nodes, after })
}

fn character(name: &str, major: u32, minor: u32) -> Node {
    Node { path: name.into(), kind: SFlag::S_IFCHR, major, minor, mode: 0o666, uid: 0, gid: 0 }
}

fn node(device: &LinuxDevice) -> Result<Node> {
    let invalid = |why: &str| Error::invalid(format!("linux.devices: {}: {why}", device.path().display()));
    let path = normalize(device.path());
    let path = path.strip_prefix("/dev").map_err(|_| invalid("is not below /dev"))?.to_owned();
    if path.as_os_str().is_empty() || RESERVED.iter().any(|name| path.starts_with(Path::new(name))) {
        return Err(invalid("is made by the runtime itself"));
    }
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
        let Dev::Fresh { nodes, .. } =
            add(fresh(), &[device("/dev/net/fuse"), device("/dev/null")]).expect("plan")
        else {
            panic!("fresh")
        };
        assert_eq!(nodes.len(), DEFAULT.len() + 1);
        let null = nodes.iter().find(|n| n.path == Path::new("null")).expect("null");
        assert_eq!((null.major, null.mode), (10, 0o600));
    }

    #[test]
    fn nothing_outside_dev() {
        for path in ["/etc/passwd", "/dev", "/dev/../x", "/dev/pts/0", "/dev/console", "/dev/ptmx"] {
            assert!(add(fresh(), &[device(path)]).is_err(), "{path}");
        }
        assert!(add(Dev::Bound, &[device("/dev/x")]).is_err());
    }
}
