// SPDX-License-Identifier: Apache-2.0
//! Being attached: input that outlives an engine, and history without a seam.

use std::{
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
    process::{Child, ChildStdin, Stdio},
};

use crate::support::{Engine, engine::with_busybox, until};

/// A client whose input is a pipe, and whose output is a file.
struct Client {
    child: Child,
    input: Option<ChildStdin>,
    output: PathBuf,
}

impl Client {
    fn start(engine: &Engine, name: &str, args: &[&str]) -> Self {
        let output = engine.dir().join(format!("{name}.out"));
        let mut command = engine.berth_command(args);
        command.stdin(Stdio::piped()).stdout(File::create(&output).expect("create"));
        let mut child = command.stderr(Stdio::null()).spawn().expect("start berth");
        Self { input: child.stdin.take(), child, output }
    }

    fn send(&mut self, text: &str) {
        self.input.as_mut().expect("open").write_all(text.as_bytes()).expect("write");
    }

    fn seen(&self) -> String {
        fs::read_to_string(&self.output).expect("read")
    }

    fn expect(&self, text: &str) {
        until(&format!("{text:?}"), || self.seen().contains(text).then_some(()));
    }

    fn end(&mut self) -> Option<i32> {
        self.input = None;
        self.child.wait().expect("wait").code()
    }
}

#[test]
fn input_outlives_the_engine_and_ends_with_its_client() {
    let Some(mut engine) = with_busybox() else { return };
    let mut cat = Client::start(&engine, "cat", &["run", "-i", "--name", "cat", "busybox", "cat"]);
    let mut left = Client::start(&engine, "left", &["run", "-i", "--name", "left", "busybox", "cat"]);
    let mut ends = Client::start(&engine, "ends", &["run", "-i", "--name", "ends", "busybox", "cat"]);
    for client in [&mut cat, &mut left, &mut ends] {
        client.send("one\n");
        client.expect("one\n");
    }
    engine.kill9();
    // It says so while nobody listens.
    ends.input = None;
    engine.restart();
    assert_eq!(ends.end(), Some(0));
    cat.send("two\n");
    cat.expect("two\n");
    // Stopped by somebody who means well.
    assert_eq!(engine.stop(), 0);
    engine.restart();
    cat.send("three\n");
    cat.expect("three\n");
    assert_eq!(cat.end(), Some(0));
    assert_eq!(cat.seen(), "one\ntwo\nthree\n");
    // A client that is gone doesn't come back.
    assert_eq!(engine.status("left"), "running");
    left.send("two\n");
    left.expect("two\n");
    left.child.kill().expect("kill");
    assert_eq!(engine.wait("left"), 0);
    left.end();
}

#[test]
fn history_and_what_comes_have_no_seam_however_many_look() {
    let Some(mut engine) = with_busybox() else { return };
    let script = "trap 'echo end; exit 0' TERM; n=0; while :; do n=$((n+1)); echo $n; sleep 0.005; done";
    engine.berth(&["run", "-d", "--name", "count", "busybox", "sh", "-c", script]).ok();
    engine.wait_log("count", "\n50\n");
    let attach = ["attach", "--no-stdin", "--logs", "count"];
    let mut clients: Vec<_> =
        (0..4).map(|n| Client::start(&engine, &format!("client-{n}"), &attach)).collect();
    clients.iter().for_each(|client| client.expect("\n100\n"));
    engine.kill9();
    engine.restart();
    let next = engine.wait_log("count", "\n150\n").lines().count() + 50;
    clients.iter().for_each(|client| client.expect(&format!("\n{next}\n")));
    engine.berth(&["stop", "count"]).ok();
    for client in &mut clients {
        assert_eq!(client.end(), Some(0));
        let seen = client.seen();
        let numbers = seen.strip_suffix("end\n").unwrap_or_else(|| panic!("no end in {seen}"));
        for (at, line) in numbers.lines().enumerate() {
            assert_eq!(line, (at + 1).to_string());
        }
    }
}

#[test]
fn a_terminal_has_a_history_too() {
    let Some(engine) = with_busybox() else { return };
    let script =
        "n=0; while [ $n -lt 300 ]; do n=$((n+1)); echo $n; done; printf 'prompt> '; read x; echo got $x";
    let options = ["--log-opt", "max-size=1k", "--log-opt", "max-file=100"];
    engine
        .berth(
            &[&["run", "-dit", "--name", "screen"][..], &options, &["busybox", "sh", "-c", script]].concat(),
        )
        .ok();
    engine.wait_log("screen", "300");
    let mut terminal = engine.terminal(&["attach", "--logs", "screen"]);
    let before = terminal.expect("prompt> ");
    terminal.send("it\n");
    let after = terminal.expect("got it");
    let lines: Vec<_> = before.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let expected: Vec<_> = (1..=300).map(|n| n.to_string()).collect();
    assert_eq!(lines, expected);
    assert!(!after.contains("prompt"), "{after}");
    assert_eq!(terminal.wait(), 0);
}

#[test]
fn one_who_does_not_read_holds_nobody_up() {
    let Some(engine) = with_busybox() else { return };
    let out = engine.dir().join("out");
    fs::create_dir(&out).expect("mkdir");
    let volume = format!("{}:/out", out.display());
    let seq = |count: u32| (1..=count).map(|n| format!("{n}\n")).collect::<String>();
    for (name, count, options) in [
        ("large", 400_000, &[][..]),
        // More than all that is between the two may hold.
        ("small", 3_000_000, &["--log-opt=max-size=100k", "--log-opt=max-file=2"]),
    ] {
        let lines = seq(count);
        let script =
            format!("while [ ! -e /out/{name} ]; do sleep 0.02; done; seq {count}; echo >/out/{name}.done");
        let flags = ["run", "-d", "--name", name, "-v", &volume];
        engine.berth(&[&flags[..], options, &["busybox", "sh", "-c", &script]].concat()).ok();
        let mut command = engine.berth_command(&["attach", "--no-stdin", name]);
        let client = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("attach");
        until("the client", || {
            let events = engine.berth(&["events", "--since", "1h", "--until", "0s"]).ok().stdout;
            events.lines().any(|e| e.contains(" attach ") && e.contains(name)).then_some(())
        });
        fs::write(out.join(name), "").expect("write");
        until("the end of the writer", || out.join(format!("{name}.done")).exists().then_some(()));
        let said = client.wait_with_output().expect("wait");
        let errors = String::from_utf8_lossy(&said.stderr).into_owned();
        if name == "large" {
            assert!(said.stdout == lines.as_bytes() && errors.is_empty(), "{} {errors}", said.stdout.len());
        } else {
            let missed: usize = errors
                .lines()
                .filter_map(|l| {
                    l.strip_prefix("WARNING: ")?
                        .split_once(" bytes of output are missing here")?
                        .0
                        .parse::<usize>()
                        .ok()
                })
                .sum();
            assert_eq!(said.stdout.len() + missed, lines.len(), "{errors}");
            assert!(missed > 0);
        }
    }
    // In a pipeline nothing is ever missing.
    let mut command = engine.berth_command(&["run", "--rm", "--log-driver=none", "busybox", "seq", "400000"]);
    let mut client = command.stdout(Stdio::piped()).spawn().expect("run");
    let mut first = vec![0; 1000];
    std::io::Read::read_exact(client.stdout.as_mut().expect("piped"), &mut first).expect("read");
    until("the container to wait", || {
        let shown = engine.berth(&["ps", "--format", "{{.Status}}"]).ok().stdout;
        (shown.lines().count() == 1).then_some(())
    });
    let rest = client.wait_with_output().expect("wait").stdout;
    assert!([first, rest].concat() == seq(400_000).as_bytes());
}
