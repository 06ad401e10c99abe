// SPDX-License-Identifier: Apache-2.0
//! Which capabilities a container has.

use std::str::FromStr;

use oci_spec::runtime::Capability;

use crate::error::{Error, Kind, Result};

/// Docker's default: enough for an ordinary image's root.
const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// By number, as linux/capability.h counts them.
const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The capabilities in a mask, bit n for number n.
#[must_use]
pub fn of_mask(mask: u64) -> Vec<Capability> {
    (0_u32..).zip(ALL).filter(|(n, _)| mask & (1 << n) != 0).map(|(_, capability)| capability).collect()
}

/// The default ones, with `add` and without `drop`, by number. A capability
/// that is both added and dropped by name is there; `ALL` on either side is
/// the set that the names of the other side change.
///
/// # Errors
/// `InvalidArgument` for a name that is none.
pub fn resolve(add: &[String], drop: &[String]) -> Result<Vec<Capability>> {
    let (add_all, add) = parse(add)?;
    let (drop_all, drop) = parse(drop)?;
    let chosen = |c: &Capability| match (add_all, drop_all) {
        (true, _) => !drop.contains(c),
        (false, true) => add.contains(c),
        (false, false) => add.contains(c) || DEFAULT.contains(c) && !drop.contains(c),
    };
    Ok(ALL.into_iter().filter(chosen).collect())
}

/// The capability of this name, with or without `CAP_`.
#[must_use]
pub fn by_name(name: &str) -> Option<Capability> {
    let upper = name.to_ascii_uppercase();
    Capability::from_str(upper.strip_prefix("CAP_").unwrap_or(&upper)).ok()
}

/// Whether `ALL` is among the names, and the others.
fn parse(names: &[String]) -> Result<(bool, Vec<Capability>)> {
    let mut all = false;
    let mut capabilities = Vec::new();
    for name in names {
        if ["ALL", "CAP_ALL"].iter().any(|word| name.eq_ignore_ascii_case(word)) {
            all = true;
            continue;
        }
        let capability = by_name(name)
            .ok_or_else(|| Error::new(Kind::InvalidArgument, format!("invalid capability: {name:?}")))?;
        capabilities.push(capability);
    }
    Ok((all, capabilities))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(add: &[&str], drop: &[&str]) -> Vec<String> {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        resolve(&own(add), &own(drop)).expect("valid").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_default_has_fourteen() {
        let default = names(&[], &[]);
        assert_eq!(default.len(), 14);
        for there in ["CHOWN", "NET_RAW", "AUDIT_WRITE", "MKNOD"] {
            assert!(default.contains(&there.to_owned()), "{there}: {default:?}");
        }
        assert!(!default.contains(&"SYS_ADMIN".to_owned()));
    }

    #[test]
    fn add_and_drop_change_it() {
        assert!(names(&["sys_admin"], &[]).contains(&"SYS_ADMIN".to_owned()));
        assert!(!names(&[], &["CAP_NET_RAW"]).contains(&"NET_RAW".to_owned()));
        assert_eq!(names(&["CAP_NET_RAW"], &["ALL"]), ["NET_RAW"]);
        assert_eq!(names(&["ALL"], &["SYS_ADMIN"]).len(), 40);
        assert!(names(&[], &["all"]).is_empty());
        assert!(resolve(&["".to_owned()], &[]).is_err());
    }

    #[test]
    fn a_mask_counts_as_the_kernel_does() {
        assert_eq!(of_mask(1 << 21), [Capability::SysAdmin]);
        assert_eq!(of_mask(u64::MAX).len(), 41);
        assert!(of_mask(0).is_empty());
    }
}
