// SPDX-License-Identifier: Apache-2.0
//! Kernel parameters: only those that belong to a namespace, and only when
//! the container has that namespace for itself. Any other would change the
//! host.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use nix::sched::CloneFlags;

use super::super::error::{Error, Result};
use super::namespaces::Namespaces;

/// Parameters of System V IPC (ipc_namespaces(7)).
const IPC: [&str; 8] = ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];

pub(super) fn plan(
    sysctls: Option<&HashMap<String, String>>,
    namespaces: &Namespaces,
) -> Result<Vec<(PathBuf, String)>> {
    let mut planned = Vec::new();
    for (key, value) in sysctls.into_iter().flatten() {
        let names = split(key).ok_or_else(|| Error::invalid(format!("linux.sysctl: {key:?} is no name")))?;
        let Some(needed) = namespace_of(&names) else {
            return Err(Error::invalid(format!("linux.sysctl: {key} belongs to no namespace")));
        };
        if !namespaces.is_private(needed) {
            return Err(Error::invalid(format!("linux.sysctl: {key} would change the host's namespace")));
        }
        if value.contains(['\n', '\0']) {
            return Err(Error::invalid(format!("linux.sysctl: {key}: {value:?} is more than one line")));
        }
        planned.push((names.iter().collect(), value.clone()));
    }
    planned.sort();
    Ok(planned)
}

/// The components of a name, in which `.` separates, or `/` if it comes
/// first: then a `.` is part of a component (interface names).
fn split(key: &str) -> Option<Vec<String>> {
    let separator = key.chars().find(|c| matches!(c, '.' | '/'))?;
    let other = if separator == '.' { '/' } else { '.' };
    let swap = |name: &str| if separator == '.' { name.replace(other, ".") } else { name.to_owned() };
    let names: Vec<_> = key.split(separator).map(swap).collect();
    let plain = |name: &String| {
        !matches!(name.as_str(), "" | "." | "..")
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '@'))
    };
    names.iter().all(plain).then_some(names)
}

/// The namespace that a planned parameter belongs to.
pub(super) fn namespace(path: &Path) -> Option<CloneFlags> {
    let names: Vec<_> = path.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    namespace_of(&names)
}

fn namespace_of(names: &[String]) -> Option<CloneFlags> {
    match names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["net", _, ..] => Some(CloneFlags::CLONE_NEWNET),
        ["fs", "mqueue", _] => Some(CloneFlags::CLONE_NEWIPC),
        ["kernel", name] if IPC.contains(&name) => Some(CloneFlags::CLONE_NEWIPC),
        ["kernel", "domainname"] => Some(CloneFlags::CLONE_NEWUTS),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_one(key: &str, value: &str, new: CloneFlags) -> Result<Vec<(PathBuf, String)>> {
        let namespaces =
            Namespaces { new, join: Vec::new(), users: None, new_cgroup: false, new_time: false };
        plan(Some(&HashMap::from([(key.to_owned(), value.to_owned())])), &namespaces)
    }

    #[test]
    fn only_what_a_namespace_holds() {
        let all = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
        for key in [
            "kernel.core_pattern",
            "vm.swappiness",
            "net",
            "fs.mqueue",
            "kernel.hostname",
            "kernel.shm_rmid_forced.x",
        ] {
            assert!(plan_one(key, "1", all).is_err(), "{key}");
        }
        for key in
            ["net.ipv4.ip_forward", "net/ipv4/ip_forward", "kernel.shm_rmid_forced", "fs.mqueue.msg_max"]
        {
            assert!(plan_one(key, "1", all).is_ok(), "{key}");
            assert!(plan_one(key, "1", CloneFlags::empty()).is_err(), "{key} of the host");
        }
    }

    #[test]
    fn a_name_is_no_path() {
        let net = CloneFlags::CLONE_NEWNET;
        for key in [
            "net./../../x",
            "net/../x",
            "net..x",
            "net.ipv4.a+kernel.core_pattern=b",
            "net.a\n",
            "net.a b",
            "",
        ] {
            assert!(plan_one(key, "1", net).is_err(), "{key}");
        }
        assert!(plan_one("net.ipv4.ip_forward", "1\n2", net).is_err());
        let planned = plan_one("net.ipv4.conf.eth0/7.forwarding", "1", net).expect("plan");
        assert_eq!(planned[0].0, PathBuf::from("net/ipv4/conf/eth0.7/forwarding"));
        assert_eq!(plan_one("net/ipv4/conf/eth0.7/forwarding", "1", net).expect("plan"), planned);
    }
}
