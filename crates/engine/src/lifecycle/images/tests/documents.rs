// SPDX-License-Identifier: Apache-2.0
//! Manifests, indexes and configurations that somebody has tampered with: by
//! row, what a pull makes of each.

use serde_json::{Value, json};

use super::*;

/// What is changed: the configuration, then the manifest, then its text.
#[derive(Clone, Copy)]
enum Change {
    Config(fn(&mut Value)),
    Manifest(fn(&mut Value)),
    Text(fn(String) -> String),
}

type Row = (&'static str, Change, Option<(Kind, &'static str)>);

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

fn layer(manifest: &mut Value) -> &mut Value {
    &mut manifest["layers"][0]
}

const INVALID: Kind = Kind::InvalidArgument;

const ROWS: [Row; 45] = [
    ("nothing", Change::Text(|t| t), None),
    ("truncated", Change::Text(|t| t[..t.len() / 2].to_owned()), Some((INVALID, "invalid manifest"))),
    ("garbage behind it", Change::Text(|t| t + "x"), Some((INVALID, "invalid manifest"))),
    ("nested without end", Change::Text(|_| "[".repeat(100_000)), Some((INVALID, "invalid manifest"))),
    (
        "deeply nested in a field that nobody knows",
        Change::Text(|t| {
            t.replacen('{', &format!("{{\"x\":{}{},", "[".repeat(100_000), "]".repeat(100_000)), 1)
        }),
        None,
    ),
    (
        "layers twice",
        Change::Text(|t| t.replacen('{', "{\"layers\":[],", 1)),
        Some((INVALID, "duplicate field `layers`")),
    ),
    (
        "config twice",
        Change::Text(|t| t.replacen('{', "{\"config\":{\"digest\":\"x\",\"size\":1},", 1)),
        Some((INVALID, "duplicate field `config`")),
    ),
    ("schemaVersion 1", Change::Manifest(|m| m["schemaVersion"] = 1.into()), Some((INVALID, "schema 1"))),
    (
        "schemaVersion 0",
        Change::Manifest(|m| m["schemaVersion"] = 0.into()),
        Some((INVALID, "schemaVersion")),
    ),
    (
        "schemaVersion as text",
        Change::Manifest(|m| m["schemaVersion"] = text("2")),
        Some((INVALID, "schemaVersion")),
    ),
    ("layers and manifests", Change::Manifest(|m| m["manifests"] = json!([])), Some((INVALID, "both"))),
    (
        "a media type that isn't the header's",
        Change::Manifest(|m| m["mediaType"] = text("application/vnd.oci.image.index.v1+json")),
        Some((INVALID, "something else than the registry says")),
    ),
    (
        "no media type",
        Change::Manifest(|m| drop(m.as_object_mut().and_then(|m| m.remove("mediaType")))),
        None,
    ),
    ("an unknown media type", Change::Manifest(|m| m["mediaType"] = text("application/x")), None),
    (
        "no layers at all",
        Change::Manifest(|m| drop(m.as_object_mut().and_then(|m| m.remove("layers")))),
        Some((INVALID, "neither")),
    ),
    (
        "fewer layers than diff ids",
        Change::Manifest(|m| m["layers"] = json!([])),
        Some((INVALID, "it speaks of 2 layers, the manifest of 0")),
    ),
    (
        "too many layers",
        Change::Manifest(|m| m["layers"] = Value::Array(vec![m["layers"][0].clone(); 128])),
        Some((INVALID, "more than 127")),
    ),
    (
        "a hundred thousand layers",
        Change::Manifest(|m| m["layers"] = Value::Array(vec![json!({"digest": "x", "size": 1}); 100_000])),
        Some((INVALID, "")),
    ),
    ("size -1", Change::Manifest(|m| layer(m)["size"] = (-1).into()), Some((INVALID, "invalid manifest"))),
    (
        "size 2^64",
        Change::Manifest(|m| layer(m)["size"] = json!(18_446_744_073_709_551_616_f64)),
        Some((INVALID, "invalid manifest")),
    ),
    ("size 0", Change::Manifest(|m| layer(m)["size"] = 0.into()), Some((Kind::DataLoss, "damaged"))),
    ("size too small", Change::Manifest(|m| layer(m)["size"] = 10.into()), Some((Kind::DataLoss, "damaged"))),
    (
        "a configuration of 5 MiB",
        Change::Manifest(|m| m["config"]["size"] = (5 << 20).into()),
        Some((INVALID, "too large")),
    ),
    ("a digest in capitals", Change::Manifest(|m| upper(layer(m))), Some((INVALID, "invalid digest"))),
    (
        "a short digest",
        Change::Manifest(|m| layer(m)["digest"] = text("sha256:12")),
        Some((INVALID, "invalid digest")),
    ),
    (
        "a digest that is a path",
        Change::Manifest(|m| layer(m)["digest"] = text("sha256:../../x")),
        Some((INVALID, "invalid digest")),
    ),
    (
        "an unknown hash",
        Change::Manifest(|m| layer(m)["digest"] = text("md5:d41d8cd98f00b204e9800998ecf8427e")),
        Some((INVALID, "invalid digest")),
    ),
    (
        "a digest that nobody has",
        Change::Manifest(|m| layer(m)["digest"] = text(&format!("sha512:{}", "0".repeat(128)))),
        Some((Kind::NotFound, "blob unknown")),
    ),
    (
        "an artifact",
        Change::Manifest(|m| m["config"]["mediaType"] = text("application/vnd.cncf.helm.config.v1+json")),
        Some((Kind::FailedPrecondition, "artifact")),
    ),
    ("a subject", Change::Manifest(|m| m["subject"] = m["config"].clone()), None),
    ("embedded data that is something else", Change::Manifest(|m| layer(m)["data"] = text("eA==")), None),
    (
        "an annotation of a MiB",
        Change::Manifest(|m| m["annotations"] = json!({"x": "y".repeat(1 << 20)})),
        None,
    ),
    (
        "an unknown layer",
        Change::Manifest(|m| layer(m)["mediaType"] = text("application/x")),
        Some((INVALID, "unsupported layer media type")),
    ),
    (
        "a layer in bzip2",
        Change::Manifest(|m| layer(m)["mediaType"] = text("application/vnd.oci.image.layer.v1.tar+bzip2")),
        Some((INVALID, "unsupported layer media type")),
    ),
    (
        "said to be bare, and gzip",
        Change::Manifest(|m| layer(m)["mediaType"] = text("application/vnd.oci.image.layer.v1.tar")),
        Some((Kind::DataLoss, "damaged")),
    ),
    (
        "said to be zstd, and gzip",
        Change::Manifest(|m| layer(m)["mediaType"] = text("application/vnd.oci.image.layer.v1.tar+zstd")),
        Some((Kind::DataLoss, "damaged")),
    ),
    (
        "a foreign layer with URLs of its own",
        Change::Manifest(|m| {
            layer(m)["mediaType"] = text("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
            layer(m)["urls"] =
                json!(["http://169.254.169.254/", "file:///etc/passwd", "http://127.0.0.1:1/"]);
        }),
        None,
    ),
    (
        "more diff ids",
        Change::Config(|c| c["rootfs"]["diff_ids"] = json!([c["rootfs"]["diff_ids"][0]])),
        Some((INVALID, "it speaks of 1 layers")),
    ),
    (
        "another diff id",
        Change::Config(|c| c["rootfs"]["diff_ids"][0] = text(&format!("sha256:{}", "0".repeat(64)))),
        Some((Kind::DataLoss, "isn't what the image says")),
    ),
    (
        "layers of another kind",
        Change::Config(|c| c["rootfs"]["type"] = text("chunks")),
        Some((INVALID, "rootfs")),
    ),
    (
        "for another system",
        Change::Config(|c| c["os"] = text("windows")),
        Some((Kind::FailedPrecondition, "no matching manifest")),
    ),
    ("a time that is none", Change::Config(|c| c["created"] = text("1e99")), None),
    ("a history that doesn't fit", Change::Config(|c| c["history"] = json!([{"empty_layer": true}])), None),
    ("an entrypoint of null", Change::Config(|c| c["config"]["Entrypoint"] = Value::Null), None),
    (
        "labels that are numbers",
        Change::Config(|c| c["config"]["Labels"] = json!({"a": 1})),
        Some((INVALID, "configuration")),
    ),
];

fn upper(descriptor: &mut Value) {
    let digest = descriptor["digest"].as_str().unwrap_or_default().replacen("sha256:", "", 1);
    descriptor["digest"] = text(&format!("sha256:{}", digest.to_uppercase()));
}

fn changed(change: Change) -> TestImage {
    let mut image = TestImage::new("amd64", &[("hello", "world"), ("etc/motd", "hi")]);
    if let Change::Config(change) = change {
        let mut config: Value = serde_json::from_slice(&image.config).expect("json");
        change(&mut config);
        image.config = serde_json::to_vec(&config).expect("json");
    }
    let mut manifest: Value = serde_json::from_slice(&image.manifest).expect("json");
    manifest["config"]["digest"] = text(Digest::of(&image.config).as_str());
    manifest["config"]["size"] = image.config.len().into();
    if let Change::Manifest(change) = change {
        change(&mut manifest);
    }
    let mut written = serde_json::to_string(&manifest).expect("json");
    if let Change::Text(change) = change {
        written = change(written);
    }
    image.manifest = written.into_bytes();
    image
}

#[tokio::test(flavor = "multi_thread")]
async fn tampered_documents_are_refused_and_unusual_ones_are_not() {
    if !rooted() {
        return;
    }
    for (row, change, expected) in ROWS {
        let image = Arc::new(changed(change));
        let server = serving(&image);
        let place = Place::mirrored(&server);
        let pulled = place.pull(Place::request("hello-world")).await;
        match (pulled, expected) {
            (Ok(pulled), None) => assert_eq!(pulled.image_id, image.id(), "{row}"),
            (Err(error), Some((kind, words))) => {
                assert_eq!(error.kind(), kind, "{row}: {}", error.chain());
                assert!(error.chain().contains(words), "{row}: {}", error.chain());
                assert!(error.chain().len() < 2000, "{row}: it is said in bounds");
                place.assert_clean();
            }
            (Ok(_), Some(_)) => panic!("{row}: it was pulled"),
            (Err(error), None) => panic!("{row}: {}", error.chain()),
        }
    }
}

pub(super) fn index_of(entries: &[Value]) -> Vec<u8> {
    let index = "application/vnd.oci.image.index.v1+json";
    serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": index, "manifests": entries})).expect("json")
}

pub(super) fn entry(of: &[u8], media_type: &str, platform: Value) -> Value {
    json!({"mediaType": media_type, "digest": Digest::of(of).as_str(), "size": of.len(), "platform": platform})
}

#[tokio::test(flavor = "multi_thread")]
async fn indexes_are_followed_so_far_and_no_further() {
    if !rooted() {
        return;
    }
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let image = hello();
    let amd64 = || json!({"os": "linux", "architecture": "amd64"});
    let plain = index_of(&[entry(&image.manifest, MANIFEST, amd64())]);
    let unknown = index_of(&[
        entry(b"attestation", MANIFEST, json!({"os": "unknown", "architecture": "unknown"})),
        entry(&image.manifest, MANIFEST, amd64()),
    ]);
    let variant = index_of(&[
        entry(b"v3", MANIFEST, json!({"os": "linux", "architecture": "amd64", "variant": "v3"})),
        entry(&image.manifest, MANIFEST, amd64()),
    ]);
    let mut nested = vec![plain.clone()];
    for _ in 0..4 {
        let above = index_of(&[entry(nested.last().expect("one"), INDEX, amd64())]);
        nested.push(above);
    }
    let lying = index_of(&[entry(b"something else", MANIFEST, amd64())]);
    let other =
        index_of(&[entry(&image.manifest, MANIFEST, json!({"os": "linux", "architecture": "s390x"}))]);
    let many = index_of(&vec![entry(&image.manifest, MANIFEST, amd64()); 1001]);
    for (row, top, expected) in [
        ("plain", plain.clone(), None),
        ("an attestation", unknown, None),
        ("a newer variant first", variant, None),
        ("within another", nested[1].clone(), None),
        ("five deep", nested[4].clone(), Some((INVALID, "indexes within indexes"))),
        ("of what isn't there", lying, Some((Kind::NotFound, "not found"))),
        ("for others", other, Some((Kind::FailedPrecondition, "no matching manifest"))),
        ("of a thousand and one", many, Some((INVALID, "more than 1000"))),
    ] {
        let (served, all, first) = (Arc::clone(&image), nested.clone(), top.clone());
        let server = Server::start(move |request| {
            if request.path.ends_with("/manifests/latest") {
                return Reply::ok(&first).header("Content-Type", INDEX);
            }
            if let Some(below) = all.iter().find(|index| request.path.ends_with(Digest::of(index).as_str())) {
                return Reply::ok(below).header("Content-Type", INDEX);
            }
            match request.path.ends_with(Digest::of(&served.manifest).as_str())
                || request.path.contains("/blobs/")
            {
                true => served.answer(&request.path),
                false => Reply::status(404),
            }
        });
        let pulled = Place::mirrored(&server).pull(Place::request("hello-world")).await;
        match (pulled, expected) {
            (Ok(pulled), None) => {
                assert_eq!((pulled.image_id, pulled.digest), (image.id(), Digest::of(&top)), "{row}")
            }
            (Err(error), Some((kind, words))) => {
                assert_eq!(error.kind(), kind, "{row}: {}", error.chain());
                assert!(error.chain().contains(words), "{row}: {}", error.chain());
            }
            (result, _) => panic!("{row}: {result:?}"),
        }
    }
}
