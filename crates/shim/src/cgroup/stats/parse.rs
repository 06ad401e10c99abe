// SPDX-License-Identifier: Apache-2.0
//! The formats that the kernel writes counters in. A line that isn't
//! understood is left out: newer kernels say more.

use std::{collections::BTreeMap, path::Path};

use super::{Device, IoEntry, Pressure, RdmaEntry, Stall};
use crate::cgroup::fs;

/// Lines of `key value`.
pub(super) fn flat(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// As [`flat`], of a file that may not be there.
pub(super) fn flat_file(dir: &Path, file: &str) -> BTreeMap<String, u64> {
    fs::read(dir, file).map(|text| flat(&text)).unwrap_or_default()
}

/// v1: `8:0 Read 4096`, and a total without device.
pub(super) fn io_v1(text: &str) -> Vec<IoEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let device = device(words.next()?)?;
        let operation = words.next()?.to_owned();
        Some(IoEntry { device, operation, value: words.next()?.parse().ok()? })
    };
    text.lines().filter_map(entry).collect()
}

/// v2: `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`: bytes, then
/// operations, by v1's names.
pub(super) fn io_v2(text: &str) -> (Vec<IoEntry>, Vec<IoEntry>) {
    let (mut bytes, mut operations) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(device) = words.next().and_then(device) else { continue };
        for word in words {
            let Some((key, value)) = word.split_once('=') else { continue };
            let (to, operation) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "dbytes" => (&mut bytes, "Discard"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                "dios" => (&mut operations, "Discard"),
                _ => continue,
            };
            let Ok(value) = value.parse() else { continue };
            to.push(IoEntry { device, operation: operation.to_owned(), value });
        }
    }
    (bytes, operations)
}

fn device(text: &str) -> Option<Device> {
    let (major, minor) = text.split_once(':')?;
    Some(Device { major: major.parse().ok()?, minor: minor.parse().ok()? })
}

/// `mlx5_0 hca_handle=2 hca_object=max`.
pub(super) fn rdma(text: &str) -> Vec<RdmaEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let mut entry = RdmaEntry { device: words.next()?.to_owned(), ..RdmaEntry::default() };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let value = if value == "max" { u32::MAX } else { value.parse().ok()? };
            match key {
                "hca_handle" => entry.handles = value,
                "hca_object" => entry.objects = value,
                _ => {}
            }
        }
        Some(entry)
    };
    text.lines().filter_map(entry).collect()
}

/// A pressure file. Kernels without PSI have none, or refuse to read it.
pub(super) fn pressure_file(dir: &Path, file: &str) -> Option<Pressure> {
    pressure(&fs::read(dir, file).ok()?)
}

fn pressure(text: &str) -> Option<Pressure> {
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(stall);
    Some(Pressure { some: line("some ")?, full: line("full ").unwrap_or_default() })
}

fn stall(text: &str) -> Stall {
    let value =
        |key: &str| text.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let average = |key: &str| value(key).and_then(|text| text.parse().ok()).unwrap_or_default();
    Stall {
        avg10: average("avg10"),
        avg60: average("avg60"),
        avg300: average("avg300"),
        total: value("total").and_then(|text| text.parse().ok()).unwrap_or_default(),
    }
}

/// The sizes of huge pages that `dir` counts in files of this ending.
pub(super) fn huge_page_sizes(dir: &Path, ending: &str) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let size = |name: String| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(ending)?.strip_suffix('.')?;
        (!size.contains('.')).then(|| size.to_owned())
    };
    let mut sizes: Vec<_> = entries
        .flatten()
        .filter_map(|entry| size(entry.file_name().to_string_lossy().into_owned()))
        .collect();
    sizes.sort_unstable();
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Device = Device { major: 8, minor: 0 };

    fn entry(operation: &str, value: u64) -> IoEntry {
        IoEntry { device: DISK, operation: operation.to_owned(), value }
    }

    #[test]
    fn both_formats_of_devices() {
        let v1 = io_v1("8:0 Read 4096\n8:0 Total 4096\nTotal 4096\n");
        assert_eq!(v1, [entry("Read", 4096), entry("Total", 4096)]);
        let (bytes, operations) =
            io_v2("8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0 cost.usage=3\n\n");
        assert_eq!(bytes, [entry("Read", 10), entry("Write", 20), entry("Discard", 0)]);
        assert_eq!(operations, [entry("Read", 1), entry("Write", 2), entry("Discard", 0)]);
    }

    #[test]
    fn pressure_in_both_lines_or_one() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3\n";
        let both = pressure(text).expect("pressure");
        assert_eq!((both.some.avg10, both.some.total, both.full.total), (1.5, 7, 3));
        // Of processors, older kernels know no "full".
        let some = pressure(&text[..text.find('\n').expect("line")]).expect("pressure");
        assert_eq!(some.full, Stall::default());
        assert_eq!(pressure(""), None);
    }

    #[test]
    fn rdma_devices() {
        let entry = RdmaEntry { device: "mlx5_0".to_owned(), handles: 2, objects: u32::MAX };
        assert_eq!(rdma("mlx5_0 hca_handle=2 hca_object=max\n"), [entry]);
    }

    #[test]
    fn keys_and_values() {
        let map = flat("a 1\nb x\n\nc 3\n");
        assert_eq!(map.into_iter().collect::<Vec<_>>(), [("a".to_owned(), 1), ("c".to_owned(), 3)]);
    }

    #[test]
    fn sizes_are_read_off_the_files() {
        let dir = tempfile::tempdir().expect("tempdir");
        for file in
            ["hugetlb.2MB.current", "hugetlb.2MB.rsvd.current", "hugetlb.1GB.current", "memory.current"]
        {
            std::fs::write(dir.path().join(file), "0").expect("write");
        }
        assert_eq!(huge_page_sizes(dir.path(), "current"), ["1GB", "2MB"]);
    }
}
