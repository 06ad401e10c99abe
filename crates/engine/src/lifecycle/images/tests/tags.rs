// SPDX-License-Identifier: Apache-2.0
//! Lists of tags, in pages, from registries that mean well and others.

use super::*;

async fn tags(server: &Server) -> Result<Vec<String>> {
    let place = Place::mirrored(server);
    place.images.tags(&"hello-world".parse().expect("reference"), None).await
}

fn page(tags: &[&str], next: Option<&str>) -> Reply {
    let body = serde_json::json!({ "name": "library/hello-world", "tags": tags }).to_string();
    let reply = Reply::ok(body.as_bytes());
    match next {
        Some(next) => reply.header("Link", &format!("<{next}>; rel=\"next\"")),
        None => reply,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_read_page_after_page() {
    let server = Server::start(|request| match request.path.as_str() {
        "/v2/library/hello-world/tags/list?n=1000" => {
            page(&["1", "2"], Some("/v2/library/hello-world/tags/list?last=2"))
        }
        // Relative to the page, and one of them a second time.
        "/v2/library/hello-world/tags/list?last=2" => page(&["2", "3"], Some("list?last=3")),
        "/v2/library/hello-world/tags/list?last=3" => page(&["4"], None),
        _ => Reply::status(404),
    });
    assert_eq!(tags(&server).await.expect("a list"), ["1", "2", "3", "4"]);
    let none = Server::start(|_| Reply::ok(br#"{"name": "x", "tags": null}"#));
    assert_eq!(tags(&none).await.expect("an empty list"), [""; 0]);
}

type Case = (fn(&registry::Request) -> Reply, Kind, &'static str);

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_none_is_refused() {
    let cases: [Case; 8] = [
        (|_| page(&["1"], Some("/v2/again")), Kind::DataLoss, "it goes on without another tag"),
        (|_| page(&["1"], Some("http://198.51.100.1/v2/")), Kind::PermissionDenied, "elsewhere: refused"),
        (|_| page(&["1"], Some("file:///etc/passwd")), Kind::PermissionDenied, "elsewhere: refused"),
        (|_| page(&["1", "a/../b"], None), Kind::DataLoss, "no tag: \"a/../b\""),
        (|_| Reply::ok(b"<html>"), Kind::DataLoss, "bad list of tags of hello-world"),
        (|_| Reply::ok(&vec![b' '; 5 << 20]), Kind::DataLoss, "more than 4194304 bytes"),
        (|_| Reply::status(404), Kind::NotFound, "list of tags of hello-world not found"),
        (|_| Reply::status(403), Kind::PermissionDenied, "pull access denied for hello-world"),
    ];
    for (answer, kind, words) in cases {
        let error = tags(&Server::start(answer)).await.expect_err(words);
        assert!(error.kind() == kind && error.chain().contains(words), "{}", error.chain());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_without_end_ends() {
    let server = Server::start(|request| {
        let number: u64 = request.path.rsplit('=').next().and_then(|n| n.parse().ok()).expect("a number");
        let names: Vec<String> =
            (0..10_000).map(|tag| format!("{number}-{tag}-{}", "x".repeat(100))).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        page(&names, Some(&format!("/v2/library/hello-world/tags/list?last={}", number + 1)))
    });
    let error = tags(&server).await.expect_err("too many");
    assert_eq!(error.kind(), Kind::ResourceExhausted);
    assert!(error.chain().contains("hello-world has more tags than can be listed"), "{}", error.chain());
}
