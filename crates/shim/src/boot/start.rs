// SPDX-License-Identifier: Apache-2.0
//! `start`: containerd wants a shim. Makes its socket, starts this program
//! again with `serve`, and prints where it can be reached.
//!
//! Standard output is the answer and standard error is read with it, so
//! neither may be left open in the shim.

use std::{
    env, fs,
    fs::{DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read as _},
    os::{
        fd::AsFd as _,
        unix::{
            fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use berth::{bootstrap, bundle};
use nix::fcntl::OFlag;

use super::{ADDRESS, Failure, SOCKETS, args::Args, bundle, print};
use crate::kernel::process;

/// sun_path of unix(7), without the final NUL.
const LONGEST_ADDRESS: usize = 107;

/// The highest shim protocol that the caller knows; containerd 1.6 doesn't say
/// and wants the address alone.
const MAX_VERSION: &str = "MAX_SHIM_VERSION";

/// The Task service's version that we speak by ourselves.
const OUR_VERSION: u32 = 3;

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let dir = bundle(args)?;
    let socket = socket_path(&dir)?;
    let listener = listen(&socket)?;
    let address = format!("unix://{}", socket.display());
    fs::write(dir.join(ADDRESS), &address).map_err(|e| Failure::io("write the address", e))?;
    let spawned = spawn(args, &dir, &socket, &listener);
    if spawned.is_err() {
        // Nobody will ever listen on it.
        let _ = fs::remove_file(&socket);
    }
    spawned?;
    print(answer(&address, env::var(MAX_VERSION).ok().as_deref()).as_bytes())
}

/// What containerd reads.
fn answer(address: &str, max_version: Option<&str>) -> String {
    match max_version.map(|version| version.parse::<u32>().unwrap_or(2)) {
        None | Some(0 | 1) => address.to_owned(),
        Some(version) => {
            let version = version.min(OUR_VERSION);
            format!(r#"{{"version":{version},"address":"{address}","protocol":"ttrpc"}}"#)
        }
    }
}

/// In the bundle, where that isn't too long for an address.
fn socket_path(dir: &Path) -> Result<PathBuf, Failure> {
    let path = dir.join(bundle::SHIM_SOCKET);
    if path.as_os_str().len() <= LONGEST_ADDRESS {
        return Ok(path);
    }
    let name = random_name().map_err(|e| Failure::io("read /dev/urandom", e))?;
    DirBuilder::new().recursive(true).mode(0o700).create(SOCKETS).map_err(|e| Failure::io(SOCKETS, e))?;
    Ok(Path::new(SOCKETS).join(name))
}

fn random_name() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The socket is root's alone, like the directory that it's in.
fn listen(path: &Path) -> Result<UnixListener, Failure> {
    let listen = || {
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok::<_, io::Error>(listener)
    };
    listen().map_err(|e| Failure::io(format_args!("listen on {}", path.display()), e))
}

fn spawn(args: &Args, dir: &Path, socket: &Path, listener: &UnixListener) -> Result<(), Failure> {
    process::place(listener.as_fd(), bootstrap::TTRPC_FD)
        .map_err(|e| Failure::io("hand the socket on", e))?;
    let stderr = containerds_log(dir).map_or_else(Stdio::null, Stdio::from);
    Command::new("/proc/self/exe")
        .args([bootstrap::SERVE, "--namespace", args.namespace()?.as_str(), "--id", args.id()?.as_str()])
        .args(["--cgroup-parent", &args.cgroup_parent])
        .arg("--socket")
        .arg(socket)
        .env_clear()
        .envs(env::var_os("PATH").map(|path| ("PATH", path)))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .map_err(|e| Failure::io("start the shim", e))?;
    Ok(())
}

/// containerd reads the shim's log from a pipe called `log`. Opened for both
/// directions, so that it never breaks and never blocks.
fn containerds_log(dir: &Path) -> Option<File> {
    let path = dir.join("log");
    let is_pipe = fs::symlink_metadata(&path).is_ok_and(|meta| meta.file_type().is_fifo());
    let flags = OFlag::O_NONBLOCK.bits();
    is_pipe.then(|| OpenOptions::new().read(true).write(true).custom_flags(flags).open(path).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_containerd_gets_the_answer_that_it_reads() {
        assert_eq!(answer("unix:///x", None), "unix:///x");
        assert_eq!(
            answer("unix:///x", Some("2")),
            r#"{"version":2,"address":"unix:///x","protocol":"ttrpc"}"#
        );
        assert_eq!(
            answer("unix:///x", Some("4")),
            r#"{"version":3,"address":"unix:///x","protocol":"ttrpc"}"#
        );
    }

    #[test]
    fn a_long_bundle_gets_a_short_socket() {
        let short = Path::new("/run/containerd/io.containerd.runtime.v2.task/default/a");
        assert_eq!(socket_path(short).expect("path"), short.join("shim.sock"));
    }
}
