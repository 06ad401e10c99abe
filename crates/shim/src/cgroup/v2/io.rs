// SPDX-License-Identifier: Apache-2.0
//! `io`: weights, by whichever scheduler has them, and limits of devices.

use std::{collections::BTreeMap, path::Path};

use berth::cgroup::io_weight;

use super::super::{BlockIo, Device, Throttle, Traffic, fs};
use crate::runtime::Result;

const FIELD: &str = "linux.resources.blockIO";

pub(super) fn apply(dir: &Path, block_io: &BlockIo, warnings: &mut Vec<String>) -> Result<()> {
    let set = |file: &str, value: &str, field: &str| fs::set(dir, file, value, &format!("{FIELD}.{field}"));
    if block_io.weight.is_some() || !block_io.device_weights.is_empty() {
        // BFQ has v1's numbers, the kernel's other scheduler (iocost) v2's.
        let bfq = fs::has(dir, "io.bfq.weight");
        let file = if bfq { "io.bfq.weight" } else { "io.weight" };
        let number = |n: u16| if bfq { u64::from(n) } else { io_weight(n.into()) };
        if let Some(n) = block_io.weight {
            set(file, &format!("{}{}", if bfq { "" } else { "default " }, number(n)), "weight")?;
        }
        for one in &block_io.device_weights {
            if let Some(n) = one.weight {
                set(file, &format!("{} {}", one.device, number(n)), "weightDevice")?;
            }
        }
    }
    if block_io.leaf_weight.is_some() || block_io.device_weights.iter().any(|one| one.leaf_weight.is_some()) {
        warnings.push(format!("{FIELD}.leafWeight is discarded: cgroup v2 does not have it"));
    }
    // One line for all limits of a device.
    for (line, field) in lines(&block_io.throttles) {
        fs::set(dir, "io.max", &line, field)?;
    }
    Ok(())
}

fn lines(throttles: &[Throttle]) -> Vec<(String, &'static str)> {
    let mut devices: BTreeMap<Device, (String, &'static str)> = BTreeMap::new();
    for throttle in throttles {
        let (line, _) = devices
            .entry(throttle.device)
            .or_insert_with(|| (throttle.device.to_string(), throttle.what.field()));
        let key = match throttle.what {
            Traffic::ReadBytes => "rbps",
            Traffic::WriteBytes => "wbps",
            Traffic::ReadOperations => "riops",
            Traffic::WriteOperations => "wiops",
        };
        let rate = if throttle.rate == 0 { "max".to_owned() } else { throttle.rate.to_string() };
        line.push_str(&format!(" {key}={rate}"));
    }
    devices.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_one_line() {
        let device = |minor| Device { major: 8, minor };
        let throttle = |minor, what, rate| Throttle { device: device(minor), what, rate };
        let throttles = [
            throttle(16, Traffic::ReadBytes, 600),
            throttle(0, Traffic::WriteBytes, 0),
            throttle(16, Traffic::WriteOperations, 30),
        ];
        let lines: Vec<_> = lines(&throttles).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, ["8:0 wbps=max", "8:16 rbps=600 wiops=30"]);
    }

    #[test]
    fn weights_go_to_the_scheduler_that_there_is() {
        for (file, text) in [("io.weight", "default 910"), ("io.bfq.weight", "100")] {
            let dir = tempfile::tempdir().expect("tempdir");
            std::fs::write(dir.path().join(file), "").expect("write");
            apply(dir.path(), &BlockIo { weight: Some(100), ..BlockIo::default() }, &mut Vec::new())
                .expect("apply");
            assert_eq!(fs::read(dir.path(), file).expect("read"), text);
        }
    }
}
