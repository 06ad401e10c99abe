// SPDX-License-Identifier: Apache-2.0
//! When there is nothing left: no byte on the disk, no descriptor.

use std::{
    fs::{self, File},
    io::Write as _,
    path::Path,
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::support::{Engine, Image, command::sh, engine::with_busybox, until};

/// A small file system, for as long as it lives.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(path: &'a Path) -> Self {
        fs::create_dir(path).expect("mkdir");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some("size=96m")).expect("mount");
        Self(path)
    }

    /// Takes all that is free.
    fn fill(&self) {
        let mut file = File::create(self.0.join("filler")).expect("create");
        for size in [1 << 20, 4096, 1] {
            let chunk = vec![b'x'; size];
            while file.write_all(&chunk).is_ok() {}
        }
    }

    fn free(&self) {
        fs::remove_file(self.0.join("filler")).expect("unlink");
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = umount2(self.0, MntFlags::MNT_DETACH);
    }
}

#[test]
fn without_a_byte_of_free_space_what_frees_some_works() {
    let Some(mut engine) = Engine::prepare("") else { return };
    let root = engine.dir().join("root");
    let disk = Disk::mount(&root);
    engine.restart();
    engine.load(&Image::busybox(), "busybox");
    let talk = "trap 'exit 3' TERM; while :; do echo talk; sleep 0.02; done";
    for name in ["stopped", "killed", "removed"] {
        engine.berth(&["run", "-d", "--name", name, "busybox", "sh", "-c", talk]).ok();
        engine.wait_log(name, "talk");
    }
    engine.berth(&["run", "--name", "done", "busybox", "true"]).ok();
    engine.berth(&["run", "--name", "pruned", "busybox", "true"]).ok();
    disk.fill();

    engine.berth(&["ps", "-a"]).ok();
    engine.berth(&["logs", "stopped"]).ok();
    engine.berth(&["stop", "-t", "5", "stopped"]).ok();
    // It wrote to a full disk all the time, and still does as it is told.
    assert_eq!(engine.inspect("stopped")["State"]["ExitCode"], 3);
    engine.berth(&["kill", "killed"]).ok();
    assert_eq!(engine.wait("killed"), 137);
    engine.berth(&["rm", "done"]).ok();
    engine.berth(&["rm", "-f", "removed"]).ok();
    engine.berth(&["container", "prune", "-f"]).ok();
    assert_eq!(engine.berth(&["ps", "-aq"]).ok().stdout, "");
    // Nothing is half done, and a new engine finds it so.
    engine.assert_sound();
    engine.kill9();
    engine.restart();
    engine.assert_sound();

    disk.free();
    engine.berth(&["run", "--rm", "busybox", "echo", "again"]).ok();
    engine.assert_sound();
    assert_eq!(engine.stop(), 0);
    engine.assert_sound();
    drop(disk);
}

#[test]
fn with_256_descriptors_errors_are_clear_and_pass() {
    let Some(engine) = with_busybox() else { return };
    engine.expect_error("Too many open files");
    sh("prlimit", &["--pid", &engine.pid().to_string(), "--nofile=256:"]);
    let mut running = Vec::new();
    let refused = loop {
        let name = format!("box{}", running.len());
        let run = engine.berth(&["run", "-d", "--name", &name, "busybox", "sleep", "100000"]);
        if run.code != 0 {
            break run;
        }
        running.push(name);
        assert!(running.len() < 256, "256 containers with 256 descriptors");
    };
    println!("scarce: {} containers with 256 descriptors, then: {}", running.len(), refused.stderr.trim());
    assert!(refused.stderr.contains("Too many open files"), "{}", refused.stderr);
    // Those that run are none the worse for it.
    engine.berth(&["ps"]).ok();
    assert_eq!(engine.status(&running[0]), "running");
    for name in running.drain(..running.len() / 2) {
        // The first ones may find none left, either, say so, and be repeated.
        until("a container to be removed", || {
            let removed = engine.berth(&["rm", "-f", &name]);
            let refused = removed.stderr.contains("Too many open files");
            assert!(removed.code == 0 || refused, "{}", removed.stderr);
            (removed.code == 0).then_some(())
        });
    }
    engine.berth(&["rm", "-f", &format!("box{}", running.len() * 2)]);
    until("the engine to recover", || {
        let again = engine.berth(&["run", "--rm", "busybox", "echo", "again"]);
        (again.code == 0 && again.stdout == "again\n").then_some(())
    });
    engine.assert_sound();
}
