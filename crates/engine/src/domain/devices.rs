// SPDX-License-Identifier: Apache-2.0
//! Devices of the host that a container is given, and how much it may read
//! and write of them. What they are is for lifecycle to look up. Pure.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use serde::{Deserialize, Serialize};

use super::cdi;
use crate::error::{Error, Kind, Result};

/// A device of the host, or a directory of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DeviceMapping {
    /// On the host; absolute.
    pub host: String,
    /// In the container; empty is the same.
    pub container: String,
    /// `r`, `w` and `m`; empty is all of them.
    pub permissions: String,
}

/// A limit, or a weight, for one block device of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockRate {
    /// On the host; absolute.
    pub path: String,
    /// Bytes or operations a second, or a weight.
    pub rate: u64,
}

/// Everything about devices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Devices {
    /// Nodes that are made and may be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mappings: Vec<DeviceMapping>,
    /// Devices by name, `vendor.com/class=name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cdi: Vec<String>,
    /// More rules of the devices cgroup, `c 1:3 rwm`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// Weights of block I/O, 10 to 1000.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<BlockRate>,
    /// Bytes that may be read in a second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read_bps: Vec<BlockRate>,
    /// Bytes that may be written in a second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub write_bps: Vec<BlockRate>,
    /// Reads in a second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub read_iops: Vec<BlockRate>,
    /// Writes in a second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub write_iops: Vec<BlockRate>,
}

impl Devices {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it can be honoured, as far as that is known without the host.
    ///
    /// # Errors
    /// `InvalidArgument` in Docker's words.
    pub fn check(&self) -> Result<()> {
        for mapping in &self.mappings {
            for path in [&mapping.host, mapping.inside()] {
                if !cdi::is_plain(path) {
                    return Err(invalid(format!("{path:?} is not an absolute path")));
                }
            }
            if !is_mode(mapping.access()) {
                return Err(invalid(format!("invalid device mode: {}", mapping.permissions.escape_debug())));
            }
        }
        self.cdi.iter().try_for_each(|name| cdi::check_name(name))?;
        self.rules.iter().try_for_each(|text| rule(text).map(drop))?;
        for weight in &self.weights {
            if !(10..=1000).contains(&weight.rate) {
                return Err(invalid(format!("invalid weight for device: {}:{}", weight.path, weight.rate)));
            }
        }
        let limits = [&self.weights, &self.read_bps, &self.write_bps, &self.read_iops, &self.write_iops];
        for limit in limits.into_iter().flatten() {
            if !limit.path.starts_with("/dev/") || limit.path.contains(['\0', '\n']) {
                return Err(invalid(format!("bad format for device path: {}", limit.path.escape_debug())));
            }
        }
        Ok(())
    }
}

impl DeviceMapping {
    /// Where it is in the container.
    #[must_use]
    pub fn inside(&self) -> &String {
        if self.container.is_empty() { &self.host } else { &self.container }
    }

    /// What may be done with it.
    #[must_use]
    pub fn access(&self) -> &str {
        if self.permissions.is_empty() { "rwm" } else { &self.permissions }
    }
}

fn is_mode(text: &str) -> bool {
    let known = text.bytes().all(|byte| b"rwm".contains(&byte));
    let once = |letter| text.matches(letter).count() <= 1;
    !text.is_empty() && known && once('r') && once('w') && once('m')
}

/// A rule of the devices cgroup: `TYPE MAJOR:MINOR ACCESS`, `*` for any.
///
/// # Errors
/// `InvalidArgument` in Docker's words.
pub fn rule(text: &str) -> Result<LinuxDeviceCgroup> {
    let wrong = || invalid(format!("invalid device cgroup rule format: '{}'", text.escape_debug()));
    let mut words = text.split(' ');
    let (Some(typ), Some(numbers), Some(access), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(wrong());
    };
    let typ = match typ {
        "a" => LinuxDeviceType::A,
        "b" => LinuxDeviceType::B,
        "c" => LinuxDeviceType::C,
        _ => return Err(wrong()),
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits => digits.parse::<u32>().map(|n| Some(i64::from(n))).map_err(|_| wrong()),
    };
    if !is_mode(access) {
        return Err(wrong());
    }
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true)
        .set_typ(Some(typ))
        .set_major(number(major)?)
        .set_minor(number(minor)?)
        .set_access(Some(access.to_owned()));
    Ok(rule)
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rule_has_a_type_numbers_and_an_access() {
        let read = rule("c 10:* rw").expect("valid");
        assert_eq!((read.typ(), read.major(), read.minor()), (Some(LinuxDeviceType::C), Some(10), None));
        for bad in
            ["", "c", "c 1:2", "x 1:2 r", "c 1 r", "c a:b r", "c 1:2 rr", "c 1:2 x", "c 1:2 r r", "c -1:2 r"]
        {
            assert!(rule(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let mapping = |host: &str, permissions: &str| Devices {
            mappings: vec![DeviceMapping {
                host: host.to_owned(),
                permissions: permissions.to_owned(),
                ..DeviceMapping::default()
            }],
            ..Devices::default()
        };
        assert!(mapping("/dev/null", "").check().is_ok() && mapping("/dev/null", "rw").check().is_ok());
        for bad in [mapping("dev/null", ""), mapping("/dev/../etc", ""), mapping("/dev/null", "rx")] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        let rate = |path: &str, rate| vec![BlockRate { path: path.to_owned(), rate }];
        assert!(Devices { weights: rate("/dev/vda", 5), ..Devices::default() }.check().is_err());
        assert!(Devices { read_bps: rate("/etc/x", 5), ..Devices::default() }.check().is_err());
        assert!(Devices { read_bps: rate("/dev/vda", 5), ..Devices::default() }.check().is_ok());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,30}") {
            let _ = rule(&text);
        }
    }
}
