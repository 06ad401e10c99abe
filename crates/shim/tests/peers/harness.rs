// SPDX-License-Identifier: Apache-2.0
//! Runs other people's programs, with everything of theirs in a directory.

use std::{
    fs,
    os::{fd::AsFd as _, unix::fs::symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use berth_shim::kernel::process;

pub(crate) const RUNTIME: &str = env!("CARGO_BIN_EXE_berth-oci");
const BUSYBOX: &str = "/bin/busybox";
/// More than any of them takes to start.
const DEADLINE: Duration = Duration::from_secs(60);

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self:?}");
        self.stdout
    }
}

/// A directory, and cgroups named after it, that go with it.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    pub(crate) name: String,
}

impl Place {
    /// `None`, with the reason printed, where a program is missing.
    pub(crate) fn for_program(program: &str) -> Option<Self> {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
            .any(|dir| dir.join(program).is_file());
        if !found {
            println!("skipped: {program} is not installed");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("berth-peer").tempdir().unwrap();
        let name = dir.path().file_name().unwrap().to_str().unwrap().to_owned();
        Some(Self { dir, name })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A root file system of busybox.
    pub(crate) fn rootfs(&self) -> PathBuf {
        let root = self.path("rootfs");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
        for applet in ["cat", "echo", "id", "ls", "sh", "sleep", "tty"] {
            symlink("busybox", root.join("bin").join(applet)).unwrap();
        }
        root
    }

    /// The root file system as an archive.
    pub(crate) fn archive(&self) -> PathBuf {
        let archive = self.path("rootfs.tar");
        let root = self.rootfs();
        run(Command::new("tar").arg("-C").arg(root).arg("-cf").arg(&archive).arg(".")).ok();
        archive
    }

    /// Starts a daemon in a mount namespace of its own.
    pub(crate) fn daemon(&self, program: &str, arguments: &[String]) -> Daemon {
        let log = fs::File::create(self.path("log")).unwrap();
        let child = Command::new("unshare")
            .args(["--mount", "--", program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Daemon { child, log: self.path("log") }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path());
        for dir in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]) {
            remove_cgroups(&dir.join(&self.name));
        }
    }
}

/// Those that a peer has left, if there are any.
fn remove_cgroups(dir: &Path) {
    let below = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    below.filter(|path| path.is_dir()).for_each(|path| remove_cgroups(&path));
    let _ = fs::remove_dir(dir);
}

/// A daemon, ended by SIGTERM.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Waits until it answers.
    #[track_caller]
    pub(crate) fn ready(&mut self, mut answers: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !answers() {
            let ended = self.child.try_wait().unwrap();
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(ended.is_none(), "the daemon has ended: {}", log());
            assert!(Instant::now() < deadline, "the daemon does not answer: {}", log());
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(pidfd) = process::pidfd_open(self.child.id()) {
            let _ = process::pidfd_send_signal(pidfd.as_fd(), libc::SIGTERM);
        }
        let _ = self.child.wait();
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ran {
        status: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}
