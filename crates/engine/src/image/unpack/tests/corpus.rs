// SPDX-License-Identifier: Apache-2.0
//! The corpus of layers that have broken others, by the names that they go by:
//! whatever is in a layer, nothing outside its directory is touched.

use super::*;

/// Whether it is unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Taken,
    Refused,
}
use End::{Refused, Taken};

type Row = (&'static str, fn(Layer, &str) -> Layer, End);

fn evil(layer: Layer, path: &str) -> Layer {
    layer.file(path, "evil")
}

const ROWS: &[Row] = &[
    // As containerd names its own.
    ("SymlinkAbsolute", |l, c| evil(l.symlink("d", c), "d/file"), Taken),
    ("SymlinkUpAndOut", |l, c| evil(l.symlink("d", &format!("../../../..{c}")), "d/file"), Taken),
    (
        "SymlinkMultipleAbsolute",
        |l, c| evil(l.dir("a", 0o755).symlink("a/b", c).symlink("v", "/a"), "v/b/file"),
        Taken,
    ),
    (
        "SymlinkMultipleRelative",
        |l, _| evil(l.dir("a", 0o755).symlink("a/b", "../../canary").symlink("v", "a"), "v/b/file"),
        Taken,
    ),
    ("SymlinkEmptyFile", |l, c| l.symlink("f", &format!("{c}/file")).file("f", ""), Taken),
    ("HardlinkRelative", |l, _| l.file("a", "x").hardlink("b", "a").file("b", "y"), Taken),
    ("HardlinkDownAndOut", |l, _| l.dir("down", 0o755).hardlink("x", "down/../../canary/file"), Refused),
    ("HardlinkAbsolute", |l, _| l.file("a", "x").hardlink("b", "/a"), Taken),
    ("HardlinkRelativeLong", |l, _| l.hardlink("x", "../../../../../../../../../../canary/file"), Refused),
    ("HardlinkRelativeUpAndOut", |l, _| l.dir("up", 0o755).hardlink("up/x", "up/../../canary/file"), Refused),
    ("HardlinkDirectRelative", |l, _| l.hardlink("x", "../canary/file"), Refused),
    ("HardlinkDirectAbsolute", |l, c| l.hardlink("x", &format!("{c}/file")), Refused),
    ("SymlinkParentDirectory", |l, _| evil(l.symlink("d", ".."), "d/canary/file"), Taken),
    ("SymlinkEmptyFilename", |l, c| l.symlink("", c), Refused),
    (
        "SymlinkParentRelative",
        |l, _| evil(l.dir("d", 0o755).symlink("d/up", "../.."), "d/up/canary/file"),
        Taken,
    ),
    ("SymlinkSlashEnded", |l, c| evil(l.symlink("d/", c), "d/file"), Taken),
    ("SymlinkOverrideDirectory", |l, c| evil(l.dir("d", 0o755).symlink("d", c), "d/file"), Taken),
    (
        "SymlinkOverrideDirectoryRelative",
        |l, _| evil(l.dir("d", 0o755).symlink("d", "../canary"), "d/file"),
        Taken,
    ),
    ("DirectoryOverrideSymlink", |l, c| evil(l.symlink("d", c).dir("d", 0o777), "d/file"), Taken),
    (
        "DirectoryOverrideRelativeSymlink",
        |l, _| evil(l.symlink("d", "../canary").dir("d", 0o777), "d/file"),
        Taken,
    ),
    (
        "DirectoryOverrideSymlinkAndHardlink",
        |l, c| l.symlink("d", c).dir("d", 0o777).file("d/a", "x").hardlink("d/file", "d/a"),
        Taken,
    ),
    ("WhiteoutRootParent", |l, _| l.file("../.wh.canary", ""), Refused),
    ("WhiteoutParent", |l, _| l.dir("d", 0o755).file("d/.wh...", ""), Refused),
    ("WhiteoutRoot", |l, _| l.file(".wh..", ""), Refused),
    ("WhiteoutCurrentDirectory", |l, _| l.dir("d", 0o755).file("d/.wh..", ""), Refused),
    ("WhiteoutSymlink", |l, c| l.symlink("d", c).file(".wh.d", ""), Taken),
    ("WhiteoutSymlinkPath", |l, c| l.symlink("d", c).file("d/.wh.file", ""), Taken),
    ("WhiteoutDirectoryName", |l, _| l.dir(".wh.d", 0o755), Taken),
    ("WhiteoutDeadSymlinkParent", |l, _| l.symlink("d", "none").file("d/.wh.file", ""), Taken),
    ("WhiteoutRelativePath", |l, _| l.dir("d", 0o755).file("d/../.wh.d", ""), Taken),
    ("SymlinkOverridePath", |l, c| evil(l.file("a/b/file", "x").symlink("a", c), "a/b/file"), Taken),
    (
        "HardlinkSymlinkBeforeCreateTarget",
        |l, c| evil(l.symlink("s", &format!("{c}/new")).hardlink("h", "s"), "h"),
        Taken,
    ),
    ("HardlinkSymlinkRelative", |l, _| evil(l.symlink("s", "../canary/file").hardlink("h", "s"), "h"), Taken),
    (
        "HardlinkSymlinkAbsolute",
        |l, c| evil(l.symlink("s", &format!("{c}/file")).hardlink("h", "s"), "h"),
        Taken,
    ),
    (
        "HardlinkSymlinkChmod",
        |l, c| l.symlink("s", c).hardlink("h", "s").add(EntryType::Directory, "h/", "", 0o000, b""),
        Taken,
    ),
    // Names.
    ("a name of nothing", |l, _| l.file("", "x"), Refused),
    ("a file named .", |l, _| l.file(".", "x"), Refused),
    ("a file named ..", |l, _| l.file("..", "x"), Refused),
    ("a directory named ..", |l, _| l.dir("../", 0o777), Refused),
    ("a directory named ./", |l, _| l.dir("./", 0o700), Taken),
    ("a directory named /", |l, _| l.dir("/", 0o700), Taken),
    ("a directory named //", |l, _| l.dir("//", 0o700), Taken),
    ("a//b", |l, _| l.file("a//b", "x"), Taken),
    ("a/./b", |l, _| l.file("a/./b", "x"), Taken),
    ("a component of 255 bytes", |l, _| l.pax(&[("path", &[b'x'; 255])]).file("short", "x"), Taken),
    ("a component of 256 bytes", |l, _| l.pax(&[("path", &[b'x'; 256])]).file("short", "x"), Refused),
    (
        "a path of 4097 bytes",
        |l, _| l.pax(&[("path", "d/".repeat(2048).as_bytes()), ("mtime", b"1")]).file("short/x", "x"),
        Refused,
    ),
    ("NUL in a name", |l, _| l.pax(&[("path", b"a\0b")]).file("short", "x"), Refused),
    ("no UTF-8", |l, _| l.pax(&[("path", b"\xff\xfe")]).file("short", "x"), Taken),
    ("a backslash", |l, _| l.file("..\\..\\canary\\file", "x"), Taken),
    ("leading spaces", |l, _| l.file("  /file", "x"), Taken),
    // The root.
    ("the root as a link", |l, c| l.symlink("./", c), Refused),
    ("the root as a file", |l, _| l.file("./", "x"), Refused),
    ("the root as a device", |l, _| l.add(EntryType::Char, "./", "", 0o666, b""), Refused),
    ("the root without rights", |l, _| l.dir("./", 0o000).file("f", "x"), Taken),
    ("the root with setgid", |l, _| l.dir("./", 0o2755).dir("d", 0o755), Taken),
    // A link, used again.
    (
        "a link, then a pipe beyond",
        |l, c| l.symlink("d", c).add(EntryType::Fifo, "d/pipe", "", 0o666, b""),
        Taken,
    ),
    (
        "a link, then a device beyond",
        |l, c| l.symlink("d", c).add(EntryType::Block, "d/dev", "", 0o666, b""),
        Taken,
    ),
    ("a link, then a directory beyond", |l, c| l.symlink("d", c).dir("d/new", 0o777), Taken),
    (
        "a link, then a hard link beyond",
        |l, c| l.symlink("d", c).file("a", "x").hardlink("d/file", "a"),
        Taken,
    ),
    (
        "a link, then attributes",
        |l, c| l.symlink("d", c).pax(&[("SCHILY.xattr.user.x", b"y")]).dir("d/", 0o777),
        Taken,
    ),
    // Hard links.
    ("a hard link to a later entry", |l, _| l.hardlink("b", "a").file("a", "x"), Refused),
    (
        "a hard link to a device",
        |l, _| l.add(EntryType::Char, "dev", "", 0o666, b"").hardlink("x", "dev"),
        Refused,
    ),
    // Whiteouts.
    ("a whiteout of .wh.", |l, _| l.file(".wh..wh.", ""), Taken),
    ("an opaque root", |l, _| l.file(".wh..wh..opq", ""), Taken),
    ("an opaque mark that is a directory", |l, _| l.dir("d/.wh..wh..opq", 0o755), Taken),
    ("an opaque mark with content", |l, _| l.file("d/.wh..wh..opq", "x"), Taken),
    ("an opaque mark in no directory", |l, _| l.file("none/.wh..wh..opq", ""), Taken),
    ("an opaque mark after its siblings", |l, _| l.file("d/a", "x").file("d/.wh..wh..opq", ""), Taken),
    ("aufs's own", |l, _| l.file(".wh..wh.aufs", "").dir(".wh..wh.plnk", 0o755), Taken),
    ("a whiteout of a directory, then content in it", |l, _| l.file(".wh.d", "").file("d/x", "y"), Taken),
    ("a file, then its whiteout", |l, _| l.file("f", "x").file(".wh.f", ""), Taken),
    ("a whiteout through a link", |l, c| l.symlink("d", c).file("d/.wh..wh..opq", ""), Taken),
    // What overlayfs would take for its own.
    (
        "overlay attributes",
        |l, _| {
            l.pax(&[
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
                ("SCHILY.xattr.trusted.overlay.redirect", b"/canary"),
                ("SCHILY.xattr.trusted.overlay.metacopy", b""),
                ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ])
            .dir("d", 0o755)
        },
        Taken,
    ),
    ("an attribute without a name", |l, _| l.pax(&[("SCHILY.xattr.", b"x")]).file("f", "x"), Taken),
    // Owners and times.
    ("an owner beyond 2^32", |l, _| l.pax(&[("uid", b"4294967296")]).file("f", "x"), Refused),
    ("a negative owner", |l, _| l.pax(&[("uid", b"-1")]).file("f", "x"), Refused),
    ("a time before 1970", |l, _| l.pax(&[("mtime", b"-1.5")]).file("f", "x"), Taken),
    ("a time beyond 2^63", |l, _| l.pax(&[("mtime", b"9223372036854775808")]).file("f", "x"), Refused),
    ("a time of 1e30", |l, _| l.pax(&[("mtime", b"1e30")]).file("f", "x"), Refused),
    ("a time that is no number", |l, _| l.pax(&[("mtime", b"NaN")]).file("f", "x"), Refused),
    ("a negative owner in binary", |l, _| l.patched(108, &[0xff; 8]).file("f", "x"), Refused),
    ("an owner of 2^32 in binary", |l, _| l.patched(108, b"\x80\0\0\x01\0\0\0\0").file("f", "x"), Refused),
    (
        "an owner of 2^32 - 1 in binary",
        |l, _| l.patched(108, b"\x80\0\0\0\xff\xff\xff\xff").file("f", "x"),
        Refused,
    ),
    (
        "an owner of 2^32 - 2 in binary",
        |l, _| l.patched(108, b"\x80\0\0\0\xff\xff\xff\xfe").file("f", "x"),
        Taken,
    ),
    ("an owner in as many digits as fit", |l, _| l.patched(108, b"77777777").file("f", "x"), Taken),
    ("an owner that is no number", |l, _| l.patched(108, b"00 01x\0\0").file("f", "x"), Taken),
    ("a group that is no number", |l, _| l.patched(116, b"0x00001\0").file("f", "x"), Refused),
    ("a time before 1970 in binary", |l, _| l.patched(136, &[0xff; 12]).file("f", "x"), Taken),
    (
        "a time of 2^33 in binary",
        |l, _| l.patched(136, b"\x80\0\0\0\0\0\0\x02\0\0\0\0").file("f", "x"),
        Taken,
    ),
    ("a time of 2^62", |l, _| l.pax(&[("mtime", b"4611686018427387904")]).file("f", "x"), Taken),
    ("a time of -2^62", |l, _| l.pax(&[("mtime", b"-4611686018427387904")]).file("f", "x"), Taken),
    (
        "a time beyond 2^63 in binary",
        |l, _| l.patched(136, b"\x80\0\0\0\x80\0\0\0\0\0\0\0").file("f", "x"),
        Refused,
    ),
    ("a size below zero", |l, _| l.patched(124, &[0xff; 12]).file("f", ""), Refused),
    ("a mode that is no number", |l, _| l.patched(100, b"rwxr-xr-").file("f", ""), Refused),
    ("a mode of more than permissions", |l, _| l.patched(100, b"0100644\0").file("f", ""), Taken),
    // The same name again and again.
    (
        "every kind under one name",
        |l, c| {
            let l = l.file("x", "1").dir("x", 0o755).file("x/y", "2").symlink("x", c);
            l.add(EntryType::Fifo, "x", "", 0o644, b"").dir("x", 0o755).file("x", "3")
        },
        Taken,
    ),
];

#[test]
fn nothing_in_the_corpus_gets_out() {
    let mut wrong = Vec::new();
    for (row, make, expected) in ROWS {
        let Some(place) = Place::new() else { return };
        let before = place.outside();
        let canary = place.path("canary");
        let archive = make(Layer::new(), canary.to_str().expect("text")).build();
        let end = match place.unpack(&archive) {
            Ok(_) => Taken,
            Err(_) => Refused,
        };
        assert_eq!(place.outside(), before, "{row}");
        let beside: Vec<_> =
            fs::read_dir(place.base.path()).expect("list").map(|e| e.expect("entry").file_name()).collect();
        assert_eq!(beside.len(), 2, "{row}: {beside:?}");
        if end != *expected {
            wrong.push((row, end));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn what_is_deep_or_has_many_names_is_unpacked_or_refused_in_time() {
    let Some(place) = Place::new() else { return };
    let mut links = Layer::new().file("a", "x");
    for n in 0..70_000 {
        links = links.hardlink(&format!("h{n}"), "a");
    }
    // 65,000 on ext4, which says so; others take them all.
    if let Err(e) = place.unpack_into("links", &links.build(), None) {
        assert!(e.chain().contains("Too many links"), "{}", e.chain());
    }
    let mut deep = Layer::new();
    let mut path = String::new();
    while path.len() < 4000 {
        path.push_str("d/");
        deep = deep.pax(&[("path", path.as_bytes())]).dir("short", 0o755);
    }
    place.unpack_into("deep", &deep.build(), None).expect("deep");
    kernel::fs::remove_tree(place.open("deep").as_fd(), Path::new("d")).expect("remove");
    // Links lead deeper than a path can name.
    let half = "d/".repeat(2000);
    let deeper = Layer::new()
        .pax(&[("path", half.as_bytes())])
        .dir("short", 0o755)
        .pax(&[("linkpath", half.as_bytes())])
        .symlink("far", "short")
        .pax(&[("path", format!("far/{half}").as_bytes())])
        .dir("short", 0o755);
    let error = place.unpack_into("deeper", &deeper.build(), None).expect_err("too deep");
    assert!(error.chain().contains("more than 2048 deep"), "{}", error.chain());
    kernel::fs::remove_tree(place.open("deeper").as_fd(), Path::new("d")).expect("remove");
}

#[test]
fn many_entries_are_unpacked_in_time_and_little_memory() {
    let Some(place) = Place::new() else { return };
    let mut same = Layer::new();
    for n in 0..50_000 {
        same = same.file("same", &n.to_string());
    }
    place.unpack_into("same", &same.build(), None).expect("one name");
    assert_eq!(fs::read_to_string(place.path("same/same")).expect("read"), "49999");
    let mut many = Layer::new();
    for n in 0..50_000 {
        many = many.file(&format!("{n}"), "");
    }
    place.unpack_into("many", &many.build(), None).expect("many names");
    assert_eq!(fs::read_dir(place.path("many")).expect("list").count(), 50_000);
    let cases = Layer::new().file("README", "1").file("readme", "2").file("ReadMe", "3");
    place.unpack_into("cases", &cases.build(), None).expect("names that differ in case");
    assert_eq!(fs::read_dir(place.path("cases")).expect("list").count(), 3);
    // Each is named in 4000 bytes, and held until the end.
    let above = format!("{}/", "n".repeat(250)).repeat(16);
    let mut names = Layer::new();
    for n in 0..33_500 {
        names = names.pax(&[("path", format!("{above}{n}").as_bytes())]).dir("short", 0o755);
    }
    let error = place.unpack_into("names", &names.build(), None).expect_err("too many");
    assert!(error.chain().contains("directories without number"), "{}", error.chain());
}
