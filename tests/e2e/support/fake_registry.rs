// SPDX-License-Identifier: Apache-2.0
//! A registry that misbehaves as it is told: it answers fixed paths with fixed
//! answers, and everything else with 404. It knows ranges, counts, and can pass
//! for a proxy.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
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
    desk: Arc<Desk>,
}

/// What the server's threads share.
#[derive(Debug, Default)]
struct Desk {
    /// Bytes of blobs that were sent.
    sent: AtomicU64,
    /// Answers to paths with this end stop after so many bytes.
    hold: Mutex<Option<(String, usize)>>,
    /// Which one has stopped.
    holding: Mutex<Option<String>>,
    freed: Condvar,
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
        Self::of_image(image, repository, tag, true)
    }

    /// One that serves `image` as `repository:tag`.
    pub(crate) fn serving(image: &Image, repository: &str, tag: &str) -> Self {
        Self::of_image(image, repository, tag, false)
    }

    /// Has answers for paths that end with `path` stop after `bytes`, until it
    /// is told otherwise.
    pub(crate) fn hold(&self, path: &str, bytes: usize) {
        *self.desk.holding.lock().expect("lock") = None;
        *self.desk.hold.lock().expect("lock") = Some((path.to_owned(), bytes));
    }

    /// Has answers come again, and gives up those that were held.
    pub(crate) fn free(&self) {
        *self.desk.hold.lock().expect("lock") = None;
        self.desk.freed.notify_all();
    }

    /// Whether an answer for a path that ends with `path` is held.
    pub(crate) fn asked_for(&self, path: &str) -> bool {
        self.desk.holding.lock().expect("lock").as_deref() == Some(path)
    }

    /// Bytes of blobs that were sent since they were last taken.
    pub(crate) fn sent(&self) -> u64 {
        self.desk.sent.load(Ordering::SeqCst)
    }

    /// Bytes of blobs that were sent since they were last taken.
    pub(crate) fn take_sent(&self) -> u64 {
        self.desk.sent.swap(0, Ordering::SeqCst)
    }

    fn of_image(image: &Image, repository: &str, tag: &str, corrupt: bool) -> Self {
        let mut answers = BTreeMap::new();
        let config = image.config_digest().to_owned();
        for (digest, bytes) in image.blobs() {
            let mut body = bytes.to_vec();
            if corrupt && *digest != config {
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
        let (answer, desk) = (Arc::new(answer), Arc::<Desk>::default());
        let shared = Arc::clone(&desk);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let (Ok(stream), answer, desk) = (stream, answer.clone(), shared.clone()) else { return };
                thread::spawn(move || speak(stream, answer.as_ref(), &desk));
            }
        });
        Self { address, stop, desk }
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.free();
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
    }
}

fn speak(mut stream: TcpStream, answer: &dyn Fn(&str) -> Answer, desk: &Desk) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let asked = http::read_headers(&mut reader)?;
        // A proxy is asked for whole URLs.
        let path = path.find("/v2/").map_or(path, |at| &path[at..]);
        let path = path.split('?').next().unwrap_or(path);
        let Answer { mut status, mut headers, mut body } = answer(path);
        let from = asked
            .get("range")
            .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
        if let Some(from) = from.filter(|from| status == 200 && *from < body.len()) {
            headers.push(("Content-Range", format!("bytes {from}-{}/{}", body.len() - 1, body.len())));
            body.drain(..from);
            status = 206;
        }
        write!(stream, "HTTP/1.1 {status} Answer\r\nContent-Length: {}\r\n", body.len())?;
        for (name, value) in headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        stream.write_all(b"\r\n")?;
        if method == "HEAD" {
            continue;
        }
        let held = desk.hold.lock().expect("lock").clone().filter(|(end, _)| path.ends_with(end));
        let part = held.as_ref().map_or(body.len(), |(_, bytes)| *bytes.min(&body.len()));
        stream.write_all(&body[..part])?;
        if path.contains("/blobs/") {
            desk.sent.fetch_add(part as u64, Ordering::SeqCst);
        }
        if part < body.len() {
            *desk.holding.lock().expect("lock") = held.map(|(end, _)| end);
            let hold = desk.hold.lock().expect("lock");
            let _freed = desk.freed.wait_while(hold, |hold| hold.is_some()).expect("lock");
            return Ok(());
        }
    }
}
