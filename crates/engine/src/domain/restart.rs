// SPDX-License-Identifier: Apache-2.0
//! Whether, and when, a container that has ended is started again. Pure; what
//! comes of it is lifecycle's.
//!
//! What the user wants ([`Restarts::wanted`]) is kept apart from how the
//! container ended: an end by itself doesn't change it, a stop does.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// The first wait before a start: Docker's.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// No wait is longer: Docker's.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// A container that ran this long has come up, and waits are short again:
/// Docker's.
const CAME_UP: Duration = Duration::from_secs(10);

/// When a container is started again of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// Whenever it ends; after a stop with the engine's next start.
    Always,
    /// When it ends with another code than 0.
    OnFailure {
        /// So often at most; 0 is no limit.
        max: u32,
    },
    /// Whenever it ends, until it is stopped.
    UnlessStopped,
}

impl RestartPolicy {
    /// Reads Docker's words; empty is `no`.
    ///
    /// # Errors
    /// `InvalidArgument` in Docker's words.
    pub fn of_words(name: &str, max: i32) -> Result<Self> {
        let policy = match name {
            "" | "no" => Self::No,
            "always" => Self::Always,
            "unless-stopped" => Self::UnlessStopped,
            "on-failure" => {
                let negative = "invalid restart policy: maximum retry count cannot be negative";
                return Ok(Self::OnFailure { max: u32::try_from(max).map_err(|_| invalid(negative))? });
            }
            other => {
                return Err(invalid(format!(
                    "invalid restart policy: unknown policy '{}'; use one of \
                     'no', 'always', 'on-failure', or 'unless-stopped'",
                    other.escape_debug()
                )));
            }
        };
        if max != 0 {
            let what = "invalid restart policy: maximum retry count can only be used with 'on-failure'";
            return Err(invalid(what));
        }
        Ok(policy)
    }

    /// The word that users write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Always => "always",
            Self::OnFailure { .. } => "on-failure",
            Self::UnlessStopped => "unless-stopped",
        }
    }

    /// How often at most; 0 is no limit, or no matter.
    #[must_use]
    pub fn max(self) -> u32 {
        match self {
            Self::OnFailure { max } => max,
            Self::No | Self::Always | Self::UnlessStopped => 0,
        }
    }

    /// Whether it never starts anything.
    #[must_use]
    pub fn is_no(&self) -> bool {
        *self == Self::No
    }

    /// Whether a container that ended so is started again, and after what wait.
    #[must_use]
    pub fn decide(self, restarts: &Restarts, moment: Moment, end: End) -> Option<Duration> {
        let again = match self {
            Self::No => false,
            Self::Always => restarts.wanted == Wanted::Running || moment == Moment::EngineStart,
            Self::UnlessStopped => restarts.wanted == Wanted::Running,
            Self::OnFailure { max } => {
                restarts.wanted == Wanted::Running && end.code != 0 && (max == 0 || restarts.count < max)
            }
        };
        again.then(|| restarts.next_wait(end.ran))
    }
}

/// What a container's user wants of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// That it rests: it was never started, or was stopped.
    #[default]
    Stopped,
    /// That it runs, as its policy understands that.
    Running,
}

/// What is remembered of a container's restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restarts {
    /// What its user wants.
    pub wanted: Wanted,
    /// How often its policy has had it started since its user did.
    pub count: u32,
    /// The last wait, in milliseconds; 0 before the first.
    pub waited: u32,
    /// When it is to be started; nanoseconds since the Unix epoch, 0 for not.
    pub due: u64,
}

impl Restarts {
    fn next_wait(&self, ran: Duration) -> Duration {
        if self.waited == 0 || ran >= CAME_UP {
            return FIRST_WAIT;
        }
        Duration::from_millis(u64::from(self.waited) * 2).clamp(FIRST_WAIT, LONGEST_WAIT)
    }

    /// After a decision: one more, `wait` after `now`.
    #[must_use]
    pub fn after(&self, wait: Duration, now: u64) -> Self {
        let nanos = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
        Self {
            wanted: Wanted::Running,
            count: self.count.saturating_add(1),
            waited: u32::try_from(wait.as_millis()).unwrap_or(u32::MAX),
            due: now.saturating_add(nanos),
        }
    }

    /// How long it is until it is due: no longer than a wait can be, whatever
    /// became of the clock.
    #[must_use]
    pub fn left(&self, now: u64) -> Duration {
        Duration::from_nanos(self.due.saturating_sub(now)).min(LONGEST_WAIT)
    }
}

/// When a decision is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The container has ended just now.
    Ended,
    /// The engine has started, and the container didn't run any more.
    EngineStart,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// 0 to 255.
    pub code: u8,
    /// From its start to its end.
    pub ran: Duration,
}

fn invalid(what: impl Into<String>) -> Error {
    Error::new(Kind::InvalidArgument, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOON: End = End { code: 1, ran: Duration::from_secs(1) };

    #[test]
    fn each_policy_decides_as_docker_s() {
        use Moment::{Ended, EngineStart};
        use RestartPolicy::{Always, No, OnFailure, UnlessStopped};
        let wanted = Restarts { wanted: Wanted::Running, ..Restarts::default() };
        let thrice = Restarts { count: 3, ..wanted };
        let stopped = Restarts::default();
        let good = End { code: 0, ..SOON };
        for (policy, restarts, moment, end, again) in [
            (No, wanted, Ended, SOON, false),
            (No, wanted, EngineStart, SOON, false),
            (Always, wanted, Ended, good, true),
            (Always, stopped, Ended, SOON, false),
            (Always, stopped, EngineStart, good, true),
            (UnlessStopped, wanted, Ended, good, true),
            (UnlessStopped, stopped, Ended, SOON, false),
            (UnlessStopped, stopped, EngineStart, SOON, false),
            (UnlessStopped, wanted, EngineStart, SOON, true),
            (OnFailure { max: 0 }, wanted, Ended, SOON, true),
            (OnFailure { max: 0 }, wanted, Ended, good, false),
            (OnFailure { max: 0 }, stopped, EngineStart, SOON, false),
            (OnFailure { max: 4 }, thrice, Ended, SOON, true),
            (OnFailure { max: 3 }, thrice, Ended, SOON, false),
            (OnFailure { max: 3 }, thrice, EngineStart, SOON, false),
        ] {
            let decided = policy.decide(&restarts, moment, end);
            assert_eq!(decided.is_some(), again, "{policy:?} {restarts:?} {moment:?} {end:?}");
        }
    }

    #[test]
    fn waits_double_to_a_minute_and_are_short_again_after_ten_seconds() {
        let mut restarts = Restarts { wanted: Wanted::Running, ..Restarts::default() };
        let mut waits = Vec::new();
        for _ in 0..12 {
            let wait = RestartPolicy::Always.decide(&restarts, Moment::Ended, SOON).expect("again");
            restarts = restarts.after(wait, 0);
            waits.push(wait.as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!(restarts.count, 12);
        let up = End { ran: Duration::from_secs(10), ..SOON };
        assert_eq!(RestartPolicy::Always.decide(&restarts, Moment::Ended, up), Some(FIRST_WAIT));
    }

    #[test]
    fn words_are_docker_s() {
        for name in ["no", "always", "unless-stopped", "on-failure"] {
            assert_eq!(RestartPolicy::of_words(name, 0).expect(name).as_str(), name);
        }
        assert_eq!(RestartPolicy::of_words("on-failure", 5).expect("valid").max(), 5);
        for (name, max, words) in [
            ("on-failure", -1, "cannot be negative"),
            ("always", 3, "can only be used with 'on-failure'"),
            ("sometimes", 0, "unknown policy 'sometimes'"),
        ] {
            let error = RestartPolicy::of_words(name, max).expect_err(words);
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_a_minute(waited in any::<u32>(), ran in any::<u64>(), now in any::<u64>(), due in any::<u64>()) {
            let restarts = Restarts { wanted: Wanted::Running, waited, due, ..Restarts::default() };
            let end = End { code: 1, ran: Duration::from_nanos(ran) };
            let wait = RestartPolicy::Always.decide(&restarts, Moment::Ended, end).expect("again");
            prop_assert!(wait >= FIRST_WAIT && wait <= LONGEST_WAIT);
            prop_assert!(restarts.left(now) <= LONGEST_WAIT);
            let _ = restarts.after(wait, now);
        }
    }
}
