// SPDX-License-Identifier: Apache-2.0
//! Which devices a container may use: a default and exceptions from it, which
//! is what a v1 devices cgroup holds, and what the v2 program decides.
//!
//! Everything is denied first (D16): a list that only denies one device does
//! not allow the others, unless it begins by allowing all.

use nix::errno::Errno;
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::fs;
use crate::{
    kernel,
    runtime::{Error, Result},
};

/// Making the device file.
pub const MKNOD: u8 = 1;
/// Opening it for reading.
pub const READ: u8 = 2;
/// Opening it for writing.
pub const WRITE: u8 = 4;
const ALL: u8 = MKNOD | READ | WRITE;

/// The two kinds of device files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// Block device.
    Block,
    /// Character device.
    Character,
}

/// Devices that are treated against the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception {
    /// Kind of device.
    pub kind: DeviceKind,
    /// `None` is any.
    pub major: Option<u32>,
    /// `None` is any.
    pub minor: Option<u32>,
    /// Bits of [`MKNOD`], [`READ`], [`WRITE`].
    pub access: u8,
}

impl Exception {
    fn covers(&self, other: &Self) -> bool {
        let wide = |mine: Option<u32>, theirs: Option<u32>| mine.is_none() || mine == theirs;
        self.kind == other.kind && wide(self.major, other.major) && wide(self.minor, other.minor)
    }
}

/// The devices of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether a device that no exception covers may be used.
    pub allow: bool,
    /// The opposite for these.
    pub exceptions: Vec<Exception>,
}

impl Policy {
    /// Nothing but what every container needs: the default devices, terminals,
    /// and making device files (which alone opens none).
    #[must_use]
    pub fn container() -> Self {
        use DeviceKind::{Block, Character};
        let exception = |kind, major, minor, access| Exception { kind, major, minor, access };
        let mut exceptions = vec![
            exception(Character, None, None, MKNOD),
            exception(Block, None, None, MKNOD),
            exception(Character, Some(136), None, ALL),
        ];
        let single = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];
        exceptions.extend(single.map(|(major, minor)| exception(Character, Some(major), Some(minor), ALL)));
        Self { allow: false, exceptions }
    }

    /// Applies the rules of a specification in their order. A device file that
    /// it lists is of no use without a rule, as with other runtimes: an engine
    /// gives both.
    ///
    /// # Errors
    /// `InvalidSpec` for a rule that neither v1 nor v2 can express.
    pub fn from_spec(rules: &[LinuxDeviceCgroup]) -> Result<Self> {
        let mut policy = Self::container();
        for rule in rules {
            policy.apply(rule)?;
        }
        // What was asked for comes first, in its order: so v1 shows it.
        let own = Self::container().exceptions;
        policy
            .exceptions
            .sort_by_key(|e| own.iter().any(|o| (o.kind, o.major, o.minor) == (e.kind, e.major, e.minor)));
        Ok(policy)
    }

    fn apply(&mut self, rule: &LinuxDeviceCgroup) -> Result<()> {
        let access = access(rule.access().as_deref())?;
        let major = number(rule.major())?;
        let minor = number(rule.minor())?;
        let Some(kind) = rule
            .typ()
            .map_or(Some(None), |t| if t == LinuxDeviceType::A { Some(None) } else { kind(t).map(Some) })
        else {
            return Err(Error::invalid("linux.resources.devices: a rule for something that is no device"));
        };
        let Some(kind) = kind else {
            if major.is_some() || minor.is_some() || access != ALL {
                return Err(Error::invalid(
                    "linux.resources.devices: a rule for all kinds is for all devices",
                ));
            }
            *self =
                if rule.allow() { Self { allow: true, exceptions: Vec::new() } } else { Self::container() };
            return Ok(());
        };
        let exception = Exception { kind, major, minor, access };
        if rule.allow() == self.allow {
            return self.remove(exception);
        }
        self.add(exception);
        Ok(())
    }

    fn add(&mut self, exception: Exception) {
        let same = |e: &&mut Exception| {
            (e.kind, e.major, e.minor) == (exception.kind, exception.major, exception.minor)
        };
        match self.exceptions.iter_mut().find(same) {
            Some(known) => known.access |= exception.access,
            None => self.exceptions.push(exception),
        }
    }

    fn remove(&mut self, rule: Exception) -> Result<()> {
        for known in &mut self.exceptions {
            if rule.covers(known) {
                known.access &= !rule.access;
            } else if known.covers(&rule) && known.access & rule.access & !MKNOD != 0 {
                return Err(Error::invalid(
                    "linux.resources.devices: an exception from a rule for a whole range of devices",
                ));
            }
        }
        self.exceptions.retain(|known| known.access != 0);
        Ok(())
    }
}

fn kind(kind: LinuxDeviceType) -> Option<DeviceKind> {
    match kind {
        LinuxDeviceType::B => Some(DeviceKind::Block),
        LinuxDeviceType::C | LinuxDeviceType::U => Some(DeviceKind::Character),
        LinuxDeviceType::A | LinuxDeviceType::P => None,
    }
}

/// `-1`, or nothing, is any.
fn number(number: Option<i64>) -> Result<Option<u32>> {
    match number {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n)
            .map(Some)
            .map_err(|_| Error::invalid(format!("linux.resources.devices: {n} is no device number"))),
    }
}

fn access(text: Option<&str>) -> Result<u8> {
    let mut bits = 0;
    for letter in text.unwrap_or("rwm").chars() {
        bits |= match letter {
            'r' => READ,
            'w' => WRITE,
            'm' => MKNOD,
            // As the kernel's own lists have it.
            'a' => ALL,
            _ => return Err(Error::invalid(format!("linux.resources.devices: access {text:?}"))),
        };
    }
    Ok(if bits == 0 { ALL } else { bits })
}

/// An unprivileged user may not say which devices, and makes no device files:
/// the ones that a container of his has are the host's, with the host's rights.
pub(super) fn forgive(result: kernel::Result<()>, warnings: &mut Vec<String>) -> Result<()> {
    const FIELD: &str = "linux.resources.devices";
    match result {
        Err(e) if matches!(e.errno(), Errno::EPERM | Errno::EACCES) && fs::is_unprivileged() => {
            warnings.push(format!("{FIELD} is discarded: {e}"));
            Ok(())
        }
        result => result.map_err(|e| fs::refused(&e, FIELD)),
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;

    use super::*;

    fn rule(allow: bool, typ: LinuxDeviceType, major: i64, minor: i64, access: &str) -> LinuxDeviceCgroup {
        let builder = LinuxDeviceCgroupBuilder::default().allow(allow).typ(typ).major(major).minor(minor);
        builder.access(access).build().expect("rule")
    }

    fn deny_all() -> LinuxDeviceCgroup {
        LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build().expect("rule")
    }

    #[test]
    fn nothing_is_allowed_by_saying_nothing() {
        assert_eq!(Policy::from_spec(&[]).expect("policy"), Policy::container());
        assert_eq!(Policy::from_spec(&[deny_all()]).expect("policy"), Policy::container());
        let only_deny = [rule(false, LinuxDeviceType::B, 8, 0, "rwm")];
        assert!(!Policy::from_spec(&only_deny).expect("policy").allow);
    }

    #[test]
    fn a_privileged_container_has_them_all() {
        let all = LinuxDeviceCgroupBuilder::default().allow(true).access("rwm").build().expect("rule");
        let policy = Policy::from_spec(&[deny_all(), all]).expect("policy");
        assert_eq!(policy, Policy { allow: true, exceptions: Vec::new() });
    }

    #[test]
    fn later_rules_change_earlier_ones() {
        use LinuxDeviceType::C;
        let rules = [rule(true, C, 10, 229, "rw"), rule(true, C, 10, 229, "m"), rule(false, C, 10, 229, "w")];
        let policy = Policy::from_spec(&rules).expect("policy");
        let fuse = policy.exceptions.iter().find(|e| e.major == Some(10)).expect("fuse");
        assert_eq!(fuse.access, READ | MKNOD);
        let gone = Policy::from_spec(&[rule(true, C, 10, 229, "rw"), rule(false, C, 10, -1, "rwm")]);
        assert!(gone.expect("policy").exceptions.iter().all(|e| e.major != Some(10)));
    }

    #[test]
    fn a_hole_in_a_range_can_not_be_expressed() {
        use LinuxDeviceType::C;
        let rules = [rule(true, C, 10, -1, "rw"), rule(false, C, 10, 229, "rw")];
        assert!(Policy::from_spec(&rules).is_err());
        // Only making the file overlaps with what every container has.
        assert!(Policy::from_spec(&[rule(false, C, 10, 229, "rwm")]).is_ok());
    }

    #[test]
    fn bad_rules_are_refused() {
        use LinuxDeviceType::{A, C, P};
        for bad in [
            rule(true, C, -2, 0, "r"),
            rule(true, C, 1, 1, "x"),
            rule(true, A, 1, 1, "rwm"),
            rule(true, P, 1, 1, "r"),
        ] {
            assert!(Policy::from_spec(std::slice::from_ref(&bad)).is_err(), "{bad:?}");
        }
    }
}
