// SPDX-License-Identifier: Apache-2.0
//! `berth run`: streams, order, exit codes, signals, an engine that restarts.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::Stdio,
};

use crate::engine::{Ended, Engine, ID, Of, Script, image, terminate};
use berth::api::v1::{
    Container, ContainerConfig, ContainerState, Event, LogsResponse, container_state::Status,
};

fn script() -> Script {
    Script { images: vec![image("img:latest")], exit: Some(0), ..Default::default() }
}

#[test]
fn each_stream_goes_to_its_own_and_the_status_is_handed_on() {
    let engine = Engine::new(Script {
        output: vec![(Of::Stdout, "out\n"), (Of::Stderr, "err\n"), (Of::Stdout, "more")],
        exit: Some(42),
        ..script()
    });
    let result = engine.berth(&["run", "img", "cmd", "-x"]);
    assert_eq!(result, Ended { code: 42, stdout: "out\nmore".into(), stderr: "err\n".into() });
    let seen = engine.seen();
    assert_eq!(seen.calls[..3], ["create", "attach stdin=false", "start"]);
    assert_eq!(
        seen.created.as_ref().expect("created").config.as_ref().expect("config").command,
        ["cmd", "-x"]
    );
}

#[test]
fn much_output_arrives_whole() {
    let line: &'static str = Box::leak("x".repeat(60_000).into_boxed_str());
    let engine = Engine::new(Script { output: vec![(Of::Stdout, line); 50], ..script() });
    let result = engine.berth(&["run", "img"]);
    assert_eq!((result.code, result.stdout.len()), (0, 3_000_000));
}

#[test]
fn in_the_background_only_the_id_is_printed() {
    let engine = Engine::new(script());
    let result = engine.berth(&["run", "-d", "img"]);
    assert_eq!(result, Ended { code: 0, stdout: format!("{ID}\n"), stderr: String::new() });
    assert_eq!(engine.seen().calls, ["create", "start"]);
}

#[test]
fn a_command_that_can_not_start_is_127_and_rm_cleans_up() {
    let mut error = tonic::Status::failed_precondition("exec: \"nope\": executable file not found in $PATH");
    error.metadata_mut().insert("berth-exit-code", "127".parse().expect("ascii"));
    let engine = Engine::new(Script { start_error: Some(error), ..script() });
    let result = engine.berth(&["run", "--rm", "img", "nope"]);
    assert_eq!(result.code, 127);
    assert_eq!(
        result.stderr,
        "berth: Error response from engine: exec: \"nope\": executable file not found in $PATH\n\n\
         Run 'berth run --help' for more information\n"
    );
    assert_eq!(engine.seen().calls.last().map(String::as_str), Some("remove force=true"));
}

#[test]
fn stdin_is_handed_on_to_its_end() {
    let engine = Engine::new(Script { exit: None, ..script() });
    let mut child = engine
        .command(&["run", "-i", "img", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run berth");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(b"hello").expect("write");
    engine.until("input", |seen| seen.stdin == b"hello");
    drop(stdin);
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    assert!(engine.seen().calls.contains(&"stdin closed".to_owned()));
}

#[test]
fn a_container_that_removed_itself_still_has_its_status() {
    let die = Event {
        cursor: 1,
        r#type: "container".into(),
        action: "die".into(),
        id: ID.into(),
        attributes: [("exitCode".to_owned(), "7".to_owned())].into(),
        ..Default::default()
    };
    let engine = Engine::new(Script { gone: true, events: vec![die], ..script() });
    assert_eq!(engine.berth(&["run", "--rm", "img"]).code, 7);
}

#[test]
fn signals_are_handed_on() {
    let engine = Engine::new(Script { exit: None, output: vec![(Of::Stdout, "up\n")], ..script() });
    let mut child = engine.command(&["run", "img"]).stdout(Stdio::piped()).spawn().expect("run berth");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("stdout")).read_line(&mut line).expect("read");
    assert_eq!(line, "up\n");
    terminate(&child);
    assert_eq!(child.wait().expect("wait").code(), Some(143));
    assert!(engine.seen().calls.contains(&"kill SIGTERM".to_owned()));
}

#[test]
fn a_reader_that_leaves_ends_the_command_and_not_the_container() {
    let engine = Engine::new(Script { exit: None, output: vec![(Of::Stdout, "y\n"); 100_000], ..script() });
    let mut child = engine
        .command(&["run", "img", "yes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run berth");
    let mut two = [0; 2];
    let mut stdout = child.stdout.take().expect("stdout");
    stdout.read_exact(&mut two).expect("read");
    drop(stdout);
    let result = Ended::of(child.wait_with_output().expect("wait"));
    assert_eq!(result.code, 141);
    assert_eq!(result.stderr, "write stdout: broken pipe; container exciting_chebyshev keeps running\n");
}

#[test]
fn an_engine_that_restarts_costs_no_byte_and_no_status() {
    let engine = Engine::new(Script { exit: None, output: vec![(Of::Stdout, "one\ntw")], ..script() });
    let mut child = engine
        .command(&["run", "img"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run berth");
    let mut stdout = child.stdout.take().expect("stdout");
    let mut first = [0; 6];
    stdout.read_exact(&mut first).expect("read");

    let line = |text: &'static str| LogsResponse {
        stream: Of::Stdout.into(),
        data: text.into(),
        ..LogsResponse::default()
    };
    let state = ContainerState { status: Status::Running.into(), ..Default::default() };
    let container = Container {
        id: ID.into(),
        state: Some(state),
        config: Some(ContainerConfig::default()),
        ..Default::default()
    };
    let engine = engine.replaced_by(Script {
        exit: Some(3),
        log: vec![line("one\n"), line("two\n"), line("three\n")],
        inspect: [(ID.to_owned(), container)].into(),
        ..Default::default()
    });
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).expect("read");
    let result = Ended::of(child.wait_with_output().expect("wait"));
    assert_eq!(rest, "o\nthree\n");
    assert_eq!((result.code, result.stderr.as_str()), (3, ""));
    assert!(engine.seen().calls.contains(&"logs follow=true tail=None".to_owned()));
}

#[test]
fn an_engine_that_stays_away_is_said() {
    let engine = Engine::new(Script { exit: None, output: vec![(Of::Stdout, "up\n")], ..script() });
    let mut child = engine
        .command(&["run", "img"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run berth");
    let mut stdout = child.stdout.take().expect("stdout");
    stdout.read_exact(&mut [0; 3]).expect("read");
    drop(engine);
    // Whoever waits for the engine can be told not to.
    let mut stderr = child.stderr.take().expect("stderr");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while child.try_wait().expect("wait").is_none() && std::time::Instant::now() < deadline {
        terminate(&child);
        std::thread::yield_now();
    }
    assert_eq!(child.wait().expect("wait").code(), Some(125));
    let mut text = String::new();
    stderr.read_to_string(&mut text).expect("read");
    assert_eq!(
        text,
        "connection to the engine lost; container exciting_chebyshev keeps running: \
         reconnect with berth attach exciting_chebyshev\n"
    );
}

#[test]
fn a_terminal_is_needed_for_it() {
    let engine = Engine::new(script());
    let result = engine.berth(&["run", "-it", "img"]);
    assert_eq!((result.code, result.stderr.as_str()), (125, "the input device is not a TTY\n"));
    assert!(engine.seen().calls.is_empty(), "nothing is made");
}
