// SPDX-License-Identifier: Apache-2.0
//! Power cuts on the store: its file system is shut down in the middle of
//! pulls, loads, commits and prunes, without the log being written. Whatever an
//! engine says afterwards that it has, it has, to the last byte.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
    sys::signal::Signal,
};
use serde_json::{Value, json};

use crate::{
    lengths::{Chance, length, seed},
    support::{
        Engine, Image, Registry,
        command::{Background, sh},
        image::{Builder, Layer, busybox_layer},
        leaks, until,
    },
};

/// Of the file system that the store is on.
const DISK: u64 = 512 << 20;
/// Names that images have.
const NAMES: usize = 6;

/// `ioctl(FS_IOC_SHUTDOWN)` without writing the log: nothing that the kernel
/// has yet to write reaches the disk.
const SHUTDOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

/// An ext4 in a file.
struct Disk {
    image: PathBuf,
    mounted: PathBuf,
    device: String,
}

impl Disk {
    fn make(dir: &Path) -> Self {
        // Where nobody else's new mount namespace takes a copy along, which
        // would keep a file system that was shut down.
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("mount");
        let (image, mounted) = (dir.join("disk.img"), dir.join("root"));
        File::create(&image).and_then(|file| file.set_len(DISK)).expect("a file");
        sh("mkfs.ext4", &["-q", "-F", text(&image)]);
        fs::create_dir(&mounted).expect("mkdir");
        let device = sh("losetup", &["--find", "--show", text(&image)]).trim().to_owned();
        let disk = Self { image, mounted, device };
        disk.mount();
        disk
    }

    fn mount(&self) {
        mount(Some(&*self.device), &self.mounted, Some("ext4"), MsFlags::empty(), None::<&str>)
            .expect("mount");
    }

    /// From here on nothing reaches the disk.
    fn cut(&self) {
        sh("python3", &["-c", SHUTDOWN, text(&self.mounted)]);
    }

    /// What the disk has is what the log brings back. Containers that are on
    /// their way out hold the file system that was shut down: until they are
    /// gone that is the one to be mounted.
    fn again(&self) {
        until("the disk to be free", || {
            umount2(&self.mounted, MntFlags::empty()).ok()?;
            self.mount();
            File::create(self.mounted.join("probe")).ok()
        });
        fs::remove_file(self.mounted.join("probe")).expect("remove");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.mounted, MntFlags::MNT_DETACH);
        let _ = Command::new("losetup").args(["--detach", &self.device]).status();
        let _ = fs::remove_file(&self.image);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// An image of three layers on busybox; `number` says which.
fn image(number: usize) -> Image {
    let layers = (0..3).map(|layer| {
        let mut files = Layer::new();
        for file in 0..40 {
            // Half of the layers are shared by some images.
            let which = if layer == 0 { number % 2 } else { number };
            let bytes = format!("{which} {layer} {file}\n").repeat(1 + file * 100);
            files.file(&format!("l{layer}-{file}"), 0o644, bytes.as_bytes());
        }
        files
    });
    let base = Builder::new().layer(busybox_layer()).config(json!({"Cmd": ["sh"]}));
    layers.fold(base, Builder::layer).build()
}

/// What is in the files of image `number`, as the shell in it says it.
const SUMS: &str = "cd / && cat l?-* | sha256sum && sha256sum bin/busybox && ls l?-* | wc -l";

/// What is done while the power goes: an operation is one command.
fn operate(engine: &Engine, archives: &[PathBuf], chance: &mut Chance) -> Vec<Background> {
    let mut started = Vec::new();
    for _ in 0..2 {
        let number = chance.below(NAMES);
        let tag = format!("image{number}");
        let archive = text(&archives[number]).to_owned();
        let all: [Vec<&str>; 5] = [
            vec!["pull", "-q", &tag],
            vec!["load", "-q", "-i", &archive],
            vec!["commit", "box", &tag],
            vec!["image", "prune", "-af"],
            vec!["rmi", &tag],
        ];
        // Pulls and commits are what is asked about; the rest makes room.
        let which = [0, 0, 0, 0, 1, 1, 2, 2, 3, 4][chance.below(10)];
        started.push(engine.background(&all[which]));
    }
    started
}

/// Some moment: what is cut short there is up to chance.
#[expect(clippy::disallowed_methods, reason = "there is nothing to wait for")]
fn after(time: Duration) {
    thread::sleep(time);
}

/// All that the engine says it has is there, byte for byte. How many images.
#[track_caller]
fn assert_whole(engine: &Engine, sums: &[String], committed: &str, cut: usize) -> usize {
    let fsck = engine.fsck(&["--digests"]);
    assert_eq!(fsck.code, 0, "after cut {cut}: {}{}", fsck.stdout, fsck.stderr);
    let (ids, damaged) = damaged(engine, sums, committed);
    assert!(damaged.is_empty(), "after cut {cut}: damaged: {damaged:?}");
    for id in &ids {
        // What was pulled can be handed on.
        engine.berth(&["save", "-o", "/dev/null", id]).ok();
    }
    ids.len()
}

/// The images that the engine says it has, and what of them isn't as it was.
fn damaged(engine: &Engine, sums: &[String], committed: &str) -> (Vec<String>, Vec<String>) {
    let list = engine.berth(&["images", "--format", "json", "--no-trunc"]).ok().stdout;
    let mut ids: Vec<String> = list
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["ID"].as_str().expect("an id").into())
        .collect();
    ids.sort();
    ids.dedup();
    let script = format!("cat /made 2>/dev/null; {SUMS}");
    let mut damaged = Vec::new();
    for id in &ids {
        let ran = engine.berth(&["run", "--rm", id, "sh", "-c", &script]);
        if ran.code != 0 || !sums.contains(&ran.stdout) && ran.stdout != committed {
            damaged.push(format!("{id}: {} {} {}", ran.code, ran.stdout, ran.stderr));
        }
    }
    (ids, damaged)
}

/// What a dying disk makes the engine say is no finding.
fn expect_a_dying_disk(engine: &Engine) {
    for part in ["Input/output error", "disk I/O error", "Read-only file system"] {
        engine.expect_error(part);
    }
}

/// The oracle bites: without its `syncfs` an engine has images after a power
/// cut that are damaged; a pull that verifies mends them.
#[test]
fn without_syncfs_a_power_cut_is_seen_to_damage_images() {
    let cuts = length(2, 20);
    let registry = Registry::start();
    let Some(mut engine) = Engine::prepare_failing(&format!(
        "[registry.hosts.\"docker.io\"]\nmirrors = [\"http://{}\"]\nmirrors_only = true\n",
        registry.address()
    )) else {
        return;
    };
    let disk = Disk::make(engine.dir());
    expect_a_dying_disk(&engine);
    let images: Vec<Image> = (0..NAMES).map(image).collect();
    for (number, image) in images.iter().enumerate() {
        registry.push(image, &format!("library/image{number}"), "latest");
    }
    engine.restart();
    let script = format!("cat /made 2>/dev/null; {SUMS}");
    let mut sums = Vec::new();
    for number in 0..NAMES {
        let name = format!("image{number}");
        engine.berth(&["pull", "-q", &name]).ok();
        sums.push(engine.berth(&["run", "--rm", &name, "sh", "-c", &script]).ok().stdout);
        engine.berth(&["rmi", &name]).ok();
    }
    sh("sync", &[]);
    let (mut without, mut found) = (0, 0);
    for cut in 0..cuts {
        let name = format!("image{}", cut % NAMES);
        engine.arm("image.sync=skip\n");
        engine.berth(&["pull", "-q", &name]).ok();
        assert!(engine.hits().contains("image.sync"), "it was left out");
        engine.arm("");
        disk.cut();
        engine.kill9();
        disk.again();
        engine.restart();
        let (ids, bad) = damaged(&engine, &sums, "");
        found += ids.len();
        without += bad.len();
        // Wrong as it is: it can be put right.
        engine.berth(&["pull", "-q", "--verify", &name]).ok();
        assert_eq!(assert_whole(&engine, &sums, "", cut), 1);
        engine.berth(&["rmi", &name]).ok();
    }
    println!("power: {cuts} cuts without syncfs, {found} images found afterwards, {without} of them damaged");
    assert!(without > 0, "nobody would notice");
    assert_eq!(engine.stop(), 0);
    drop(disk);
}

#[test]
fn what_an_engine_has_after_a_power_cut_is_whole() {
    let cuts = length(6, 200);
    let mut chance = Chance::new(seed());
    let registry = Registry::start();
    let Some(mut engine) = Engine::prepare(&format!(
        "[registry.hosts.\"docker.io\"]\nmirrors = [\"http://{}\"]\nmirrors_only = true\n",
        registry.address()
    )) else {
        return;
    };
    let dir = engine.dir().to_owned();
    let disk = Disk::make(&dir);
    expect_a_dying_disk(&engine);
    let mut archives = Vec::new();
    for number in 0..NAMES {
        let image = image(number);
        registry.push(&image, &format!("library/image{number}"), "latest");
        let path = dir.join(format!("image{number}.tar"));
        fs::write(&path, image.oci_archive(&format!("docker.io/library/image{number}:latest")))
            .expect("write");
        archives.push(path);
    }
    engine.restart();
    let mut sums = Vec::new();
    for archive in &archives {
        let said = engine.berth(&["load", "-i", text(archive)]).ok();
        let name = said.line().rsplit(' ').next().expect("a name").to_owned();
        let script = format!("cat /made 2>/dev/null; {SUMS}");
        sums.push(engine.berth(&["run", "--rm", &name, "sh", "-c", &script]).ok().stdout);
    }
    // What is committed: a file more.
    let make = "head -c 3000000 /dev/urandom | sha256sum >/made; seq 200000 >/large";
    engine.berth(&["run", "--name", "box", "image0", "sh", "-c", make]).ok();
    engine.berth(&["commit", "box", "made"]).ok();
    let script = format!("cat /made 2>/dev/null; {SUMS}");
    let committed = engine.berth(&["run", "--rm", "made", "sh", "-c", &script]).ok().stdout;
    sh("sync", &[]);

    let (mut images, started) = (0, Instant::now());
    for cut in 1..=cuts {
        let mut running = operate(&engine, &archives, &mut chance);
        after(Duration::from_millis(chance.below(400) as u64));
        disk.cut();
        engine.kill9();
        running.iter_mut().for_each(|command| {
            command.wait();
        });
        for pid in engine.processes() {
            leaks::send(pid, Signal::SIGKILL);
        }
        disk.again();
        engine.restart();
        images += assert_whole(&engine, &sums, &committed, cut);
    }
    println!(
        "power: {cuts} cuts in {} s, {images} images found afterwards, all of them whole",
        started.elapsed().as_secs()
    );
    engine.berth(&["rm", "-f", "box"]).ok();
    assert_eq!(engine.stop(), 0);
    drop(disk);
}
