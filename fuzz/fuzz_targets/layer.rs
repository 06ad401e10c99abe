// SPDX-License-Identifier: Apache-2.0
//! Two layers, the second with the first below it: whatever their entries and
//! whiteouts say, nothing outside the second's directory changes while it is
//! unpacked. Half of the inputs are archives byte for byte, the others are
//! entries that an enemy would choose. Needs root, as unpacking does.
#![no_main]

#[path = "../../crates/engine/src/image/unpack/hostile.rs"]
mod hostile;

use std::{fs, path::Path};

use berth_engine::image::unpack::{Compression, Lower, implied, unpack};
use libfuzzer_sys::fuzz_target;

fn open(path: &Path) -> std::os::fd::OwnedFd {
    fs::File::open(path).unwrap().into()
}

fuzz_target!(|bytes: &[u8]| {
    let Some((how, bytes)) = bytes.split_first() else { return };
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    for dir in ["canary", "one", "two"] {
        fs::create_dir(path(dir)).unwrap();
    }
    fs::write(path("canary/file"), "untouched").unwrap();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let archive = |bytes: &[u8]| if how & 1 == 0 { hostile::archive(bytes) } else { bytes.to_vec() };
    let mut below = Vec::<std::path::PathBuf>::new();
    for (layer, bytes) in [("one", archive(first)), ("two", archive(second))] {
        let apart = path(layer);
        let before = hostile::around(place.path(), &[&apart]);
        let lower = (!below.is_empty()).then(|| Lower::new(below.iter().map(|p| open(p)).collect()));
        let size = bytes.len() as u64;
        let unpacked = unpack(Box::new(&*bytes), Compression::None, size, open(&apart), lower, &mut |_| {});
        if let Ok(unpacked) = unpacked {
            let lower = Lower::new(below.iter().map(|p| open(p)).collect());
            let _ = implied::settle(std::os::fd::AsFd::as_fd(&open(&apart)), &unpacked.implied, &lower);
        }
        assert_eq!(hostile::around(place.path(), &[&apart]), before);
        below.push(apart);
    }
});
