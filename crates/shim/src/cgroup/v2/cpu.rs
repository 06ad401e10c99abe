// SPDX-License-Identifier: Apache-2.0
//! `cpu`: a weight from the shares of v1, and quota with period in one file.

use std::path::Path;

use berth::cgroup::weight;
use nix::errno::Errno;

use super::super::{Cpu, fs};
use crate::runtime::{Error, Kind, Result};

pub(super) fn apply(dir: &Path, cpu: &Cpu) -> Result<()> {
    let realtime = [
        ("realtimeRuntime", cpu.realtime_runtime.is_some()),
        ("realtimePeriod", cpu.realtime_period.is_some()),
    ];
    if let Some((field, _)) = realtime.into_iter().find(|(_, asked)| *asked) {
        let why = format!("linux.resources.cpu.{field}: cgroup v2 does not have it");
        return Err(Error::new(Kind::Unsupported, why));
    }
    // An idle cgroup has no weight: out of it first, and into it last.
    if cpu.idle == Some(0) && fs::has(dir, "cpu.idle") {
        fs::set(dir, "cpu.idle", "0", "linux.resources.cpu.idle")?;
    }
    if let Some(shares) = cpu.shares {
        fs::set(dir, "cpu.weight", &weight(shares).to_string(), "linux.resources.cpu.shares")?;
    }
    bandwidth(dir, cpu)?;
    match cpu.idle {
        Some(idle) if idle != 0 => fs::set(dir, "cpu.idle", &idle.to_string(), "linux.resources.cpu.idle"),
        _ => Ok(()),
    }
}

/// Burst and quota are judged by each other: a burst that is refused is tried
/// again after the quota.
fn bandwidth(dir: &Path, cpu: &Cpu) -> Result<()> {
    const FIELD: &str = "linux.resources.cpu.burst";
    let burst = cpu.burst.filter(|burst| *burst != 0 || fs::has(dir, "cpu.max.burst")).map(|n| n.to_string());
    let max = max(dir, cpu)?;
    let mut again = None;
    if let Some(burst) = burst {
        match fs::try_write(dir, "cpu.max.burst", &burst) {
            Err(e) if e.errno() == Errno::EINVAL && max.is_some() => again = Some(burst),
            result => result.map_err(|e| fs::refused(&e, FIELD))?,
        }
    }
    if let Some(max) = max {
        fs::set(dir, "cpu.max", &max, "linux.resources.cpu.quota")?;
    }
    again.map_or(Ok(()), |burst| fs::set(dir, "cpu.max.burst", &burst, FIELD))
}

/// Quota and period as one line. A quota alone leaves the period as it is; for
/// a period alone the kernel wants the quota repeated.
fn max(dir: &Path, cpu: &Cpu) -> Result<Option<String>> {
    Ok(match (cpu.quota, cpu.period) {
        (None, None) => None,
        (Some(quota), None) => Some(quota.or_max()),
        (Some(quota), Some(period)) => Some(format!("{} {period}", quota.or_max())),
        (None, Some(period)) => {
            let now = fs::read(dir, "cpu.max")?;
            Some(format!("{} {period}", now.split_whitespace().next().unwrap_or("max")))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::{super::super::Limit, *};

    fn fake() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        for (file, text) in [
            ("cpu.max", "max 100000\n"),
            ("cpu.max.burst", "0\n"),
            ("cpu.weight", "100\n"),
            ("cpu.idle", "0\n"),
        ] {
            std::fs::write(dir.path().join(file), text).expect("write");
        }
        dir
    }

    #[test]
    fn quota_and_period_are_one_line() {
        let dir = fake();
        let quota = Some(Limit::At(50_000));
        for (cpu, text) in [
            (Cpu { quota, period: Some(5000), ..Cpu::default() }, "50000 5000"),
            (Cpu { period: Some(4000), ..Cpu::default() }, "50000 4000"),
            (Cpu { quota: Some(Limit::Unlimited), ..Cpu::default() }, "max"),
        ] {
            apply(dir.path(), &cpu).expect("apply");
            assert_eq!(fs::read(dir.path(), "cpu.max").expect("read"), text);
        }
    }

    #[test]
    fn each_value_has_its_file() {
        let dir = fake();
        let cpu = Cpu { shares: Some(1024), burst: Some(10), idle: Some(1), ..Cpu::default() };
        apply(dir.path(), &cpu).expect("apply");
        for (file, text) in [("cpu.weight", "100"), ("cpu.max.burst", "10"), ("cpu.idle", "1")] {
            assert_eq!(fs::read(dir.path(), file).expect("read"), text);
        }
    }

    #[test]
    fn realtime_is_an_error_that_names_the_field() {
        let cpu = Cpu { realtime_runtime: Some(1), ..Cpu::default() };
        let e = apply(fake().path(), &cpu).expect_err("v1 only");
        assert_eq!(e.kind(), Kind::Unsupported);
        assert!(e.to_string().starts_with("linux.resources.cpu.realtimeRuntime: "), "{e}");
    }
}
