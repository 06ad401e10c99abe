// SPDX-License-Identifier: Apache-2.0
//! The one owner of the container: what happens is turned into an [`Action`],
//! one at a time, and applied without ever waiting.
//!
//! [`phase`] says what may happen when; this module does it. Who asks, and in
//! which protocol, is `serve`'s business. It is the container's parent and the
//! only place that reaps: the shim is no subreaper, so it has no children but
//! those that the runtime makes, and it needs no SIGCHLD.

mod answer;
pub mod call;
mod execs;
mod exit;
mod limit;
mod moments;
mod open;
pub mod phase;

use std::{
    fs, io,
    ops::ControlFlow,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use berth::{
    bundle::{self, ExitRecord},
    failpoint,
    ids::{ContainerId, ExecId, Namespace},
    ttrpc::{Code, Status},
};
use nix::libc::SIGKILL;
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

pub use self::phase::{Event, Phase, Verb};
use self::{
    answer::{answer, internal, status},
    call::{AddExec, Call, Change, Create, Reply, Signal, Streams, View, Whose},
    execs::{Execs, Happened},
    limit::TimeLimit,
    moments::{answers_are_written, exited, output_ended},
    open::runtime_stdio,
};
use crate::{
    cgroup::Placement,
    io::{
        attach::{self, Client},
        diag,
        stdio::Stdio,
    },
    kernel::{identity, memory, watch::watch_process},
    runtime::{self, Container, Kind, stats::Stats},
};

/// How long a process that isn't the container's own any more may keep its
/// output open after the end.
const GRACE: Duration = Duration::from_secs(2);

/// Clients that may wait for the container to be made.
const EARLY_CLIENTS: usize = 16;

/// Whose supervisor this is.
#[derive(Debug)]
pub struct Identity {
    /// The container's namespace.
    pub namespace: Namespace,
    /// The container's id.
    pub id: ContainerId,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// The cgroup that its cgroups are made in.
    pub cgroup_parent: String,
}

impl Identity {
    /// Where its cgroups are.
    ///
    /// # Errors
    /// For a parent that is no plain path.
    pub fn cgroups(&self) -> runtime::Result<Placement> {
        Placement::below(&self.cgroup_parent, &format!("{}-{}", self.namespace, self.id))
    }
}

/// All state of the shim.
#[derive(Debug)]
pub struct Supervisor {
    me: Identity,
    phase: Phase,
    /// From Create on, until Delete.
    task: Option<Task>,
    /// Outlives the container: its clients may be slow.
    stdio: Option<Stdio>,
    /// When the output of an ended container is cut off.
    grace: Option<Instant>,
    /// The record is written, the cgroups are still there.
    cleanup_due: bool,
    /// Making the container took memory that nobody needs any more.
    trim_due: bool,
    waits: Vec<Reply<ExitRecord>>,
    deletes: Vec<Reply<ExitRecord>>,
    early_clients: Vec<Client>,
    execs: Execs,
    limit: TimeLimit,
    shutdown: bool,
    /// Pumps, clients and pipes of `stdio`.
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Task {
    container: Container,
    /// The first process's, watched.
    pidfd: AsyncFd<OwnedFd>,
    pid: u32,
    streams: Streams,
}

/// Something that happened.
#[derive(Debug)]
enum Action {
    Call(Call),
    Exited,
    OutputEnded,
    Exec(Happened),
    GraceOver,
    /// It has run as long as it may.
    TimeOver,
    /// Answers are out: time for what nobody waits for.
    Idle,
    /// A task of `tasks` has ended.
    Joined,
    /// Nobody can call any more.
    Abandoned,
}

impl Supervisor {
    /// A supervisor without a container.
    #[must_use]
    pub fn new(me: Identity) -> Self {
        Self {
            me,
            phase: Phase::Empty,
            task: None,
            stdio: None,
            grace: None,
            cleanup_due: false,
            trim_due: false,
            waits: Vec::new(),
            deletes: Vec::new(),
            early_clients: Vec::new(),
            execs: Execs::default(),
            limit: TimeLimit::default(),
            shutdown: false,
            tasks: JoinSet::new(),
        }
    }

    /// Runs until the shim is to end, then lets slow clients take what waits
    /// for them.
    pub async fn run(mut self, mut calls: mpsc::Receiver<Call>) {
        loop {
            let action = self.select(&mut calls).await;
            if self.apply(action).is_break() {
                break;
            }
        }
        drop(self.early_clients);
        self.waits.clear();
        let clients = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(attach::STALL, clients).await.is_err() {
            diag::warn(format_args!("a client has not taken all of the output; it is cut off"));
        }
    }

    async fn select(&mut self, calls: &mut mpsc::Receiver<Call>) -> Action {
        let alive = self.phase.is_alive();
        let ending = matches!(self.phase, Phase::Ending(_));
        tokio::select! {
            biased;
            () = exited(self.task.as_ref()), if alive => Action::Exited,
            () = output_ended(self.stdio.as_ref()), if ending => Action::OutputEnded,
            () = sleep_until(self.grace.unwrap_or_else(Instant::now)), if ending => Action::GraceOver,
            () = self.limit.over() => Action::TimeOver,
            Some(happened) = self.execs.next() => Action::Exec(happened),
            Some(call) = calls.recv() => Action::Call(call),
            Some(_) = self.tasks.join_next() => Action::Joined,
            () = answers_are_written(), if self.cleanup_due || self.trim_due => Action::Idle,
            else => Action::Abandoned,
        }
    }

    fn apply(&mut self, action: Action) -> ControlFlow<()> {
        match action {
            Action::Call(call) => self.call(call),
            Action::Exited => self.exited(),
            Action::OutputEnded | Action::GraceOver => self.output_taken(),
            Action::TimeOver => self.time_over(),
            Action::Exec(happened) => self.execs.happened(happened),
            Action::Idle => self.idle(),
            Action::Joined => {}
            Action::Abandoned => return ControlFlow::Break(()),
        }
        if self.shutdown && !self.phase.holds_process() && !self.execs.hold_process() && !self.cleanup_due {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn call(&mut self, call: Call) {
        match call {
            Call::Create(request, reply) => answer(reply, self.create(*request)),
            Call::Exec(request, reply) => answer(reply, self.add_exec(*request)),
            Call::Start(Whose::Init, reply) => answer(reply, self.start()),
            Call::Start(Whose::Exec(id), reply) => answer(reply, self.start_exec(&id)),
            Call::Kill(Whose::Init, signal, reply) => answer(reply, self.kill(signal)),
            Call::Kill(Whose::Exec(id), signal, reply) => answer(reply, self.execs.kill(&id, signal)),
            Call::Pause(reply) => answer(reply, self.pause()),
            Call::Resume(reply) => answer(reply, self.resume()),
            Call::Delete(Whose::Init, reply) => self.delete(reply),
            Call::Delete(Whose::Exec(id), reply) => self.execs.delete(&id, reply),
            Call::Wait(Whose::Init, reply) => self.wait(reply),
            Call::Wait(Whose::Exec(id), reply) => self.execs.wait(&id, reply),
            Call::State(Whose::Init, reply) => answer(reply, self.view()),
            Call::State(Whose::Exec(id), reply) => answer(reply, self.execs.view(&id)),
            Call::Pids(reply) => answer(reply, self.pids()),
            Call::ListExecs(reply) => answer(reply, Ok(self.execs.list())),
            Call::Stats(reply) => answer(reply, self.stats()),
            Call::Update(change, reply) => answer(reply, self.update(change)),
            Call::Resize(whose, size, reply) => {
                answer(reply, self.with_stdio(&whose, |stdio, _| stdio.resize(size)));
            }
            Call::CloseStdin(whose, reply) => answer(reply, self.with_stdio(&whose, Stdio::close_stdin)),
            Call::Shutdown { now, reply } => answer(reply, self.shut_down(now)),
            Call::Attach(client) => self.attach(client),
        }
    }

    // --- what callers ask for ---

    fn create(&mut self, request: Create) -> Result<u32, Status> {
        self.permit(Verb::Create)?;
        failpoint::pass("shim.create.asked");
        self.limit = TimeLimit::of(request.limit);
        let task = self.make(request)?;
        let pid = task.pid;
        self.task = Some(task);
        self.happened(Event::Created);
        for client in std::mem::take(&mut self.early_clients) {
            self.attach(client);
        }
        Ok(pid)
    }

    fn make(&mut self, request: Create) -> Result<Task, Status> {
        let spec = self.read_spec()?;
        let mut streams = Stdio::new(request.stdio);
        let stdio = runtime_stdio(&mut streams)?;
        let mut container = runtime::create(runtime::Create {
            id: self.me.id.as_str(),
            bundle: &self.me.bundle,
            spec,
            rootfs: &request.rootfs,
            user: &request.user,
            filter: &request.filter,
            cgroups: &self.me.cgroups().map_err(|e| status(&e))?,
            stdio,
            lifetime: runtime::Lifetime::Bound,
            preserve_fds: 0,
            keyring: runtime::Keyring::New,
            no_pivot: false,
            init: request.init,
        })
        .map_err(|e| status(&e))?;
        failpoint::pass("shim.create.ready");
        container.warnings().iter().for_each(|warning| diag::warn(format_args!("{warning}")));
        let mut tasks = JoinSet::new();
        match self.adopt(&mut container, &mut streams, &mut tasks) {
            Ok(pidfd) => {
                failpoint::pass("shim.create.noted");
                self.stdio = Some(streams);
                self.tasks = tasks;
                Ok(Task { pid: container.pid(), container, pidfd, streams: request.streams })
            }
            Err(e) => {
                if let Err(e) = container.destroy() {
                    diag::warn(format_args!("undo the container: {e}"));
                }
                end_hooks(&container);
                Err(internal("set up the container", &e))
            }
        }
    }

    fn read_spec(&self) -> Result<oci_spec::runtime::Spec, Status> {
        let path = self.me.bundle.join(bundle::CONFIG);
        let text = fs::read(&path).map_err(|e| internal(&format!("read {}", path.display()), &e))?;
        let read = runtime::spec::read(&text).map_err(|e| status(&e))?;
        for warning in &read.warnings {
            diag::warn(format_args!("{warning}"));
        }
        Ok(read.value)
    }

    /// Watches a container that was made, and writes down whose process it is.
    fn adopt(
        &self,
        container: &mut Container,
        stdio: &mut Stdio,
        tasks: &mut JoinSet<()>,
    ) -> io::Result<AsyncFd<OwnedFd>> {
        let identity = identity::identify(container.pid(), container.pidfd())?;
        bundle::write_record(&self.me.bundle, bundle::INIT_RECORD, &identity)?;
        let pidfd = watch_process(container.pidfd().try_clone_to_owned()?)?;
        stdio.connect(container.take_console(), tasks)?;
        Ok(pidfd)
    }

    fn add_exec(&mut self, request: AddExec) -> Result<(), Status> {
        self.permit(Verb::Exec)?;
        self.execs.add(request)
    }

    fn start_exec(&mut self, id: &ExecId) -> Result<u32, Status> {
        self.permit(Verb::Exec)?;
        let spec = self.read_spec()?;
        let cgroups = self.me.cgroups().map_err(|e| status(&e))?;
        let no_task = || Status::new(Code::Internal, "a container without a process");
        let task = self.task.as_ref().ok_or_else(no_task)?;
        let target = runtime::Target {
            id: self.me.id.as_str(),
            bundle: &self.me.bundle,
            pid: task.pid,
            pidfd: task.pidfd.get_ref().as_fd(),
            spec: &spec,
            cgroups: &cgroups,
        };
        failpoint::pass("shim.exec.asked");
        let pid = self.execs.start(id, target, &mut self.tasks)?;
        failpoint::pass("shim.exec.executed");
        self.trim_due = true;
        Ok(pid)
    }

    fn start(&mut self) -> Result<u32, Status> {
        let task = self.task(Verb::Start)?;
        failpoint::pass("shim.start.asked");
        task.container.start().map_err(|e| status(&e))?;
        failpoint::pass("shim.start.executed");
        let pid = task.pid;
        self.happened(Event::Started);
        self.limit.begin();
        self.trim_due = true;
        Ok(pid)
    }

    fn kill(&mut self, signal: Signal) -> Result<(), Status> {
        failpoint::pass("shim.kill.asked");
        self.task(Verb::Kill)?.container.kill(signal.number, signal.all).map_err(|e| status(&e))
    }

    fn pause(&mut self) -> Result<(), Status> {
        failpoint::pass("shim.pause.asked");
        self.task(Verb::Pause)?.container.pause().map_err(|e| status(&e))?;
        failpoint::pass("shim.pause.frozen");
        self.happened(Event::Paused);
        Ok(())
    }

    fn resume(&mut self) -> Result<(), Status> {
        self.task(Verb::Resume)?.container.resume().map_err(|e| status(&e))?;
        self.happened(Event::Resumed);
        Ok(())
    }

    fn delete(&mut self, reply: Reply<ExitRecord>) {
        if let Err(status) = self.permit(Verb::Delete) {
            return answer(reply, Err(status));
        }
        self.deletes.push(reply);
        if self.phase == Phase::Created {
            self.kill_all();
        }
        if matches!(self.phase, Phase::Stopped(_)) && !self.cleanup_due {
            self.delete_now();
        }
    }

    fn wait(&mut self, reply: Reply<ExitRecord>) {
        // Callers that went away in the meantime leave their place.
        self.waits.retain(|other| !other.is_closed());
        match (&self.phase, self.permit(Verb::Ask)) {
            (_, Err(status)) => answer(reply, Err(status)),
            (Phase::Stopped(record), _) => answer(reply, Ok(record.clone())),
            _ => self.waits.push(reply),
        }
    }

    fn view(&mut self) -> Result<View, Status> {
        let phase = self.phase.clone();
        let task = self.task(Verb::Ask)?;
        Ok(View { phase, pid: task.pid, streams: task.streams.clone() })
    }

    fn pids(&mut self) -> Result<Vec<u32>, Status> {
        let alive = self.phase.is_alive();
        let task = self.task(Verb::Ask)?;
        if !alive {
            return Ok(Vec::new());
        }
        task.container.pids().map_err(|e| status(&e))
    }

    fn stats(&mut self) -> Result<Stats, Status> {
        self.task(Verb::Measure)?.container.stats().map_err(|e| status(&e))
    }

    fn update(&mut self, change: Change) -> Result<(), Status> {
        failpoint::pass("shim.update.asked");
        let limits = match change {
            Change::Resources(limits) => limits,
            Change::Log(log) => return self.with_stdio(&Whose::Init, |stdio, _| stdio.output().set_log(log)),
        };
        let warnings = self.task(Verb::Measure)?.container.update(&limits).map_err(|e| status(&e))?;
        warnings.iter().for_each(|warning| diag::warn(format_args!("{warning}")));
        Ok(())
    }

    fn with_stdio(
        &mut self,
        whose: &Whose,
        f: impl FnOnce(&mut Stdio, &mut JoinSet<()>),
    ) -> Result<(), Status> {
        self.permit(Verb::Ask)?;
        let tasks = &mut self.tasks;
        match (whose, &mut self.stdio) {
            (Whose::Exec(id), _) => self.execs.with_stdio(id, |stdio| f(stdio, tasks)),
            (Whose::Init, Some(stdio)) => {
                f(stdio, tasks);
                Ok(())
            }
            (Whose::Init, None) => Ok(()),
        }
    }

    fn shut_down(&mut self, now: bool) -> Result<(), Status> {
        self.shutdown = true;
        if now && self.phase.is_alive() {
            self.kill_all();
        }
        Ok(())
    }

    fn attach(&mut self, client: Client) {
        if !client.exec_id().is_empty() {
            if let Err((client, why)) = self.execs.attach(client) {
                self.tasks.spawn_local(async move { client.refuse(&why).await });
            }
            return;
        }
        match &self.stdio {
            Some(stdio) => {
                let serving = stdio.attach(client);
                self.tasks.spawn_local(async move {
                    // Its leaving changes nothing.
                    let _ = serving.await;
                });
            }
            None if self.early_clients.len() < EARLY_CLIENTS => self.early_clients.push(client),
            None => diag::warn(format_args!("attach: too many clients wait for the container to be made")),
        }
    }

    // --- what happens to the container ---

    fn exited(&mut self) {
        let Some(task) = &self.task else { return };
        let record = match exit::reap(task.pidfd.get_ref().as_fd(), task.pid) {
            Ok(Some(record)) => record,
            Ok(None) => return,
            Err(e) => {
                diag::warn(format_args!("reap process {}: {e}; its exit code is lost", task.pid));
                ExitRecord {
                    pid: task.pid,
                    exit_code: u8::MAX,
                    exited_at: bundle::now_nanos(),
                    oom_killed: false,
                }
            }
        };
        failpoint::pass("shim.exit.reaped");
        self.happened(Event::Exited(record));
        self.limit.end();
        let ended = self.stdio.as_ref().is_none_or(|stdio| {
            stdio.output().sweep();
            stdio.output().has_ended()
        });
        if ended {
            return self.output_taken();
        }
        // Without a pid namespace of their own the others live on.
        self.kill_all();
        self.grace = Some(Instant::now() + GRACE);
    }

    fn time_over(&mut self) {
        self.limit.end();
        self.kill_all();
    }

    fn output_taken(&mut self) {
        let (Phase::Ending(record), Some(task)) = (&self.phase, &self.task) else { return };
        let record = ExitRecord { oom_killed: task.container.oom_killed(), ..record.clone() };
        self.grace = None;
        if let Some(stdio) = &mut self.stdio {
            stdio.output().sweep();
            stdio.end();
        }
        if let Err(e) = bundle::write_record(&self.me.bundle, bundle::EXIT_RECORD, &record) {
            diag::warn(format_args!("write {}: {e}", bundle::EXIT_RECORD));
        }
        failpoint::pass("shim.exit.recorded");
        self.happened(Event::Recorded(record.clone()));
        self.cleanup_due = true;
        for wait in self.waits.drain(..) {
            answer(wait, Ok(record.clone()));
        }
    }

    fn idle(&mut self) {
        if std::mem::take(&mut self.cleanup_due) {
            self.clean_up();
        }
        if std::mem::take(&mut self.trim_due) {
            memory::trim();
        }
    }

    fn clean_up(&mut self) {
        if let Some(Err(e)) = self.task.as_mut().map(|task| task.container.cleanup()) {
            diag::warn(format_args!("clean up: {e}"));
        }
        failpoint::pass("shim.delete.cleaned");
        self.delete_now();
    }

    /// Answers those who want the container gone.
    fn delete_now(&mut self) {
        let Phase::Stopped(record) = self.phase.clone() else { return };
        if self.deletes.is_empty() {
            return;
        }
        let task = self.task.take();
        if let Some(task) = task {
            end_hooks(&task.container);
        }
        self.happened(Event::Deleted);
        failpoint::pass("shim.delete.done");
        for delete in self.deletes.drain(..) {
            answer(delete, Ok(record.clone()));
        }
    }

    // --- small change ---

    fn kill_all(&self) {
        let Some(task) = &self.task else { return };
        match task.container.kill(SIGKILL, true) {
            Err(e) if e.kind() != Kind::NotRunning => diag::warn(format_args!("kill what is left: {e}")),
            _ => {}
        }
    }

    fn permit(&self, verb: Verb) -> Result<(), Status> {
        self.phase.permit(verb, format_args!("container {}", self.me.id))
    }

    fn task(&mut self, verb: Verb) -> Result<&mut Task, Status> {
        self.permit(verb)?;
        self.task.as_mut().ok_or_else(|| Status::new(Code::Internal, "a container without a process"))
    }

    fn happened(&mut self, event: Event) {
        self.phase = std::mem::replace(&mut self.phase, Phase::Empty).after(event);
    }
}

/// Runs the hooks of the end.
fn end_hooks(container: &Container) {
    for failure in container.poststop() {
        diag::warn(format_args!("{failure}"));
    }
}
