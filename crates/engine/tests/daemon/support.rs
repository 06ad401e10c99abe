// SPDX-License-Identifier: Apache-2.0
//! Starts `berthd` in a temporary directory, waits for what it tells its
//! service manager and its log, and ends it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

const BERTHD: &str = env!("CARGO_BIN_EXE_berthd");

/// Long enough for a busy machine; a passing test never waits for it.
const DEADLINE: Duration = Duration::from_secs(60);

/// A running engine; killed when dropped.
pub(crate) struct Engine {
    dir: TempDir,
    manager: UnixDatagram,
    child: Child,
    log: BufReader<UnixStream>,
}

impl Engine {
    /// Starts an engine with this configuration, and waits until it serves.
    pub(crate) fn start(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::write(dir.path().join("config.toml"), config).expect("write");
        let manager = UnixDatagram::bind(dir.path().join("notify")).expect("bind");
        manager.set_read_timeout(Some(DEADLINE)).expect("timeout");
        let (child, log) = launch(dir.path());
        let engine = Self { dir, manager, child, log };
        assert!(engine.told("READY=1"));
        engine
    }

    /// Starts again where the last one ended.
    pub(crate) fn restart(&mut self) {
        (self.child, self.log) = launch(self.dir.path());
        assert!(self.told("READY=1"));
    }

    pub(crate) fn configure(&self, config: &str) {
        fs::write(self.dir.path().join("config.toml"), config).expect("write");
    }

    /// The command line that it was started with.
    pub(crate) fn arguments(&self) -> Vec<String> {
        arguments(self.dir.path())
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.state().join("berth.sock")
    }

    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    #[expect(clippy::disallowed_methods, reason = "our own child, which nobody has waited for yet")]
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("kill");
    }

    /// Waits for its end; the exit code, `None` after a signal.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut line = String::new();
        while self.log.read_line(&mut line).expect("it ends in time") > 0 {}
        self.child.wait().expect("wait").code()
    }

    /// Whether the service manager is told this next.
    pub(crate) fn told(&self, state: &str) -> bool {
        let mut buffer = [0; 256];
        let length = self.manager.recv(&mut buffer).expect("told in time");
        String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == state)
    }

    /// The next line of the log with these words.
    pub(crate) fn expect_log(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            let length = self.log.read_line(&mut line).expect("logged in time");
            assert!(length > 0, "the log ended without {words:?}");
            if line.contains(words) {
                return line;
            }
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn arguments(dir: &Path) -> Vec<String> {
    let path = |name: &str| dir.join(name).display().to_string();
    [
        ("--config", path("config.toml")),
        ("--root", path("root")),
        ("--state", path("state")),
        ("--cgroup-parent", format!("/berth-test-{}", std::process::id())),
        ("--shim", path("shim")),
    ]
    .into_iter()
    .flat_map(|(flag, value)| [flag.to_owned(), value])
    .collect()
}

fn launch(dir: &Path) -> (Child, BufReader<UnixStream>) {
    // The daemon reads it, nothing in these tests runs it.
    fs::write(dir.join("shim"), "#!/bin/false\n").expect("write");
    let (ours, theirs) = UnixStream::pair().expect("pair");
    ours.set_read_timeout(Some(DEADLINE)).expect("timeout");
    let child = Command::new(BERTHD)
        .args(arguments(dir))
        .env("NOTIFY_SOCKET", dir.join("notify"))
        .env_remove("BERTH_LOG")
        .stderr(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .expect("start berthd");
    (child, BufReader::new(ours))
}

/// Runs `berthd` to its end: exit code, output, errors.
pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> (Option<i32>, String, String) {
    let output = Command::new(BERTHD).args(arguments).env_remove("BERTH_LOG").output().expect("run berthd");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).expect("a port").port()
}

/// Two authorities, and a certificate of each for a client.
pub(crate) struct Pki {
    dir: TempDir,
}

impl Pki {
    /// `None` without openssl(1).
    pub(crate) fn make() -> Option<Self> {
        Command::new("openssl").arg("version").stdout(Stdio::null()).status().ok()?;
        let pki = Self { dir: tempfile::tempdir().expect("tempdir") };
        pki.authority("ca");
        pki.authority("other-ca");
        pki.certificate("server", "ca", "subjectAltName=DNS:localhost,IP:127.0.0.1");
        pki.certificate("client", "ca", "extendedKeyUsage=clientAuth");
        pki.certificate("stranger", "other-ca", "extendedKeyUsage=clientAuth");
        Some(pki)
    }

    /// A configuration that listens on `port` of the loopback.
    pub(crate) fn config(&self, port: u16) -> String {
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        format!(
            "[tcp]\naddress = \"127.0.0.1:{port}\"\ncert = {:?}\nkey = {:?}\nclient_ca = {:?}\n",
            path("server.pem"),
            path("server.key"),
            path("ca.pem")
        )
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).expect("read")
    }

    fn authority(&self, name: &str) {
        let (key, pem, subject) = (format!("{name}.key"), format!("{name}.pem"), format!("/CN={name}"));
        let make =
            ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"];
        self.openssl(&[&make[..], &["-subj", &subject, "-keyout", &key, "-out", &pem]].concat());
    }

    fn certificate(&self, name: &str, authority: &str, extension: &str) {
        let file = |name: &str, kind: &str| format!("{name}.{kind}");
        let (key, request, pem) = (file(name, "key"), file(name, "csr"), file(name, "pem"));
        let (ca, ca_key) = (file(authority, "pem"), file(authority, "key"));
        fs::write(self.dir.path().join("extensions"), extension).expect("write");
        let make =
            ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=berth"];
        self.openssl(&[&make[..], &["-keyout", &key, "-out", &request]].concat());
        let sign = ["x509", "-req", "-days", "2", "-CAcreateserial", "-extfile", "extensions"];
        self.openssl(&[&sign[..], &["-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-out", &pem]].concat());
    }

    fn openssl(&self, arguments: &[&str]) {
        let output =
            Command::new("openssl").args(arguments).current_dir(self.dir.path()).output().expect("openssl");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
