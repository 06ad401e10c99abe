// SPDX-License-Identifier: Apache-2.0
//! An image's configuration, against a manifest of two layers: never a panic,
//! and as many digests as layers or an error.
#![no_main]

use berth_engine::image::manifest::{Document, read_configuration};
use libfuzzer_sys::fuzz_target;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fuzz_target!(|bytes: &[u8]| {
    let part = format!(r#"{{"digest":"{DIGEST}","size":1}}"#);
    let text = format!(r#"{{"schemaVersion":2,"config":{part},"layers":[{part},{part}]}}"#);
    let Ok(Document::Manifest(manifest)) = Document::parse(text.as_bytes(), "") else { unreachable!() };
    if let Ok((_, diff_ids)) = read_configuration(bytes, &manifest) {
        assert_eq!(diff_ids.len(), 2);
    }
});
