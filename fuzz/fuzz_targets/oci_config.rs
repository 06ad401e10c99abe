// SPDX-License-Identifier: Apache-2.0
//! config.json, as any caller of the runtime may write it, to a plan: never a
//! panic, an error is a line that can be printed, and what was read is written
//! as one that is judged the same.
#![no_main]

use std::path::Path;

use berth_shim::runtime::{self, spec};
use libfuzzer_sys::fuzz_target;

/// The verdict on a configuration, as its caller sees it.
fn verdict(spec: &oci_spec::runtime::Spec) -> Result<(), String> {
    runtime::check(spec, Path::new("/bundle")).map_err(|e| e.to_string())
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = spec::read(bytes) else { return };
    let first = verdict(&read.value);
    if let Err(message) = &first {
        assert!(!message.is_empty());
    }
    let text = serde_json::to_vec(&read.value).unwrap();
    let again = spec::read(&text).unwrap();
    assert_eq!(verdict(&again.value).is_ok(), first.is_ok(), "{first:?}");
});
