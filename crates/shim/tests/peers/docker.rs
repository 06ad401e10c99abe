// SPDX-License-Identifier: Apache-2.0
//! `dockerd --add-runtime`.

use std::process::Command;

use crate::harness::{Daemon, Place, RUNTIME, Ran, run};

struct Docker {
    place: Place,
    // Stopped before its directory goes.
    daemon: Option<Daemon>,
}

impl Docker {
    fn start() -> Option<Self> {
        let place = Place::for_program("dockerd")?;
        let path = |name: &str| place.path(name).display().to_string();
        let arguments = [
            format!("--data-root={}", path("data")),
            format!("--exec-root={}", path("exec")),
            format!("--host=unix://{}", path("docker.sock")),
            format!("--pidfile={}", path("docker.pid")),
            format!("--add-runtime=berth={RUNTIME}"),
            format!("--cgroup-parent=/{}", place.name),
            "--default-runtime=berth".to_owned(),
            "--storage-driver=vfs".to_owned(),
            "--iptables=false".to_owned(),
            "--ip6tables=false".to_owned(),
            "--bridge=none".to_owned(),
        ];
        let daemon = place.daemon("dockerd", &arguments);
        let mut docker = Self { place, daemon: None };
        let mut daemon = daemon;
        daemon.ready(|| docker.run(&["version"]).status == 0);
        docker.daemon = Some(daemon);
        let archive = docker.place.archive().display().to_string();
        docker.run(&["import", &archive, "bb"]).ok();
        Some(docker)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let host = format!("unix://{}", self.place.path("docker.sock").display());
        run(Command::new("docker").arg("--host").arg(host).args(arguments))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // What a failed test has left running.
        let ids = self.run(&["ps", "-aq"]).stdout;
        ids.lines().for_each(|id| drop(self.run(&["rm", "--force", id])));
        drop(self.daemon.take());
    }
}

#[test]
fn docker_runs_its_containers() {
    let Some(docker) = Docker::start() else { return };
    assert_eq!(docker.run(&["run", "--rm", "bb", "echo", "hello"]).ok(), "hello\n");
    assert_eq!(docker.run(&["run", "--rm", "bb", "sh", "-c", "exit 5"]).status, 5);
    assert_eq!(docker.run(&["run", "--rm", "bb", "nothing"]).status, 127);
    assert_eq!(docker.run(&["run", "--rm", "bb", "/bin"]).status, 126);
    let terminal = docker.run(&["run", "--rm", "--tty", "bb", "tty"]).ok();
    assert_eq!(terminal.trim_end(), "/dev/pts/0");
    docker.run(&["run", "--detach", "--name", "box", "--memory", "64m", "bb", "sleep", "1000"]).ok();
    let ran = docker.run(&["exec", "box", "sh", "-c", "echo in; exit 3"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (3, "in\n"));
    let missing = docker.run(&["exec", "box", "nothing"]);
    // Older versions have 126 for every program that can't be executed.
    assert!([126, 127].contains(&missing.status), "{missing:?}");
    assert!(missing.stdout.contains("executable file not found"), "{missing:?}");
    assert_eq!(docker.run(&["exec", "--tty", "box", "tty"]).ok().trim_end(), "/dev/pts/0");
    assert_eq!(docker.run(&["exec", "--user", "5:6", "box", "id", "-u"]).ok(), "5\n");
    let status = || docker.run(&["inspect", "--format", "{{.State.Status}}", "box"]).ok();
    docker.run(&["pause", "box"]).ok();
    assert_eq!(status(), "paused\n");
    assert_ne!(docker.run(&["exec", "box", "echo"]).status, 0);
    docker.run(&["unpause", "box"]).ok();
    assert_eq!(status(), "running\n");
    assert!(docker.run(&["top", "box"]).ok().contains("sleep 1000"));
    let stats = docker.run(&["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "box"]).ok();
    assert!(stats.contains("/ 64MiB") && stats.trim_end().ends_with(" 1"), "{stats}");
    docker.run(&["update", "--memory", "128m", "--memory-swap", "128m", "box"]).ok();
    let stats = docker.run(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "box"]).ok();
    assert!(stats.contains("/ 128MiB"), "{stats}");
    docker.run(&["kill", "box"]).ok();
    docker.run(&["wait", "box"]).ok();
    let code = docker.run(&["inspect", "--format", "{{.State.ExitCode}}", "box"]).ok();
    assert_eq!(code, "137\n");
    docker.run(&["rm", "box"]).ok();
}
