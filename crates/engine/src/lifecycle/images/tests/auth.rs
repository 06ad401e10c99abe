// SPDX-License-Identifier: Apache-2.0
//! Tokens and credentials: who is asked for them, who is shown them, and who
//! never learns of them.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{registry::Request, *};

const BEARER: &str = "WWW-Authenticate";

/// A registry that takes a token, by its number, so many times.
fn expiring(image: &Arc<TestImage>, uses: fn(usize) -> usize) -> Server {
    let image = Arc::clone(image);
    let (given, used) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Server::start(move |request| {
        if request.path.starts_with("/token") {
            let number = given.fetch_add(1, Ordering::SeqCst) + 1;
            used.store(0, Ordering::SeqCst);
            return Reply::ok(format!(r#"{{"token":"t{number}","expires_in":0}}"#).as_bytes());
        }
        let number = given.load(Ordering::SeqCst);
        let wanted = format!("Bearer t{number}");
        let known = request.header("authorization") == Some(&wanted);
        if known && used.fetch_add(1, Ordering::SeqCst) < uses(number) {
            return image.answer(&request.path);
        }
        Reply::status(401).header(BEARER, &format!("Bearer realm=\"http://{}/token\"", request.host()))
    })
}

fn tokens(server: &Server) -> usize {
    server.requests().iter().filter(|request| request.path.starts_with("/token")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_in_the_middle_is_renewed() {
    if !rooted() {
        return;
    }
    let files: Vec<(String, String)> = (0..6).map(|n| (format!("f{n}"), n.to_string())).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let image = Arc::new(TestImage::new("amd64", &files));
    let server = expiring(&image, |number| if number == 1 { 3 } else { usize::MAX });
    let pulled = Place::mirrored(&server).pull(Place::request("hello-world")).await.expect("pull");
    assert_eq!(pulled.image_id, image.id());
    assert_eq!(tokens(&server), 2, "renewed once, for all that wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_likes_no_token_is_not_asked_for_ever() {
    let image = hello();
    let server = expiring(&image, |_| 0);
    let error = Place::mirrored(&server).pull(Place::request("hello-world")).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Unauthenticated, "{}", error.chain());
    assert!(tokens(&server) <= 3 && server.requests().len() <= 7, "{}", server.requests().len());
}

/// What a token server answers, and what becomes of the pull.
type Answered = (&'static str, fn() -> Reply, Kind, &'static str);

const TOKENS: [Answered; 7] = [
    ("nothing", || Reply::ok(b""), Kind::Unavailable, "answers without a token"),
    ("no JSON", || Reply::ok(b"<html>"), Kind::Unavailable, "answers without a token"),
    ("an empty one", || Reply::ok(br#"{"token":""}"#), Kind::Unavailable, "answers without a token"),
    ("a line break", || Reply::ok(br#"{"token":"a\r\nX: y"}"#), Kind::Unavailable, "answers without a token"),
    ("a huge one", || Reply::ok(&vec![b' '; 2 << 20]), Kind::DataLoss, "more than 1048576 bytes"),
    ("a refusal", || Reply::status(401), Kind::Unauthenticated, "gives no token: 401"),
    (
        "a redirect",
        || Reply::status(307).header("Location", "http://127.0.0.1:1/"),
        Kind::Unauthenticated,
        "gives no token: 307",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_token_servers_are_not_trusted() {
    for (row, answer, kind, words) in TOKENS {
        let server = Server::start(move |request| {
            if request.path.starts_with("/token") {
                return answer();
            }
            Reply::status(401).header(BEARER, &format!("Bearer realm=\"http://{}/token\"", request.host()))
        });
        let error = Place::mirrored(&server).pull(Place::request("hello-world")).await.expect_err(row);
        assert_eq!(error.kind(), kind, "{row}: {}", error.chain());
        assert!(error.chain().contains(words), "{row}: {}", error.chain());
    }
}

/// Realms that no token is asked of.
const REALMS: [&str; 6] = [
    "http://198.51.100.1/token",
    "https://169.254.169.254/latest/meta-data",
    "https://user:pw@127.0.0.1/token",
    "file:///etc/passwd",
    "//127.0.0.1/token",
    "http://elsewhere.example/token",
];

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_not_asked_for_wherever_a_registry_says() {
    for realm in REALMS {
        let server = Server::start(move |_| {
            Reply::status(401).header(BEARER, &format!("Bearer realm=\"{realm}\",service=\"s\""))
        });
        let error = Place::mirrored(&server).pull(Place::request("hello-world")).await.expect_err(realm);
        assert_eq!(error.kind(), Kind::PermissionDenied, "{realm}: {}", error.chain());
        assert!(error.chain().contains("for a token"), "{realm}: {}", error.chain());
    }
}

/// A registry that has `credentials` checked in ways of its own.
async fn pull_from(server: &Server, credentials: Credentials) -> Result<Pulled> {
    let request = PullRequest {
        credentials: Some(credentials),
        ..Place::request(&format!("{}/a/b:1", server.address()))
    };
    Place::new(RegistryConfig::default()).pull(request).await
}

fn password() -> Credentials {
    Credentials { username: "u".into(), password: "hunter2".into(), identity_token: String::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_cannot_add_to_what_is_asked_for() {
    if !rooted() {
        return;
    }
    let image = hello();
    let served = Arc::clone(&image);
    let server = Server::start(move |request| {
        if request.path.starts_with("/token") {
            return Reply::ok(br#"{"token":"t"}"#);
        }
        if request.header("authorization") == Some("Bearer t") {
            return served.answer(&request.path);
        }
        let realm = format!("Bearer realm=\"http://{}/token\"", request.host());
        let more = ",service=\"s&scope=repository:x:push#\",scope=\"repository:other:pull,push\"";
        Reply::status(401).header(BEARER, &(realm + more))
    });
    pull_from(&server, password()).await.expect("pull");
    let asked = server.requests().into_iter().find(|r| r.path.starts_with("/token")).expect("a token").path;
    let query = asked.split_once('?').expect("a query").1;
    let scopes: Vec<&str> = query.split('&').filter(|pair| pair.starts_with("scope=")).collect();
    assert_eq!(scopes, ["scope=repository%3Aa%2Fb%3Apull"], "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_token_is_exchanged_and_never_shown_to_the_registry() {
    if !rooted() {
        return;
    }
    let image = hello();
    let served = Arc::clone(&image);
    let server = Server::start(move |request| {
        if request.path.starts_with("/token") {
            let form = String::from_utf8_lossy(&request.body);
            assert!(
                form.contains("grant_type=refresh_token&client_id=berth&refresh_token=id%2Ftok"),
                "{form}"
            );
            assert!(request.header("authorization").is_none());
            return Reply::ok(br#"{"access_token":"t"}"#);
        }
        assert!(!request.path.contains("tok"), "{}", request.path);
        if request.header("authorization") == Some("Bearer t") {
            return served.answer(&request.path);
        }
        Reply::status(401).header(BEARER, &format!("Bearer realm=\"http://{}/token\"", request.host()))
    });
    let credentials = Credentials { identity_token: "id/tok".into(), ..Credentials::default() };
    assert_eq!(pull_from(&server, credentials).await.expect("pull").image_id, image.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_may_go_from_basic_to_bearer() {
    if !rooted() {
        return;
    }
    let image = hello();
    let served = Arc::clone(&image);
    let server = Server::start(move |request| {
        if request.path.starts_with("/token") {
            return Reply::ok(br#"{"token":"t"}"#);
        }
        match (request.header("authorization"), request.path.contains("/blobs/")) {
            (Some("Bearer t"), true) | (Some("Basic dTpodW50ZXIy"), false) => served.answer(&request.path),
            (_, true) => Reply::status(401)
                .header(BEARER, &format!("Bearer realm=\"http://{}/token\"", request.host())),
            (_, false) => Reply::status(401).header(BEARER, "Basic realm=\"x\""),
        }
    });
    assert_eq!(pull_from(&server, password()).await.expect("pull").image_id, image.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_leaves_its_origin_nor_gets_into_an_error() {
    let elsewhere = Arc::new(Server::start(|_| Reply::status(403)));
    let target = elsewhere.url();
    let server = Server::start(move |request| {
        if request.header("authorization").is_none() {
            return Reply::status(401).header(BEARER, "Basic realm=\"x\"");
        }
        Reply::status(307)
            .header("Set-Cookie", "session=hunter3")
            .header("Location", &format!("{target}{}?sig=hunter4", request.path))
    });
    let host = HostConfig {
        headers: BTreeMap::from([("x-team".to_owned(), "hunter5".to_owned())]),
        ..HostConfig::default()
    };
    let hosts = BTreeMap::from([(server.address().to_string(), host)]);
    let place = Place::new(RegistryConfig { hosts, ..RegistryConfig::default() });
    let request = PullRequest {
        credentials: Some(password()),
        ..Place::request(&format!("{}/a/b:1", server.address()))
    };
    let error = place.pull(request.clone()).await.expect_err("refused").chain();
    let at_home = server.requests();
    assert!(at_home.iter().all(|request| request.header("x-team") == Some("hunter5")));
    for seen in elsewhere.requests() {
        for secret in ["authorization", "cookie", "x-team", "referer"] {
            assert!(seen.header(secret).is_none(), "{secret} of {seen:?}");
        }
    }
    assert!(!elsewhere.requests().is_empty());
    // Where it led is gone: the error may not tell with which signature.
    drop(elsewhere);
    let gone = place.pull(request).await.expect_err("gone").chain();
    for error in [error, gone] {
        assert!(!error.contains("hunter") && !error.contains("dTpodW50ZXIy"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_is_never_shown_the_registrys_credentials() {
    if !rooted() {
        return;
    }
    let image = hello();
    let served = Arc::clone(&image);
    let mirror = Server::start(move |request: &Request| {
        assert!(request.header("authorization").is_none());
        served.answer(&request.path)
    });
    let place = Place::mirrored(&mirror);
    let request = PullRequest { credentials: Some(password()), ..Place::request("hello-world") };
    place.pull(request).await.expect("pull");
}
