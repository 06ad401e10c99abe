// SPDX-License-Identifier: Apache-2.0
//! Logs that go elsewhere, to sockets that stand for a journal and a syslog.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{TcpListener, UdpSocket},
    os::unix::net::{UnixDatagram, UnixListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use crate::support::{Engine, Image, until};

/// Collects messages, one each, until it is dropped with its socket.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<String>>>);

impl Collected {
    fn add(&self, bytes: &[u8]) {
        self.0.lock().expect("lock").push(String::from_utf8_lossy(bytes).into_owned());
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().expect("lock").clone()
    }

    /// Waits until there is one that ends with `text`.
    #[track_caller]
    fn expect(&self, text: &str) -> Vec<String> {
        until(&format!("{text:?} in {:?}", self.all().last()), || {
            self.all().iter().any(|m| m.trim_end().ends_with(text)).then(|| self.all())
        })
    }

    fn unixgram(path: &Path) -> Self {
        let (socket, collected) = (UnixDatagram::bind(path).expect("bind"), Self::default());
        let to = collected.clone();
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 18];
            while let Ok(length) = socket.recv(&mut buffer) {
                to.add(&buffer[..length]);
            }
        });
        collected
    }
}

fn engine() -> Option<(Engine, PathBuf)> {
    let mut engine = Engine::prepare("")?;
    let journal = engine.dir().join("journal");
    let config = format!("[containers]\njournald_socket = \"{}\"\n", journal.display());
    fs::write(engine.dir().join("config.toml"), config).expect("write");
    engine.restart();
    engine.load(&Image::busybox(), "busybox");
    Some((engine, journal))
}

fn field<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    message.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[test]
fn the_journal_gets_every_line_whoever_is_away() {
    let Some((mut engine, socket)) = engine() else { return };
    let script = "echo first >&2; n=0; while [ ! -e /out/end ]; do n=$((n+1)); echo $n; sleep 0.002; done; printf last";
    let out = engine.dir().join("out");
    fs::create_dir(&out).expect("mkdir");
    let volume = format!("{}:/out", out.display());
    let flags = ["run", "-d", "--name", "web", "--log-driver", "journald", "-v", &volume, "-l", "com.x=y"];
    let options =
        ["--log-opt", "labels=com.x", "--log-opt", "tag=t-{{.Name}}", "busybox", "sh", "-c", script];
    // The journal isn't there yet.
    engine.berth(&[&flags[..], &options].concat()).ok();
    engine.wait_log("web", "\n20\n");
    let journal = Collected::unixgram(&socket);
    let seen = journal.expect("MESSAGE=20");
    assert_eq!((field(&seen[0], "MESSAGE"), field(&seen[0], "PRIORITY")), (Some("first"), Some("3")));
    let id = engine.inspect("web")["Id"].as_str().expect("an id").to_owned();
    for (name, value) in [
        ("MESSAGE", "1"),
        ("PRIORITY", "6"),
        ("CONTAINER_NAME", "web"),
        ("CONTAINER_ID", &id[..12]),
        ("CONTAINER_ID_FULL", &id),
        ("CONTAINER_TAG", "t-web"),
        ("SYSLOG_IDENTIFIER", "t-web"),
        ("COM_X", "y"),
    ] {
        assert_eq!(field(&seen[1], name), Some(value), "{name} in {}", seen[1]);
    }
    let newest = || journal.all().len();
    for polite in [false, true, false] {
        let before = newest();
        until("more messages", || (newest() > before + 30).then_some(()));
        if polite {
            assert_eq!(engine.stop(), 0);
        } else {
            engine.kill9();
        }
        engine.restart();
    }
    // Its last lines come to an engine that wasn't there when it ended.
    engine.kill9();
    fs::write(out.join("end"), "").expect("write");
    engine.restart();
    let seen = journal.expect("MESSAGE=last");
    assert_eq!(field(&seen[seen.len() - 1], "CONTAINER_PARTIAL_MESSAGE"), Some("true"));
    let lines: Vec<_> = seen.iter().filter_map(|m| field(m, "MESSAGE")).collect();
    let mut expected = 1;
    let mut twice = 0;
    for line in &lines[1..lines.len() - 1] {
        let n: u32 = line.parse().expect("a number");
        if n + 1 == expected {
            twice += 1;
            continue;
        }
        assert_eq!(n, expected, "nothing is missing");
        expected += 1;
    }
    // One that was on its way when the engine was killed, at most.
    assert!(twice <= 3, "{twice} lines came twice");
    assert_eq!(engine.berth(&["logs", "--tail", "1", "web"]).ok().stdout, "last");
}

#[test]
fn a_syslog_is_reached_by_every_way_and_in_every_format() {
    let Some((engine, _)) = engine() else { return };
    let run = |name: &str, address: &str, options: &[&str]| {
        let address = format!("syslog-address={address}");
        let flags = ["run", "--name", name, "--log-driver", "syslog", "--log-opt", &address];
        let command = ["busybox", "sh", "-c", "echo out; echo err >&2; echo end"];
        engine.berth(&[&flags[..], options, &command].concat()).ok();
    };
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name").trim().to_owned();
    let pid = engine.pid();

    let path = engine.dir().join("gram");
    let seen = Collected::unixgram(&path);
    run("gram", &format!("unixgram://{}", path.display()), &[]);
    let seen = seen.expect("]: end");
    let id = engine.inspect("gram")["Id"].as_str().expect("an id")[..12].to_owned();
    let ends = |n: usize, priority: u8, text: &str| {
        assert!(seen[n].starts_with(&format!("<{priority}>")), "{}", seen[n]);
        assert!(seen[n].ends_with(&format!(" {id}[{pid}]: {text}\n")), "{}", seen[n]);
    };
    assert_eq!(seen.len(), 3);
    let first = usize::from(seen[0].contains("err"));
    ends(first, 30, "out");
    assert!(seen.iter().any(|m| m.starts_with("<27>") && m.ends_with("]: err\n")));

    let udp = UdpSocket::bind("127.0.0.1:0").expect("bind");
    udp.set_read_timeout(Some(Duration::from_secs(20))).expect("time-out");
    let options = ["--log-opt", "syslog-format=rfc5424micro", "--log-opt", "syslog-facility=local3"];
    let options = [&options[..], &["--log-opt", "tag=app"]].concat();
    run("udp", &format!("udp://{}", udp.local_addr().expect("an address")), &options);
    let mut buffer = [0; 2048];
    let length = udp.recv(&mut buffer).expect("a datagram");
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let (header, rest) = text.split_once(&format!(" {host} ")).unwrap_or_else(|| panic!("{text}"));
    assert!(header.starts_with("<158>1 20") || header.starts_with("<155>1 20"), "{header}");
    assert_eq!(
        header.split_once('.').map(|(_, fraction)| fraction.find(['+', '-'])),
        Some(Some(6)),
        "{header}"
    );
    assert!(rest.starts_with(&format!("app {pid} app - ")), "{rest}");

    let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = format!("tcp://{}", tcp.local_addr().expect("an address"));
    run("tcp", &address, &["--log-opt", "syslog-format=rfc3164"]);
    let lines = BufReader::new(tcp.accept().expect("a connection").0).lines();
    let lines: Vec<_> = lines.map(|line| line.expect("a line")).take(3).collect();
    assert!(lines.iter().all(|l| l.contains(&format!(" {host} "))), "{lines:?}");
    assert!(lines.iter().any(|l| l.ends_with("]: err") && l.starts_with("<27>")));

    let path = engine.dir().join("stream");
    let stream = UnixListener::bind(&path).expect("bind");
    run("stream", &format!("unix://{}", path.display()), &["--log-opt", "syslog-format=rfc5424"]);
    let lines = BufReader::new(stream.accept().expect("a connection").0).lines();
    assert!(lines.take(3).any(|l| l.expect("a line").ends_with(" - end")));

    let bad = ["create", "--log-driver", "syslog", "--log-opt", "syslog-address=ftp://x", "busybox"];
    engine.berth(&bad).exits(125).complains(&["syslog-address"]);
}

#[test]
fn one_who_takes_nothing_holds_nobody_up_and_can_be_replaced() {
    let Some((engine, _)) = engine() else { return };
    let tcp = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = format!("syslog-address=tcp://{}", tcp.local_addr().expect("an address"));
    let flags = ["run", "--name", "much", "--log-driver", "syslog", "--log-opt", &address, "busybox"];
    // More than any socket holds, and the container ends.
    let line = "0123456789".repeat(10);
    let script = format!("yes {line} | head -n 200000; echo end");
    engine.berth(&[&flags[..], &["sh", "-c", &format!("{script} >&2")]].concat()).ok();
    let (full, _) = tcp.accept().expect("a connection");
    let path = engine.dir().join("other");
    let other = Collected::unixgram(&path);
    let address = format!("syslog-address=unixgram://{}", path.display());
    engine.berth(&["update", "--log-opt", &address, "much"]).ok();
    let rest = other.expect("]: end");
    drop(full);
    assert!(rest.len() > 1000 && rest.len() <= 200_001, "{}", rest.len());
    // A container whose lines nobody wants can go at once.
    let nowhere = ["run", "--name", "none", "--log-driver", "syslog", "--log-opt"];
    engine.berth(&[&nowhere[..], &["syslog-address=unix:///nowhere", "busybox", "echo", "x"]].concat()).ok();
    engine.berth(&["rm", "none"]).ok();
}
