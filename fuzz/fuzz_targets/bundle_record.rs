// SPDX-License-Identifier: Apache-2.0
//! The records of a bundle, as a crash or a full disk may leave them: never a
//! panic, and a record that was read is written as one that reads the same.
#![no_main]

use berth::bundle::{ExitRecord, ProcessIdentity};
use libfuzzer_sys::fuzz_target;
use serde_json::{from_slice, to_vec};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = from_slice::<ExitRecord>(bytes) {
        // Any number of nanoseconds is a time.
        let _ = record.exited_at();
        assert_eq!(from_slice::<ExitRecord>(&to_vec(&record).unwrap()).unwrap(), record);
    }
    if let Ok(identity) = from_slice::<ProcessIdentity>(bytes) {
        assert_eq!(from_slice::<ProcessIdentity>(&to_vec(&identity).unwrap()).unwrap(), identity);
    }
});
