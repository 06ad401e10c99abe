// SPDX-License-Identifier: Apache-2.0
//! Layers of a size that nobody makes who means well: a million entries, links
//! without number, ten gibibytes out of ten mebibytes, trees that no path can
//! name. Each is taken or refused, in bounds of memory, and goes again.

use std::{
    ffi::OsString,
    fs,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use nix::{
    fcntl::{OFlag, openat},
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, mkdirat},
};
use serde_json::json;
use tar::EntryType;

use crate::{
    lengths::length,
    support::{
        Engine, FakeRegistry, Image,
        command::{Output, run_within},
        engine::with_busybox,
        image::{Builder, Layer},
    },
};

/// How long anything here may take: it is measured, and printed.
const PATIENCE: Duration = Duration::from_secs(900);
/// What an engine may need for it, over what it needs for nothing.
const MEMORY: u64 = 64 << 20;

/// Bytes of memory of a process's own, by a line of its status.
fn status(engine: &Engine, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", engine.pid())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the line");
    let kib: u64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a number");
    kib << 10
}

/// Runs `berth args…` with `input`, says how long that took and what the engine
/// needed for it, and looks that this was in bounds.
#[track_caller]
fn measured(engine: &Engine, what: &str, args: &[&str], input: &[u8]) -> Output {
    // The peak begins here: proc_pid_clear_refs(5).
    fs::write(format!("/proc/{}/clear_refs", engine.pid()), "5").expect("clear_refs");
    let before = status(engine, "VmRSS:");
    let started = Instant::now();
    let said = run_within(PATIENCE, engine.berth_command(args), input);
    let (took, peak) = (started.elapsed(), status(engine, "VmHWM:"));
    let words = said.error().chars().take(200).collect::<String>();
    println!("sizes: {what}: {:.1} s, {} MiB at most, {words}", took.as_secs_f64(), peak >> 20);
    assert!(peak <= before.max(32 << 20) + MEMORY, "{what}: {peak} bytes of memory, {before} before");
    said
}

/// What becomes of a layer.
#[derive(Debug, Clone, Copy)]
enum End {
    Taken,
    /// With these words, wherever it comes from.
    Refused(&'static str),
    /// Taken or refused with these words: the file system decides.
    Either(&'static str),
}

impl End {
    #[track_caller]
    fn judge(self, what: &str, said: &Output) -> bool {
        let refused = match self {
            Self::Taken => None,
            Self::Refused(words) => Some(words),
            Self::Either(words) => (said.code != 0).then_some(words),
        };
        match refused {
            None => assert_eq!(said.code, 0, "{what}: {said:?}"),
            Some(words) => {
                let error = said.error();
                assert!(error.len() < 10_000, "{what}: {} bytes of error", error.len());
                // cp has Docker's words for what the system says.
                let found = error.to_lowercase().contains(&words.to_lowercase());
                assert!(said.code != 0 && found, "{what}: {error}");
            }
        }
        refused.is_none()
    }
}

/// Through a pull, a load and a `cp`.
#[track_caller]
fn everywhere(what: &str, make: impl Fn() -> Layer, end: End, check: impl Fn(&Path)) {
    let image = Builder::new().layer(make()).config(json!({"Cmd": ["/none"]})).build();
    let registry = FakeRegistry::serving(&image, "library/large", "latest");
    let Some(engine) = Engine::start_mirrored(registry.address()) else { return };
    let snapshots = engine.dir().join("root/snapshots");
    let archive = image.oci_archive("docker.io/library/large:latest");
    for (way, args, input) in
        [("pull", ["pull", "-q", "large"].as_slice(), &[][..]), ("load", &["load"], &archive)]
    {
        let what = format!("{what}, {way}");
        let said = measured(&engine, &what, args, input);
        if end.judge(&what, &said) {
            check(&layer(&snapshots));
            measured(&engine, &format!("{what}, removed"), &["rmi", "large"], b"").ok();
        }
        crate::support::until("nothing to be left", || {
            (fs::read_dir(&snapshots).expect("list").count() == 1).then_some(())
        });
        engine.fsck(&["--digests"]).ok();
    }
    drop((image, archive, registry));

    engine.load(&Image::busybox(), "busybox");
    engine.berth(&["create", "--name", "box", "busybox"]).ok();
    let what = format!("{what}, cp");
    let said = measured(&engine, &what, &["cp", "-", "box:/tmp"], &make().finish());
    if end.judge(&what, &said) {
        check(&layer(&snapshots).join("tmp"));
    }
    measured(&engine, &format!("{what}, removed"), &["rm", "box"], b"").ok();
    engine.fsck(&["--digests"]).ok();
}

/// The files of the newest snapshot.
fn layer(snapshots: &Path) -> PathBuf {
    let names = fs::read_dir(snapshots).expect("list").map(|entry| entry.expect("entry").file_name());
    let newest = names.filter_map(|name: OsString| name.to_str()?.parse::<u64>().ok()).max().expect("one");
    snapshots.join(newest.to_string()).join("fs")
}

/// Row 10.
#[test]
fn the_same_file_a_million_times() {
    let n = length(5_000, 1_000_000);
    let make = || {
        let mut layer = Layer::new();
        (0..n).for_each(|n| layer.file("same", 0o644, n.to_string().as_bytes()));
        layer
    };
    everywhere("one file again and again", make, End::Taken, |tree| {
        assert_eq!(fs::read_to_string(tree.join("same")).expect("read"), (n - 1).to_string());
    });
}

/// Row 11.
#[test]
fn a_million_files_in_one_directory() {
    let n = length(20_000, 1_000_000);
    let make = || {
        let mut layer = Layer::new();
        layer.dir("many/", 0o755);
        (0..n).for_each(|n| layer.file(&format!("many/{n}"), 0o644, b""));
        layer
    };
    everywhere("many files", make, End::Taken, |tree| {
        assert_eq!(fs::read_dir(tree.join("many")).expect("list").count(), n);
    });
}

#[test]
fn a_hundred_thousand_links_to_one_file() {
    let n = length(70_000, 100_000);
    let make = || {
        let mut layer = Layer::new();
        layer.file("file", 0o644, b"x");
        for n in 0..n {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(EntryType::Link);
            header.set_size(0);
            layer.raw().append_link(&mut header, format!("link{n}"), "file").expect("append");
        }
        layer
    };
    // 65,000 on ext4.
    everywhere("many links", make, End::Either("Too many links"), |tree| {
        assert_eq!(fs::read_dir(tree).expect("list").count(), n + 1);
    });
}

#[test]
fn a_directory_a_hundred_thousand_deep() {
    let n = length(4_000, 100_000);
    // As one name, which is longer than a path may be.
    let make = || {
        let mut layer = Layer::new();
        let path = "d/".repeat(n);
        let record = format!(" path={path}\n");
        let digits = (1..).find(|d| (record.len() + d).to_string().len() == *d).expect("a length");
        let record = format!("{}{record}", record.len() + digits);
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(record.len() as u64);
        header.set_cksum();
        layer.raw().append(&header, record.as_bytes()).expect("append");
        layer.dir("short/", 0o755);
        layer
    };
    everywhere("a deep name", make, End::Refused("name"), |_| {});

    // As somebody makes it who runs in a container: no path names its end.
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["create", "--name", "box", "busybox"]).ok();
    let top = layer(&engine.dir().join("root/snapshots"));
    let mut here: OwnedFd = fs::File::open(&top).expect("open").into();
    for _ in 0..n {
        mkdirat(here.as_fd(), "d", Mode::from_bits_truncate(0o755)).expect("mkdir");
        here = openat(here.as_fd(), "d", OFlag::O_DIRECTORY | OFlag::O_RDONLY, Mode::empty()).expect("open");
    }
    drop(here);
    for args in [
        ["diff", "box"].as_slice(),
        &["ps", "-as"],
        &["system", "df"],
        &["commit", "box", "made"],
        &["export", "-o", "/dev/null", "box"],
        &["cp", "box:/d", "-"],
        &["start", "box"],
    ] {
        let said = measured(&engine, &format!("a deep tree, {}", args[0]), args, b"");
        assert!(
            said.code == 0 || said.stderr.len() < 10_000,
            "{args:?}: {} bytes of error",
            said.stderr.len()
        );
    }
    engine.wait("box");
    measured(&engine, "a deep tree, rm", &["rm", "box"], b"").ok();
    assert!(!top.exists());
    engine.berth(&["rmi", "made"]);
    engine.fsck(&["--digests"]).ok();
}

/// Gzip of a file of `size` zeros, or of an archive with so many at its end.
fn bomb(size: u64, in_file: bool) -> Vec<u8> {
    let mut layer = Layer::new();
    layer.file("small", 0o644, b"content");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    if in_file {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_path("large").expect("a name");
        header.set_cksum();
        encoder.write_all(header.as_bytes()).expect("gzip");
    } else {
        encoder.write_all(&layer.finish()).expect("gzip");
    }
    std::io::copy(&mut std::io::repeat(0).take(size + 1024), &mut encoder).expect("gzip");
    encoder.finish().expect("gzip")
}

/// Row 12. Deflate makes a thousandth of zeros at best, so this is within the
/// ratio that a layer may unfold by: what stops it is its digest, or the disk.
#[test]
fn ten_gibibytes_out_of_ten_mebibytes() {
    let size = length(512 << 20, 10 << 30);
    for (what, in_file, end) in [
        ("zeros behind an archive", false, End::Refused("isn't what the image says")),
        ("a file of zeros", true, End::Refused("No space left on device")),
    ] {
        let blob = bomb(size, in_file);
        println!("sizes: {what}: {} bytes of {size}", blob.len());
        let image = Builder::new().compressed(format!("sha256:{}", "0".repeat(64)), blob).build();
        let registry = FakeRegistry::serving(&image, "library/large", "latest");
        let Some(mut engine) = Engine::prepare_mirrored(registry.address()) else { return };
        let root = engine.dir().join("root");
        fs::create_dir(&root).expect("mkdir");
        mount(Some("tmpfs"), &root, Some("tmpfs"), MsFlags::empty(), Some("size=256m")).expect("mount");
        let _disk = Unmounts(root.clone());
        engine.restart();
        let archive = image.oci_archive("docker.io/library/large:latest");
        for (way, args, input) in
            [("pull", ["pull", "-q", "large"].as_slice(), &[][..]), ("load", &["load"], &archive)]
        {
            let what = format!("{what}, {way}");
            end.judge(&what, &measured(&engine, &what, args, input));
            crate::support::until("nothing to be left", || {
                (fs::read_dir(root.join("snapshots")).expect("list").count() == 1).then_some(())
            });
            engine.fsck(&["--digests"]).ok();
        }
        assert_eq!(engine.stop(), 0);
    }
}

/// A mount, for as long as it lives.
struct Unmounts(PathBuf);

impl Drop for Unmounts {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
