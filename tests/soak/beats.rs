// SPDX-License-Identifier: Apache-2.0
//! Heartbeats: a container that writes ten times a second when it lives, by
//! the monotonic clock, and how long it had to wait for a processor, so that
//! what a busy machine does isn't taken for berth's doing.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

/// Beats, and whether something else went on meanwhile.
const SCRIPT: &str = r#"
beat() {
    [ -p "$2" ] || mkfifo "$2"; exec 3<>"$2" 4>>"$1"; n=0
    trap 'echo end; exit 0' TERM
    echo begin >&4
    while :; do
        read -t 0.1 x <&3; read u v </proc/uptime; read c w r </proc/self/schedstat
        n=$((n+1)); echo "$n $u $w" >&4; echo $n
    done
}
"#;

/// The command of a container that beats into `/beats/<name>`.
pub(crate) fn command(name: &str) -> Vec<String> {
    let script = format!("{SCRIPT}\nbeat /beats/{name} /tmp/beat");
    ["sh".to_owned(), "-c".to_owned(), script].into()
}

/// The same on the host, as a witness of how busy it is.
#[derive(Debug)]
pub(crate) struct Control(Child);

impl Control {
    pub(crate) fn start(dir: &Path) -> Self {
        let script = format!("{SCRIPT}\nbeat {}/control {}/fifo", dir.display(), dir.display());
        let mut command = Command::new("busybox");
        command.args(["sh", "-c", &script]).stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().expect("busybox"))
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A time in which a container may be silent; seconds since boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Silence {
    pub(crate) from: f64,
    pub(crate) to: f64,
}

/// Seconds since boot.
pub(crate) fn uptime() -> f64 {
    let text = fs::read_to_string("/proc/uptime").expect("uptime");
    text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}

/// The longest gap between two beats.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gap {
    /// Seconds, as it was.
    pub(crate) raw: f64,
    /// Seconds, without those in which it waited for a processor.
    pub(crate) own: f64,
    /// When; seconds since boot.
    pub(crate) at: f64,
}

/// The longest gap of its own in a file of beats, outside of `silent` times.
pub(crate) fn longest(file: &Path, silent: &[Silence]) -> Gap {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut before: Option<(f64, f64)> = None;
    let mut longest = Gap::default();
    for line in text.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, at, waited] = fields[..] else {
            // Another life begins.
            before = None;
            continue;
        };
        let (Ok(at), Ok(waited)) = (at.parse::<f64>(), waited.parse::<f64>()) else { continue };
        if let Some((then, had_waited)) = before
            && !silent.iter().any(|s| s.from <= at && then <= s.to)
        {
            let raw = at - then;
            let own = raw - (waited - had_waited).max(0.0) / 1e9;
            if own > longest.own {
                longest = Gap { raw, own, at };
            }
        }
        before = Some((at, waited));
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_what_nothing_else_explains() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("beats");
        let text =
            "begin\n1 10.0 0\n2 10.1 0\n3 10.9 700000000\n4 11.4 700000000\nbegin\n1 20.0 0\n2 25.0 0\n";
        fs::write(&file, text).expect("write");
        let gap = longest(&file, &[Silence { from: 20.5, to: 24.0 }]);
        assert!((gap.own - 0.5).abs() < 1e-6 && (gap.at - 11.4).abs() < 1e-6, "{gap:?}");
        assert!((longest(&file, &[]).own - 5.0).abs() < 1e-6);
    }
}
