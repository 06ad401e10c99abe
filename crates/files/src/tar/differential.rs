// SPDX-License-Identifier: Apache-2.0
//! C08: what parsers of tar have disagreed about lets one of them see files
//! that another doesn't (CVE-2025-62518, CVE-2026-33055, GHSA-3pv8-6f4r-ffg2).
//! Ours sees what GNU tar and Python see, or refuses the archive.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use proptest::prelude::*;

use super::{Kind, Reader};

/// A member as it is written: its type, its header's size, and what follows.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub(super) kind: u8,
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) data: Vec<u8>,
}

impl Raw {
    pub(super) fn new(kind: u8, name: &str, data: impl Into<Vec<u8>>) -> Self {
        let data = data.into();
        Self { kind, name: name.to_owned(), size: data.len() as u64, data }
    }

    /// A file whose header says another size than it has.
    fn file(name: &str, size: u64, data: impl Into<Vec<u8>>) -> Self {
        Self { size, ..Self::new(b'0', name, data) }
    }

    pub(super) fn pax(kind: u8, records: &[(&str, &str)]) -> Self {
        let records = records.iter().map(|(key, value)| {
            let rest = format!(" {key}={value}\n");
            let length = (1..).find(|n| n.to_string().len() + rest.len() == *n).expect("a length");
            format!("{length}{rest}")
        });
        Self::new(kind, "pax", records.collect::<String>())
    }

    /// What GNU tar says of a file with holes.
    pub(super) fn sparse(records: &[(&str, &str)]) -> Self {
        let records: Vec<_> =
            records.iter().map(|(key, value)| (format!("GNU.sparse.{key}"), *value)).collect();
        let records: Vec<_> = records.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        Self::pax(b'x', &records)
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut header = if matches!(self.kind, b'L' | b'K') {
            ::tar::Header::new_gnu()
        } else {
            ::tar::Header::new_ustar()
        };
        header.as_old_mut().name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        header.set_entry_type(::tar::EntryType::new(self.kind));
        header.set_size(self.size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(&self.data);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        bytes
    }
}

pub(super) fn archive(members: &[Raw]) -> Vec<u8> {
    let mut bytes: Vec<u8> = members.iter().flat_map(Raw::bytes).collect();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

/// Names and sizes; `None` for an archive that is refused.
type Listing = Option<Vec<(String, Option<u64>)>>;

fn ours(bytes: &[u8]) -> Listing {
    let mut reader = Reader::new(bytes);
    let mut all = Vec::new();
    loop {
        match reader.next_entry() {
            Ok(Some(entry)) => {
                // Of anything else a size says nothing, and is shown or not.
                let size = (entry.kind == Kind::File).then_some(entry.size);
                all.push((name(&String::from_utf8_lossy(&entry.path)), size));
            }
            Ok(None) => return Some(all),
            Err(_) => return None,
        }
    }
}

/// Whether a directory has a slash behind it is a matter of taste.
fn name(text: &str) -> String {
    text.trim_end_matches('/').to_owned()
}

fn asked(command: &mut Command, bytes: &[u8]) -> Option<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("scripts/test-deps.sh installs it");
    // It may stop reading before the end.
    let _ = child.stdin.take().expect("piped").write_all(bytes);
    let output = child.wait_with_output().expect("wait");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `tar --list`: permissions, owner, size, date, time, name.
fn gnu(bytes: &[u8]) -> Listing {
    let mut tar = Command::new("tar");
    tar.args(["--list", "--verbose", "--numeric-owner", "--quoting-style=literal", "--file=-"]);
    let text = asked(tar.env("LC_ALL", "C").env("TZ", "UTC"), bytes)?;
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let size: u64 = fields.nth(2)?.parse().ok()?;
        Some((name(fields.nth(2)?), Some(size)))
    };
    text.lines().map(line).collect()
}

fn python(bytes: &[u8]) -> Listing {
    let script = "import sys, tarfile\nfor m in tarfile.open(fileobj=sys.stdin.buffer, mode='r|'): print(m.size, m.name)";
    let text = asked(Command::new("python3").args(["-c", script]), bytes)?;
    let line = |line: &str| {
        let (size, rest) = line.split_once(' ')?;
        Some((name(rest), Some(size.parse().ok()?)))
    };
    text.lines().map(line).collect()
}

#[track_caller]
fn agrees(members: &[Raw]) {
    let bytes = archive(members);
    let Some(seen) = ours(&bytes) else { return };
    for (who, other) in [("GNU tar", gnu(&bytes)), ("Python", python(&bytes))] {
        let mut other = other.unwrap_or_else(|| panic!("{who} refuses what we take: {members:?}"));
        for ((_, size), (_, theirs)) in seen.iter().zip(&mut other) {
            *theirs = size.and(*theirs);
        }
        assert_eq!(seen, other, "{who}: {members:?}");
    }
}

/// A file whose content is a member itself.
fn smuggled() -> Vec<u8> {
    Raw::new(b'0', "smuggled", "").bytes()
}

#[test]
fn c08_nobody_sees_other_files_than_we() {
    let after = Raw::new(b'0', "after", "x");
    let size = |value: &str| Raw::pax(b'x', &[("size", value)]);
    let path = |value: &str| Raw::pax(b'x', &[("path", value)]);
    let long = |name: &str| Raw::new(b'L', "././@LongLink", format!("{name}\0"));
    let sparse = Raw::sparse;
    let mut map = b"1\n0\n512\n".to_vec();
    map.resize(512, 0);
    let corpus: Vec<Vec<Raw>> = vec![
        vec![path("by-pax"), Raw::file("short", 0, "")],
        vec![size("512"), Raw::file("grown", 0, smuggled())],
        vec![size("0"), Raw::file("shrunk", 512, smuggled())],
        vec![size("512"), Raw::file("same", 512, smuggled())],
        vec![size("600"), Raw::file("more", 512, [smuggled(), smuggled()].concat())],
        vec![path("by-pax"), long("by-gnu"), Raw::file("short", 0, "")],
        vec![long("by-gnu"), path("by-pax"), Raw::file("short", 0, "")],
        vec![size("512"), long("by-gnu"), Raw::file("short", 0, smuggled())],
        vec![long("by-gnu"), size("512"), Raw::file("short", 0, smuggled())],
        vec![long("one"), long("two"), Raw::file("short", 0, "")],
        vec![path("one"), path("two"), Raw::file("short", 0, "")],
        vec![size("0"), size("512"), Raw::file("short", 512, smuggled())],
        vec![Raw::pax(b'x', &[("size", "0"), ("size", "512")]), Raw::file("twice", 0, smuggled())],
        vec![Raw::pax(b'g', &[("comment", "c")]), Raw::file("file", 0, "")],
        vec![path("d"), Raw::new(b'5', "dir/", "")],
        vec![Raw::file("dir-with-size", 512, smuggled())],
        vec![Raw { kind: b'5', ..Raw::file("dir", 512, smuggled()) }],
        vec![Raw { kind: b'2', ..Raw::file("link", 512, smuggled()) }],
        vec![Raw { kind: b'1', ..Raw::file("hard", 512, smuggled()) }],
        vec![Raw { kind: b'6', ..Raw::file("fifo", 512, smuggled()) }],
        vec![Raw { kind: 0, ..Raw::file("old", 512, smuggled()) }],
        vec![Raw { kind: b'7', ..Raw::file("contiguous", 512, smuggled()) }],
        vec![Raw::pax(b'g', &[("path", "global")]), Raw::file("file", 0, "")],
        vec![Raw::pax(b'g', &[("size", "0")]), Raw::file("file", 512, smuggled())],
        vec![path("one"), Raw::pax(b'g', &[("comment", "c")]), Raw::file("file", 0, "")],
        vec![
            sparse(&[("size", "600"), ("numblocks", "1"), ("map", "0,512")]),
            Raw::file("0.1", 512, smuggled()),
        ],
        vec![sparse(&[("size", "0"), ("numblocks", "0"), ("map", "")]), Raw::file("none", 512, smuggled())],
        vec![
            sparse(&[("major", "1"), ("minor", "0"), ("name", "real"), ("realsize", "512")]),
            Raw::new(b'0', "made-up", [&map[..], &smuggled()].concat()),
        ],
        vec![
            sparse(&[("major", "1"), ("minor", "0"), ("name", "real"), ("realsize", "512")]),
            size("1024"),
            Raw::file("twice", 0, [&map[..], &smuggled()].concat()),
        ],
        // One block of zeros, and more behind it.
        vec![Raw::file("zeros", 0, vec![0; 512])],
    ];
    for mut members in corpus {
        members.push(after.clone());
        agrees(&members);
    }
}

fn member() -> impl Strategy<Value = Raw> {
    let size = prop::sample::select(vec!["0", "1", "512", "513", "1024"]);
    prop_oneof![
        size.prop_map(|size| Raw::pax(b'x', &[("size", size)])),
        "[a-z]{1,120}".prop_map(|name| Raw::pax(b'x', &[("path", &name)])),
        "[a-z]{1,120}".prop_map(|name| Raw::new(b'L', "long", format!("{name}\0"))),
        ("[a-z]{1,9}", prop::sample::select(vec![0_u64, 1, 512, 513]), 0..3_usize)
            .prop_map(|(name, size, blocks)| Raw::file(&name, size, smuggled().repeat(blocks))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn c08_nor_in_any_order(members in prop::collection::vec(member(), 1..6)) {
        agrees(&members);
    }
}
