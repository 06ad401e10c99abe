// SPDX-License-Identifier: Apache-2.0
//! `events`: what a container uses, once or again and again, and when the
//! kernel has killed one of its processes for want of memory.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    process::ExitCode,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use serde::Serialize;

use super::{
    Context, Failure, Outcome,
    cli::{Matches, Verb, option, switch},
    print,
};
use crate::{cgroup::Group, runtime::stats::report::Report};

/// How often it is looked whether memory ran out.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub(super) const VERB: Verb = Verb {
    name: "events",
    usage: "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
    arguments: "<container-id>",
    flags: &[
        option("interval", "", "set the stats collection interval (default: 5s)"),
        switch("stats", "", "display the container's stats then exit"),
    ],
    flags_until: usize::MAX,
    takes: (1, 1),
    run: events,
};

#[derive(Debug, Serialize)]
struct Event<'a> {
    r#type: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Report>,
}

fn events(context: &Context, matches: &Matches) -> Outcome {
    let id = matches.id()?;
    let interval = duration(matches.text("interval")?.unwrap_or("5s"))?;
    let known = context.store.load(id)?;
    let Some(init) = known.init()? else {
        return Err(Failure::new(format!("container with id {id} is not running")));
    };
    let group = known.group()?;
    if matches.has("stats") {
        show_stats(id, &group)?;
    } else {
        follow(id, &group, &init, interval)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Until the container ends.
fn follow(id: &str, group: &Group, init: &OwnedFd, interval: Duration) -> Result<(), Failure> {
    let mut due = Instant::now() + interval;
    let mut kills = oom_kills(group);
    loop {
        let left = due.saturating_duration_since(Instant::now()).min(LOOK_EVERY);
        let ended = has_ended(init, left)?;
        let now = oom_kills(group);
        for _ in kills..now {
            show(&Event { r#type: "oom", id, data: None })?;
        }
        kills = kills.max(now);
        if ended {
            return Ok(());
        }
        if Instant::now() >= due {
            show_stats(id, group)?;
            due += interval;
        }
    }
}

/// 0 when the cgroup is gone, and with it its counter.
fn oom_kills(group: &Group) -> u64 {
    group.stats().map_or(0, |stats| stats.memory.events.oom_kill)
}

fn has_ended(init: &OwnedFd, within: Duration) -> Result<bool, Failure> {
    let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::ZERO);
    match poll(&mut [PollFd::new(init.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(e) => Err(Failure::io("poll the container's process", &e.into())),
    }
}

fn show_stats(id: &str, group: &Group) -> Result<(), Failure> {
    show(&Event { r#type: "stats", id, data: Some(Report::from(&group.stats()?)) })
}

fn show(event: &Event<'_>) -> Result<(), Failure> {
    let text = serde_json::to_string(event).map_err(|e| Failure::new(e.to_string()))?;
    print(&(text + "\n"))
}

/// A duration as Go writes it: `1m30s`, `100ms`, `1.5h`.
fn duration(text: &str) -> Result<Duration, Failure> {
    const UNITS: [(&str, f64); 6] =
        [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let wrong = || Failure::new(format!("invalid value \"{text}\" for flag -interval"));
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        let unit_end = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |n| end + n);
        let unit = UNITS.iter().find(|(name, _)| *name == &rest[end..unit_end]).ok_or_else(wrong)?;
        seconds += number * unit.1;
        rest = &rest[unit_end..];
    }
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    if duration.is_zero() {
        return Err(Failure::new("duration interval must be greater than 0"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (text, millis) in [("5s", 5000), ("100ms", 100), ("1m30s", 90_000), ("1.5h", 5_400_000)] {
            assert_eq!(duration(text).expect(text), Duration::from_millis(millis), "{text}");
        }
        for bad in ["", "5", "s", "5x", "0s", "-1s", "1..2s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
