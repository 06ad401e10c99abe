// SPDX-License-Identifier: Apache-2.0
//! `exec`: one more process in a container that runs.

use std::{collections::HashSet, fs, os::fd::AsFd as _, path::PathBuf, process::ExitCode};

use oci_spec::runtime::{Capability, Process, Spec};

use super::{
    Context, Failure, Outcome,
    cli::{Matches, Verb, option, switch},
    create::{self, NO_NEW_KEYRING, PRESERVE_FDS},
    foreground::{Front, NO_SIZE, Signals, Waited},
    handover::Handover,
    kill::NOT_RUNNING,
    sealed,
    store::{Known, Status},
};
use crate::{
    cgroup::prime,
    kernel::process,
    runtime::{self, Bound, Exec, Joined, Keyring, Stdio, Target},
};

pub(super) const VERB: Verb = Verb {
    name: "exec",
    usage: "execute new process inside the container",
    arguments: "<container-id> <command> [command options]  || -p process.json <container-id>",
    flags: &[
        create::CONSOLE_SOCKET,
        create::PIDFD_SOCKET,
        option("cwd", "", "current working directory in the container"),
        option("env", "e", "set environment variables"),
        switch("tty", "t", "allocate a pseudo-TTY"),
        option("user", "u", "UID (format: <uid>[:<gid>])"),
        option("additional-gids", "g", "additional gids"),
        option("process", "p", "path to the process.json"),
        switch("detach", "d", "detach from the container's process"),
        create::PID_FILE,
        option("process-label", "", "set the asm process label for the process commonly used with selinux"),
        option("apparmor", "", "set the apparmor profile for the process"),
        switch("no-new-privs", "", "set the no new privileges value for the process"),
        option("cap", "c", "add a capability to the bounding set for the process"),
        PRESERVE_FDS,
        option("cgroup", "", "run the process in an (existing) sub-cgroup(s)"),
        switch("ignore-paused", "", "allow exec in a paused container"),
        switch("no-subreaper", "", "disable the use of the subreaper used to reap reparented processes"),
        NO_NEW_KEYRING,
    ],
    flags_until: 1,
    takes: (1, usize::MAX),
    // What runc's callers take for a failure of its own, not of the program.
    run: |context, matches| exec(context, matches).map_err(|e| e.during("exec failed").with_status(255)),
};

fn exec(context: &Context, matches: &Matches) -> Outcome {
    let inside = inside(&matches.all("cgroup")?)?;
    let preserve_fds = create::preserved(matches)?;
    sealed::ensure()?;
    let primed = prime();
    let known = context.store.load(matches.id()?)?;
    match known.status()? {
        Status::Paused if !matches.has("ignore-paused") => {
            return Err(Failure::new("cannot exec in a paused container (use --ignore-paused to override)"));
        }
        Status::Paused | Status::Running | Status::Created => {}
        Status::Creating | Status::Stopped => return Err(Failure::new(NOT_RUNNING)),
    }
    let spec = known.spec()?;
    let process = process_of(matches, &spec)?;
    let terminal = process.terminal().unwrap_or(false);
    let detach = matches.has("detach");
    let handover = Handover::of(matches);
    handover.check(terminal, detach)?;
    if !detach && !matches.has("no-subreaper") {
        // Without it orphans of the process are somebody else's.
        let _ = nix::sys::prctl::set_child_subreaper(true);
    }
    // From now on: one that comes during the start is for the process.
    let signals = if detach { None } else { Some(Signals::take()?) };
    let front = if terminal && !detach { Some(Front::find()?) } else { None };
    let size = front.as_ref().map_or(NO_SIZE, Front::size);
    let stdio = match terminal {
        true => Stdio::Terminal { rows: size.rows, columns: size.columns, plain: front.is_some() },
        false => Stdio::Inherited,
    };
    context.log.debug(&format!("nsexec container setup: {}", matches.id()?));
    let mut joined = launch(&known, &spec, process, matches, stdio, preserve_fds, &inside)?;
    context.log.debug(&format!("child process in init(): {}", joined.pid()));
    context.log.debug("setns_init: about to exec");
    drop(primed);
    joined.warnings().iter().for_each(|warning| context.log.warn(warning));
    let master = joined.take_console();
    let (to_caller, carried) = if handover.wants_console() { (master, None) } else { (None, master) };
    if let Err(failure) = handover.give(joined.pid(), joined.pidfd(), to_caller) {
        // The caller would never find it.
        process::pidfd_send_signal(joined.pidfd(), libc::SIGKILL)?;
        return Err(failure);
    }
    let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
    let to = Waited { pid: joined.pid(), pidfd: joined.pidfd() };
    Ok(to.wait(&signals, front.zip(carried))?.into())
}

fn launch(
    known: &Known,
    spec: &Spec,
    process: Process,
    matches: &Matches,
    stdio: Stdio,
    preserve_fds: u32,
    inside: &[(String, PathBuf)],
) -> Result<Joined, Failure> {
    let (Some(init), Some(identity)) = (known.init()?, &known.record.init) else {
        return Err(Failure::new(NOT_RUNNING));
    };
    let keyring = if matches.has("no-new-keyring") { Keyring::Inherited } else { Keyring::New };
    let id = matches.id()?;
    let target = Target {
        id,
        bundle: &known.record.bundle,
        pid: identity.pid,
        pidfd: init.as_fd(),
        spec,
        cgroups: &known.record.cgroups,
    };
    let joined = runtime::exec(Exec {
        target,
        process,
        user: "",
        stdio,
        bound: Bound::Free,
        preserve_fds,
        keyring,
        leaf: None,
        inside,
    });
    joined.map_err(|e| Failure::from(e).during("unable to start container process"))
}

/// Cgroups below the container's: `path` in all hierarchies, or
/// `controller[,controller]:path` for those of version 1.
fn inside(arguments: &[&str]) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut all: Vec<(String, PathBuf)> = Vec::new();
    for argument in arguments {
        let wrong = |why: &str| Err(Failure::new(format!("invalid --cgroup argument: {argument} ({why})")));
        let (controllers, path) = argument.split_once(':').unwrap_or(("", argument));
        if !argument.contains(':') && arguments.len() > 1 {
            return wrong("missing <controller>: prefix");
        }
        for controller in controllers.split(',') {
            if argument.contains(':') && controller.is_empty() {
                return wrong("empty <controller> prefix");
            }
            if all.iter().any(|(known, _)| known == controller) {
                return wrong(&format!("controller {controller} specified multiple times"));
            }
            all.push((controller.to_owned(), path.into()));
        }
    }
    Ok(all)
}

/// What is to run: a file says, or the container's process with what the
/// flags change of it.
fn process_of(matches: &Matches, spec: &Spec) -> Result<Process, Failure> {
    if let Some(path) = matches.path("process") {
        let text = fs::read(&path).map_err(|e| Failure::io(format!("open {}", path.display()), &e))?;
        return match runtime::spec::read_process(&text) {
            Ok(read) => Ok(read.value),
            Err(e) => Err(Failure::from(e).during(path.display())),
        };
    }
    let arguments = matches.arguments(1)?;
    if arguments.is_empty() {
        return Err(Failure::new("process args cannot be empty"));
    }
    let mut process = spec.process().clone().unwrap_or_default();
    process.set_args(Some(arguments)).set_terminal(Some(matches.has("tty"))).set_console_size(None);
    if let Some(cwd) = matches.path("cwd") {
        process.set_cwd(cwd);
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(matches.all("env")?.into_iter().map(str::to_owned));
    process.set_env(Some(env));
    if let Some(label) = matches.text("process-label")? {
        process.set_selinux_label(Some(label.to_owned()));
    }
    if let Some(profile) = matches.text("apparmor")? {
        process.set_apparmor_profile(Some(profile.to_owned()));
    }
    if matches.has("no-new-privs") {
        process.set_no_new_privileges(Some(true));
    }
    add_capabilities(&mut process, &matches.all("cap")?)?;
    set_user(&mut process, matches)?;
    Ok(process)
}

/// As runc has it: into the bounding set, the effective, the permitted, and
/// the ambient where something is inheritable.
fn add_capabilities(process: &mut Process, names: &[&str]) -> Result<(), Failure> {
    if names.is_empty() {
        return Ok(());
    }
    let parse = |name: &&str| {
        serde_json::from_value::<Capability>((*name).into())
            .map_err(|_| Failure::new(format!("unknown capability {name:?}")))
    };
    let added = names.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    let mut sets = process.capabilities().clone().unwrap_or_default();
    let with = |set: &Option<HashSet<Capability>>| {
        let all = set.iter().flatten().chain(&added).copied().collect::<HashSet<_>>();
        Some(all)
    };
    let (bounding, effective, permitted) =
        (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    // Of no use without an inheritable set.
    if sets.inheritable().is_some() {
        let ambient = with(sets.ambient());
        sets.set_ambient(ambient);
    }
    process.set_capabilities(Some(sets));
    Ok(())
}

fn set_user(process: &mut Process, matches: &Matches) -> Result<(), Failure> {
    let number = |text: &str, what: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u32>()
            .ok()
            .filter(|_| digits)
            .ok_or_else(|| Failure::new(format!("parsing {text} as int for {what} failed: invalid syntax")))
    };
    let mut user = process.user().clone();
    if let Some(text) = matches.text("user")? {
        let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
        user.set_uid(number(uid, "uid")?);
        if let Some(gid) = gid {
            user.set_gid(number(gid, "gid")?);
        }
    }
    let more = matches.all("additional-gids")?;
    if !more.is_empty() {
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        for gid in more {
            gids.push(number(gid, "gid")?);
        }
        user.set_additional_gids(Some(gids));
    }
    process.set_user(user);
    Ok(())
}
