// SPDX-License-Identifier: Apache-2.0
//! Other people's programs that deal with images, each with a place of its
//! own. A program that isn't installed is a reason to skip, and is printed.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::sys::signal::Signal;

use super::{Output, command::run, leaks, until};

/// Whether `program` is installed; says so if not.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// `skopeo args…`, with its temporary files in `dir`.
pub(crate) fn skopeo(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new("skopeo");
    command.args(["--insecure-policy", "--tmpdir", text(dir)]).args(args);
    run(command, b"")
}

/// podman with a store of its own.
#[derive(Debug)]
pub(crate) struct Podman(PathBuf);

impl Podman {
    /// Below `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.join("podman"))
    }

    /// `podman args…`.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new("podman");
        let below = |name: &str| self.0.join(name);
        command.arg("--root").arg(below("root")).arg("--runroot").arg(below("run"));
        command.arg("--tmpdir").arg(below("tmp")).args(["--storage-driver", "vfs"]);
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file"]);
        command.env("TMPDIR", self.0.parent().expect("a parent"));
        run(
            {
                command.args(args);
                command
            },
            b"",
        )
    }
}

/// A Docker daemon in a mount namespace of its own.
#[derive(Debug)]
pub(crate) struct Docker {
    dir: PathBuf,
    child: Child,
}

impl Docker {
    /// Starts one below `dir` and waits until it answers.
    pub(crate) fn start(dir: &Path) -> Self {
        let dir = dir.join("docker");
        fs::create_dir(&dir).expect("mkdir");
        let path = |name: &str| dir.join(name).display().to_string();
        let log = File::create(dir.join("log")).expect("log");
        let child = Command::new("unshare")
            .args(["--mount", "--", "dockerd"])
            .arg(format!("--data-root={}", path("data")))
            .arg(format!("--exec-root={}", path("exec")))
            .arg(format!("--host=unix://{}", path("sock")))
            .arg(format!("--pidfile={}", path("pid")))
            .args(["--storage-driver=vfs", "--iptables=false", "--ip6tables=false", "--bridge=none"])
            .env("TMPDIR", &dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .spawn()
            .expect("dockerd");
        let mut docker = Self { dir, child };
        until("dockerd to answer", || {
            let ended = docker.child.try_wait().expect("wait");
            let log = || fs::read_to_string(docker.dir.join("log")).unwrap_or_default();
            assert!(ended.is_none(), "dockerd has ended: {}", log());
            (docker.run(&["version"]).code == 0).then_some(())
        });
        docker
    }

    /// `docker args…`.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new("docker");
        command.arg("--host").arg(format!("unix://{}", self.dir.join("sock").display())).args(args);
        run(command, b"")
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        leaks::send(i32::try_from(self.child.id()).expect("a pid"), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
