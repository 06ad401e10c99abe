// SPDX-License-Identifier: Apache-2.0
//! What a registry says an image is made of: never a panic, everything in
//! bounds, and what we write of it is read as the same.
#![no_main]

use berth_engine::image::{
    manifest::{self, DOCKER_LIST, Document, MAX_LAYERS, OCI_INDEX, OCI_MANIFEST},
    platform::Platform,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let media_type = ["", OCI_MANIFEST, OCI_INDEX, DOCKER_LIST][usize::from(input.0 % 4)];
    match Document::parse(input.1, media_type) {
        Ok(Document::Manifest(manifest)) => {
            assert!(manifest.layers.len() <= MAX_LAYERS);
            let Ok(Document::Manifest(again)) = Document::parse(&manifest.to_bytes(), OCI_MANIFEST) else {
                // A configuration without a media type has none to be written.
                return assert!(manifest.config.media_type.is_empty());
            };
            let digests = |m: &manifest::Manifest| m.layers.iter().map(|l| l.digest.clone()).collect::<Vec<_>>();
            assert_eq!((again.config.digest.clone(), digests(&again)), (manifest.config.digest.clone(), digests(&manifest)));
        }
        Ok(Document::Index(entries)) => {
            if let Some(chosen) = manifest::choose(&entries, &Platform::host()) {
                assert!(!chosen.attestation && entries.contains(chosen));
            }
        }
        Err(error) => assert!(!error.chain().is_empty()),
    }
});
