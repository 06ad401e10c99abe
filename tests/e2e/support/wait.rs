// SPDX-License-Identifier: Apache-2.0
//! Waiting for a condition, never for a time.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long anything may take before a test gives up on it. Generous, since
/// the machine may be busy; a test that passes never waits for it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// How often a condition that can't be subscribed to is looked at.
const GLANCE: Duration = Duration::from_millis(5);

/// Looks until `condition` gives a value; panics after [`DEADLINE`].
pub(crate) fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, what, condition)
}

/// As [`until`], with a deadline that is part of what is promised.
pub(crate) fn within<T>(deadline: Duration, what: &str, condition: impl FnMut() -> Option<T>) -> T {
    poll(deadline, condition).unwrap_or_else(|| panic!("waited {deadline:?} for {what}"))
}

/// Looks until `condition` gives a value or the deadline is over.
pub(crate) fn poll<T>(deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if start.elapsed() >= deadline {
            return None;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place that polls what can't be subscribed to"
        )]
        thread::sleep(GLANCE);
    }
}
