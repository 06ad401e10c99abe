// SPDX-License-Identifier: Apache-2.0
//! `blkio`: weights, by whichever scheduler has them, and limits of devices.

use std::path::Path;

use super::super::{BlockIo, Traffic, fs};
use crate::runtime::Result;

const FIELD: &str = "linux.resources.blockIO";

pub(super) fn apply(dir: &Path, block_io: &BlockIo) -> Result<()> {
    if !block_io.is_set() {
        return Ok(());
    }
    // BFQ's file is there from Linux 5.0 on, CFQ's up to then.
    let bfq = !fs::has(dir, "blkio.weight");
    let (weight, weight_device) = if bfq {
        ("blkio.bfq.weight", "blkio.bfq.weight_device")
    } else {
        ("blkio.weight", "blkio.weight_device")
    };
    let set = |file: &str, value: Option<String>, field: &str| {
        value.map_or(Ok(()), |value| fs::set(dir, file, &value, &format!("{FIELD}.{field}")))
    };
    set(weight, block_io.weight.map(|n| n.to_string()), "weight")?;
    set("blkio.leaf_weight", block_io.leaf_weight.map(|n| n.to_string()), "leafWeight")?;
    for one in &block_io.device_weights {
        let line = |n: u16| format!("{} {n}", one.device);
        set(weight_device, one.weight.map(line), "weightDevice")?;
        set("blkio.leaf_weight_device", one.leaf_weight.map(line), "weightDevice")?;
    }
    for throttle in &block_io.throttles {
        let line = format!("{} {}", throttle.device, throttle.rate);
        fs::set(dir, file_of(throttle.what), &line, throttle.what.field())?;
    }
    Ok(())
}

fn file_of(what: Traffic) -> &'static str {
    match what {
        Traffic::ReadBytes => "blkio.throttle.read_bps_device",
        Traffic::WriteBytes => "blkio.throttle.write_bps_device",
        Traffic::ReadOperations => "blkio.throttle.read_iops_device",
        Traffic::WriteOperations => "blkio.throttle.write_iops_device",
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{Device, DeviceWeight, Throttle},
        *,
    };

    fn fake(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        for file in files {
            std::fs::write(dir.path().join(file), "").expect("write");
        }
        dir
    }

    #[test]
    fn weights_go_to_the_scheduler_that_there_is() {
        let device = Device { major: 8, minor: 0 };
        let weights = vec![DeviceWeight { device, weight: Some(300), leaf_weight: None }];
        let block_io = BlockIo { weight: Some(200), device_weights: weights, ..BlockIo::default() };
        for prefix in ["blkio.bfq", "blkio"] {
            let names = [format!("{prefix}.weight"), format!("{prefix}.weight_device")];
            let dir = fake(&[&names[0], &names[1]]);
            apply(dir.path(), &block_io).expect("apply");
            assert_eq!(fs::read(dir.path(), &names[0]).expect("read"), "200");
            assert_eq!(fs::read(dir.path(), &names[1]).expect("read"), "8:0 300");
        }
    }

    #[test]
    fn a_limit_is_a_line_of_its_device() {
        let dir = fake(&["blkio.throttle.write_bps_device"]);
        let device = Device { major: 253, minor: 16 };
        let throttles = vec![Throttle { device, what: Traffic::WriteBytes, rate: 4096 }];
        apply(dir.path(), &BlockIo { throttles, ..BlockIo::default() }).expect("apply");
        assert_eq!(fs::read(dir.path(), "blkio.throttle.write_bps_device").expect("read"), "253:16 4096");
    }

    #[test]
    fn a_weight_that_no_scheduler_has_is_an_error() {
        let dir = fake(&[]);
        let e = apply(dir.path(), &BlockIo { leaf_weight: Some(10), ..BlockIo::default() });
        let e = e.expect_err("gone with CFQ").to_string();
        assert!(e.starts_with("linux.resources.blockIO.leafWeight: "), "{e}");
    }
}
