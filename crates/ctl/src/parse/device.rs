// SPDX-License-Identifier: Apache-2.0
//! `--device HOST[:CONTAINER][:rwm]` or `VENDOR/CLASS=NAME`, `--gpus`, and
//! limits of one block device, `PATH:RATE`. Whether there is such a device is
//! for the engine to say.

use berth::api::v1::{BlockRate, DeviceMapping};

use super::{Parsed, size};

/// What `--device` takes.
#[derive(Debug, Clone, PartialEq)]
pub enum Device {
    /// A node of the host, or a directory of them.
    Node(DeviceMapping),
    /// A name of the Container Device Interface.
    Name(String),
}

/// A device of the host.
///
/// # Errors
/// In Docker's words.
pub fn device(text: &str) -> Parsed<Device> {
    if text.contains('=') && !text.starts_with('/') {
        return Ok(Device::Name(text.to_owned()));
    }
    node(text).map(Device::Node)
}

/// The kind that NVIDIA's tools describe GPUs by.
const GPU: &str = "nvidia.com/gpu";

/// Names of the Container Device Interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpus(pub Vec<String>);

/// `all`, a number of them, or `device=0,1`; Docker's further options in the
/// same list, which choose among drivers that aren't there, are refused.
///
/// # Errors
/// Names what isn't understood.
pub fn gpus(text: &str) -> Parsed<Gpus> {
    // Docker's users quote the list for its own parser: '"device=0,1"'.
    let text = text.trim_matches('"');
    let named = |names: &mut dyn Iterator<Item = String>| {
        Ok(Gpus(names.map(|name| format!("{GPU}={name}")).collect()))
    };
    let count = |text: &str| match text {
        "all" | "-1" => named(&mut ["all".to_owned()].into_iter()),
        digits => match digits.parse::<u16>() {
            Ok(0) | Err(_) => Err(format!(
                "invalid argument {text:?} for \"--gpus\": expected all, a number, or device=ID[,ID]"
            )),
            Ok(n) => named(&mut (0..n).map(|n| n.to_string())),
        },
    };
    match text.split_once('=') {
        None => count(text),
        Some(("count", number)) => count(number),
        Some(("device", list)) if list.split(',').all(|id| !id.is_empty() && !id.contains(['=', '/'])) => {
            named(&mut list.split(',').map(ToOwned::to_owned))
        }
        Some((option, _)) => Err(format!(
            "invalid argument {text:?} for \"--gpus\": {option} is not supported, expected all, a number, or device=ID[,ID]"
        )),
    }
}

fn node(text: &str) -> Parsed<DeviceMapping> {
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, permissions) = match parts[..] {
        [host] => (host, "", ""),
        [host, mode] if is_mode(mode) => (host, "", mode),
        [host, container] => (host, container, ""),
        [host, container, mode] => (host, container, mode),
        _ => return Err(format!("invalid device specification: {text}")),
    };
    if host.is_empty() || parts.len() > 1 && parts[1].is_empty() {
        return Err(format!("invalid device specification: {text}"));
    }
    Ok(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: container.to_owned(),
        cgroup_permissions: permissions.to_owned(),
    })
}

fn is_mode(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| b"rwm".contains(&byte))
}

/// `PATH:BYTES`, a second.
///
/// # Errors
/// In Docker's words.
pub fn bytes(text: &str) -> Parsed<BlockRate> {
    let wrong = || {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. \
             Number must be a positive integer. Unit is optional and can be kb, mb, or gb"
        )
    };
    let (path, rate) = split(text)?;
    let rate = size::memory(rate).ok().and_then(|n| u64::try_from(n).ok()).ok_or_else(wrong)?;
    Ok(BlockRate { path: path.to_owned(), rate })
}

/// `PATH:NUMBER`: operations a second, or a weight.
///
/// # Errors
/// In Docker's words.
pub fn number(text: &str) -> Parsed<BlockRate> {
    let (path, rate) = split(text)?;
    let rate = rate.parse().map_err(|_| {
        format!(
            "invalid rate for device: {text}. The correct format is <device-path>:<number>. \
             Number must be a positive integer"
        )
    })?;
    Ok(BlockRate { path: path.to_owned(), rate })
}

fn split(text: &str) -> Parsed<(&str, &str)> {
    match text.split_once(':') {
        Some((path, rate)) if path.starts_with("/dev/") => Ok((path, rate)),
        Some(_) => Err(format!("bad format for device path: {text}")),
        None => Err(format!("bad format: {text}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_may_have_another_name_and_fewer_rights() {
        let show = |text: &str| {
            let Ok(Device::Node(found)) = device(text) else { panic!("{text}") };
            [found.path_on_host, found.path_in_container, found.cgroup_permissions].join("|")
        };
        assert_eq!(show("/dev/a"), "/dev/a||");
        assert_eq!(show("/dev/a:rw"), "/dev/a||rw");
        assert_eq!(show("/dev/a:/dev/b"), "/dev/a|/dev/b|");
        assert_eq!(show("/dev/a:/dev/b:m"), "/dev/a|/dev/b|m");
        for bad in ["", "/dev/a:", ":/dev/a", "/a:/b:r:w"] {
            assert!(device(bad).is_err(), "{bad}");
        }
        assert_eq!(device("a.b/c=d"), Ok(Device::Name("a.b/c=d".to_owned())));
    }

    #[test]
    fn gpus_are_devices_by_name() {
        let show = |text: &str| gpus(text).map(|gpus| gpus.0.join(" ").replace("nvidia.com/gpu=", ""));
        for (text, names) in [
            ("all", "all"),
            ("-1", "all"),
            ("2", "0 1"),
            ("count=1", "0"),
            ("device=0,GPU-3a", "0 GPU-3a"),
            ("\"device=1,2\"", "1 2"),
        ] {
            assert_eq!(show(text).as_deref(), Ok(names), "{text}");
        }
        for bad in
            ["", "0", "some", "device=", "device=0,", "driver=x", "device=a/b=c", "all,capabilities=utility"]
        {
            assert!(show(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_has_a_unit() {
        assert_eq!(bytes("/dev/vda:1mb").expect("valid").rate, 1 << 20);
        assert_eq!(number("/dev/vda:100").expect("valid").rate, 100);
        assert!(bytes("/dev/vda:x").is_err() && bytes("vda:1").is_err() && number("/dev/vda").is_err());
    }
}
