// SPDX-License-Identifier: Apache-2.0
//! Places where a test has a program fail: between two steps of an operation,
//! so that "killed there" is a case like any other.
//!
//! Without the cargo feature `failpoints` there is nothing of it: [`hit`] is
//! empty. With it, `BERTH_FAILPOINTS` names a file, which is read at each
//! point, so that a test can arm the points of programs that run:
//!
//! ```text
//! start.spawned=kill
//! shim.exit.reaped=delay(200)
//! ```
//!
//! Actions: `kill` (SIGKILL to itself), `error`, `delay(milliseconds)`, `off`;
//! at the points of [`SKIPPED`] only `skip`, which leaves a step out: so a test
//! shows that it would notice.
//! Each one that is taken is a line in `<file>.hits`.

/// The variable that names the file.
pub const VARIABLE: &str = "BERTH_FAILPOINTS";

/// The engine's points, by operation, in the order in which they are passed.
pub const ENGINE: [(&str, &[&str]); 16] = [
    ("create", &["create.row", "create.layer-row", "create.layer", "create.directory", "create.done"]),
    (
        "start",
        &[
            "start.row",
            "start.bundle",
            "start.spawned",
            "start.noted",
            "start.recorded",
            "start.created",
            "start.started",
            "start.done",
        ],
    ),
    ("exec", &["exec.added", "exec.started"]),
    ("stop", &["stop.signalled", "end.noticed", "end.recorded", "end.dismissed", "end.swept", "stop.done"]),
    (
        "delete",
        &[
            "remove.row",
            "remove.swept",
            "remove.layer-row",
            "remove.layer",
            "remove.directory",
            "remove.done",
        ],
    ),
    ("load", &["image.blob", "image.unpacked", "image.synced", "image.committed"]),
    ("commit", &["commit.packed", "image.unpacked", "image.synced", "image.committed"]),
    ("tag", &["tag.done"]),
    ("rmi", &["untag.row", "layers.rows", "layers.swept", "blob.row", "blobs.swept"]),
    ("prune", &["untag.row", "layers.rows", "layers.swept", "blob.row", "blobs.swept"]),
    ("collect", &["untag.row", "layers.rows", "layers.swept", "blob.row", "blobs.swept"]),
    ("preload", &["image.blob", "image.unpacked", "image.synced", "image.committed", "preload.loaded"]),
    ("update", &["update.applied", "update.done"]),
    ("rename", &["rename.done"]),
    ("pause", &["pause.frozen", "pause.done"]),
    ("unpause", &["unpause.thawed", "unpause.done"]),
];

/// The shim's points.
pub const SHIM: [(&str, &[&str]); 5] = [
    (
        "start",
        &[
            "shim.create.asked",
            "shim.create.grouped",
            "shim.create.cloned",
            "shim.create.ready",
            "shim.create.noted",
            "shim.start.asked",
            "shim.start.executed",
        ],
    ),
    ("exec", &["shim.exec.asked", "shim.exec.executed"]),
    (
        "stop",
        &[
            "shim.kill.asked",
            "shim.exit.reaped",
            "shim.exit.recorded",
            "shim.delete.cleaned",
            "shim.delete.done",
        ],
    ),
    ("update", &["shim.update.asked"]),
    ("pause", &["shim.pause.asked", "shim.pause.frozen"]),
];

/// Steps of the engine's that can be left out.
pub const SKIPPED: [&str; 1] = ["image.sync"];

/// A point was told to fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed(pub String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "failpoint {}", self.0)
    }
}

impl std::error::Error for Failed {}

/// The program has come to `point`.
///
/// # Errors
/// When it was told to fail here.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_point: &'static str) -> Result<(), Failed> {
    Ok(())
}

/// The program has come to `point`.
///
/// # Errors
/// When it was told to fail here.
///
/// # Panics
/// For a point that isn't listed, and an action that is none.
#[cfg(feature = "failpoints")]
pub fn hit(point: &'static str) -> Result<(), Failed> {
    let known = ENGINE.iter().chain(&SHIM).any(|(_, points)| points.contains(&point));
    assert!(known, "failpoint {point} is not in the list");
    let Ok(path) = std::env::var(VARIABLE) else { return Ok(()) };
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let Some(action) = action(&text, point).filter(|action| *action != "off") else { return Ok(()) };
    note(&path, point);
    match action {
        "error" => Err(Failed(point.to_owned())),
        "kill" => {
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL).expect("raise");
            unreachable!("SIGKILL can't be ignored")
        }
        action => {
            let milliseconds = action.strip_prefix("delay(").and_then(|rest| rest.strip_suffix(')'));
            let milliseconds = milliseconds.and_then(|n| n.parse().ok());
            let delay = milliseconds.unwrap_or_else(|| panic!("no action: {action}"));
            #[expect(clippy::disallowed_methods, reason = "what was asked for, in a build for tests")]
            std::thread::sleep(std::time::Duration::from_millis(delay));
            Ok(())
        }
    }
}

/// Whether the step at `point` is to be left out.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
#[must_use]
pub fn skips(_point: &'static str) -> bool {
    false
}

/// Whether the step at `point` is to be left out.
///
/// # Panics
/// For a point that isn't listed.
#[cfg(feature = "failpoints")]
#[must_use]
pub fn skips(point: &'static str) -> bool {
    assert!(SKIPPED.contains(&point), "failpoint {point} is not in the list");
    let Ok(path) = std::env::var(VARIABLE) else { return false };
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let skips = action(&text, point) == Some("skip");
    if skips {
        note(&path, point);
    }
    skips
}

/// For the test to see that the point was passed: a line in `<file>.hits`.
#[cfg(feature = "failpoints")]
fn note(path: &str, point: &str) {
    use std::io::Write as _;
    let hits = std::fs::File::options().create(true).append(true).open(format!("{path}.hits"));
    hits.and_then(|mut hits| writeln!(hits, "{point}")).expect("note a failpoint");
}

/// As [`hit`], where nothing can fail: only `kill` and `delay` do anything.
#[inline(always)]
pub fn pass(point: &'static str) {
    // An error has nobody to go to.
    let _ = hit(point);
}

#[cfg(any(test, feature = "failpoints"))]
fn action<'a>(text: &'a str, point: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(point)?.strip_prefix('=')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_has_the_action_of_its_line() {
        let text = "start.row=kill\nstart.rows=error\n";
        assert_eq!(action(text, "start.row"), Some("kill"));
        assert_eq!(action(text, "start.rows"), Some("error"));
        assert_eq!(action(text, "start"), None);
        assert_eq!(hit("start.row"), Ok(()), "nothing is armed");
    }
}
