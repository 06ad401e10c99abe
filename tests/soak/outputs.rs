// SPDX-License-Identifier: Apache-2.0
//! What prints and ends at once: every byte arrives.

use std::time::Instant;

use berth::api::v1::HostConfig;

use crate::{
    api::Api,
    lengths::{Chance, length, seed},
    support::engine::with_busybox,
};

/// Most bytes that one of them prints.
const MOST: usize = 200 * 1024;

/// Works at once.
const SIDE_BY_SIDE: usize = 8;

/// What `yes WORD | head -c SIZE` prints.
fn expected(word: &str, size: usize) -> Vec<u8> {
    let line = format!("{word}\n");
    line.bytes().cycle().take(size).collect()
}

async fn one(api: &Api, n: usize, size: usize) {
    let word = format!("{n:07}");
    let script = format!("yes {word} | head -c {size}");
    let command = ["sh", "-c", &script];
    let output = if n.is_multiple_of(4) {
        let id = api.create("", &command, HostConfig::default()).await.expect("create");
        api.start(&id).await.expect("start");
        assert_eq!(api.wait(&id).await.expect("wait"), 0);
        let output = api.logs(&id).await.expect("logs");
        api.remove(&id).await.expect("remove");
        output
    } else {
        let (code, output) = api.exec("box", &command).await.expect("exec");
        assert_eq!(code, 0);
        output
    };
    assert_eq!(output.len(), size, "bytes of number {n}");
    assert!(output == expected(&word, size), "number {n}: {size} bytes, others than were printed");
}

#[test]
fn every_byte_of_what_lives_for_a_moment_arrives() {
    let Some(engine) = with_busybox() else { return };
    let count = length(120, 10_000);
    let mut chance = Chance::new(seed());
    engine.berth(&["run", "-d", "--name", "box", "busybox", "sleep", "100000"]).ok();
    let sizes: Vec<usize> = (0..count).map(|_| chance.below(MOST + 1)).collect();
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let mut lanes = tokio::task::JoinSet::new();
        for lane in 0..SIDE_BY_SIDE {
            let api = Api::of(&engine).await;
            let sizes = sizes.clone();
            lanes.spawn(async move {
                for n in (lane..sizes.len()).step_by(SIDE_BY_SIDE) {
                    one(&api, n, sizes[n]).await;
                }
            });
        }
        while let Some(lane) = lanes.join_next().await {
            lane.expect("every byte");
        }
    });
    println!(
        "outputs: {count} of 0 to {} KiB, {} MiB in all, {:.1} s",
        MOST / 1024,
        sizes.iter().sum::<usize>() >> 20,
        begun.elapsed().as_secs_f64()
    );
}
