// SPDX-License-Identifier: Apache-2.0
//! Who the process is and what it may: ids, groups, capabilities,
//! no_new_privs, and the labels of security modules.

use nix::{
    errno::Errno,
    sys::prctl,
    unistd::{Gid, Uid, getresgid, getresuid, setgroups, setresgid, setresuid},
};

use super::passwd::User;
use crate::{
    kernel::{Procfs, SysError, process, process::CapSets, sys},
    runtime::{Capabilities, Error, Process, Result, capability_names},
};

/// Whether a process may change its supplementary groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Groups {
    Free,
    /// user_namespaces(7): "deny" in /proc/PID/setgroups.
    Fixed,
}

impl Groups {
    pub(super) fn of_namespace(proc: &Procfs) -> Result<Self> {
        let text = proc.read("self/setgroups")?;
        Ok(if text.starts_with(b"deny") { Self::Fixed } else { Self::Free })
    }
}

/// Becomes the user, with exactly the capabilities of the plan.
pub(super) fn become_user(
    user: &User,
    groups: Groups,
    plan: &Process,
    warn: impl Fn(String) -> Result<()>,
) -> Result<()> {
    let (granted, ignored) = granted(plan.capabilities, process::capabilities()?.permitted);
    for name in capability_names(plan.capabilities.ambient & !granted.ambient & !ignored) {
        warn(format!("can't raise ambient capability {name}: it is not both permitted and inheritable"))?;
    }
    if ignored != 0 {
        let names = capability_names(ignored).join(" ");
        warn(format!("ignoring unknown or unavailable capabilities: [{names}]"))?;
    }
    // Dropping from the bounding set needs a capability that is dropped below.
    drop_bounding(&granted)?;
    // Without it the permitted set would be emptied along with uid 0.
    sys(prctl::set_keepcaps(true), || "prctl(PR_SET_KEEPCAPS, 1)".to_owned())?;
    change_ids(user, groups)?;
    sys(prctl::set_keepcaps(false), || "prctl(PR_SET_KEEPCAPS, 0)".to_owned())?;
    process::set_capabilities(granted.sets)?;
    process::set_ambient(granted.ambient)?;
    if plan.no_new_privileges {
        sys(prctl::set_no_new_privs(), || "prctl(PR_SET_NO_NEW_PRIVS, 1)".to_owned())?;
    }
    Ok(())
}

/// What of the wanted capabilities a process that has `own` can have, and
/// which it can't: the specification wants those logged, and no failure. What
/// is effective must be permitted, what is inheritable in the bounding set,
/// and what is ambient permitted and inheritable.
fn granted(wanted: Capabilities, own: u64) -> (Capabilities, u64) {
    let sets = CapSets {
        effective: wanted.sets.effective & wanted.sets.permitted & own,
        permitted: wanted.sets.permitted & own,
        inheritable: wanted.sets.inheritable & wanted.bounding & own,
    };
    let ambient = wanted.ambient & sets.permitted & sets.inheritable;
    let asked = wanted.bounding | wanted.sets.effective | wanted.sets.permitted | wanted.sets.inheritable;
    let ignored =
        asked & !own | wanted.sets.effective & !sets.effective | wanted.sets.inheritable & !sets.inheritable;
    (Capabilities { bounding: wanted.bounding, sets, ambient }, ignored)
}

fn drop_bounding(capabilities: &Capabilities) -> Result<()> {
    let dropped = (0..64).filter(|bit| capabilities.bounding & (1 << bit) == 0);
    for capability in dropped {
        process::drop_bounding(capability)?;
    }
    Ok(())
}

/// Groups first: without uid 0 they can't be changed. Then looks whether the
/// kernel has done as told.
fn change_ids(user: &User, may: Groups) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let groups: Vec<_> = user.groups.iter().map(|id| Gid::from_raw(*id)).collect();
    match may {
        Groups::Free => sys(setgroups(&groups), || format!("setgroups({groups:?})"))?,
        // It has those of whoever made the namespace, shown as nobody's.
        Groups::Fixed if groups.iter().all(|group| *group == gid) => {}
        Groups::Fixed => {
            return Err(Error::invalid(format!(
                "process.user.additionalGids: {:?}: groups can't be changed in a user namespace that an \
                 unprivileged user has mapped by himself: map a range of them (/etc/subgid)",
                user.groups
            )));
        }
    }
    sys(setresgid(gid, gid, gid), || format!("setresgid({gid})"))?;
    sys(setresuid(uid, uid, uid), || format!("setresuid({uid})"))?;
    let now_uid = sys(getresuid(), || "getresuid()".to_owned())?;
    let now_gid = sys(getresgid(), || "getresgid()".to_owned())?;
    let same = [now_uid.real, now_uid.effective, now_uid.saved].iter().all(|id| *id == uid)
        && [now_gid.real, now_gid.effective, now_gid.saved].iter().all(|id| *id == gid);
    if same {
        Ok(())
    } else {
        Err(SysError::new(format!("setresuid({uid}) changed nothing"), Errno::EPERM).into())
    }
}

/// Sets the labels that execve gives the program, through the host's procfs.
pub(super) fn label(proc: &Procfs, plan: &Process) -> Result<()> {
    if let Some(profile) = &plan.apparmor {
        let value = format!("exec {profile}");
        // The first is there when several security modules are.
        write_label(proc, &["self/attr/apparmor/exec", "self/attr/exec"], &value, "process.apparmorProfile")?;
    }
    if let Some(label) = &plan.selinux {
        write_label(proc, &["self/attr/exec"], label, "process.selinuxLabel")?;
    }
    Ok(())
}

fn write_label(proc: &Procfs, files: &[&str], value: &str, field: &str) -> Result<()> {
    for file in files {
        match proc.write(file, value.as_bytes()) {
            Err(e) if matches!(e.errno(), Errno::ENOENT | Errno::EINVAL) => {}
            result => return Ok(result?),
        }
    }
    Err(Error::invalid(format!("{field}: the host has no security module that knows {value:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_granted_is_left_out_and_named() {
        let wanted = Capabilities {
            bounding: 0b11_0101,
            sets: CapSets { effective: 0b1_0111, permitted: 0b1_0011, inheritable: 0b1101 },
            ambient: 0b0111,
        };
        let (granted, ignored) = granted(wanted, 0b0_1111);
        assert_eq!(granted.sets, CapSets { effective: 0b0011, permitted: 0b0011, inheritable: 0b0101 });
        // 1 is not inheritable, 2 not permitted, 3 not in the bounding set; 4
        // and 5 are nobody's.
        assert_eq!((granted.ambient, ignored), (0b0001, 0b11_1100));
        assert_eq!(granted.bounding, wanted.bounding);
        assert_eq!(capability_names(1 << 5 | 1 << 63), ["CAP_KILL", "63"]);
    }
}
