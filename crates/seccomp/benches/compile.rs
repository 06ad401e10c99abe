// SPDX-License-Identifier: Apache-2.0
//! What a start pays for its seccomp filter: the figures of
//! docs/adr/0014-seccomp-compiled-once.md.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use oci_spec::runtime::LinuxSeccomp;

fn built_in(c: &mut Criterion) {
    let text = include_str!("../../../tests/golden/seccomp-default.json");
    let profile: LinuxSeccomp = serde_json::from_str(text).expect("a profile");
    println!("{} instructions", berth_seccomp::compile(&profile).expect("a program").filter.len());
    let mut group = c.benchmark_group("seccomp");
    group.bench_function("read the profile", |b| {
        b.iter(|| serde_json::from_str::<LinuxSeccomp>(black_box(text)).expect("a profile"));
    });
    group.bench_function("compile it", |b| {
        b.iter(|| berth_seccomp::compile(black_box(&profile)).expect("a program"))
    });
    group.bench_function("write it again", |b| {
        b.iter(|| serde_json::to_vec(black_box(&profile)).expect("JSON"));
    });
    // As the engine does: the whole profile is compared.
    let known = profile.clone();
    group.bench_function("find it among those compiled", |b| {
        b.iter(|| black_box(&known) == black_box(&profile))
    });
    group.finish();
}

criterion_group!(benches, built_in);
criterion_main!(benches);
