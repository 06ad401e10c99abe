// SPDX-License-Identifier: Apache-2.0
//! Archives of images, to and from berth itself and the programs that others
//! use.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::support::{
    Engine, Image,
    image::{Builder, Layer, busybox_layer},
    peers::{self, Docker, Podman, skopeo},
};

/// Three layers, one of them large, one that removes something.
fn image() -> Image {
    let mut middle = Layer::new();
    middle.dir("data/", 0o2750);
    middle.file("data/gone", 0o600, b"gone\n");
    middle.file("data/kept", 0o4755, &[7; 700_000]);
    let mut top = Layer::new();
    top.file("data/.wh.gone", 0o644, b"");
    Builder::new()
        .layer(busybox_layer())
        .layer(middle)
        .layer(top)
        .config(json!({"Cmd": ["sh"], "Labels": {"a": "b"}}))
        .build()
}

const NAME: &str = "example.com/team/saved:1";

struct Place {
    engine: Engine,
    dir: tempfile::TempDir,
}

impl Place {
    /// An engine that has the image.
    fn new() -> Option<Self> {
        let engine = Engine::start()?;
        engine.berth_with_input(&["load"], &image().oci_archive(NAME)).ok();
        Some(Self { engine, dir: tempfile::tempdir().expect("tempdir") })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Saves the image; where.
    fn save(&self, name: &str, args: &[&str]) -> String {
        let path = self.path(name).display().to_string();
        self.engine.berth(&[&["save", "-o", &path], args, &[NAME]].concat()).ok();
        path
    }

    /// Loads an archive into the emptied engine: it is the same image.
    #[track_caller]
    fn assert_loads(&self, path: &str) {
        let id = self.load(path);
        assert_eq!(id, image().config_digest(), "{path}");
    }

    /// Loads an archive into the emptied engine: the files are there. The id.
    #[track_caller]
    fn load(&self, path: &str) -> String {
        self.engine.berth(&["image", "prune", "-af"]).ok();
        let said = self.engine.berth(&["load", "-i", path]).ok();
        assert_eq!(said.stdout.lines().count(), 1, "{path}: {said:?}");
        let name = said.line().rsplit(' ').next().expect("a name").to_owned();
        assert!(name == NAME || name.starts_with("sha256:"), "{path}: {said:?}");
        let script = "ls data; stat -c '%a %s' data/kept; stat -c %a data";
        let said = self.engine.berth(&["run", "--rm", &name, "sh", "-c", script]).ok();
        assert_eq!(said.stdout, "kept\n4755 700000\n2750\n", "{path}");
        self.engine.berth(&["tag", &name, NAME]).ok();
        self.engine.berth(&["images", "-q", "--no-trunc", NAME]).ok().line().to_owned()
    }
}

fn size(path: &str) -> u64 {
    fs::metadata(path).expect("stat").len()
}

#[test]
fn what_is_saved_in_any_form_is_loaded_again() {
    let Some(place) = Place::new() else { return };
    let plain = place.save("both.tar", &[]);
    place.assert_loads(&plain);
    for format in ["docker-archive", "oci-archive"] {
        for compress in ["", "gzip", "zstd"] {
            let mut args = vec!["--format", format];
            if !compress.is_empty() {
                args.extend(["--compress", compress]);
            }
            let path = place.save(&format!("{format}.{compress}"), &args);
            let magic = match compress {
                "gzip" => &[0x1f, 0x8b][..],
                "zstd" => &[0x28, 0xb5, 0x2f, 0xfd],
                _ => b"",
            };
            assert!(fs::read(&path).expect("read").starts_with(magic), "{path}");
            place.assert_loads(&path);
        }
    }
    // Bare layers, and the same layers packed again.
    assert!(size(&place.save("docker.tar", &["--format", "docker-archive"])) > size(&plain) + 500_000);
    // From standard input, in pieces.
    let archive = fs::read(&plain).expect("read");
    place.engine.berth(&["rmi", NAME]).ok();
    assert_eq!(
        place.engine.berth_with_input(&["load"], &archive).ok().line(),
        format!("Loaded image: {NAME}")
    );
}

#[test]
fn layouts_are_written_and_read_as_directories() {
    let Some(place) = Place::new() else { return };
    let path = place.save("layout", &["--format", "oci-dir"]);
    for name in ["oci-layout", "index.json", "blobs/sha256"] {
        assert!(Path::new(&path).join(name).exists(), "{name}");
    }
    place.assert_loads(&path);
    let refused = place.engine.berth(&["save", "--format", "oci-dir", "-o", &path, NAME]).exits(1);
    assert!(refused.stderr.contains("the directory is not empty"), "{refused:?}");
    place.engine.berth(&["save", "--format", "oci-dir", NAME]).exits(1).complains(&["it needs -o DIR"]);
    let empty = place.path("empty").display().to_string();
    fs::create_dir(&empty).expect("mkdir");
    place.engine.berth(&["load", "-i", &empty]).exits(1).complains(&["no OCI image layout"]);
    // A damaged blob is nothing of an image.
    let layer = fs::read_dir(Path::new(&path).join("blobs/sha256")).expect("blobs").flatten();
    let large = layer.map(|entry| entry.path()).max_by_key(|path| fs::metadata(path).expect("stat").len());
    let large = large.expect("a blob");
    let mut bytes = fs::read(&large).expect("read");
    bytes[1000] ^= 1;
    fs::write(&large, bytes).expect("write");
    place.engine.berth(&["rmi", NAME]).ok();
    place.engine.berth(&["load", "-i", &path]).exits(1).complains(&["is damaged"]);
    assert_eq!(place.engine.berth(&["images", "-q"]).ok().stdout, "");
}

#[test]
fn skopeo_takes_what_is_saved_and_the_other_way_round() {
    let Some(place) = Place::new() else { return };
    if !peers::has("skopeo") {
        return;
    }
    let copy = |from: &str, to: &str| skopeo(place.dir.path(), &["copy", "--quiet", from, to]).ok();
    let docker = place.save("docker.tar", &["--format", "docker-archive"]);
    let oci = place.save("oci.tar", &["--format", "oci-archive"]);
    let dir = place.save("dir", &["--format", "oci-dir"]);
    let both = place.save("both.tar", &[]);
    let packed = place.save("docker.tar.zst", &["--format", "docker-archive", "--compress", "zstd"]);
    let there = |name: &str| place.path(name).display().to_string();
    copy(&format!("docker-archive:{docker}"), &format!("oci-archive:{}", there("1")));
    copy(&format!("oci-archive:{oci}"), &format!("docker-archive:{}:{NAME}", there("2")));
    copy(&format!("oci:{dir}"), &format!("oci:{}", there("3")));
    copy(&format!("docker-archive:{both}"), &format!("docker-archive:{}:{NAME}", there("4")));
    copy(&format!("docker-archive:{packed}"), &format!("oci:{}", there("5")));
    // From one form to the other it writes another configuration.
    for name in ["1", "2"] {
        place.load(&there(name));
    }
    place.assert_loads(&there("3"));
    place.assert_loads(&there("4"));
}

#[test]
fn podman_takes_what_is_saved_and_the_other_way_round() {
    let Some(place) = Place::new() else { return };
    if !peers::has("podman") {
        return;
    }
    let podman = Podman::new(place.dir.path());
    for (format, compress) in
        [("docker-archive", None), ("oci-archive", None), ("docker-archive", Some("zstd"))]
    {
        let compress = compress.map_or(Vec::new(), |how| vec!["--compress", how]);
        let path = place.save(
            &format!("to-{format}{}", compress.len()),
            &[&["--format", format], &compress[..]].concat(),
        );
        podman.run(&["load", "-q", "-i", &path]).ok();
        let id = podman.run(&["images", "-q", "--no-trunc", NAME]).ok().line().to_owned();
        assert_eq!(id, image().config_digest(), "{format}");
        let back = place.path(&format!("from-{format}{}", compress.len())).display().to_string();
        podman.run(&["save", "-q", "--format", format, "-o", &back, NAME]).ok();
        podman.run(&["rmi", "-f", NAME]).ok();
        place.assert_loads(&back);
    }
}

#[test]
fn docker_takes_what_is_saved_and_the_other_way_round() {
    let Some(place) = Place::new() else { return };
    if !peers::has("dockerd") {
        return;
    }
    let docker = Docker::start(place.dir.path());
    let version = docker.run(&["version", "-f", "{{.Server.Version}}"]).ok().line().to_owned();
    let major: u32 = version.split('.').next().and_then(|n| n.parse().ok()).expect("a version");
    let knows_zstd = major >= 23;
    let packed = place.save("docker.tar.zst", &["--format", "docker-archive", "--compress", "zstd"]);
    assert_eq!(docker.run(&["load", "-i", &packed]).code == 0, knows_zstd, "{version}");
    let forms: [(&str, &[&str]); 3] = [
        ("both.tar", &[]),
        ("docker.tar", &["--format", "docker-archive"]),
        ("docker.tar.gz", &["--format", "docker-archive", "--compress", "gzip"]),
    ];
    for (name, args) in forms {
        let path = place.save(name, args);
        let said = docker.run(&["load", "-i", &path]).ok().stdout;
        assert!(said.contains(&format!("Loaded image: {NAME}")), "{name}: {said}");
        let id = docker.run(&["inspect", "-f", "{{.Id}}", NAME]).ok();
        assert_eq!(id.line(), image().config_digest(), "{name}");
        let back = place.path(&format!("back-{name}")).display().to_string();
        docker.run(&["save", "-o", &back, NAME]).ok();
        docker.run(&["rmi", NAME]).ok();
        place.assert_loads(&back);
    }
    if !peers::has("skopeo") {
        return;
    }
    // Layers that came as zstd stay so, but in the form that is Docker's own.
    let (plain, zstd) =
        (place.save("plain.tar", &["--format", "oci-archive"]), place.path("zstd").display().to_string());
    let format = ["--dest-compress", "--dest-compress-format", "zstd", "--dest-force-compress-format"];
    let (from, to) = (format!("oci-archive:{plain}"), format!("oci:{zstd}:{NAME}"));
    let known = skopeo(place.dir.path(), &["copy", "--help"]).ok().stdout.contains(format[3]);
    let format = if known { &format[..] } else { &format[..3] };
    skopeo(place.dir.path(), &[&["copy", "--quiet"], format, &[&from, &to]].concat()).ok();
    place.load(&zstd);
    let docker_archive = place.save("of-zstd.tar", &["--format", "docker-archive"]);
    docker.run(&["load", "-i", &docker_archive]).ok();
}
