// SPDX-License-Identifier: Apache-2.0
//! What the program is asked to do, decided before anything else happens.
//!
//! Our engine uses `serve` alone. `start`, `delete` and `-info` are how
//! containerd calls any shim; its flags have one dash and stand before the
//! verb.

mod args;
mod delete;
mod info;
mod serve;
mod start;

use std::{
    ffi::OsString,
    fmt,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use self::args::{Args, Verb};

/// Where containers' cgroups are unless somebody says otherwise.
const CGROUP_PARENT: &str = "/berth";

/// The file in a bundle that holds the address of a shim that containerd
/// started; containerd 1.6 finds its shims by it.
const ADDRESS: &str = "address";

/// Sockets whose path in the bundle would be too long for an address.
const SOCKETS: &str = "/run/berth/s";

const HELP: &str = "\
Usage: berth-shim serve --namespace NS --id ID [--cgroup-parent PATH]
       berth-shim -namespace NS -id ID [-bundle DIR] {start|delete}
       berth-shim -info | --version | --help

Holds one container: its runtime, its standard streams and its exit status.
berthd starts it; nobody needs to by hand. As containerd-shim-berth-v1 it also
serves containerd (ctr run --runtime io.containerd.berth.v1).
";

/// Does what the arguments ask for.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // Nothing is left to tell if standard error is closed.
            let _ = writeln!(io::stderr(), "berth-shim: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let args = Args::parse(arguments)?;
    match args.verb {
        Verb::Serve => serve::run(&args),
        Verb::Files => files(),
        Verb::Start => start::run(&args),
        Verb::Delete => delete::run(&args),
        Verb::Info => info::run(),
        Verb::Version => print(concat!("berth-shim version ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()),
        Verb::Help => print(HELP.as_bytes()),
    }
}

/// Not a shim at all: works on a container's files for the engine.
fn files() -> Result<(), Failure> {
    // Executed from a descriptor, it would be shown under its number.
    let _ = nix::sys::prctl::set_name(c"berth-files");
    crate::files::run().map_err(|e| Failure::io("work on a container's files", e))
}

/// Why the program fails, in one line.
#[derive(Debug)]
struct Failure(String);

impl Failure {
    /// `what` was being done.
    fn io(what: impl fmt::Display, error: impl fmt::Display) -> Self {
        Self(format!("{what}: {error}"))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn print(bytes: &[u8]) -> Result<(), Failure> {
    io::stdout().write_all(bytes).map_err(|e| Failure::io("write standard output", e))
}

/// The bundle: what the flag says, or the working directory.
fn bundle(args: &Args) -> Result<PathBuf, Failure> {
    let path = args.bundle.as_deref().unwrap_or(Path::new("."));
    path.canonicalize().map_err(|e| Failure::io(format_args!("bundle {}", path.display()), e))
}
