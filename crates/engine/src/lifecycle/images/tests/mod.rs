// SPDX-License-Identifier: Apache-2.0
//! Pulls from a registry of our own that behaves as badly as a test asks.

mod auth;
mod documents;
mod hostile;
mod layers;
mod push;
mod registry;
mod repair;
mod tags;

use std::{collections::BTreeMap, io::Write as _, sync::Arc};

use berth::ids::Namespace;
use bytes::Bytes;

use self::registry::{Reply, Server};
use super::*;
use crate::{
    domain::digest::Digest,
    error::{Context as _, Error, Kind},
    image::{platform::Platform, registry::auth::Credentials, registry::hosts::HostConfig},
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image as a registry holds it.
struct TestImage {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layers: Vec<Vec<u8>>,
}

impl TestImage {
    fn new(architecture: &str, files: &[(&str, &str)]) -> Self {
        let tars: Vec<Vec<u8>> = files.iter().map(|(path, data)| tar(path, data)).collect();
        let layers: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
        let config = serde_json::json!({
            "architecture": architecture, "os": "linux", "created": "2024-01-02T03:04:05Z",
            "config": {"Cmd": ["/hello"], "Labels": {"a": "b"}},
            "rootfs": {"type": "layers", "diff_ids": tars.iter().map(|t| Digest::of(t).to_string()).collect::<Vec<_>>()},
        });
        let config = serde_json::to_vec(&config).expect("json");
        let descriptor = |media_type: &str, bytes: &[u8]| serde_json::json!({"mediaType": media_type, "digest": Digest::of(bytes).as_str(), "size": bytes.len()});
        let layer_type = "application/vnd.oci.image.layer.v1.tar+gzip";
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": layers.iter().map(|layer| descriptor(layer_type, layer)).collect::<Vec<_>>(),
        });
        Self { manifest: serde_json::to_vec(&manifest).expect("json"), config, layers }
    }

    fn id(&self) -> Digest {
        Digest::of(&self.config)
    }

    /// What an honest registry answers for `path`.
    fn answer(&self, path: &str) -> Reply {
        if path.contains("/manifests/") {
            return Reply::ok(&self.manifest).header("Content-Type", MANIFEST);
        }
        let blobs = self.layers.iter().chain([&self.config]);
        for blob in blobs {
            if path.ends_with(Digest::of(blob).as_str()) {
                return Reply::ok(blob);
            }
        }
        Reply::status(404)
    }
}

fn tar(path: &str, data: &str) -> Vec<u8> {
    let mut header = ::tar::Header::new_gnu();
    header.set_size(data.len() as u64);
    header.set_mode(0o644);
    let mut builder = ::tar::Builder::new(Vec::new());
    builder.append_data(&mut header, path, data.as_bytes()).expect("append");
    builder.into_inner().expect("finish")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("gzip");
    encoder.finish().expect("gzip")
}

/// An engine's image half in a directory of its own.
struct Place {
    root: tempfile::TempDir,
    images: Arc<Images>,
    db: Arc<Db>,
}

impl Place {
    fn new(config: RegistryConfig) -> Self {
        let root = tempfile::tempdir().expect("tempdir");
        let db = Arc::new(Db::open(&root.path().join("meta.db")).expect("db"));
        let content = Content::open(root.path(), Arc::clone(&db)).expect("content");
        let snapshots = Snapshots::open(root.path(), Arc::clone(&db)).expect("snapshots");
        let events = Events::new(Arc::clone(&db), 1000);
        let images = Images::new(Arc::clone(&db), content, snapshots, config, events).expect("images");
        Self { root, images, db }
    }

    fn mirrored(server: &Server) -> Self {
        Self::through(&[server], 30)
    }

    /// With mirrors, in whom `stall` seconds of patience are had.
    fn through(servers: &[&Server], stall_timeout: u32) -> Self {
        let mirrors = servers.iter().map(|server| server.url()).collect();
        let host = HostConfig { mirrors, mirrors_only: true, ..HostConfig::default() };
        let hosts = BTreeMap::from([("docker.io".to_owned(), host)]);
        Self::new(RegistryConfig { hosts, stall_timeout, ..RegistryConfig::default() })
    }

    fn request(reference: &str) -> PullRequest {
        PullRequest {
            namespace: Namespace::default(),
            reference: reference.parse().expect("reference"),
            platform: "linux/amd64".parse::<Platform>().expect("platform"),
            credentials: None,
            verify: false,
        }
    }

    async fn pull(&self, request: PullRequest) -> Result<Pulled> {
        finish(self.images.pull(request)).await
    }

    /// Nothing of a failed pull is left: no layer, no image, no row.
    fn assert_clean(&self) {
        let count = |sql: &str| -> i64 {
            self.db.read(|c| c.query_row(sql, (), |row| row.get(0)).context("count")).expect("count")
        };
        assert_eq!(count("SELECT (SELECT count(*) FROM images) + (SELECT count(*) FROM image_refs)"), 0);
        let directories = || std::fs::read_dir(self.root.path().join("snapshots")).expect("list").count();
        wait_until(|| count("SELECT count(*) FROM snapshots") == 0 && directories() == 1);
        assert_eq!((count("SELECT count(*) FROM snapshots"), directories()), (0, 1), "only the init layer");
    }

    /// No blob is left that is not whole.
    fn assert_nothing_partial(&self) {
        let partial = || self.root.path().join("content/ingest").read_dir().expect("list").count();
        wait_until(|| partial() == 0);
        assert_eq!(partial(), 0);
    }
}

/// What failed is cleaned up behind the caller's back, by tasks that need this
/// thread.
fn wait_until(is_true: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    tokio::task::block_in_place(|| {
        while std::time::Instant::now() < deadline && !is_true() {
            std::thread::yield_now();
        }
    });
}

async fn finish(mut follower: Follower) -> Result<Pulled> {
    while let Some(event) = follower.next().await {
        if let Event::Pulled(pulled) = event? {
            return Ok(pulled);
        }
    }
    Err(Error::new(Kind::Internal, "the pull ended without an end"))
}

fn rooted() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: unpacking layers needs root");
    }
    root
}

/// A registry that has an image, and answers as it should.
fn serving(image: &Arc<TestImage>) -> Server {
    let image = Arc::clone(image);
    Server::start(move |request| image.answer(&request.path))
}

fn hello() -> Arc<TestImage> {
    Arc::new(TestImage::new("amd64", &[("hello", "world"), ("etc/motd", "hi")]))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_pulled_used_and_removed() {
    if !rooted() {
        return;
    }
    let image = hello();
    let server = serving(&image);
    let place = Place::mirrored(&server);
    let pulled = place.pull(Place::request("hello-world")).await.expect("pull");
    assert_eq!((pulled.image_id.clone(), pulled.up_to_date), (image.id(), false));
    assert_eq!(pulled.reference, "docker.io/library/hello-world:latest");
    let again = place.pull(Place::request("hello-world")).await.expect("again");
    assert!(again.up_to_date);

    let namespace = Namespace::default();
    let resolved = place.images.resolve(&namespace, "hello-world").expect("resolve");
    assert_eq!((resolved.id.clone(), &*resolved.reference), (image.id(), "hello-world:latest"));
    for name in [image.id().as_str(), image.id().hex(), image.id().short()] {
        assert_eq!(place.images.resolve(&namespace, name).expect(name).id, image.id());
    }
    let unknown = place.images.resolve(&namespace, "nope").expect_err("unknown");
    assert_eq!((unknown.kind(), unknown.to_string()), (Kind::NotFound, "No such image: nope:latest".into()));

    let snapshots = &place.images.snapshots;
    snapshots.prepare("box", resolved.chain_id.as_ref().map(Digest::as_str)).expect("prepare");
    let rootfs = snapshots.rootfs("box").expect("rootfs");
    let content =
        |path: &str| rootfs.lower.iter().find_map(|layer| std::fs::read_to_string(layer.join(path)).ok());
    assert_eq!((content("hello").as_deref(), content("etc/motd").as_deref()), (Some("world"), Some("hi")));

    place.images.tag(&namespace, "hello-world", "mine:1").expect("tag");
    let listed = place.images.list(&namespace, &ImageFilter::default()).expect("list");
    assert_eq!(listed[0].repo_tags, ["hello-world:latest", "mine:1"]);
    let removed = place.images.remove(&namespace, "mine:1", false).expect("untag");
    assert_eq!((removed.untagged, removed.deleted), (vec!["mine:1".to_owned()], vec![]));
    let removed = place.images.remove(&namespace, "hello-world", false).expect("remove");
    assert_eq!(removed.deleted, [image.id().to_string()], "a container's snapshot still needs the layers");
    snapshots.remove("box").expect("remove");
    place.assert_clean();
    let blobs = std::fs::read_dir(place.root.path().join("content/blobs/sha256")).expect("list").count();
    assert_eq!(blobs, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_in_use_is_kept_in_dockers_words() {
    if !rooted() {
        return;
    }
    let image = hello();
    let server = serving(&image);
    let place = Place::mirrored(&server);
    place.pull(Place::request("hello-world")).await.expect("pull");
    let container = "c0ffee00c0ffee00";
    let set = |status: &str| {
        place
            .db
            .write(|tx| {
                tx.execute(
                    "INSERT OR REPLACE INTO containers (namespace, id, name, created_at, image, image_id, summary, document, status)
                     VALUES ('default', ?1, 'n', 1, 'hello-world', ?2, '{}', '{}', ?3)",
                    [container, image.id().as_str(), status],
                )
                .context("insert")
            })
            .expect("container");
    };
    let (namespace, id) = (Namespace::default(), image.id().short().to_owned());
    let refused = |what: &str, force| {
        let e = place.images.remove(&namespace, what, force).expect_err(what);
        assert_eq!(e.kind(), Kind::FailedPrecondition);
        e.to_string()
    };
    set("exited");
    let words = format!(
        "conflict: unable to remove repository reference \"hello-world\" (must force) - \
         container c0ffee00c0ff is using its referenced image {id}"
    );
    assert_eq!(refused("hello-world", false), words);
    let words = format!(
        "conflict: unable to delete {id} (must be forced) - image is being used by stopped container c0ffee00c0ff"
    );
    assert_eq!(refused(&id, false), words);
    set("running");
    let words = format!(
        "conflict: unable to delete {id} (cannot be forced) - image is being used by running container c0ffee00c0ff"
    );
    assert_eq!(refused(&id, true), words);
    let removed = place.images.remove(&namespace, "hello-world", true).expect("untag");
    assert_eq!((removed.untagged.len(), removed.deleted.len()), (1, 0));
    let listed = place.images.list(&namespace, &ImageFilter::default()).expect("list");
    assert!(listed[0].repo_tags.is_empty() && listed[0].containers == 1);
}

/// Pulls from a server that answers as `answer` does, and expects a failure
/// that leaves nothing behind.
async fn fails(
    answer: impl Fn(&registry::Request) -> Reply + Send + Sync + 'static,
    kind: Kind,
    words: &str,
) {
    let server = Server::start(answer);
    let place = Place::mirrored(&server);
    let error = place.pull(Place::request("hello-world")).await.expect_err(words);
    assert_eq!(error.kind(), kind, "{}", error.chain());
    assert!(error.chain().contains(words), "{}", error.chain());
    place.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_registries_refuse_is_said_in_one_line() {
    let image = hello();
    fails(
        |_| Reply::status(404),
        Kind::NotFound,
        "manifest for hello-world:latest not found: manifest unknown",
    )
    .await;
    fails(
        |_| Reply::status(401).header("WWW-Authenticate", "Basic realm=\"x\""),
        Kind::Unauthenticated,
        "pull access denied for hello-world, repository does not exist or may require authorization",
    )
    .await;
    fails(|_| Reply::status(403), Kind::PermissionDenied, "pull access denied for hello-world").await;
    fails(
        |_| Reply::status(401).header("WWW-Authenticate", "Bearer realm=\"http://198.51.100.1/token\""),
        Kind::PermissionDenied,
        "only https is accepted there",
    )
    .await;
    fails(|_| Reply::status(302).header("Location", "/again"), Kind::Unavailable, "more than 10 times").await;
    fails(|_| Reply::ok(b"{").header("Content-Type", MANIFEST), Kind::InvalidArgument, "invalid manifest")
        .await;
    fails(|_| Reply::ok(&vec![b' '; 5 << 20]), Kind::DataLoss, "more than 4194304 bytes").await;
    let other = Arc::new(TestImage::new("s390x", &[("a", "b")]));
    fails(
        move |r| other.answer(&r.path),
        Kind::FailedPrecondition,
        "no matching manifest for linux/amd64 in the manifest list entries",
    )
    .await;
    let lying = Digest::of(b"something else");
    fails(
        move |r| image.answer(&r.path).header("Docker-Content-Digest", lying.as_str()),
        Kind::DataLoss,
        "is damaged",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_down_is_named() {
    let server = Server::start(|_| Reply::status(500));
    let place = Place::mirrored(&server);
    let address = server.address();
    drop(server);
    let error = place.pull(Place::request("hello-world")).await.expect_err("down");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert_eq!(error.chain(), format!("failed to reach registry {address}: connection refused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_with_another_content_is_refused() {
    if !rooted() {
        return;
    }
    let image = hello();
    let (layer, id) = (Digest::of(&image.layers[1]), image.layers[1].clone());
    fails(
        move |r| {
            if !r.path.ends_with(layer.as_str()) {
                return image.answer(&r.path);
            }
            // As long, sound gzip of a sound archive, and something else.
            let mut other = gzip(&tar("etc/motd", "ho"));
            other.resize(id.len(), 0);
            Reply::ok(&other)
        },
        Kind::DataLoss,
        "damaged",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_transfer_continues_where_it_was() {
    if !rooted() {
        return;
    }
    for honours_ranges in [true, false] {
        let image = hello();
        let served = Arc::clone(&image);
        let layer = Digest::of(&image.layers[0]);
        let server = Server::start(move |request| {
            let reply = served.answer(&request.path);
            if !request.path.ends_with(layer.as_str()) {
                return reply;
            }
            match request.range() {
                None => reply.cut(20),
                Some(_) if !honours_ranges => reply,
                Some(from) => reply.from(from),
            }
        });
        let place = Place::mirrored(&server);
        let pulled = place.pull(Place::request("hello-world")).await.expect("pull");
        assert_eq!(pulled.image_id, image.id());
        let asked = server.requests();
        assert!(asked.iter().any(|r| r.range() == Some(20)), "it went on from byte 20");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_and_credentials_stay_home() {
    if !rooted() {
        return;
    }
    let image = hello();
    let elsewhere = Arc::new(serving(&image));
    let (served, storage) = (Arc::clone(&image), elsewhere.url());
    let server = Server::start(move |request| {
        if request.path.starts_with("/token") {
            assert!(request.path.contains("scope=repository%3Aa%2Fb%3Apull"), "{}", request.path);
            assert_eq!(request.header("authorization"), Some("Basic dTpw"));
            return Reply::ok(br#"{"token":"secret"}"#);
        }
        if request.header("authorization") != Some("Bearer secret") {
            let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", request.host());
            return Reply::status(401).header("WWW-Authenticate", &realm);
        }
        if request.path.contains("/blobs/") {
            return Reply::status(307).header("Location", &format!("{storage}{}", request.path));
        }
        served.answer(&request.path)
    });
    let place = Place::new(RegistryConfig::default());
    let credentials =
        Credentials { username: "u".into(), password: "p".into(), identity_token: String::new() };
    let request = PullRequest {
        credentials: Some(credentials),
        ..Place::request(&format!("{}/a/b:1", server.address()))
    };
    let pulled = place.pull(request).await.expect("pull");
    assert_eq!(pulled.image_id, image.id());
    let stored = elsewhere.requests();
    assert_eq!(stored.len(), 3, "the layers and the configuration");
    assert!(stored.iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_of_the_same_at_the_same_time_are_one() {
    if !rooted() {
        return;
    }
    let image = hello();
    let server = serving(&image);
    let place = Place::mirrored(&server);
    let pulls: Vec<Follower> = (0..10).map(|_| place.images.pull(Place::request("hello-world"))).collect();
    for pull in pulls {
        assert_eq!(finish(pull).await.expect("pull").image_id, image.id());
    }
    assert_eq!(server.requests().len(), 4, "manifest, configuration, two layers");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_image_with_the_same_layer_waits_and_sees_how_it_gets_on() {
    if !rooted() {
        return;
    }
    let noise = "x".repeat(1000);
    let first = Arc::new(TestImage::new("amd64", &[("shared", &noise), ("first", "1")]));
    let second = Arc::new(TestImage::new("amd64", &[("shared", &noise), ("second", "2")]));
    let (one, two, shared) = (Arc::clone(&first), Arc::clone(&second), Digest::of(&first.layers[0]));
    let server = Server::start(move |request| {
        let image = if request.path.contains("library/first") { &one } else { &two };
        let reply = image.answer(&request.path);
        let half = reply.body()[..reply.body().len() / 2].to_vec();
        if request.path.ends_with(shared.as_str()) && request.range().is_none() {
            let mut raw =
                format!("HTTP/1.1 200 x\r\nContent-Length: {}\r\n\r\n", reply.body().len()).into_bytes();
            raw.extend(half);
            return reply.in_manner(registry::Manner::Stuck(raw));
        }
        reply.ranged(request)
    });
    // The stuck transfer is given up after two seconds, and continued.
    let place = Place::through(&[&server], 2);
    let leader = place.images.pull(Place::request("first"));
    let layer = Digest::of(&first.layers[0]);
    let asked =
        |server: &Server| server.requests().iter().filter(|r| r.path.ends_with(layer.as_str())).count();
    while asked(&server) == 0 {
        tokio::task::yield_now().await;
    }
    let mut waiting = place.images.pull(Place::request("second"));
    let mut seen = Vec::new();
    while let Some(event) = waiting.next().await {
        if let Event::Layer(progress) = event.expect("no error")
            && progress.digest == layer
        {
            seen.push(progress.phase);
        }
    }
    assert!(seen.contains(&Phase::Downloading) || seen.contains(&Phase::Retrying), "{seen:?}");
    assert_eq!(seen.last(), Some(&Phase::Exists), "{seen:?}");
    finish(leader).await.expect("the first");
    assert_eq!(asked(&server), 2, "once, and the rest of it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_is_told_as_events() {
    if !rooted() {
        return;
    }
    let image = hello();
    let (served, layer) = (Arc::clone(&image), Digest::of(&image.layers[0]));
    let server = Server::start(move |request| {
        let reply = served.answer(&request.path);
        if request.path.contains("/broken/") && request.path.ends_with(layer.as_str()) {
            return Reply::status(404);
        }
        if request.path.ends_with(layer.as_str()) && request.range().is_none() {
            return reply.in_manner(registry::Manner::Silence);
        }
        reply
    });
    let place = Place::through(&[&server], 1);
    let told = || -> Vec<String> {
        let read = |c: &rusqlite::Connection| {
            let mut select =
                c.prepare("SELECT action || ' ' || attributes FROM events ORDER BY cursor").context("p")?;
            select.query_map((), |row| row.get(0)).and_then(Iterator::collect).context("q")
        };
        place.db.read(read).expect("events")
    };
    place.pull(Place::request("broken/it")).await.expect_err("broken");
    while !told().iter().any(|event| event.starts_with("pull_failed") && event.contains("not found")) {
        tokio::task::yield_now().await;
    }
    drop(place.images.pull(Place::request("quickly")));
    let total: usize = image.layers.iter().map(Vec::len).sum();
    let pull = place.images.pull(Place::request("hello-world"));
    while !told().iter().any(|event| {
        event.starts_with("pulling")
            && event.contains(&format!("\"total\":\"{total}\""))
            && event.contains("hello-world:latest")
    }) {
        tokio::task::yield_now().await;
    }
    drop(pull);
    while !told().iter().any(|event| event.starts_with("pull_failed") && event.contains("it was cancelled")) {
        tokio::task::yield_now().await;
    }
}

async fn load(place: &Place, archive: &[u8]) -> Result<Vec<Loaded>> {
    let mut upload = place.images.loading();
    for chunk in archive.chunks(1000) {
        upload.write(Bytes::copy_from_slice(chunk)).await?;
    }
    let mut follower = upload.load(Namespace::default(), "linux/amd64".parse()?).await?;
    let mut loaded = Vec::new();
    while let Some(event) = follower.next().await {
        if let Event::Loaded(one) = event? {
            loaded.push(one);
        }
    }
    Ok(loaded)
}

fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, data) in entries {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *data).expect("append");
    }
    builder.into_inner().expect("finish")
}

fn docker_archive(image: &TestImage) -> Vec<u8> {
    let config = format!("{}.json", image.id().hex());
    let list = serde_json::json!([
        {"Config": config, "RepoTags": ["loaded:1", "me/loaded:2"], "Layers": ["a/layer.tar", "b/layer.tar"]}
    ]);
    let list = serde_json::to_vec(&list).expect("json");
    archive(&[
        ("a/layer.tar", &image.layers[0]),
        ("b/layer.tar", &image.layers[1]),
        (&config, &image.config),
        ("manifest.json", &list),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_both_kinds_are_loaded() {
    if !rooted() {
        return;
    }
    let image = hello();
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": MANIFEST, "digest": Digest::of(&image.manifest).as_str(), "size": image.manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "loaded:1"}}]});
    let index = serde_json::to_vec(&index).expect("json");
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let oci = archive(&[
        ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
        ("index.json", &index),
        (&blob(&image.manifest), &image.manifest),
        (&blob(&image.config), &image.config),
        (&blob(&image.layers[0]), &image.layers[0]),
        (&blob(&image.layers[1]), &image.layers[1]),
    ]);
    for bytes in [docker_archive(&image), gzip(&docker_archive(&image)), oci] {
        let place = Place::new(RegistryConfig::default());
        let loaded = load(&place, &bytes).await.expect("load");
        assert_eq!((loaded.len(), &loaded[0].image_id), (1, &image.id()));
        assert_eq!(loaded[0].references[0], "loaded:1");
        let resolved = place.images.resolve(&Namespace::default(), "loaded:1").expect("resolve");
        assert!(resolved.chain_id.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_archive_adds_nothing() {
    if !rooted() {
        return;
    }
    let good = docker_archive(&hello());
    for cut in [10, 600, good.len() / 2] {
        let place = Place::new(RegistryConfig::default());
        let error = load(&place, &good[..cut]).await.expect_err("cut");
        assert_eq!(error.kind(), Kind::InvalidArgument, "{cut}: {}", error.chain());
        place.assert_clean();
    }
    // A byte within the first layer's compressed data.
    let mut flipped = good.clone();
    flipped[512 + 30] ^= 0xff;
    let place = Place::new(RegistryConfig::default());
    let error = load(&place, &flipped).await.expect_err("flipped");
    assert!(matches!(error.kind(), Kind::InvalidArgument | Kind::DataLoss), "{}", error.chain());
    place.assert_clean();
    place.assert_nothing_partial();
}
