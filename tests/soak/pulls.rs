// SPDX-License-Identifier: Apache-2.0
//! Many pulls at once, of images that share layers, while images are pruned
//! again and again: no pull fails, and what is here at the end is whole.

use std::time::{Duration, Instant};

use crate::{
    lengths::length,
    support::{
        Engine,
        command::Background,
        engine,
        image::{Builder, Layer},
        wait::within,
    },
};

/// Between two prunes.
const EVERY: Duration = Duration::from_millis(100);

fn name(image: usize) -> String {
    format!("team/app{image}:1")
}

/// Starts `pulls` of them, each image several times, and prunes until the last
/// has ended. How many prunes, and how long the longest pull took.
#[track_caller]
fn round(engine: &Engine, pulls: usize, images: usize, all: bool) -> (usize, Duration) {
    let started = Instant::now();
    let mut running: Vec<Option<Background>> =
        (0..pulls).map(|n| Some(engine.background(&["pull", "-q", &name(n % images)]))).collect();
    let (mut prunes, mut longest) = (Vec::new(), Duration::ZERO);
    let mut pruned = Instant::now();
    let args: &[&str] = if all { &["image", "prune", "-af"] } else { &["image", "prune", "-f"] };
    within(Duration::from_secs(300), "the pulls to end", || {
        if pruned.elapsed() >= EVERY {
            pruned = Instant::now();
            prunes.push(engine.background(args));
        }
        for (n, slot) in running.iter_mut().enumerate() {
            let Some(pull) = slot else { continue };
            if let Some(status) = pull.child.try_wait().expect("wait") {
                assert!(status.success(), "pull of {}: {status}\n{}", name(n % images), engine.log());
                longest = longest.max(started.elapsed());
                *slot = None;
            }
        }
        running.iter().all(Option::is_none).then_some(())
    });
    for prune in &mut prunes {
        assert_eq!(prune.wait(), 0, "a prune");
    }
    (prunes.len(), longest)
}

#[test]
fn no_pull_fails_while_images_are_pruned() {
    let (pulls, rounds) = length((20, 3), (200, 10));
    let images = pulls / 4;
    let Some((engine, registry)) = engine::with_registry() else { return };
    for n in 0..images {
        let mut own = Layer::new();
        own.file(&format!("own{n}"), 0o644, n.to_string().repeat(10_000).as_bytes());
        // One image's end may be another's beginning.
        let mut shared = Layer::new();
        shared.file(&format!("shared{}", n % 5), 0o644, &[b'x'; 100_000]);
        registry.push(&Builder::new().layer(shared).layer(own).build(), &format!("team/app{n}"), "1");
    }
    let (mut prunes, mut longest) = (0, Duration::ZERO);
    for number in 0..rounds {
        // With `all` also what was pulled a moment ago goes at once.
        let (more, time) = round(&engine, pulls, images, number % 2 == 1);
        prunes += more;
        longest = longest.max(time);
        for n in 0..images {
            engine.berth(&["pull", "-q", &name(n)]).ok();
            engine.berth(&["image", "inspect", &name(n)]).ok();
            engine.berth(&["rmi", &name(n)]).ok();
        }
        engine.fsck(&["--digests"]).ok();
    }
    println!(
        "pulls: {rounds} × {pulls} at once, {prunes} prunes meanwhile, none failed; the longest took {:.1} s",
        longest.as_secs_f64()
    );
}
