// SPDX-License-Identifier: Apache-2.0
//! `devices`: `devices.deny` and `devices.allow`.

use std::path::Path;

use super::super::{
    devices::{DeviceKind, Exception, MKNOD, Policy, READ, WRITE},
    fs,
};
use crate::runtime::Result;

pub(super) fn apply(dir: &Path, policy: &Policy) -> Result<()> {
    // "a" forgets all exceptions, and sets the default.
    let (default, exceptions) =
        if policy.allow { ("devices.allow", "devices.deny") } else { ("devices.deny", "devices.allow") };
    fs::write(dir, default, "a")?;
    policy.exceptions.iter().try_for_each(|exception| fs::write(dir, exceptions, &line(exception)))
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

    #[test]
    fn all_is_denied_before_anything_is_allowed() {
        let dir = tempfile::tempdir().expect("tempdir");
        for file in ["devices.allow", "devices.deny"] {
            std::fs::write(dir.path().join(file), "").expect("write");
        }
        apply(dir.path(), &Policy::container()).expect("apply");
        assert_eq!(fs::read(dir.path(), "devices.deny").expect("read"), "a");
        assert_eq!(fs::read(dir.path(), "devices.allow").expect("read"), "c 5:2 rwm");
    }

    #[test]
    fn a_line_as_the_kernel_takes_it() {
        let exception =
            Exception { kind: DeviceKind::Block, major: Some(8), minor: None, access: READ | MKNOD };
        assert_eq!(line(&exception), "b 8:* rm");
    }
}
