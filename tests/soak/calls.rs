// SPDX-License-Identifier: Apache-2.0
//! The disk says no to one call of a pull: to the first, to the second, to
//! each in its turn. The pull fails and says why; nothing of it is left but what
//! was received, and the next one fetches the rest.
//!
//! `calls/failing.c` is loaded into the engine and counts the calls of all its
//! threads. A call that fails is one that would have had an effect on, or
//! opened, something below the store's root.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::errno::Errno;

use crate::{
    lengths::length,
    support::{
        Engine, FakeRegistry, Image,
        command::run,
        image::{Builder, Layer},
        until,
    },
};

/// As `struct page` in failing.c has it.
struct Page(File);

impl Page {
    const SIZE: usize = 256;

    fn make(path: &Path) -> Self {
        let file = File::options().read(true).write(true).create_new(true).open(path).expect("a file");
        file.set_len(Self::SIZE as u64).expect("set its length");
        Self(file)
    }

    /// The `nth` call from now on fails; with 0 all are only counted.
    fn arm(&self, nth: u32, how: &How) {
        let (growing, lasting) = (u32::from(how.growing), u32::from(how.lasting));
        let error = (how.error as i32).cast_unsigned();
        // The first field last: it begins the counting.
        self.0.write_all_at(&[0; Self::SIZE], 0).expect("write");
        let rest: Vec<u8> = [error, growing, lasting].into_iter().flat_map(u32::to_ne_bytes).collect();
        self.0.write_all_at(&rest, 4).expect("write");
        self.0.write_all_at(&nth.to_ne_bytes(), 0).expect("write");
    }

    /// How many calls there were since, and which of them failed.
    fn disarm(&self) -> (u32, String) {
        self.0.write_all_at(&0_u32.to_ne_bytes(), 0).expect("write");
        let mut page = [0; Self::SIZE];
        self.0.read_exact_at(&mut page, 0).expect("read");
        let count = u32::from_ne_bytes(page[16..20].try_into().expect("four bytes"));
        let failed = page[20..].split(|byte| *byte == 0).next().unwrap_or_default();
        (count, String::from_utf8_lossy(failed).into_owned())
    }
}

/// How a call fails, and what the user is to read of it.
struct How {
    error: Errno,
    /// Only what may need room.
    growing: bool,
    /// From then on all.
    lasting: bool,
    words: &'static [&'static str],
}

const FULL: How = How {
    error: Errno::ENOSPC,
    growing: true,
    lasting: false,
    // SQLite says the last one of an fsync, whatever the system says.
    words: &["No space left on device", "database or disk is full", "disk I/O error"],
};
const BROKEN: How =
    How { error: Errno::EIO, growing: false, lasting: false, words: &["I/O error", "Input/output error"] };
const GONE: How = How { lasting: true, ..BROKEN };

fn library(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/soak/calls/failing.c");
    let library = dir.join("failing.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o"]).arg(&library).arg(source);
    compiler.arg("-ldl");
    run(compiler, b"").ok();
    library
}

/// Two layers with one of everything.
fn image() -> Image {
    let mut state = 1_u32;
    let mut noise = |size: usize| -> Vec<u8> {
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        };
        std::iter::repeat_with(next).take(size).collect()
    };
    let (mut below, mut above) = (Layer::new(), Layer::new());
    below.dir("dir/", 0o755);
    below.file("dir/file", 0o644, &noise(600_000));
    below.symlink("dir/link", "file");
    below.file("gone", 0o600, b"hidden above");
    above.file("dir/other", 0o644, &noise(300_000));
    above.file("implied/file", 0o644, b"small");
    above.file(".wh.gone", 0o644, b"");
    Builder::new().layer(below).layer(above).build()
}

/// Bytes of layers that a pull of `image` has to fetch.
fn missing(engine: &Engine, image: &Image) -> u64 {
    let content = engine.dir().join("root/content");
    let missing = |(digest, bytes): (&String, &Vec<u8>)| {
        let hex = digest.trim_start_matches("sha256:");
        let places = [content.join("blobs/sha256").join(hex), content.join(format!("ingest/sha256-{hex}"))];
        let found = places.iter().find_map(|path| fs::metadata(path).ok());
        bytes.len() as u64 - found.map_or(0, |found| found.len())
    };
    image.blobs().filter(|(digest, _)| *digest != image.config_digest()).map(missing).sum()
}

#[track_caller]
fn each_in_its_turn(how: &How, every: usize) {
    let image = image();
    let registry = FakeRegistry::serving(&image, "library/small", "latest");
    let Some(mut engine) = Engine::prepare_mirrored(registry.address()) else { return };
    let page = engine.dir().join("page");
    let root = engine.dir().join("root");
    let library = library(engine.dir());
    let shared = Page::make(&page);
    for (name, value) in
        [("LD_PRELOAD", &library), ("BERTH_FAILING_PAGE", &page), ("BERTH_FAILING_BELOW", &root)]
    {
        engine.set(name, value.to_str().expect("UTF-8"));
    }
    engine.set("BERTH_LOG", "info,berth_engine::image=debug");
    engine.restart();
    let config = image.blobs().find(|(digest, _)| *digest == image.config_digest());
    let config = config.map_or(0, |(_, bytes)| bytes.len() as u64);
    let whole = missing(&engine, &image);
    let (mut failures, mut harmless) = (0_u32, Vec::new());
    for nth in (1..).step_by(every) {
        let before = engine.received_bytes(image.layers());
        shared.arm(nth, how);
        let pulled = engine.berth(&["pull", "-q", "small"]);
        // Layers that nobody needs any more go behind the caller's back, if they
        // can.
        until(&format!("nothing to be left of {pulled:?}"), || {
            let left = fs::read_dir(root.join("snapshots")).expect("list").count();
            (how.lasting || left == if pulled.code == 0 { 1 + image.layers().len() } else { 1 }).then_some(())
        });
        let (calls, failed) = shared.disarm();
        if failed.is_empty() {
            pulled.ok();
            println!(
                "calls: {failures} of {calls} calls failed with {}, and the pull; without harm: {harmless:?}",
                how.error
            );
            break;
        }
        if !how.lasting {
            engine.fsck(&["--digests"]).ok();
        }
        if pulled.code == 0 {
            harmless.push(format!("{nth}, {failed}"));
        } else {
            failures += 1;
            let said = pulled.exits(1).error().to_owned();
            let what = format!("call {nth}, {failed}, {}: {said}", how.error);
            assert_eq!(said.lines().count(), 1, "{what}");
            assert!(how.words.iter().any(|words| said.contains(words)), "{what}");
            assert_eq!(engine.berth(&["images", "-aq"]).ok().stdout, "", "{what}");
            // What an fsync was refused for isn't believed to be there, and what
            // can't be written isn't kept.
            let refused = failed.starts_with("fsync") || how.lasting;
            until(&format!("{what}: all that came to be kept"), || {
                let kept = whole - missing(&engine, &image);
                (refused || before + kept == engine.received_bytes(image.layers())).then_some(())
            });
            let missing = missing(&engine, &image);
            registry.take_sent();
            engine.berth(&["pull", "-q", "small"]).ok();
            // The configuration is fetched with every attempt.
            let sent = registry.take_sent();
            assert!(sent <= missing + config, "{what}: {sent} bytes were sent, {missing} were missing");
        }
        engine.fsck(&["--digests"]).ok();
        engine.berth(&["rmi", "small"]).ok();
    }
    assert!(failures > 5, "{failures} pulls failed");
    assert_eq!(engine.stop(), 0);
}

#[test]
fn a_disk_that_is_full_for_one_call_of_a_pull_stops_that_pull_alone() {
    each_in_its_turn(&FULL, length(5, 1));
}

#[test]
fn a_disk_that_fails_for_one_call_of_a_pull_stops_that_pull_alone() {
    each_in_its_turn(&BROKEN, length(17, 1));
}

#[test]
fn a_disk_that_fails_from_one_call_of_a_pull_on_leaves_nothing_that_the_next_pull_does_not_clear() {
    each_in_its_turn(&GONE, length(19, 1));
}
