// SPDX-License-Identifier: Apache-2.0
//! The API as other programs use it: the examples, in both languages.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Image, command::run, engine};

const SCRIPT: &str = "echo to the output; echo to the error >&2; exit 3";

#[test]
fn the_rust_example_pulls_runs_streams_and_waits() {
    let program = engine::program("examples/run_container");
    example(|| Command::new(&program));
}

#[test]
fn the_python_example_does_the_same() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // target/<profile>/berth → target/python
    let target = engine::program("berth").ancestors().nth(2).map(PathBuf::from).expect("target");
    let python = target.join("python/bin/python");
    assert!(python.exists(), "{} is missing: run scripts/test-deps.sh first", python.display());
    example(|| {
        let mut command = Command::new(&python);
        command.arg(root.join("examples/python/run_container.py"));
        command
    });
}

fn example(program: impl Fn() -> Command) {
    let Some((engine, registry)) = engine::with_registry() else { return };
    registry.push(&Image::busybox(), "library/busybox", "latest");
    for _ in ["pulled", "up to date"] {
        let mut command = program();
        command.args(["busybox", "sh", "-c", SCRIPT]).env("BERTH_ADDRESS", engine.address());
        let said = run(command, b"").exits(3);
        assert_eq!(said.stdout, "to the output\n");
        assert!(said.stderr.ends_with("to the error\n"), "{}", said.stderr);
        assert!(said.stderr.contains("docker.io/library/busybox:latest"), "{}", said.stderr);
        assert_eq!(engine.berth(&["ps", "-aq"]).ok().line(), "", "it removed its container");
    }
}
