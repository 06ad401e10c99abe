// SPDX-License-Identifier: Apache-2.0
//! `serve`: becomes the shim of one container, on one thread.

use std::{env, fs, os::unix::net::UnixListener};

use berth::bootstrap;
use tokio::{runtime::Builder, task::LocalSet};

use super::{Failure, SOCKETS, args::Args};
use crate::{
    kernel::{memory, process},
    serve::{self, Listeners},
};

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    memory::be_frugal();
    // Executed from a descriptor, it would be shown under its number; only
    // people look at the name, so a failure is none.
    let _ = nix::sys::prctl::set_name(c"berth-shim");
    // Out of the starter's session; EPERM says that it has been seen to.
    let _ = nix::unistd::setsid();
    let me = args.identity(env::current_dir().map_err(|e| Failure::io("getcwd", e))?)?;
    let ttrpc = inherited(bootstrap::TTRPC_FD)?;
    let attach = if args.socket.is_none() { Some(inherited(bootstrap::ATTACH_FD)?) } else { None };
    let runtime = Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|e| Failure::io("start the event loop", e))?;
    LocalSet::new()
        .block_on(&runtime, async {
            serve::run(listeners(ttrpc, attach)?, me).await;
            Ok(())
        })
        .map_err(|e: std::io::Error| Failure::io("watch the sockets", e))?;
    if let Some(socket) = args.socket.as_deref().filter(|path| path.starts_with(SOCKETS)) {
        // `delete` does it too, should this not happen.
        let _ = fs::remove_file(socket);
    }
    Ok(())
}

/// Takes over a socket that the starter has put there.
fn inherited(number: i32) -> Result<UnixListener, Failure> {
    let failed = |e: &dyn std::fmt::Display| Failure::io(format_args!("inherited socket {number}"), e);
    let listener = UnixListener::from(process::adopt(number).map_err(|e| failed(&e))?);
    listener.set_nonblocking(true).map_err(|e| failed(&e))?;
    Ok(listener)
}

fn listeners(ttrpc: UnixListener, attach: Option<UnixListener>) -> std::io::Result<Listeners> {
    let attach = attach.map(tokio::net::UnixListener::from_std).transpose()?;
    Ok(Listeners { ttrpc: tokio::net::UnixListener::from_std(ttrpc)?, attach })
}
