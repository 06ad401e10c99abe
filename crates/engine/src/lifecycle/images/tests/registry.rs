// SPDX-License-Identifier: Apache-2.0
//! A registry that answers as a test wants: HTTP/1.1, one thread per
//! connection, one request per connection.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// The end of a server.
#[derive(Debug, Default)]
struct Stop(Mutex<bool>, Condvar);

impl Stop {
    fn now(&self) {
        *self.0.lock().expect("lock") = true;
        self.1.notify_all();
    }

    /// Whether it came, or comes within `time`.
    fn within(&self, time: Duration) -> bool {
        let stopped = self.0.lock().expect("lock");
        *self.1.wait_timeout_while(stopped, time, |stopped| !*stopped).expect("lock").0
    }
}

/// What a client asked.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
    headers: Vec<(String, String)>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn host(&self) -> &str {
        self.header("host").unwrap_or_default()
    }

    /// The first byte that is asked for.
    pub(super) fn range(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What it gets.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    status: u16,
    headers: String,
    body: Vec<u8>,
    manner: Manner,
}

/// How an answer is given.
#[derive(Debug, Clone)]
pub(super) enum Manner {
    Plain,
    /// Break off after this many bytes of the body.
    Cut(usize),
    /// The same, with a reset.
    Reset(usize),
    /// Nothing at all, and the connection stays.
    Silence,
    /// All of the head, a byte a second of the body.
    Trickle,
    /// The head a byte a second.
    SlowHead,
    /// These bytes as they are, instead of anything.
    Raw(Vec<u8>),
    /// The same, and the connection stays.
    Stuck(Vec<u8>),
}

impl Reply {
    pub(super) fn ok(body: &[u8]) -> Self {
        Self { status: 200, headers: String::new(), body: body.to_vec(), manner: Manner::Plain }
    }

    pub(super) fn status(status: u16) -> Self {
        Self { status, ..Self::ok(b"") }
    }

    pub(super) fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    pub(super) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(super) fn cut(self, after: usize) -> Self {
        self.in_manner(Manner::Cut(after))
    }

    pub(super) fn in_manner(mut self, manner: Manner) -> Self {
        self.manner = manner;
        self
    }

    pub(super) fn is_good(&self) -> bool {
        self.status == 200
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// As a registry that knows ranges answers `request`.
    pub(super) fn ranged(self, request: &Request) -> Self {
        match request.range() {
            Some(from) if self.status == 200 && from < self.body.len() => self.from(from),
            _ => self,
        }
    }

    pub(super) fn from(mut self, from: usize) -> Self {
        let range = format!("bytes {from}-{}/{}", self.body.len() - 1, self.body.len());
        self.body.drain(..from);
        self.status = 206;
        self.header("Content-Range", &range)
    }
}

/// Serves until it is dropped.
pub(super) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    sent: Arc<AtomicU64>,
    stop: Arc<Stop>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("address");
        let (seen, stop) = (Arc::<Mutex<Vec<Request>>>::default(), Arc::<Stop>::default());
        let sent = Arc::<AtomicU64>::default();
        let (all, stopped, answer) = (Arc::clone(&seen), Arc::clone(&stop), Arc::new(answer));
        let counted = Arc::clone(&sent);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.within(Duration::ZERO) {
                    return;
                }
                let (all, answer) = (Arc::clone(&all), Arc::clone(&answer));
                let (sent, stopped) = (Arc::clone(&counted), Arc::clone(&stopped));
                std::thread::spawn(move || {
                    // A client that goes away in the middle is part of the game.
                    let _gone = stream.and_then(|stream| serve(stream, &all, &*answer, &sent, &stopped));
                });
            }
        });
        Self { address, seen, sent, stop, thread: Some(thread) }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes of bodies, so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.seen.lock().expect("lock").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.now();
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().expect("join");
        }
    }
}

fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request) -> Reply,
    sent: &AtomicU64,
    stopped: &Stop,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let mut request = Request { method, path, body: Vec::new(), headers };
    // What is sent has to be taken, or the answer is lost to a reset.
    let length = request.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_end(&mut request.body)?;
    seen.lock().expect("lock").push(request.clone());
    let reply = answer(&request);
    let head = format!(
        "HTTP/1.1 {} x\r\n{}Content-Length: {}\r\nConnection: close\r\n\r\n",
        reply.status,
        reply.headers,
        reply.body.len()
    );
    let slowly = |mut stream: TcpStream, bytes: &[u8]| {
        for byte in bytes {
            stream.write_all(&[*byte])?;
            if stopped.within(Duration::from_secs(1)) {
                break;
            }
        }
        Ok(())
    };
    let part = match reply.manner {
        Manner::Silence | Manner::Stuck(_) => {
            if let Manner::Stuck(bytes) = &reply.manner {
                stream.write_all(bytes)?;
            }
            stopped.within(Duration::from_secs(600));
            return Ok(());
        }
        Manner::Raw(bytes) => return stream.write_all(&bytes),
        Manner::SlowHead => return slowly(stream, head.as_bytes()),
        Manner::Trickle => {
            stream.write_all(head.as_bytes())?;
            return slowly(stream, &reply.body);
        }
        Manner::Plain => &reply.body[..],
        Manner::Cut(after) | Manner::Reset(after) => &reply.body[..after.min(reply.body.len())],
    };
    stream.write_all(head.as_bytes())?;
    stream.write_all(part)?;
    sent.fetch_add(part.len() as u64, Ordering::SeqCst);
    if matches!(reply.manner, Manner::Reset(_)) {
        // Let the client read what was sent, then break the connection hard.
        stopped.within(Duration::from_millis(50));
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &linger)?;
    }
    Ok(())
}
