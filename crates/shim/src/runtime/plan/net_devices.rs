// SPDX-License-Identifier: Apache-2.0
//! `linux.netDevices`: which of the host's network devices the container gets
//! for itself, and what they are called there.

use std::collections::HashMap;

use nix::sched::CloneFlags;
use oci_spec::runtime::LinuxNetDevice;

use super::super::error::{Error, Result};
use super::namespaces::Namespaces;

/// One more than the longest name (IFNAMSIZ of linux/if.h).
const NAME_SIZE: usize = 16;

/// A device that moves.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NetDevice {
    /// On the host.
    pub(crate) name: String,
    /// In the container; `%d` in it stands for the first number that is free.
    pub(crate) inside: String,
}

/// Sorted by their names on the host.
pub(super) fn plan(
    devices: Option<&HashMap<String, LinuxNetDevice>>,
    namespaces: &Namespaces,
) -> Result<Vec<NetDevice>> {
    let mut planned = Vec::new();
    for (name, device) in devices.into_iter().flatten() {
        let inside = device.name().clone().filter(|name| !name.is_empty()).unwrap_or_else(|| name.clone());
        if !is_name(name) || name.contains('%') {
            return Err(Error::invalid(format!("linux.netDevices: {name:?} is no name of a device")));
        }
        if !is_name(&inside) || inside.replacen("%d", "", 1).contains('%') {
            return Err(Error::invalid(format!(
                "linux.netDevices: {name}: {inside:?} is no name of a device"
            )));
        }
        planned.push(NetDevice { name: name.clone(), inside });
    }
    if !planned.is_empty() && !namespaces.is_private(CloneFlags::CLONE_NEWNET) {
        return Err(Error::invalid("linux.netDevices: the container has the host's network namespace"));
    }
    planned.sort();
    let mut inside: Vec<_> = planned.iter().map(|d| &d.inside).filter(|name| !name.contains('%')).collect();
    inside.sort();
    if let Some(pair) = inside.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::invalid(format!("linux.netDevices: two devices are to be called {}", pair[0])));
    }
    Ok(planned)
}

/// What the kernel takes as a name (dev_valid_name of net/core/dev.c).
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() < NAME_SIZE
        && !name.chars().any(|c| matches!(c, '/' | ':' | '\0') || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::namespaces, *};

    fn in_namespaces(devices: serde_json::Value, kinds: &[&str]) -> Result<Vec<NetDevice>> {
        let devices: HashMap<String, LinuxNetDevice> = serde_json::from_value(devices).expect("devices");
        let list: Vec<_> = kinds.iter().map(|kind| json!({"type": kind})).collect();
        let linux = serde_json::from_value(json!({"namespaces": list})).expect("linux");
        plan(Some(&devices), &namespaces::plan(&linux).expect("namespaces"))
    }

    fn of(devices: serde_json::Value) -> Result<Vec<NetDevice>> {
        in_namespaces(devices, &["mount", "network"])
    }

    #[test]
    fn a_device_keeps_its_name_or_gets_another() {
        let planned =
            of(json!({"eth0": {"name": "c0"}, "a": {}, "b": {"name": "x%d"}, "c": {"name": "x%d"}}));
        let of = |name: &str, inside: &str| NetDevice { name: name.to_owned(), inside: inside.to_owned() };
        assert_eq!(planned.expect("plan"), [of("a", "a"), of("b", "x%d"), of("c", "x%d"), of("eth0", "c0")]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for name in ["", ".", "..", "a/b", "a:b", "a b", "sixteen-letters!", "%s", "a%d%d"] {
            assert!(of(json!({"eth0": {"name": name}})).is_err() != name.is_empty(), "{name}");
            assert!(of(json!({name: {}})).is_err(), "{name}");
        }
        let twice = json!({"a": {"name": "x"}, "x": {}});
        assert!(of(twice).expect_err("twice").to_string().ends_with("to be called x"));
        assert!(in_namespaces(json!({"a": {}}), &["mount"]).is_err());
        assert_eq!(in_namespaces(json!({}), &["mount"]), Ok(Vec::new()));
    }
}
