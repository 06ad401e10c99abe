// SPDX-License-Identifier: Apache-2.0
//! Which devices a container's processes may use.

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::{Facts, Given};
use crate::{domain::devices, error::Result};

/// Nothing, then these. Docker's list, with what its runtime adds.
const ALLOWED: [(LinuxDeviceType, Option<i64>, Option<i64>, &str); 11] = [
    // Nodes may be made, not used.
    (LinuxDeviceType::C, None, None, "m"),
    (LinuxDeviceType::B, None, None, "m"),
    // null, zero, full, random, urandom.
    (LinuxDeviceType::C, Some(1), Some(3), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(5), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(7), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(8), "rwm"),
    (LinuxDeviceType::C, Some(1), Some(9), "rwm"),
    // tty, console, ptmx, and the terminals that ptmx makes.
    (LinuxDeviceType::C, Some(5), Some(0), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(1), "rwm"),
    (LinuxDeviceType::C, Some(5), Some(2), "rwm"),
    (LinuxDeviceType::C, Some(136), None, "rwm"),
];

/// The rules, in order; the first forbids everything, the last are the user's.
pub(super) fn rules(privileged: bool, given: &Given, more: &[String]) -> Result<Vec<LinuxDeviceCgroup>> {
    if privileged {
        return Ok(vec![rule(true, LinuxDeviceType::A, None, None, "rwm")]);
    }
    let mapped = given.mapped.iter().map(|mapped| {
        let device = &mapped.device;
        rule(true, device.typ(), Some(device.major()), Some(device.minor()), &mapped.access)
    });
    let mut all = vec![rule(false, LinuxDeviceType::A, None, None, "rwm")];
    all.extend(ALLOWED.into_iter().map(|(typ, major, minor, access)| rule(true, typ, major, minor, access)));
    all.extend(mapped);
    for text in more {
        all.push(devices::rule(text)?);
    }
    Ok(all)
}

/// The nodes that are made: a privileged container's are all of the host's,
/// with those it is given in their place.
pub(super) fn nodes(facts: &Facts, privileged: bool) -> Vec<LinuxDevice> {
    let mapped = &facts.given.mapped;
    let mut all = if privileged { facts.devices.clone() } else { Vec::new() };
    all.retain(|device| mapped.iter().all(|mapped| mapped.device.path() != device.path()));
    all.extend(mapped.iter().map(|mapped| mapped.device.clone()));
    all
}

fn rule(
    allow: bool,
    typ: LinuxDeviceType,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow)
        .set_typ(Some(typ))
        .set_major(major)
        .set_minor(minor)
        .set_access(Some(access.to_owned()));
    rule
}
