// SPDX-License-Identifier: Apache-2.0
//! What a user or an archive calls an image: never a panic, and all ways to
//! write a reference out read back as the same one.
#![no_main]

use berth_engine::{domain::digest::Digest, image::reference::Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(reference) = text.parse::<Reference>() {
        for again in [reference.familiar(), reference.to_string()] {
            assert_eq!(again.parse::<Reference>().unwrap(), reference, "{again}");
        }
        let stored: Reference = reference.stored().parse().unwrap();
        assert_eq!((stored.name(), stored.target()), (reference.name(), reference.target()));
        // Parts become path segments of a registry's URLs.
        let repository = reference.repository();
        assert!(!repository.split('/').any(|part| matches!(part, "" | "." | "..")), "{repository}");
        assert!(!reference.target().contains('/'));
    }
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.as_str(), text);
        assert!(digest.hex().bytes().all(|b| b.is_ascii_hexdigit()));
    }
});
