// SPDX-License-Identifier: Apache-2.0
//! Ten shims that are stopped: how long the calls of everybody else take, and
//! the next engine.

use std::time::{Duration, Instant};

use berth::api::v1::HostConfig;
use nix::sys::signal::Signal;

use crate::{
    api::Api,
    lengths::length,
    support::{engine::with_busybox, leaks::send},
};

const STOPPED: usize = 10;

/// Shims that don't answer until this is dropped.
struct Stopped(Vec<i32>);

impl Stopped {
    fn stop(shims: Vec<i32>) -> Self {
        shims.iter().for_each(|shim| send(*shim, Signal::SIGSTOP));
        Self(shims)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.iter().for_each(|shim| send(*shim, Signal::SIGCONT));
    }
}

/// The 99th of a hundred.
fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[(times.len() * 99).div_ceil(100) - 1]
}

#[test]
fn shims_that_are_stopped_cost_nobody_else_time() {
    let Some(mut engine) = with_busybox() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let api = runtime.block_on(Api::of(&engine));
    let sleeper = async |name: &str| {
        let id = api.create(name, &["sh", "-c", "echo here; sleep 100000"], HostConfig::default()).await;
        api.start(&id.expect("create")).await.expect("start");
    };
    let names: Vec<_> = (0..STOPPED).map(|n| format!("stopped{n}")).collect();
    for name in names.iter().map(String::as_str).chain(["free"]) {
        runtime.block_on(sleeper(name));
    }
    let shims = names.iter().map(|name| engine.shim_pid(name)).collect();
    let stopped = Stopped::stop(shims);

    let rounds = length(50, 1000);
    let mut times: [(&str, Vec<Duration>); 5] =
        ["list", "inspect", "inspect a stopped one", "logs", "exec"].map(|name| (name, Vec::new()));
    runtime.block_on(async {
        for _ in 0..rounds {
            for (name, times) in &mut times {
                let begun = Instant::now();
                match *name {
                    "list" => assert_eq!(api.list().await.expect("list").len(), STOPPED + 1),
                    "inspect" => drop(api.inspect("free").await.expect("inspect")),
                    "inspect a stopped one" => drop(api.inspect("stopped0").await.expect("inspect")),
                    "logs" => assert_eq!(api.logs("free").await.expect("logs"), b"here\n"),
                    _ => assert_eq!(api.exec("free", &["true"]).await.expect("exec").0, 0),
                }
                times.push(begun.elapsed());
            }
        }
    });
    engine.kill9();
    let begun = Instant::now();
    engine.restart();
    let serving = begun.elapsed();
    drop(stopped);

    let times = times.map(|(name, times)| (name, p99(times)));
    let shown: Vec<_> =
        times.iter().map(|(name, p99)| format!("{name} {:.1} ms", p99.as_secs_f64() * 1e3)).collect();
    println!(
        "stuck: {rounds} calls of each kind beside {STOPPED} stopped shims, 99th percentile: {}; a new engine \
         serves after {} ms",
        shown.join(", "),
        serving.as_millis()
    );
    // A slice runs beside other tests, and unoptimised.
    let limit = Duration::from_millis(length(5000, 50));
    assert!(times.iter().all(|(_, p99)| *p99 < limit), "{times:?}");
    assert!(serving < Duration::from_secs(length(10, 1)), "{serving:?}");
}
