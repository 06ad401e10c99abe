// SPDX-License-Identifier: Apache-2.0
//! With a terminal: raw mode and back, size, detach keys.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::OwnedFd,
};

use nix::{
    pty::{Winsize, openpty},
    sys::termios::{LocalFlags, tcgetattr},
};

use crate::engine::{Engine, Of, Script, image, terminate};

struct Terminal {
    master: File,
    slave: OwnedFd,
}

impl Terminal {
    fn new() -> Self {
        let size = Winsize { ws_row: 31, ws_col: 117, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("pty");
        Self { master: pty.master.into(), slave: pty.slave }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).expect("termios").local_flags.contains(LocalFlags::ICANON)
    }

    fn spawn(&self, engine: &Engine, arguments: &[&str]) -> std::process::Child {
        let slave = || self.slave.try_clone().expect("clone");
        let mut command = engine.command(arguments);
        command.stdin(slave()).stdout(slave()).stderr(slave()).spawn().expect("run berth")
    }
}

fn shell() -> Engine {
    Engine::new(Script {
        images: vec![image("img:latest")],
        output: vec![(Of::Stdout, "$ ")],
        ..Default::default()
    })
}

#[test]
fn an_interactive_session_can_be_left() {
    let engine = shell();
    let mut terminal = Terminal::new();
    let mut child = terminal.spawn(&engine, &["run", "-it", "img"]);
    let mut prompt = [0; 2];
    terminal.master.read_exact(&mut prompt).expect("prompt");
    assert_eq!(&prompt, b"$ ");
    assert!(terminal.is_raw());
    engine.until("the size", |seen| seen.sizes.contains(&(31, 117)));
    terminal.master.write_all(b"ls\r\x03").expect("type");
    engine.until("what was typed", |seen| seen.stdin == b"ls\r\x03");
    terminal.master.write_all(b"\x10\x11").expect("type");
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    assert!(!terminal.is_raw(), "the terminal is as it was");
    let seen = engine.seen();
    assert_eq!(seen.stdin, b"ls\r\x03", "detach keys are not input");
    assert!(seen.created.as_ref().expect("created").config.as_ref().expect("config").tty);
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    let engine = shell();
    let mut terminal = Terminal::new();
    let mut child = terminal.spawn(&engine, &["run", "-it", "img"]);
    terminal.master.read_exact(&mut [0; 2]).expect("prompt");
    assert!(terminal.is_raw());
    terminate(&child);
    assert_eq!(child.wait().expect("wait").code(), Some(143));
    assert!(!terminal.is_raw());
}

#[test]
fn load_refuses_a_terminal() {
    let engine = shell();
    let mut terminal = Terminal::new();
    let mut child = terminal.spawn(&engine, &["load"]);
    assert_eq!(child.wait().expect("wait").code(), Some(1));
    let mut text = [0; 35];
    terminal.master.read_exact(&mut text).expect("message");
    assert_eq!(&text, b"requested load from stdin, but stdi");
}
