// SPDX-License-Identifier: Apache-2.0
//! Micro benches of what engine and shim say to each other: the two codecs,
//! and a whole call over a socket pair, which bounds what a task's Start can
//! cost on the wire.

use std::hint::black_box;

use berth::{
    api::task::{CreateTaskRequest, StateRequest, StateResponse},
    attach,
    ttrpc::{
        Status,
        client::Client,
        frame::{self, Kind},
        server::{self, Service},
    },
};
use bytes::BytesMut;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message as _;
use tokio::net::UnixStream;

/// A message as large as a `Create` is, and one as large as they get often.
const PAYLOADS: [usize; 2] = [512, 64 * 1024];

fn ttrpc_frame(c: &mut Criterion) {
    let mut group = c.benchmark_group("ttrpc frame");
    for size in PAYLOADS {
        let payload = vec![7; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("encode", size), &payload, |b, payload| {
            let mut out = BytesMut::new();
            b.iter(|| {
                out.clear();
                frame::encode(&mut out, 1, Kind::Request, black_box(payload)).expect("small");
            });
        });
        let mut wire = BytesMut::new();
        frame::encode(&mut wire, 1, Kind::Request, &payload).expect("small");
        group.bench_with_input(BenchmarkId::new("decode", size), &wire, |b, wire| {
            b.iter_batched_ref(
                || wire.clone(),
                |buffer| frame::decode(buffer).expect("valid").expect("whole"),
                criterion::BatchSize::SmallInput,
            );
        });
    }
}

fn attach_frame(c: &mut Criterion) {
    let mut group = c.benchmark_group("attach frame");
    // A line of output, and as much as one read of a full pipe gives.
    for size in [80, attach::MAX_PAYLOAD] {
        let payload = vec![b'x'; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("encode", size), &payload, |b, payload| {
            let mut out = BytesMut::new();
            b.iter(|| {
                out.clear();
                attach::encode(&mut out, attach::Kind::Stdout, black_box(payload));
            });
        });
        let mut wire = BytesMut::new();
        attach::encode(&mut wire, attach::Kind::Stdout, &payload);
        group.bench_with_input(BenchmarkId::new("decode", size), &wire, |b, wire| {
            b.iter_batched_ref(
                || wire.clone(),
                |buffer| attach::decode(buffer).expect("valid").expect("whole"),
                criterion::BatchSize::SmallInput,
            );
        });
    }
}

struct Answering;

impl Service for Answering {
    async fn call(&self, _: &str, _: &str, payload: &[u8]) -> Result<Vec<u8>, Status> {
        let request: StateRequest = server::decode(payload)?;
        Ok(StateResponse { id: request.id, pid: 1, ..Default::default() }.encode_to_vec())
    }
}

fn ttrpc_call(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // As in the shim: one thread for both ends.
    let local = tokio::task::LocalSet::new();
    let client = local.block_on(&runtime, async {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        tokio::task::spawn_local(async move { server::serve(theirs, &Answering).await });
        Client::new(ours)
    });
    let request = StateRequest { id: "f".repeat(64), exec_id: String::new() };
    c.bench_function("ttrpc call", |b| {
        b.iter(|| {
            let call = client.call::<_, StateResponse>("containerd.task.v3.Task", "State", &request, None);
            local.block_on(&runtime, call).expect("an answer")
        });
    });
}

fn create_request(c: &mut Criterion) {
    let request = CreateTaskRequest {
        id: "f".repeat(64),
        bundle: format!("/run/berth/bundles/default/{}", "f".repeat(64)),
        rootfs: vec![berth::api::types::Mount {
            r#type: "overlay".to_owned(),
            source: "overlay".to_owned(),
            target: String::new(),
            options: vec![format!("lowerdir={}", ["/var/lib/berth/snapshots/1234/fs"; 12].join(":"))],
        }],
        ..Default::default()
    };
    let wire = request.encode_to_vec();
    c.bench_function("Create encode", |b| b.iter(|| black_box(&request).encode_to_vec()));
    c.bench_function("Create decode", |b| b.iter(|| CreateTaskRequest::decode(black_box(&wire[..]))));
}

criterion_group!(benches, ttrpc_frame, attach_frame, ttrpc_call, create_request);
criterion_main!(benches);
