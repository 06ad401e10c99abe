// SPDX-License-Identifier: Apache-2.0
//! Micro benches of the engine's pure parts that are on the way of a pull or
//! of a start.

use std::{hint::black_box, path::Path};

use berth_engine::{
    domain::{
        container::{Config, Document, Effective},
        digest::Digest,
        spec::{self, EtcFiles, Facts},
    },
    image::{reference::Reference, registry::auth},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn references(c: &mut Criterion) {
    let mut group = c.benchmark_group("reference");
    let long = format!("registry.example.com:5000/a/b/c/app@sha256:{}", "0f".repeat(32));
    for (name, text) in [("short", "hello-world"), ("long", &long)] {
        group.bench_function(name, |b| b.iter(|| black_box(text).parse::<Reference>()));
    }
}

fn challenges(c: &mut Criterion) {
    let header = r#"Bearer realm="https://auth.example.com/token",service="registry.example.com",scope="repository:a/b:pull""#;
    c.bench_function("challenge", |b| b.iter(|| auth::parse_challenge(black_box(header))));
}

fn digests(c: &mut Criterion) {
    let blob = vec![0x5a; 1 << 20];
    let mut group = c.benchmark_group("digest");
    group.throughput(Throughput::Bytes(blob.len() as u64));
    group.bench_function("sha256 of 1 MiB", |b| b.iter(|| Digest::of(black_box(&blob))));
}

/// What a start adds to the container's own work: configuration to
/// config.json.
fn specification(c: &mut Criterion) {
    let document = Document {
        config: Config { image: "bench".to_owned(), ..Config::default() },
        effective: Effective {
            args: vec!["true".to_owned()],
            env: vec!["PATH=/usr/bin:/bin".to_owned(), "LANG=C.UTF-8".to_owned()],
            working_dir: "/".to_owned(),
            hostname: "0123456789ab".to_owned(),
            ..Effective::default()
        },
    };
    let facts = Facts {
        cgroup_path: "/berth/default-0123".to_owned(),
        etc: EtcFiles::within(Path::new("/var/lib/berth/containers/0123")),
        ..Facts::default()
    };
    let mut group = c.benchmark_group("specification");
    group.bench_function("build", |b| b.iter(|| spec::build(black_box(&document), &facts)));
    let built = spec::build(&document, &facts).expect("a valid document");
    group.bench_function("to JSON", |b| b.iter(|| serde_json::to_vec(black_box(&built))));
}

criterion_group!(benches, references, challenges, digests, specification);
criterion_main!(benches);
