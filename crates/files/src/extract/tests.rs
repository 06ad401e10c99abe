// SPDX-License-Identifier: Apache-2.0
//! Archives that mean harm, and trees that go through an archive unchanged.

use std::{
    fs::{self as std_fs, File},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::PathBuf,
    process::Command,
};

use super::*;
use crate::{
    make::Attributes,
    pack::{Mounts, Packer},
    tar::Writer,
    walk::Links,
};

const MINE: Policy = Policy { owner: Owner::Maker, attributes: Attributes::User };

struct Place {
    _dir: tempfile::TempDir,
    /// `secret` is beside it.
    inside: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().expect("tempdir");
    let inside = dir.path().join("in");
    std_fs::create_dir(&inside).expect("mkdir");
    std_fs::create_dir(dir.path().join("canary")).expect("mkdir");
    std_fs::write(dir.path().join("canary/secret"), "secret").expect("write");
    Place { inside, _dir: dir }
}

impl Place {
    fn canary(&self) -> PathBuf {
        self.inside.parent().expect("a parent").join("canary")
    }

    fn is_sound(&self) {
        let names: Vec<_> = std_fs::read_dir(self.canary()).expect("list").collect();
        assert_eq!(names.len(), 1, "{names:?}");
        let secret = self.canary().join("secret");
        assert_eq!(std_fs::read(&secret).expect("read"), b"secret");
        assert_eq!(std_fs::metadata(&secret).expect("stat").nlink(), 1);
    }

    fn unpack(&self, bytes: &[u8], links: Links, top: Top) -> Result<Extracted> {
        let walk = Walk::new(File::open(&self.inside).expect("open").into(), links);
        let options = Options { policy: MINE, devices: Devices::Skip, top };
        let descriptors = paths::descriptors().expect("proc");
        extract(walk, &mut Reader::new(bytes), &options, descriptors.as_fd())
    }
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for entry in entries {
        writer.append_file(entry, &mut std::io::repeat(b'x')).expect("append");
    }
    writer.finish().expect("finish")
}

fn of(kind: Kind, path: &str, link: &str) -> Entry {
    let size = if kind == Kind::File { 3 } else { 0 };
    Entry { path: path.into(), link: link.into(), mode: 0o755, size, ..Entry::new(kind) }
}

#[test]
fn nothing_outside_is_read_or_written() {
    use Kind::{Directory, File, HardLink, Symlink};
    let attacks: Vec<Vec<Entry>> = vec![
        vec![of(File, "../canary/x", "")],
        vec![of(File, "a/../../canary/x", "")],
        vec![of(Symlink, "d", "../canary"), of(File, "d/x", "")],
        vec![of(Symlink, "d", "/"), of(File, "d/x", "")],
        vec![of(Symlink, "d", "../canary"), of(Directory, "d", ""), of(File, "d/x", "")],
        vec![of(Symlink, "d", "../canary"), of(Directory, "d/", ""), of(File, "d/x", "")],
        vec![of(Directory, "e", ""), of(Symlink, "e/up", "../../canary"), of(File, "e/up/x", "")],
        vec![of(HardLink, "h", "../canary/secret"), of(File, "h", "")],
        vec![of(HardLink, "h", "/../canary/secret")],
        vec![of(Symlink, "s", "../canary/secret"), of(HardLink, "h", "s"), of(File, "h", "")],
        vec![of(Symlink, "d", "../canary"), of(HardLink, "h", "d/secret"), of(File, "h", "")],
        vec![of(Symlink, "secret", "../canary/secret"), of(File, "secret", "")],
        vec![of(Symlink, ".", "../canary"), of(File, "x", "")],
        vec![of(File, ".", "")],
        vec![of(Symlink, "a", "b"), of(Symlink, "b", "a"), of(File, "a/x", "")],
    ];
    for attack in attacks {
        for links in [Links::Refuse, Links::Follow] {
            for top in [Top::Keep, Top::Strip, Top::Rename("n".into())] {
                let place = place();
                let _either = place.unpack(&archive(&attack), links, top.clone());
                place.is_sound();
            }
        }
    }
}

#[test]
fn a_link_that_was_there_is_replaced_and_not_followed() {
    let place = place();
    symlink("../canary/secret", place.inside.join("f")).expect("symlink");
    symlink("../canary", place.inside.join("d")).expect("symlink");
    place.unpack(&archive(&[of(Kind::File, "f", "")]), Links::Refuse, Top::Keep).expect("unpack");
    assert!(std_fs::symlink_metadata(place.inside.join("f")).expect("stat").is_file());
    let error = place.unpack(&archive(&[of(Kind::Directory, "d", "")]), Links::Refuse, Top::Keep);
    let words = error.expect_err("a directory over a link").to_string();
    assert_eq!(words, "d: cannot overwrite non-directory \"/d\" with directory \"d\"");
    std_fs::create_dir(place.inside.join("e")).expect("mkdir");
    let error = place.unpack(&archive(&[of(Kind::File, "e", "")]), Links::Refuse, Top::Keep);
    assert!(error.expect_err("e").to_string().contains("cannot overwrite directory \"/e\""));
    place.is_sound();
}

#[test]
fn names_can_be_changed() {
    let place = place();
    let entries =
        [of(Kind::Directory, "top/", ""), of(Kind::File, "top/f", ""), of(Kind::HardLink, "top/h", "top/f")];
    let bytes = archive(&entries);
    place.unpack(&bytes, Links::Refuse, Top::Rename("new".into())).expect("rename");
    assert_eq!(std_fs::metadata(place.inside.join("new/h")).expect("stat").nlink(), 2);
    place.unpack(&bytes, Links::Refuse, Top::Strip).expect("strip");
    assert_eq!(std_fs::read(place.inside.join("f")).expect("read"), b"xxx");
}

#[test]
fn a_tree_comes_through_as_it_was() {
    let (from, to) = (place(), place());
    let at = |name: &str| from.inside.join(name);
    std_fs::create_dir_all(at("t/sub/deep")).expect("mkdir");
    std_fs::write(at("t/file"), vec![7; 100_000]).expect("write");
    std_fs::hard_link(at("t/file"), at("t/sub/same")).expect("link");
    symlink("../file", at("t/sub/link")).expect("symlink");
    std_fs::set_permissions(at("t/sub"), std_fs::Permissions::from_mode(0o2750)).expect("chmod");
    nix::unistd::mkfifo(&at("t/fifo"), Mode::from_bits_truncate(0o640)).expect("mkfifo");
    let time = TimeSpec::new(-5, 123_456_789);
    for name in ["t/sub", "t/file", "t"] {
        futimens(File::open(at(name)).expect("open"), &time, &time).expect("utimens");
    }
    let attribute = fs::set_xattr(File::open(at("t/file")).expect("open").as_fd(), c"user.a", b"b\n\0");

    let descriptors = paths::descriptors().expect("proc");
    let mut writer = Writer::new(Vec::new());
    let dir = File::open(&from.inside).expect("open");
    let mut packer = Packer::new(&mut writer, descriptors.as_fd(), Mounts::Cross);
    packer.file(dir.as_fd(), OsStr::new("t"), b"t").expect("pack");
    let bytes = writer.finish().expect("finish");
    to.unpack(&bytes, Links::Refuse, Top::Keep).expect("unpack");

    let stat = |place: &Place, name: &str| {
        let found = std_fs::symlink_metadata(place.inside.join(name)).expect(name);
        (found.mode(), found.uid(), found.mtime(), found.mtime_nsec(), found.nlink())
    };
    for name in ["t", "t/sub", "t/sub/deep", "t/file", "t/sub/same", "t/fifo"] {
        assert_eq!(stat(&from, name), stat(&to, name), "{name}");
    }
    assert_eq!(std_fs::read_link(to.inside.join("t/sub/link")).expect("link"), PathBuf::from("../file"));
    if attribute.is_ok() {
        let copy = File::open(to.inside.join("t/sub/same")).expect("open");
        assert_eq!(fs::get_xattr(copy.as_fd(), c"user.a"), Ok(Some(b"b\n\0".to_vec())));
    }
    // And GNU tar reads what was written.
    let mut list = Command::new("tar");
    list.arg("tf").arg("-").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = match list.spawn() {
        Ok(child) => child,
        Err(e) => return eprintln!("skipped: no tar: {e}"),
    };
    std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), &bytes).expect("feed");
    let said = child.wait_with_output().expect("tar");
    let names = String::from_utf8(said.stdout).expect("text");
    let mut names: Vec<_> = names.lines().collect();
    names.sort_unstable();
    let all = ["t/", "t/fifo", "t/file", "t/sub/", "t/sub/deep/", "t/sub/link", "t/sub/same"];
    assert!(said.status.success() && names == all, "{names:?}");
}
