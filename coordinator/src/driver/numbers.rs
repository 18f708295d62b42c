//! The numbers in ids: none is ever given twice, also by a coordinator that was restored from a copy.

use super::Picture;
use baton_core::name::Epoch;

/// Numbers that a restored coordinator leaves out: the one before may have given them since the copy.
const SKIPPED: u64 = 4096;

/// The number that ids of a restored coordinator go on from. Whoever drove before may have given numbers since the copy, and another
/// one restored from the same copy as well: only the epoch is never the same, because hosts remember it.
pub(super) fn beyond(sequence: u64, epoch: Epoch) -> u64 {
    (sequence + SKIPPED).max(epoch.0.saturating_mul(SKIPPED))
}

impl Picture {
    /// The number of the next id of a kind that counts for itself, after the last one that is known. What rollouts left out since
    /// a restore, it leaves out, too.
    pub fn number_after(&self, last: Option<&str>) -> u64 {
        let last = last.and_then(|id| id.rsplit('-').next()?.parse::<u64>().ok()).unwrap_or(0);
        (last + 1).max(self.sequence / SKIPPED * SKIPPED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_coordinators_from_one_copy_never_give_the_same_number() {
        let copy = 0x11;
        // The second one has heard hosts that the first one drove: its epoch is another, and what it goes on from as well.
        let (first, second) = (beyond(copy, Epoch(3)), beyond(copy, Epoch(5)));
        assert!(first > copy && second > first + 1_000, "{first} {second}");
        assert!(beyond(1 << 20, Epoch(3)) > 1 << 20, "it never goes back");
    }

    #[test]
    fn what_counts_for_itself_goes_on_beyond_a_restore() {
        let mut picture = Picture { sequence: 0x11, ..Picture::default() };
        assert_eq!((picture.number_after(None), picture.number_after(Some("u-7"))), (1, 8));
        picture.sequence = beyond(picture.sequence, Epoch(3)) + 5;
        let next = picture.number_after(Some("u-7"));
        assert!(next >= 3 * SKIPPED, "{next}");
        assert_eq!(picture.number_after(Some(&format!("u-{next}"))), next + 1);
    }
}
