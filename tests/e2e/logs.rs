// SPDX-License-Identifier: Apache-2.0
//! Output: kept, split, followed, and never short of a byte.

use std::os::unix::fs::MetadataExt as _;

use crate::support::{Engine, engine::with_busybox};

fn run(engine: &Engine, name: &str, script: &str) {
    engine.berth(&["run", "-d", "--name", name, "busybox", "sh", "-c", script]).ok();
}

#[test]
fn both_streams_come_back_where_they_belong() {
    let Some(engine) = with_busybox() else { return };
    let script = "echo out 1; echo err 1 >&2; echo out 2; printf 'no newline'";
    let live = engine.berth(&["run", "--name", "split", "busybox", "sh", "-c", script]).ok();
    assert_eq!((live.stdout.as_str(), live.stderr.as_str()), ("out 1\nout 2\nno newline", "err 1\n"));
    let kept = engine.berth(&["logs", "split"]).ok();
    assert_eq!((kept.stdout, kept.stderr), (live.stdout, live.stderr));
}

#[test]
fn one_stream_alone_when_only_one_is_attached() {
    let Some(engine) = with_busybox() else { return };
    let said =
        engine.berth(&["run", "--rm", "-a", "stderr", "busybox", "sh", "-c", "echo out; echo err >&2"]).ok();
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", "err\n"));
}

#[test]
fn following_sees_every_line_until_the_exit() {
    let Some(engine) = with_busybox() else { return };
    run(
        &engine,
        "counter",
        "trap 'echo last; exit 0' TERM; n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done",
    );
    let mut follow = engine.background(&["logs", "--follow", "counter"]);
    follow.expect("\n50\n");
    engine.berth(&["stop", "counter"]).ok();
    assert_eq!(follow.wait(), 0);
    let seen = follow.output();
    assert_eq!(seen, engine.berth(&["logs", "counter"]).ok().stdout);
    assert!(seen.ends_with("\nlast\n"), "{seen}");
}

#[test]
fn from_the_end_from_a_time_and_with_times() {
    let Some(engine) = with_busybox() else { return };
    run(&engine, "lines", "for i in 1 2 3; do echo $i; sleep 0.02; done");
    engine.wait("lines");
    let logs = |flags: &[&str]| {
        let mut args = vec!["logs"];
        args.extend(flags);
        args.push("lines");
        engine.berth(&args).ok().stdout
    };
    assert_eq!(logs(&["--tail", "2"]), "2\n3\n");
    assert_eq!(logs(&["-n", "0"]), "");
    assert_eq!(logs(&["--tail", "all"]), "1\n2\n3\n");

    let stamped = logs(&["-t"]);
    let stamps: Vec<_> = stamped.lines().map(|l| l.split_once(' ').expect("a time and a line")).collect();
    assert_eq!(stamps.iter().map(|s| s.1).collect::<Vec<_>>(), ["1", "2", "3"]);
    assert!(stamps.iter().all(|s| s.0.ends_with('Z') && s.0.len() == "2024-05-06T07:08:09.123456789Z".len()));
    assert!(stamps.is_sorted_by_key(|s| s.0));

    assert_eq!(logs(&["--since", stamps[1].0]), "2\n3\n");
    assert_eq!(logs(&["--until", stamps[0].0, "--since", stamps[0].0]).lines().count(), 1);
    assert_eq!(logs(&["--since", "1h"]), "1\n2\n3\n");
}

#[test]
fn short_lived_containers_lose_nothing() {
    let Some(engine) = with_busybox() else { return };
    // 200 KiB, more than any pipe holds, written at once before the exit.
    let script = "yes 'all work and no play makes a dull log' | head -c 204800";
    let line = "all work and no play makes a dull log\n";
    let want: String = line.chars().cycle().take(204_800).collect();
    for n in 0..5 {
        let name = format!("short{n}");
        let live = engine.berth(&["run", "--name", &name, "busybox", "sh", "-c", script]).ok();
        assert!(live.stdout == want, "attached: {} bytes", live.stdout.len());
        let kept = engine.berth(&["logs", &name]).ok();
        assert!(kept.stdout == want, "kept: {} bytes", kept.stdout.len());
    }
}

#[test]
fn any_byte_and_any_length_of_line_survives() {
    let Some(engine) = with_busybox() else { return };
    // One line of 100 kB, then every byte there is.
    let script = "head -c 100000 /dev/zero | tr '\\0' x; echo; i=0; while [ $i -lt 256 ]; do printf \"\\\\$(printf %o $i)\"; i=$((i+1)); done";
    let live = engine.berth(&["run", "--name", "bytes", "busybox", "sh", "-c", script]).ok();
    let mut want = vec![b'x'; 100_000];
    want.push(b'\n');
    want.extend(0..=255_u8);
    assert!(live.bytes == want, "attached: {} bytes", live.bytes.len());
    assert!(engine.berth(&["logs", "bytes"]).ok().bytes == want, "kept");
}

#[test]
fn the_log_driver_is_a_choice() {
    let Some(engine) = with_busybox() else { return };
    let said = engine
        .berth(&[
            "run",
            "--name",
            "json",
            "--log-driver",
            "json-file",
            "busybox",
            "sh",
            "-c",
            "echo a; echo b >&2",
        ])
        .ok();
    let kept = engine.berth(&["logs", "json"]).ok();
    assert_eq!((kept.stdout, kept.stderr), (said.stdout, said.stderr));

    engine.berth(&["run", "--name", "none", "--log-driver", "none", "busybox", "echo", "a"]).ok();
    engine.berth(&["logs", "none"]).exits(1).complains(&["log"]);
}

#[test]
fn a_log_is_rotated_at_its_size() {
    let Some(engine) = with_busybox() else { return };
    let flags = ["run", "--name", "big", "--log-opt", "max-size=64k", "--log-opt", "max-file=3", "busybox"];
    engine.berth(&[&flags[..], &["sh", "-c", "seq 1 50000"]].concat()).ok();
    let kept = engine.berth(&["logs", "big"]).ok().stdout;
    let numbers: Vec<u32> = kept.lines().map(|l| l.parse().expect("a number")).collect();
    assert_eq!(numbers.last(), Some(&50_000));
    assert!(numbers[0] > 1, "older files are gone");
    assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1), "without a gap");
    let path = engine.inspect("big")["LogPath"].as_str().expect("LogPath").to_owned();
    let dir = std::path::Path::new(&path).parent().expect("a directory").to_owned();
    let stem = std::path::Path::new(&path).file_name().expect("a name").to_string_lossy().into_owned();
    let sizes: std::collections::BTreeMap<u64, u64> = std::fs::read_dir(dir)
        .expect("list")
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(&stem))
        .map(|e| e.metadata().expect("stat"))
        // The newest has two names.
        .map(|m| (m.ino(), m.len()))
        .collect();
    assert!(sizes.len() <= 3 && sizes.values().all(|s| *s <= 66_000), "{sizes:?}");
}
