// SPDX-License-Identifier: Apache-2.0
//! `user[:group]` with an image's own /etc/passwd and /etc/group: never a
//! panic, never an id that the kernel takes for "unchanged", and digits never
//! become somebody else by way of a name.
#![no_main]

use berth_shim::init::passwd;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &[u8], &[u8])| {
    let (wanted, passwd, group) = input;
    let Ok(user) = passwd::look_up(wanted, &[], passwd, group) else { return };
    assert!(user.uid != u32::MAX && user.gid != u32::MAX);
    assert!(!user.groups.contains(&u32::MAX) && user.groups.contains(&user.gid));
    assert!(user.home.starts_with('/'));
    let name = wanted.split(':').next().unwrap_or_default();
    if !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit()) {
        assert_eq!(name.parse(), Ok(user.uid));
    }
});
