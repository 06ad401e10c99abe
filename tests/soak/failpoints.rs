// SPDX-License-Identifier: Apache-2.0
//! Killed between any two steps of any operation: the engine, or a shim. What
//! was acknowledged is still true, what wasn't is done or undone, and the
//! container can be used or is gone.

use std::collections::BTreeMap;

use berth::failpoint;

use crate::support::{
    Engine, FakeRegistry, Image,
    image::{Builder, Layer, busybox_layer},
    until,
    wait::{DEADLINE, poll},
};

/// An engine with failpoints, busybox, and a container that nothing concerns.
struct Bench {
    engine: Engine,
    keeper: String,
}

impl Bench {
    fn start() -> Option<Self> {
        let mut engine = Engine::prepare_failing("")?;
        // What is interrupted on purpose is logged as such.
        for part in ["shim", "failpoint", "clean up after a start that failed"] {
            engine.expect_error(part);
        }
        engine.restart();
        engine.load(&Image::busybox(), "busybox");
        engine.berth(&["run", "-d", "--name", "keeper", "busybox", "sleep", "100000"]).ok();
        let keeper = engine.inspect("keeper")["State"]["Pid"].to_string();
        Some(Self { engine, keeper })
    }

    /// Everything is as it was told, and nothing is left over.
    #[track_caller]
    fn assert_sound(&self, point: &str) {
        let mut last = String::new();
        let clean = poll(DEADLINE, || {
            let fsck = self.engine.fsck(&[]);
            last = fsck.stdout + &fsck.stderr;
            (fsck.code == 0).then_some(())
        });
        assert!(clean.is_some(), "{point}: {last}");
        let state = &self.engine.inspect("keeper")["State"];
        assert_eq!(state["Pid"].to_string(), self.keeper, "{point}: {state}");
        self.engine.berth(&["exec", "keeper", "true"]).ok();
    }
}

/// One operation: what has to be there, what is done, and what may have come
/// of it when it was interrupted.
struct Operation {
    before: Step,
    command: Command,
    after: Step,
}

type Step = fn(&Engine);
type Command = &'static [&'static str];

const RUN: [&str; 7] = ["run", "-d", "--name", "box", "--stop-timeout", "1", "busybox"];
const SLEEP: [&str; 3] = ["sh", "-c", "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done"];

fn run(engine: &Engine) {
    engine.berth(&[&RUN[..], &SLEEP].concat()).ok();
    engine.wait_log("box", "up");
}

fn create(engine: &Engine) {
    let mut args = [&RUN[..], &SLEEP].concat();
    args[0] = "create";
    args.remove(1);
    engine.berth(&args).ok();
}

fn ended(engine: &Engine) {
    run(engine);
    engine.berth(&["stop", "box"]).ok();
}

fn exists(engine: &Engine, name: &str) -> bool {
    engine.berth(&["ps", "-a", "--format", "{{.Names}}"]).ok().stdout.lines().any(|line| line == name)
}

/// It can be started, used, stopped and removed, and so can its successor.
fn usable_or_gone(engine: &Engine) {
    for name in ["box", "other"].into_iter().filter(|name| exists(engine, name)) {
        if engine.status(name) == "paused" {
            engine.berth(&["unpause", name]).ok();
        }
        engine.berth(&["start", name]).ok();
        engine.berth(&["exec", name, "true"]).ok();
        engine.berth(&["stop", name]).ok();
        assert_eq!(engine.status(name), "exited");
        engine.berth(&["rm", name]).ok();
    }
    run(engine);
    engine.berth(&["rm", "-f", "box"]).ok();
}

/// An image with a layer and blobs of its own.
fn made(engine: &Engine) {
    engine.berth(&["run", "--name", "maker", "busybox", "sh", "-c", "seq 10000 >/made"]).ok();
    engine.berth(&["commit", "maker", "made"]).ok();
    engine.berth(&["rm", "maker"]).ok();
}

/// What was removed stays so, to the last byte, and can be made again.
fn removed(engine: &Engine) {
    engine.berth(&["image", "prune", "-af"]).ok();
    let names = engine.berth(&["images", "--format", "{{.Repository}}"]).ok().stdout;
    assert_eq!(names, "busybox\n");
    engine.fsck(&["--digests"]).ok();
    made(engine);
    engine.berth(&["run", "--rm", "made", "tail", "-n1", "/made"]).ok();
    engine.berth(&["rmi", "made"]).ok();
}

/// What was told of execs: each began before it ended, and whatever began has
/// ended.
fn execs_were_told(engine: &Engine) {
    let format = ["--since", "0", "--until", "0s", "--format", "{{.Actor.Attributes.execID}} {{.Action}}"];
    let filters = ["--filter", "container=box", "--filter", "event=exec_start", "--filter", "event=exec_die"];
    let all_told = || {
        let told = engine.berth(&[&["events"], &format[..], &filters].concat()).ok().stdout;
        let mut lives: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (id, action) in told.lines().filter_map(|line| line.split_once(' ')) {
            lives.entry(id).or_default().push(action);
        }
        lives.values().all(|life| *life == ["exec_start", "exec_die"]).then_some(())
    };
    until("each start and each end of an exec to be told once", all_told);
}

/// It runs, as it did before.
fn still_runs(engine: &Engine) {
    assert_eq!(engine.status("box"), "running");
    engine.berth(&["exec", "box", "true"]).ok();
    usable_or_gone(engine);
}

fn operation(name: &str) -> Operation {
    let nothing: Step = |_| {};
    let (before, command, after): (Step, Command, Step) = match name {
        "create" => (nothing, &["create", "--name", "box", "busybox", "sleep", "1000"], usable_or_gone),
        "start" => (create, &["start", "box"], |engine| {
            assert!(exists(engine, "box"), "its creation was acknowledged");
            usable_or_gone(engine);
        }),
        "exec" => (run, &["exec", "box", "true"], |engine| {
            execs_were_told(engine);
            still_runs(engine);
        }),
        "stop" => (run, &["stop", "box"], |engine| {
            engine.berth(&["stop", "box"]).ok();
            let state = &engine.inspect("box")["State"];
            assert_eq!((&state["Status"], &state["ExitCode"]), (&"exited".into(), &7.into()), "{state}");
            usable_or_gone(engine);
        }),
        "delete" => (ended, &["rm", "box"], |engine| {
            if exists(engine, "box") {
                engine.berth(&["rm", "box"]).ok();
            }
            usable_or_gone(engine);
        }),
        "update" => (run, &["update", "--pids-limit", "77", "box"], still_runs),
        "commit" => (run, &["commit", "box", "made"], |engine| {
            engine.berth(&["commit", "box", "made"]).ok();
            engine.berth(&["run", "--rm", "made", "true"]).ok();
            engine.berth(&["rmi", "made"]).ok();
            still_runs(engine);
        }),
        "tag" => (nothing, &["tag", "busybox", "other:1"], |engine| {
            engine.berth(&["tag", "busybox", "other:1"]).ok();
            engine.berth(&["run", "--rm", "other:1", "true"]).ok();
            engine.berth(&["rmi", "other:1"]).ok();
        }),
        "rmi" => (made, &["rmi", "made"], removed),
        "prune" => (made, &["image", "prune", "-af"], removed),
        "rename" => (run, &["rename", "box", "other"], |engine| {
            assert!(exists(engine, "box") != exists(engine, "other"), "one of its two names");
            usable_or_gone(engine);
        }),
        "pause" => (run, &["pause", "box"], usable_or_gone),
        "unpause" => (
            |engine| {
                run(engine);
                engine.berth(&["pause", "box"]).ok();
            },
            &["unpause", "box"],
            usable_or_gone,
        ),
        _ => unreachable!("no operation {name}"),
    };
    Operation { before, command, after }
}

/// The engine's operations that are a command each, with their points; the
/// others have tests of their own.
fn operations() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    failpoint::ENGINE.into_iter().filter(|(name, _)| !["load", "collect", "preload"].contains(name))
}

#[test]
fn the_engine_is_killed_between_any_two_steps() {
    let Some(mut bench) = Bench::start() else { return };
    for (name, points) in operations() {
        let Operation { before, command, after } = operation(name);
        for point in points {
            before(&bench.engine);
            bench.engine.arm(&format!("{point}=kill\n"));
            let mut interrupted = bench.engine.background(command);
            assert_eq!(bench.engine.died(), 128 + 9, "{point} was not passed\n{}", bench.engine.log());
            bench.engine.arm("");
            bench.engine.restart();
            // Whatever it was told: it doesn't hang.
            interrupted.wait();
            bench.assert_sound(point);
            after(&bench.engine);
        }
    }
}

#[test]
fn an_operation_fails_between_any_two_steps_and_leaves_nothing_half_done() {
    let Some(mut bench) = Bench::start() else { return };
    bench.engine.expect_error("free what a container held");
    for (name, points) in operations() {
        let Operation { before, command, after } = operation(name);
        for point in points {
            before(&bench.engine);
            bench.engine.arm(&format!("{point}=error\n"));
            let told = bench.engine.berth(command);
            let passed = || bench.engine.hits().lines().any(|hit| hit == *point).then_some(());
            until(&format!("{point} to be passed"), passed);
            bench.engine.arm("");
            println!("{point}: {} {}", told.code, told.stderr.lines().next().unwrap_or_default());
            if *point == "remove.layer-row" {
                // Files of a layer whose row is gone are the next engine's to
                // remove.
                assert_eq!(bench.engine.stop(), 0);
                bench.engine.restart();
            }
            bench.assert_sound(point);
            after(&bench.engine);
        }
    }
}

#[test]
fn the_engine_is_killed_while_an_image_is_loaded() {
    let Some(mut bench) = Bench::start() else { return };
    let (_, points) = failpoint::ENGINE.into_iter().find(|(name, _)| *name == "load").expect("load");
    for (n, point) in points.iter().enumerate() {
        // Each time another image: what is there already isn't stored again.
        let mut layer = Layer::new();
        layer.file("marker", 0o644, point.as_bytes());
        let image = Builder::new().layer(busybox_layer()).layer(layer).build();
        let name = format!("image{n}");
        let archive = bench.engine.dir().join("archive.tar");
        std::fs::write(&archive, image.oci_archive(&format!("docker.io/library/{name}:latest")))
            .expect("write");
        let load = ["load", "-i", archive.to_str().expect("UTF-8")];
        bench.engine.arm(&format!("{point}=kill\n"));
        let mut interrupted = bench.engine.background(&load);
        assert_eq!(bench.engine.died(), 128 + 9, "{point} was not passed");
        bench.engine.arm("");
        bench.engine.restart();
        interrupted.wait();
        bench.assert_sound(point);
        bench.engine.berth(&load).ok();
        let marker = bench.engine.berth(&["run", "--rm", &name, "cat", "/marker"]).ok();
        assert_eq!(marker.stdout, *point);
        bench.engine.berth(&["rmi", &name]).ok();
        bench.assert_sound(point);
    }
}

#[test]
fn the_engine_is_killed_while_an_image_is_pulled_and_what_came_is_kept() {
    let image = Image::noisy();
    let registry = FakeRegistry::serving(&image, "library/noisy", "latest");
    let mirror = format!(
        "[registry.hosts.\"docker.io\"]\nmirrors = [\"http://{}\"]\nmirrors_only = true\n",
        registry.address()
    );
    let whole: u64 = image.blobs().map(|(_, bytes)| bytes.len() as u64).sum();
    let (_, points) = failpoint::ENGINE.into_iter().find(|(name, _)| *name == "load").expect("load");
    for point in points {
        let Some(mut engine) = Engine::prepare_failing(&mirror) else { return };
        engine.restart();
        engine.arm(&format!("{point}=kill\n"));
        registry.take_sent();
        let mut interrupted = engine.background(&["pull", "noisy"]);
        assert_eq!(engine.died(), 128 + 9, "{point} was not passed");
        interrupted.wait();
        engine.arm("");
        let kept = engine.stored_bytes();
        registry.take_sent();
        engine.restart();
        engine.berth(&["pull", "noisy"]).ok();
        let (again, missing) = (registry.take_sent(), whole.saturating_sub(kept) + 1000);
        println!("{point}: {kept} bytes kept of {whole}, {again} fetched");
        assert!(again <= missing + missing / 100, "{point}: {again} bytes, {missing} were missing");
        engine.berth(&["pull", "--verify", "noisy"]).ok();
        engine.fsck(&[]).ok();
    }
}

#[test]
fn the_engine_is_killed_while_it_collects_or_preloads() {
    let points = |wanted| failpoint::ENGINE.into_iter().find(|(name, _)| *name == wanted).expect("points").1;
    // So low that everything goes that may.
    let config = "[images]\ngc_high = \"2\"\ngc_low = \"1\"\ngc_min_age = 0\ngc_interval = 1\n";
    for point in points("collect") {
        let Some(mut engine) = Engine::prepare_failing(config) else { return };
        engine.expect_error("failpoint");
        engine.restart();
        engine.arm(&format!("{point}=kill\n"));
        // Collected as soon as it is there.
        let archive = engine.dir().join("archive.tar");
        let image = Builder::new().layer(busybox_layer()).build();
        std::fs::write(&archive, image.oci_archive("docker.io/library/image:latest")).expect("write");
        let mut load = engine.background(&["load", "-i", archive.to_str().expect("UTF-8")]);
        assert_eq!(engine.died(), 128 + 9, "{point} was not passed");
        load.wait();
        engine.arm("");
        engine.restart();
        until("the rest to be collected", || {
            engine.berth(&["images", "-aq"]).ok().stdout.is_empty().then_some(())
        });
        engine.fsck(&["--digests"]).ok();
    }
    for point in points("preload") {
        let Some(mut engine) = Engine::prepare_failing("") else { return };
        engine.expect_error("failpoint");
        let archives = engine.dir().join("archives");
        std::fs::create_dir(&archives).expect("mkdir");
        let config = format!("[images]\npreload = {:?}\n", archives.to_str().expect("UTF-8"));
        std::fs::write(engine.dir().join("config.toml"), config).expect("write");
        engine.restart();
        let image = Image::busybox().oci_archive("docker.io/library/busybox:latest");
        std::fs::write(archives.join("busybox.tar"), image).expect("write");
        engine.stop();
        engine.arm(&format!("{point}=kill\n"));
        engine.start_unwatched();
        assert_eq!(engine.died(), 128 + 9, "{point} was not passed");
        engine.arm("");
        engine.restart();
        until("the archive to be loaded", || {
            let names = engine.berth(&["images", "--format", "{{.Repository}}"]).ok().stdout;
            (names == "busybox\n").then_some(())
        });
        engine.berth(&["run", "--rm", "busybox", "true"]).ok();
        engine.fsck(&["--digests"]).ok();
    }
}

#[test]
fn a_shim_is_killed_between_any_two_steps() {
    let Some(bench) = Bench::start() else { return };
    let engine = &bench.engine;
    for (name, points) in failpoint::SHIM {
        let Operation { before, command, .. } = operation(name);
        for point in points {
            before(engine);
            engine.arm(&format!("{point}=kill\n"));
            let mut interrupted = engine.background(command);
            until(&format!("{point} to be passed"), || engine.hits().contains(point).then_some(()));
            interrupted.wait();
            engine.arm("");
            until(&format!("the end of the container, whose shim was killed at {point}"), || {
                ["created", "exited"].contains(&engine.status("box").as_str()).then_some(())
            });
            bench.assert_sound(point);
            usable_or_gone(engine);
        }
    }
}

/// Found by the chaos run: for a moment a container's first process is a copy
/// of its shim in everything but its parent.
#[test]
fn a_first_process_that_is_not_executed_yet_is_no_second_shim() {
    let Some(bench) = Bench::start() else { return };
    let engine = &bench.engine;
    create(engine);
    engine.arm("shim.create.cloned=delay(3000)\n");
    let mut starting = engine.background(&["start", "box"]);
    until("the first process to be there", || engine.hits().contains("shim.create.cloned").then_some(()));
    engine.fsck(&[]).ok();
    assert_eq!(starting.wait(), 0);
    engine.arm("");
    usable_or_gone(engine);
}

/// An engine that is killed after a container's end leaves its shim to the
/// next one, which may be asked to start or to remove the container before it
/// has come to that.
#[test]
fn what_an_end_has_left_is_freed_by_whoever_comes_first() {
    let Some(mut bench) = Bench::start() else { return };
    for next in ["start", "rm"] {
        run(&bench.engine);
        let shim = bench.engine.inspect("box")["ShimPid"].to_string();
        bench.engine.arm("end.recorded=kill\n");
        let mut stop = bench.engine.background(&["stop", "box"]);
        assert_eq!(bench.engine.died(), 128 + 9);
        bench.engine.arm("");
        assert!(std::fs::metadata(format!("/proc/{shim}")).is_ok(), "its shim waits to be dismissed");
        bench.engine.restart();
        bench.engine.berth(&[next, "box"]).ok();
        stop.wait();
        until("the old shim to be gone", || {
            std::fs::metadata(format!("/proc/{shim}")).is_err().then_some(())
        });
        bench.assert_sound(next);
        usable_or_gone(&bench.engine);
    }
}
