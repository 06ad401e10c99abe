// SPDX-License-Identifier: Apache-2.0
//! What a container gets of its caller's descriptors: what was asked for, and
//! nothing else (D6).

use std::process::Command;

use crate::harness::{Host, is_by_user, without_the_usual as expected};

/// Runs the program from a shell that opens descriptors first.
fn from_shell(host: &Host, setup: &str, line: &str) -> String {
    let inner = host.command();
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{setup}; exec \"$@\"")).arg("sh").arg(inner.get_program());
    command.args(inner.get_args()).current_dir(host.path("."));
    host.add(&mut command, line);
    let output = command.output().unwrap();
    format!("{}{}", expected(&output.stdout), expected(&output.stderr))
}

const OPEN: &str = "echo three >3; echo four >4; echo nine >9; exec 3<3 4<4 9<9";

#[test]
fn nothing_that_is_not_asked_for() {
    let host = Host::shell("ls /proc/self/fd | tr '\\n' ' '");
    // The last is the directory that ls reads.
    assert_eq!(from_shell(&host, OPEN, "run --bundle BUNDLE ID"), "0 1 2 3 ");
    let host = Host::shell("cat <&3");
    let output = from_shell(&host, OPEN, "run --bundle BUNDLE ID");
    assert!(output.contains("Bad file descriptor") || output.contains("bad file descriptor"), "{output}");
}

#[test]
fn as_many_as_are_asked_for() {
    let host = Host::shell("cat <&3; cat <&4; cat <&9");
    let output = from_shell(&host, OPEN, "run --preserve-fds 2 --bundle BUNDLE ID");
    assert!(output.starts_with("three\nfour\n"), "{output}");
    assert!(!output.contains("nine"), "{output}");
}

#[test]
fn one_that_is_missing_is_an_error() {
    let host = Host::shell("true");
    let output = from_shell(&host, OPEN, "run --preserve-fds 3 --bundle BUNDLE ID");
    assert!(output.contains("unable to stat preserved-fd 2 (of 3)"), "{output}");
}

#[test]
fn sockets_of_systemd_come_first() {
    let host = Host::shell("env | grep ^LISTEN | sort; cat <&3; cat <&4");
    // The shell's pid is the program's: it executes it.
    let setup = format!("{OPEN}; export LISTEN_PID=$$ LISTEN_FDS=1");
    let output = from_shell(&host, &setup, "run --preserve-fds 1 --bundle BUNDLE ID");
    assert_eq!(output, "LISTEN_FDS=1\nLISTEN_PID=1\nthree\nfour\n");
}

#[test]
fn the_runtimes_own_file_cannot_be_written_to() {
    // The kernel executes what this process was executed from: the runtime,
    // within the container, whose version it prints.
    let host = Host::new(&["/bin/evil", "--version"]);
    let evil = host.path("bundle/rootfs/bin/evil");
    std::os::unix::fs::symlink("/proc/self/exe", &evil).unwrap();
    let output = from_shell(&host, "true", "run --bundle BUNDLE ID");
    // Linked to libraries that the image lacks, it may not start at all.
    assert!(!output.contains("Text file busy"), "{output}");
    // A process that waits in the container's place is looked at.
    host.run("create --bundle BUNDLE ID").ok();
    let pid = host.state()["pid"].as_u64().unwrap();
    let file = std::fs::File::open(format!("/proc/{pid}/exe")).unwrap();
    let flags = nix::sys::statvfs::fstatvfs(&file).unwrap().flags();
    let seals = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GET_SEALS);
    let is_sealed = seals.is_ok_and(|seals| seals & libc::F_SEAL_WRITE != 0);
    // A user can't mount: hers is a copy.
    let is_read_only = flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY);
    assert_eq!((is_read_only, is_sealed), (!is_by_user(), is_by_user()), "{flags:?} {seals:?}");
    let error = std::fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/exe")).unwrap_err();
    // The first as long as anybody executes it, the second ever after.
    let kinds = [std::io::ErrorKind::ExecutableFileBusy, std::io::ErrorKind::ReadOnlyFilesystem];
    assert!(kinds.contains(&error.kind()), "{error}");
}
