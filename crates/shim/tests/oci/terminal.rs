// SPDX-License-Identifier: Apache-2.0
//! Terminals: handed to a caller, or carried through.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{fs::PermissionsExt as _, net::UnixListener},
    },
    time::{Duration, Instant},
};

use berth_shim::kernel::{
    process, socket,
    tty::{self, Size},
};
use nix::pty::openpty;
use serde_json::json;

use crate::harness::Host;

fn with_terminal(script: &str) -> Host {
    let mut host = Host::shell(script);
    host.spec["process"]["terminal"] = json!(true);
    host
}

/// Reads until `wanted` was there.
#[track_caller]
fn read_until(file: &mut File, wanted: &str) -> String {
    let mut text = String::new();
    let mut chunk = [0; 256];
    while !text.contains(wanted) {
        let n = file.read(&mut chunk).unwrap_or(0);
        assert!(n > 0, "the end came before {wanted:?}: {text:?}");
        text += &String::from_utf8_lossy(&chunk[..n]);
    }
    text
}

#[test]
fn a_console_socket_gets_the_master() {
    let host = with_terminal("tty; read line; echo got $line; exit 0");
    let path = host.path("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // Anybody may connect.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    host.run("run --detach --console-socket DIR/console.sock --bundle BUNDLE ID").ok();
    let (stream, _) = listener.accept().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let (_, master) = socket::receive(OwnedFd::from(stream), &mut [0; 64], Some(deadline)).unwrap();
    let mut master = File::from(master.expect("a descriptor"));
    assert!(read_until(&mut master, "/dev/").contains("/dev/"));
    master.write_all(b"hello\n").unwrap();
    read_until(&mut master, "got hello");
}

#[test]
fn a_foreground_run_carries_the_callers_terminal() {
    let host = with_terminal("stty size; read line; echo got $line; read line; stty size; exit 5");
    let pty = openpty(None, None).unwrap();
    tty::resize(&pty.master, Size { rows: 33, columns: 77 }).unwrap();
    let mut command = host.command();
    host.add(&mut command, "run --bundle BUNDLE ID");
    let stream = || pty.slave.try_clone().unwrap();
    let mut run = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
    let mut master = File::from(pty.master.try_clone().unwrap());
    read_until(&mut master, "33 77");
    master.write_all(b"hello\n").unwrap();
    read_until(&mut master, "got hello");
    // Raw on this side: what is typed is seen once, echoed by the container.
    tty::resize(&pty.master, Size { rows: 40, columns: 100 }).unwrap();
    let pidfd = process::pidfd_open(run.id()).unwrap();
    process::pidfd_send_signal(pidfd.as_fd(), libc::SIGWINCH).unwrap();
    // The container's terminal changes before the next line is carried.
    master.write_all(b"again\n").unwrap();
    read_until(&mut master, "40 100");
    assert_eq!(run.wait().unwrap().code(), Some(5));
    // It is left as it was found.
    let after = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
    assert!(after.local_flags.contains(nix::sys::termios::LocalFlags::ICANON));
}

#[test]
fn without_a_terminal_there_is_none_to_carry() {
    let host = with_terminal("true");
    let ran = host.run("run --bundle BUNDLE ID");
    assert_ne!(ran.status, 0);
    host.assert_gone();
}
