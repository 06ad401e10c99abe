// SPDX-License-Identifier: Apache-2.0
//! A container's transient unit: started around a process that keeps its
//! place until the container's first process is there, changed, and stopped.

use std::{convert::Infallible, os::fd::AsFd as _};

use nix::sys::{
    prctl,
    signal::Signal,
    wait::{Id, WaitPidFlag, waitid},
};

use super::{
    bus::{Bus, Refusal, users_socket},
    properties::{self, Names},
    scope::{Manager, Scope},
    wire::{Value, Writer},
};
use crate::{
    cgroup::{Layout, Resources, placement},
    kernel::{process, process::Child},
    runtime::{Error, Kind, Result},
};

/// A process that does nothing: a scope can't be without one. It ends when
/// this value does, and when its parent does.
#[derive(Debug)]
pub(in crate::cgroup) struct Keeper(Child);

impl Keeper {
    fn new() -> Result<Self> {
        Ok(Self(process::clone3(0, None, keep)?))
    }
}

fn keep() -> Infallible {
    // Without it, it would outlive a parent that is killed: nothing is
    // waited for then.
    if prctl::set_pdeathsig(Signal::SIGKILL).is_err() {
        return process::exit_now(1);
    }
    // What the parent has open shall be closed when the parent closes it.
    if process::close_from(0, process::CloseRange::Now).is_err() {
        return process::exit_now(1);
    }
    loop {
        nix::unistd::pause();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // It can only have ended already.
        let _ = process::pidfd_send_signal(self.0.pidfd.as_fd(), libc::SIGKILL);
        while waitid(Id::PIDFd(self.0.pidfd.as_fd()), WaitPidFlag::WEXITED) == Err(nix::errno::Errno::EINTR) {
        }
    }
}

impl Scope {
    /// As [`Scope::new`], of the system, or of the caller's own manager.
    pub(in crate::cgroup) fn parse(cgroups_path: &str, name: &str, user: bool) -> Result<Self> {
        let manager = if user {
            let socket = users_socket();
            let own = Bus::connect(&socket)?.manager_property("ControlGroup")?;
            Manager::User { cgroup: placement::names(own.as_ref()).unwrap_or_default(), socket }
        } else {
            Manager::System
        };
        Self::new(cgroups_path, name, manager)
    }

    /// Starts the unit. A failed one of the same name, which nobody has
    /// cleared away, is.
    ///
    /// # Errors
    /// When systemd refuses, or there is such a unit.
    pub(in crate::cgroup) fn start(&self, layout: &Layout, resources: &Resources) -> Result<Option<Keeper>> {
        let keeper = if self.is_slice() { None } else { Some(Keeper::new()?) };
        let mut properties = self.properties(keeper.as_ref(), layout);
        properties.extend(properties::of(resources, names(layout))?);
        let mut bus = Bus::of(&self.manager)?;
        let mut answer = self.start_transient(&mut bus, &properties)?;
        if answer.as_ref().is_err_and(|refusal| refusal.is("UnitExists")) {
            self.reset_failed(&mut bus)?;
            answer = self.start_transient(&mut bus, &properties)?;
        }
        let job = match answer {
            Err(refusal) if refusal.is("UnitExists") && self.is_slice() => return Ok(keeper),
            answer => answer.map_err(|refusal| self.refused("start", &refusal))?,
        };
        match bus.wait_for_job(&job)?.as_str() {
            "done" => Ok(keeper),
            result => {
                self.reset_failed(&mut bus)?;
                Err(Error::new(Kind::Os, format!("start the systemd unit {}: {result}", self.unit)))
            }
        }
    }

    fn start_transient(
        &self,
        bus: &mut Bus,
        properties: &[(&str, Value)],
    ) -> Result<std::result::Result<String, Refusal>> {
        let mut arguments = Writer::default();
        arguments.text(&self.unit);
        arguments.text("replace");
        arguments.properties(properties);
        arguments.no_other_units();
        let answer = bus.call("StartTransientUnit", "ssa(sv)a(sa(sv))", arguments)?;
        Ok(answer.map(|message| message.body().text().unwrap_or_default().to_owned()))
    }

    /// What a container's unit is, whatever its limits. Counting is on: memory
    /// that was taken before could never be counted later.
    fn properties(&self, keeper: Option<&Keeper>, layout: &Layout) -> Vec<(&'static str, Value)> {
        let mut all = vec![
            ("Description", Value::Text(format!("berth container {}", self.unit))),
            ("DefaultDependencies", Value::Bool(false)),
            ("MemoryAccounting", Value::Bool(true)),
            ("CPUAccounting", Value::Bool(true)),
            ("TasksAccounting", Value::Bool(true)),
        ];
        let io = match names(layout) {
            Names::V1 => "BlockIOAccounting",
            Names::V2 => "IOAccounting",
        };
        all.push((io, Value::Bool(true)));
        match keeper {
            Some(keeper) => all.extend([
                ("Slice", Value::Text(self.slice.clone())),
                // Below it, the cgroups are the container's.
                ("Delegate", Value::Bool(true)),
                ("CollectMode", Value::Text("inactive-or-failed".to_owned())),
                ("PIDs", Value::U32s(vec![keeper.0.pid])),
            ]),
            None => all.push(("Wants", Value::Texts(vec![self.slice.clone()]))),
        }
        all
    }

    /// Tells systemd new limits, which it writes, too.
    ///
    /// # Errors
    /// When it refuses.
    pub(in crate::cgroup) fn update(&self, layout: &Layout, resources: &Resources) -> Result<()> {
        let properties = properties::of(resources, names(layout))?;
        if properties.is_empty() {
            return Ok(());
        }
        let mut arguments = Writer::default();
        arguments.text(&self.unit);
        // Gone with the unit.
        arguments.bool(true);
        arguments.properties(&properties);
        let answer = Bus::of(&self.manager)?.call("SetUnitProperties", "sba(sv)", arguments)?;
        answer.map(drop).map_err(|refusal| self.refused("change", &refusal))
    }

    /// Stops the unit, whose processes have ended. `Ok` when there is none.
    ///
    /// # Errors
    /// When systemd refuses.
    pub(in crate::cgroup) fn stop(&self) -> Result<()> {
        let mut bus = Bus::of(&self.manager)?;
        let mut arguments = Writer::default();
        arguments.text(&self.unit);
        arguments.text("replace");
        match bus.call("StopUnit", "ss", arguments)? {
            Err(refusal) if refusal.is("NoSuchUnit") => return Ok(()),
            Err(refusal) => return Err(self.refused("stop", &refusal)),
            Ok(message) => {
                let job = message.body().text().unwrap_or_default().to_owned();
                // Whichever way it ended, it has.
                bus.wait_for_job(&job)?;
            }
        }
        self.reset_failed(&mut bus)
    }

    /// A unit that isn't failed is none to be reset.
    fn reset_failed(&self, bus: &mut Bus) -> Result<()> {
        let mut arguments = Writer::default();
        arguments.text(&self.unit);
        bus.call("ResetFailedUnit", "s", arguments).map(drop)
    }

    fn refused(&self, verb: &str, refusal: &Refusal) -> Error {
        let Refusal { name, message } = refusal;
        let kind = if refusal.is("UnitExists") { Kind::InvalidSpec } else { Kind::Os };
        Error::new(kind, format!("{verb} the systemd unit {}: {message} ({name})", self.unit))
    }
}

fn names(layout: &Layout) -> Names {
    match layout {
        Layout::V2(_) => Names::V2,
        Layout::V1 { .. } => Names::V1,
    }
}
