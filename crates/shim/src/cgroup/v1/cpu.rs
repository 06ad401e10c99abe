// SPDX-License-Identifier: Apache-2.0
//! `cpu`: shares, and quota per period.

use std::path::Path;

use super::super::{Cpu, fs};
use crate::runtime::Result;

pub(super) fn apply(dir: &Path, cpu: &Cpu) -> Result<()> {
    if let Some(shares) = cpu.shares {
        fs::write(dir, "cpu.shares", &shares.to_string())?;
    }
    // The period first: a quota is judged by the period that is there.
    if let Some(period) = cpu.period {
        fs::write(dir, "cpu.cfs_period_us", &period.to_string())?;
    }
    cpu.quota.map_or(Ok(()), |quota| fs::write(dir, "cpu.cfs_quota_us", &quota.or_minus_one()))
}

#[cfg(test)]
mod tests {
    use super::{super::super::Limit, *};

    #[test]
    fn each_value_has_its_file() {
        let dir = tempfile::tempdir().expect("tempdir");
        for file in ["cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us"] {
            std::fs::write(dir.path().join(file), "").expect("write");
        }
        let cpu = Cpu { shares: Some(512), quota: Some(Limit::At(50_000)), period: Some(100_000) };
        apply(dir.path(), &cpu).expect("apply");
        let read = |file| fs::read(dir.path(), file).expect("read");
        assert_eq!(read("cpu.shares"), "512");
        assert_eq!(read("cpu.cfs_period_us"), "100000");
        assert_eq!(read("cpu.cfs_quota_us"), "50000");
    }
}
