// SPDX-License-Identifier: Apache-2.0
//! What images take of the disk, how they come off it again, and what is said
//! of them meanwhile.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use serde_json::{Value, json};

use crate::support::{
    Engine, FakeRegistry, Image,
    command::sh,
    engine::{self, with_busybox},
    image::{Builder, Layer, busybox_layer},
};

/// An image of its own for each `text`, on a layer that they have in common.
fn image(text: &str, labels: &Value) -> Image {
    let mut layer = Layer::new();
    layer.file("text", 0o644, text.as_bytes());
    Builder::new()
        .layer(busybox_layer())
        .layer(layer)
        .config(json!({"Cmd": ["sh"], "Labels": labels}))
        .build()
}

fn names(engine: &Engine) -> Vec<String> {
    let said = engine.berth(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok().stdout;
    let mut names: Vec<String> = said.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// Bytes that du(1) counts below `path`.
fn du(path: &Path) -> u64 {
    let said = sh("du", &["-sx", "-B1", path.to_str().expect("UTF-8")]);
    said.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number")
}

#[test]
fn an_image_that_loses_its_name_dangles_and_is_pruned() {
    let Some((engine, registry)) = engine::with_registry() else { return };
    registry.push(&image("old", &json!({})), "team/app", "1");
    engine.berth(&["pull", "team/app:1"]).ok();
    let old = image("old", &json!({})).config_digest().to_owned();
    registry.push(&image("new", &json!({})), "team/app", "1");
    engine.berth(&["pull", "team/app:1"]).ok();

    let dangling = ["images", "-q", "--no-trunc", "--filter", "dangling=true"];
    assert_eq!(engine.berth(&dangling).ok().line(), old);
    let table = engine.berth(&["images"]).ok().stdout;
    assert!(table.lines().any(|line| line.starts_with("<none>  ") && line.contains("  <none>  ")), "{table}");
    assert!(engine.berth(&["images", "--tree"]).ok().stdout.contains("<untagged>"));

    let dry = engine.berth(&["image", "prune", "--dry-run"]).ok().stdout;
    let pruned = engine.berth(&["image", "prune", "-f"]).ok().stdout;
    assert!(pruned.starts_with(&format!("Deleted Images:\ndeleted: {old}\ndeleted: sha256:")), "{pruned}");
    // The layer in common stays, and the dry run had said so.
    assert_eq!(pruned.matches("deleted: ").count(), 2, "{pruned}");
    let space = |text: &str| text.rsplit_once(": ").expect("a sum").1.to_owned();
    assert_eq!((space(&dry), dry.matches("deleted: ").count()), (space(&pruned), 2), "{dry}");
    assert_eq!(engine.berth(&dangling).ok().stdout, "");
    assert_eq!(engine.berth(&["run", "--rm", "team/app:1", "cat", "/text"]).ok().stdout, "new");
    assert_eq!(engine.berth(&["image", "prune", "-f"]).ok().stdout, "Total reclaimed space: 0B\n");
}

#[test]
fn prune_takes_what_nothing_uses_and_pins_keep() {
    let Some(engine) = with_busybox() else { return };
    for (name, label) in [("plain", "no"), ("labelled", "yes"), ("pinned", "no"), ("used", "no")] {
        engine.load(&image(name, &json!({ "keep": label })), name);
    }
    engine.berth(&["create", "--name", "user", "used"]).ok();
    engine.berth(&["image", "pin", "pinned"]).ok();
    let shown = engine.berth(&["inspect", "-f", "{{.Pinned}}", "pinned"]).ok();
    assert_eq!(shown.line(), "true");
    let prune = |args: &[&str]| engine.berth(&[&["image", "prune", "-af"], args].concat()).ok().stdout;

    // All were made in 2024.
    assert_eq!(prune(&["--filter", "until=2023-01-01T00:00:00Z"]), "Total reclaimed space: 0B\n");
    let said = prune(&["--filter", "label!=keep=yes", "--filter", "until=1h", "--filter", "label=keep"]);
    assert!(said.contains("untagged: plain:latest\n"), "{said}");
    assert_eq!(names(&engine), ["busybox:latest", "labelled:latest", "pinned:latest", "used:latest"]);
    prune(&[]);
    assert_eq!(names(&engine), ["pinned:latest", "used:latest"]);
    engine.berth(&["image", "unpin", "pinned"]).ok();
    // With its container an image becomes unused.
    engine.berth_with_input(&["system", "prune", "-a"], b"no\n").ok();
    assert_eq!(names(&engine), ["pinned:latest", "used:latest"]);
    let said = engine.berth(&["system", "prune", "-af"]).ok().stdout;
    assert!(said.starts_with("Deleted Containers:\n") && said.contains("\nDeleted Images:\n"), "{said}");
    assert_eq!(names(&engine), [""; 0]);
    let root = engine.dir().join("root");
    let layers = fs::read_dir(root.join("snapshots")).expect("snapshots").count();
    let blobs = fs::read_dir(root.join("content/blobs/sha256")).expect("blobs").count();
    assert_eq!((layers, blobs), (1, 0), "nothing but the init layer");
}

#[test]
fn what_df_says_adds_up_to_what_du_says() {
    let Some((engine, registry)) = engine::with_registry() else { return };
    engine.load(&Image::busybox(), "busybox");
    engine.load(&image(&"unused".repeat(1_000_000), &json!({})), "unused");
    let script = "dd if=/dev/zero of=/file bs=1M count=3 2>/dev/null; yes | head -c 2000000";
    engine.berth(&["run", "--name", "done", "busybox", "sh", "-c", script]).ok();
    engine.berth(&["run", "-d", "--name", "running", "busybox", "sleep", "1000"]).ok();
    registry.push(&Image::busybox(), "library/pulled", "latest");
    // A download that broke off.
    let ingest = engine.dir().join("root/content/ingest").join(format!("sha256-{}", "a".repeat(64)));
    fs::write(&ingest, vec![1; 500_000]).expect("write");

    let json = engine.berth(&["system", "df", "--format", "json"]).ok().stdout;
    let rows: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let types: Vec<_> = rows.iter().map(|row| row["Type"].as_str().expect("a type")).collect();
    assert_eq!(types, ["Images", "Containers", "Container Logs", "Partial Downloads", "Metadata", "Total"]);
    let counts: Vec<_> =
        rows[..2].iter().map(|row| (row["TotalCount"].as_str(), row["Active"].as_str())).collect();
    assert_eq!(counts, [(Some("2"), Some("1")), (Some("2"), Some("1"))]);

    let usage = usage(&engine);
    let parts = [usage.images, usage.containers, usage.logs, usage.partial, usage.metadata];
    let parts: Vec<_> = parts.into_iter().map(|share| share.expect("a share")).collect();
    assert_eq!(parts.iter().map(|share| share.size).sum::<u64>(), usage.size);
    assert_eq!(usage.size, du(&engine.dir().join("root")));
    let blocks = |path: &Path| fs::metadata(path).expect("stat").blocks() * 512;
    assert_eq!((parts[3].total, parts[3].size), (1, blocks(&ingest)));
    assert!((3_000_000..4_000_000).contains(&parts[1].reclaimable), "{parts:?}");
    assert!(parts[2].size >= 2_000_000 && parts[2].reclaimable == parts[2].size, "{parts:?}");

    // What is said to be reclaimable is what a prune frees.
    engine.berth(&["image", "prune", "-af"]).ok();
    let left = self::usage(&engine).images.expect("a share");
    assert!(parts[0].reclaimable > 6_000_000, "{parts:?}");
    assert_eq!((left.size, left.reclaimable), (parts[0].size - parts[0].reclaimable, 0));

    let details = engine.berth(&["system", "df", "-v"]).ok().stdout;
    for part in ["Images space usage:", "SHARED SIZE", "Containers space usage:", "LOG SIZE", "Total: "] {
        assert!(details.contains(part), "{part}: {details}");
    }
    fs::remove_file(ingest).expect("remove");
}

fn usage(engine: &Engine) -> berth::api::v1::DiskUsageResponse {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let client = berth::Client::connect(&engine.address()).await.expect("connect");
        let request = berth::api::v1::DiskUsageRequest { verbose: true, ..Default::default() };
        client.system().disk_usage(request).await.expect("df").into_inner()
    })
}

#[test]
fn history_has_docker_s_columns() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "--name", "box", "busybox", "sh", "-c", "echo 12345 >/file"]).ok();
    engine.berth(&["commit", "-m", "by hand", "-c", "ENV A=b", "box", "made"]).ok();
    let table = engine.berth(&["history", "made"]).ok().stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("IMAGE          CREATED"), "{table}");
    let columns: Vec<&str> = lines[0].split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
    assert_eq!(columns, ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    let id = engine.berth(&["images", "-q", "made"]).ok();
    assert!(lines[1].starts_with(id.line()) && lines[1].contains("by hand"), "{table}");
    assert!(lines[1].contains("  6B  "), "{table}");
    let raw =
        engine.berth(&["history", "--human=false", "--no-trunc", "--format", "{{.ID}} {{.Size}}", "made"]);
    let whole = engine.berth(&["images", "-q", "--no-trunc", "made"]).ok().line().to_owned();
    assert_eq!(raw.ok().stdout.lines().next(), Some(&*format!("{whole} 6")));
    assert_eq!(engine.berth(&["history", "-q", "made"]).ok().stdout.lines().next(), Some(id.line()));
    engine.berth(&["history", "nothing"]).exits(1).complains(&["No such image: nothing:latest"]);
}

#[test]
fn rmi_goes_by_docker_s_rules() {
    let Some((engine, registry)) = engine::with_registry() else { return };
    let digest = registry.push(&image("x", &json!({})), "team/app", "1");
    engine.berth(&["pull", "team/app:1"]).ok();
    engine.berth(&["pull", &format!("team/app@{digest}")]).ok();
    // With the last tag goes the name by digest, and with both the image.
    let said = engine.berth(&["rmi", "team/app:1"]).ok().stdout;
    assert!(
        said.starts_with(&format!("Untagged: team/app:1\nUntagged: team/app@{digest}\nDeleted: ")),
        "{said}"
    );
    assert_eq!(names(&engine), [""; 0]);

    engine.load(&Image::busybox(), "busybox");
    engine.berth(&["tag", "busybox", "busybox:two"]).ok();
    let id = engine.berth(&["images", "-q", "busybox:two"]).ok().line().to_owned();
    let refused = engine.berth(&["rmi", &id]).exits(1);
    let words = format!(
        "conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories"
    );
    assert!(refused.stderr.contains(&words), "{refused:?}");
    engine.berth(&["rmi", "busybox:two"]).ok();
    engine.berth(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let refused = engine.berth(&["rmi", "-f", &id]).exits(1);
    assert!(refused.stderr.contains("(cannot be forced) - image is being used by running container"));
    engine.berth(&["kill", "box"]).ok();
    engine.wait("box");
    let refused = engine.berth(&["rmi", &id]).exits(1);
    assert!(refused.stderr.contains("(must be forced) - image is being used by stopped container"));
    engine.berth(&["rm", "box"]).ok();
    let said = engine.berth(&["rmi", &id]).ok().stdout;
    assert!(said.starts_with("Untagged: busybox:latest\nDeleted: "), "{said}");
}

#[test]
fn filters_choose_images() {
    let Some(engine) = with_busybox() else { return };
    engine.load(&image("one", &json!({"team": "web"})), "team-one");
    engine.load(&image("two", &json!({"team": "db"})), "team-two");
    let found = |filter: &str| {
        let said = engine.berth(&["images", "--filter", filter, "--format", "{{.Repository}}"]).ok().stdout;
        let mut found: Vec<String> = said.lines().map(str::to_owned).collect();
        found.sort();
        found.join(" ")
    };
    let all = "busybox team-one team-two";
    for (filter, expected) in [
        ("label=team", "team-one team-two"),
        ("label=team=web", "team-one"),
        ("reference=team-*", "team-one team-two"),
        ("reference=*:latest", all),
        ("dangling=false", all),
        ("dangling=true", ""),
        ("before=team-one", ""),
        ("since=busybox", ""),
        ("until=1h", all),
        ("until=2023-01-01T00:00:00Z", ""),
    ] {
        assert_eq!(found(filter), expected, "{filter}");
    }
    engine.berth(&["images", "--filter", "color=red"]).exits(1).complains(&["invalid filter 'color'"]);
    engine.berth(&["images", "--filter", "before=none"]).exits(1).complains(&["No such image: none:latest"]);
}

#[test]
fn an_image_is_mounted_for_as_long_as_somebody_looks() {
    let Some(mut engine) = with_busybox() else { return };
    engine.load(&image("mounted", &json!({})), "image");
    let at = engine.dir().join("at");
    let path = at.to_str().expect("UTF-8").to_owned();
    engine.berth(&["image", "mount", "image", &path]).exits(1).complains(&["No such file or directory"]);
    fs::create_dir(&at).expect("mkdir");
    assert_eq!(engine.berth(&["image", "mount", "image", &path]).ok().line(), path);
    let text = || fs::read_to_string(at.join("text")).unwrap_or_default();
    assert_eq!(text(), "mounted");
    assert!(fs::write(at.join("text"), "x").is_err() && !at.join("dev").exists());
    engine.berth(&["image", "mount", "busybox", &path]).exits(1).complains(&["is mounted at", "already"]);
    let id = engine.berth(&["images", "-q", "image"]).ok().line().to_owned();
    let list = engine.berth(&["image", "mount"]).ok().stdout;
    assert!(list.lines().any(|line| line.starts_with(&id) && line.ends_with(&path)), "{list}");

    // It keeps the image, and outlives the engine, which isn't asked.
    let refused = engine.berth(&["rmi", "-f", "image"]).exits(1);
    assert!(refused.stderr.contains(&format!("image is mounted at {path}")), "{refused:?}");
    engine.berth(&["image", "prune", "-af"]).ok();
    assert_eq!(names(&engine), ["image:latest"]);
    engine.kill9();
    assert_eq!(text(), "mounted");
    engine.restart();
    assert_eq!(engine.berth(&["image", "mount"]).ok().stdout, list);

    let open = fs::File::open(at.join("text")).expect("open");
    engine.berth(&["image", "unmount", &path]).exits(1).complains(&["is in use"]);
    drop(open);
    engine.berth(&["image", "unmount", &path]).ok();
    assert!(!at.join("text").exists());
    engine.berth(&["image", "unmount", &path]).exits(1).complains(&["no image is mounted at"]);

    // What somebody else has taken away is forgotten by the next engine, and
    // what they have put there instead is theirs.
    engine.berth(&["image", "mount", "image", &path]).ok();
    nix::mount::umount2(&at, nix::mount::MntFlags::empty()).expect("umount");
    let other = Small::mount_at(&at);
    engine.kill9();
    engine.restart();
    assert_eq!(engine.berth(&["image", "mount"]).ok().stdout.lines().count(), 1);
    engine.berth(&["rmi", "image"]).ok();
    drop(other);
}

/// A file system of 256 MiB for the store, for as long as it lives.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(root: std::path::PathBuf) -> Self {
        fs::create_dir(&root).expect("mkdir");
        Self::mount_at(&root)
    }

    fn mount_at(at: &Path) -> Self {
        use nix::mount::{MsFlags, mount};
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("size=256m")).expect("mount");
        Self(at.to_owned())
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// What doesn't compress.
fn noise(seed: u8, bytes: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(random).take(bytes / 8).flatten().collect()
}

/// 20 MB on the disk: half of them the layer's blob, half its files.
fn heavy(seed: u8) -> Image {
    let mut layer = Layer::new();
    layer.file("random", 0o644, &noise(seed, 10_000_000));
    Builder::new().layer(layer).config(json!({"Cmd": ["/random"]})).build()
}

const MARKS: &str = "[images]\ngc_high = \"100m\"\ngc_low = \"75m\"\ngc_min_age = 0\ngc_interval = 1\n";

/// Loads five images of 20 MB: one in use, one pinned, and of the other three
/// `d` was used last.
fn fill(engine: &Engine) {
    for (name, seed) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        engine.load(&heavy(seed), name);
    }
    engine.berth(&["create", "--name", "user", "a"]).ok();
    engine.berth(&["image", "pin", "b"]).ok();
    assert_eq!(names(engine).len(), 4, "the disk isn't full yet");
    let archive = heavy(5).oci_archive("docker.io/library/e:latest");
    engine.berth(&["create", "--name", "once", "d"]).ok();
    engine.berth(&["rm", "once"]).ok();
    engine.berth_with_input(&["load"], &archive).ok();
}

#[test]
fn a_disk_that_fills_up_loses_what_was_unused_for_longest() {
    let Some(mut engine) = Engine::prepare(MARKS) else { return };
    let disk = Small::mount(engine.dir().join("root"));
    engine.restart();
    fill(&engine);
    crate::support::until("a collection", || (names(&engine).len() <= 3).then_some(()));
    assert_eq!(names(&engine), ["a:latest", "b:latest", "e:latest"]);
    assert!(
        engine.log().contains("unused images are removed images=\"c:latest d:latest\""),
        "{}",
        engine.log()
    );
    engine.berth(&["rm", "user"]).ok();
    assert_eq!(engine.stop(), 0);
    drop(disk);
}

#[test]
fn a_dry_run_removes_nothing() {
    let Some(mut engine) = Engine::prepare(&format!("{MARKS}gc_dry_run = true\n")) else { return };
    let disk = Small::mount(engine.dir().join("root"));
    engine.restart();
    fill(&engine);
    let said = "a collection would remove images=\"docker.io/library/c:latest docker.io/library/d:latest\"";
    crate::support::until("a dry run", || engine.log().contains(said).then_some(()));
    assert_eq!(names(&engine).len(), 5);
    engine.berth(&["rm", "user"]).ok();
    assert_eq!(engine.stop(), 0);
    drop(disk);
}

#[test]
fn archives_in_a_directory_are_loaded_at_the_start() {
    let Some(mut engine) = Engine::prepare("") else { return };
    let archives = engine.dir().join("archives");
    fs::create_dir(&archives).expect("mkdir");
    let config = format!("[images]\npreload = {:?}\n", archives.to_str().expect("UTF-8"));
    fs::write(engine.dir().join("config.toml"), config).expect("write");
    fs::write(archives.join("bad.tar"), b"this is no archive").expect("write");
    fs::write(archives.join("one.tar"), image("one", &json!({})).oci_archive("docker.io/library/one:1"))
        .expect("write");
    fs::write(archives.join("two.tar"), image("two", &json!({})).docker_archive("two:2")).expect("write");
    fs::write(archives.join(".hidden.tar"), image("three", &json!({})).docker_archive("three:3"))
        .expect("write");
    engine.restart();
    let all = ["one:1", "two:2"];
    let loaded = |engine: &Engine| {
        crate::support::until("the archives to be loaded", || (names(engine) == all).then_some(()));
    };
    loaded(&engine);
    let log = engine.log();
    let warned = log.lines().find(|line| line.contains("WARN") && line.contains("bad.tar"));
    assert!(warned.is_some_and(|line| line.contains("invalid archive")), "{log}");
    assert_eq!(engine.berth(&["run", "--rm", "two:2", "cat", "/text"]).ok().stdout, "two");

    // What is here isn't read again; what is gone or has changed comes (back).
    let preloads = |engine: &Engine| engine.log().matches(" preloaded archive=").count();
    assert_eq!(preloads(&engine), 2);
    engine.stop();
    engine.restart();
    let bad = |engine: &Engine| engine.log().matches("bad.tar").count();
    crate::support::until("the second start's preload", || (bad(&engine) == 2).then_some(()));
    engine.berth(&["rmi", "one:1"]).ok();
    engine.stop();
    engine.restart();
    loaded(&engine);
    assert_eq!(preloads(&engine), 3);
}

/// Pulls `image` again and again onto a disk that has `step` bytes more each
/// time, until it has all. How often it hadn't, and how many bytes of layers came
/// in all.
fn pull_while_the_disk_grows(image: &Image, step: u64) -> Option<(u32, u64)> {
    use nix::mount::{MsFlags, mount};
    let registry = FakeRegistry::serving(image, "library/noisy", "latest");
    let mut engine = Engine::prepare_mirrored(registry.address())?;
    let root = engine.dir().join("root");
    let disk = Small::mount(root.clone());
    engine.set("BERTH_LOG", "info,berth_engine::image=debug");
    engine.restart();
    let used = || {
        let disk = nix::sys::statvfs::statvfs(&root).expect("statvfs");
        (disk.blocks() - disk.blocks_free()) * disk.fragment_size()
    };
    let mut size = used();
    let mut failures = 0;
    loop {
        size += step;
        let options = format!("size={size}");
        mount(None::<&str>, &root, None::<&str>, MsFlags::MS_REMOUNT, Some(&*options)).expect("remount");
        let pulled = engine.berth(&["pull", "-q", "noisy"]);
        if pulled.code == 0 {
            break;
        }
        pulled.exits(1).complains(&["No space left on device"]);
        failures += 1;
        // What was being unpacked goes behind the caller's back.
        crate::support::until("the layers to be gone", || {
            let left = fs::read_dir(root.join("snapshots")).expect("list").count();
            (left == 1).then_some(())
        });
        assert_eq!(engine.berth(&["images", "-aq"]).ok().stdout, "");
        engine.fsck(&[]).ok();
    }
    let received = engine.received_bytes(image.layers());
    mount(None::<&str>, &root, None::<&str>, MsFlags::MS_REMOUNT, Some("size=256m")).expect("remount");
    engine.berth(&["pull", "-q", "--verify", "noisy"]).ok();
    engine.fsck(&["--digests"]).ok();
    engine.berth(&["rmi", "noisy"]).ok();
    assert_eq!(engine.stop(), 0);
    drop(disk);
    Some((failures, received))
}

/// Row 13 of what layers can do: the disk is full at one byte after the other.
#[test]
fn a_disk_that_is_full_at_any_moment_of_a_pull_stops_that_pull_alone() {
    let Some((failures, _)) = pull_while_the_disk_grows(&Image::noisy(), 128 << 10) else { return };
    assert!(failures > 3, "the disk was full {failures} times");
}

/// There is room for all that comes as soon as what was unpacked is gone.
#[test]
fn what_came_before_the_disk_was_full_does_not_come_again() {
    let mut layer = Layer::new();
    layer.file("large", 0o644, &b"much that takes little on its way ".repeat(1_500_000));
    layer.file("noise", 0o644, &noise(9, 2_000_000));
    let image = Builder::new().layer(layer).config(json!({"Cmd": ["/noise"]})).build();
    let Some((failures, received)) = pull_while_the_disk_grows(&image, 4 << 20) else { return };
    assert!(failures > 3, "the disk was full {failures} times");
    let layer = image.blobs().find(|(digest, _)| image.layers().contains(digest)).expect("a layer").1;
    let limit = layer.len() + layer.len() / 100;
    assert!(received <= limit as u64, "{received} bytes came in {failures} attempts, of {}", layer.len());
}
