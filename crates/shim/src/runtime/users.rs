// SPDX-License-Identifier: Apache-2.0
//! Gives a new user namespace its maps, from outside.
//!
//! Root writes them; anybody else may map only themselves, and has the rest
//! done by newuidmap(1) and newgidmap(1), which look into /etc/subuid.

use std::{path::Path, process::Command};

use nix::{errno::Errno, unistd::geteuid};

use super::{
    error::{Error, Kind, Result},
    plan::{IdMaps, Range},
};
use crate::kernel::paths;

/// Where distributions have the helpers: no search in a PATH that somebody
/// else may have set (D13).
const HELPERS: &str = "/usr/bin";

/// Writes the maps of the namespace that `pid` is in.
pub(super) fn map(maps: &IdMaps, pid: u32) -> Result<()> {
    let files = [("uid_map", "newuidmap", &maps.users), ("gid_map", "newgidmap", &maps.groups)];
    for (file, helper, ranges) in files {
        match write(file, ranges, pid) {
            Err(e) if e.errno() == Errno::EPERM && !geteuid().is_root() => {
                match helped(helper, ranges, pid) {
                    // One id alone needs no helper, but nobody may drop groups then.
                    Err(_) if ranges.len() == 1 && ranges[0].size == 1 => alone(file, ranges, pid)?,
                    result => result?,
                }
            }
            result => result?,
        }
    }
    Ok(())
}

fn write(file: &str, ranges: &[Range], pid: u32) -> crate::kernel::Result<()> {
    let text: String = ranges.iter().map(|range| range.line()).collect();
    paths::write_proc(paths::host_proc()?, Path::new(&format!("{pid}/{file}")), text.as_bytes())
}

fn alone(file: &str, ranges: &[Range], pid: u32) -> Result<()> {
    paths::write_proc(paths::host_proc()?, Path::new(&format!("{pid}/setgroups")), b"deny")?;
    Ok(write(file, ranges, pid)?)
}

fn helped(helper: &str, ranges: &[Range], pid: u32) -> Result<()> {
    let path = Path::new(HELPERS).join(helper);
    let numbers = ranges.iter().flat_map(|range| [range.inside, range.outside, range.size]);
    let failed = |why: String| Error::new(Kind::Os, format!("{}: {why}", path.display()));
    let output = Command::new(&path)
        .arg(pid.to_string())
        .args(numbers.map(|n| n.to_string()))
        .env_clear()
        .current_dir("/")
        .output()
        .map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
