//! The tests others use, to stand beside the guard.

use baton_core::analysis::counts::Counts;

/// Fisher's exact test: the chance of as many failures of the new release or more, if both were equally good.
pub(super) fn fisher(new: Counts, old: Counts) -> f64 {
    let (all, failed) = (new.requests + old.requests, new.errors + old.errors);
    let ln_choose = |n: u64, k: u64| ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
    let whole = ln_choose(all, failed);
    let most = failed.min(new.requests);
    let each = |errors: u64| {
        let rest = failed - errors;
        if rest > old.requests {
            0.0
        } else {
            (ln_choose(new.requests, errors) + ln_choose(old.requests, rest) - whole).exp()
        }
    };
    (new.errors..=most).map(each).sum::<f64>().min(1.0)
}

/// Stirling's series beyond the small numbers.
fn ln_factorial(n: u64) -> f64 {
    if n < 20 {
        return (2..=n).map(|k| (k as f64).ln()).sum();
    }
    let n = n as f64;
    n * n.ln() - n + 0.5 * (std::f64::consts::TAU * n).ln() + 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3))
}

/// Mann-Whitney's U test, one-sided, by the normal approximation with ties: the chance of `new` standing this high or higher.
pub(super) fn mann_whitney(new: &[f64], old: &[f64]) -> f64 {
    let mut all: Vec<(f64, bool)> = new.iter().map(|x| (*x, true)).chain(old.iter().map(|x| (*x, false))).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut ranks, mut ties, mut at) = (0.0, 0.0, 0);
    for group in all.chunk_by(|a, b| a.0 == b.0) {
        let size = group.len() as f64;
        let rank = at as f64 + f64::midpoint(size, 1.0);
        ranks += rank * group.iter().filter(|(_, is_new)| *is_new).count() as f64;
        ties += size.powi(3) - size;
        at += group.len();
    }
    let (m, n) = (new.len() as f64, old.len() as f64);
    let u = ranks - m * (m + 1.0) / 2.0;
    let sigma = (m * n / 12.0 * (m + n + 1.0 - ties / ((m + n) * (m + n - 1.0)))).sqrt();
    if sigma > 0.0 { beyond((u - m * n / 2.0 - 0.5) / sigma) } else { 1.0 }
}

/// The standard normal distribution beyond `z` (Abramowitz and Stegun, 26.2.17).
fn beyond(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - beyond(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let series = [0.319_381_530, -0.356_563_782, 1.781_477_937, -1.821_255_978, 1.330_274_429];
    let polynomial = series.iter().rev().fold(0.0, |sum, factor| (sum + factor) * t);
    (-z * z / 2.0).exp() / std::f64::consts::TAU.sqrt() * polynomial
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tests_of_others_give_what_the_textbooks_say() {
        // A lady tasting tea: 3 of 4 against 1 of 4.
        assert!((fisher(Counts::new(4, 3), Counts::new(4, 1)) - 17.0 / 70.0).abs() < 1e-9);
        assert!((ln_factorial(25) - (1..=25).map(|k| f64::from(k).ln()).sum::<f64>()).abs() < 1e-9);
        assert!((beyond(1.96) - 0.025).abs() < 1e-4 && (beyond(-1.0) - 0.8413).abs() < 1e-4);
        assert!(mann_whitney(&[4.0, 5.0, 6.0, 7.0, 8.0], &[0.0, 1.0, 2.0, 2.5, 3.0]) < 0.01);
        assert!((mann_whitney(&[1.0, 1.0], &[1.0, 1.0]) - 1.0).abs() < 1e-9, "all alike is no evidence");
    }
}
