// SPDX-License-Identifier: Apache-2.0
//! Bundles, and runs of the program on them.

use std::{
    fs,
    os::{
        fd::OwnedFd,
        unix::{
            fs::{PermissionsExt as _, chown, symlink},
            net::UnixDatagram,
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

const BUSYBOX: &str = "/bin/busybox";
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_berth-oci");
/// More than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

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
    let read = |path: &Path| without_the_usual(&fs::read(path).unwrap());
    Ran { status, stdout: read(out), stderr: read(err) }
}

/// Set to a number, all is done by the user that has it: [`crate::rootless`]
/// runs the tests a second time so.
pub(crate) const AS_USER: &str = "BERTH_OCI_TEST_USER";

/// The user that isn't root, if the tests are run by one.
fn user() -> Option<u32> {
    std::env::var(AS_USER).ok().map(|number| number.parse().unwrap())
}

/// Whether the program is run by somebody who isn't root.
pub(crate) fn is_by_user() -> bool {
    user().is_some()
}

/// What has been said, but for the warning that all containers of a user have.
pub(crate) fn without_the_usual(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let is_usual = |line: &&str| is_by_user() && line.contains("linux.resources.devices is discarded");
    said.split_inclusive('\n').filter(|line| !is_usual(line)).collect()
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
        let mut command = match user() {
            None => Command::new(PROGRAM),
            Some(user) => {
                // Where it was built others may not get.
                fs::copy(PROGRAM, dir.path().join("berth-oci")).unwrap();
                fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
                own(dir.path(), user);
                by_user(&id, user, &dir.path().join("berth-oci"))
            }
        };
        let rootless = user().map(|_| "--rootless");
        let made = command.arg("spec").args(rootless).arg("--bundle").arg(&bundle).status().unwrap();
        assert!(made.success());
        let text = fs::read(bundle.join("config.json")).unwrap();
        let mut spec: Value = serde_json::from_slice(&text).unwrap();
        spec["process"]["terminal"] = json!(false);
        spec["process"]["args"] = json!(args);
        spec["root"]["readonly"] = json!(false);
        spec["linux"]["cgroupsPath"] = json!(format!("/berth-oci-test-{id}/{id}"));
        // Without a warning on hosts that have taken some from root.
        spec["process"]["capabilities"] = json!({});
        // Removed with what there is then.
        user().inspect(|user| delegate(&id, *user));
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
        let mut command = match user() {
            None => Command::new(PROGRAM),
            Some(user) => by_user(&self.id, user, &self.path("berth-oci")),
        };
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
        parents(&self.id).map(|dir| dir.join(&self.id)).filter(|dir| dir.is_dir()).collect()
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
        for parent in parents(&self.id) {
            // It is there only in the hierarchies that were used.
            let _ = fs::remove_dir(parent.join(CALLERS));
            let _ = fs::remove_dir(parent);
        }
    }
}

/// Where the processes are that run the program, in a user's cgroup: one on
/// version 2 has either processes or children.
const CALLERS: &str = "callers";

/// In each hierarchy the directory that the container's cgroup is made in.
fn parents(id: &str) -> impl Iterator<Item = PathBuf> {
    let parent = format!("berth-oci-test-{id}");
    let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path());
    hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(move |dir| dir.join(&parent))
}

/// As systemd hands cgroups to a user: the directory and the files that move
/// processes, nothing that limits the whole.
fn delegate(id: &str, user: u32) {
    let writable = ["cgroup.procs", "tasks", "cgroup.subtree_control", "cgroup.threads"];
    for parent in parents(id).filter(|dir| dir.parent().unwrap().join("cgroup.procs").is_file()) {
        fs::create_dir(&parent).unwrap();
        // A new cpuset has no processors, and takes no processes.
        for name in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read(parent.parent().unwrap().join(name)) {
                fs::write(parent.join(name), all).unwrap();
            }
        }
        let files = writable.map(|name| parent.join(name)).into_iter().filter(|file| file.exists());
        for path in files.chain([parent.clone()]) {
            chown(path, Some(user), Some(user)).unwrap();
        }
        if parent.join("cgroup.controllers").exists() {
            let callers = parent.join(CALLERS);
            fs::create_dir(&callers).unwrap();
            chown(callers.join("cgroup.procs"), Some(user), Some(user)).unwrap();
        }
    }
}

/// Gives a tree to a user.
pub(crate) fn own(path: &Path, user: u32) {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        fs::read_dir(path).unwrap().flatten().for_each(|entry| own(&entry.path(), user));
    }
}

/// The program, run by a user from a cgroup of hers.
fn by_user(id: &str, user: u32, program: &Path) -> Command {
    let script = format!(
        "for g in /sys/fs/cgroup/berth-oci-test-{id} /sys/fs/cgroup/*/berth-oci-test-{id}; do
           [ ! -d $g/{CALLERS} ] || echo $$ >$g/{CALLERS}/cgroup.procs; done
         exec setpriv --reuid {user} --regid {user} --clear-groups -- \"$@\""
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(program);
    command
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
