// SPDX-License-Identifier: Apache-2.0
//! Processes by the thousand: none hangs, and nothing of the shim grows.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use berth::api::shim::CreateOptions;

use crate::{
    execs::Exec,
    harness::{DEADLINE, Engine, Shim},
};

/// As many at a time.
const AT_ONCE: usize = 8;

/// What the shim has and the container's cgroups are.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    children: usize,
    cgroups: BTreeSet<PathBuf>,
}

impl Held {
    fn by(shim: &Shim) -> Self {
        let of = |name: &str| format!("/proc/{}/{name}", shim.pid());
        let children = fs::read_to_string(of(&format!("task/{}/children", shim.pid()))).unwrap();
        Self {
            descriptors: fs::read_dir(of("fd")).unwrap().count(),
            children: children.split_whitespace().count(),
            cgroups: shim.cgroups(),
        }
    }
}

/// KiB of the shim that no file backs (proc_pid_status(5)).
fn resident(shim: &Shim) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", shim.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// One process after the other: each is waited for, within the deadline of a
/// call, and forgotten.
async fn several(shim: &Shim, first: usize, count: usize) {
    let engine = shim.connect().await;
    for number in first..first + count {
        one(&engine, number).await;
    }
}

async fn one(engine: &Engine, number: usize) {
    let id = format!("e{number}");
    // Some have ended before anybody waits, some can't be executed at all.
    let exec = Exec::add_with(engine, &id, "exit 3", |options, _| {
        if number.is_multiple_of(10) {
            options.process = br#"{"args": ["/none"], "cwd": "/", "user": {"uid": 0, "gid": 0}}"#.to_vec();
        }
    });
    let exec = exec.await;
    let started = exec.start().await;
    assert_eq!(started.is_ok(), !number.is_multiple_of(10), "{id}: {started:?}");
    if started.is_ok() {
        assert_eq!(exec.wait().await, 3, "{id}");
    }
    exec.delete().await.unwrap();
}

/// runc's leaks of descriptors (#5007, #5021, #5026, #5034), and its exec that
/// hung when the process was faster than whoever waited (#5208).
/// BERTH_EXECS makes it longer.
#[tokio::test]
async fn r17_r18_a_thousand_processes_and_nothing_grows() {
    let Some(shim) = Shim::new("exec sleep 1000") else { return };
    let engine = shim.connect().await;
    engine.create(CreateOptions::default()).await.unwrap();
    engine.start().await.unwrap();
    let total = std::env::var("BERTH_EXECS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    // By this connection, so that its end isn't awaited in what is compared.
    for number in 0..60 {
        one(&engine, number).await;
    }
    let (before, memory) = (Held::by(&shim), resident(&shim));
    let each = total / AT_ONCE;
    let runs = (0..AT_ONCE).map(|n| several(&shim, 1000 + n * each, each));
    futures_of(runs).await;
    // A connection's end is noticed a moment later.
    let begun = Instant::now();
    while Held::by(&shim) != before && begun.elapsed() < DEADLINE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(Held::by(&shim), before, "the shim is as before");
    let grown = resident(&shim).saturating_sub(memory);
    println!("{total} processes, {grown} KiB more");
    assert!(grown < 1024, "{grown} KiB for {total} processes");
}

/// All of them at the same time, in this task.
async fn futures_of(runs: impl Iterator<Item = impl Future<Output = ()>>) {
    let mut runs: Vec<_> = runs.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        runs.retain_mut(|run| run.as_mut().poll(context).is_pending());
        if runs.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
