// SPDX-License-Identifier: Apache-2.0
//! An engine in a temporary place, and the command line that talks to it.
//!
//! A test that succeeds also has to leave nothing: dropping the engine removes
//! its containers, stops it, and looks for processes, cgroups, mounts, bundles
//! and unexpected errors in its log.

use std::{
    fs::{self, File},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use nix::{sys::signal::Signal, unistd::geteuid};
use serde_json::Value;

use super::{
    Image, Output, Pty, Registry,
    command::{Background, finish, run},
    leaks, until,
};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// One engine with everything that belongs to it.
#[derive(Debug)]
pub(crate) struct Engine {
    dir: PathBuf,
    /// Where berthd and berth-shim are.
    programs: PathBuf,
    cgroup_parent: String,
    child: Option<Child>,
    /// Variables of its environment.
    environment: Vec<(String, String)>,
    /// Errors that the test provokes: parts of log lines.
    expected_errors: Mutex<Vec<String>>,
}

impl Engine {
    /// Starts one with the default configuration. `None`, with the reason on
    /// standard error, when the tests don't run as root.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// Starts one that pulls docker.io's images from `registry`.
    pub(crate) fn start_mirrored(registry: std::net::SocketAddr) -> Option<Self> {
        let mut engine = Self::prepare_mirrored(registry)?;
        engine.restart();
        Some(engine)
    }

    /// Makes the place for one that pulls docker.io's images from `registry`.
    pub(crate) fn prepare_mirrored(registry: std::net::SocketAddr) -> Option<Self> {
        Self::prepare(&format!(
            "[registry.hosts.\"docker.io\"]\nmirrors = [\"http://{registry}\"]\nmirrors_only = true\n"
        ))
    }

    /// Starts one with `config` as its configuration file.
    pub(crate) fn start_with(config: &str) -> Option<Self> {
        let mut engine = Self::prepare(config)?;
        engine.restart();
        Some(engine)
    }

    /// Makes the place for one, without starting it.
    pub(crate) fn prepare(config: &str) -> Option<Self> {
        if !geteuid().is_root() {
            eprintln!("skipped: an engine needs root");
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let tag = format!("{}-{number}", std::process::id());
        let dir = PathBuf::from(format!("/tmp/berth-e2e-{tag}"));
        fs::DirBuilder::new().mode(0o700).create(&dir).expect("make the test's directory");
        fs::write(dir.join("config.toml"), config).expect("write config.toml");
        Some(Self {
            dir,
            programs: programs(),
            cgroup_parent: format!("/berth-test-{tag}"),
            child: None,
            environment: Vec::new(),
            expected_errors: Mutex::default(),
        })
    }

    /// Makes the place for one that can be told where to fail.
    #[allow(dead_code, reason = "for the tests that have failpoints")]
    pub(crate) fn prepare_failing(config: &str) -> Option<Self> {
        let mut engine = Self::prepare(config)?;
        engine.programs = engine.programs.join("failpoints");
        let berthd = engine.programs.join("berthd");
        assert!(berthd.exists(), "{} is missing: run scripts/failpoints.sh first", berthd.display());
        Some(engine)
    }

    /// Sets a variable in the environment of the engines to come.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Arms failpoints of the engine and its shims, as `point=action` lines;
    /// disarms all others.
    #[allow(dead_code, reason = "for the tests that have failpoints")]
    pub(crate) fn arm(&self, lines: &str) {
        let file = self.dir.join("failpoints");
        let _ = fs::remove_file(self.dir.join("failpoints.hits"));
        // Replaced as a whole: it is read at any moment.
        fs::write(file.with_extension("new"), lines).expect("write");
        fs::rename(file.with_extension("new"), file).expect("rename");
    }

    /// The armed points that were passed since they were armed.
    #[allow(dead_code, reason = "for the tests that have failpoints")]
    pub(crate) fn hits(&self) -> String {
        fs::read_to_string(self.dir.join("failpoints.hits")).unwrap_or_default()
    }

    /// Waits until the engine has ended by itself; its exit code.
    #[allow(dead_code, reason = "for the tests that have failpoints")]
    pub(crate) fn died(&mut self) -> i32 {
        finish(&mut self.child.take().expect("running"), "berthd")
    }

    /// The test's directory: `root`, `state`, `berth.sock`, `log`.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes of blobs in its store, whole ones and partial ones.
    pub(crate) fn stored_bytes(&self) -> u64 {
        let content = self.dir.join("root/content");
        let dirs = [content.join("ingest"), content.join("blobs/sha256")];
        let files = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok()).flatten();
        files.map(|file| file.and_then(|file| file.metadata()).map_or(0, |metadata| metadata.len())).sum()
    }

    /// Bytes of the blobs `digests` that transfers have brought, by its log
    /// (`BERTH_LOG` with `berth_engine::image=debug`).
    pub(crate) fn received_bytes(&self, digests: &[String]) -> u64 {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains("a transfer has ended"));
        let lines = lines.filter(|line| digests.iter().any(|digest| line.contains(digest.as_str())));
        let bytes = lines.map(|line| line.rsplit_once(" bytes=").and_then(|(_, bytes)| bytes.parse().ok()));
        bytes.map(|bytes: Option<u64>| bytes.expect("a number of bytes")).sum()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The path of that socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("berth.sock")
    }

    /// What its log says so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The engine's process.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().expect("running").id()).expect("a pid")
    }

    /// Allows ERROR lines that contain `part`.
    pub(crate) fn expect_error(&self, part: &str) {
        self.expected_errors.lock().expect("lock").push(part.to_owned());
    }

    /// The engine's command, listening at `address`.
    pub(crate) fn command(&self, address: &str) -> Command {
        let mut command = Command::new(self.programs.join("berthd"));
        command
            .args(["--config".as_ref(), self.dir.join("config.toml").as_os_str()])
            .args(["--root".as_ref(), self.dir.join("root").as_os_str()])
            .args(["--state".as_ref(), self.dir.join("state").as_os_str()])
            .args(["--address", address, "--cgroup-parent", &self.cgroup_parent])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("BERTH_FAILPOINTS", self.dir.join("failpoints"))
            .env("RUST_BACKTRACE", "1")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it (again) and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.start_unwatched();
        self.wait_ready();
    }

    /// Starts it (again), which it may not survive.
    pub(crate) fn start_unwatched(&mut self) {
        assert!(self.child.is_none(), "the engine runs already");
        let log = File::options().create(true).append(true).open(self.dir.join("log")).expect("log");
        let mut command = self.command(&self.address());
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("dup")).stderr(log);
        self.child = Some(command.spawn().expect("berthd"));
    }

    fn wait_ready(&mut self) {
        let address = self.address();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        until("the engine to answer", || {
            if let Some(status) = self.child.as_mut().expect("started").try_wait().expect("wait") {
                panic!("the engine ended with {status}:\n{}", self.log());
            }
            runtime.block_on(async {
                let client = berth::Client::connect(&address).await.ok()?;
                client.system().ping(berth::api::v1::PingRequest {}).await.ok()
            })
        });
    }

    /// Ends it the hard way; its containers go on.
    pub(crate) fn kill9(&mut self) {
        self.signal(Signal::SIGKILL);
    }

    /// Ends it politely; its containers go on. Gives its exit code.
    pub(crate) fn stop(&mut self) -> i32 {
        self.signal(Signal::SIGTERM)
    }

    fn signal(&mut self, signal: Signal) -> i32 {
        leaks::send(self.pid(), signal);
        finish(&mut self.child.take().expect("running"), "berthd")
    }

    /// The command line, for this engine; for `spawn`ing where `berth` doesn't do.
    pub(crate) fn berth_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("berth"));
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &self.dir)
            .env("BERTH_ADDRESS", self.address());
        command
    }

    /// Runs `berth args…` to its end.
    pub(crate) fn berth(&self, args: &[&str]) -> Output {
        run(self.berth_command(args), b"")
    }

    /// The same with `input` on standard input.
    pub(crate) fn berth_with_input(&self, args: &[&str], input: &[u8]) -> Output {
        run(self.berth_command(args), input)
    }

    /// Starts `berth args…` and leaves it running.
    pub(crate) fn background(&self, args: &[&str]) -> Background {
        Background::start(self.berth_command(args))
    }

    /// Starts `berth args…` on a terminal.
    pub(crate) fn terminal(&self, args: &[&str]) -> Pty {
        let mut command = self.berth_command(args);
        command.env("TERM", "xterm");
        Pty::spawn(&command)
    }

    /// Puts `image` into the local store as `name:latest`.
    pub(crate) fn load(&self, image: &Image, name: &str) {
        let archive = image.oci_archive(&format!("docker.io/library/{name}:latest"));
        self.berth_with_input(&["load"], &archive).ok();
    }

    /// One container as `berth inspect` shows it.
    pub(crate) fn inspect(&self, container: &str) -> Value {
        let text = self.berth(&["inspect", container]).ok().stdout;
        let mut list: Value = serde_json::from_str(&text).expect("JSON");
        list[0].take()
    }

    /// The process that holds the container.
    pub(crate) fn shim_pid(&self, container: &str) -> i32 {
        i32::try_from(self.inspect(container)["ShimPid"].as_i64().expect("ShimPid")).expect("a pid")
    }

    /// A state as `berth ps` has it: created, running, exited.
    pub(crate) fn status(&self, container: &str) -> String {
        let state = &self.inspect(container)["State"];
        state["Status"].as_str().unwrap_or_else(|| panic!("no status in {state}")).to_owned()
    }

    /// Waits until the container's log contains `text`.
    pub(crate) fn wait_log(&self, container: &str, text: &str) -> String {
        until(&format!("{text:?} in the log of {container}"), || {
            let logs = self.berth(&["logs", container]).ok().stdout;
            logs.contains(text).then_some(logs)
        })
    }

    /// Waits until the container isn't running any more; its exit code.
    pub(crate) fn wait(&self, container: &str) -> i32 {
        self.berth(&["wait", container]).ok().line().parse().expect("an exit code")
    }

    /// Processes of this engine's containers and their shims.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut all = leaks::processes(&self.dir, &self.cgroup_parent);
        all.retain(|pid| self.child.as_ref().is_none_or(|engine| i64::from(engine.id()) != i64::from(*pid)));
        all
    }

    /// Where its containers' cgroups are, below each hierarchy.
    pub(crate) fn cgroup_parent(&self) -> &str {
        &self.cgroup_parent
    }

    /// Runs `berthd fsck` on this engine's places.
    pub(crate) fn fsck(&self, args: &[&str]) -> Output {
        let mut command = Command::new(program("berthd"));
        command
            .arg("fsck")
            .args(["--config".as_ref(), self.dir.join("config.toml").as_os_str()])
            .args(["--root".as_ref(), self.dir.join("root").as_os_str()])
            .args(["--state".as_ref(), self.dir.join("state").as_os_str()])
            .args(["--cgroup-parent", &self.cgroup_parent])
            .args(args)
            .env_clear();
        run(command, b"")
    }

    /// Checks that the database and the host agree on everything.
    #[track_caller]
    pub(crate) fn assert_sound(&self) {
        let fsck = self.fsck(&[]);
        assert!(fsck.code == 0, "fsck ended with {}\n{}{}", fsck.code, fsck.stdout, fsck.stderr);
    }

    /// Removes all containers, stops the engine, and looks at what is left.
    fn close(&mut self) {
        if self.child.is_some() {
            self.assert_sound();
            let all = self.berth(&["ps", "-aq", "--no-trunc"]).ok().stdout;
            let mut args = vec!["rm", "-f"];
            args.extend(all.lines());
            if args.len() > 2 {
                self.berth(&args).ok();
            }
            assert_eq!(self.stop(), 0, "exit code of the engine\n{}", self.log());
            self.assert_sound();
            // A shim that has just answered its last call may still be on its
            // way out.
            until(
                &format!("nothing to be left, but: {:?}", leaks::found(&self.dir, &self.cgroup_parent)),
                || leaks::found(&self.dir, &self.cgroup_parent).is_none().then_some(()),
            );
        }
        let expected = self.expected_errors.lock().expect("lock");
        for line in self.log().lines() {
            let bad = line.contains("ERROR") || line.contains("panicked at");
            assert!(
                !bad || expected.iter().any(|part| line.contains(part)),
                "unexpected in the engine's log: {line}"
            );
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Cleaning up comes first even when the closing look fails.
        let closed = (!thread::panicking())
            .then(|| std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.close())));
        if thread::panicking() {
            eprintln!("--- the engine's log:\n{}", self.log());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        leaks::remove(&self.dir, &self.cgroup_parent);
        let removed = fs::remove_dir_all(&self.dir);
        if let Some(Err(panic)) = closed {
            std::panic::resume_unwind(panic);
        }
        if !thread::panicking() {
            removed.expect("remove the test's directory");
        }
    }
}

/// An engine whose docker.io is an empty registry of its own.
pub(crate) fn with_registry() -> Option<(Engine, Registry)> {
    if !geteuid().is_root() {
        eprintln!("skipped: an engine needs root");
        return None;
    }
    let registry = Registry::start();
    Some((Engine::start_mirrored(registry.address())?, registry))
}

/// An engine with busybox in its local store.
pub(crate) fn with_busybox() -> Option<Engine> {
    let engine = Engine::start()?;
    engine.load(&Image::busybox(), "busybox");
    Some(engine)
}

/// Where our programs are.
fn programs() -> PathBuf {
    let tests = std::env::current_exe().expect("current_exe");
    // target/<profile>/deps/e2e-<hash>
    tests.parent().and_then(Path::parent).expect("a target directory").to_owned()
}

/// One of our programs, built beside the tests.
pub(crate) fn program(name: &str) -> PathBuf {
    let path = programs().join(name);
    assert!(path.exists(), "{} is missing: run `cargo build --workspace` first", path.display());
    path
}
