// SPDX-License-Identifier: Apache-2.0
//! `berth cp` and `berth export`: both ways, whatever the container is doing,
//! with everything that belongs to a file, and never outside of it.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use crate::support::{
    engine::{Engine, with_busybox},
    until,
};

const SLEEP: [&str; 3] = ["busybox", "sleep", "1000"];

fn here(engine: &Engine, name: &str) -> PathBuf {
    engine.dir().join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// What `tar t` lists of an archive.
fn listed(archive: &[u8]) -> Vec<String> {
    let mut names: Vec<String> = tar::Archive::new(archive)
        .entries()
        .expect("an archive")
        .map(|entry| entry.expect("an entry").path().expect("a path").to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn files_go_both_ways_in_every_state() {
    let Some(engine) = with_busybox() else { return };
    let tree = here(&engine, "tree");
    fs::create_dir_all(tree.join("sub")).expect("mkdir");
    fs::write(tree.join("file"), vec![b'x'; 300_000]).expect("write");
    fs::hard_link(tree.join("file"), tree.join("sub/same")).expect("link");
    symlink("../file", tree.join("sub/link")).expect("symlink");
    fs::set_permissions(tree.join("sub"), fs::Permissions::from_mode(0o2750)).expect("chmod");
    std::os::unix::fs::chown(tree.join("file"), Some(1234), Some(4321)).expect("chown");
    let time = fs::FileTimes::new()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789));
    fs::File::open(tree.join("file")).expect("open").set_times(time).expect("utimens");

    engine.berth(&["create", "--name", "created", "busybox"]).ok();
    engine.berth(&[&["run", "-d", "--name", "running"][..], &SLEEP].concat()).ok();
    engine.berth(&[&["run", "-d", "--name", "paused"][..], &SLEEP].concat()).ok();
    engine.berth(&["pause", "paused"]).ok();
    engine.berth(&["run", "--name", "exited", "busybox", "true"]).ok();
    engine.berth(&[&["run", "-d", "--userns", "auto", "--name", "mapped"][..], &SLEEP].concat()).ok();
    let see = |path: &Path| {
        let stat = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (stat.mode(), stat.uid(), stat.gid(), stat.mtime(), stat.mtime_nsec(), stat.nlink(), stat.len())
    };
    for name in ["created", "running", "paused", "exited", "mapped"] {
        engine.berth(&["cp", "-a", text(&tree), &format!("{name}:/srv")]).ok();
        let back = here(&engine, name);
        engine.berth(&["cp", "-a", &format!("{name}:/srv"), text(&back)]).ok();
        for part in ["", "file", "sub", "sub/same"] {
            assert_eq!(see(&tree.join(part)), see(&back.join(part)), "{name}: {part}");
        }
        assert_eq!(fs::read_link(back.join("sub/link")).expect("link"), PathBuf::from("../file"));
        assert!(fs::read(back.join("sub/same")).expect("read") == vec![b'x'; 300_000]);
    }
    let inside = engine.berth(&["exec", "running", "stat", "-c", "%u:%g %a", "/srv/file", "/srv/sub"]).ok();
    assert_eq!(inside.stdout, "1234:4321 644\n0:0 2750\n");
    let inside = engine.berth(&["exec", "mapped", "stat", "-c", "%u:%g", "/srv/file"]).ok();
    assert_eq!(inside.stdout, "1234:4321\n");
    // What was copied into a stopped one is there when it runs.
    engine.berth(&["start", "exited"]).ok();
    engine.berth(&["start", "created"]).ok();

    // Without -a they are root's inside, and mine outside.
    engine.berth(&["cp", text(&tree.join("file")), "running:/f"]).ok();
    assert_eq!(engine.berth(&["exec", "running", "stat", "-c", "%u:%g", "/f"]).ok().stdout, "0:0\n");
    engine.berth(&["exec", "running", "sh", "-c", "chown 7:8 /f && chmod 4755 /f"]).ok();
    engine.berth(&["cp", "running:/f", text(&here(&engine, "f"))]).ok();
    let (mode, uid, gid, ..) = see(&here(&engine, "f"));
    assert_eq!((mode & 0o7777, uid, gid), (0o755, 0, 0), "nobody else's program becomes root's");
}

#[test]
fn where_a_copy_goes_is_as_docker_has_it() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&[&["run", "-d", "--name", "box"][..], &SLEEP].concat()).ok();
    engine.berth(&["exec", "box", "mkdir", "-p", "/d/sub"]).ok();
    let dir = here(&engine, "src");
    fs::create_dir(&dir).expect("mkdir");
    fs::write(dir.join("f"), "one").expect("write");
    let cp = |from: &str, to: &str| engine.berth(&["cp", from, to]);
    let (dir, file) = (text(&dir).to_owned(), text(&dir.join("f")).to_owned());
    cp(&file, "box:/d").ok();
    cp(&file, "box:/d/new").ok();
    cp(&dir, "box:/d/made").ok();
    cp(&dir, "box:/d/sub").ok();
    cp(&format!("{dir}/."), "box:/d/sub").ok();
    let found = engine.berth(&["exec", "box", "sh", "-c", "cd /d; find . | sort"]).ok().stdout;
    assert_eq!(
        found.lines().collect::<Vec<_>>(),
        [".", "./f", "./made", "./made/f", "./new", "./sub", "./sub/f", "./sub/src", "./sub/src/f"]
    );
    // And back.
    let to = here(&engine, "to");
    fs::create_dir(&to).expect("mkdir");
    let to = text(&to).to_owned();
    cp("box:/d/sub", &to).ok();
    cp("box:/d/sub/.", &format!("{to}/all")).ok();
    cp("box:d/f", &format!("{to}/alone")).ok();
    for part in ["sub/src/f", "all/src/f", "all/f", "alone"] {
        assert_eq!(fs::read_to_string(format!("{to}/{part}")).expect(part), "one");
    }
    // A link is copied; followed with -L, or when a slash says so.
    engine.berth(&["exec", "box", "sh", "-c", "ln -s f /d/link; ln -s /d/sub /d/way"]).ok();
    cp("box:/d/link", &format!("{to}/link")).ok();
    assert_eq!(fs::read_link(format!("{to}/link")).expect("a link"), PathBuf::from("f"));
    engine.berth(&["cp", "-L", "box:/d/link", &format!("{to}/followed")]).ok();
    assert!(fs::symlink_metadata(format!("{to}/followed")).expect("stat").is_file());
    cp(&file, "box:/d/way/through").ok();
    engine.berth(&["exec", "box", "test", "-f", "/d/sub/through"]).ok();

    // Archives.
    let archive = engine.berth(&["cp", "box:/d/made", "-"]).ok().bytes;
    assert_eq!(listed(&archive), ["made/", "made/f"]);
    engine.berth(&["exec", "box", "mkdir", "/in"]).ok();
    engine.berth_with_input(&["cp", "-", "box:/in"], &archive).ok();
    engine.berth(&["exec", "box", "test", "-f", "/in/made/f"]).ok();

    // In Docker's words.
    cp("box:/nope", &to).exits(1).complains(&["Could not find the file /nope in container box"]);
    cp(&file, "box:/nope/f").exits(1).complains(&["Could not find the file /nope/f in container box"]);
    cp("/no/such", "box:/d").exits(1).complains(&["no such file or directory"]);
    cp(&dir, "box:/d/f").exits(1).complains(&["cannot copy directory"]);
    cp(&file, "box:/d/none/").exits(1).complains(&["no such directory"]);
    cp("box:/d/f/", &to).exits(1).complains(&["not a directory"]);
    cp("box:/d/f", "/no/such/place").exits(1).complains(&["directory \"/no/such\" does not exist"]);
    cp("box:/d", "box:/e").exits(1).complains(&["copying between containers is not supported"]);
    cp("/a", "/b").exits(1).complains(&["must specify at least one container source"]);
    cp("", "box:/b").exits(1).complains(&["source can not be empty"]);
    cp("nobody:/x", &to).exits(1).complains(&["No such container: nobody"]);
    let refused = engine.berth_with_input(&["cp", "-", "box:/d/f"], &archive).exits(1);
    refused.complains(&["destination \"box:/d/f\" must be a directory"]);
    engine.berth_with_input(&["cp", "-", "box:/in"], b"no archive at all").exits(1);
    // A directory stays one, and a file too.
    let fresh = here(&engine, "fresh");
    fs::create_dir_all(fresh.join("f")).expect("mkdir");
    let refused = cp(&format!("{}/.", text(&fresh)), "box:/d").exits(1);
    refused.complains(&["cannot overwrite non-directory \"/d/f\" with directory"]);
}

#[test]
fn what_is_mounted_is_part_of_it_and_what_is_read_only_stays_so() {
    let Some(engine) = with_busybox() else { return };
    let bound = here(&engine, "bound");
    fs::create_dir(&bound).expect("mkdir");
    fs::write(bound.join("f"), "bound").expect("write");
    let (rw, ro) = (format!("{}:/rw", text(&bound)), format!("{}:/ro:ro", text(&bound)));
    let flags = ["--read-only", "--tmpfs", "/tmp", "-v", &rw, "-v", &ro];
    engine.berth(&[&["run", "-d", "--name", "box"][..], &flags, &SLEEP].concat()).ok();
    engine.berth(&[&["create", "--name", "still"][..], &flags, &SLEEP].concat()).ok();
    engine.berth(&["exec", "box", "sh", "-c", "echo in memory >/tmp/m"]).ok();
    let file = text(&here(&engine, "bound/f")).to_owned();
    assert_eq!(listed(&engine.berth(&["cp", "box:/tmp/m", "-"]).ok().bytes), ["m"]);
    for name in ["box", "still"] {
        assert_eq!(listed(&engine.berth(&["cp", &format!("{name}:/ro/f"), "-"]).ok().bytes), ["f"]);
        engine.berth(&["cp", &file, &format!("{name}:/rw/{name}")]).ok();
        assert_eq!(fs::read_to_string(bound.join(name)).expect("read"), "bound");
        let refused = |to: &str| engine.berth(&["cp", &file, &format!("{name}:{to}")]).exits(1);
        refused("/x").complains(&["container rootfs is marked read-only"]);
        refused("/ro/x").complains(&["mounted volume is marked read-only"]);
    }
    // A file that is mounted is written, not replaced.
    let hosts = here(&engine, "hosts");
    fs::write(&hosts, "127.0.0.1 mine\n").expect("write");
    engine.berth(&["cp", text(&hosts), "box:/etc/hosts"]).ok();
    let said = engine.berth(&["exec", "box", "cat", "/etc/hosts"]).ok().stdout;
    assert_eq!(said, "127.0.0.1 mine\n");
    // Of the kernel's own files there is the directory.
    assert_eq!(listed(&engine.berth(&["cp", "box:/proc", "-"]).ok().bytes), ["proc/"]);

    let exported = listed(&engine.berth(&["export", "box"]).ok().bytes);
    let has = |name: &str| exported.iter().any(|found| found == name);
    assert!(has("bin/busybox") && has("proc/") && has("rw/") && has("tmp/"), "{exported:?}");
    assert!(!has("rw/f") && !has("tmp/m") && !has("proc/version") && !has("./"), "{exported:?}");
    let to = here(&engine, "box.tar");
    engine.berth(&["export", "-o", text(&to), "still"]).ok();
    assert!(listed(&fs::read(&to).expect("read")).contains(&"bin/busybox".to_owned()));
}

#[test]
fn no_link_of_a_container_leads_to_the_host() {
    let Some(engine) = with_busybox() else { return };
    let canary = here(&engine, "canary");
    fs::create_dir(&canary).expect("mkdir");
    fs::write(canary.join("secret"), "the host's").expect("write");
    let outside = text(&canary).to_owned();
    // The same names inside, so that every way leads somewhere.
    let swap = format!(
        "mkdir -p {outside} /d; echo inside >{outside}/secret; echo inside >/d/secret; echo up; \
         while :; do mv /d /e; ln -s {outside} /d; rm /d; ln -s /../../../../../../../.. /d; rm /d; mv /e /d; done"
    );
    engine.berth(&["run", "-d", "--name", "swap", "busybox", "sh", "-c", &swap]).ok();
    engine.wait_log("swap", "up");
    let file = here(&engine, "payload");
    fs::write(&file, "payload").expect("write");
    let through = format!("swap:/d/{}/secret", outside.trim_start_matches('/'));
    for n in 0..60 {
        let out = here(&engine, "out");
        let _either = engine.berth(&["cp", if n % 2 == 0 { "swap:/d/secret" } else { &through }, text(&out)]);
        if let Ok(read) = fs::read_to_string(&out) {
            assert!(read == "inside\n" || read == "payload", "{read}");
            fs::remove_file(&out).expect("rm");
        }
        let _either =
            engine.berth(&["cp", text(&file), if n % 2 == 0 { "swap:/d/secret" } else { &through }]);
        assert_eq!(fs::read_to_string(canary.join("secret")).expect("read"), "the host's");
    }
    assert_eq!(fs::read_dir(&canary).expect("list").count(), 1);

    // An archive whose links lead out of where it is unpacked, and a device.
    let mut builder = tar::Builder::new(Vec::new());
    let mut link = tar::Header::new_ustar();
    link.set_entry_type(tar::EntryType::Symlink);
    link.set_size(0);
    builder.append_link(&mut link, "way", format!("/proc/1/root{outside}")).expect("append");
    let mut file = tar::Header::new_ustar();
    file.set_size(4);
    file.set_mode(0o644);
    builder.append_data(&mut file, "way/secret", &b"evil"[..]).expect("append");
    let archive = builder.into_inner().expect("finish");
    for name in ["swap", "still"] {
        engine.berth(&["create", "--name", "still", "busybox"]);
        let _either = engine.berth_with_input(&["cp", "-", &format!("{name}:/")], &archive);
        assert_eq!(fs::read_to_string(canary.join("secret")).expect("read"), "the host's");
    }
    // What only the container may use stays there.
    engine
        .berth(&[
            "run",
            "--name",
            "device",
            "busybox",
            "sh",
            "-c",
            "mkdir /t; mknod /t/z c 1 5; echo a >/t/f",
        ])
        .ok();
    let to = here(&engine, "t");
    let said = engine.berth(&["cp", "device:/t", text(&to)]).ok();
    assert!(said.stderr.contains("1 devices were left out"), "{}", said.stderr);
    assert!(!to.join("z").exists() && to.join("f").exists());
}

#[test]
fn a_copy_at_rest_is_over_before_the_start_and_ends_with_the_container() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&[&["create", "--name", "box"][..], &SLEEP].concat()).ok();
    // A copy that nobody feeds goes on for ever.
    let hung = |name: &str| {
        let mut command = engine.berth_command(&["cp", "-", &format!("{name}:/")]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null());
        let child = command.spawn().expect("start");
        until("a process at the container's files", || is_mounted(&engine).then_some(()));
        child
    };
    let mut copy = hung("box");
    let start = engine.background(&["start", "box"]);
    drop(copy.stdin.take());
    assert_eq!(copy.wait().expect("wait").code(), Some(0), "an empty archive is one");
    let mut start = start;
    assert_eq!(start.wait(), 0);
    assert_eq!(engine.status("box"), "running");

    engine.berth(&[&["create", "--name", "gone"][..], &SLEEP].concat()).ok();
    let mut copy = hung("gone");
    engine.berth(&["rm", "-f", "gone"]).ok();
    assert_ne!(copy.wait().expect("wait").code(), Some(0));
    // The client goes, and the process with it.
    engine.berth(&[&["create", "--name", "left"][..], &SLEEP].concat()).ok();
    let mut copy = hung("left");
    copy.kill().expect("kill");
    copy.wait().expect("wait");
    until("the process to be gone", || (!is_mounted(&engine)).then_some(()));
    engine.berth(&["start", "left"]).ok();
}

/// Whether a child of the engine works on files.
fn is_mounted(engine: &Engine) -> bool {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", engine.pid()));
    let all = fs::read_dir(format!("/proc/{}/task", engine.pid())).expect("tasks");
    let mut pids: Vec<String> = children.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    for task in all.flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        pids.extend(children.split_whitespace().map(str::to_owned));
    }
    let name = |pid: &String| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    pids.iter().any(|pid| name(pid).trim() == "berth-files")
}

#[test]
fn an_image_without_anything_in_it_can_be_copied_from() {
    let Some(engine) = with_busybox() else { return };
    // None of its programs is needed, not even when it has none.
    engine.berth(&["run", "--name", "box", "busybox", "sh", "-c", "echo data >/data; rm -rf /bin"]).ok();
    let to = here(&engine, "data");
    engine.berth(&["cp", "box:/data", text(&to)]).ok();
    assert_eq!(fs::read_to_string(&to).expect("read"), "data\n");
    let said = engine.berth(&["export", "box"]).ok();
    assert!(listed(&said.bytes).iter().all(|name| !name.starts_with("bin/b")));
}

/// Bytes that a file takes on its disk.
fn on_disk(path: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(path).expect("stat").blocks() * 512
}

#[test]
fn holes_stay_holes_both_ways() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let source = engine.dir().join("sparse");
    let size = 300 << 20;
    {
        use std::os::unix::fs::FileExt as _;
        let file = fs::File::create(&source).expect("create");
        file.set_len(size).expect("set its size");
        file.write_all_at(b"begin", 0).expect("write");
        file.write_all_at(&[7; 5000], 100 << 20).expect("write");
        file.write_all_at(b"end", size - 3).expect("write");
    }
    let from = source.to_str().expect("text");
    engine.berth(&["cp", from, "box:/tmp/in"]).ok();
    let script = "stat -c '%s %b' /tmp/in; tail -c 3 /tmp/in; head -c 5 /tmp/in";
    let said = engine.berth(&["exec", "box", "sh", "-c", script]).ok().stdout;
    let (stat, data) = said.split_once('\n').expect("two lines");
    let (bytes, blocks) = stat.split_once(' ').expect("two numbers");
    assert_eq!((bytes, data), (size.to_string().as_str(), "endbegin"));
    assert!(blocks.parse::<u64>().expect("a number") < 1000, "{said}");

    let back = engine.dir().join("back");
    engine.berth(&["cp", "box:/tmp/in", back.to_str().expect("text")]).ok();
    assert!(on_disk(&back) < 1 << 20, "{}", on_disk(&back));
    let mut compared = std::process::Command::new("cmp");
    assert!(compared.arg(&source).arg(&back).status().expect("cmp").success());

    // As an archive, for GNU tar and back.
    let archive = engine.dir().join("out.tar");
    let mut cp = engine.berth_command(&["cp", "box:/tmp/in", "-"]);
    cp.stdout(fs::File::create(&archive).expect("create"));
    assert!(cp.status().expect("cp").success());
    assert!(fs::metadata(&archive).expect("stat").len() < 1 << 20);
    let there = engine.dir().join("there");
    fs::create_dir(&there).expect("mkdir");
    let tar = std::process::Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&there).status();
    assert!(tar.expect("tar").success());
    assert!(on_disk(&there.join("in")) < 1 << 20);
    let made = engine.dir().join("made.tar");
    let mut tar = std::process::Command::new("tar");
    tar.args(["--format=posix", "-Scf"]).arg(&made).arg("-C").arg(engine.dir()).arg("sparse");
    assert!(tar.status().expect("tar").success());
    let bytes = fs::read(&made).expect("read");
    engine.berth_with_input(&["cp", "-", "box:/tmp"], &bytes).ok();
    let same = engine.berth(&["exec", "box", "cmp", "/tmp/in", "/tmp/sparse"]);
    assert_eq!(same.code, 0, "{}{}", same.stdout, same.stderr);
}
