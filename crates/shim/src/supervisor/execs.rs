// SPDX-License-Identifier: Apache-2.0
//! Processes that have joined the container, each with an id, streams and an
//! end of its own. Nothing here waits: what is to be waited for is watched,
//! and comes back as something that [`Happened`].

use std::{collections::BTreeMap, os::fd::OwnedFd, time::Duration};

use berth::{
    api::shim::ExecProcess,
    bundle::{self, ExitRecord},
    ids::ExecId,
    ttrpc::{Code, Status},
};
use nix::libc::SIGKILL;
use oci_spec::runtime::Process;
use tokio::{io::unix::AsyncFd, task::JoinSet, time::timeout};

use super::{
    Event, Phase, Verb,
    answer::{answer, internal, status},
    call::{AddExec, OnDisconnect, Reply, Signal, Streams, View},
    exit,
    open::runtime_stdio,
};
use crate::{
    io::{
        attach::{Client, Left},
        diag,
        stdio::Stdio,
    },
    kernel::watch::watch_process,
    runtime::{self, Bound, Joined, Keyring, Target},
};

/// How long others may keep an ended process' output open before nobody
/// listens any more: a service that was started in the background does so for
/// ever, a filter at the end of a pipe until it has printed the rest.
const GRACE: Duration = Duration::from_millis(500);

/// Ended processes that nobody has deleted and that are still known.
const KEPT: usize = 256;

/// All processes that have joined.
#[derive(Debug, Default)]
pub(super) struct Execs {
    known: BTreeMap<ExecId, Exec>,
    watched: JoinSet<Happened>,
}

/// What happens to one.
#[derive(Debug)]
pub(super) enum Happened {
    /// It has ended.
    Exited(ExecId),
    /// Its output has, or is no longer waited for.
    OutputTaken(ExecId),
    /// A client that was attached to it has gone.
    ClientLeft(ExecId, Left),
}

#[derive(Debug)]
struct Exec {
    phase: Phase,
    /// What is executed, until it is.
    process: Option<Process>,
    args: Vec<String>,
    user: String,
    terminal: bool,
    streams: Streams,
    on_disconnect: OnDisconnect,
    /// Until nobody is listened to any more.
    stdio: Option<Stdio>,
    /// From its start on.
    joined: Option<Joined>,
    pid: u32,
    started_at: u64,
    waits: Vec<Reply<ExitRecord>>,
    deletes: Vec<Reply<ExitRecord>>,
}

impl Execs {
    /// The next thing that happens; `None` when nothing can.
    pub(super) async fn next(&mut self) -> Option<Happened> {
        loop {
            match self.watched.join_next().await? {
                Ok(happened) => return Some(happened),
                Err(e) => diag::warn(format_args!("watch a process: {e}")),
            }
        }
    }

    /// Whether the shim is still needed for one of them.
    pub(super) fn hold_process(&self) -> bool {
        self.known.values().any(|exec| exec.joined.is_some() && exec.phase.holds_process())
    }

    pub(super) fn add(&mut self, request: AddExec) -> Result<(), Status> {
        let AddExec { id, process, user, stdio, streams, on_disconnect } = request;
        if self.known.contains_key(&id) {
            return Err(Status::new(Code::AlreadyExists, format!("process {id} exists already")));
        }
        self.forget_old();
        let exec = Exec {
            phase: Phase::Created,
            args: process.args().clone().unwrap_or_default(),
            process: Some(process),
            user,
            terminal: stdio.terminal.is_some(),
            streams,
            on_disconnect,
            stdio: Some(Stdio::new(stdio)),
            joined: None,
            pid: 0,
            started_at: 0,
            waits: Vec::new(),
            deletes: Vec::new(),
        };
        self.known.insert(id, exec);
        Ok(())
    }

    /// Executes it in the container; its pid. One that can't be executed has
    /// ended, with the exit code that says why.
    pub(super) fn start(
        &mut self,
        id: &ExecId,
        target: Target<'_>,
        tasks: &mut JoinSet<()>,
    ) -> Result<u32, Status> {
        let exec = self.permit(Verb::Start, id)?;
        match exec.launch(id, target, tasks) {
            Ok((pid, pidfd)) => {
                exec.happened(Event::Started);
                let id = id.clone();
                self.watched.spawn_local(async move {
                    // A pidfd is readable from the process's end on, for ever.
                    drop(pidfd.readable().await);
                    Happened::Exited(id)
                });
                Ok(pid)
            }
            Err(status) => {
                exec.happened(Event::Exited(ended(0, failed_start(&status))));
                exec.finish();
                Err(status)
            }
        }
    }

    pub(super) fn kill(&mut self, id: &ExecId, signal: Signal) -> Result<(), Status> {
        match &self.permit(Verb::Kill, id)?.joined {
            Some(joined) => joined.kill(signal.number, signal.all).map_err(|e| status(&e)),
            None => Err(Status::new(Code::FailedPrecondition, format!("process {id} was not started"))),
        }
    }

    pub(super) fn wait(&mut self, id: &ExecId, reply: Reply<ExitRecord>) {
        match self.permit(Verb::Ask, id) {
            Err(status) => answer(reply, Err(status)),
            Ok(exec) => match &exec.phase {
                Phase::Stopped(record) => answer(reply, Ok(record.clone())),
                _ => {
                    exec.waits.retain(|other| !other.is_closed());
                    exec.waits.push(reply);
                }
            },
        }
    }

    pub(super) fn delete(&mut self, id: &ExecId, reply: Reply<ExitRecord>) {
        let exec = match self.permit(Verb::Delete, id) {
            Ok(exec) => exec,
            Err(status) => return answer(reply, Err(status)),
        };
        exec.deletes.push(reply);
        if exec.phase == Phase::Created {
            exec.happened(Event::Exited(ended(0, 0)));
            exec.finish();
        }
        self.delete_ended(id);
    }

    pub(super) fn view(&mut self, id: &ExecId) -> Result<View, Status> {
        let exec = self.permit(Verb::Ask, id)?;
        Ok(View { phase: exec.phase.clone(), pid: exec.pid, streams: exec.streams.clone() })
    }

    pub(super) fn with_stdio(&mut self, id: &ExecId, f: impl FnOnce(&mut Stdio)) -> Result<(), Status> {
        if let Some(stdio) = &mut self.permit(Verb::Ask, id)?.stdio {
            f(stdio);
        }
        Ok(())
    }

    /// Serves a client; `Err` when there is nothing to attach to.
    pub(super) fn attach(&mut self, client: Client) -> Result<(), (Client, String)> {
        let found = client.exec_id().parse::<ExecId>().ok();
        let Some((id, exec)) = found.and_then(|id| self.known.get_key_value(&id)) else {
            let why = format!("No such exec instance: {}", client.exec_id().escape_debug());
            return Err((client, why));
        };
        let Some(stdio) = &exec.stdio else { return Err((client, format!("process {id} has ended"))) };
        let (id, serving) = (id.clone(), stdio.attach(client));
        self.watched.spawn_local(async move { Happened::ClientLeft(id, serving.await) });
        Ok(())
    }

    pub(super) fn list(&self) -> Vec<ExecProcess> {
        self.known.iter().map(|(id, exec)| exec.describe(id)).collect()
    }

    /// Something has happened to one.
    pub(super) fn happened(&mut self, what: Happened) {
        match what {
            Happened::Exited(id) => self.exited(&id),
            Happened::OutputTaken(id) => {
                if let Some(exec) = self.known.get_mut(&id) {
                    exec.finish();
                }
                self.delete_ended(&id);
            }
            Happened::ClientLeft(id, left) => {
                if let Some(exec) = self.known.get(&id)
                    && (left, exec.on_disconnect) == (Left::Early, OnDisconnect::Kill)
                {
                    exec.kill_all(&id);
                }
            }
        }
    }

    fn exited(&mut self, id: &ExecId) {
        let Some(exec) = self.known.get_mut(id) else { return };
        let Some(joined) = &exec.joined else { return };
        let record = match exit::reap(joined.pidfd(), joined.pid()) {
            Ok(Some(record)) => record,
            Ok(None) => return,
            Err(e) => {
                diag::warn(format_args!("reap process {}: {e}; its exit code is lost", joined.pid()));
                ended(joined.pid(), u8::MAX)
            }
        };
        exec.happened(Event::Exited(record));
        let output = exec.stdio.as_ref().map(|stdio| stdio.output().clone());
        match output.filter(|output| {
            output.sweep();
            !output.has_ended()
        }) {
            Some(output) => {
                let id = id.clone();
                self.watched.spawn_local(async move {
                    // Whichever comes first: then it is taken.
                    drop(timeout(GRACE, output.ended()).await);
                    Happened::OutputTaken(id)
                });
            }
            None => {
                exec.finish();
                self.delete_ended(id);
            }
        }
    }

    /// Answers those who want it gone.
    fn delete_ended(&mut self, id: &ExecId) {
        let Some(exec) = self.known.get_mut(id) else { return };
        let Phase::Stopped(record) = &exec.phase else { return };
        if exec.deletes.is_empty() {
            return;
        }
        for delete in exec.deletes.drain(..) {
            answer(delete, Ok(record.clone()));
        }
        self.known.remove(id);
    }

    /// Makes room: those that ended first go first.
    fn forget_old(&mut self) {
        let ended = |exec: &Exec| match &exec.phase {
            Phase::Stopped(record) => Some(record.exited_at),
            _ => None,
        };
        if self.known.values().filter(|exec| ended(exec).is_some()).count() < KEPT {
            return;
        }
        let oldest = self.known.iter().filter_map(|(id, exec)| Some((ended(exec)?, id.clone()))).min();
        if let Some((_, id)) = oldest {
            self.known.remove(&id);
        }
    }

    fn permit(&mut self, verb: Verb, id: &ExecId) -> Result<&mut Exec, Status> {
        let unknown = || Status::new(Code::NotFound, format!("No such exec instance: {id}"));
        let exec = self.known.get_mut(id).ok_or_else(unknown)?;
        exec.phase.permit(verb, format_args!("process {id}"))?;
        Ok(exec)
    }
}

impl Exec {
    fn launch(
        &mut self,
        id: &ExecId,
        target: Target<'_>,
        tasks: &mut JoinSet<()>,
    ) -> Result<(u32, AsyncFd<OwnedFd>), Status> {
        let gone = || Status::new(Code::Internal, format!("process {id} is not to be started"));
        let process = self.process.take().ok_or_else(gone)?;
        let stdio = self.stdio.as_mut().ok_or_else(gone)?;
        let streams = runtime_stdio(stdio)?;
        let leaf = format!("exec-{id}");
        let mut joined = runtime::exec(runtime::Exec {
            target,
            process,
            user: &self.user,
            stdio: streams,
            bound: Bound::ToUs,
            preserve_fds: 0,
            keyring: Keyring::Inherited,
            leaf: Some(&leaf),
            inside: &[],
        })
        .map_err(|e| status(&e))?;
        for warning in joined.warnings() {
            diag::warn(format_args!("process {id}: {warning}"));
        }
        let connected = stdio.connect(joined.take_console(), tasks);
        let watched = joined.pidfd().try_clone_to_owned().and_then(watch_process);
        match connected.and(watched) {
            Ok(pidfd) => {
                (self.pid, self.started_at) = (joined.pid(), bundle::now_nanos());
                self.joined = Some(joined);
                Ok((self.pid, pidfd))
            }
            Err(e) => {
                joined.abandon();
                Err(internal("set up the process", &e))
            }
        }
    }

    /// Its end is complete: everybody is told.
    fn finish(&mut self) {
        let Phase::Ending(record) = &self.phase else { return };
        let record = record.clone();
        if let Some(mut stdio) = self.stdio.take() {
            stdio.output().sweep();
            stdio.release();
        }
        if let Some(joined) = &mut self.joined {
            joined.cleanup();
        }
        self.happened(Event::Recorded(record.clone()));
        for wait in self.waits.drain(..) {
            answer(wait, Ok(record.clone()));
        }
    }

    fn kill_all(&self, id: &ExecId) {
        let Some(joined) = self.joined.as_ref().filter(|_| self.phase.is_alive()) else { return };
        match joined.kill(SIGKILL, true) {
            Err(e) if e.kind() != runtime::Kind::NotRunning => {
                diag::warn(format_args!("kill process {id}, whose client has gone: {e}"));
            }
            _ => {}
        }
    }

    fn describe(&self, id: &ExecId) -> ExecProcess {
        let end = match &self.phase {
            Phase::Stopped(record) => Some(record),
            _ => None,
        };
        ExecProcess {
            exec_id: id.to_string(),
            pid: self.pid,
            args: self.args.clone(),
            user: runtime::asked_user(&self.user).to_owned(),
            terminal: self.terminal,
            started_at: self.started_at,
            exited_at: end.map_or(0, |record| record.exited_at),
            exit_code: end.map_or(0, |record| record.exit_code.into()),
        }
    }

    fn happened(&mut self, event: Event) {
        self.phase = std::mem::replace(&mut self.phase, Phase::Empty).after(event);
    }
}

fn ended(pid: u32, exit_code: u8) -> ExitRecord {
    ExitRecord { pid, exit_code, exited_at: bundle::now_nanos(), oom_killed: false }
}

/// The exit code of a process that could not be executed, as a shell has it.
fn failed_start(status: &Status) -> u8 {
    match status.code {
        Code::NotFound => 127,
        Code::PermissionDenied => 126,
        _ => u8::MAX,
    }
}
