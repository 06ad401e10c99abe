// SPDX-License-Identifier: Apache-2.0
//! Micro benches of the way from a container's bytes to its log: what bounds
//! how fast a container can print.

use std::hint::black_box;

use berth_shim::io::{
    Stream,
    log::{
        clock::Timestamp,
        cri, json_file,
        splitter::{End, Splitter},
    },
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

type Write = fn(&mut Vec<u8>, &Timestamp, Stream, &[u8], End);

fn json(out: &mut Vec<u8>, time: &Timestamp, stream: Stream, line: &[u8], end: End) {
    json_file::write(out, time, stream, line, end, b"");
}

/// One read of a full pipe: lines of `length` bytes.
fn output(length: usize) -> Vec<u8> {
    let line = [&vec![b'x'; length - 1][..], b"\n"].concat();
    line.repeat(64 * 1024 / length)
}

fn formats(c: &mut Criterion) {
    for (format, write) in [("cri", cri::write as Write), ("json-file", json)] {
        let mut group = c.benchmark_group(format);
        for length in [16, 80, 1024] {
            let bytes = output(length);
            group.throughput(Throughput::Bytes(bytes.len() as u64));
            group.bench_with_input(BenchmarkId::new("lines of", length), &bytes, |b, bytes| {
                let (mut splitter, mut out) = (Splitter::default(), Vec::new());
                b.iter(|| {
                    out.clear();
                    let now = Timestamp::now();
                    splitter.push(black_box(bytes), |line, end| {
                        write(&mut out, &now, Stream::Stdout, line, end);
                    });
                    out.len()
                });
            });
        }
    }
}

fn timestamps(c: &mut Criterion) {
    c.bench_function("timestamp", |b| b.iter(Timestamp::now));
}

criterion_group!(benches, formats, timestamps);
criterion_main!(benches);
