// SPDX-License-Identifier: Apache-2.0
//! A registry's WWW-Authenticate header: never a panic, and nothing that the
//! header didn't say.
#![no_main]

use berth_engine::image::registry::auth;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: &str| {
    // The realm is where credentials are sent: its characters are the
    // header's, in order.
    if let Some(auth::Challenge::Bearer { realm, .. }) = auth::parse_challenge(header) {
        let mut rest = header.chars();
        assert!(realm.chars().all(|c| rest.any(|h| h == c)), "{realm:?}");
    }
});
