// SPDX-License-Identifier: Apache-2.0
//! `create`, and what it shares with `run`: from a bundle to a first process
//! that has done everything but execve.

use std::{
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use oci_spec::runtime::Spec;

use super::{
    Context, Failure, Outcome, absolute,
    cli::{Flag, Matches, Verb, option, switch},
    foreground::NO_SIZE,
    handover::Handover,
    log::Log,
    notify::Manager,
    sealed,
    store::{Entry, Record},
};
use crate::{
    cgroup::{Layout, Placement, prime},
    io::log::clock::Timestamp,
    kernel::{identity, process, tty::Size},
    runtime::{self, Container, Keyring, Lifetime, RootMount, Stdio, spec},
};

pub(super) use crate::runtime::spec::VERSION as SPECIFICATION;

/// The bundle's file.
pub(super) const CONFIG: &str = "config.json";

pub(super) const BUNDLE: Flag =
    option("bundle", "b", "path to the root of the bundle directory, defaults to the current directory");
pub(super) const CONSOLE_SOCKET: Flag = option(
    "console-socket",
    "",
    "path to an AF_UNIX socket which will receive a file descriptor referencing the master end of the \
     console's pseudoterminal",
);
pub(super) const PIDFD_SOCKET: Flag = option(
    "pidfd-socket",
    "",
    "path to an AF_UNIX socket which will receive a file descriptor referencing the init process",
);
pub(super) const PID_FILE: Flag = option("pid-file", "", "specify the file to write the process id to");
pub(super) const NO_PIVOT: Flag = switch(
    "no-pivot",
    "",
    "do not use pivot root to jail process inside rootfs; for a root on a ramdisk only: it is less safe",
);
pub(super) const NO_NEW_KEYRING: Flag =
    switch("no-new-keyring", "", "do not create a new session keyring for the container");
pub(super) const PRESERVE_FDS: Flag = option(
    "preserve-fds",
    "",
    "pass N additional file descriptors to the container (stdio + $LISTEN_FDS + N in total)",
);

pub(super) const VERB: Verb = Verb {
    name: "create",
    usage: "create a container",
    arguments: "<container-id>",
    flags: &[BUNDLE, CONSOLE_SOCKET, PIDFD_SOCKET, PID_FILE, NO_PIVOT, NO_NEW_KEYRING, PRESERVE_FDS],
    flags_until: usize::MAX,
    takes: (1, 1),
    run: |context, matches| create(context, matches).map_err(|e| e.during("create failed")),
};

fn create(context: &Context, matches: &Matches) -> Outcome {
    let preserve_fds = preserved(matches)?;
    sealed::ensure()?;
    let _primed = prime();
    let request = Request::of(matches, After::Detached, preserve_fds)?;
    let mut made = make(context, &request, Start::ByAnother, None)?;
    match made.settle(&request) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure) => Err(made.undo(failure)),
    }
}

/// Who starts the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// The process that creates it.
    ByUs,
    /// A later run.
    ByAnother,
}

/// What this process does once the container is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It ends.
    Detached,
    /// It waits for the container's end.
    Foreground,
}

/// What was asked for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: String,
    bundle: PathBuf,
    text: Vec<u8>,
    spec: Spec,
    /// What reading it has left out.
    warnings: Vec<String>,
    handover: Handover,
    keyring: Keyring,
    no_pivot: bool,
    preserve_fds: u32,
}

impl Request {
    /// Reads the bundle, and checks what can be checked before anything is
    /// made.
    pub(super) fn of(matches: &Matches, after: After, preserve_fds: u32) -> Result<Self, Failure> {
        let bundle = absolute(&matches.path("bundle").unwrap_or_else(|| PathBuf::from(".")))?;
        let bundle = fs::canonicalize(&bundle).map_err(|e| Failure::io(bundle.display(), &e))?;
        let text = match fs::read(bundle.join(CONFIG)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::new(format!("JSON specification file {CONFIG} not found")));
            }
            result => result.map_err(|e| Failure::io(bundle.join(CONFIG).display(), &e))?,
        };
        let spec::Read { value: mut spec, warnings } = spec::read(&text)?;
        let keyring = if matches.has("no-new-keyring") { Keyring::Inherited } else { Keyring::New };
        let listening = listening();
        if listening > 0 {
            hand_on(&mut spec, listening);
        }
        let request = Self {
            id: matches.id()?.to_owned(),
            bundle,
            text,
            spec,
            warnings,
            handover: Handover::of(matches),
            keyring,
            no_pivot: matches.has("no-pivot"),
            preserve_fds: preserve_fds + listening,
        };
        request.handover.check(request.has_terminal(), after == After::Detached)?;
        Ok(request)
    }

    pub(super) fn has_terminal(&self) -> bool {
        self.spec.process().as_ref().is_some_and(|process| process.terminal().unwrap_or(false))
    }

    fn rootfs(&self) -> PathBuf {
        // Joined with an absolute path, the bundle is out of it.
        self.spec.root().as_ref().map_or_else(PathBuf::new, |root| self.bundle.join(root.path()))
    }

    fn record(&self, cgroups: Placement) -> Result<Record, Failure> {
        Ok(Record {
            oci_version: self.spec.version().clone(),
            bundle: self.bundle.clone(),
            rootfs: self.rootfs(),
            created: String::from_utf8_lossy(Timestamp::now().as_bytes()).into_owned(),
            annotations: self.spec.annotations().clone().unwrap_or_default(),
            init: None,
            root_mount: RootMount::of(&self.spec, &self.rootfs())?,
            cgroups,
        })
    }
}

/// The number of descriptors to hand on, each of which has to be there: looked
/// at before this process opens any of its own.
pub(super) fn preserved(matches: &Matches) -> Result<u32, Failure> {
    let number: u32 = matches.number("preserve-fds")?.unwrap_or(0);
    let first = 3 + listening();
    for descriptor in first..first.saturating_add(number) {
        if let Err(e) = process::is_open(descriptor.cast_signed()) {
            let which = format!("preserved-fd {} (of {number})", descriptor - first);
            return Err(Failure::io(format!("unable to stat {which}"), &e.errno().into()));
        }
    }
    Ok(number)
}

/// The number of sockets that systemd, or who speaks as it does, has opened
/// for this process (sd_listen_fds(3)).
fn listening() -> u32 {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count,
        _ => 0,
    }
}

/// Tells the container's program of its sockets.
fn hand_on(spec: &mut Spec, listening: u32) {
    let Some(process) = spec.process_mut() else { return };
    let mut env = process.env().clone().unwrap_or_default();
    env.push(format!("LISTEN_FDS={listening}"));
    // It is the first process of its pid namespace.
    env.push("LISTEN_PID=1".to_owned());
    process.set_env(Some(env));
}

/// A container that has been made.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) entry: Entry,
    pub(super) container: Container,
    record: Record,
}

/// Makes a container, whose terminal may have one of some size in front of it.
/// When it fails nothing is left.
pub(super) fn make(
    context: &Context,
    request: &Request,
    start: Start,
    front: Option<Size>,
) -> Result<Made, Failure> {
    let path = request.spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
    let path = path.and_then(Path::to_str).unwrap_or("");
    let cgroups = Placement::of_spec(&Layout::of_host()?, context.driver, path, &request.id)?;
    let record = request.record(cgroups)?;
    let entry = context.store.create(&request.id)?;
    match make_in(&entry, request, &record, start, front, &context.log) {
        Ok(container) => {
            context.log.debug(&format!("child process in init(): {}", container.pid()));
            for warning in request.warnings.iter().chain(container.warnings()) {
                context.log.warn(warning);
            }
            Ok(Made { entry, container, record })
        }
        Err(failure) => Err(match entry.remove() {
            Ok(()) => failure,
            Err(second) => Failure::new(format!("{failure} (and then: {second})")),
        }),
    }
}

fn make_in(
    entry: &Entry,
    request: &Request,
    record: &Record,
    start: Start,
    front: Option<Size>,
    log: &Log,
) -> Result<Container, Failure> {
    // Before the cgroups and the process that they stand for.
    entry.save_config(&request.text)?;
    entry.save(record)?;
    let lifetime = match start {
        Start::ByUs => Lifetime::Free,
        Start::ByAnother => Lifetime::Waiting(runtime::listen(entry.dir().as_fd())?),
    };
    let Size { rows, columns } = front.unwrap_or(NO_SIZE);
    let stdio = match request.has_terminal() {
        true => Stdio::Terminal { rows, columns, plain: front.is_some() },
        false => Stdio::Inherited,
    };
    let mut spec = request.spec.clone();
    if let Some(manager) = Manager::of_environment() {
        manager.prepare(entry, &mut spec)?;
    }
    log.debug(&format!("nsexec container setup: {}", request.id));
    let made = runtime::create(runtime::Create {
        id: &request.id,
        bundle: &request.bundle,
        spec,
        rootfs: &[],
        user: "",
        filter: &[],
        cgroups: &record.cgroups,
        stdio,
        lifetime,
        preserve_fds: request.preserve_fds,
        keyring: request.keyring,
        no_pivot: request.no_pivot,
        init: false,
    });
    log.debug("init: closing the pipe to signal completion");
    made.map_err(|e| Failure::from(e).during("unable to start container process"))
}

impl Made {
    /// Tells everybody whom it concerns: the record, the owners of sockets,
    /// and last the pid file, which says that all is done.
    pub(super) fn settle(&mut self, request: &Request) -> Result<(), Failure> {
        let pid = self.container.pid();
        let identity = identity::identify(pid, self.container.pidfd())
            .map_err(|e| Failure::io("identify the container's process", &e))?;
        self.record.init = Some(identity);
        self.entry.save(&self.record)?;
        let console = request.handover.wants_console().then(|| self.container.take_console()).flatten();
        request.handover.give(pid, self.container.pidfd(), console)
    }

    /// Ends a container that nobody will hear of, and returns the first error.
    pub(super) fn undo(mut self, failure: Failure) -> Failure {
        let ended = self.container.destroy().map_err(Failure::from);
        let removed = self.entry.remove();
        let hooks = self.container.poststop();
        let later = [ended, removed].into_iter().filter_map(Result::err).map(|e| e.message).chain(hooks);
        later.fold(failure, |first, next| Failure {
            message: format!("{} (and then: {next})", first.message),
            ..first
        })
    }
}
