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
    // A terminal's screen has no lines to begin with.
    engine.berth(&["run", "-dt", "--name", "screen", "busybox", "sleep", "1000"]).ok();
    let refused = engine.berth(&["attach", "--no-stdin", "--logs", "screen"]).exits(1);
    refused.complains(&["--logs needs a container without a terminal"]);
}
