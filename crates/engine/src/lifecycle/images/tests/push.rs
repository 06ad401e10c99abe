// SPDX-License-Identifier: Apache-2.0
//! Pushes to registries that do what they may, and what they may not.

use std::{collections::BTreeMap, sync::Mutex};

use super::{hostile::large, registry::Request, *};

/// A registry that takes everything, and remembers how it came.
#[derive(Default)]
struct Taking {
    uploads: Mutex<BTreeMap<String, Vec<u8>>>,
    blobs: Mutex<BTreeMap<String, Vec<u8>>>,
    manifests: Mutex<BTreeMap<String, Vec<u8>>>,
    asked: Mutex<BTreeMap<String, usize>>,
}

impl Taking {
    /// How often this kind of request came before.
    fn count(&self, what: &str) -> usize {
        let mut asked = self.asked.lock().expect("lock");
        let count = asked.entry(what.to_owned()).or_default();
        *count += 1;
        *count - 1
    }

    fn answer(&self, request: &Request) -> Reply {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let last = path.rsplit('/').next().unwrap_or_default().to_owned();
        let location = |id: &str| format!("/v2/team/app/blobs/uploads/{id}?_state=a%2Bb");
        let mut uploads = self.uploads.lock().expect("lock");
        match (request.method.as_str(), path) {
            ("HEAD", path) if path.contains("/blobs/") => {
                Reply::status(if self.blobs.lock().expect("lock").contains_key(&last) { 200 } else { 404 })
            }
            ("HEAD", path) if path.contains("/manifests/") => {
                let known = self.manifests.lock().expect("lock").contains_key(&last);
                Reply::status(if known { 200 } else { 404 })
            }
            ("POST", _) => {
                let id = self.count("upload").to_string();
                uploads.insert(id.clone(), Vec::new());
                Reply::status(202).header("Location", &location(&id))
            }
            ("PATCH", _) if uploads.contains_key(&last) => {
                let upload = uploads.entry(last.clone()).or_default();
                upload.extend_from_slice(&request.body);
                let range = format!("0-{}", upload.len().saturating_sub(1));
                Reply::status(202).header("Location", &location(&last)).header("Range", &range)
            }
            ("GET", path) if path.contains("/uploads/") && uploads.contains_key(&last) => {
                let length = uploads[&last].len();
                Reply::status(204)
                    .header("Location", &location(&last))
                    .header("Range", &format!("0-{}", length.saturating_sub(1)))
            }
            ("PUT", path) if path.contains("/uploads/") && uploads.contains_key(&last) => {
                assert!(query.contains("_state=a%2Bb"), "{query}");
                let mut blob = uploads.remove(&last).unwrap_or_default();
                blob.extend_from_slice(&request.body);
                let digest = query.split("digest=").nth(1).unwrap_or_default().replace("%3A", ":");
                if Digest::of(&blob).as_str() != digest {
                    return Reply::status(400);
                }
                self.blobs.lock().expect("lock").insert(digest, blob);
                Reply::status(201)
            }
            ("PUT", path) if path.contains("/manifests/") => {
                self.manifests.lock().expect("lock").insert(last, request.body.clone());
                Reply::status(201)
            }
            _ => Reply::status(404),
        }
    }
}

/// What the registry does instead of the right thing, by the request and how
/// often it came before.
type Instead = fn(&Request, &Taking) -> Option<Reply>;

fn is(request: &Request, method: &str, part: &str) -> bool {
    request.method == method && request.path.contains(part)
}

const TAKEN: [(&str, Instead); 9] = [
    ("nothing special", |_, _| None),
    ("a blob that is there", |r, _| is(r, "HEAD", "/blobs/").then(|| Reply::status(200))),
    ("an upload that is forgotten before its end", |r, taking| {
        (is(r, "PUT", "/uploads/") && taking.count("put") == 0).then(|| Reply::status(404))
    }),
    ("an upload that is forgotten in the middle", |r, taking| {
        let forgotten = is(r, "PATCH", "/uploads/") && taking.count("patch") == 1;
        forgotten.then(|| {
            taking.uploads.lock().expect("lock").clear();
            Reply::status(404)
        })
    }),
    ("a chunk that is half taken", |r, taking| {
        let half = is(r, "PATCH", "/uploads/") && taking.count("patch") == 1;
        half.then(|| {
            let mut uploads = taking.uploads.lock().expect("lock");
            let id = r.path.rsplit('/').next().and_then(|last| last.split('?').next()).unwrap_or_default();
            uploads.entry(id.to_owned()).or_default().extend_from_slice(&r.body[..r.body.len() / 2]);
            Reply::status(500)
        })
    }),
    ("500 for a chunk", |r, taking| {
        (is(r, "PATCH", "/uploads/") && taking.count("patch") == 1).then(|| Reply::status(500))
    }),
    ("503 for the end of an upload", |r, taking| {
        let busy = is(r, "PUT", "/uploads/") && taking.count("put") == 0;
        busy.then(|| Reply::status(503).header("Retry-After", "0"))
    }),
    ("429 for a manifest", |r, taking| {
        let busy = is(r, "PUT", "/manifests/") && taking.count("put") == 0;
        busy.then(|| Reply::status(429).header("Retry-After", "0"))
    }),
    ("a reset", |r, taking| {
        let reset = is(r, "PATCH", "/uploads/") && taking.count("patch") == 0;
        reset.then(|| Reply::status(202).in_manner(registry::Manner::Raw(Vec::new())))
    }),
];

/// What can't be got over.
const NOT_TAKEN: [(&str, Instead, Kind, &str); 6] = [
    (
        "no place to go on",
        |r, _| is(r, "POST", "").then(|| Reply::status(202)),
        Kind::Unavailable,
        "to nowhere",
    ),
    (
        "a place that is a file",
        |r, _| is(r, "POST", "").then(|| Reply::status(202).header("Location", "file:///x")),
        Kind::Unavailable,
        "away from https",
    ),
    ("413", |r, _| is(r, "PATCH", "").then(|| Reply::status(413)), Kind::Unavailable, "413"),
    (
        "403",
        |r, _| is(r, "POST", "").then(|| Reply::status(403)),
        Kind::PermissionDenied,
        "push access denied",
    ),
    (
        "another manifest than was sent",
        |r, _| {
            let lie = Digest::of(b"x");
            is(r, "PUT", "/manifests/")
                .then(|| Reply::status(201).header("Docker-Content-Digest", lie.as_str()))
        },
        Kind::DataLoss,
        "stored the manifest as",
    ),
    (
        "an upload that is always forgotten",
        |r, _| is(r, "PUT", "/uploads/").then(|| Reply::status(404)),
        Kind::Unavailable,
        "forgotten an upload",
    ),
];

/// An image that is here, under a name at `server`.
async fn here(server: &Server) -> (Place, Arc<TestImage>, PushRequest) {
    let image = large();
    let source = serving(&image);
    let host = HostConfig { mirrors: vec![source.url()], ..HostConfig::default() };
    let hosts = BTreeMap::from([("docker.io".to_owned(), host)]);
    let place = Place::new(RegistryConfig { hosts, ..RegistryConfig::default() });
    place.pull(Place::request("hello-world")).await.expect("pull");
    let request = of_pulled(&place, server);
    (place, image, request)
}

/// Gives what was pulled a name at `server`, to be pushed under.
fn of_pulled(place: &Place, server: &Server) -> PushRequest {
    let name = format!("{}/team/app:1", server.address());
    place.images.tag(&Namespace::default(), "hello-world", &name).expect("tag");
    PushRequest {
        namespace: Namespace::default(),
        reference: name.parse().expect("reference"),
        all_tags: false,
        credentials: None,
    }
}

async fn push(place: &Place, request: PushRequest) -> Result<Vec<Pushed>> {
    let mut follower = place.images.push(request);
    let mut pushed = Vec::new();
    while let Some(event) = follower.next().await {
        if let Event::Pushed(tag) = event? {
            pushed.push(tag);
        }
    }
    Ok(pushed)
}

fn taking(instead: Instead) -> (Arc<Taking>, Server) {
    let taking = Arc::<Taking>::default();
    let server = {
        let taking = Arc::clone(&taking);
        Server::start(move |request| instead(request, &taking).unwrap_or_else(|| taking.answer(request)))
    };
    (taking, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_does_with_an_upload_is_got_over() {
    if !rooted() {
        return;
    }
    for (row, instead) in TAKEN {
        let (taking, server) = taking(instead);
        let (place, image, request) = here(&server).await;
        let pushed = push(&place, request).await.unwrap_or_else(|e| panic!("{row}: {}", e.chain()));
        assert_eq!(pushed[0].digest, Digest::of(&image.manifest), "{row}");
        assert!(taking.manifests.lock().expect("lock")["1"] == image.manifest, "{row}: byte by byte");
        let blobs = taking.blobs.lock().expect("lock");
        let there = row == "a blob that is there";
        for blob in image.layers.iter().chain([&image.config]) {
            assert_eq!(blobs.get(Digest::of(blob).as_str()), (!there).then_some(blob), "{row}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_got_over_is_said() {
    if !rooted() {
        return;
    }
    let rows = NOT_TAKEN.map(|(row, instead, kind, words)| {
        tokio::spawn(async move {
            let (_taking, server) = taking(instead);
            let (place, _, request) = here(&server).await;
            let error = push(&place, request).await.expect_err(row);
            assert_eq!(error.kind(), kind, "{row}: {}", error.chain());
            assert!(error.chain().contains(words), "{row}: {}", error.chain());
        })
    });
    for row in rows {
        row.await.expect("the row");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_elsewhere_is_shown_no_credentials() {
    if !rooted() {
        return;
    }
    let elsewhere = Arc::new(Server::start(|_| Reply::status(201)));
    let url = elsewhere.url();
    let taking = Arc::<Taking>::default();
    let server = Server::start(move |request| {
        if request.header("authorization").is_none() {
            return Reply::status(401).header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        if request.method == "POST" {
            return Reply::status(202).header("Location", &format!("{url}/store?sig=1"));
        }
        taking.answer(request)
    });
    let (place, _, request) = here(&server).await;
    let credentials =
        Credentials { username: "u".into(), password: "p".into(), identity_token: String::new() };
    // Chunks answer without a place to go on there: whole blobs are enough.
    let _end = push(&place, PushRequest { credentials: Some(credentials), ..request }).await;
    assert!(!elsewhere.requests().is_empty());
    assert!(elsewhere.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_pushed_as_it_was_pulled_where_the_registry_has_the_rest_of_it() {
    if !rooted() {
        return;
    }
    let image = hello();
    let platform = |architecture: &str| serde_json::json!({"os": "linux", "architecture": architecture});
    let other = documents::entry(b"for others", MANIFEST, platform("s390x"));
    let own = documents::entry(&image.manifest, MANIFEST, platform("amd64"));
    for (entries, rest, whole) in [
        (vec![own.clone()], false, true),
        (vec![own.clone(), other.clone()], false, false),
        (vec![own.clone(), other.clone()], true, true),
    ] {
        let index = documents::index_of(&entries);
        let (served, top) = (Arc::clone(&image), index.clone());
        let source = Server::start(move |request| {
            if request.path.ends_with("/manifests/latest") {
                return Reply::ok(&top).header("Content-Type", "application/vnd.oci.image.index.v1+json");
            }
            served.answer(&request.path)
        });
        let place = Place::mirrored(&source);
        place.pull(Place::request("hello-world")).await.expect("pull");
        let (taking, server) = taking(|_, _| None);
        if rest {
            let digest = Digest::of(b"for others").to_string();
            taking.manifests.lock().expect("lock").insert(digest, b"for others".to_vec());
        }
        let pushed = push(&place, of_pulled(&place, &server)).await.expect("push").remove(0);
        let (sent, left_out) =
            if whole { (&index, None) } else { (&image.manifest, Some(Digest::of(&index))) };
        assert_eq!((pushed.digest, pushed.left_out), (Digest::of(sent), left_out));
        assert!(taking.manifests.lock().expect("lock")["1"] == *sent);
    }
}
