// SPDX-License-Identifier: Apache-2.0
//! Where a container is in its life: pure, nothing here touches the kernel.
//!
//! ```text
//! Empty ─► Created ─► Running ⇄ Paused
//!             │          │        │
//!             └──────────┴────────┴─► Ending ─► Stopped ─► Deleted
//! ```

use std::fmt;

use berth::{
    bundle::ExitRecord,
    ttrpc::{Code, Status},
};

/// A moment of a container's life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Nothing was made yet, or making it failed.
    Empty,
    /// Everything is set up, the program isn't executed yet.
    Created,
    /// The program runs.
    Running,
    /// It is frozen.
    Paused,
    /// The first process has ended; its output is still being taken over and
    /// nobody was told.
    Ending(ExitRecord),
    /// The exit record is on disk and everybody may know.
    Stopped(ExitRecord),
    /// Nothing is left of it.
    Deleted,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Make the container.
    Create,
    /// Execute its program.
    Start,
    /// Send a signal.
    Kill,
    /// Freeze it.
    Pause,
    /// Thaw it.
    Resume,
    /// Free what it held.
    Delete,
    /// Read its counters, change its limits.
    Measure,
    /// Put another process into it.
    Exec,
    /// Ask about it, talk to its streams, wait for its end.
    Ask,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// It was made.
    Created,
    /// Its program runs.
    Started,
    /// It was frozen.
    Paused,
    /// It was thawed.
    Resumed,
    /// Its first process has ended.
    Exited(ExitRecord),
    /// The exit record is written: this is what it says.
    Recorded(ExitRecord),
    /// Nothing is left of it.
    Deleted,
}

impl Phase {
    /// Whether `verb` can be done to `what` now.
    ///
    /// # Errors
    /// The status to answer. A signal to a process that has ended is
    /// `NotFound`, as containerd's clients expect it.
    pub fn permit(&self, verb: Verb, what: impl fmt::Display) -> Result<(), Status> {
        use Phase::{Created, Deleted, Empty, Ending, Paused, Running, Stopped};
        let refuse = |code, why: &str| Err(Status::new(code, format!("{what} {why}")));
        match (verb, self) {
            (Verb::Create, Empty)
            | (Verb::Start, Created)
            | (Verb::Pause, Running)
            | (Verb::Resume, Paused)
            | (Verb::Exec, Created | Running)
            | (Verb::Kill | Verb::Measure, Created | Running | Paused)
            | (Verb::Delete, Created | Ending(_) | Stopped(_))
            | (Verb::Ask, Created | Running | Paused | Ending(_) | Stopped(_)) => Ok(()),
            (Verb::Create, _) => refuse(Code::AlreadyExists, "exists already"),
            (_, Empty) => refuse(Code::NotFound, "was not created"),
            (_, Deleted) => refuse(Code::NotFound, "was deleted"),
            (Verb::Kill, Ending(_) | Stopped(_)) => {
                refuse(Code::NotFound, "is not running: process already finished")
            }
            (Verb::Start, _) => refuse(Code::FailedPrecondition, "was started already"),
            (Verb::Delete, _) => refuse(Code::FailedPrecondition, "is running"),
            (Verb::Pause, Paused) => refuse(Code::FailedPrecondition, "is already paused"),
            (Verb::Exec, Paused) => {
                refuse(Code::FailedPrecondition, "is paused, unpause the container before exec")
            }
            (Verb::Pause | Verb::Measure | Verb::Exec, _) => {
                refuse(Code::FailedPrecondition, "is not running")
            }
            (Verb::Resume, _) => refuse(Code::FailedPrecondition, "is not paused"),
        }
    }

    /// The phase after `event`; the same one when the event can't happen in
    /// it, so that no order of events brings a container back.
    #[must_use]
    pub fn after(self, event: Event) -> Self {
        match (self, event) {
            (Self::Empty, Event::Created) => Self::Created,
            (Self::Created, Event::Started) | (Self::Paused, Event::Resumed) => Self::Running,
            (Self::Running, Event::Paused) => Self::Paused,
            (Self::Created | Self::Running | Self::Paused, Event::Exited(record)) => Self::Ending(record),
            (Self::Ending(_), Event::Recorded(record)) => Self::Stopped(record),
            (Self::Stopped(_), Event::Deleted) => Self::Deleted,
            (phase, _) => phase,
        }
    }

    /// The first process may still be there.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        matches!(self, Self::Created | Self::Running | Self::Paused)
    }

    /// The shim is needed: there is a process, or its end isn't recorded yet.
    #[must_use]
    pub fn holds_process(&self) -> bool {
        self.is_alive() || matches!(self, Self::Ending(_))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(exit_code: u8) -> ExitRecord {
        ExitRecord { pid: 7, exit_code, exited_at: 1, oom_killed: false }
    }

    fn rank(phase: &Phase) -> u8 {
        match phase {
            Phase::Empty => 0,
            Phase::Created => 1,
            Phase::Running | Phase::Paused => 2,
            Phase::Ending(_) => 3,
            Phase::Stopped(_) => 4,
            Phase::Deleted => 5,
        }
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Created),
            Just(Event::Started),
            Just(Event::Paused),
            Just(Event::Resumed),
            any::<u8>().prop_map(|code| Event::Exited(record(code))),
            any::<u8>().prop_map(|code| Event::Recorded(record(code))),
            Just(Event::Deleted),
        ]
    }

    const VERBS: [Verb; 7] =
        [Verb::Create, Verb::Start, Verb::Kill, Verb::Pause, Verb::Resume, Verb::Delete, Verb::Ask];

    fn code(phase: &Phase, verb: Verb) -> Option<Code> {
        phase.permit(verb, "c").err().map(|status| status.code)
    }

    proptest! {
        #[test]
        fn life_never_goes_backwards_and_the_first_exit_is_the_one(events in prop::collection::vec(event(), 0..30)) {
            let mut phase = Phase::Empty;
            let mut stopped = None;
            for event in events {
                let next = phase.clone().after(event.clone());
                prop_assert!(rank(&next) >= rank(&phase), "{phase:?} + {event:?} = {next:?}");
                prop_assert!(rank(&next) <= rank(&phase) + 2, "{phase:?} + {event:?} = {next:?}");
                if let Phase::Stopped(record) = &next {
                    prop_assert_eq!(stopped.get_or_insert_with(|| record.clone()), record);
                }
                phase = next;
            }
        }

        #[test]
        fn nobody_is_told_before_the_record_is_written(events in prop::collection::vec(event(), 0..30)) {
            let mut phase = Phase::Empty;
            let mut recorded = false;
            for event in events {
                recorded |= matches!((&phase, &event), (Phase::Ending(_), Event::Recorded(_)));
                phase = phase.after(event);
                prop_assert!(recorded || rank(&phase) < 4);
            }
        }
    }

    #[test]
    fn a_container_that_does_not_exist_is_not_found() {
        for verb in VERBS.into_iter().filter(|v| *v != Verb::Create) {
            assert_eq!(code(&Phase::Empty, verb), Some(Code::NotFound), "{verb:?}");
            assert_eq!(code(&Phase::Deleted, verb), Some(Code::NotFound), "{verb:?}");
        }
    }

    #[test]
    fn what_is_refused_when() {
        let ended = [Phase::Ending(record(0)), Phase::Stopped(record(0))];
        for phase in [Phase::Created, Phase::Running, Phase::Paused].iter().chain(&ended) {
            assert_eq!(code(phase, Verb::Create), Some(Code::AlreadyExists));
            assert_eq!(code(phase, Verb::Ask), None);
        }
        assert_eq!(code(&Phase::Created, Verb::Start), None);
        assert_eq!(code(&Phase::Running, Verb::Start), Some(Code::FailedPrecondition));
        assert_eq!(code(&Phase::Running, Verb::Delete), Some(Code::FailedPrecondition));
        assert_eq!(code(&Phase::Paused, Verb::Delete), Some(Code::FailedPrecondition));
        assert_eq!(code(&Phase::Created, Verb::Delete), None);
        assert_eq!(code(&Phase::Created, Verb::Pause), Some(Code::FailedPrecondition));
        assert_eq!(code(&Phase::Running, Verb::Resume), Some(Code::FailedPrecondition));
        for phase in &ended {
            assert_eq!(code(phase, Verb::Kill), Some(Code::NotFound));
            assert_eq!(code(phase, Verb::Exec), Some(Code::FailedPrecondition));
            assert_eq!(code(phase, Verb::Delete), None);
            assert_eq!(code(phase, Verb::Start), Some(Code::FailedPrecondition));
        }
    }
}
