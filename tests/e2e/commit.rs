// SPDX-License-Identifier: Apache-2.0
//! `berth commit` and `berth import`: images that are made here run, and go
//! through an archive like any other.

use std::{fs, path::Path};

use serde_json::Value;

use crate::support::{Engine, engine::with_busybox};

fn image(engine: &Engine, name: &str) -> Value {
    let text = engine.berth(&["image", "inspect", name]).ok().stdout;
    let mut list: Value = serde_json::from_str(&text).expect("JSON");
    list[0].take()
}

/// What a container of `name` prints.
fn said(engine: &Engine, name: &str, script: &str) -> String {
    engine.berth(&["run", "--rm", name, "sh", "-c", script]).ok().stdout
}

/// A base with something to change, hide and delete.
fn base(engine: &Engine) {
    let script = "mkdir -p /d/keep /d/gone /d/anew && echo 1 >/d/keep/f && echo 1 >/d/gone/f && \
                  echo 1 >/d/anew/old && echo 1 >/d/file";
    engine.berth(&["run", "--name", "base", "busybox", "sh", "-c", script]).ok();
    engine.berth(&["commit", "base", "base"]).ok();
}

#[test]
fn a_container_becomes_an_image_that_runs() {
    let Some(engine) = with_busybox() else { return };
    base(&engine);
    assert_eq!(said(&engine, "base", "cd /d && cat keep/f gone/f anew/old file"), "1\n1\n1\n1\n");
    let change = "cd /d && rm -r gone && rm -r anew && mkdir anew && echo 2 >anew/new && rm file && \
                  echo 2 >keep/f && ln keep/f same && chown 7:8 same && chmod 4750 same && mkfifo pipe && \
                  ln -s keep way && while :; do sleep 0.05; done";
    engine.berth(&["run", "-d", "--name", "work", "base", "sh", "-c", change]).ok();
    crate::support::until("the changes", || {
        (engine.berth(&["exec", "work", "test", "-L", "/d/way"]).code == 0).then_some(())
    });
    let flags = ["-a", "Ann", "-m", "why", "-c", "CMD [\"cat\", \"/d/anew/new\"]", "-c", "ENV WHERE=here"];
    let id = engine.berth(&[&["commit"][..], &flags, &["work", "work:2"]].concat()).ok();
    assert!(id.line().starts_with("sha256:"), "{}", id.stdout);
    assert_eq!(engine.status("work"), "running", "it goes on");

    let script = "cd /d && find . | sort && stat -c '%u:%g %a %h' same && cat keep/f && echo $WHERE";
    assert_eq!(
        said(&engine, "work:2", script),
        ".\n./anew\n./anew/new\n./keep\n./keep/f\n./pipe\n./same\n./way\n7:8 4750 2\n2\nhere\n"
    );
    assert_eq!(engine.berth(&["run", "--rm", "work:2"]).ok().stdout, "2\n");
    let seen = image(&engine, "work:2");
    assert_eq!(seen["Author"], "Ann");
    // Nothing is changed: no layer, but a line of history.
    engine.berth(&["create", "--name", "same", "work:2"]).ok();
    engine.berth(&["commit", "same", "same"]).ok();
    let layers = |name: &str| image(&engine, name)["RootFS"]["Layers"].as_array().expect("layers").len();
    assert_eq!(layers("same"), layers("work:2"));

    // Through an archive, and as docker load wants it.
    let archive = engine.dir().join("work.tar");
    engine.berth(&["save", "-o", archive.to_str().expect("text"), "work:2"]).ok();
    readable_by_docker(&archive, layers("work:2"));
    engine.berth(&["rm", "-f", "work", "same", "base"]).ok();
    engine.berth(&["rmi", "-f", "work:2", "same", "base"]).ok();
    engine.berth(&["load", "-i", archive.to_str().expect("text")]).ok();
    assert_eq!(engine.berth(&["run", "--rm", "work:2"]).ok().stdout, "2\n");
}

/// What `docker load` goes by: manifest.json, and everything it names.
fn readable_by_docker(archive: &Path, layers: usize) {
    let bytes = fs::read(archive).expect("read");
    let mut files = std::collections::HashMap::new();
    for entry in tar::Archive::new(&bytes[..]).entries().expect("tar") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a path").to_string_lossy().into_owned();
        let mut data = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut data).expect("data");
        files.insert(name, data);
    }
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).expect("JSON");
    let config: Value =
        serde_json::from_slice(&files[manifest[0]["Config"].as_str().expect("a config")]).expect("JSON");
    let named = manifest[0]["Layers"].as_array().expect("layers");
    let diff_ids = config["rootfs"]["diff_ids"].as_array().expect("diff ids");
    assert_eq!((named.len(), diff_ids.len()), (layers, layers));
    let with_layer = config["history"].as_array().expect("history").iter();
    assert!(with_layer.filter(|entry| entry["empty_layer"] != true).count() <= layers);
    for (name, diff_id) in named.iter().zip(diff_ids) {
        let packed = &files[name.as_str().expect("a name")];
        let mut plain = Vec::new();
        if packed.starts_with(&[0x1f, 0x8b]) {
            std::io::Read::read_to_end(&mut flate2::read::MultiGzDecoder::new(&packed[..]), &mut plain)
                .expect("gzip");
        } else {
            plain.clone_from(packed);
        }
        assert_eq!(crate::support::image::digest(&plain), diff_id.as_str().expect("text"));
    }
}

#[test]
fn what_can_not_be_committed_is_refused_and_leaves_nothing() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "-d", "--name", "box", "busybox", "sleep", "1000"]).ok();
    let refused = |flags: &[&str], words: &str| {
        engine.berth(&[&["commit"], flags].concat()).exits(1).complains(&[words]);
        assert_eq!(engine.status("box"), "running", "never left frozen");
    };
    refused(&["box", "Bad Name"], "invalid reference format");
    refused(&["-c", "FROM x", "box", "new"], "FROM is not a valid change command");
    refused(&["nobody", "new"], "No such container: nobody");
    engine.berth(&["exec", "box", "touch", "/.wh.trap"]).ok();
    refused(&["box", "new"], "another file is deleted");
    engine.berth(&["exec", "box", "rm", "/.wh.trap"]).ok();
    assert!(!engine.berth(&["images"]).ok().stdout.contains("new"));
    engine.berth(&["commit", "--pause=false", "box"]).ok();
    let dangling = engine.berth(&["images", "-q", "--filter", "dangling=true"]).ok().stdout;
    assert_eq!(dangling.lines().count(), 1);
}

#[test]
fn users_of_a_containers_own_are_the_images() {
    let Some(engine) = with_busybox() else { return };
    let script = "echo x >/f && chown 7:8 /f && mkdir /d";
    engine.berth(&["run", "--name", "mapped", "--userns", "auto", "busybox", "sh", "-c", script]).ok();
    engine.berth(&["commit", "mapped", "mapped"]).ok();
    assert_eq!(said(&engine, "mapped", "stat -c %u:%g /f /d"), "7:8\n0:0\n");
    // And of a copy, now that it doesn't run.
    let to = engine.dir().join("f");
    engine.berth(&["cp", "-a", "mapped:/f", to.to_str().expect("text")]).ok();
    let stat = fs::metadata(&to).expect("stat");
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!((stat.uid(), stat.gid()), (7, 8));
    engine.berth(&["cp", "-a", to.to_str().expect("text"), "mapped:/g"]).ok();
    engine.berth(&["commit", "mapped", "again"]).ok();
    assert_eq!(said(&engine, "again", "stat -c %u:%g /g /bin/busybox"), "7:8\n0:0\n");
}

#[test]
fn a_tar_archive_becomes_an_image() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "--name", "box", "busybox", "sh", "-c", "echo flat >/f; ln /f /g"]).ok();
    let rootfs = engine.dir().join("rootfs.tar");
    let path = rootfs.to_str().expect("text");
    engine.berth(&["export", "-o", path, "box"]).ok();
    let cmd = "CMD [\"cat\", \"/f\"]";
    engine.berth(&["import", "-c", cmd, "-m", "flat", "--platform", "linux/amd64", path, "flat:1"]).ok();
    assert_eq!(engine.berth(&["run", "--rm", "flat:1"]).ok().stdout, "flat\n");
    assert_eq!(said(&engine, "flat:1", "stat -c %h /g"), "2\n");
    // Compressed, from stdin, without a name.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &fs::read(&rootfs).expect("read")).expect("gzip");
    let packed = packed.finish().expect("gzip");
    let id = engine.berth_with_input(&["import", "-"], &packed).ok();
    assert_eq!(engine.berth(&["run", "--rm", id.line(), "cat", "/f"]).ok().stdout, "flat\n");

    let bad = |input: &[u8], words: &str| {
        engine.berth_with_input(&["import", "-", "spoilt"], input).exits(1).complains(&[words]);
    };
    bad(&b"no archive ".repeat(100), "layer is damaged");
    bad(&packed[..packed.len() / 2], "damaged");
    engine.berth(&["import", path, "spoilt@sha256:0"]).exits(1);
    engine.berth(&["import", "-c", "RUN x", path]).exits(1).complains(&["RUN is not a valid change command"]);
    engine.berth(&["import", "http://127.0.0.1/x"]).exits(1).complains(&["curl"]);
    // No id, which is hexadecimal, has such letters.
    assert!(!engine.berth(&["images"]).ok().stdout.contains("spoilt"));
}
