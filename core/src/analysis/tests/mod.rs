mod bad;
mod counters;
mod counting;
mod judging;
mod maths;
mod memory;
mod notice;
mod series;
mod slowness;

use super::counts::{Counts, Poll};

/// Chance from a seed: SplitMix64.
struct Chance(u64);

impl Chance {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn counts(&mut self, requests: u64, rate: f64) -> Counts {
        let errors = (0..requests).filter(|_| self.unit() < rate).count() as u64;
        Counts::new(requests, errors)
    }
}

fn poll(new: (u64, u64), old: (u64, u64)) -> Poll {
    Poll { new: Counts::new(new.0, new.1), old: Counts::new(old.0, old.1) }
}
