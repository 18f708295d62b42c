//! The one source of chance: SplitMix64 (Steele, Lea, Flood, 2014), so that a seed is a run.

#[derive(Debug, Clone)]
pub(super) struct Random {
    state: u64,
    /// Nothing is left to chance.
    steady: bool,
}

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self { state: seed, steady: false }
    }

    /// None: whatever may take long or short takes something in between, and what only may happen does not.
    pub(super) const fn steady() -> Self {
        Self { state: 0, steady: true }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        if self.steady { low + (high - low) / 2 } else { low + self.next() % (high - low + 1) }
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        !self.steady && self.next() % 100 < percent
    }

    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() {
            return None;
        }
        items.get((self.next() % items.len() as u64) as usize)
    }
}
