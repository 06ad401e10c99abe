// SPDX-License-Identifier: Apache-2.0
//! A terminal with a program on it, and somebody who reads and types.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::PathBuf,
    process::{Child, Command},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Instant,
};

use nix::pty::{Winsize, openpty};

use super::{
    command::{finish, sh},
    wait::DEADLINE,
};

/// The terminal, seen from the user's side.
#[derive(Debug)]
pub(crate) struct Pty {
    child: Child,
    master: File,
    device: PathBuf,
    screen: Arc<Screen>,
    /// Everything before this was matched by an `expect` already.
    read: usize,
}

#[derive(Debug, Default)]
struct Screen {
    text: Mutex<(Vec<u8>, bool)>,
    changed: Condvar,
}

impl Pty {
    /// Starts `program` with a terminal of 24 by 80 as its own.
    pub(crate) fn spawn(program: &Command) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("openpty");
        let device = nix::unistd::ttyname(&pty.slave).expect("ttyname");
        // setsid(1) makes it the controlling terminal and then becomes the
        // program, so that keys turn into signals and the pid is the same.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let side = || File::from(pty.slave.try_clone().expect("dup"));
        command.stdin(side()).stdout(side()).stderr(side());
        let child = command.spawn().expect("setsid");
        drop(command);
        drop(pty.slave);
        let master = File::from(pty.master);
        let screen = Arc::new(Screen::default());
        let (mut reader, shared) = (master.try_clone().expect("dup"), screen.clone());
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            loop {
                // EIO: the last process has closed the terminal.
                let n = reader.read(&mut chunk).unwrap_or(0);
                let mut text = shared.text.lock().expect("lock");
                text.0.extend_from_slice(&chunk[..n]);
                text.1 = n == 0;
                shared.changed.notify_all();
                if n == 0 {
                    return;
                }
            }
        });
        Self { child, master, device, screen, read: 0 }
    }

    /// Waits until `needle` appears after what was matched before; gives the
    /// text up to it.
    #[track_caller]
    pub(crate) fn expect(&mut self, needle: &str) -> String {
        let start = Instant::now();
        let mut text = self.screen.text.lock().expect("lock");
        loop {
            let new = &text.0[self.read..];
            if let Some(at) = new.windows(needle.len()).position(|w| w == needle.as_bytes()) {
                let seen = String::from_utf8_lossy(&new[..at]).into_owned();
                self.read += at + needle.len();
                return seen;
            }
            let left = DEADLINE.checked_sub(start.elapsed());
            assert!(
                left.is_some() && !text.1,
                "no {needle:?} on the terminal, but: {:?}",
                String::from_utf8_lossy(new)
            );
            text = self.screen.changed.wait_timeout(text, left.unwrap_or_default()).expect("lock").0;
        }
    }

    /// Whether `needle` appeared after what was matched before; matches it.
    pub(crate) fn sees(&mut self, needle: &str) -> Option<()> {
        let text = self.screen.text.lock().expect("lock");
        let new = &text.0[self.read..];
        let at = new.windows(needle.len()).position(|w| w == needle.as_bytes())?;
        self.read += at + needle.len();
        Some(())
    }

    /// Types `keys`.
    pub(crate) fn send(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("write to the terminal");
    }

    /// Makes the window another size, as dragging its corner does.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let device = self.device.to_str().expect("a path of digits");
        sh("stty", &["-F", device, "rows", &rows.to_string(), "cols", &columns.to_string()]);
    }

    /// How the terminal is set, in stty's words.
    pub(crate) fn settings(&self) -> String {
        sh("stty", &["-F", self.device.to_str().expect("a path of digits"), "-g"])
    }

    /// Waits for the program's end; its exit code.
    pub(crate) fn wait(&mut self) -> i32 {
        finish(&mut self.child, "the program on the terminal")
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
