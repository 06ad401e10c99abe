// SPDX-License-Identifier: Apache-2.0
//! `delete`: the shim has died, and what it held has to go. Prints an encoded
//! `DeleteResponse`, as containerd wants it.

use std::{fs, path::Path};

use berth::{
    api::task::DeleteResponse,
    bundle::{self, ExitRecord, ProcessIdentity},
};
use prost::Message as _;

use super::{ADDRESS, Failure, SOCKETS, args::Args, bundle, print};
use crate::{
    io::diag,
    runtime::{self, hooks::Hooks},
};

/// 128 + SIGKILL: the container dies with its shim.
const KILLED: u8 = 137;

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let dir = bundle(args)?;
    let cgroups = args.identity(dir.clone())?.cgroups();
    cgroups.and_then(|cgroups| runtime::cleanup_dead(&cgroups)).map_err(|e| Failure::io("clean up", e))?;
    end(&dir, args.id()?.as_str());
    remove_socket(&dir);
    let record = record(&dir)?;
    let response = DeleteResponse {
        pid: record.pid,
        exit_status: record.exit_code.into(),
        exited_at: Some(record.exited_at().into()),
    };
    print(&response.encode_to_vec())
}

/// What else a container's end brings, as its own shim would have done it.
/// Without a specification there is nothing to do.
fn end(dir: &Path, id: &str) {
    let Ok(text) = fs::read(dir.join(bundle::CONFIG)) else { return };
    let spec = runtime::spec::read(&text).map(|read| read.value);
    let resctrl = spec.as_ref().map_err(Clone::clone).and_then(|spec| runtime::resctrl(spec, id));
    if let Err(e) = resctrl.and_then(|resctrl| resctrl.map_or(Ok(()), |resctrl| resctrl.remove())) {
        diag::warn(format_args!("clean up: {e}"));
    }
    if let Ok(hooks) = spec.and_then(|spec| Hooks::of(&spec, id, dir)) {
        hooks.run_poststop().iter().for_each(|failure| diag::warn(format_args!("{failure}")));
    }
}

/// What the shim has written, or what became of the process when it hasn't.
fn record(dir: &Path) -> Result<ExitRecord, Failure> {
    let read = |e| Failure::io("read the exit record", e);
    if let Some(record) = bundle::read_record::<ExitRecord>(dir, bundle::EXIT_RECORD).map_err(read)? {
        return Ok(record);
    }
    let init = bundle::read_record::<ProcessIdentity>(dir, bundle::INIT_RECORD).map_err(read)?;
    let pid = init.map_or(0, |init| init.pid);
    Ok(ExitRecord { pid, exit_code: KILLED, exited_at: bundle::now_nanos(), oom_killed: false })
}

/// A socket in the bundle goes with the bundle.
fn remove_socket(dir: &Path) {
    let Ok(address) = fs::read_to_string(dir.join(ADDRESS)) else { return };
    if let Some(path) = address.strip_prefix("unix://").map(Path::new)
        && path.parent() == Some(Path::new(SOCKETS))
    {
        // Already gone, most likely.
        let _ = fs::remove_file(path);
    }
}
