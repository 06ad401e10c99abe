// SPDX-License-Identifier: Apache-2.0
//! A shim with a bundle, and the clients that talk to it.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{fs::symlink, net::UnixListener},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use berth::{
    api::{
        shim::{AttachOpen, CreateOptions, Log, log::Driver},
        task::{
            CreateTaskRequest, CreateTaskResponse, DeleteRequest, DeleteResponse, ShutdownRequest,
            StartRequest, StartResponse, WaitRequest, WaitResponse,
        },
    },
    attach::{self, Kind},
    bundle,
    ids::Namespace,
    ttrpc::{Status, client::Client},
};
use berth_shim::cgroup::Placement;
use berth_shim::{
    kernel::process::{duplicate_above, pidfd_open, pidfd_send_signal},
    runtime,
};
use bytes::BytesMut;
use nix::{
    libc::SIGKILL,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn},
    sys::wait::{Id, WaitPidFlag, WaitStatus, waitid},
    unistd::Pid,
};
use prost::Message;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::UnixStream, time::timeout};

const BUSYBOX: &str = "/bin/busybox";
pub(crate) const ID: &str = "c1";
/// More than anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A shim and its bundle; both go when it is dropped.
pub(crate) struct Shim {
    dir: tempfile::TempDir,
    process: Pid,
    pidfd: OwnedFd,
    ended: bool,
    cgroup_parent: String,
}

impl Shim {
    /// A shim for a container that runs `script`; `None`, and said, where that
    /// can't be done.
    pub(crate) fn new(script: &str) -> Option<Self> {
        Self::with_spec(spec(&["sh", "-c", script]))
    }

    pub(crate) fn with_spec(spec: Value) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
            println!("skipped: needs root and busybox-static");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        make_rootfs(&dir.path().join("rootfs"));
        fs::write(dir.path().join(bundle::CONFIG), serde_json::to_vec(&spec).unwrap()).unwrap();
        let cgroup_parent = format!("/berth-shim-test{}", dir.path().file_name().unwrap().to_str().unwrap());
        let process = spawn(dir.path(), &cgroup_parent);
        let pidfd = pidfd_open(process.as_raw().cast_unsigned()).unwrap();
        Some(Self { dir, process, pidfd, ended: false, cgroup_parent })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_raw().cast_unsigned()
    }

    /// A new connection, as an engine that has just started makes one.
    pub(crate) async fn connect(&self) -> Engine {
        let stream = UnixStream::connect(self.path(bundle::SHIM_SOCKET)).await.unwrap();
        Engine { client: Client::new(stream) }
    }

    pub(crate) async fn attach(&self, open: AttachOpen) -> Attached {
        let mut stream = UnixStream::connect(self.path(bundle::ATTACH_SOCKET)).await.unwrap();
        let mut wire = BytesMut::new();
        attach::encode(&mut wire, Kind::Open, &open.encode_to_vec());
        stream.write_all(&wire).await.unwrap();
        Attached { stream, buffer: BytesMut::new(), tty: None, place: None }
    }

    /// What the log says, without times.
    pub(crate) fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("log.cri")).unwrap_or_default();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    pub(crate) fn log_options(&self) -> Log {
        let path = self.path("log.cri").to_str().unwrap().to_owned();
        Log { driver: Driver::Local.into(), path, ..Default::default() }
    }

    pub(crate) fn kill(&self) {
        pidfd_send_signal(self.pidfd.as_fd(), SIGKILL).unwrap();
    }

    /// The cgroups of its container.
    pub(crate) fn cgroups(&self) -> BTreeSet<PathBuf> {
        let parent = &self.cgroup_parent[1..];
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        let tops = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|path| path.join(parent));
        tops.flat_map(|top| directories(&top)).collect()
    }

    fn reap(&self) -> WaitStatus {
        waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED).unwrap()
    }

    /// How the shim ended.
    pub(crate) fn end(&mut self) -> WaitStatus {
        assert!(ends(&self.pidfd), "the shim ends");
        self.ended = true;
        self.reap()
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
            self.reap();
        }
        runtime::cleanup_dead(
            &Placement::below(&self.cgroup_parent, &format!("{}-{ID}", Namespace::default())).unwrap(),
        )
        .unwrap();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            // It is there only in the hierarchies that were used.
            let _ = fs::remove_dir(hierarchy.path().join(&self.cgroup_parent[1..]));
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&self.cgroup_parent[1..]));
    }
}

/// All directories at and below `top`.
fn directories(top: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(top).into_iter().flatten().flatten();
    let below = entries
        .filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()))
        .flat_map(|e| directories(&e.path()));
    let mut all: Vec<_> = below.collect();
    all.extend(top.is_dir().then(|| top.to_owned()));
    all
}

/// Whether the process of `pidfd` ends in time.
pub(crate) fn ends(pidfd: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::try_from(DEADLINE).unwrap()) == Ok(1)
}

/// Starts the shim as src/bootstrap.rs has it. The shell changes the
/// directory, which posix_spawn can't.
fn spawn(dir: &Path, cgroup_parent: &str) -> Pid {
    let listeners = [bundle::SHIM_SOCKET, bundle::ATTACH_SOCKET].map(|name| {
        let listener = UnixListener::bind(dir.join(name)).unwrap();
        duplicate_above(listener.as_fd(), 100).unwrap()
    });
    let mut actions = PosixSpawnFileActions::init().unwrap();
    actions.add_dup2(listeners[0].as_raw_fd(), 3).unwrap();
    actions.add_dup2(listeners[1].as_raw_fd(), 4).unwrap();
    let program = env!("CARGO_BIN_EXE_berth-shim");
    let words = [
        "sh",
        "-c",
        "cd \"$0\" && exec \"$@\"",
        dir.to_str().unwrap(),
        program,
        "serve",
        "--namespace",
        "default",
        "--id",
        ID,
        "--cgroup-parent",
        cgroup_parent,
    ];
    let arguments = words.map(|word| CString::new(word).unwrap());
    let environment = [CString::new("PATH=/usr/bin:/bin").unwrap()];
    posix_spawn(c"/bin/sh", &actions, &PosixSpawnAttr::init().unwrap(), &arguments, &environment).unwrap()
}

fn make_rootfs(root: &Path) {
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "echo", "sleep", "stty", "seq", "kill", "head", "tr"] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}

pub(crate) fn spec(args: &[&str]) -> Value {
    json!({
        "ociVersion": "1.2.0",
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "inside",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/bin"],
            "cwd": "/",
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"}],
        },
    })
}

/// A connection to the shim.
pub(crate) struct Engine {
    client: Client,
}

impl Engine {
    pub(crate) async fn call<R: Message + Default>(
        &self,
        method: &str,
        message: &impl Message,
    ) -> Result<R, Status> {
        self.client.call("containerd.task.v3.Task", method, message, Some(DEADLINE)).await
    }

    /// Over the older name of the service.
    pub(crate) async fn call_v2<R: Message + Default>(
        &self,
        method: &str,
        message: &impl Message,
    ) -> Result<R, Status> {
        self.client.call("containerd.task.v2.Task", method, message, Some(DEADLINE)).await
    }

    pub(crate) async fn create(&self, options: CreateOptions) -> Result<u32, Status> {
        self.create_with(create(&options)).await
    }

    pub(crate) async fn create_with(&self, request: CreateTaskRequest) -> Result<u32, Status> {
        self.call("Create", &request).await.map(|answer: CreateTaskResponse| answer.pid)
    }

    pub(crate) async fn start(&self) -> Result<u32, Status> {
        let request = StartRequest { id: ID.to_owned(), ..Default::default() };
        self.call("Start", &request).await.map(|answer: StartResponse| answer.pid)
    }

    pub(crate) async fn wait(&self) -> Result<WaitResponse, Status> {
        self.call("Wait", &WaitRequest { id: ID.to_owned(), ..Default::default() }).await
    }

    pub(crate) async fn delete(&self) -> Result<DeleteResponse, Status> {
        self.call("Delete", &DeleteRequest { id: ID.to_owned(), ..Default::default() }).await
    }

    pub(crate) async fn shut_down(&self) {
        let request = ShutdownRequest { id: ID.to_owned(), now: false };
        self.call::<()>("Shutdown", &request).await.unwrap();
    }
}

pub(crate) fn create(options: &CreateOptions) -> CreateTaskRequest {
    let any = prost_types::Any {
        type_url: "berth.shim.v1.CreateOptions".to_owned(),
        value: options.encode_to_vec(),
    };
    CreateTaskRequest { id: ID.to_owned(), options: Some(any), ..Default::default() }
}

pub(crate) const OUTPUT: AttachOpen = AttachOpen {
    stdin: false,
    stdout: true,
    stderr: true,
    exec_id: String::new(),
    keep_stdin: false,
    wait: false,
    mark: false,
};
pub(crate) const ALL: AttachOpen = AttachOpen {
    stdin: true,
    stdout: true,
    stderr: true,
    exec_id: String::new(),
    keep_stdin: false,
    wait: false,
    mark: false,
};

/// An attached client.
pub(crate) struct Attached {
    stream: UnixStream,
    buffer: BytesMut,
    /// What `Attached` said.
    pub(crate) tty: Option<bool>,
    /// Where in the log it begins.
    pub(crate) place: Option<(u64, u64)>,
}

/// What a client has seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    /// Bytes that it was told it misses.
    pub(crate) missed: u64,
}

impl Attached {
    /// Waits until the subscription is in place.
    pub(crate) async fn ready(mut self) -> Self {
        let frame =
            timeout(DEADLINE, attach::read(&mut self.stream, &mut self.buffer)).await.unwrap().unwrap();
        let frame = frame.expect("Attached");
        assert_eq!(frame.kind, Kind::Attached);
        self.tty = Some(frame.payload[0] == 1);
        let number =
            |at: usize| frame.payload.get(at..at + 8).map(|b| u64::from_be_bytes(b.try_into().unwrap()));
        self.place = number(1).zip(number(9));
        self
    }

    pub(crate) async fn send(&mut self, kind: Kind, payload: &[u8]) {
        let mut wire = BytesMut::new();
        attach::encode(&mut wire, kind, payload);
        self.stream.write_all(&wire).await.unwrap();
    }

    /// Everything until the shim closes the connection.
    pub(crate) async fn rest(&mut self) -> Seen {
        self.until(|_| false).await
    }

    /// Everything until `enough`, or the end.
    pub(crate) async fn until(&mut self, enough: impl Fn(&Seen) -> bool) -> Seen {
        let (seen, why) = self.read(enough).await;
        assert_eq!(why, None);
        seen
    }

    async fn read(&mut self, enough: impl Fn(&Seen) -> bool) -> (Seen, Option<String>) {
        let mut seen = Seen::default();
        let mut why = None;
        while !enough(&seen) {
            let read = timeout(DEADLINE, attach::read(&mut self.stream, &mut self.buffer)).await;
            let Some(frame) = read.expect("in time").expect("whole frames") else { break };
            match frame.kind {
                Kind::Stdout => seen.stdout.extend_from_slice(&frame.payload),
                Kind::Stderr => seen.stderr.extend_from_slice(&frame.payload),
                Kind::Missed => seen.missed += u64::from_be_bytes(frame.payload[..].try_into().unwrap()),
                Kind::Error => why = Some(String::from_utf8(frame.payload.to_vec()).unwrap()),
                kind => panic!("unexpected {kind:?}: {:?}", frame.payload),
            }
        }
        (seen, why)
    }
}
