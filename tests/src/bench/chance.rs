//! The bench's one source of chance: SplitMix64, so that a seed is a run, and what is drawn from it.

/// A seed, and what comes after it.
#[derive(Debug, Clone)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d))
    }

    /// From 0 to 1, without 1.
    pub(super) fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// How many of `tries` succeed: by the distances between successes, so that rare ones cost nothing.
    pub(super) fn successes(&mut self, tries: u64, rate: f64) -> u64 {
        if rate >= 1.0 {
            return tries;
        }
        if rate <= 0.0 {
            return 0;
        }
        let (mut at, mut successes, per) = (0.0, 0, (-rate).ln_1p());
        loop {
            at += (1.0 + ((1.0 - self.unit()).ln() / per)).floor();
            if at > tries as f64 {
                return successes;
            }
            successes += 1;
        }
    }
}
