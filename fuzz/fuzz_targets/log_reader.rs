// SPDX-License-Identifier: Apache-2.0
//! A log's files, with any bytes in them: what is read has one order, is read
//! again the same from any place in it, and accounts for every byte.
#![no_main]

use std::{fs, path::Path};

use berth_engine::lifecycle::logs::{Format, From, Line, Reader};
use libfuzzer_sys::fuzz_target;

fn read(path: &Path, format: Format, from: From) -> Vec<Line> {
    let mut reader = Reader::open(path, format, from).expect("open");
    let mut all = Vec::new();
    loop {
        let lines = reader.next_batch().expect("read");
        if lines.is_empty() {
            all.extend(reader.rest(true));
            return all;
        }
        all.extend(lines);
    }
}

fuzz_target!(|input: (bool, u8, u8, Vec<(bool, Vec<u8>)>)| {
    let (json, tail, place, segments) = input;
    let format = if json { Format::Json } else { Format::Cri };
    let dir = tempfile::tempdir().expect("tempdir");
    let path = dir.path().join("log");
    for (number, (compressed, bytes)) in (1..).zip(segments.iter().take(4)) {
        let name = if *compressed { berth::log::compressed(&path, number) } else { berth::log::segment(&path, number) };
        fs::write(name, bytes).expect("write");
    }
    let all = read(&path, format, From::Start);
    assert!(all.is_sorted_by_key(|line| line.next));
    let lines: Vec<_> = all.iter().filter(|line| line.gap.is_none()).collect();
    if let Some(line) = lines.get(usize::from(place)) {
        let rest = read(&path, format, From::Place(line.next));
        let rest: Vec<_> = rest.iter().filter(|line| line.gap.is_none()).collect();
        assert_eq!(rest, lines[usize::from(place) + 1..]);
    }
    let end = read(&path, format, From::Tail(tail.into()));
    let end: Vec<_> = end.iter().filter(|line| line.gap.is_none()).collect();
    assert!(lines.ends_with(&end));
});
