// SPDX-License-Identifier: Apache-2.0
//! A log in many files: followed, compressed, damaged, and bounded in every
//! way that it can be.

use std::{fs, path::PathBuf};

use crate::support::{Engine, engine::with_busybox, until};

/// Counts without a pause, until it is told to end.
const COUNTER: &str = "trap 'echo last; exit 0' TERM; n=0; while :; do n=$((n+1)); echo $n; done";

fn path(engine: &Engine, name: &str) -> PathBuf {
    engine.inspect(name)["LogPath"].as_str().expect("LogPath").into()
}

/// The segments' numbers, and whether each is compressed.
fn segments(engine: &Engine, name: &str) -> Vec<(u64, bool)> {
    let found = berth::log::segments(&path(engine, name)).expect("list");
    found.into_iter().map(|(number, forms)| (number, !forms.plain)).collect()
}

#[track_caller]
fn counts(text: &str, from: u64) -> u64 {
    let mut expected = from;
    for line in text.lines() {
        assert_eq!(line, expected.to_string(), "in place of {expected}");
        expected += 1;
    }
    expected
}

#[test]
fn following_goes_on_over_rotations_and_dead_engines_without_a_gap_or_a_line_twice() {
    let Some(mut engine) = with_busybox() else { return };
    let options = ["--log-opt", "max-size=32k", "--log-opt", "max-file=1000"];
    // So slow that who follows isn't a thousand segments behind.
    let counter = COUNTER.replace("echo $n;", "echo $n; [ $((n % 1000)) = 0 ] && sleep 0.1;");
    let command = ["busybox", "sh", "-c", &counter];
    engine.berth(&[&["run", "-d", "--name", "count"][..], &options, &command].concat()).ok();
    let mut all = engine.background(&["logs", "-f", "count"]);
    let mut tail = engine.background(&["logs", "-f", "--tail", "0", "count"]);
    let newest = |engine: &Engine| segments(engine, "count").last().map_or(0, |(number, _)| *number);
    for polite in [false, true] {
        let before = newest(&engine);
        until("a hundred rotations", || (newest(&engine) > before + 100).then_some(()));
        if polite {
            assert_eq!(engine.stop(), 0);
        } else {
            engine.kill9();
        }
        engine.restart();
    }
    engine.berth(&["stop", "count"]).ok();
    assert_eq!((all.wait(), tail.wait()), (0, 0));
    let text = all.output();
    let last = counts(text.strip_suffix("last\n").expect("the end"), 1);
    assert!(last > 10_000 && newest(&engine) > 200, "{last}");
    let text = tail.output();
    let first = text.lines().next().expect("a line").parse().expect("a number");
    assert_eq!(counts(text.strip_suffix("last\n").expect("the end"), first), last);
}

#[test]
fn closed_segments_are_compressed_and_read_as_before() {
    let Some(mut engine) = with_busybox() else { return };
    let script = "i=0; while [ $i -lt 10 ]; do seq $((i*1000+1)) $((i*1000+1000)); sleep 0.05; i=$((i+1)); done; \
                  sleep 1000";
    let run = |name: &str, more: &[&str]| {
        let options = ["--stop-signal=KILL", "--log-opt", "max-size=30k", "--log-opt", "max-file=100"];
        let command = ["busybox", "sh", "-c", script];
        engine.berth(&[&["run", "-d", "--name", name][..], &options, more, &command].concat()).ok();
        engine.wait_log(name, "\n10000\n");
    };
    run("gz", &[]);
    run("plain", &["--log-opt", "compress=false"]);
    until("all but two to be compressed", || {
        let found = segments(&engine, "gz");
        let plain = found.iter().filter(|(_, compressed)| !compressed).count();
        (found.len() > 10 && plain == 2).then_some(())
    });
    assert!(segments(&engine, "plain").iter().all(|(_, compressed)| !compressed));
    let logs = |args: &[&str]| engine.berth(&[&["logs"][..], args, &["gz"]].concat()).ok().stdout;
    assert_eq!(counts(&logs(&[]), 1), 10_001);
    for tail in ["1", "700", "5000", "9999"] {
        let first = 10_001 - tail.parse::<u64>().expect("a number");
        assert_eq!(counts(&logs(&["--tail", tail]), first), 10_001, "--tail {tail}");
    }
    let stamped = logs(&["-t"]);
    let (time, line) = stamped.lines().nth(4500).and_then(|l| l.split_once(' ')).expect("a time");
    assert_eq!(line, "4501");
    let since = logs(&["--since", time]);
    let until_then = logs(&["--until", time]);
    let (first, last) = (since.lines().next().expect("a line"), until_then.lines().last().expect("a line"));
    // What was read at once has one time.
    assert!(first.parse::<u64>().expect("a number") <= 4501, "{first}");
    assert!(last.parse::<u64>().expect("a number") >= 4501, "{last}");
    // What was closed while no engine was there is compressed by the next.
    engine.kill9();
    let log = engine.dir().join("root/containers/default");
    let mut dir = fs::read_dir(&log).expect("list").flatten().map(|e| e.path().join("container.log"));
    let gz = dir.find(|path| berth::log::compressed(path, 1).exists()).expect("a compressed log");
    let three = berth::log::compressed(&gz, 3);
    let text = std::process::Command::new("zcat").arg(&three).output().expect("zcat").stdout;
    fs::write(berth::log::segment(&gz, 3), &text).expect("write");
    fs::remove_file(&three).expect("remove");
    engine.restart();
    until("it to be compressed again", || three.exists().then_some(()));
    assert_eq!(counts(&engine.berth(&["logs", "gz"]).ok().stdout, 1), 10_001);
}

#[test]
fn age_and_a_bound_of_all_take_the_oldest_away() {
    let Some(engine) = with_busybox() else { return };
    let run = |name: &str, option: &str, script: &str| {
        let options = ["--log-opt", option, "--log-opt", "compress=false", "--stop-signal=KILL"];
        let command = ["busybox", "sh", "-c", script];
        engine.berth(&[&["run", "-d", "--name", name][..], &options, &command].concat()).ok();
    };
    run("total", "max-total=100k", "seq 20000; sleep 1000");
    engine.wait_log("total", "\n20000\n");
    let bytes: u64 = segments(&engine, "total")
        .iter()
        .map(|(n, _)| fs::metadata(berth::log::segment(&path(&engine, "total"), *n)).map_or(0, |m| m.len()))
        .sum();
    assert!((40_000..=102_400).contains(&bytes), "{bytes}");
    run("age", "max-age=1s", "while :; do echo x; sleep 0.1; done");
    until("the first two segments to go", || (segments(&engine, "age").first()?.0 > 2).then_some(()));
    assert!(segments(&engine, "age").len() <= 4);
}

#[test]
fn damage_is_shown_and_the_rest_is_read() {
    let Some(engine) = with_busybox() else { return };
    engine.berth(&["run", "--name", "count", "busybox", "sh", "-c", "seq 1 1000"]).ok();
    let log = path(&engine, "count");
    let mut bytes = fs::read(&log).expect("read");
    assert_eq!(fs::read(berth::log::segment(&log, 1)).expect("read"), bytes, "two names of one file");
    let at = bytes.len() / 2;
    bytes[at..at + 4096].fill(0);
    bytes.truncate(bytes.len() - 3);
    fs::write(&log, &bytes).expect("damage");
    let seen = engine.berth(&["logs", "count"]).ok();
    let numbers: Vec<u32> = seen.stdout.lines().map(|l| l.parse().expect("a whole line")).collect();
    assert_eq!((numbers[0], numbers[numbers.len() - 1]), (1, 999));
    assert!((850..990).contains(&numbers.len()), "{} lines", numbers.len());
    let marks: Vec<_> = seen.stderr.lines().collect();
    assert_eq!(marks.len(), 2, "{}", seen.stderr);
    assert!(
        marks.iter().all(|m| m.starts_with("berth: ") && m.ends_with("bytes of the log are damaged here"))
    );
    // Asking from a time on shows it, too.
    let since = engine.berth(&["logs", "--since", "1h", "count"]).ok();
    assert_eq!((since.stdout, since.stderr), (seen.stdout, seen.stderr));
}
