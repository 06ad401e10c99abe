// SPDX-License-Identifier: Apache-2.0
//! A log whose disk is full, and one whose limits change while it is written.

use std::{fs, path::PathBuf, time::Duration};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::support::{Engine, engine::with_busybox, until, wait::within};

/// A small disk that goes with the test.
struct Disk(PathBuf);

impl Disk {
    fn new(at: PathBuf) -> Self {
        fs::create_dir_all(&at).expect("mkdir");
        let disk = Self(at);
        disk.set(MsFlags::empty(), "size=512k,mode=700");
        disk
    }

    fn set(&self, flags: MsFlags, options: &str) {
        mount(Some("tmpfs"), &self.0, Some("tmpfs"), flags, Some(options)).expect("mount");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// How many lines these marks say are missing.
fn told(marks: &str) -> u64 {
    let count = |mark: &str| {
        let (lines, rest) = mark.strip_prefix("berth: ")?.split_once(" lines (")?;
        assert!(rest.ends_with(" bytes) are missing here: they could not be written"), "{mark}");
        lines.parse::<u64>().ok()
    };
    marks.lines().map(|mark| count(mark).unwrap_or_else(|| panic!("{mark}"))).sum()
}

/// Writes three rounds of lines, each when a file says so.
const ROUNDS: &str = r#"
line=$(printf "%0100d" 0)
round() { while [ ! -e /out/go$1 ]; do sleep 0.02; done; yes $line | head -n $2; echo $1 >/out/done$1; }
round 1 10000; round 2 100; round 3 20000
"#;

#[test]
fn a_full_disk_holds_nobody_up_and_what_is_missing_is_told() {
    let Some(mut engine) = with_busybox() else { return };
    let disk = Disk::new(engine.dir().join("root/containers"));
    let out = engine.dir().join("out");
    fs::create_dir(&out).expect("mkdir");
    let volume = format!("{}:/out", out.display());
    let flags = ["run", "-d", "--name", "full", "-v", &volume, "--log-opt", "max-size=-1", "busybox"];
    engine.berth(&[&flags[..], &["sh", "-c", ROUNDS]].concat()).ok();
    let round = |n: u32| {
        fs::write(out.join(format!("go{n}")), "").expect("write");
        within(Duration::from_secs(10), "the writer, whom nothing holds up", || {
            out.join(format!("done{n}")).exists().then_some(())
        });
    };
    let dropped =
        |engine: &Engine, what: &str| engine.inspect("full")["LogDropped"][what].as_u64().unwrap_or(0);
    let kept = |engine: &Engine| {
        let logs = engine.berth(&["logs", "full"]).ok();
        let lines = logs.stdout.lines().inspect(|l| assert_eq!(l.len(), 100)).count() as u64;
        (lines, logs.stderr)
    };
    round(1);
    // What is read from a pipe counts when it was handled.
    until("all to be written or dropped", || {
        (kept(&engine).0 + dropped(&engine, "Lines") == 10_000).then_some(())
    });
    let lost = dropped(&engine, "Lines");
    assert!(lost > 1000, "{lost}");
    assert_eq!(dropped(&engine, "Bytes"), lost * 101);
    let events = || engine.berth(&["events", "--since", "1h", "--until", "0s"]).ok().stdout;
    until("an event", || {
        events().lines().any(|line| line.contains("log_dropped") && line.contains("lines=")).then_some(())
    });
    // There is room again: it goes on, and says what is missing.
    disk.set(MsFlags::MS_REMOUNT, "size=1m");
    round(2);
    until("the second round", || {
        let (lines, marks) = kept(&engine);
        (lines == 10_100 - lost && told(&marks) == lost).then_some(())
    });
    // Full again, to the very end, over which the engine is dead.
    engine.kill9();
    round(3);
    engine.restart();
    assert_eq!(engine.wait("full"), 0);
    let (lines, marks) = kept(&engine);
    assert_eq!(lines + dropped(&engine, "Lines"), 30_100);
    assert_eq!(told(&marks), dropped(&engine, "Lines"), "{marks}");
    assert!(dropped(&engine, "Lines") > lost + 1000);
    // What the log couldn't tell it tells in its next life.
    disk.set(MsFlags::MS_REMOUNT, "size=16m");
    for n in 1..=3 {
        fs::remove_file(out.join(format!("done{n}"))).expect("remove");
    }
    engine.berth(&["start", "full"]).ok();
    assert_eq!(engine.wait("full"), 0);
    let (again, marks) = kept(&engine);
    assert_eq!(again, lines + 30_100);
    assert_eq!(told(&marks), dropped(&engine, "Lines"), "{marks}");
    assert_eq!(dropped(&engine, "Lines") + lines, 30_100);
    engine.berth(&["rm", "full"]).ok();
    drop(disk);
}

#[test]
fn log_options_change_while_it_is_written() {
    let Some(engine) = with_busybox() else { return };
    let script = "n=0; while :; do n=$((n+1)); echo $n; [ $((n%100)) = 0 ] && sleep 0.01; done";
    let flags = ["run", "-d", "--name", "live", "--stop-signal=KILL", "-l", "a=1", "busybox"];
    engine.berth(&[&flags[..], &["sh", "-c", script]].concat()).ok();
    let pid = engine.inspect("live")["State"]["Pid"].as_u64();
    let path = PathBuf::from(engine.inspect("live")["LogPath"].as_str().expect("LogPath"));
    let segments = || berth::log::segments(&path).expect("list").into_keys().collect::<Vec<_>>();
    engine.wait_log("live", "\n100\n");
    assert_eq!(segments(), [1]);
    engine.berth(&["update", "--log-opt", "max-size=16k", "--log-opt", "max-file=2", "live"]).ok();
    until("rotations", || (segments().len() == 2 && segments()[0] > 2).then_some(()));
    engine.berth(&["update", "--log-opt", "max-file=4", "--log-opt", "labels=a", "live"]).ok();
    until("more files", || (segments().len() == 4).then_some(()));
    let details = engine.berth(&["logs", "--details", "--tail", "1", "live"]).ok().stdout;
    assert!(details.starts_with("a=1 "), "{details}");
    assert_eq!(engine.inspect("live")["State"]["Pid"].as_u64(), pid);
    assert_eq!(engine.inspect("live")["HostConfig"]["LogConfig"]["Config"]["max-file"], "4");
    let unknown = engine.berth(&["update", "--log-opt", "x=1", "live"]).exits(1);
    unknown.complains(&["unknown log opt 'x' for local log driver"]);
    let bad = engine.berth(&["update", "--log-opt", "max-size=much", "live"]).exits(1);
    bad.complains(&["invalid value \"much\" for log opt 'max-size'"]);
    let bad =
        engine.berth(&["create", "--log-driver", "json-file", "--log-opt", "x=1", "busybox"]).exits(125);
    bad.complains(&["unknown log opt 'x' for json-file log driver"]);
}

#[test]
fn dockers_json_lines_have_what_docker_puts_there() {
    let Some(engine) = with_busybox() else { return };
    let run = ["run", "--name", "json", "--log-driver", "json-file", "-l", "a=1", "-e", "E=2 3"];
    let names = ["--log-opt", "labels=a,none", "--log-opt", "env=E", "--log-opt", "tag={{.Name}}"];
    engine.berth(&[&run[..], &names, &["busybox", "echo", "hello"]].concat()).ok();
    let path = engine.inspect("json")["LogPath"].as_str().expect("LogPath").to_owned();
    let text = fs::read_to_string(path).expect("log");
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).expect("one line");
    assert_eq!(line["log"], "hello\n");
    assert_eq!(line["attrs"], serde_json::json!({"E": "2 3", "a": "1", "tag": "json"}));
    assert_eq!(engine.berth(&["logs", "--details", "json"]).ok().stdout, "E=2+3,a=1,tag=json hello\n");
    let plain = engine.berth(&["logs", "-t", "json"]).ok().stdout;
    let (time, _) = plain.split_once(' ').expect("a time");
    assert_eq!(line["time"], time);
    let none = engine.berth(&["run", "--name", "none", "--log-driver", "none", "busybox", "true"]).ok();
    assert_eq!(none.stdout, "");
    let refused = engine.berth(&["logs", "none"]).exits(1);
    refused.complains(&["configured logging driver does not support reading"]);
}
