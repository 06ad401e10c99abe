// SPDX-License-Identifier: Apache-2.0
//! `podman --runtime`.

use std::process::Command;

use crate::harness::{Place, RUNTIME, Ran, run};

struct Podman(Place);

impl Podman {
    fn new() -> Option<Self> {
        let podman = Self(Place::for_program("podman")?);
        let archive = podman.0.archive().display().to_string();
        podman.run(&["import", &archive, "bb"]).ok();
        Some(podman)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new("podman");
        command.arg("--root").arg(self.0.path("root")).arg("--runroot").arg(self.0.path("run"));
        command.arg("--tmpdir").arg(self.0.path("tmp")).args(["--storage-driver", "vfs"]);
        command.args(["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", RUNTIME]);
        run(command.args(arguments))
    }

    /// `podman run` with what a host without much asks for.
    fn container(&self, arguments: &[&str]) -> Ran {
        let parent = format!("--cgroup-parent=/{}", self.0.name);
        let flags = ["--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096", &parent];
        let all: Vec<_> = ["run"].into_iter().chain(flags).chain(arguments.iter().copied()).collect();
        self.run(&all)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.run(&["rm", "--all", "--force", "--time", "0"]);
    }
}

#[test]
fn podman_runs_its_containers() {
    let Some(podman) = Podman::new() else { return };
    assert_eq!(podman.container(&["--rm", "bb", "echo", "hello"]).ok(), "hello\n");
    assert_eq!(podman.container(&["--rm", "bb", "sh", "-c", "exit 8"]).status, 8);
    assert_eq!(podman.container(&["--rm", "bb", "nothing"]).status, 127);
    assert_eq!(podman.container(&["--rm", "bb", "/bin"]).status, 126);
    assert_eq!(podman.container(&["--rm", "--tty", "bb", "tty"]).ok().trim_end(), "/dev/pts/0");
    podman.container(&["--detach", "--name", "p", "bb", "sleep", "1000"]).ok();
    let ran = podman.run(&["exec", "p", "sh", "-c", "echo in; exit 9"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (9, "in\n"));
    assert_eq!(podman.run(&["exec", "--user", "5:6", "p", "id", "-u"]).ok(), "5\n");
    let status = || podman.run(&["inspect", "--format", "{{.State.Status}}", "p"]).ok();
    podman.run(&["pause", "p"]).ok();
    assert_eq!(status(), "paused\n");
    podman.run(&["unpause", "p"]).ok();
    assert_eq!(status(), "running\n");
    podman.run(&["kill", "p"]).ok();
    assert_eq!(podman.run(&["wait", "p"]).ok(), "137\n");
    podman.run(&["rm", "p"]).ok();
}
