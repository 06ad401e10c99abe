// SPDX-License-Identifier: Apache-2.0
//! `devices`: `devices.deny` and `devices.allow`.

use std::path::Path;

use super::super::{
    devices::{DeviceKind, Exception, MKNOD, Policy, READ, WRITE, forgive},
    fs,
};
use crate::{kernel, runtime::Result};

/// Denies all, or allows all, and then makes the exceptions.
pub(super) fn apply(dir: &Path, policy: &Policy, warnings: &mut Vec<String>) -> Result<()> {
    forgive(set(dir, policy), warnings)
}

fn set(dir: &Path, policy: &Policy) -> kernel::Result<()> {
    // "a" forgets all exceptions, and sets the default.
    let (default, exceptions) =
        if policy.allow { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
    write(dir, default, ["a".to_owned()])?;
    write(dir, exceptions, policy.exceptions.iter().map(line))
}

/// Changes the list of a container that runs: what stays allowed is allowed
/// all the while.
pub(super) fn update(dir: &Path, policy: &Policy, warnings: &mut Vec<String>) -> Result<()> {
    let now = fs::read(dir, "devices.list")?;
    if policy.allow || now.starts_with('a') {
        return apply(dir, policy, warnings);
    }
    forgive(change(dir, policy, &now), warnings)
}

fn change(dir: &Path, policy: &Policy, now: &str) -> kernel::Result<()> {
    let wanted: Vec<_> = policy.exceptions.iter().map(line).collect();
    let now: Vec<_> = now.lines().map(str::to_owned).collect();
    let without = |all: &[String], known: &[String]| -> Vec<String> {
        all.iter().filter(|line| !known.contains(line)).cloned().collect()
    };
    write(dir, "devices.deny", without(&now, &wanted))?;
    // Allowed again, in case a wider rule has just been taken away.
    write(dir, "devices.allow", wanted)
}

fn write(dir: &Path, file: &str, lines: impl IntoIterator<Item = String>) -> kernel::Result<()> {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_none() {
        return Ok(());
    }
    fs::try_write_each(dir, file, lines)
}

/// As the kernel takes it: `c 136:* rwm`.
fn line(exception: &Exception) -> String {
    let kind = match exception.kind {
        DeviceKind::Block => 'b',
        DeviceKind::Character => 'c',
    };
    let number = |n: Option<u32>| n.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
    let access: String =
        letters.iter().filter(|(bit, _)| exception.access & bit != 0).map(|(_, letter)| *letter).collect();
    format!("{kind} {}:{} {access}", number(exception.major), number(exception.minor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(list: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        for (file, text) in [("devices.allow", ""), ("devices.deny", ""), ("devices.list", list)] {
            std::fs::write(dir.path().join(file), text).expect("write");
        }
        dir
    }

    #[test]
    fn all_is_denied_before_anything_is_allowed() {
        let dir = fake("");
        apply(dir.path(), &Policy::container(), &mut Vec::new()).expect("apply");
        assert_eq!(fs::read(dir.path(), "devices.deny").expect("read"), "a");
        let allowed = fs::read(dir.path(), "devices.allow").expect("read");
        assert!(allowed.starts_with("c *:* m") && allowed.ends_with("c 5:2 rwm"), "{allowed}");
    }

    #[test]
    fn an_update_denies_only_what_is_no_more_allowed() {
        let dir = fake("c 1:3 rwm\nc 10:229 rwm\n");
        let null = Exception {
            kind: DeviceKind::Character,
            major: Some(1),
            minor: Some(3),
            access: MKNOD | READ | WRITE,
        };
        update(dir.path(), &Policy { allow: false, exceptions: vec![null] }, &mut Vec::new())
            .expect("update");
        assert_eq!(fs::read(dir.path(), "devices.deny").expect("read"), "c 10:229 rwm");
        assert_eq!(fs::read(dir.path(), "devices.allow").expect("read"), "c 1:3 rwm");
    }

    #[test]
    fn a_line_as_the_kernel_takes_it() {
        let exception =
            Exception { kind: DeviceKind::Block, major: Some(8), minor: None, access: READ | MKNOD };
        assert_eq!(line(&exception), "b 8:* rm");
    }
}
