//! Numbers one after the other, each in as few bytes as it needs: what is held in memory of ten thousand services.
//!
//! Seven bits a byte, the lowest first; the eighth says that more follow. Whoever reads them asks in the order they were written
//! in. They never leave the process.

use super::mark::Mark;
use crate::fleet::latency::{BUCKETS, Latency};

const BITS: u32 = 7;
const MORE: u8 = 1 << BITS;

/// Where numbers are written.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

/// Where they are read again. Of what was not written everything is 0.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl Writer {
    /// With room for so many bytes.
    pub(super) fn for_about(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub(super) fn number(&mut self, number: u64) {
        let mut rest = number;
        while rest >= u64::from(MORE) {
            self.0.push(rest as u8 | MORE);
            rest >>= BITS;
        }
        self.0.push(rest as u8);
    }

    /// What became of a number: little where it is about the same.
    pub(super) fn change(&mut self, from: u64, to: u64) {
        let change = to.wrapping_sub(from).cast_signed();
        self.number(((change << 1) ^ (change >> (u64::BITS - 1))).cast_unsigned());
    }

    /// As it is: any of its bytes may be any.
    pub(super) fn mark(&mut self, mark: Mark) {
        self.0.extend(mark.0.to_le_bytes());
    }

    /// From the first bucket with an answer to the last one.
    pub(super) fn latency(&mut self, latency: &Latency) {
        let counts = latency.counts();
        let first = counts.iter().position(|count| *count > 0).unwrap_or(0);
        let end = counts.iter().rposition(|count| *count > 0).map_or(first, |last| last + 1);
        self.number(first as u64);
        self.number((end - first) as u64);
        counts.iter().take(end).skip(first).for_each(|count| self.number(*count));
    }

    /// In as much memory as they take, and no part of what they were written in.
    pub(super) fn done(self) -> Box<[u8]> {
        self.0.as_slice().into()
    }

    /// In place of others: mostly they take as much, and nothing has to move.
    pub(super) fn take_the_place_of(self, others: &mut Box<[u8]>) {
        if others.len() == self.0.len() {
            others.copy_from_slice(&self.0);
        } else {
            *others = self.done();
        }
    }
}

impl<'a> Reader<'a> {
    pub(super) const fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) const fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn number(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        while let Some((byte, rest)) = self.0.split_first() {
            self.0 = rest;
            number |= u64::from(byte % MORE).checked_shl(shift).unwrap_or(0);
            if *byte < MORE {
                break;
            }
            shift += BITS;
        }
        number
    }

    pub(super) fn mark(&mut self) -> Mark {
        let Some((mark, rest)) = self.0.split_first_chunk() else { return Mark::default() };
        self.0 = rest;
        Mark(u64::from_le_bytes(*mark))
    }

    pub(super) fn changed(&mut self, from: u64) -> u64 {
        let change = self.number();
        from.wrapping_add((change >> 1) ^ (change & 1).wrapping_neg())
    }

    pub(super) fn latency(&mut self) -> Latency {
        let (first, count) = (self.number() as usize, self.number() as usize);
        let mut counts = [0; BUCKETS];
        counts.iter_mut().skip(first).take(count).for_each(|count| *count = self.number());
        Latency::new(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_in_the_same_order() {
        let mut numbers = vec![0, u64::MAX];
        numbers.extend((0..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit]));
        let latencies = [
            Latency::default(),
            Latency::new([u64::MAX; BUCKETS]),
            Latency::new(std::array::from_fn(|bucket| if (3..9).contains(&bucket) { bucket as u64 % 4 } else { 0 })),
            Latency::new(std::array::from_fn(|bucket| if bucket + 1 == BUCKETS { 300 } else { 0 })),
        ];
        let mut writer = Writer::default();
        for latency in &latencies {
            numbers.iter().for_each(|number| writer.number(*number));
            numbers.windows(2).for_each(|pair| writer.change(pair[0], pair[1]));
            writer.latency(latency);
            writer.mark(Mark::of("4242-1718000000"));
        }
        let bytes = writer.done();
        let mut reader = Reader::of(&bytes);
        for latency in &latencies {
            assert!(numbers.iter().all(|number| reader.number() == *number));
            assert!(numbers.windows(2).all(|pair| reader.changed(pair[0]) == pair[1]));
            assert_eq!(reader.latency(), *latency);
            assert_eq!(reader.mark(), Mark::of("4242-1718000000"));
        }
        assert!(reader.is_done());
        assert_eq!(
            (reader.number(), reader.latency(), reader.mark()),
            (0, Latency::default(), Mark::default()),
            "nothing more was written"
        );
    }

    #[test]
    fn a_small_number_takes_one_byte() {
        let mut writer = Writer::for_about(8);
        writer.number(127);
        writer.change(1 << 40, (1 << 40) - 64);
        writer.latency(&Latency::default());
        assert_eq!(writer.done().len(), 4);
    }
}
