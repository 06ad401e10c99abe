// SPDX-License-Identifier: Apache-2.0
//! Probes that need no process in the container: where they go, what they
//! send, and what an answer means. Pure; sockets are lifecycle's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest URL.
const MAX_URL: usize = 2048;

/// Bytes of an answer that are read at most: a status line, and a little for
/// people to see.
pub const MAX_ANSWER: usize = 4096;

/// A server to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    /// Tried in this order.
    pub addresses: Vec<SocketAddr>,
}

/// A server to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Where.
    pub server: Tcp,
    /// What is sent.
    pub request: String,
}

/// `PORT` or `HOST:PORT`, where the host is `localhost` or an address.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn tcp(text: &str) -> Result<Tcp, String> {
    let wrong = || format!("invalid health-tcp {text:?}: expected PORT or HOST:PORT");
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port),
        None => ("localhost", text),
    };
    let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    Ok(Tcp { addresses: addresses(host, port).ok_or_else(wrong)? })
}

/// `http://HOST[:PORT][/PATH]`; names aren't looked up.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn http(url: &str) -> Result<Http, String> {
    let wrong =
        |why: &str| format!("invalid health-http {:?}: {why}", url.chars().take(200).collect::<String>());
    if url.starts_with("https:") {
        return Err(wrong("https isn't supported: use --health-tcp, or --health-cmd"));
    }
    let rest = url.strip_prefix("http://").ok_or_else(|| wrong("expected http://HOST[:PORT][/PATH]"))?;
    if url.len() > MAX_URL || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("only printable ASCII letters, at most 2048"));
    }
    let rest = rest.split('#').next().unwrap_or_default();
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let (host, port) = match authority.rsplit_once(':') {
        // The colon of an IPv6 address in brackets is none.
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| wrong("no such port"))?)
        }
        _ => (authority, 80),
    };
    let addresses = addresses(host, port)
        .ok_or_else(|| wrong("its host is neither localhost nor an address: names aren't looked up"))?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    let request = format!(
        "GET {slash}{path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: berth-health\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    );
    Ok(Http { server: Tcp { addresses }, request })
}

fn addresses(host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let all = match host {
        "localhost" => vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
        host => {
            let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
            vec![bare.parse().ok()?]
        }
    };
    Some(all.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// The status of an answer (RFC 9112, 4); `None` when it isn't one.
#[must_use]
pub fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).ok()?;
    let (version, rest) = line.split_once(' ')?;
    let digits = rest.split(' ').next()?;
    let is_http = version.len() == 8 && version.starts_with("HTTP/1.");
    if !is_http || digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|status| *status >= 100)
}

/// What people are shown of an answer: its first line, and its content.
#[must_use]
pub fn shown(answer: &[u8]) -> Vec<u8> {
    let end = |of: &[u8], what: &[u8]| of.windows(what.len()).position(|window| window == what);
    let first = &answer[..end(answer, b"\r\n").unwrap_or(answer.len())];
    match end(answer, b"\r\n\r\n") {
        Some(head) => [first, b"\n", &answer[head + 4..]].concat(),
        None => first.to_vec(),
    }
}

/// Whether a server that answers so is well: as kubelet's probes have it.
#[must_use]
pub fn is_well(status: u16) -> bool {
    (200..400).contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(server: &Tcp) -> Vec<String> {
        server.addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_port_is_localhosts() {
        assert_eq!(show(&tcp("80").expect("valid")), ["127.0.0.1:80", "[::1]:80"]);
        assert_eq!(show(&tcp("10.0.0.1:80").expect("valid")), ["10.0.0.1:80"]);
        assert_eq!(show(&tcp("[::1]:80").expect("valid")), ["[::1]:80"]);
        for bad in ["", "0", "x", "65536", "host:80", ":80", "10.0.0.1:"] {
            assert!(tcp(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_url_becomes_a_request() {
        let probe = http("http://localhost:8080/health?x=1#part").expect("valid");
        assert_eq!(show(&probe.server), ["127.0.0.1:8080", "[::1]:8080"]);
        assert!(probe.request.starts_with("GET /health?x=1 HTTP/1.1\r\nHost: localhost:8080\r\n"));
        assert!(probe.request.ends_with("\r\n\r\n"));
        assert_eq!(show(&http("http://[::1]").expect("valid").server), ["[::1]:80"]);
        assert!(http("http://127.0.0.1?q").expect("valid").request.starts_with("GET /?q HTTP/1.1\r\n"));
        for bad in [
            "",
            "localhost",
            "https://localhost/",
            "http://",
            "http://name/",
            "http://localhost:0/",
            "http://localhost/a b",
            "http://localhost/\r\nX: y",
            "http://localhost:x/",
            "http://u@localhost/",
        ] {
            assert!(http(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn headers_are_not_shown() {
        assert_eq!(shown(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nwell\n"), b"HTTP/1.1 200 OK\nwell\n");
        assert_eq!(shown(b"HTTP/1.1 200 OK\r\nA: b"), b"HTTP/1.1 200 OK");
        assert_eq!(shown(b""), b"");
    }

    #[test]
    fn a_status_line_is_read_and_nothing_else() {
        assert_eq!(status(b"HTTP/1.1 204 No Content\r\nX: y\r\n"), Some(204));
        assert_eq!(status(b"HTTP/1.0 503\r\n"), Some(503));
        assert_eq!(status(b"HTTP/1.1 200 OK"), Some(200));
        for bad in [
            &b""[..],
            b"HTTP/2 200 OK\r\n",
            b"SSH-2.0-x\r\n",
            b"HTTP/1.1 20\r\n",
            b"HTTP/1.1 +20 \r\n",
            b"\xff\n",
        ] {
            assert_eq!(status(bad), None, "{bad:?}");
        }
        assert!(is_well(200) && is_well(301) && !is_well(400) && !is_well(199));
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60), text in "\\PC{0,40}") {
            let _ = status(&bytes);
            let _ = (tcp(&text), http(&text));
            let _ = http(&format!("http://{text}"));
        }
    }
}
