// SPDX-License-Identifier: Apache-2.0
//! Layers, good and hostile, unpacked into a directory beside a canary.

mod corpus;

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt as _, MetadataExt as _, symlink},
    },
    path::{Path, PathBuf},
};

use ::tar::{Builder, EntryType, Header};

use super::{implied::Settled, *};
use crate::kernel;

/// A directory with a layer in the making, and one that must never change.
struct Place {
    base: tempfile::TempDir,
}

impl Place {
    /// `None`, saying so, where owners and devices can't be set.
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: unpacking sets owners and makes devices, which needs root");
            return None;
        }
        let base = tempfile::tempdir().expect("tempdir");
        fs::create_dir(base.path().join("canary")).expect("mkdir");
        fs::write(base.path().join("canary/file"), "untouched").expect("write");
        Some(Self { base })
    }

    fn path(&self, layer: &str) -> PathBuf {
        self.base.path().join(layer)
    }

    fn open(&self, layer: &str) -> OwnedFd {
        fs::File::open(self.path(layer)).expect("open").into()
    }

    fn unpack_into(&self, layer: &str, archive: &[u8], lower: Option<Lower>) -> Result<Unpacked> {
        fs::create_dir_all(self.path(layer)).expect("mkdir");
        let size = archive.len() as u64;
        unpack(Box::new(archive), Compression::None, size, self.open(layer), lower, &mut |_| {})
    }

    fn unpack(&self, archive: &[u8]) -> Result<Unpacked> {
        self.unpack_into("layer", archive, None)
    }

    /// Everything outside the layers: type, mode, owner, times, content.
    fn outside(&self) -> BTreeMap<PathBuf, String> {
        let mut seen = BTreeMap::new();
        for path in [self.path("canary"), self.path("canary/file")] {
            let stat = fs::symlink_metadata(&path).expect("stat");
            let content =
                if stat.is_file() { fs::read_to_string(&path).expect("read") } else { String::new() };
            let names = if stat.is_dir() { fs::read_dir(&path).expect("list").count() } else { 0 };
            let text = format!(
                "{:o} {} {} {}.{} {} {names} {content}",
                stat.mode(),
                stat.uid(),
                stat.nlink(),
                stat.mtime(),
                stat.mtime_nsec(),
                stat.ctime_nsec()
            );
            seen.insert(path, text);
        }
        seen
    }
}

/// A layer, entry by entry, whatever its names: the crate would refuse some.
struct Layer {
    archive: Builder<Vec<u8>>,
    /// What the next header has at a place.
    patch: Option<(usize, Vec<u8>)>,
}

impl Layer {
    fn new() -> Self {
        Self { archive: Builder::new(Vec::new()), patch: None }
    }

    fn add(mut self, kind: EntryType, path: &str, link: &str, mode: u32, data: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(12);
        header.set_gid(34);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        let raw = header.as_mut_bytes();
        raw[..path.len()].copy_from_slice(path.as_bytes());
        raw[157..157 + link.len()].copy_from_slice(link.as_bytes());
        if let Some((at, bytes)) = self.patch.take() {
            header.as_mut_bytes()[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        header.set_cksum();
        // The crate would read the header again.
        let archive = self.archive.get_mut();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(data);
        archive.resize(archive.len().next_multiple_of(512), 0);
        self
    }

    fn patched(mut self, at: usize, bytes: &[u8]) -> Self {
        self.patch = Some((at, bytes.to_vec()));
        self
    }

    fn file(self, path: &str, data: &str) -> Self {
        self.add(EntryType::Regular, path, "", 0o644, data.as_bytes())
    }

    fn dir(self, path: &str, mode: u32) -> Self {
        self.add(EntryType::Directory, path, "", mode, b"")
    }

    fn symlink(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Symlink, path, target, 0o777, b"")
    }

    fn hardlink(self, path: &str, target: &str) -> Self {
        self.add(EntryType::Link, path, target, 0o777, b"")
    }

    fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.archive.append_pax_extensions(records.iter().copied()).expect("pax");
        self
    }

    fn build(self) -> Vec<u8> {
        self.archive.into_inner().expect("finish")
    }
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.file_type().is_char_device() && stat.rdev() == 0)
}

fn opaque(path: &Path) -> bool {
    let dir = fs::File::open(path).expect("open");
    kernel::fs::get_xattr(dir.as_fd(), lower::OPAQUE).expect("xattr").is_some()
}

#[test]
fn a_layer_is_unpacked_as_it_says() {
    let Some(place) = Place::new() else { return };
    let archive = Layer::new()
        .dir("./", 0o755)
        .dir("etc/", 0o750)
        .file("etc/motd", "hello")
        .add(EntryType::Regular, "bin/su", "", 0o4755, b"elf")
        .hardlink("bin/su2", "bin/su")
        .hardlink("bin/su3", "/bin/su")
        .symlink("etc/mtab", "../proc/mounts")
        .add(EntryType::Fifo, "pipe", "", 0o600, b"")
        .pax(&[
            ("mtime", b"1234.5"),
            ("SCHILY.xattr.user.k", b"a\nb"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ])
        .file("stamped", "x")
        .build();
    let unpacked = place.unpack(&archive).expect("unpack");
    assert_eq!(unpacked.diff_id, Digest::of(&archive));
    assert_eq!((unpacked.size, unpacked.implied), (9, vec![PathBuf::from("bin")]));
    let layer = place.path("layer");
    let stat = |path: &str| fs::symlink_metadata(layer.join(path)).expect("stat");
    assert_eq!(fs::read_to_string(layer.join("etc/motd")).expect("read"), "hello");
    assert_eq!((stat("etc").mode() & 0o7777, stat("etc").uid(), stat("etc").gid()), (0o750, 12, 34));
    assert_eq!(stat("etc").mtime(), 1_000_000_000);
    assert_eq!((stat("bin/su").mode() & 0o7777, stat("bin/su").nlink()), (0o4755, 3));
    assert_eq!(stat("bin/su").ino(), stat("bin/su3").ino());
    assert_eq!(fs::read_link(layer.join("etc/mtab")).expect("link"), Path::new("../proc/mounts"));
    assert!(stat("pipe").file_type().is_fifo());
    assert_eq!((stat("stamped").mtime(), stat("stamped").mtime_nsec()), (1234, 500_000_000));
    let stamped = fs::File::open(layer.join("stamped")).expect("open");
    let names = kernel::fs::list_xattrs(stamped.as_fd()).expect("list");
    assert!(names.iter().all(|name| name.as_c_str() == c"user.k"), "{names:?}");
}

#[test]
fn every_compression_gives_the_same_tree_and_damage_is_noticed() {
    let Some(place) = Place::new() else { return };
    let archive = Layer::new().file("a", &"text ".repeat(10_000)).build();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("gzip");
        encoder.finish().expect("gzip")
    };
    let members = [gzip(&archive[..5000]), gzip(&archive[5000..])].concat();
    let zstd = zstd::encode_all(&*archive, 3).expect("zstd");
    for (at, (compression, bytes)) in
        [(Compression::Gzip, gzip(&archive)), (Compression::Gzip, members), (Compression::Zstd, zstd)]
            .into_iter()
            .enumerate()
    {
        assert_eq!(Compression::sniff(&bytes), compression);
        let run = |name: String, bytes: &[u8]| {
            fs::create_dir(place.path(&name)).expect("mkdir");
            let into = place.open(&name);
            unpack(Box::new(bytes), compression, bytes.len() as u64, into, None, &mut |_| {})
        };
        let unpacked = run(format!("good{at}"), &bytes).expect("unpack");
        assert_eq!(unpacked.diff_id, Digest::of(&archive));
        for cut in [0, 1, 10, bytes.len() / 2, bytes.len() - 1] {
            let error = run(format!("cut{at}-{cut}"), &bytes[..cut]);
            let whole = error.as_ref().is_ok_and(|unpacked| unpacked.diff_id == Digest::of(&archive));
            assert!(!whole, "cut at {cut}");
        }
    }
}

#[test]
fn a_layer_that_unfolds_without_end_is_stopped() {
    let Some(place) = Place::new() else { return };
    let mut header = Header::new_gnu();
    header.set_path("bomb").expect("path");
    header.set_size(1 << 40);
    header.set_mode(0o600);
    header.set_cksum();
    let endless = header.as_bytes().chain(std::io::repeat(0));
    fs::create_dir(place.path("layer")).expect("mkdir");
    let into = place.open("layer");
    let error =
        unpack(Box::new(endless), Compression::None, 1024, into, None, &mut |_| {}).expect_err("stopped");
    assert!(error.chain().contains("unfolds to more than"), "{}", error.chain());
}

#[test]
fn whiteouts_hide_what_is_below_and_not_what_is_beside() {
    let Some(place) = Place::new() else { return };
    let archive = Layer::new()
        .file("etc/.wh.gone", "")
        .file("kept", "mine")
        .file(".wh.kept", "")
        .file(".wh.fresh", "")
        .dir("fresh", 0o755)
        .file("fresh/x", "")
        .file(".wh.through", "")
        .file("through/y", "")
        .dir("late", 0o755)
        .file(".wh.late", "")
        .dir("all", 0o755)
        .file("all/new", "")
        .file("all/.wh..wh..opq", "")
        .file(".wh..wh.plnk", "")
        .build();
    place.unpack(&archive).expect("unpack");
    let layer = place.path("layer");
    assert!(is_whiteout(&layer.join("etc/gone")));
    assert_eq!(fs::read_to_string(layer.join("kept")).expect("read"), "mine");
    for dir in ["fresh", "through", "late", "all"] {
        assert!(opaque(&layer.join(dir)), "{dir}");
    }
    assert!(
        layer.join("fresh/x").exists() && layer.join("through/y").exists() && layer.join("all/new").exists()
    );
    assert!(!opaque(&layer.join("etc")));
    assert!(!layer.join(".wh..wh.plnk").exists());
}

#[test]
fn nothing_outside_the_layer_is_touched() {
    let Some(place) = Place::new() else { return };
    let canary = place.path("canary");
    let canary = canary.to_str().expect("text");
    let file = format!("{canary}/file");
    let l = Layer::new;
    // Name, entries, and whether the layer is sound in spite of them.
    let corpus: Vec<(&str, Layer, bool)> = vec![
        ("symlink absolute", l().symlink("d", canary).file("d/file", "evil"), true),
        ("symlink up and out", l().symlink("d", "../canary").file("d/file", "evil"), true),
        ("symlink chain", l().symlink("a", "b").symlink("b", canary).file("a/file", "evil"), true),
        ("symlink replaced by a file", l().symlink("x", &file).file("x", "mine"), true),
        ("symlink replaced by a directory", l().symlink("x", canary).dir("x", 0o777), true),
        ("symlink, chmod with a slash", l().symlink("x", canary).dir("x/", 0o777), true),
        ("symlink, chmod with a dot", l().symlink("x", canary).dir("x/.", 0o777), true),
        (
            "symlink replaced by a pipe",
            l().symlink("x", &file).add(EntryType::Fifo, "x", "", 0o777, b""),
            true,
        ),
        ("hard link absolute", l().hardlink("x", &file), false),
        ("hard link up and out", l().hardlink("x", "../canary/file"), false),
        ("hard link through a symlink", l().symlink("d", canary).hardlink("x", "d/file"), false),
        ("hard link to a symlink", l().symlink("s", &file).hardlink("x", "s").file("x", "mine"), true),
        ("hard link to a symlink, chmod", l().symlink("s", canary).hardlink("x", "s").dir("x", 0o777), true),
        ("hard link to nothing", l().hardlink("x", "none"), false),
        ("hard link to itself", l().file("x", "").hardlink("x", "x"), true),
        ("hard link to a directory", l().dir("d", 0o755).hardlink("x", "d"), false),
        ("hard link to a whiteout", l().file(".wh.w", "").hardlink("x", "w"), false),
        ("hard link to the root", l().hardlink("x", "/"), false),
        ("name up and out", l().file("../canary/file", "evil"), false),
        ("name up and out later", l().file("a/../../canary/file", "evil"), false),
        ("whiteout of the root", l().file(".wh..", ""), false),
        ("whiteout of the parent", l().file(".wh...", ""), false),
        ("whiteout of nothing", l().file(".wh.", ""), false),
        ("whiteout through a symlink", l().symlink("d", canary).file("d/.wh.file", ""), true),
        ("opaque through a symlink", l().symlink("d", canary).file("d/.wh..wh..opq", ""), true),
        ("whiteout of a symlink", l().symlink("d", canary).file(".wh.d", ""), true),
        ("root as a symlink", l().symlink("./", canary).file("file", "evil"), false),
        ("root as a file", l().file(".", "evil"), false),
        ("root without permissions", l().dir("./", 0).file("a", ""), true),
        ("a file as a directory", l().file("a", "").file("a/b", ""), false),
        ("links in a circle", l().symlink("a", "b").symlink("b", "a").file("a/x", ""), false),
        ("symlink to nothing", l().symlink("x", ""), false),
        ("overlay's own whiteout", l().add(EntryType::Char, "x", "", 0o600, b""), true),
        (
            "directory, file, directory",
            l().dir("a/b", 0o755).file("a", "").dir("a", 0o755).file("a/c", ""),
            true,
        ),
    ];
    let before = place.outside();
    for (at, (name, layer, sound)) in corpus.into_iter().enumerate() {
        let into = format!("layer{at}");
        let result = place.unpack_into(&into, &layer.build(), None);
        assert_eq!(place.outside(), before, "{name}");
        assert_eq!(result.is_ok(), sound, "{name}: {result:?}");
        if let Err(e) = result {
            assert_eq!(e.kind(), Kind::InvalidArgument, "{name}");
        }
        assert!(!is_whiteout(&place.path(&into).join("x")), "{name}");
    }
}

#[test]
fn what_is_implied_looks_like_what_is_below() {
    let Some(place) = Place::new() else { return };
    let base =
        Layer::new().dir("./", 0o711).dir("srv", 0o1777).dir("srv/a", 0o700).dir("hidden", 0o700).build();
    place.unpack_into("base", &base, None).expect("base");
    let middle = Layer::new().file(".wh.hidden", "").build();
    place.unpack_into("middle", &middle, None).expect("middle");
    let top = Layer::new().file("srv/a/new", "").file("hidden/new", "").build();
    let top = place.unpack_into("top", &top, None).expect("top");
    assert_eq!(top.implied.len(), 4);
    let lower = Lower::new(vec![place.open("middle"), place.open("base")]);
    // `middle` was settled first, as its root is only implied.
    let root = [PathBuf::new()];
    let below = Lower::new(vec![place.open("base")]);
    assert_eq!(implied::settle(place.open("middle").as_fd(), &root, &below).expect("settle"), Settled::Done);
    assert_eq!(
        implied::settle(place.open("top").as_fd(), &top.implied, &lower).expect("settle"),
        Settled::Done
    );
    let mode = |path: &str| fs::metadata(place.path("top").join(path)).expect("stat").mode() & 0o7777;
    assert_eq!((mode(""), mode("srv"), mode("srv/a")), (0o711, 0o1777, 0o700));
    assert_eq!(mode("hidden"), 0o755, "it was removed in between");
    assert_eq!(fs::metadata(place.path("top/srv")).expect("stat").uid(), 12);
}

#[test]
fn a_layer_follows_the_links_of_the_layers_below() {
    let Some(place) = Place::new() else { return };
    let base = Layer::new().dir("usr", 0o755).dir("usr/bin", 0o755).symlink("bin", "usr/bin").build();
    place.unpack_into("base", &base, None).expect("base");
    let top = Layer::new().file("bin/tool", "x").build();
    let blind = place.unpack_into("blind", &top, None).expect("blind");
    let lower = || Lower::new(vec![place.open("base")]);
    let settled = implied::settle(place.open("blind").as_fd(), &blind.implied, &lower()).expect("settle");
    assert_eq!(settled, Settled::FollowLinks);
    place.unpack_into("seeing", &top, Some(lower())).expect("seeing");
    assert!(place.path("seeing/usr/bin/tool").is_file());
    assert!(!place.path("seeing/bin").exists());
}

#[test]
fn a_link_that_appears_while_unpacking_leads_nowhere() {
    let Some(place) = Place::new() else { return };
    fs::create_dir(place.path("layer")).expect("mkdir");
    symlink(place.path("canary"), place.path("layer/d")).expect("symlink");
    let before = place.outside();
    let archive = Layer::new().file("d/file", "evil").dir("d", 0o777).build();
    place.unpack(&archive).expect("unpack");
    assert_eq!(place.outside(), before);
}

#[test]
fn hostile_archives_are_archives() {
    let Some(place) = Place::new() else { return };
    // A file, a directory, a link out, a whiteout, and a name that leads out.
    let bytes = [0, 0, 0, 0, 0, 9, 3, 1, 0, 0, 0, 9, 2, 2, 0, 0, 2, 9, 0, 0x0a, 0, 0, 0, 9];
    place.unpack(&super::hostile::archive(&bytes)).expect("sound");
    let layer = place.path("layer");
    assert_eq!(fs::read(layer.join("a")).expect("a file"), [9; 27]);
    assert!(layer.join("b").is_dir());
    let hidden = layer.join("canary").symlink_metadata().expect("a whiteout");
    assert!(hidden.file_type().is_char_device());
    assert_eq!(fs::read_link(layer.join("c")).expect("a link"), Path::new("../.."));
    let out = super::hostile::archive(&[0, 0x34, 0, 1, 0, 9]);
    place.unpack_into("out", &out, None).expect_err("refused");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    /// Two layers of anything, the second with the first below it.
    #[test]
    fn nothing_outside_a_layer_is_touched(
        first in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..240),
        second in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..240),
    ) {
        let Some(place) = Place::new() else { return Ok(()) };
        for layer in ["one", "two"] {
            fs::create_dir(place.path(layer)).expect("mkdir");
        }
        let layers = [place.path("one"), place.path("two")];
        let apart = [layers[0].as_path(), layers[1].as_path()];
        let before = super::hostile::around(place.base.path(), &apart);
        // Refused or not: it must have stayed within.
        let _ = place.unpack_into("one", &super::hostile::archive(&first), None);
        proptest::prop_assert_eq!(&super::hostile::around(place.base.path(), &apart), &before);
        let lower = Lower::new(vec![place.open("one")]);
        let below = super::hostile::around(&layers[0], &[]);
        let unpacked = place.unpack_into("two", &super::hostile::archive(&second), Some(lower));
        if let Ok(unpacked) = unpacked {
            let lower = Lower::new(vec![place.open("one")]);
            let _ = super::implied::settle(place.open("two").as_fd(), &unpacked.implied, &lower);
        }
        proptest::prop_assert_eq!(super::hostile::around(place.base.path(), &apart), before);
        proptest::prop_assert_eq!(super::hostile::around(&layers[0], &[]), below);
    }
}
