// SPDX-License-Identifier: Apache-2.0
//! `berth-oci`: the runtime behind runc's command line, so that Docker,
//! podman, containerd and test suites can drive it. A file per verb.
//!
//! Every run is one process with one thread that ends: what a container is
//! between two of them is in its directory ([`store`]) and in the kernel.

mod checkpoint;
mod cli;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod foreground;
mod handover;
mod kill;
mod list;
mod log;
mod notify;
mod pause;
mod ps;
mod run;
mod sealed;
mod spec;
mod start;
mod state;
mod store;
mod update;

use std::{
    ffi::OsString,
    fmt,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use self::{
    cli::{Flag, Matches, Parsed, Verb, option, switch},
    log::{Format, Log},
    store::Store,
};
use crate::{cgroup::Driver, runtime};

const VERBS: &[&Verb] = &[
    &checkpoint::CHECKPOINT,
    &create::VERB,
    &delete::VERB,
    &events::VERB,
    &exec::VERB,
    &features::VERB,
    &kill::VERB,
    &list::VERB,
    &pause::PAUSE,
    &ps::VERB,
    &checkpoint::RESTORE,
    &pause::RESUME,
    &run::VERB,
    &spec::VERB,
    &start::VERB,
    &state::VERB,
    &update::VERB,
];

const FLAGS: &[Flag] = &[
    switch("debug", "", "enable debug logging"),
    option("log", "", "set the log file to write logs to (default is '/dev/stderr')"),
    option("log-format", "", "set the log format ('text' (default), or 'json')"),
    option("root", "", "root directory for storage of container state (this should be located in tmpfs)"),
    option("criu", "", "(ignored: there is no checkpoint and restore)"),
    switch(
        "systemd-cgroup",
        "",
        "enable systemd cgroup support, expects cgroupsPath to be of form \"slice:prefix:name\"",
    ),
    option("rootless", "", "ignore cgroup permission errors ('true', 'false', or 'auto')"),
    switch("version", "v", "print the version"),
];

/// What all verbs share.
#[derive(Debug)]
struct Context {
    store: Store,
    log: Log,
    /// Who makes cgroups.
    driver: Driver,
}

/// How a verb ends.
type Outcome = Result<ExitCode, Failure>;

/// Why a verb has failed: a line for people and for programs that look for
/// runc's words in it, and an exit status.
#[derive(Debug)]
struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), status: 1 }
    }

    /// `what` is a verb and its object.
    fn io(what: impl fmt::Display, e: &io::Error) -> Self {
        Self::new(format!("{what}: {e}"))
    }

    /// Ends with another exit status.
    fn with_status(mut self, status: u8) -> Self {
        self.status = status;
        self
    }

    /// Puts what was being done in front.
    fn during(mut self, step: impl fmt::Display) -> Self {
        self.message = format!("{step}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<runtime::Error> for Failure {
    fn from(e: runtime::Error) -> Self {
        Self::new(e.to_string())
    }
}

impl From<crate::kernel::SysError> for Failure {
    fn from(e: crate::kernel::SysError) -> Self {
        Self::new(e.to_string())
    }
}

/// The program.
#[must_use]
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.skip(1).collect();
    let mut rest = arguments.into_iter();
    let (global, name) = match cli::leading_flags(FLAGS, &mut rest) {
        Ok((Parsed::Run(global), name)) => (global, name),
        Ok((Parsed::Help, _)) => return usage(),
        Err(failure) => return refuse(&failure),
    };
    if global.has("version") {
        return version();
    }
    let Some(name) = name else { return usage() };
    let Some(verb) = VERBS.iter().find(|verb| name == verb.name) else {
        return match name.to_str() {
            Some("help" | "h") => usage(),
            _ => refuse(&Failure::new(format!("No help topic for '{}'", name.display()))),
        };
    };
    let context = match context(&global) {
        Ok(context) => context,
        Err(failure) => return refuse(&failure),
    };
    let outcome = match cli::rest_of(verb, &mut rest) {
        Ok(Parsed::Run(matches)) => (verb.run)(&context, &matches),
        Ok(Parsed::Help) => return cli::help(verb),
        Err(failure) => Err(failure),
    };
    outcome.unwrap_or_else(|failure| {
        context.log.error(&failure.message);
        failure.status.into()
    })
}

/// Before it is known where messages go.
fn refuse(failure: &Failure) -> ExitCode {
    Log { file: None, format: Format::Text, debug: false }.error(&failure.message);
    failure.status.into()
}

fn context(global: &Matches) -> Result<Context, Failure> {
    let format = match global.text("log-format")? {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => return Err(Failure::new(format!("invalid log-format: {other}"))),
    };
    let log = Log { file: global.path("log"), format, debug: global.has("debug") };
    let driver = if global.has("systemd-cgroup") { Driver::Systemd } else { Driver::Cgroupfs };
    let store = match global.path("root") {
        Some(root) => Store::at(absolute(&root)?)?,
        None => Store::by_default(),
    };
    Ok(Context { store, log, driver })
}

/// A path that means the same after a change of directory.
fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|e| Failure::io(path.display(), &e))
}

/// Writes to standard output, which may be closed.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|e| Failure::io("write to standard output", &e))
}

/// What this program was called as: a link may give it another's place.
fn program() -> String {
    let path = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    path.file_name().map_or_else(|| "berth-oci".to_owned(), |name| name.to_string_lossy().into_owned())
}

fn version() -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    println!("{} version {version}\ncommit: v{version}\nspec: {}", program(), create::SPECIFICATION);
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    let mut text = format!(
        "NAME:\n   {name} - Open Container Initiative runtime\n\n\
         USAGE:\n   {name} [global options] command [command options] [arguments...]\n\n\
         VERSION:\n   {}\n\nCOMMANDS:\n",
        env!("CARGO_PKG_VERSION"),
        name = program(),
    );
    for verb in VERBS {
        text += &format!("   {:<10}  {}\n", verb.name, verb.usage);
    }
    cli::write_flags(&mut text, "GLOBAL OPTIONS", FLAGS);
    print!("{text}");
    ExitCode::SUCCESS
}
