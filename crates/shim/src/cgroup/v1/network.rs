// SPDX-License-Identifier: Apache-2.0
//! `net_cls` and `net_prio`: marks on the traffic of the container.

use std::path::Path;

use super::super::{Network, fs};
use crate::runtime::Result;

pub(super) fn apply_class(dir: &Path, network: &Network) -> Result<()> {
    let Some(class) = network.class_id else { return Ok(()) };
    fs::set(dir, "net_cls.classid", &class.to_string(), "linux.resources.network.classID")
}

pub(super) fn apply_priorities(dir: &Path, network: &Network) -> Result<()> {
    let lines = network.priorities.iter().map(|(name, priority)| format!("{name} {priority}"));
    if network.priorities.is_empty() {
        return Ok(());
    }
    fs::try_write_each(dir, "net_prio.ifpriomap", lines)
        .map_err(|e| fs::refused(&e, "linux.resources.network.priorities"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_written() {
        let dir = tempfile::tempdir().expect("tempdir");
        for file in ["net_cls.classid", "net_prio.ifpriomap"] {
            std::fs::write(dir.path().join(file), "").expect("write");
        }
        let network = Network { class_id: Some(0x10_0001), priorities: vec![("lo".to_owned(), 3)] };
        apply_class(dir.path(), &network).expect("apply");
        apply_priorities(dir.path(), &network).expect("apply");
        assert_eq!(fs::read(dir.path(), "net_cls.classid").expect("read"), "1048577");
        assert_eq!(fs::read(dir.path(), "net_prio.ifpriomap").expect("read"), "lo 3");
    }
}
