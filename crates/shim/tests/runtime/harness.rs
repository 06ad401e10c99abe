// SPDX-License-Identifier: Apache-2.0
//! Builds bundles, runs containers in them, and looks at what they leave.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::symlink,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use berth_shim::{
    cgroup::Placement,
    kernel::process,
    runtime::{self, Container, Create, Keyring, Lifetime, Stdio},
};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::wait::{Id, WaitPidFlag, WaitStatus, waitid},
};
use serde_json::{Value, json};

pub(crate) const BUSYBOX: &str = "/bin/busybox";
/// More than anything here takes, on emulated processors too.
const DEADLINE: Duration = Duration::from_secs(120);

/// A bundle with a busybox root, and the specification to change.
pub(crate) struct Bundle {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) spec: Value,
    pub(crate) user: String,
    /// `linux.seccomp`, compiled by somebody else.
    pub(crate) filter: Vec<u8>,
    pub(crate) overlay: bool,
    /// One more layer, escaped.
    pub(crate) more_lower: Option<String>,
    pub(crate) cgroup_parent: String,
    /// More options of the overlay.
    pub(crate) more_options: Vec<String>,
    /// For whoever looks at it later.
    pub(crate) note: String,
    /// Elsewhere than below the parent.
    pub(crate) placement: Option<Placement>,
    id: String,
}

/// How a container ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) status: i32,
    /// What creating it has left out.
    pub(crate) warnings: Vec<String>,
}

impl Bundle {
    pub(crate) fn new(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        for name in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        fs::copy(BUSYBOX, rootfs.join("bin/busybox")).unwrap();
        let applets = [
            "sh", "cat", "true", "hostname", "id", "ls", "sleep", "stty", "mknod", "mount", "touch", "tty",
            "dd", "ip", "grep", "pwd", "setsid", "env", "readlink", "sort", "head", "umount",
        ];
        for applet in applets {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:100::/srv:/bin/sh\n")
            .unwrap();
        fs::write(rootfs.join("etc/group"), "root:x:0:\nusers:x:100:\nlogs:x:200:web\n").unwrap();
        let own = dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.').to_owned();
        Self {
            spec: spec(args),
            user: String::new(),
            filter: Vec::new(),
            overlay: false,
            more_lower: None,
            more_options: Vec::new(),
            note: String::new(),
            cgroup_parent: "/berth-runtime-test".to_owned(),
            placement: None,
            id: own,
            dir,
        }
    }

    pub(crate) fn shell(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// Sets the value at a JSON pointer whose parent exists.
    pub(crate) fn set(mut self, pointer: &str, value: Value) -> Self {
        if let Some(old) = self.spec.pointer_mut(pointer) {
            *old = value;
        } else {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            self.spec.pointer_mut(parent).unwrap()[key] = value;
        }
        self
    }

    pub(crate) fn mount(mut self, mount: Value) -> Self {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    pub(crate) fn create(&self, stdio: Stdio) -> runtime::Result<Container> {
        let mounts: Vec<_> = self.overlay.then(|| self.overlay_mount()).into_iter().collect();
        runtime::create(Create {
            id: &self.id,
            bundle: self.dir.path(),
            spec: self.read().value,
            rootfs: &mounts,
            user: &self.user,
            filter: &self.filter,
            cgroups: &self.cgroups(),
            stdio,
            lifetime: Lifetime::Bound,
            preserve_fds: 0,
            keyring: Keyring::New,
            no_pivot: false,
            init: false,
        })
    }

    fn read(&self) -> runtime::spec::Read<oci_spec::runtime::Spec> {
        runtime::spec::read(self.spec.to_string().as_bytes()).unwrap()
    }

    /// What reading the specification has left out.
    pub(crate) fn reading_warnings(&self) -> Vec<String> {
        self.read().warnings
    }

    fn overlay_mount(&self) -> berth::api::types::Mount {
        for name in ["upper", "work", "empty"] {
            fs::create_dir_all(self.dir.path().join(name)).unwrap();
        }
        let path = |name: &str| self.dir.path().join(name).display().to_string();
        let mut options = vec![
            format!("lowerdir={}:{}", self.more_lower.clone().unwrap_or(path("empty")), path("rootfs")),
            format!("upperdir={}", path("upper")),
            format!("workdir={}", path("work")),
        ];
        options.extend(self.more_options.clone());
        berth::api::types::Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options,
        }
    }

    /// Creates, starts, waits, cleans up.
    pub(crate) fn run(&self) -> runtime::Result<Output> {
        let (stdio, [mut stdout, mut stderr]) = pipes();
        let mut container = self.create(stdio)?;
        if let Err(e) = container.start() {
            reap(&container);
            container.cleanup().unwrap();
            return Err(e);
        }
        let mut output = Output {
            stdout: String::new(),
            stderr: String::new(),
            status: 0,
            warnings: container.warnings().to_vec(),
        };
        stdout.read_to_string(&mut output.stdout).unwrap();
        stderr.read_to_string(&mut output.stderr).unwrap();
        output.status = reap(&container);
        container.cleanup().unwrap();
        Ok(output)
    }

    /// Runs, and returns the standard output of a success.
    pub(crate) fn output(&self) -> String {
        let output = self.run().unwrap();
        assert_eq!((output.status, output.stderr.as_str()), (0, ""), "{output:?}");
        output.stdout
    }

    pub(crate) fn error(&self) -> runtime::Error {
        self.run().unwrap_err()
    }

    pub(crate) fn cgroups(&self) -> Placement {
        let below = || Placement::below(&self.cgroup_parent, &self.id).unwrap();
        self.placement.clone().unwrap_or_else(below)
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

/// Gives this process a mount table that nobody else changes.
pub(crate) fn leave_the_hosts_mounts() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
}

/// Standard input is empty.
pub(crate) fn pipes() -> (Stdio, [std::io::PipeReader; 2]) {
    let (stdout, out) = std::io::pipe().unwrap();
    let (stderr, err) = std::io::pipe().unwrap();
    let stdin = fs::File::open("/dev/null").unwrap();
    let stdio = Stdio::Pipes { stdin: stdin.into(), stdout: OwnedFd::from(out), stderr: OwnedFd::from(err) };
    (stdio, [stdout, stderr])
}

/// Runs a part of a case in a child with namespaces of its own.
pub(crate) fn in_a_child(flags: u64, body: impl FnOnce() + std::panic::UnwindSafe) {
    let (mut reader, told) = std::io::pipe().unwrap();
    let child = process::clone3(flags, None, || {
        let result = std::panic::catch_unwind(body);
        (&told).write_all(if result.is_ok() { b"fine" } else { b"bad" }).unwrap();
        process::exit_now(0)
    })
    .unwrap();
    drop(told);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED).unwrap();
    assert_eq!(text, "fine");
}

/// The exit code, 128+n for a signal.
pub(crate) fn reap(container: &Container) -> i32 {
    wait_until("the container to end", || is_readable(container));
    match waitid(Id::PIDFd(container.pidfd()), WaitPidFlag::WEXITED).unwrap() {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => 128 + signal as i32,
        other => panic!("{other:?}"),
    }
}

fn is_readable(container: &Container) -> bool {
    let mut set = [PollFd::new(container.pidfd(), PollFlags::POLLIN)];
    loop {
        match poll(&mut set, PollTimeout::from(20_u16)) {
            Err(Errno::EINTR) => {}
            result => return result.unwrap() > 0,
        }
    }
}

/// Asks again until it is true.
pub(crate) fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_true() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// What a container could leave behind.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct HostState {
    mounts: String,
    cgroups: Vec<PathBuf>,
    descriptors: usize,
    children: String,
}

pub(crate) fn host_state() -> HostState {
    let mut cgroups = Vec::new();
    let root = PathBuf::from("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(&root).unwrap().flatten().map(|entry| entry.path());
    // On v2 the root is the one hierarchy.
    for hierarchy in hierarchies.chain([root.clone()]) {
        let tests = fs::read_dir(hierarchy.join("berth-runtime-test")).into_iter().flatten().flatten();
        cgroups.extend(tests.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    cgroups.sort();
    HostState {
        mounts: fs::read_to_string("/proc/self/mountinfo").unwrap(),
        cgroups,
        descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        children: fs::read_to_string("/proc/thread-self/children").unwrap(),
    }
}

pub(crate) fn is_clean(before: &HostState) -> bool {
    let after = host_state();
    if *before != after {
        println!("left behind: {after:#?}\nbefore: {before:#?}");
    }
    *before == after
}

/// The directory of tests' cgroups goes with the last test.
pub(crate) fn remove_parents() {
    for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        // It is there only in the hierarchies that were used.
        let _ = fs::remove_dir(hierarchy.path().join("berth-runtime-test"));
    }
    let _ = fs::remove_dir("/sys/fs/cgroup/berth-runtime-test");
}

/// What the engine writes for a default container.
fn spec(args: &[&str]) -> Value {
    let caps = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FSETID",
        "CAP_FOWNER",
        "CAP_MKNOD",
        "CAP_NET_RAW",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETFCAP",
        "CAP_SETPCAP",
        "CAP_NET_BIND_SERVICE",
        "CAP_SYS_CHROOT",
        "CAP_KILL",
        "CAP_AUDIT_WRITE",
    ];
    json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "inside",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}],
            "oomScoreAdj": 0,
        },
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid", "noexec", "nodev"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        ],
        "linux": {
            "namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "uts"}, {"type": "ipc"}, {"type": "network"}, {"type": "cgroup"}],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi", "/proc/none", "/sys/firmware", "/proc/scsi", "/proc/interrupts"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
        },
    })
}

/// A file outside of every root, and whether it is as it was.
pub(crate) struct Canary(PathBuf);

impl Canary {
    pub(crate) fn new(bundle: &Bundle) -> Self {
        let dir = bundle.dir.path().join("canary");
        fs::create_dir(&dir).unwrap();
        for name in ["ptmx", "null", "console", "passwd", "hosts"] {
            fs::write(dir.join(name), "canary").unwrap();
        }
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn assert_untouched(&self) {
        let mut names: Vec<_> = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["console", "hosts", "null", "passwd", "ptmx"]);
        assert!(names.iter().all(|name| fs::read(self.0.join(name)).unwrap() == b"canary"));
    }
}
