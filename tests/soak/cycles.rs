// SPDX-License-Identifier: Apache-2.0
//! Again and again the same: nothing grows, nothing is left.

use std::{collections::BTreeMap, fs, time::Instant};

use berth::api::v1::HostConfig;

use crate::{
    api::Api,
    lengths::length,
    support::{Engine, engine::with_busybox, until},
};

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Bytes of anonymous memory.
    memory: u64,
    descriptors: usize,
    threads: usize,
}

fn held(pid: i32) -> Held {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let anonymous = smaps.lines().find_map(|line| line.strip_prefix("Anonymous:")).expect("Anonymous");
    let kib: u64 = anonymous.trim().trim_end_matches(" kB").parse().expect("kB");
    let count = |dir: &str| fs::read_dir(format!("/proc/{pid}/{dir}")).expect(dir).count();
    Held { memory: kib * 1024, descriptors: count("fd"), threads: count("task") }
}

/// The least of the last of `samples`: between two of them, memory comes and
/// goes with the work.
fn least(samples: &[Held]) -> Held {
    // In so many cycles the engine gives memory back once.
    let last = &samples[samples.len() - length(20, 64)..];
    let least = |of: fn(&Held) -> usize| last.iter().map(of).min().expect("samples");
    Held {
        memory: last.iter().map(|held| held.memory).min().expect("samples"),
        descriptors: least(|held| held.descriptors),
        threads: least(|held| held.threads),
    }
}

/// What the host holds for an engine: mounts, cgroups, processes.
fn host(engine: &Engine) -> BTreeMap<&'static str, usize> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    let ours = engine.dir().to_string_lossy().into_owned();
    BTreeMap::from([
        ("mounts", mounts.lines().filter(|line| line.contains(&ours)).count()),
        ("processes", engine.processes().len()),
        ("bundles", fs::read_dir(engine.dir().join("state/bundles/default")).map_or(0, Iterator::count)),
        ("snapshots", fs::read_dir(engine.dir().join("root/snapshots")).expect("snapshots").count()),
    ])
}

#[test]
fn containers_come_and_go_and_nothing_stays() {
    let Some(engine) = with_busybox() else { return };
    let cycles = length(100, 5000);
    let settled = length(40, 500);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let api = runtime.block_on(Api::of(&engine));
    let before = host(&engine);
    let mut samples = Vec::new();
    let (mut first, mut last) = (0.0, 0.0);
    let tenth = cycles / 10;
    for n in 0..cycles {
        let begun = Instant::now();
        runtime.block_on(async {
            let id = api.create("", &["sleep", "1000"], HostConfig::default()).await.expect("create");
            api.start(&id).await.expect("start");
            let (code, output) = api.exec(&id, &["echo", "here"]).await.expect("exec");
            assert_eq!((code, &output[..]), (0, &b"here\n"[..]));
            api.kill(&id).await.expect("kill");
            assert_eq!(api.wait(&id).await.expect("wait"), 137);
            api.remove(&id).await.expect("remove");
        });
        samples.push(held(engine.pid()));
        let took = begun.elapsed().as_secs_f64();
        if n < tenth {
            first += took;
        } else if n >= cycles - tenth {
            last += took;
        }
    }
    let (then, now) = (least(&samples[..settled]), least(&samples));
    println!(
        "cycles: {cycles} × create, start, exec, kill, wait, remove; engine after {settled} and at the end: \
         {:.2} and {:.2} MiB of anonymous memory, {} and {} descriptors, {} and {} threads; {:.1} ms a cycle \
         in the first tenth, {:.1} ms in the last",
        mib(then.memory),
        mib(now.memory),
        then.descriptors,
        now.descriptors,
        then.threads,
        now.threads,
        first / f64::from(u32::try_from(tenth).expect("small")) * 1e3,
        last / f64::from(u32::try_from(tenth).expect("small")) * 1e3,
    );
    until("the host to be as before", || (host(&engine) == before).then_some(()));
    // Connections of a moment; a leak of one per cycle would be `cycles`.
    assert!(now.descriptors <= then.descriptors + 8, "{then:?} {now:?}");
    // Threads for blocking work come and go, each with a stack. In 4,500 cycles
    // 128 KiB is 30 bytes each.
    let stacks = now.threads.saturating_sub(then.threads) as u64 * (256 << 10);
    let growth = (length(2048_u64, 128) << 10) + stacks;
    assert!(now.memory <= then.memory + growth, "{then:?} {now:?}");
    engine.assert_sound();
}

#[test]
fn a_shim_does_not_grow_with_what_is_executed() {
    let Some(engine) = with_busybox() else { return };
    let execs = length(250, 20_000);
    let settled = length(100, 500);
    engine.berth(&["run", "-d", "--name", "box", "busybox", "sleep", "100000"]).ok();
    let shim = engine.shim_pid("box");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let api = runtime.block_on(Api::of(&engine));
    let mut reference = None;
    let begun = Instant::now();
    for n in 0..execs {
        let (code, _) = runtime.block_on(api.exec("box", &["true"])).expect("exec");
        assert_eq!(code, 0);
        if n == settled {
            reference = Some(held(shim));
        }
    }
    let took = begun.elapsed().as_secs_f64();
    let (then, now) = (reference.expect("settled"), held(shim));
    println!(
        "execs: {execs}; shim after {settled} and at the end: {} and {} KiB of anonymous memory, {} and {} \
         descriptors; {:.1} ms an exec",
        then.memory / 1024,
        now.memory / 1024,
        then.descriptors,
        now.descriptors,
        took / f64::from(execs) * 1e3,
    );
    assert!(now.memory <= then.memory + 256 * 1024, "{then:?} {now:?}");
    // The pipes of one that has just ended.
    assert!(now.descriptors <= then.descriptors + 4, "{then:?} {now:?}");
    assert_eq!(now.threads, 1);
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
