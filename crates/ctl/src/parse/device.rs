// SPDX-License-Identifier: Apache-2.0
//! `--device HOST[:CONTAINER][:rwm]`, and limits of one block device,
//! `PATH:RATE`. Whether there is such a device is for the engine to say.

use berth::api::v1::{BlockRate, DeviceMapping};

use super::{Parsed, size};

/// A device of the host.
///
/// # Errors
/// In Docker's words.
pub fn device(text: &str) -> Parsed<DeviceMapping> {
    if text.contains('=') && !text.starts_with('/') {
        return Err(format!("{text}: devices by CDI are not supported in this version"));
    }
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
            let found = device(text).expect(text);
            [found.path_on_host, found.path_in_container, found.cgroup_permissions].join("|")
        };
        assert_eq!(show("/dev/a"), "/dev/a||");
        assert_eq!(show("/dev/a:rw"), "/dev/a||rw");
        assert_eq!(show("/dev/a:/dev/b"), "/dev/a|/dev/b|");
        assert_eq!(show("/dev/a:/dev/b:m"), "/dev/a|/dev/b|m");
        for bad in ["", "/dev/a:", ":/dev/a", "/a:/b:r:w", "vendor.com/class=name"] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_rate_has_a_unit() {
        assert_eq!(bytes("/dev/vda:1mb").expect("valid").rate, 1 << 20);
        assert_eq!(number("/dev/vda:100").expect("valid").rate, 100);
        assert!(bytes("/dev/vda:x").is_err() && bytes("vda:1").is_err() && number("/dev/vda").is_err());
    }
}
