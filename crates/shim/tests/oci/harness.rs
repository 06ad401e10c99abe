// SPDX-License-Identifier: Apache-2.0
//! Bundles, and runs of the program on them.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::{fs::symlink, net::UnixDatagram},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const BUSYBOX: &str = "/bin/busybox";
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_berth-oci");
/// More than anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Its output, when all went well.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self:?}");
        self.stdout
    }

    /// Its last error.
    #[track_caller]
    pub(crate) fn error(self) -> String {
        assert_ne!(self.status, 0, "{self:?}");
        self.stderr.lines().last().unwrap_or_default().to_owned()
    }
}

/// Runs to the end. Into files, not pipes: a container that is left running
/// keeps them open.
pub(crate) fn finish(mut command: Command, out: &Path, err: &Path) -> Ran {
    command.stdout(fs::File::create(out).unwrap()).stderr(fs::File::create(err).unwrap());
    let status = command.status().unwrap().code().unwrap();
    let read = |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    Ran { status, stdout: read(out), stderr: read(err) }
}

/// A bundle, and a root directory of the program's own with one container.
pub(crate) struct Host {
    dir: tempfile::TempDir,
    pub(crate) spec: Value,
    pub(crate) id: String,
}

impl Host {
    /// A container that would run a program of busybox.
    pub(crate) fn new(args: &[&str]) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let dir = tempfile::Builder::new().prefix("oci").tempdir().unwrap();
        let rootfs = dir.path().join("bundle/rootfs");
        for name in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        fs::copy(BUSYBOX, rootfs.join("bin/busybox")).unwrap();
        for applet in ["cat", "echo", "env", "id", "ls", "sh", "sleep", "stty", "true", "tty"] {
            symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
        }
        let id = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        let bundle = dir.path().join("bundle");
        let made = Command::new(PROGRAM).arg("spec").arg("--bundle").arg(&bundle).status().unwrap();
        assert!(made.success());
        let text = fs::read(bundle.join("config.json")).unwrap();
        let mut spec: Value = serde_json::from_slice(&text).unwrap();
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(args);
        spec["root"]["readonly"] = json!(false);
        spec["linux"]["cgroupsPath"] = json!(format!("/berth-oci-test-{id}/{id}"));
        // Without a warning on hosts that have taken some from root.
        spec["process"]["capabilities"] = json!({});
        Self { dir, spec, id }
    }

    pub(crate) fn shell(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    /// A container that stays.
    pub(crate) fn sleeper() -> Self {
        Self::shell("trap 'exit 7' TERM; while :; do sleep 0.05; done")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the specification, and names the program with its root.
    pub(crate) fn command(&self) -> Command {
        let text = serde_json::to_vec(&self.spec).unwrap();
        let path = self.path("bundle/config.json");
        // Left alone when nothing has changed: another run may be reading it.
        if fs::read(&path).unwrap() != text {
            fs::write(path, text).unwrap();
        }
        let mut command = Command::new(PROGRAM);
        command.arg("--root").arg(self.path("root")).stdin(Stdio::null());
        command
    }

    /// Runs a verb; `ID` and `BUNDLE` in its line stand for the container's.
    pub(crate) fn run(&self, line: &str) -> Ran {
        let mut command = self.command();
        self.add(&mut command, line);
        finish(command, &self.path("out"), &self.path("err"))
    }

    pub(crate) fn add(&self, command: &mut Command, line: &str) {
        let bundle = self.path("bundle");
        for word in line.split_whitespace() {
            let word = word.replace("ID", &self.id).replace("BUNDLE", bundle.to_str().unwrap());
            command.arg(word.replace("DIR", self.dir.path().to_str().unwrap()));
        }
    }

    /// Runs a verb in the background.
    pub(crate) fn spawn(&self, line: &str) -> Child {
        let mut command = self.command();
        self.add(&mut command, line);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// `state`, parsed.
    #[track_caller]
    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.run("state ID").ok()).unwrap()
    }

    #[track_caller]
    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// The directories of its cgroups that exist.
    pub(crate) fn cgroups(&self) -> Vec<PathBuf> {
        let parent = format!("berth-oci-test-{}", self.id);
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path());
        let parents = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|dir| dir.join(&parent));
        parents.map(|dir| dir.join(&self.id)).filter(|dir| dir.is_dir()).collect()
    }

    /// Nothing of the container is left.
    #[track_caller]
    pub(crate) fn assert_gone(&self) {
        assert_eq!(self.run("state ID").error_message(), "container does not exist");
        assert_eq!(self.cgroups(), Vec::<PathBuf>::new());
    }
}

impl Ran {
    /// The `msg` of the last line of the log.
    #[track_caller]
    pub(crate) fn error_message(self) -> String {
        let line = self.error();
        let text = line.split_once("msg=").map_or(line.as_str(), |(_, text)| text);
        serde_json::from_str(text).unwrap_or_else(|_| text.to_owned())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.run("delete --force ID");
        let parent = format!("berth-oci-test-{}", self.id);
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            // It is there only in the hierarchies that were used.
            let _ = fs::remove_dir(hierarchy.path().join(&parent));
        }
        let _ = fs::remove_dir(Path::new("/sys/fs/cgroup").join(&parent));
    }
}

/// Asks again until it is true.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_true() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// One message of a socket, and the descriptor that came with it.
pub(crate) fn receive(socket: &UnixDatagram, buffer: &mut [u8]) -> (usize, Option<OwnedFd>) {
    berth_shim::kernel::socket::receive(socket, buffer, Some(Instant::now() + DEADLINE)).unwrap()
}
