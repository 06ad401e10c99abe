// SPDX-License-Identifier: Apache-2.0
//! Images: pulled, listed, tagged, loaded, removed.

use std::fs;

use serde_json::{Value, json};

use crate::support::{
    Image,
    engine::{self, with_busybox},
    image::{Builder, Layer},
};

#[test]
fn a_tag_that_moved_is_pulled_anew_and_one_that_did_not_is_up_to_date() {
    let Some((engine, registry)) = engine::with_registry() else { return };
    let old = registry.push(&tiny("old"), "team/app", "v1");
    let first = engine.berth(&["pull", "team/app:v1"]).ok();
    assert_eq!(
        first.stdout.lines().filter(|l| !l.ends_with(": Pull complete")).collect::<Vec<_>>(),
        [
            "v1: Pulling from team/app",
            &format!("Digest: {old}"),
            "Status: Downloaded newer image for team/app:v1",
            "docker.io/team/app:v1"
        ]
    );

    let same = engine.berth(&["pull", "team/app:v1"]).ok().stdout;
    assert!(same.contains("Status: Image is up to date for team/app:v1\n"), "{same}");

    let new = registry.push(&tiny("new"), "team/app", "v1");
    let moved = engine.berth(&["pull", "team/app:v1"]).ok().stdout;
    assert!(moved.contains(&format!("Digest: {new}\n")), "{moved}");
    assert!(moved.contains("Status: Downloaded newer image for team/app:v1\n"), "{moved}");
    assert_eq!(inspect(&engine, "team/app:v1")["Id"], tiny("new").config_digest());

    // The old one is still there, by its digest.
    let by_digest = engine.berth(&["pull", &format!("team/app@{old}")]).ok().stdout;
    assert!(by_digest.contains(&old), "{by_digest}");
}

#[test]
fn layers_that_are_here_are_not_fetched_again() {
    let Some((engine, registry)) = engine::with_registry() else { return };
    registry.push(&layered(&["shared", "first"]), "team/app", "1");
    registry.push(&layered(&["shared", "second"]), "team/app", "2");
    engine.berth(&["pull", "team/app:1"]).ok();
    let pull = engine.berth(&["pull", "team/app:2"]).ok().stdout;
    let lines = |end: &str| pull.lines().filter(|l| l.ends_with(end)).count();
    assert_eq!((lines(": Already exists"), lines(": Pull complete")), (1, 1), "{pull}");
}

#[test]
fn pull_quietly_prints_the_name_alone() {
    let Some((engine, registry)) = engine::with_registry() else { return };
    registry.push(&tiny("x"), "library/tiny", "latest");
    let pull = engine.berth(&["pull", "-q", "tiny"]).ok();
    assert_eq!((pull.line(), pull.stderr.as_str()), ("docker.io/library/tiny:latest", ""));
}

#[test]
fn images_lists_what_is_here() {
    let Some(engine) = with_busybox() else { return };
    let table = engine.berth(&["images"]).ok().stdout;
    let rows: Vec<Vec<&str>> =
        table.lines().map(|l| l.split("   ").map(str::trim).filter(|c| !c.is_empty()).collect()).collect();
    assert_eq!(rows[0], ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    let id = &short_id(&Image::busybox());
    assert_eq!(&rows[1][..3], ["busybox", "latest", id.as_str()]);
    assert!(rows[1][3].ends_with(" ago") && rows[1][4].ends_with("MB"), "{table}");

    assert_eq!(engine.berth(&["images", "-q"]).ok().line(), id);
    let full = engine.berth(&["images", "-q", "--no-trunc"]).ok();
    assert_eq!(full.line(), Image::busybox().config_digest());
    let names = engine.berth(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok();
    assert_eq!(names.line(), "busybox:latest");
    assert_eq!(engine.berth(&["images", "-q", "nothing"]).ok().line(), "");
}

#[test]
fn a_second_name_is_a_tag_and_the_last_one_takes_the_image_with_it() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["tag", "busybox", "team/tools:1"]).ok();
    let names = engine.berth(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok().stdout;
    assert_eq!(names.lines().count(), 2, "{names}");
    engine.berth(&["run", "--rm", "team/tools:1", "true"]).ok();

    let untagged = engine.berth(&["rmi", "busybox"]).ok();
    assert_eq!(untagged.line(), "Untagged: busybox:latest");
    let removed = engine.berth(&["rmi", "team/tools:1"]).ok().stdout;
    assert!(removed.starts_with("Untagged: team/tools:1\n"), "{removed}");
    let id = Image::busybox().config_digest().to_owned();
    assert!(removed.contains(&format!("Deleted: {id}\n")), "{removed}");
    assert_eq!(engine.berth(&["images", "-q"]).ok().line(), "");
    // Nothing of its files stays either.
    let left = crate::support::command::sh(
        "find",
        &[engine.dir().join("root").to_str().expect("UTF-8"), "-name", "busybox"],
    );
    assert_eq!(left, "");
}

#[test]
fn an_image_in_use_is_kept() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["create", "--name", "user", "busybox"]).ok();
    let refused = engine.berth(&["rmi", "busybox"]).exits(1).complains(&["conflict", "container"]);
    assert!(refused.stderr.contains("busybox"), "{}", refused.stderr);
    engine.berth(&["rm", "user"]).ok();
    engine.berth(&["rmi", "busybox"]).ok();
}

#[test]
fn several_names_of_one_id_ask_for_force() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["tag", "busybox", "other"]).ok();
    let id = &short_id(&Image::busybox());
    engine.berth(&["rmi", id]).exits(1).complains(&["conflict"]);
    engine.berth(&["rmi", "-f", id]).ok();
    assert_eq!(engine.berth(&["images", "-q"]).ok().line(), "");
}

#[test]
fn archives_of_both_kinds_are_loaded() {
    let Some(engine) = crate::support::Engine::start() else { return };
    let oci = tiny("oci").oci_archive("docker.io/team/oci:1");
    let said = engine.berth_with_input(&["load"], &oci).ok();
    assert_eq!(said.line(), "Loaded image: team/oci:1");

    let file = engine.dir().join("docker.tar");
    fs::write(&file, tiny("docker").docker_archive("team/docker:2")).expect("write");
    let said = engine.berth(&["load", "-i", file.to_str().expect("UTF-8")]).ok();
    assert_eq!(said.line(), "Loaded image: team/docker:2");

    assert_eq!(inspect(&engine, "team/oci:1")["Id"], tiny("oci").config_digest());
    assert_eq!(inspect(&engine, "team/docker:2")["Id"], tiny("docker").config_digest());
}

#[test]
fn a_pushed_image_comes_back_as_it_was() {
    let Some((engine, registry)) = engine::with_registry() else { return };
    let image = layered(&["one", "two"]);
    let pushed = registry.push(&image, "library/source", "1");
    engine.berth(&["pull", "source:1"]).ok();
    let at = |name: &str| format!("{}/{name}", registry.address());
    for tag in ["1", "2"] {
        engine.berth(&["tag", "source:1", &at(&format!("team/copy:{tag}"))]).ok();
    }
    let said = engine.berth(&["push", &at("team/copy:1")]).ok().stdout;
    let size = image.top().1.len();
    assert!(said.starts_with(&format!("The push refers to repository [{}]\n", at("team/copy"))), "{said}");
    assert!(said.ends_with(&format!("\n1: digest: {pushed} size: {size}\n")), "{said}");
    assert_eq!(said.matches(": Pushed\n").count(), 2, "{said}");

    // What is there is not sent again, and all tags go with -a.
    let again = engine.berth(&["push", "--all-tags", &at("team/copy")]).ok().stdout;
    assert_eq!(again.matches(": Layer already exists\n").count(), 2, "{again}");
    for tag in ["1", "2"] {
        assert!(again.contains(&format!("{tag}: digest: {pushed} size: {size}\n")), "{again}");
    }
    // Another repository of the registry has the layers: they are not sent.
    engine.berth(&["tag", "source:1", &at("team/mounted:1")]).ok();
    let mounted = engine.berth(&["push", &at("team/mounted:1")]).ok().stdout;
    assert_eq!(mounted.matches(": Mounted\n").count(), 2, "{mounted}");

    engine.berth(&["rmi", "-f", &at("team/mounted:1")]).ok();
    let pull = engine.berth(&["pull", &at("team/mounted:1")]).ok().stdout;
    assert!(pull.contains(&format!("Digest: {pushed}\n")), "{pull}");
}

#[test]
fn all_tags_of_a_repository_are_pulled() {
    let Some((engine, registry)) = engine::with_registry() else { return };
    let digests = ["1", "2", "edge"].map(|tag| registry.push(&tiny(tag), "team/app", tag));
    let said = engine.berth(&["pull", "--all-tags", "team/app"]).ok().stdout;
    for (tag, digest) in ["1", "2", "edge"].iter().zip(&digests) {
        let begin = said.find(&format!("{tag}: Pulling from team/app\n"));
        let end = said.find(&format!("Digest: {digest}\n"));
        assert!(begin.is_some() && begin < end, "{tag}: {said}");
    }
    let end = "\nStatus: Downloaded newer image for team/app\ndocker.io/team/app\n";
    assert!(said.ends_with(end) && said.matches("Status: ").count() == 1, "{said}");
    let again = engine.berth(&["pull", "-a", "team/app"]).ok().stdout;
    assert!(again.contains("Status: Image is up to date for team/app\n"), "{again}");
    let listed = engine.berth(&["images", "--format", "{{.Tag}}", "team/app"]).ok().stdout;
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["1", "2", "edge"]);

    engine.berth(&["pull", "-a", "team/app:1"]).exits(1).complains(&["tag can't be used with --all-tags/-a"]);
    engine.berth(&["pull", "-a", "team/none"]).exits(1).complains(&["pull access denied for team/none"]);
}

#[test]
fn a_private_registry_lets_in_who_has_logged_in() {
    let Some(engine) = crate::support::Engine::start() else { return };
    let registry = crate::support::registry::Registry::start_private();
    let (host, image) = (registry.address().to_string(), format!("{}/team/app:1", registry.address()));
    engine.load(&tiny("x"), "here");
    engine.berth(&["tag", "here", &image]).ok();
    let denied = |said: crate::support::command::Output| {
        assert!(said.stderr.contains("denied access"), "{said:?}");
        assert!(!said.stderr.contains("secret"), "{said:?}");
    };
    denied(engine.berth(&["push", &image]));
    let login = |password: &str| {
        engine.berth_with_input(&["login", "-u", "me", "--password-stdin", &host], password.as_bytes())
    };
    let wrong = login("secret2");
    assert!(wrong.stderr.contains("unauthorized: incorrect username or password"), "{wrong:?}");
    assert_eq!(login("secret").ok().line(), "Login Succeeded");
    engine.berth(&["push", &image]).ok();
    engine.berth(&["rmi", &image]).ok();
    engine.berth(&["pull", &image]).ok();
    engine.berth(&["logout", &host]).ok();
    denied(engine.berth(&["pull", &image]));
}

#[test]
fn what_cannot_be_pushed_is_said_in_dockers_words() {
    let Some(engine) = crate::support::Engine::start() else { return };
    let says = |args: &[&str], words: &str| {
        let said = engine.berth(args);
        assert!(said.stderr.contains(words), "{said:?}");
    };
    says(&["push", "127.0.0.1:1/none"], "An image does not exist locally with the tag: 127.0.0.1:1/none\n");
    engine.load(&tiny("x"), "here");
    engine.berth(&["tag", "here", "127.0.0.1:1/here"]).ok();
    says(&["push", "127.0.0.1:1/here"], "failed to reach registry 127.0.0.1:1: connection refused");
    let by_digest = format!("127.0.0.1:1/here@{}", tiny("x").config_digest());
    says(&["push", &by_digest], "cannot push a digest reference");
}

#[test]
fn what_is_saved_is_loaded_as_the_same_image() {
    let Some(engine) = crate::support::Engine::start() else { return };
    let archive = layered(&["one", "two"]).oci_archive("docker.io/team/saved:1");
    engine.berth_with_input(&["load"], &archive).ok();
    engine.berth(&["tag", "team/saved:1", "team/saved:2"]).ok();
    let id = inspect(&engine, "team/saved:1")["Id"].clone();
    let file = engine.dir().join("saved.tar");
    let path = file.to_str().expect("UTF-8");
    engine.berth(&["save", "-o", path, "team/saved"]).ok();
    let first = fs::read(&file).expect("read");
    engine.berth(&["save", "-o", path, "team/saved:1", "team/saved:2", "team/saved:1"]).ok();
    assert!(first == fs::read(&file).expect("read"), "the same images make the same archive");

    engine.berth(&["rmi", "team/saved:1", "team/saved:2"]).ok();
    let said = engine.berth(&["load", "-i", path]).ok();
    assert_eq!(said.stdout, "Loaded image: team/saved:1\nLoaded image: team/saved:2\n");
    assert_eq!(inspect(&engine, "team/saved:2")["Id"], id);

    let by_id = engine.berth(&["save", "-o", path, id.as_str().expect("text")]);
    by_id.ok();
    engine.berth(&["rmi", "-f", id.as_str().expect("text")]).ok();
    assert_eq!(
        engine.berth(&["load", "-i", path]).ok().line(),
        format!("Loaded image ID: {}", id.as_str().expect("text"))
    );
    let missing = engine.berth(&["save", "-o", path, "team/none"]);
    assert!(missing.stderr.contains("No such image: team/none:latest"), "{missing:?}");
}

#[test]
fn later_layers_hide_and_replace_what_earlier_ones_have() {
    let Some(engine) = crate::support::Engine::start() else { return };
    let mut base = Layer::new();
    for dir in ["a/", "opaque/", "kept/"] {
        base.dir(dir, 0o750);
    }
    for file in ["a/gone", "a/stays", "opaque/old", "kept/file"] {
        base.file(file, 0o644, b"base\n");
    }
    let mut top = Layer::new();
    top.file("a/.wh.gone", 0o644, b"");
    top.file("opaque/.wh..wh..opq", 0o644, b"");
    top.file("opaque/new", 0o644, b"top\n");
    // A directory that this layer only implies keeps its mode.
    top.file("kept/other", 0o644, b"top\n");
    let image = busybox_and(vec![base, top]);
    engine.load(&image, "layers");
    let script = "cd /; echo a/* opaque/* kept/*; stat -c %a kept";
    let said = engine.berth(&["run", "--rm", "layers", "sh", "-c", script]).ok();
    assert_eq!(said.stdout, "a/stays opaque/new kept/file kept/other\n750\n");
}

#[test]
fn the_images_configuration_is_what_runs() {
    let Some(engine) = crate::support::Engine::start() else { return };
    let image = Image::busybox_with(json!({
        "Entrypoint": ["sh", "-c", "echo $GREETING from $(id -un) in $(pwd): $0 $*"],
        "Cmd": ["one", "two"], "Env": ["GREETING=hello"], "User": "app", "WorkingDir": "/home/app",
        "Labels": {"com.example.kind": "test"},
    }));
    engine.load(&image, "configured");
    let said = engine.berth(&["run", "--rm", "configured"]).ok();
    assert_eq!(said.line(), "hello from app in /home/app: one two");
    let said = engine.berth(&["run", "--rm", "-e", "GREETING=bye", "configured", "three"]).ok();
    assert_eq!(said.line(), "bye from app in /home/app: three");
    let said = engine.berth(&["run", "--rm", "--entrypoint", "echo", "configured", "only"]).ok();
    assert_eq!(said.line(), "only");
    assert_eq!(inspect(&engine, "configured")["Config"]["Labels"]["com.example.kind"], "test");
}

/// A small image that is different for every `text`.
fn tiny(text: &str) -> Image {
    layered(&[text])
}

fn layered(texts: &[&str]) -> Image {
    let layers = texts.iter().map(|text| {
        let mut layer = Layer::new();
        layer.file(text, 0o644, text.as_bytes());
        layer
    });
    layers.fold(Builder::new(), Builder::layer).build()
}

fn busybox_and(layers: Vec<Layer>) -> Image {
    let base = Builder::new().layer(crate::support::image::busybox_layer());
    layers.into_iter().fold(base, Builder::layer).build()
}

fn short_id(image: &Image) -> String {
    image.config_digest()["sha256:".len()..][..12].to_owned()
}

fn inspect(engine: &crate::support::Engine, image: &str) -> Value {
    let text = engine.berth(&["inspect", "--type", "image", image]).ok().stdout;
    serde_json::from_str::<Value>(&text).expect("JSON")[0].take()
}
