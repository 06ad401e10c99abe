// SPDX-License-Identifier: Apache-2.0
//! The cgroups of one container, in whichever hierarchies the host has.

use std::{
    cell::RefCell,
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::errno::Errno;

use super::{
    Layout, Placement, Resources,
    devices::Policy,
    fs,
    systemd::{Keeper, Scope},
    tree, v1, v2,
};
use crate::{
    kernel::{SysError, process},
    runtime::{Error, Kind, Result},
};

/// How long processes may take to die after SIGKILL before it is an error:
/// more than a dump or a slow disk takes, and never for ever.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// How long processes may take to stop or go on.
const FROZEN_WITHIN: Duration = Duration::from_secs(2);

/// What a container is limited by.
#[derive(Debug)]
pub struct Limits<'a> {
    /// Numbers.
    pub resources: &'a Resources,
    /// Devices.
    pub devices: &'a Policy,
}

/// The cgroups of one container.
#[derive(Debug)]
pub struct Group {
    /// The v2 directory.
    pub(super) unified: Option<PathBuf>,
    /// What it has of the v1 hierarchies.
    pub(super) v1: Vec<v1::Member>,
    pub(super) layout: Layout,
    placement: Placement,
    /// The v2 directory was chosen by name.
    pub(super) placed: bool,
    /// Holds a new unit's place until a process has entered.
    keeper: RefCell<Option<Keeper>>,
}

impl Group {
    /// Makes them, with their limits, and empty. Warnings tell what the host
    /// can't limit.
    ///
    /// # Errors
    /// When a limit can't be set; then nothing is left.
    pub fn make(
        layout: &Layout,
        placement: &Placement,
        limits: &Limits<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<Self> {
        let all = Self::find(layout, placement);
        if all.all().any(Path::exists) {
            all.vacate()?;
        }
        let mut group = Self { v1: Vec::new(), ..all };
        match group.fill(limits, warnings) {
            Ok(()) => Ok(group),
            Err(e) => {
                drop(group);
                // The first error is the one to report.
                let _ = Self::find(layout, placement).remove();
                Err(e)
            }
        }
    }

    /// Makes a place free that is taken. Only a container of the same name,
    /// whose shim was killed, can have left what is in ours; in a place that
    /// the specification names, others' processes are none of our business.
    fn vacate(&self) -> Result<()> {
        if self.placement.is_exclusive() {
            return self.remove();
        }
        // What is put in would never run.
        let by_v1 =
            self.v1_dir(v1::Controller::Freezer).and_then(|dir| fs::number(dir, "freezer.self_freezing"));
        if self.is_frozen() || by_v1 == Some(1) {
            let path = self.placement.path().display();
            let why = format!("linux.cgroupsPath: container's cgroup unexpectedly frozen: {path}");
            return Err(Error::invalid(why));
        }
        match self.pids()?.len() {
            0 => Ok(()),
            n => Err(Error::invalid(format!(
                "linux.cgroupsPath: container's cgroup is not empty: {n} process(es) found in {}",
                self.placement.path().display()
            ))),
        }
    }

    fn fill(&mut self, limits: &Limits<'_>, warnings: &mut Vec<String>) -> Result<()> {
        if let Some(scope) = self.placement.scope() {
            self.keeper = RefCell::new(scope.start(&self.layout, limits.resources)?);
        }
        let path = self.placement.path();
        match &self.layout {
            Layout::V2(root) => {
                if !v2::make(root, path, limits, warnings)? {
                    self.unified = None;
                }
                Ok(())
            }
            Layout::V1 { root, .. } => {
                if let Some(dir) = &self.unified
                    && let Err(e) = fs::make(dir)
                {
                    if !fs::is_forbidden(dir) || !fs::is_unprivileged() {
                        return Err(e);
                    }
                    self.unified = None;
                }
                let by_systemd = self.placement.scope().is_some();
                let wanted = v1::Wanted { limits, unified: self.unified.as_deref(), by_systemd };
                self.v1 = v1::make(root, path, &wanted, warnings)?;
                Ok(())
            }
        }
    }

    /// Those that a container placed there has, whoever made them.
    #[must_use]
    pub fn find(layout: &Layout, placement: &Placement) -> Self {
        let path = placement.path();
        let (unified, v1) = match layout {
            Layout::V2(root) => (Some(root.join(path)), Vec::new()),
            Layout::V1 { root, unified } => {
                (unified.as_ref().map(|root| root.join(path)), v1::find(root, path))
            }
        };
        Self {
            unified,
            v1,
            layout: layout.clone(),
            placement: placement.clone(),
            placed: false,
            keeper: RefCell::default(),
        }
    }

    pub(super) fn unified_dir(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// The root of the v2 tree, where there is one.
    pub(super) fn unified_root(&self) -> PathBuf {
        match &self.layout {
            Layout::V2(root) => root.clone(),
            Layout::V1 { root, unified } => unified.clone().unwrap_or_else(|| root.clone()),
        }
    }

    /// The v2 directory, to clone a process into.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn open_unified(&self) -> Result<Option<OwnedFd>> {
        let open = |dir: &PathBuf| {
            File::open(dir)
                .map(OwnedFd::from)
                .map_err(|e| SysError::from_io(format!("open({dir:?})"), &e).into())
        };
        self.unified.as_ref().map(open).transpose()
    }

    /// Puts a process into the v1 cgroups. The first of these attaches on a
    /// host waits some milliseconds in the kernel (for RCU): meanwhile the
    /// process does its own work.
    ///
    /// # Errors
    /// Those of the write.
    pub fn attach(&self, pid: u32) -> Result<()> {
        let pid = pid.to_string();
        let entered = |member: &&v1::Member| !member.entered;
        self.v1.iter().filter(entered).try_for_each(|member| fs::write(&member.dir, "cgroup.procs", &pid))?;
        drop(self.keeper.take());
        Ok(())
    }

    /// What a container sees below its /sys/fs/cgroup: a name, empty for v2
    /// alone, and the host's directory.
    #[must_use]
    pub fn view(&self) -> Vec<(String, PathBuf)> {
        if self.v1.is_empty() {
            return self.unified.iter().map(|dir| (String::new(), dir.clone())).collect();
        }
        let v1 = self.v1.iter().map(|member| (member.controller.name().to_owned(), member.dir.clone()));
        v1.chain(self.unified.iter().map(|dir| ("unified".to_owned(), dir.clone()))).collect()
    }

    /// All processes in them.
    ///
    /// # Errors
    /// Those of the read.
    pub fn pids(&self) -> Result<Vec<u32>> {
        match self.all().next() {
            Some(dir) => tree::processes(dir),
            None => Ok(Vec::new()),
        }
    }

    /// Whether the kernel has killed one of them for want of memory.
    #[must_use]
    pub fn oom_killed(&self) -> bool {
        match self.v1_dir(v1::Controller::Memory) {
            Some(dir) => v1::oom_kills(dir) > 0,
            None => self.unified.as_deref().is_some_and(|dir| v2::oom_kills(dir) > 0),
        }
    }

    /// Sends a signal to all processes. One that comes into being meanwhile
    /// may miss it, unless it is SIGKILL.
    ///
    /// # Errors
    /// Those of the calls; a process that has just ended is none.
    pub fn signal(&self, signal: i32) -> Result<()> {
        if signal == libc::SIGKILL {
            return self.kill();
        }
        self.pids()?.into_iter().try_for_each(|pid| self.signal_one(pid, signal))
    }

    fn signal_one(&self, pid: u32, signal: i32) -> Result<()> {
        let pidfd = match process::pidfd_open(pid) {
            Err(e) if matches!(e.errno(), Errno::ESRCH | Errno::EINVAL) => return Ok(()),
            result => result?,
        };
        match process::pidfd_send_signal(pidfd.as_fd(), signal) {
            Err(e) if e.errno() == Errno::ESRCH => Ok(()),
            result => Ok(result?),
        }
    }

    /// Sends SIGKILL to all processes: by the kernel at once (`cgroup.kill`,
    /// Linux 5.14), or one by one.
    fn kill(&self) -> Result<()> {
        if let Some(dir) = &self.unified {
            match fs::try_write(dir, "cgroup.kill", "1") {
                Err(e) if e.errno() == Errno::ENOENT => {}
                result => return Ok(result?),
            }
        }
        self.pids()?.into_iter().try_for_each(|pid| self.signal_one(pid, libc::SIGKILL))?;
        self.let_die()
    }

    /// Thaws v1's freezer, which holds even those that have been killed; v2
    /// lets them die.
    ///
    /// # Errors
    /// Those of the write.
    pub fn let_die(&self) -> Result<()> {
        match self.v1_dir(v1::Controller::Freezer) {
            Some(dir) if self.unified.is_none() && self.is_frozen() => v1::thaw(dir),
            _ => Ok(()),
        }
    }

    /// Stops all processes, or lets them go on: by `cgroup.freeze` where there
    /// is a v2 tree, else by v1's freezer.
    ///
    /// # Errors
    /// `Unsupported` on a host that has neither; when they don't stop in time.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let deadline = Instant::now() + FROZEN_WITHIN;
        let Some(dir) = &self.unified else {
            let freezer = self.v1_dir(v1::Controller::Freezer);
            let freezer = freezer.ok_or_else(|| {
                Error::new(Kind::Unsupported, "pausing needs cgroup v2 or v1's freezer: the host has neither")
            })?;
            return if frozen { v1::freeze(freezer, deadline) } else { v1::thaw(freezer) };
        };
        let digit = if frozen { "1" } else { "0" };
        fs::write(dir, "cgroup.freeze", digit)?;
        if fs::wait_for_event(dir, &format!("frozen {digit}"), deadline)? {
            return Ok(());
        }
        // One sleeps where nothing can stop it; the others shan't wait for it.
        fs::write(dir, "cgroup.freeze", "0")?;
        Err(Error::new(Kind::Os, format!("processes in {} do not stop", dir.display())))
    }

    /// Whether it is stopped, or being stopped.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        let has = |dir: &Path, file, text: &str| fs::read(dir, file).is_ok_and(|t| t.trim() == text);
        match (&self.unified, self.v1_dir(v1::Controller::Freezer)) {
            (Some(dir), _) => has(dir, "cgroup.freeze", "1"),
            (None, Some(dir)) => has(dir, "freezer.self_freezing", "1"),
            (None, None) => false,
        }
    }

    /// Changes the limits of a container that runs; what isn't set stays. A
    /// hierarchy that it wasn't in so far is entered by all its processes.
    ///
    /// # Errors
    /// When the kernel refuses one of them: those before it are in force.
    pub fn update(
        &mut self,
        resources: &Resources,
        devices: Option<&Policy>,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let path = self.placement.path();
        if let Some(scope) = self.placement.scope() {
            scope.update(&self.layout, resources)?;
        }
        match &self.layout {
            Layout::V2(root) => v2::update(root, path, resources, devices, warnings),
            Layout::V1 { root, .. } => {
                let joined = v1::update(root, path, &mut self.v1, resources, devices, warnings)?;
                joined.iter().try_for_each(|dir| self.enter(dir))
            }
        }
    }

    /// Moves all processes into one more hierarchy, until none is new.
    fn enter(&self, dir: &Path) -> Result<()> {
        loop {
            let inside = tree::processes(dir)?;
            let outside: Vec<_> = self.pids()?.into_iter().filter(|pid| !inside.contains(pid)).collect();
            if outside.is_empty() {
                return Ok(());
            }
            for pid in outside {
                match fs::try_write(dir, "cgroup.procs", &pid.to_string()) {
                    Err(e) if e.errno() == Errno::ESRCH => {}
                    result => result?,
                }
            }
        }
    }

    /// Kills what is left in them, and removes them. `Ok` when there are none.
    ///
    /// # Errors
    /// When a process doesn't die within ten seconds.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + EMPTY_WITHIN;
        // A process of ours is for us to reap.
        drop(self.keeper.take());
        // Nearly always: the kernel says itself that nothing is in them.
        if self.placement.scope().is_none() && self.all().all(|dir| std::fs::remove_dir(dir).is_ok()) {
            return Ok(());
        }
        self.empty(deadline)?;
        self.placement.scope().map_or(Ok(()), Scope::stop)?;
        self.all().try_for_each(|dir| tree::remove(dir, deadline))
    }

    fn empty(&self, deadline: Instant) -> Result<()> {
        // Every hierarchy counts: one process may be in only some of them.
        for dir in self.all() {
            let mut first = true;
            loop {
                let pids = tree::processes(dir)?;
                if pids.is_empty() {
                    break;
                }
                if Instant::now() >= deadline {
                    let why = format!("processes {pids:?} in {} do not end after SIGKILL", dir.display());
                    return Err(Error::new(Kind::Os, why));
                }
                if first {
                    self.kill()?;
                    first = false;
                }
                pids.into_iter().try_for_each(|pid| self.signal_one(pid, libc::SIGKILL))?;
                self.wait_for_change(deadline);
            }
        }
        Ok(())
    }

    /// Waits until the v2 directory says that it is empty, a millisecond where
    /// nothing can say so.
    fn wait_for_change(&self, deadline: Instant) {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        use std::io::Read as _;
        let events = self.unified.as_ref().and_then(|dir| File::open(dir.join("cgroup.events")).ok());
        let Some(mut events) = events else { return fs::pause() };
        let mut text = String::new();
        if events.read_to_string(&mut text).is_err() || text.contains("populated 0") {
            return fs::pause();
        }
        let left = deadline.saturating_duration_since(Instant::now()).min(Duration::from_millis(50));
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        // Woken or not, the caller looks again.
        let _ = poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLPRI)], timeout);
    }

    /// The v2 directory.
    pub(super) fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    pub(super) fn v1_dir(&self, controller: v1::Controller) -> Option<&Path> {
        self.v1.iter().find(|member| member.controller == controller).map(|member| member.dir.as_path())
    }

    fn all(&self) -> impl Iterator<Item = &Path> {
        self.unified.iter().map(PathBuf::as_path).chain(self.v1.iter().map(|member| member.dir.as_path()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hybrid(dir: &Path) -> Layout {
        for name in ["memory", "pids", "unified"] {
            std::fs::create_dir(dir.join(name)).expect("mkdir");
            std::fs::write(dir.join(name).join("cgroup.procs"), "").expect("write");
        }
        Layout::V1 { root: dir.to_owned(), unified: Some(dir.join("unified")) }
    }

    fn at(name: &str) -> Placement {
        Placement::below("/berth", name).expect("placement")
    }

    #[test]
    fn made_seen_and_removed() {
        let dir = tempfile::tempdir().expect("tempdir");
        let layout = hybrid(dir.path());
        let devices = Policy { allow: true, exceptions: Vec::new() };
        let limits = Limits { resources: &Resources::default(), devices: &devices };
        let group = Group::make(&layout, &at("default-x"), &limits, &mut Vec::new()).expect("make");
        let view = group.view();
        let names: Vec<_> = view.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["memory", "pids", "unified"]);
        assert!(view.iter().all(|(_, dir)| dir.ends_with("berth/default-x") && dir.is_dir()));
        assert!(!group.oom_killed());
        group.remove().expect("remove");
        assert!(view.iter().all(|(_, dir)| !dir.exists()));
        group.remove().expect("again");
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let dir = tempfile::tempdir().expect("tempdir");
        let layout = hybrid(dir.path());
        let limits = Limits { resources: &Resources::default(), devices: &Policy::container() };
        Group::make(&layout, &at("x"), &limits, &mut Vec::new()).expect_err("no devices controller");
        assert!(!dir.path().join("unified/berth/x").exists());
    }

    /// A host without a v2 tree, played by one that has both.
    fn pure_v1() -> Option<Layout> {
        let root = PathBuf::from("/sys/fs/cgroup");
        let usable = ["freezer", "cpuacct"].iter().all(|name| root.join(name).join("cgroup.procs").exists());
        if !nix::unistd::geteuid().is_root() || !usable {
            println!("skipped: needs root and v1's freezer");
            return None;
        }
        Some(Layout::V1 { root, unified: None })
    }

    #[test]
    fn without_a_v2_tree_the_freezer_stops_and_is_thawed_to_kill() {
        let Some(layout) = pure_v1() else { return };
        let placement =
            Placement::below("", &format!("berth-freezer-test-{}", std::process::id())).expect("path");
        let devices = Policy { allow: true, exceptions: Vec::new() };
        let limits = Limits { resources: &Resources::default(), devices: &devices };
        let group = Group::make(&layout, &placement, &limits, &mut Vec::new()).expect("make");
        let spawn =
            || std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("sh");
        let mut children = [spawn(), spawn()];
        for child in &children {
            group.attach(child.id()).expect("attach");
        }
        group.freeze(true).expect("freeze");
        assert!(group.is_frozen());
        let used = || group.stats().expect("stats").cpu.usage;
        let before = used();
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(50) {
            std::thread::yield_now();
        }
        assert_eq!(used(), before, "nothing runs");
        // As a container with a v1 tree of its own may have done.
        let below = group.v1_dir(v1::Controller::Freezer).expect("freezer").join("below");
        std::fs::create_dir(&below).expect("mkdir");
        fs::write(&below, "cgroup.procs", &children[1].id().to_string()).expect("move");
        fs::write(&below, "freezer.state", "FROZEN").expect("freeze below");
        group.freeze(false).expect("thaw");
        assert!(!group.is_frozen());
        group.freeze(true).expect("freeze again");
        group.remove().expect("frozen processes are killed");
        for child in &mut children {
            assert!(!child.wait().expect("wait").success());
        }
    }

    const UNPRIVILEGED: &str = "BERTH_TEST_UNPRIVILEGED";

    /// Runs as another user, started by the test below.
    #[test]
    fn unprivileged() {
        if std::env::var_os(UNPRIVILEGED).is_none() {
            return;
        }
        let layout = Layout::of_host().expect("layout");
        let placement = Placement::below("", "berth-unprivileged-test").expect("path");
        let devices = Policy::container();
        let mut warnings = Vec::new();
        let limits = Limits { resources: &Resources::default(), devices: &devices };
        let group = Group::make(&layout, &placement, &limits, &mut warnings).expect("no limit is asked for");
        assert!(warnings.len() == 1 && group.view().is_empty(), "{warnings:?} {group:?}");
        assert!(group.pids().expect("pids").is_empty());
        group.attach(std::process::id()).expect("nothing to enter");
        assert_eq!(group.freeze(true).expect_err("nothing to freeze").kind(), Kind::Unsupported);
        group.remove().expect("nothing to remove");
        let resources = Resources { pids: Some(super::super::Limit::At(1)), ..Resources::default() };
        let limits = Limits { resources: &resources, devices: &devices };
        let e = Group::make(&layout, &placement, &limits, &mut warnings).expect_err("a limit is");
        assert_eq!(e.kind(), Kind::Unsupported);
        assert!(e.to_string().starts_with("linux.resources.pids: "), "{e}");
    }

    #[test]
    fn a_user_without_delegation_gets_a_container_without_limits() {
        use std::os::unix::process::CommandExt as _;
        let program = std::env::current_exe().expect("this test");
        let readable = nix::unistd::geteuid().is_root() && Layout::of_host().is_ok();
        let mut command = std::process::Command::new(program);
        command.args(["--exact", "cgroup::group::tests::unprivileged"]).env(UNPRIVILEGED, "1");
        command.uid(65_534).gid(65_534).current_dir("/");
        if !readable {
            return println!("skipped: needs root, and cgroups");
        }
        match command.output() {
            Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
                println!("skipped: other users can't execute this test");
            }
            output => {
                let output = output.expect("run");
                assert!(output.status.success(), "{output:?}");
            }
        }
    }
}
