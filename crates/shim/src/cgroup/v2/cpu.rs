// SPDX-License-Identifier: Apache-2.0
//! `cpu`: a weight from the shares of v1, and quota with period in one file.

use std::path::Path;

use super::super::{Cpu, Limit, fs};
use crate::runtime::Result;

/// The kernel's own default period, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

pub(super) fn apply(dir: &Path, cpu: &Cpu) -> Result<()> {
    if let Some(shares) = cpu.shares {
        fs::write(dir, "cpu.weight", &weight(shares).to_string())?;
    }
    if cpu.quota.is_none() && cpu.period.is_none() {
        return Ok(());
    }
    let quota = cpu.quota.unwrap_or(Limit::Unlimited).or_max();
    fs::write(dir, "cpu.max", &format!("{quota} {}", cpu.period.unwrap_or(DEFAULT_PERIOD)))
}

/// The weight for v1's shares: the smallest, the normal and the largest value
/// of one are those of the other (2, 1024, 262144 → 1, 100, 10000), and the
/// curve through the three is quadratic in the logarithms, as runc and crun
/// have it.
fn weight(shares: u64) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "at most 2^18")]
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // The value at 1024 is 100 but for rounding.
    let weight = (10_f64.powf(exponent) - 1e-9).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 10000")]
    let weight = weight as u64;
    weight.clamp(1, 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_points_of_the_curve() {
        assert_eq!([0, 2, 1024, 262_144, u64::MAX].map(weight), [1, 1, 100, 10_000, 10_000]);
        assert!((2..262_144).step_by(97).all(|shares| weight(shares) <= weight(shares + 97)));
    }

    #[test]
    fn quota_and_period_are_one_line() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("cpu.max"), "").expect("write");
        let half = Cpu { quota: Some(Limit::At(50_000)), ..Cpu::default() };
        apply(dir.path(), &half).expect("apply");
        assert_eq!(fs::read(dir.path(), "cpu.max").expect("read"), "50000 100000");
        apply(dir.path(), &Cpu { period: Some(5000), ..Cpu::default() }).expect("apply");
        assert_eq!(fs::read(dir.path(), "cpu.max").expect("read"), "max 5000");
    }
}
