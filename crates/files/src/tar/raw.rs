// SPDX-License-Identifier: Apache-2.0
//! Headers that no honest writer writes: each is refused by its name, taken as
//! Go's reader takes it, and needs no more memory than it says.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    process::Command,
};

use super::{
    Entry, Kind, Reader,
    differential::{Raw, archive},
    tests::all as stored,
};

/// Every entry and its data, unfolded.
fn all(bytes: &[u8]) -> io::Result<Vec<(Entry, Vec<u8>)>> {
    let entries = stored(bytes)?.into_iter().map(|(entry, stored)| {
        let data = match &entry.sparse {
            None => stored,
            Some(pieces) => unfolded(pieces, &stored, entry.size),
        };
        (entry, data)
    });
    Ok(entries.collect())
}

fn unfolded(pieces: &[(u64, u64)], mut stored: &[u8], size: u64) -> Vec<u8> {
    let index = |n: u64| usize::try_from(n).expect("small");
    let mut whole = vec![0; index(size)];
    for &(offset, length) in pieces {
        let (piece, rest) = stored.split_at(index(length));
        whole[index(offset)..index(offset + length)].copy_from_slice(piece);
        stored = rest;
    }
    assert!(stored.is_empty());
    whole
}

fn x(records: &[(&str, &str)]) -> Raw {
    Raw::pax(b'x', records)
}

fn file(name: &str, data: &[u8]) -> Raw {
    Raw::new(b'0', name, data)
}

/// An old GNU header with a map: pieces, and the size that they make.
fn old_sparse(pieces: &[(u64, u64)], real: &str, extended: &[Vec<(u64, u64)>], data: &[u8]) -> Vec<u8> {
    let piece = |field: &mut [u8], (offset, length): (u64, u64)| {
        field[..12].copy_from_slice(format!("{offset:011o}\0").as_bytes());
        field[12..24].copy_from_slice(format!("{length:011o}\0").as_bytes());
    };
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::new(b'S'));
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let raw = header.as_mut_bytes();
    raw[..4].copy_from_slice(b"file");
    pieces.iter().enumerate().for_each(|(at, one)| piece(&mut raw[386 + 24 * at..], *one));
    raw[482] = u8::from(!extended.is_empty());
    raw[483..483 + real.len()].copy_from_slice(real.as_bytes());
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    for (at, more) in extended.iter().enumerate() {
        let mut block = [0_u8; 512];
        more.iter().enumerate().for_each(|(at, one)| piece(&mut block[24 * at..], *one));
        block[504] = u8::from(at + 1 < extended.len());
        bytes.extend(block);
    }
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn ended(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[test]
fn what_no_honest_writer_writes_is_refused_by_name() {
    let long = |size| Raw { size, ..Raw::new(b'L', "long", "") };
    let sparse = |records: &[(&str, &str)], data: &[u8]| archive(&[Raw::sparse(records), file("f", data)]);
    let version1: [(&str, &str); 3] = [("major", "1"), ("minor", "0"), ("realsize", "10")];
    let mut wrong = archive(&[file("f", b"x")]);
    wrong[3] ^= 1;
    let mut lone = file("one", b"").bytes();
    lone.resize(lone.len() + 512, 0);
    lone.extend(archive(&[file("behind", b"")]));
    let posix_sparse = {
        let mut bytes = old_sparse(&[(0, 1)], "00000000012", &[], b"x");
        bytes[257..265].copy_from_slice(b"ustar\x0000");
        let mut header = ::tar::Header::new_ustar();
        header.as_mut_bytes().copy_from_slice(&bytes[..512]);
        header.set_cksum();
        bytes[..512].copy_from_slice(header.as_bytes());
        ended(bytes)
    };
    let many: Vec<Vec<(u64, u64)>> = vec![vec![(0, 0); 21]; 3200];
    for (row, bytes, words) in [
        ("a name of 2 GiB", archive(&[long(1 << 31), file("f", b"")]), "extension header too large"),
        ("a name of 8 GiB", archive(&[long((1 << 33) - 1), file("f", b"")]), "extension header too large"),
        (
            "a link name of 2 GiB",
            archive(&[Raw { kind: b'K', ..long(1 << 31) }]),
            "extension header too large",
        ),
        (
            "a million records",
            archive(&[Raw::new(b'x', "pax", "6 a=b\n".repeat(1_000_000)), file("f", b"")]),
            "too large",
        ),
        (
            "a record that is shorter",
            archive(&[Raw::new(b'x', "pax", "9 path=abc\n"), file("f", b"")]),
            "malformed pax record",
        ),
        (
            "a record that is longer",
            archive(&[Raw::new(b'x', "pax", "99999999999 path=a\n"), file("f", b"")]),
            "malformed pax record",
        ),
        (
            "a record without a newline",
            archive(&[Raw::new(b'x', "pax", "8 path=ab"), file("f", b"")]),
            "malformed pax record",
        ),
        (
            "a record that goes on in zeros",
            archive(&[Raw::new(b'x', "pax", "9 path=a\n\0\0"), file("f", b"")]),
            "malformed pax record",
        ),
        ("a size that is no number", archive(&[x(&[("size", "1x")]), file("f", b"")]), "malformed number"),
        ("a size below zero", archive(&[x(&[("size", "-1")]), file("f", b"")]), "malformed number"),
        (
            "a size of 2^64",
            archive(&[x(&[("size", "18446744073709551616")]), file("f", b"")]),
            "malformed number",
        ),
        ("a global name", archive(&[Raw::pax(b'g', &[("path", "evil")]), file("f", b"")]), "global header"),
        ("a global size", archive(&[Raw::pax(b'g', &[("size", "512")]), file("f", b"")]), "global header"),
        ("a global link", archive(&[Raw::pax(b'g', &[("linkpath", "/")]), file("f", b"")]), "global header"),
        (
            "a global header between",
            archive(&[x(&[("path", "a")]), Raw::pax(b'g', &[]), file("f", b"")]),
            "global header",
        ),
        ("extensions of nothing", archive(&[x(&[("path", "a")])]), "without an entry"),
        (
            "a name for a name",
            archive(&[Raw::new(b'L', "l", "a\0"), Raw::new(b'L', "l", "b\0"), file("f", b"")]),
            "two extension headers",
        ),
        ("a volume's name", archive(&[Raw::new(b'V', "v", "")]), "unsupported entry type 'V'"),
        ("the rest of a file", archive(&[Raw::new(b'M', "m", "x")]), "unsupported entry type 'M'"),
        ("a dump's directory", archive(&[Raw::new(b'D', "d/", "Yf\0\0")]), "unsupported entry type 'D'"),
        ("an unknown type", archive(&[Raw::new(b'Z', "z", "")]), "unsupported entry type 'Z'"),
        ("a type of Solaris", archive(&[Raw::new(b'X', "x", "9 path=a\n")]), "unsupported entry type 'X'"),
        ("a wrong checksum", wrong, "header checksum is wrong"),
        ("garbage for an archive", vec![b'x'; 1024], "not an octal number"),
        ("content after one block of zeros", lone, "content after a single block of zeros"),
        (
            "holes in a directory",
            archive(&[x(&[("GNU.sparse.size", "0")]), Raw::new(b'5', "d/", "")]),
            "holes in what is no file",
        ),
        (
            "holes of version 2",
            sparse(&[("major", "2"), ("minor", "0"), ("realsize", "1")], b""),
            "unknown format",
        ),
        ("holes without a size", sparse(&[("map", "0,1"), ("numblocks", "1")], b"x"), "malformed map"),
        (
            "pieces that overlap",
            sparse(&[("size", "9"), ("numblocks", "2"), ("map", "0,2,1,1")], b"xxx"),
            "overlap",
        ),
        (
            "pieces beyond the end",
            sparse(&[("size", "9"), ("numblocks", "1"), ("map", "8,2")], b"xx"),
            "don't add up",
        ),
        (
            "more data than pieces",
            sparse(&[("size", "9"), ("numblocks", "1"), ("map", "0,1")], b"xx"),
            "don't add up",
        ),
        (
            "fewer data than pieces",
            sparse(&[("size", "9"), ("numblocks", "1"), ("map", "0,2")], b"x"),
            "don't add up",
        ),
        (
            "a piece at the end of the world",
            sparse(&[("size", "9"), ("numblocks", "1"), ("map", "18446744073709551615,1")], b"x"),
            "too large",
        ),
        (
            "a file of 8 EiB",
            sparse(&[("size", "9223372036854775807"), ("numblocks", "0"), ("map", "")], b""),
            "sparse file too large",
        ),
        ("a map that is missing", sparse(&version1, b""), "without its map"),
        ("a map in half a block", sparse(&version1, b"1\n0\n1\nx"), "without its map"),
        (
            "a map that counts too far",
            sparse(&version1, &[b"99999999\n".to_vec(), vec![0; 503]].concat()),
            "too many pieces",
        ),
        ("a map that is no map", sparse(&version1, &[b'x'; 512]), "malformed map"),
        ("an old map in a new header", posix_sparse, "unknown format"),
        (
            "an old file of 8 EiB",
            ended(old_sparse(&[], "\u{0}", &[], b"")).tap(|bytes| {
                bytes[483..495].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
                reseal(bytes);
            }),
            "sparse file too large",
        ),
        (
            "an old map without end",
            ended(old_sparse(&[(0, 0)], "00000000012", &many, b"")),
            "too many pieces",
        ),
    ] {
        let error = all(&bytes).expect_err(row);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{row}");
        assert!(error.to_string().contains(words), "{row}: {error}");
    }
}

/// The header's checksum, made right again.
fn reseal(bytes: &mut [u8]) {
    let mut header = ::tar::Header::new_gnu();
    header.as_mut_bytes().copy_from_slice(&bytes[..512]);
    header.set_cksum();
    bytes[..512].copy_from_slice(header.as_bytes());
}

trait Tap: Sized {
    fn tap(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

impl Tap for Vec<u8> {}

#[test]
fn what_is_unusual_is_taken_as_others_take_it() {
    let one = || file("one", b"x").bytes();
    let names = |bytes: &[u8]| -> Vec<String> {
        let all = all(bytes).expect("sound");
        all.iter().map(|(entry, _)| String::from_utf8_lossy(&entry.path).into_owned()).collect()
    };
    let whole = archive(&[file("one", b"x")]);
    for (row, bytes) in [
        ("no trailer", one()),
        ("half a trailer", one().tap(|b| b.resize(b.len() + 512, 0))),
        ("no padding", one()[..513].to_vec()),
        ("garbage behind the trailer", [whole.clone(), vec![b'x'; 700]].concat()),
        ("two archives, one after the other", [whole.clone(), archive(&[file("two", b"")])].concat()),
        ("a trailer of many blocks", whole.clone().tap(|b| b.resize(10 * 512, 0))),
        (
            "a global header with a comment",
            archive(&[Raw::pax(b'g', &[("comment", "c")]), file("one", b"x")]),
        ),
        (
            "a long name in two ways that agree",
            archive(&[Raw::new(b'L', "l", "one\0"), x(&[("path", "one")]), file("f", b"x")]),
        ),
        (
            "a hundred thousand records",
            archive(&[Raw::new(b'x', "pax", "6 a=b\n".repeat(100_000)), file("one", b"x")]),
        ),
    ] {
        assert_eq!(names(&bytes), ["one"], "{row}");
    }
    assert!(names(&[0; 1024]).is_empty() && names(&[]).is_empty());
}

#[test]
fn a_file_with_holes_is_what_gnu_tar_packed() {
    let dir = tempfile::tempdir().expect("tempdir");
    let long = "l".repeat(150);
    for name in ["holes", &long] {
        let mut sparse = File::create(dir.path().join(name)).expect("create");
        // More pieces than an old header has room for, and a hole at the end.
        for piece in 0..40_u64 {
            sparse.seek(SeekFrom::Start(piece * (128 << 10))).expect("seek");
            sparse.write_all(format!("piece {piece}").as_bytes()).expect("write");
        }
        sparse.set_len(6 << 20).expect("set_len");
    }
    File::create(dir.path().join("empty")).and_then(|file| file.set_len(3 << 20)).expect("set_len");
    for format in [
        &["--format=gnu"][..],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ] {
        let packed = Command::new("tar")
            .args(["--create", "--sparse", "--file=-"])
            .args(format)
            .arg("--directory")
            .arg(dir.path())
            .args(["holes", "empty", &long])
            .output()
            .expect("scripts/test-deps.sh installs it");
        assert!(packed.status.success(), "{packed:?}");
        assert!(packed.stdout.len() < 4 << 20, "{format:?}: holes are not stored");
        let entries = all(&packed.stdout).unwrap_or_else(|e| panic!("{format:?}: {e}"));
        assert_eq!(entries.len(), 3);
        for ((entry, data), name) in entries.iter().zip(["holes", "empty", &long]) {
            assert_eq!((&*entry.path, entry.kind), (name.as_bytes(), Kind::File), "{format:?}");
            let mut original = Vec::new();
            File::open(dir.path().join(name)).and_then(|mut f| f.read_to_end(&mut original)).expect("read");
            assert!(entry.sparse.is_some() && *data == original, "{format:?} {name}");
        }
    }
}

/// A file of version 1.0, whose map is in front of its data, and another one.
fn sparse_10(map: &[u8], data: &[u8], realsize: u64) -> Vec<u8> {
    let mut padded = map.to_vec();
    padded.resize(map.len().next_multiple_of(512), 0);
    let realsize = realsize.to_string();
    let records = [("major", "1"), ("minor", "0"), ("name", "real"), ("realsize", &*realsize)];
    archive(&[
        Raw::sparse(&records),
        file("GNUSparseFile.0/real", &[&padded, data].concat()),
        file("next", b""),
    ])
}

#[test]
fn a_map_of_holes_is_believed_only_when_it_adds_up() {
    let bytes = sparse_10(b"2\n512\n3\n4096\n0\n", b"abc", 4096);
    let mut reader = Reader::new(&bytes[..]);
    let entry = reader.next_entry().expect("read").expect("an entry");
    assert_eq!((entry.path.as_slice(), entry.size), (&b"real"[..], 4096));
    assert_eq!(entry.sparse, Some(vec![(512, 3), (4096, 0)]));
    let mut data = [0; 9];
    assert_eq!(reader.read_data(&mut data).expect("data"), 3);
    assert_eq!(&data[..3], b"abc");
    assert_eq!(reader.next_entry().expect("read").expect("the next").path, b"next");
    // Its data need not be read.
    let mut reader = Reader::new(&bytes[..]);
    drop(reader.next_entry().expect("read"));
    assert_eq!(reader.next_entry().expect("read").expect("the next").path, b"next");

    for (map, size) in [
        (&b"1\n0\n4\n"[..], 4096),
        (b"1\n0\n2\n", 4096),
        (b"1\n4094\n3\n", 4096),
        (b"2\n512\n2\n100\n1\n", 4096),
        (b"2\n512\n3\n", 4096),
        (b"65537\n", 4096),
        (b"99999999999999999999999\n", 4096),
        (b"1\n\n3\n", 4096),
        (b"-1\n", 4096),
        (b"1\n18446744073709551615\n3\n", 4096),
        (b"", 4096),
        (b"1\n0\n3\n", 2),
    ] {
        let bytes = sparse_10(map, b"abc", size);
        let refused = Reader::new(&bytes[..]).next_entry();
        assert!(refused.is_err(), "{}", map.escape_ascii());
    }
}
