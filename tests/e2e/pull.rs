// SPDX-License-Identifier: Apache-2.0
//! Pulls that are interrupted, and what the next one makes of what is there.

use crate::support::{Engine, FakeRegistry, Image, until};

#[test]
fn after_a_crash_in_any_phase_of_a_pull_only_what_is_missing_is_fetched() {
    let image = Image::noisy();
    let registry = FakeRegistry::serving(&image, "library/noisy", "latest");
    let mut layers = image.blobs().filter(|(_, bytes)| bytes.len() > 100_000);
    let (first, bytes) = layers.next().expect("a layer");
    let (second, _) = layers.next().expect("another");
    let whole: u64 = image.blobs().map(|(_, bytes)| bytes.len() as u64).sum();
    let size = bytes.len();
    for (path, held) in [
        ("/manifests/latest", 0),
        (image.config_digest(), 0),
        (first.as_str(), 0),
        (first.as_str(), size / 2),
        (first.as_str(), size - 1),
        (second.as_str(), size / 10),
    ] {
        let Some(mut engine) = Engine::start_mirrored(registry.address()) else { return };
        registry.take_sent();
        registry.hold(path, held);
        let mut pull = engine.background(&["pull", "noisy"]);
        // Whatever can come has come, and is in the store.
        until("the pull to hang", || {
            let sent = registry.asked_for(path).then(|| registry.sent())?;
            (sent >= expected(path, &image, held) && engine.stored_bytes() + 10_000 >= sent).then_some(())
        });
        engine.kill9();
        pull.wait();
        registry.free();
        let (kept, sent) = (engine.stored_bytes(), registry.take_sent());
        engine.restart();
        assert!(engine.stored_bytes() >= kept, "{path} {held}: the start keeps what was there");
        engine.berth(&["pull", "noisy"]).ok();
        let again = registry.take_sent();
        // The configuration is fetched with every attempt.
        let documents = image.blobs().find(|(digest, _)| *digest == image.config_digest());
        let missing = whole.saturating_sub(kept) + documents.map_or(0, |(_, bytes)| bytes.len() as u64);
        assert!(
            again <= missing + missing / 100,
            "{path} {held}: {again} bytes, {missing} were missing of {whole}, {sent} were sent before"
        );
        engine.fsck(&[]).ok();
    }
}

/// Bytes of blobs that come while `path` is held after `held`.
fn expected(path: &str, image: &Image, held: usize) -> u64 {
    let config = image.config_digest();
    if path.ends_with("latest") || path == config {
        return 0;
    }
    let others = image.blobs().filter(|(digest, _)| *digest != path);
    others.map(|(_, bytes)| bytes.len() as u64).sum::<u64>() + held as u64
}
