// SPDX-License-Identifier: Apache-2.0
//! The files of an image whose layers do all that layers can do: berth, which
//! unpacks them side by side, umoci, docker and podman see the same tree.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use crate::support::{
    Engine, Image,
    command::sh,
    image::{Builder, Layer},
    peers::{self, Docker, Podman},
};

const NAME: &str = "example.com/nasty:1";

/// One entry: what the header says, then what only PAX can say.
#[derive(Clone, Copy)]
struct Of<'a> {
    kind: EntryType,
    mode: u32,
    owner: (u64, u64),
    mtime: u64,
    link: &'a str,
    device: (u32, u32),
    pax: &'a [(&'a str, &'a [u8])],
    data: &'a [u8],
}

const FILE: Of<'static> = Of {
    kind: EntryType::Regular,
    mode: 0o644,
    owner: (0, 0),
    mtime: 1_600_000_000,
    link: "",
    device: (0, 0),
    pax: &[],
    data: b"",
};
const DIR: Of<'static> = Of { kind: EntryType::Directory, mode: 0o755, ..FILE };

fn add(layer: &mut Layer, path: &str, of: Of<'_>) {
    let mut header = Header::new_ustar();
    header.set_entry_type(of.kind);
    header.set_mode(of.mode);
    header.set_uid(of.owner.0);
    header.set_gid(of.owner.1);
    header.set_mtime(of.mtime);
    header.set_size(of.data.len() as u64);
    header.set_device_major(of.device.0).expect("ustar");
    header.set_device_minor(of.device.1).expect("ustar");
    let raw = layer.raw();
    if !of.pax.is_empty() {
        raw.append_pax_extensions(of.pax.iter().map(|(key, value)| (*key, *value))).expect("pax");
    }
    if of.link.is_empty() {
        raw.append_data(&mut header, path, of.data).expect("append");
    } else {
        raw.append_link(&mut header, path, of.link).expect("append");
    }
}

fn symlink(target: &str) -> Of<'_> {
    Of { kind: EntryType::Symlink, mode: 0o777, link: target, ..FILE }
}

/// With the target's own mode, which some apply again.
fn hard_link(target: &str, mode: u32) -> Of<'_> {
    Of { kind: EntryType::Link, link: target, mode, ..FILE }
}

fn dirs(layer: &mut Layer, paths: &[&str]) {
    for path in paths {
        add(layer, path, DIR);
    }
}

/// A name, records and data.
type Holed<'a> = (&'a str, &'a [(&'a str, &'a [u8])], &'a [u8]);

fn base() -> Layer {
    let mut layer = Layer::new();
    dirs(
        &mut layer,
        &["./", "bin/", "opq/", "opq/sub/", "gone-dir/", "to-file/", "links/", "empty/", "there/"],
    );
    add(&mut layer, "tmp/", Of { mode: 0o1777, mtime: 1, ..DIR });
    add(&mut layer, "private/", Of { mode: 0o2710, owner: (1000, 1001), mtime: 1_234_567_890, ..DIR });
    add(&mut layer, "private/in/", Of { mode: 0o700, owner: (7, 8), mtime: 1_000_000_001, ..DIR });
    add(&mut layer, "bin/su", Of { mode: 0o4755, data: b"su", ..FILE });
    add(&mut layer, "bin/sg", Of { mode: 0o2755, owner: (0, 42), data: b"sg", ..FILE });
    for (name, mtime) in [("epoch", "0"), ("nanos", "1500000000.123456789"), ("future", "4102444800")] {
        add(&mut layer, name, Of { pax: &[("mtime", mtime.as_bytes())], data: name.as_bytes(), ..FILE });
    }
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // No empty one: Go's reader of archives, which all the others use, takes
    // that for none.
    let attributes: [(&str, &[u8]); 2] =
        [("SCHILY.xattr.user.text", b"value with spaces"), ("SCHILY.xattr.security.capability", &capability)];
    add(&mut layer, "attributes", Of { pax: &attributes, data: b"x", ..FILE });
    add(&mut layer, "attributes-dir/", Of { pax: &attributes[..1], ..DIR });
    add(&mut layer, "large-owner", Of { pax: &[("uid", b"4000000000"), ("gid", b"3000000000")], ..FILE });
    add(&mut layer, "links/file", Of { data: b"linked", mode: 0o640, ..FILE });
    add(&mut layer, "links/hard", hard_link("links/file", 0o640));
    add(&mut layer, "hard-too", hard_link("links/hard", 0o640));
    add(&mut layer, "links/absolute", symlink("/bin/su"));
    add(&mut layer, "links/upwards", symlink("../../../../bin/su"));
    add(&mut layer, "links/dangling", symlink("nowhere"));
    add(&mut layer, "links/owned", Of { owner: (5, 6), mtime: 1_100_000_000, ..symlink("file") });
    add(&mut layer, "dir-link", symlink("there"));
    add(&mut layer, "fifo", Of { kind: EntryType::Fifo, mode: 0o600, ..FILE });
    add(&mut layer, "null", Of { kind: EntryType::Char, mode: 0o666, device: (1, 3), ..FILE });
    add(
        &mut layer,
        "block",
        Of { kind: EntryType::Block, mode: 0o660, device: (7, 99), owner: (0, 6), ..FILE },
    );
    add(&mut layer, &format!("{}/", "long".repeat(30)), DIR);
    add(&mut layer, &format!("{0}/{0}", "long".repeat(30)), Of { data: b"long", ..FILE });
    let mut mapped = b"2\n4096\n5\n100000\n3\n".to_vec();
    mapped.resize(512, 0);
    mapped.extend(b"holesend");
    let holes: [Holed<'_>; 3] = [
        (
            "holes-0.0",
            &[
                ("GNU.sparse.size", b"200000"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.offset", b"4096"),
                ("GNU.sparse.numbytes", b"5"),
                ("GNU.sparse.offset", b"100000"),
                ("GNU.sparse.numbytes", b"3"),
            ],
            b"holesend",
        ),
        (
            "GNUSparseFile.1/holes",
            &[
                ("GNU.sparse.size", b"200000"),
                ("GNU.sparse.numblocks", b"2"),
                ("GNU.sparse.name", b"holes-0.1"),
                ("GNU.sparse.map", b"4096,5,100000,3"),
            ],
            b"holesend",
        ),
        (
            "GNUSparseFile.2/holes",
            &[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"holes-1.0"),
                ("GNU.sparse.realsize", b"200000"),
            ],
            &mapped,
        ),
    ];
    for (name, pax, data) in holes {
        add(&mut layer, name, Of { pax, data, ..FILE });
    }
    add(&mut layer, "naïve", Of { data: "ü".as_bytes(), ..FILE });
    for file in
        ["gone", "gone-dir/file", "opq/old", "opq/sub/old", "to-file/old", "to-dir", "again", "there/x"]
    {
        add(&mut layer, file, Of { data: file.as_bytes(), ..FILE });
    }
    layer
}

fn middle() -> Layer {
    let mut layer = Layer::new();
    // Listed, as builders do when they change what is in them.
    add(&mut layer, "./", Of { mtime: 1_650_000_000, ..DIR });
    add(&mut layer, ".wh.gone", FILE);
    add(&mut layer, ".wh.gone-dir", FILE);
    add(&mut layer, ".wh.again", FILE);
    add(&mut layer, "opq/", Of { mode: 0o711, mtime: 1_650_000_001, ..DIR });
    add(&mut layer, "opq/.wh..wh..opq", FILE);
    add(&mut layer, "opq/new", Of { data: b"new", ..FILE });
    add(&mut layer, "to-file", Of { data: b"was a directory", ..FILE });
    add(&mut layer, "to-dir/", Of { mode: 0o750, ..DIR });
    add(&mut layer, "to-dir/file", Of { data: b"in it", ..FILE });
    add(&mut layer, "links/", Of { mtime: 1_650_000_002, ..DIR });
    add(&mut layer, "links/dangling", Of { data: b"no link any more", ..FILE });
    // Directories that this layer only implies.
    add(&mut layer, "private/in/implied", Of { data: b"implied", ..FILE });
    add(&mut layer, "attributes-dir/implied", Of { data: b"implied", ..FILE });
    layer
}

fn top() -> Layer {
    let mut layer = Layer::new();
    add(&mut layer, "./", Of { mtime: 1_660_000_000, ..DIR });
    add(&mut layer, "again", Of { data: b"again", mode: 0o400, ..FILE });
    add(&mut layer, "opq/", Of { mode: 0o711, mtime: 1_660_000_001, ..DIR });
    add(&mut layer, "opq/sub/", Of { mode: 0o700, ..DIR });
    add(&mut layer, "opq/sub/fresh", Of { data: b"fresh", ..FILE });
    add(&mut layer, "opq/hard", hard_link("opq/sub/fresh", 0o644));
    add(&mut layer, "marker", Of { data: b"the top layer", ..FILE });
    layer
}

fn image() -> Image {
    let config = json!({"Cmd": ["/bin/su"]});
    Builder::new().layer(base()).layer(middle()).layer(top()).config(config).build()
}

/// Directories into which a layer put something without a word on them: those
/// who delete and add in place leave the time of that; also to the root.
const IMPLIED: [&str; 3] = ["", "private/in", "attributes-dir"];

/// A line for each file: all that can be told of it, attributes of one kind
/// left out.
fn tree(root: &Path, without: Option<&str>) -> BTreeMap<PathBuf, String> {
    let mut lines = BTreeMap::new();
    let mut first_names: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut pending = vec![PathBuf::new()];
    let mut all = Vec::new();
    while let Some(path) = pending.pop() {
        let stat = fs::symlink_metadata(root.join(&path)).expect("stat");
        if stat.is_dir() {
            let entries = fs::read_dir(root.join(&path)).expect("list").map(|entry| entry.expect("entry"));
            pending.extend(entries.map(|entry| path.join(entry.file_name())));
        }
        all.push((path, stat));
    }
    all.sort_by(|one, other| one.0.cmp(&other.0));
    for (path, stat) in all {
        let whole = root.join(&path);
        let kind = stat.file_type();
        let content = if kind.is_file() {
            hex::encode(Sha256::digest(fs::read(&whole).expect("read")))
        } else if kind.is_symlink() {
            fs::read_link(&whole).expect("readlink").display().to_string()
        } else if kind.is_char_device() || kind.is_block_device() {
            stat.rdev().to_string()
        } else {
            String::new()
        };
        let same = match stat.nlink() {
            2.. if !kind.is_dir() => first_names.entry(stat.ino()).or_insert_with(|| path.clone()).clone(),
            _ => path.clone(),
        };
        let attributes = if kind.is_symlink() { Vec::new() } else { attributes(&whole, without) };
        let line = format!(
            "{:o} {}:{} {}.{:09} {content} same as {} {attributes:?}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.mtime(),
            stat.mtime_nsec(),
            same.display(),
        );
        lines.insert(path, line);
    }
    lines
}

/// Attributes that are no overlay's own.
fn attributes(path: &Path, without: Option<&str>) -> Vec<(String, Vec<u8>)> {
    let text = sh(
        "getfattr",
        &["-h", "--absolute-names", "-d", "-m", "-", "-e", "hex", path.to_str().expect("UTF-8")],
    );
    let pairs = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let pairs = pairs.map(|line| line.split_once('=').unwrap_or((line, "")));
    let own = |name: &&str| !name.starts_with("trusted.overlay.") && !name.starts_with("security.selinux");
    let own = |name: &&str| own(name) && without.is_none_or(|kind| !name.starts_with(kind));
    let mut all: Vec<_> = pairs
        .filter(|(name, _)| own(name))
        .map(|(name, value)| (name.to_owned(), OsStr::new(value).as_bytes().to_vec()))
        .collect();
    all.sort();
    all
}

/// What somebody else's way of keeping trees loses.
#[derive(Default)]
struct Losses<'a> {
    times: &'a [&'a str],
    attributes: Option<&'a str>,
}

/// The two trees are the same, but for what theirs is known to lose.
#[track_caller]
fn assert_same(who: &str, ours: &Path, theirs: &Path, losses: &Losses<'_>) {
    let (ours, theirs) = (tree(ours, losses.attributes), tree(theirs, losses.attributes));
    let names = |tree: &BTreeMap<PathBuf, String>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&theirs), "{who}: names");
    let without_time = |line: &str| {
        let mut words: Vec<&str> = line.split(' ').collect();
        words.remove(2);
        words.join(" ")
    };
    let mut different = Vec::new();
    for (path, ours) in &ours {
        let theirs = &theirs[path];
        let equal = if losses.times.iter().any(|other| path == Path::new(other)) {
            without_time(ours) == without_time(theirs)
        } else {
            ours == theirs
        };
        if !equal {
            different.push(format!("{}\n  ours   {ours}\n  theirs {theirs}", path.display()));
        }
    }
    assert!(different.is_empty(), "{who}:\n{}", different.join("\n"));
}

/// Berth's tree, as overlayfs shows it.
struct Mounted(PathBuf);

impl Mounted {
    fn new(engine: &Engine, dir: &Path) -> Self {
        let text = engine.berth(&["image", "inspect", NAME]).ok().stdout;
        let image = serde_json::from_str::<Value>(&text).expect("JSON")[0].take();
        let data = |name: &str| image["GraphDriver"]["Data"][name].as_str().expect(name).to_owned();
        let options = format!("lowerdir={}:{}", data("UpperDir"), data("LowerDir"));
        let at = dir.join("mounted");
        fs::create_dir(&at).expect("mkdir");
        mount(Some("overlay"), &at, Some("overlay"), MsFlags::MS_RDONLY, Some(&*options)).expect("mount");
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn everybody_sees_the_same_files() {
    let Some(engine) = Engine::start() else { return };
    if !peers::has("getfattr") {
        return;
    }
    let place = tempfile::tempdir().expect("tempdir");
    let path = |name: &str| place.path().join(name).display().to_string();
    engine.berth_with_input(&["load"], &image().oci_archive(NAME)).ok();
    let mounted = Mounted::new(&engine, place.path());
    let ours = tree(&mounted.0, None);
    assert_eq!(ours.len(), 46, "{ours:#?}");
    assert!(ours[Path::new("private/in")].starts_with("40700 7:8 1000000001."), "{ours:#?}");
    engine.berth(&["save", "--format", "oci-dir", "-o", &path("layout"), NAME]).ok();
    engine.berth(&["save", "--format", "docker-archive", "-o", &path("docker.tar"), NAME]).ok();

    if peers::has("umoci") {
        let image = format!("{}:1", path("layout"));
        sh("umoci", &["unpack", "--image", &image, &path("bundle")]);
        assert_same("umoci", &mounted.0, Path::new(&path("bundle/rootfs")), &Losses::default());
    }
    if peers::has("podman") {
        let podman = Podman::new(place.path());
        podman.run(&["load", "-q", "-i", &path("docker.tar")]).ok();
        let at = podman.run(&["image", "mount", NAME]).ok().line().to_owned();
        assert_same("podman", &mounted.0, Path::new(&at), &Losses { times: &IMPLIED, attributes: None });
        podman.run(&["image", "unmount", NAME]).ok();
    }
    if peers::has("dockerd") {
        let docker = Docker::start(place.path());
        docker.run(&["load", "-i", &path("docker.tar")]).ok();
        let layers = fs::read_dir(path("docker/data/vfs/dir")).expect("vfs").flatten();
        let mut tops = layers.map(|layer| layer.path()).filter(|layer| layer.join("marker").exists());
        // Its vfs driver copies layers, without users' attributes.
        let losses = Losses { times: &IMPLIED, attributes: Some("user.") };
        assert_same("docker", &mounted.0, &tops.next().expect("the top layer"), &losses);
    }
    drop(mounted);
}
