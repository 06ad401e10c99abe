// SPDX-License-Identifier: Apache-2.0
//! A registry that misbehaves as it is told: it answers fixed paths with fixed
//! answers, and everything else with 404.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use super::{Image, http};

/// One fixed answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// The server; it ends when dropped.
#[derive(Debug)]
pub(crate) struct FakeRegistry {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

impl FakeRegistry {
    /// One that wants a login before it says anything.
    pub(crate) fn wanting_login() -> Self {
        let answer = Answer {
            status: 401,
            headers: vec![("WWW-Authenticate", "Basic realm=\"private\"".to_owned())],
            body: br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#.to_vec(),
        };
        Self::serve(move |_| answer.clone())
    }

    /// One that serves `image` as `repository:tag`, with every layer's bytes
    /// changed on the way.
    pub(crate) fn corrupting(image: &Image, repository: &str, tag: &str) -> Self {
        let mut answers = BTreeMap::new();
        let config = image.config_digest().to_owned();
        for (digest, bytes) in image.blobs() {
            let mut body = bytes.to_vec();
            if *digest != config {
                // The time in gzip's header, RFC 1952 2.3: as long as before and
                // the same inside, so only the digest can tell.
                body[4] ^= 1;
            }
            let answer = Answer { status: 200, headers: vec![], body };
            answers.insert(format!("/v2/{repository}/blobs/{digest}"), answer);
        }
        let ((media_type, bytes), digest) = (image.top(), image.digest());
        for reference in [&digest, tag] {
            let headers =
                vec![("Content-Type", media_type.to_owned()), ("Docker-Content-Digest", digest.clone())];
            let answer = Answer { status: 200, headers, body: bytes.to_vec() };
            answers.insert(format!("/v2/{repository}/manifests/{reference}"), answer);
        }
        answers.insert("/v2/".to_owned(), Answer { status: 200, headers: vec![], body: b"{}".to_vec() });
        let unknown = Answer { status: 404, headers: vec![], body: b"{}".to_vec() };
        Self::serve(move |path| answers.get(path).unwrap_or(&unknown).clone())
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn serve(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(stream), answer) = (stream, answer.clone()) else { return };
                thread::spawn(move || speak(stream, answer.as_ref()));
            }
        });
        Self { address, stop }
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
    }
}

fn speak(mut stream: TcpStream, answer: &dyn Fn(&str) -> Answer) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        http::read_headers(&mut reader)?;
        let Answer { status, headers, body } = answer(path.split('?').next().unwrap_or(path));
        write!(stream, "HTTP/1.1 {status} Answer\r\nContent-Length: {}\r\n", body.len())?;
        for (name, value) in headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        stream.write_all(b"\r\n")?;
        if method != "HEAD" {
            stream.write_all(&body)?;
        }
    }
}
