// SPDX-License-Identifier: Apache-2.0
//! How long a soak is, and what its chances are.

/// One of two lengths: that of every change, and that of docs/reliability.md.
pub(crate) fn length<T>(slice: T, full: T) -> T {
    if std::env::var("BERTH_SOAK").is_ok_and(|how| how == "full") { full } else { slice }
}

/// The seed: given, or drawn and printed.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("BERTH_SEED").ok().map(|seed| seed.parse().expect("BERTH_SEED is a number"));
    let seed = given.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    });
    println!("BERTH_SEED={seed}");
    seed
}

/// Numbers that depend on a seed alone: splitmix64.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("less than bound")
    }

    pub(crate) fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}
