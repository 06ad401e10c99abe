// SPDX-License-Identifier: Apache-2.0
//! Many containers: an engine that is killed serves again at once, knows all of
//! them soon, and costs nothing while nothing happens.

use std::{
    collections::HashMap,
    fs, thread,
    time::{Duration, Instant},
};

use berth::api::v1::{ContainerState, HostConfig, container_state::Status};

use crate::{
    api::Api,
    lengths::length,
    support::{engine::with_busybox, until},
};

/// How often a process has given the processor up of its own accord: the sum
/// over its threads, those that have ended left out.
fn switches(pid: i32) -> HashMap<String, u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("threads").flatten();
    let read = |entry: fs::DirEntry| {
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        Some((entry.file_name().to_string_lossy().into_owned(), count.trim().parse().ok()?))
    };
    threads.filter_map(read).collect()
}

/// KiB of a field of smaps_rollup.
fn memory(pid: i32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok()).expect(field)
}

#[test]
fn many_containers_survive_the_engine_and_cost_it_nothing() {
    let Some(mut engine) = with_busybox() else { return };
    let count = length(30, 500);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let api = runtime.block_on(Api::of(&engine));
    let begun = Instant::now();
    for n in 0..count {
        runtime.block_on(async {
            let name = format!("box{n}");
            let id = api.create(&name, &["sleep", "100000"], HostConfig::default()).await.expect("create");
            api.start(&id).await.expect("start");
        });
    }
    let made = begun.elapsed();
    let shim = engine.shim_pid("box0");
    let pids = |engine: &crate::support::Engine| {
        ["box0", &format!("box{}", count - 1)].map(|name| engine.inspect(name)["State"]["Pid"].clone())
    };
    let before = pids(&engine);
    drop(api);
    engine.kill9();

    let begun = Instant::now();
    engine.restart();
    let serving = begun.elapsed();
    let api = runtime.block_on(Api::of(&engine));
    until("every container to be known again", || {
        let all = runtime.block_on(api.list()).expect("list");
        assert_eq!(all.len(), count);
        let runs =
            |state: Option<&ContainerState>| state.map(ContainerState::status) == Some(Status::Running);
        all.iter().all(|one| runs(one.state.as_ref())).then_some(())
    });
    let reconciled = begun.elapsed();
    assert_eq!(pids(&engine), before);
    drop(api);

    // Threads that have nothing to do end after ten seconds.
    let pid = engine.pid();
    until("the engine to come to rest", || {
        let before = switches(pid);
        #[expect(clippy::disallowed_methods, reason = "a second in which nothing may happen")]
        thread::sleep(Duration::from_secs(1));
        (switches(pid) == before).then_some(())
    });
    let window = Duration::from_secs(length(3, 10));
    let at_rest = switches(pid);
    #[expect(clippy::disallowed_methods, reason = "the time that is measured")]
    thread::sleep(window);
    let woken: u64 = {
        let now = switches(pid);
        now.iter().map(|(thread, count)| count - at_rest.get(thread).copied().unwrap_or(0)).sum()
    };
    println!(
        "scale: {count} containers, made in {:.1} s; engine killed and started: serving after {} ms, all \
         known after {} ms; at rest: woken {woken} times in {} s, engine {:.1} MiB of its own, a shim {} KiB \
         (PSS {} KiB)",
        made.as_secs_f64(),
        serving.as_millis(),
        reconciled.as_millis(),
        window.as_secs(),
        (memory(pid, "Private_Dirty") + memory(pid, "Private_Clean")) as f64 / 1024.0,
        memory(shim, "Private_Dirty") + memory(shim, "Private_Clean"),
        memory(shim, "Pss"),
    );
    // A slice runs beside other tests, and unoptimised.
    assert!(serving < Duration::from_secs(length(10, 1)), "{serving:?}");
    assert!(reconciled < Duration::from_secs(length(20, 5)), "{reconciled:?}");
    assert!(woken <= 2, "woken {woken} times");
}
