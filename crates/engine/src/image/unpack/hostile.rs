// SPDX-License-Identifier: Apache-2.0
//! Layers as an enemy would write them, made of whatever bytes there are, and
//! all that can be told of what lies around them. For this module's tests and
//! for the fuzz target `layer`, which includes this file: it knows nothing but
//! the standard library.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::Path};

const BLOCK: usize = 512;

/// What names are made of.
const PARTS: [&str; 16] = [
    "a",
    "b",
    "c",
    "canary",
    "..",
    ".",
    "",
    "file",
    ".wh.a",
    ".wh.b",
    ".wh.canary",
    ".wh..wh..opq",
    ".wh...",
    ".wh..",
    ".wh.",
    "...",
];

/// Where links lead.
const TARGETS: [&str; 16] = [
    "/",
    "..",
    "../..",
    "../../canary",
    "../canary/file",
    "a",
    "b",
    "/a/b",
    "a/../..",
    "/../../canary",
    ".",
    "/proc/self/root",
    "/proc/self/cwd",
    "c/..",
    "file",
    "canary",
];

/// Types of entries: files, links of both kinds, devices, directories, fifos.
const KINDS: [u8; 8] = [b'0', b'1', b'2', b'5', b'5', b'3', b'4', b'6'];

/// A tar archive, six bytes for each entry.
pub(super) fn archive(bytes: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for entry in bytes.chunks_exact(6).take(200) {
        let kind = KINDS[usize::from(entry[0] % 8)];
        let parts = [entry[1] % 16, entry[1] / 16, entry[2] % 16, entry[2] / 16];
        let depth = usize::from(entry[3] % 4) + 1;
        let mut name =
            parts[..depth].iter().map(|part| PARTS[usize::from(*part)]).collect::<Vec<_>>().join("/");
        if entry[3] & 0x10 != 0 {
            name.insert(0, '/');
        }
        // An entry without a name would end the archive's use.
        if name.is_empty() {
            name.push('a');
        }
        let target = TARGETS[usize::from(entry[4] % 16)];
        let data = if kind == b'0' { usize::from(entry[5]) * 3 } else { 0 };
        header(&mut archive, &name, target, kind, data, entry[5]);
        archive.extend(std::iter::repeat_n(entry[5], data));
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

fn header(archive: &mut Vec<u8>, name: &str, target: &str, kind: u8, size: usize, salt: u8) {
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{:07o}", 0o4755 ^ u32::from(salt)));
    put(108, &format!("{:07o}", u32::from(salt)));
    put(116, &format!("{:07o}", 100));
    put(124, &format!("{size:011o}"));
    put(136, &format!("{:011o}", 1_000_000_000 + u32::from(salt)));
    put(257, "ustar\x0000");
    if matches!(kind, b'1' | b'2') {
        put(157, target);
    }
    // Now and then overlayfs's own device for "deleted".
    put(329, &format!("{:07o}", salt % 3));
    put(337, &format!("{:07o}", salt % 2));
    put(148, "        ");
    header[156] = kind;
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend_from_slice(&header);
}

/// Everything at and below `top` but not below `apart`: type and mode, owner,
/// times, number, content.
pub(super) fn around(top: &Path, apart: &[&Path]) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let mut pending = vec![top.to_owned()];
    while let Some(path) = pending.pop() {
        let Ok(stat) = fs::symlink_metadata(&path) else { continue };
        let mut line = format!(
            "{} {:o} {}:{} {}.{} {}",
            stat.ino(),
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.mtime(),
            stat.mtime_nsec(),
            stat.nlink()
        );
        if stat.is_dir() {
            pending.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if stat.is_file() {
            line += &String::from_utf8_lossy(&fs::read(&path).unwrap_or_default());
        }
        if !apart.iter().any(|apart| path.starts_with(apart)) {
            seen.insert(path.display().to_string(), line);
        }
    }
    seen
}
