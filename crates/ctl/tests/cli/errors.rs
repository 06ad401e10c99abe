// SPDX-License-Identifier: Apache-2.0
//! No engine, wrong words, several targets.

use std::process::Command;

use crate::engine::{Ended, Engine, Script};

fn without_engine(arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth"));
    command.args(["--address", "unix:///no/such/berth.sock"]).args(arguments);
    Ended::of(command.output().expect("run berth"))
}

const NO_ENGINE: &str =
    "Cannot connect to the berth engine at unix:///no/such/berth.sock. Is berthd running?";

#[test]
fn no_engine_is_one_clear_line() {
    let ps = without_engine(&["ps"]);
    assert_eq!((ps.code, ps.stderr), (1, format!("{NO_ENGINE}\n")));
    let run = without_engine(&["run", "hello-world"]);
    assert_eq!(run.code, 125);
    assert_eq!(run.stderr, format!("berth: {NO_ENGINE}\n\nRun 'berth run --help' for more information\n"));
}

#[test]
fn version_tells_its_own_without_an_engine() {
    let version = without_engine(&["version"]);
    assert_eq!(version.code, 1);
    assert!(version.stdout.starts_with("Client:\n Version:"), "{version:?}");
    assert!(version.stderr.contains(NO_ENGINE));
}

#[test]
fn a_malformed_address_is_named() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_berth"));
    let result = Ended::of(command.args(["-H", "nonsense", "ps"]).output().expect("run berth"));
    assert_eq!(result.code, 1);
    assert!(result.stderr.starts_with("invalid address \"nonsense\""), "{result:?}");
}

#[test]
fn flags_are_125_and_arguments_are_1() {
    assert_eq!(without_engine(&["run", "--nope", "x"]).code, 125);
    assert_eq!(without_engine(&["ps", "--nope"]).code, 125);
    assert_eq!(without_engine(&["rm"]).code, 1);
    assert_eq!(without_engine(&["nope"]).code, 1);
    assert_eq!(without_engine(&["ps", "--help"]).code, 0);
}

#[test]
fn of_several_targets_the_good_ones_are_done() {
    let engine = Engine::new(Script::default());
    for verb in ["stop", "kill", "rm"] {
        let result = engine.berth(&[verb, "one", "missing", "two"]);
        assert_eq!(result.code, 1);
        assert_eq!(result.stdout, "one\ntwo\n");
        assert_eq!(result.stderr, "Error response from engine: No such container: missing\n");
    }
    let start = engine.berth(&["start", "one", "missing"]);
    assert_eq!((start.code, start.stdout.as_str()), (1, "one\n"));
    assert!(start.stderr.ends_with("Error: failed to start containers: missing\n"), "{start:?}");
    assert_eq!(engine.berth(&["rm", "-f", "missing"]).code, 0);
    let rmi = engine.berth(&["rmi", "a:1", "missing"]);
    assert_eq!((rmi.code, rmi.stdout.as_str()), (1, "Untagged: a:1\nDeleted: sha256:ab\n"));
}

#[test]
fn completion_and_manual_pages_cover_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = without_engine(&["completion", shell]);
        assert_eq!(script.code, 0);
        for verb in ["run", "inspect", "rmi"] {
            assert!(script.stdout.contains(verb), "{shell} {verb}");
        }
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let man = without_engine(&["man", directory.path().to_str().expect("text")]);
    assert_eq!(man.code, 0, "{man:?}");
    for page in ["berth.1", "berth-run.1", "berth-image-ls.1"] {
        let text = std::fs::read_to_string(directory.path().join(page)).expect(page);
        assert!(text.contains(".SH NAME"), "{page}");
    }
}
