// SPDX-License-Identifier: Apache-2.0
//! Registries that are slow, broken or hostile: by row, what a pull makes of
//! each.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{
    registry::{Manner, Request},
    *,
};

/// Text that compresses little.
pub(super) fn noise(length: usize) -> String {
    let mut seed = 1_u32;
    let next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        char::from(b' ' + u8::try_from(seed >> 24).unwrap_or(0) % 90)
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// An image whose first layer is large enough to break in the middle.
pub(super) fn large() -> Arc<TestImage> {
    Arc::new(TestImage::new("amd64", &[("noise", &noise(60_000)), ("etc/motd", "hi")]))
}

/// How a registry answers for the large layer, given how often it was asked
/// before; everything else is answered honestly.
type Answer = fn(&Request, Reply, usize) -> Reply;

fn registry(image: &Arc<TestImage>, answer: Answer) -> Server {
    let (image, layer, asked) = (Arc::clone(image), Digest::of(&image.layers[0]), AtomicUsize::new(0));
    Server::start(move |request| {
        let reply = image.answer(&request.path);
        if !request.path.ends_with(layer.as_str()) {
            return reply;
        }
        answer(request, reply, asked.fetch_add(1, Ordering::SeqCst))
    })
}

fn honest(request: &Request, reply: Reply, _: usize) -> Reply {
    reply.ranged(request)
}

fn bytes_of(layer: &[u8]) -> u64 {
    layer.len() as u64
}

/// Misbehaviour that a pull gets over, from the same place.
const OVERCOME: [(&str, Answer); 24] = [
    ("reset at once", |r, reply, n| if n == 0 { reply.in_manner(Manner::Reset(0)) } else { reply.ranged(r) }),
    ("reset after each tenth", |r, reply, _| {
        let step = reply.body().len() / 10;
        let rest = reply.ranged(r);
        if rest.body().len() > step { rest.in_manner(Manner::Reset(step)) } else { rest }
    }),
    ("length too long", |r, reply, n| if n == 0 { reply.cut(1000) } else { reply.ranged(r) }),
    ("length too short", |r, reply, n| match n {
        0 => Reply::ok(&reply.body()[..1000]),
        _ => reply.ranged(r),
    }),
    ("no length", |_, reply, _| {
        let mut all = b"HTTP/1.1 200 x\r\n\r\n".to_vec();
        all.extend_from_slice(reply.body());
        reply.in_manner(Manner::Raw(all))
    }),
    ("a chunk that is none", |r, reply, n| {
        let raw = b"HTTP/1.1 200 x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n".to_vec();
        if n == 0 { reply.in_manner(Manner::Raw(raw)) } else { reply.ranged(r) }
    }),
    ("no HTTP", |r, reply, n| {
        if n == 0 { reply.in_manner(Manner::Raw(b"220 smtp ready\r\n".to_vec())) } else { reply.ranged(r) }
    }),
    ("silence", |r, reply, n| if n == 0 { reply.in_manner(Manner::Silence) } else { reply.ranged(r) }),
    ("a slow head", |r, reply, n| if n == 0 { reply.in_manner(Manner::SlowHead) } else { reply.ranged(r) }),
    (
        "a byte a second",
        |r, reply, n| if n == 0 { reply.in_manner(Manner::Trickle) } else { reply.ranged(r) },
    ),
    ("200 for a range", |_, reply, n| if n == 0 { reply.cut(1000) } else { reply }),
    ("416 for a range", |r, reply, n| match (n, r.range()) {
        (0, _) => reply.cut(1000),
        (_, Some(_)) => Reply::status(416),
        _ => reply,
    }),
    ("206 of another part", |r, reply, n| match (n, r.range()) {
        (0, _) => reply.cut(1000),
        (_, Some(_)) => reply.from(500),
        _ => reply,
    }),
    ("206 of no part", |r, reply, n| match (n, r.range()) {
        (0, _) => reply.cut(1000),
        (_, Some(at)) => Reply::ok(&reply.body()[at..]).with_status(206),
        _ => reply,
    }),
    ("another ETag after a break", |r, reply, n| match n {
        0 => reply.header("ETag", "\"a\"").cut(1000),
        _ => reply.header("ETag", "\"b\"").ranged(r),
    }),
    ("something else after a break", |r, reply, n| match n {
        0 => reply.cut(1000),
        1 => Reply::ok(&vec![7; reply.body().len()]).ranged(r),
        _ => reply.ranged(r),
    }),
    ("Content-Encoding", |r, reply, _| reply.header("Content-Encoding", "gzip").ranged(r)),
    ("429 with seconds", |r, reply, n| {
        if n == 0 { Reply::status(429).header("Retry-After", "1") } else { reply.ranged(r) }
    }),
    ("429 with a date", |r, reply, n| {
        let past = "Thu, 01 Jan 1970 00:00:00 GMT";
        if n == 0 { Reply::status(429).header("Retry-After", past) } else { reply.ranged(r) }
    }),
    ("429 alone", |r, reply, n| if n == 0 { Reply::status(429) } else { reply.ranged(r) }),
    ("500", |r, reply, n| if n == 0 { Reply::status(500) } else { reply.ranged(r) }),
    ("502", |r, reply, n| if n == 0 { Reply::status(502) } else { reply.ranged(r) }),
    (
        "503",
        |r, reply, n| if n == 0 { Reply::status(503).header("Retry-After", "0") } else { reply.ranged(r) },
    ),
    ("504", |r, reply, n| if n == 0 { Reply::status(504) } else { reply.ranged(r) }),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_does_wrong_once_is_got_over() {
    if !rooted() {
        return;
    }
    let image = large();
    let rows = OVERCOME.map(|(row, answer)| {
        let image = Arc::clone(&image);
        tokio::spawn(async move {
            let server = registry(&image, answer);
            let place = Place::through(&[&server], 2);
            let pulled = place.pull(Place::request("hello-world")).await;
            let pulled = pulled.unwrap_or_else(|e| panic!("{row}: {}", e.chain()));
            assert_eq!(pulled.image_id, image.id(), "{row}");
        })
    });
    for row in rows {
        row.await.expect("the row");
    }
}

/// What a pull can't get over, if it stays that way.
const REFUSED: [(&str, Answer, Kind, &str); 9] = [
    (
        "429 for ever",
        |_, _, _| {
            let reply = Reply::ok(br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#);
            let reply = reply.with_status(429).header("Retry-After", "0");
            reply.header("ratelimit-limit", "100;w=21600").header("ratelimit-remaining", "0;w=21600")
        },
        Kind::ResourceExhausted,
        "slow down (0 requests left, 100 in 21600 seconds allowed)",
    ),
    ("no such blob", |_, _, _| Reply::status(404), Kind::NotFound, "not found: blob unknown"),
    (
        "403 with a reason",
        |_, _, _| Reply::ok(br#"{"errors":[{"code":"DENIED","message":"pay first"}]}"#).with_status(403),
        Kind::PermissionDenied,
        "denied access: pay first",
    ),
    (
        "other content of the same length",
        |_, reply, _| Reply::ok(&vec![7; reply.body().len()]),
        Kind::DataLoss,
        "damaged",
    ),
    (
        "more content",
        |_, reply, _| Reply::ok(&[reply.body(), b"more"].concat()),
        Kind::DataLoss,
        "damaged: more than",
    ),
    (
        "a loop of redirects",
        |r, _, _| Reply::status(307).header("Location", &r.path),
        Kind::Unavailable,
        "redirects more than 10 times",
    ),
    ("a redirect to nowhere", |_, _, _| Reply::status(307), Kind::Unavailable, "redirects to nowhere"),
    (
        "a redirect to a file",
        |_, _, _| Reply::status(307).header("Location", "file:///etc/passwd"),
        Kind::Unavailable,
        "redirects away from https",
    ),
    (
        "a head without end",
        |_, reply, _| {
            let mut raw = b"HTTP/1.1 200 x\r\nX: ".to_vec();
            raw.resize(2 << 20, b'x');
            reply.in_manner(Manner::Raw(raw))
        },
        Kind::Unavailable,
        "failed to reach registry",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registry_keeps_doing_wrong_is_refused_and_leaves_nothing() {
    if !rooted() {
        return;
    }
    let image = large();
    let rows = REFUSED.map(|(row, answer, kind, words)| {
        let image = Arc::clone(&image);
        tokio::spawn(async move {
            let server = registry(&image, answer);
            let place = Place::through(&[&server], 2);
            let error = place.pull(Place::request("hello-world")).await.expect_err(row);
            assert_eq!(error.kind(), kind, "{row}: {}", error.chain());
            assert!(error.chain().contains(words), "{row}: {}", error.chain());
            place.assert_clean();
            let kept = place.root.path().join("content/ingest").join(partial_name(&image.layers[0]));
            assert!(
                !kept.exists() || kept.metadata().expect("metadata").len() == 0 || row == "more content",
                "{row}: nothing wrong is kept"
            );
        })
    });
    for row in rows {
        row.await.expect("the row");
    }
}

fn partial_name(layer: &[u8]) -> String {
    format!("sha256-{}", Digest::of(layer).hex())
}

/// What the first of two mirrors does; the second is honest.
const FAILED_OVER: [(&str, Answer); 11] = [
    ("404", |_, _, _| Reply::status(404)),
    ("429 for an hour", |_, _, _| Reply::status(429).header("Retry-After", "3600")),
    ("500", |_, _, _| Reply::status(500)),
    ("401", |_, _, _| Reply::status(401)),
    ("403", |_, _, _| Reply::status(403)),
    ("silence", |_, reply, _| reply.in_manner(Manner::Silence)),
    ("a byte a second", |_, reply, _| reply.in_manner(Manner::Trickle)),
    ("a loop of redirects", |r, _, _| Reply::status(307).header("Location", &r.path)),
    ("other content", |_, reply, _| Reply::ok(&vec![7; reply.body().len()])),
    ("a bare address for a token", |_, _, _| {
        Reply::status(401).header("WWW-Authenticate", "Bearer realm=\"https://169.254.169.254/token\"")
    }),
    ("more content", |_, reply, _| Reply::ok(&[reply.body(), b"more"].concat())),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_fails_is_followed_by_the_next() {
    if !rooted() {
        return;
    }
    let image = large();
    let rows = FAILED_OVER.map(|(row, answer)| {
        let image = Arc::clone(&image);
        tokio::spawn(async move {
            let (bad, good) = (registry(&image, answer), registry(&image, honest));
            let place = Place::through(&[&bad, &good], 2);
            let started = std::time::Instant::now();
            let pulled = place.pull(Place::request("hello-world")).await;
            let pulled = pulled.unwrap_or_else(|e| panic!("{row}: {}", e.chain()));
            assert_eq!(pulled.image_id, image.id(), "{row}");
            assert!(started.elapsed().as_secs() < 30, "{row}: {:?}", started.elapsed());
        })
    });
    for row in rows {
        row.await.expect("the row");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_mirror_goes_on_in_the_middle_of_a_blob() {
    if !rooted() {
        return;
    }
    let image = large();
    let size = bytes_of(&image.layers[0]);
    // It breaks in the middle, and is away then.
    let bad = registry(&image, |_, reply, n| if n == 0 { reply.cut(20_000) } else { Reply::status(500) });
    let good = registry(&image, honest);
    let place = Place::through(&[&bad, &good], 30);
    place.pull(Place::request("hello-world")).await.expect("pull");
    let layer = Digest::of(&image.layers[0]);
    let ranges: Vec<_> =
        good.requests().iter().filter(|r| r.path.ends_with(layer.as_str())).map(Request::range).collect();
    assert_eq!(ranges, [Some(20_000)]);
    // The other layer is a small one.
    assert!((size - 20_000..size - 19_000).contains(&good.sent()), "{}", good.sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_is_down_is_asked_last_for_a_while() {
    if !rooted() {
        return;
    }
    let image = large();
    let silent = Server::start(|_| Reply::ok(b"").in_manner(Manner::Silence));
    let good = registry(&image, honest);
    let place = Place::through(&[&silent, &good], 1);
    place.pull(Place::request("hello-world")).await.expect("pull");
    assert_eq!(silent.requests().len(), 1, "the manifest, and nothing after that");
    place.images.remove(&Namespace::default(), "hello-world", true).expect("remove");
    place.pull(Place::request("hello-world")).await.expect("pull");
    assert_eq!(silent.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_pull_is_continued_by_the_next() {
    if !rooted() {
        return;
    }
    let image = large();
    let server = registry(&image, |r, reply, n| match n {
        0 => {
            // Half of it, and then nothing more.
            let mut raw =
                format!("HTTP/1.1 200 x\r\nContent-Length: {}\r\n\r\n", reply.body().len()).into_bytes();
            raw.extend_from_slice(&reply.body()[..30_000]);
            reply.in_manner(Manner::Stuck(raw))
        }
        _ => reply.ranged(r),
    });
    let place = Place::through(&[&server], 30);
    let pull = place.images.pull(Place::request("hello-world"));
    let partial = place.root.path().join("content/ingest").join(partial_name(&image.layers[0]));
    while partial.metadata().map_or(0, |metadata| metadata.len()) < 30_000 {
        tokio::task::yield_now().await;
    }
    drop(pull);
    place.pull(Place::request("hello-world")).await.expect("pull");
    let layer = Digest::of(&image.layers[0]);
    let ranges: Vec<_> =
        server.requests().iter().filter(|r| r.path.ends_with(layer.as_str())).map(Request::range).collect();
    assert_eq!(ranges, [None, Some(30_000)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_and_wrong_is_fetched_anew() {
    if !rooted() {
        return;
    }
    let image = large();
    // Also when that is noticed before the registry has said anything.
    let silent_first: Answer =
        |r, reply, n| if n == 0 { reply.in_manner(Manner::Silence) } else { reply.ranged(r) };
    for (kept, answer) in [
        (vec![0; 5000], honest as Answer),
        (vec![0; 5000], silent_first),
        (image.layers[0][..100].repeat(3), honest),
        (vec![0; 10 << 20], honest),
    ] {
        let server = registry(&image, answer);
        let place = Place::through(&[&server], 30);
        std::fs::write(place.root.path().join("content/ingest").join(partial_name(&image.layers[0])), kept)
            .expect("write");
        let pulled = place.pull(Place::request("hello-world")).await.expect("pull");
        assert_eq!(pulled.image_id, image.id());
    }
}
