// SPDX-License-Identifier: Apache-2.0
//! Running a program to its end, with a deadline.

use std::{
    io::{Read, Write as _},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use super::wait::{DEADLINE, within};

/// What a program said and how it ended.
#[derive(Debug)]
pub(crate) struct Output {
    /// Exit code; 128+n for a signal n.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// Standard output as it was, where a test cares for every byte.
    pub(crate) bytes: Vec<u8>,
    shown: String,
}

impl Output {
    /// The output of a command that must succeed.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.exits(0)
    }

    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert!(
            self.code == code,
            "{} ended with {}, not {code}\nstdout: {}\nstderr: {}",
            self.shown,
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Checks that the error is one line that holds all of `parts`. Where help
    /// is to be had may follow after an empty line, as Docker has it.
    #[track_caller]
    pub(crate) fn complains(self, parts: &[&str]) -> Self {
        let error = self.error();
        assert_eq!(error.lines().count(), 1, "{}: one line, not: {}", self.shown, self.stderr);
        for part in parts {
            assert!(error.contains(part), "{}: no {part:?} in: {}", self.shown, self.stderr);
        }
        self
    }

    /// What standard error says before it points to the help.
    pub(crate) fn error(&self) -> &str {
        self.stderr.split("\n\n").next().unwrap_or_default().trim_end()
    }

    /// Standard output without the newline at its end.
    pub(crate) fn line(&self) -> &str {
        self.stdout.trim_end_matches('\n')
    }
}

/// Runs `command` with `input`, to its end or [`DEADLINE`].
pub(crate) fn run(command: Command, input: &[u8]) -> Output {
    run_within(DEADLINE, command, input)
}

/// As [`run`], for what takes long.
pub(crate) fn run_within(deadline: Duration, mut command: Command, input: &[u8]) -> Output {
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // The program may well end without reading all of it.
        thread::spawn(move || stdin.write_all(&input));
    }
    let code = finish_within(deadline, &mut child, &format!("{command:?}"));
    let (bytes, stderr) = (stdout.join().expect("reader"), stderr.join().expect("reader"));
    Output {
        code,
        stdout: String::from_utf8_lossy(&bytes).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        bytes,
        shown: show(&command),
    }
}

/// Waits for the end of `child` and gives its code; kills it after the deadline.
pub(crate) fn finish(child: &mut Child, what: &str) -> i32 {
    finish_within(DEADLINE, child, what)
}

fn finish_within(deadline: Duration, child: &mut Child, what: &str) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    let start = std::time::Instant::now();
    let status = within(deadline, what, || {
        if start.elapsed() > deadline / 2 + deadline / 4 {
            let _ = child.kill();
        }
        child.try_wait().expect("wait")
    });
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Runs a program that must succeed and gives its standard output.
pub(crate) fn sh(program: &str, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args);
    run(command, b"").ok().stdout
}

/// A child that is there when asked for, and killed when forgotten.
#[derive(Debug)]
pub(crate) struct Background {
    pub(crate) child: Child,
    out: std::sync::Arc<std::sync::Mutex<Vec<u8>>>,
}

impl Background {
    /// Starts `command`; its standard output is collected.
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let out = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let mut pipe = child.stdout.take().expect("piped");
        let shared = out.clone();
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut chunk) {
                shared.lock().expect("lock").extend_from_slice(&chunk[..n]);
            }
        });
        Self { child, out }
    }

    /// What it has said so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&self.out.lock().expect("lock")).into_owned()
    }

    /// Waits until it has said `text`.
    #[track_caller]
    pub(crate) fn expect(&self, text: &str) -> String {
        within(DEADLINE, &format!("{text:?} in the output"), || {
            Some(self.output()).filter(|o| o.contains(text))
        })
    }

    /// Sends it a signal.
    #[expect(clippy::disallowed_methods, reason = "our child, and nobody else waits for it")]
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).expect("a child that was not waited for");
    }

    /// Waits for its end; the exit code.
    pub(crate) fn wait(&mut self) -> i32 {
        finish(&mut self.child, "a command in the background")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    let mut pipe = pipe.expect("piped");
    thread::spawn(move || {
        let mut all = Vec::new();
        pipe.read_to_end(&mut all).expect("read a pipe");
        all
    })
}

fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|w| w.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
