// SPDX-License-Identifier: Apache-2.0
//! containerd's own shim (`io.containerd.runc.v2`) with `BinaryName`.

use std::{fs, process::Command};

use crate::harness::{Daemon, Place, RUNTIME, Ran, run};

struct Containerd {
    place: Place,
    // Stopped before its directory goes.
    daemon: Option<Daemon>,
}

impl Containerd {
    fn start() -> Option<Self> {
        let place = Place::for_program("containerd")?;
        let path = |name: &str| place.path(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n",
            path("root"),
            path("state"),
            path("containerd.sock"),
            path("containerd.ttrpc"),
        );
        fs::write(place.path("config.toml"), config).unwrap();
        place.rootfs();
        let mut daemon = place.daemon("containerd", &["--config".to_owned(), path("config.toml")]);
        let mut containerd = Self { place, daemon: None };
        daemon.ready(|| containerd.run(&["version"]).status == 0);
        containerd.daemon = Some(daemon);
        Some(containerd)
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.place.path("containerd.sock"));
        // Its name is the parent of the containers' cgroups.
        run(command.arg("--namespace").arg(&self.place.name).args(arguments))
    }

    fn container(&self, flag: &str, id: &str, program: &[&str]) -> Ran {
        let rootfs = self.place.path("rootfs").display().to_string();
        let runtime = ["--runtime=io.containerd.runc.v2", "--runc-binary", RUNTIME, "--rootfs"];
        let all: Vec<_> = ["run", flag].into_iter().chain(runtime).chain([&*rootfs, id]).collect();
        self.run(&[&all, program].concat())
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // What a failed test has left running.
        let _ = self.run(&["task", "delete", "--force", "k"]);
        let _ = self.run(&["container", "delete", "k"]);
        drop(self.daemon.take());
    }
}

#[test]
fn containerd_runs_its_containers() {
    let Some(containerd) = Containerd::start() else { return };
    let ran = containerd.container("--rm", "once", &["sh", "-c", "echo hello; exit 6"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (6, "hello\n"), "{}", ran.stderr);
    containerd.container("--detach", "k", &["sleep", "1000"]).ok();
    let ran = containerd.run(&["task", "exec", "--exec-id", "e", "k", "sh", "-c", "echo in; exit 7"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (7, "in\n"));
    let status = || containerd.run(&["task", "list"]).ok();
    containerd.run(&["task", "pause", "k"]).ok();
    assert!(status().contains("PAUSED"));
    containerd.run(&["task", "resume", "k"]).ok();
    assert!(status().contains("RUNNING"));
    assert!(containerd.run(&["task", "metrics", "k"]).ok().contains("memory"));
    containerd.run(&["task", "delete", "--force", "k"]).ok();
    containerd.run(&["container", "delete", "k"]).ok();
}
