// SPDX-License-Identifier: Apache-2.0
//! What is remembered of each container's life: created once, started before
//! it ends or is out of memory, ended once for each start, and nothing after its
//! removal.

use std::collections::HashMap;

use super::{Report, world::World};
use crate::{domain::state::Status, store::meta::everything::Happened};

/// How far a life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Rest,
    Running,
    End,
}

pub(super) fn check(world: &World<'_>, report: &mut Report) {
    let (ends, impossible) = follow(&world.lives);
    for happened in impossible {
        let found = format!("{:?} is event {}", happened.action, happened.cursor);
        report.wrong("events", &happened.id, found, "create, then start, oom and die in turns, then destroy");
    }
    for (id, at) in ends {
        let status = world.rows.values().find(|row| row.id.as_str() == id).map(|row| row.status);
        let expected = match (status, at) {
            (Some(Status::Running), At::Rest) => "start",
            (Some(Status::Exited | Status::Created), At::Running) => "die",
            (Some(_), At::End) => "none after destroy",
            (None, At::Rest | At::Running) => "destroy",
            _ => continue,
        };
        let found =
            status.map_or_else(|| "the container is gone".to_owned(), |s| format!("the container is {s}"));
        report.wrong("events", id, found, format!("as its last event: {expected}"));
    }
}

/// Where each life is, and what can't have happened.
fn follow(lives: &[Happened]) -> (HashMap<&str, At>, Vec<&Happened>) {
    let mut ends = HashMap::new();
    let mut impossible = Vec::new();
    for happened in lives {
        let before = ends.get(happened.id.as_str()).copied();
        let (possible, after) = match happened.action.as_str() {
            "create" => (before.is_none(), At::Rest),
            // The beginning may have been forgotten.
            "start" => (matches!(before, None | Some(At::Rest)), At::Running),
            "oom" => (matches!(before, None | Some(At::Running)), At::Running),
            "die" => (matches!(before, None | Some(At::Running)), At::Rest),
            _ => (matches!(before, None | Some(At::Rest)), At::End),
        };
        if !possible {
            impossible.push(happened);
        }
        ends.insert(happened.id.as_str(), after);
    }
    (ends, impossible)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(actions: &[&str]) -> Vec<Happened> {
        let happened = |(cursor, action): (i64, &&str)| Happened {
            cursor,
            id: "c".to_owned(),
            action: (*action).to_owned(),
        };
        (1..).zip(actions).map(happened).collect()
    }

    #[test]
    fn what_can_happen_and_what_can_not() {
        for (actions, wrong) in [
            (&["create", "start", "die", "start", "die", "destroy"][..], &[][..]),
            (&["create", "destroy"], &[]),
            (&["die", "destroy"], &[]),
            (&["create", "die"], &[2]),
            (&["create", "start", "oom", "die", "destroy"], &[]),
            (&["create", "oom", "start", "die"], &[2, 3]),
            (&["create", "start", "die", "oom"], &[4]),
            (&["oom", "die"], &[]),
            (&["create", "start", "start"], &[3]),
            (&["create", "start", "die", "die"], &[4]),
            (&["create", "start", "destroy"], &[3]),
            (&["create", "destroy", "start", "create"], &[3, 4]),
        ] {
            let life = life(actions);
            let (_, found) = follow(&life);
            let found: Vec<i64> = found.iter().map(|h| h.cursor).collect();
            assert_eq!(found, wrong, "{actions:?}");
        }
    }
}
