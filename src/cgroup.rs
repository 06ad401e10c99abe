// SPDX-License-Identifier: Apache-2.0
//! Numbers of control groups that the shim writes and the engine's checker
//! reads back.

/// cgroup v2's weight for v1's shares: the smallest, the normal and the largest
/// value of one are those of the other (2, 1024, 262144 → 1, 100, 10000), and
/// the curve through the three is quadratic in the logarithms, as runc and crun
/// have it.
#[must_use]
pub fn weight(shares: u64) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "at most 2^18")]
    let log = (shares.clamp(2, 262_144) as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    // The value at 1024 is 100 but for rounding.
    let weight = (10_f64.powf(exponent) - 1e-9).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 10000")]
    let weight = weight as u64;
    weight.clamp(1, 10_000)
}

/// cgroup v2's weight of block I/O for v1's: 10 to 1000 as 1 to 10000, in a
/// straight line as runc has it.
#[must_use]
pub fn io_weight(weight: u64) -> u64 {
    1 + (weight.clamp(10, 1000) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_three_points_of_the_curve() {
        assert_eq!([0, 2, 1024, 262_144, u64::MAX].map(weight), [1, 1, 100, 10_000, 10_000]);
        // As runc 1.3.2 and crun 1.23 have them.
        assert_eq!([100, 512, 2000, 2048].map(weight), [17, 59, 170, 174]);
    }

    #[test]
    fn the_ends_of_the_line() {
        assert_eq!([0, 10, 500, 1000, 2000].map(io_weight), [1, 1, 4950, 10_000, 10_000]);
    }

    proptest! {
        #[test]
        fn a_greater_weight_of_io_is_never_less(a in 10..=1000_u64, b in 10..=1000_u64) {
            prop_assert_eq!(a.cmp(&b), io_weight(a).cmp(&io_weight(b)));
            prop_assert!((1..=10_000).contains(&io_weight(a)));
        }

        #[test]
        fn more_shares_never_weigh_less(a in 0..300_000_u64, b in 0..300_000_u64) {
            let (less, more) = (a.min(b), a.max(b));
            prop_assert!(weight(less) <= weight(more));
            prop_assert!((1..=10_000).contains(&weight(a)));
        }
    }
}
