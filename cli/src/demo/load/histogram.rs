//! Latencies in bounded memory.

use std::time::Duration;

/// Buckets for each power of two: a value is known to 1/32, about three percent.
const FINE: u32 = 32;
/// Microseconds up to 2^40, twelve days.
const POWERS: u32 = 40;

/// A logarithmic histogram of durations.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    longest: Duration,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { counts: vec![0; (POWERS * FINE) as usize], total: 0, longest: Duration::ZERO }
    }

    pub(super) fn record(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count += 1;
        }
        self.total += 1;
        self.longest = self.longest.max(duration);
    }

    /// The upper edge of the bucket the quantile (0 to 1) falls into, in milliseconds; 0 of nothing.
    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        let rank = (quantile * self.total as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return (upper_edge(index) as f64 / 1000.0).min(self.longest_ms());
            }
        }
        self.longest_ms()
    }

    pub(super) fn longest_ms(&self) -> f64 {
        (self.longest.as_micros() as f64) / 1000.0
    }
}

fn bucket(micros: u64) -> usize {
    let power = micros.max(u64::from(FINE)).ilog2();
    let shift = power - FINE.ilog2();
    let fine = (micros >> shift).min(u64::from(2 * FINE) - 1);
    (u64::from(shift) * u64::from(FINE) + fine).min(u64::from(POWERS * FINE) - 1) as usize
}

fn upper_edge(index: usize) -> u64 {
    let fine = FINE as usize;
    let shift = (index / fine).saturating_sub(1);
    let within = index - shift * fine;
    ((within as u64) + 1) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_right_to_a_thirtieth() {
        let mut histogram = Histogram::new();
        (1..=10_000u64).for_each(|number| histogram.record(Duration::from_micros(number * 10)));
        for (quantile, expected) in [(0.5, 50.0), (0.9, 90.0), (0.99, 99.0), (1.0, 100.0)] {
            let measured = histogram.quantile_ms(quantile);
            assert!((measured - expected).abs() <= expected / 30.0, "{quantile}: {measured} instead of {expected}");
        }
    }

    #[test]
    fn tiny_and_huge_values_have_a_bucket() {
        let mut histogram = Histogram::new();
        histogram.record(Duration::ZERO);
        assert!(histogram.quantile_ms(0.5) <= 0.001);
        histogram.record(Duration::MAX);
        assert_eq!(histogram.total, 2);
        assert_eq!(histogram.counts.iter().sum::<u64>(), 2);
    }

    #[test]
    fn nothing_has_no_latency() {
        assert!(Histogram::new().quantile_ms(0.99) == 0.0);
    }
}
