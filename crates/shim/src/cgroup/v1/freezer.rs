// SPDX-License-Identifier: Apache-2.0
//! `freezer`, for hosts without a v2 tree. A process that it holds can't even
//! be killed: whoever kills has to thaw.

use std::{path::Path, time::Instant};

use super::super::{fs, tree};
use crate::runtime::{Error, Kind, Result};

const STATE: &str = "freezer.state";
/// So often the state is asked for before all go on for a moment: a process
/// that sleeps in the kernel for a frozen one ends the deadlock then.
const THAW_EVERY: u32 = 50;

/// Stops all processes. The kernel gives up (`FREEZING`) when new ones appear
/// meanwhile: it is told again, until the deadline; then all go on.
///
/// # Errors
/// When they don't stop in time.
pub(in super::super) fn freeze(dir: &Path, deadline: Instant) -> Result<()> {
    let mut round = 0;
    loop {
        fs::write(dir, STATE, "FROZEN")?;
        if fs::read(dir, STATE)?.trim() == "FROZEN" {
            return Ok(());
        }
        if Instant::now() >= deadline {
            thaw(dir)?;
            return Err(Error::new(Kind::Os, format!("processes in {} do not stop", dir.display())));
        }
        round += 1;
        if round % THAW_EVERY == 0 {
            thaw(dir)?;
        }
        fs::pause();
    }
}

/// Lets them go on, also those that the container itself has frozen below.
///
/// # Errors
/// Those of the write.
pub(in super::super) fn thaw(dir: &Path) -> Result<()> {
    tree::write(dir, STATE, "THAWED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_what_was_asked_for() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join(STATE), "THAWED\n").expect("write");
        freeze(dir.path(), Instant::now()).expect("freeze");
        assert_eq!(fs::read(dir.path(), STATE).expect("read"), "FROZEN");
        thaw(dir.path()).expect("thaw");
        assert_eq!(fs::read(dir.path(), STATE).expect("read"), "THAWED");
    }
}
