//! How long answers took, in as few bytes as say it: what is kept of every member of every service.
//!
//! It is text, so that what is stored is what is held: characters that no JSON escapes, of six bits each. The first is the first
//! bucket with an answer; then come the counts up to the last one, five bits a character, the lowest first. The sixth bit says
//! that more follow.

use crate::fleet::latency::{BUCKETS, InvalidLatency, Latency};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A [`Latency`] that is looked at rarely.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "String")]
pub struct Packed(Arc<str>);

/// As it is written now, and as it once was.
#[derive(Deserialize)]
#[serde(untagged)]
enum Stored {
    Packed(String),
    Counts(Vec<u64>),
}

const BITS: u32 = 5;
const MORE: u8 = 1 << BITS;
/// The characters begin here, and leave out one that JSON escapes.
const FIRST: u8 = b'0';
const ESCAPED: u8 = b'\\';

impl Packed {
    #[must_use]
    pub fn latency(&self) -> Latency {
        // It was looked at as it came in.
        read(&self.0).unwrap_or_default()
    }
}

impl From<&Latency> for Packed {
    fn from(latency: &Latency) -> Self {
        let counts = latency.counts();
        let answered = |count: &u64| *count > 0;
        let Some((first, last)) = counts.iter().position(answered).zip(counts.iter().rposition(answered)) else {
            return Self::default();
        };
        let mut text = String::with_capacity(4 * BUCKETS);
        text.push(letter(u8::try_from(first).unwrap_or(0)));
        for count in counts.iter().take(last + 1).skip(first) {
            let mut rest = *count;
            loop {
                let low = (rest % u64::from(MORE)) as u8;
                rest >>= BITS;
                text.push(letter(if rest > 0 { low | MORE } else { low }));
                if rest == 0 {
                    break;
                }
            }
        }
        Self(text.into())
    }
}

const fn letter(value: u8) -> char {
    let plain = FIRST + value;
    (if plain >= ESCAPED { plain + 1 } else { plain }) as char
}

fn value(letter: u8) -> Option<u8> {
    let plain = if letter > ESCAPED { letter - 1 } else { letter };
    plain.checked_sub(FIRST).filter(|value| *value < 2 * MORE && letter != ESCAPED)
}

fn read(text: &str) -> Option<Latency> {
    let mut counts = [0; BUCKETS];
    let mut letters = text.bytes();
    let Some(first) = letters.next() else { return Some(Latency::default()) };
    let (mut bucket, mut shift) = (usize::from(value(first)?), 0);
    for letter in letters {
        let value = value(letter)?;
        let low = u64::from(value % MORE);
        let count: &mut u64 = counts.get_mut(bucket)?;
        *count |= low.checked_shl(shift).filter(|part| part >> shift == low)?;
        (bucket, shift) = if value < MORE { (bucket + 1, 0) } else { (bucket, shift + BITS) };
    }
    (shift == 0).then_some(Latency::new(counts))
}

impl TryFrom<Stored> for Packed {
    type Error = InvalidLatency;
    fn try_from(stored: Stored) -> Result<Self, InvalidLatency> {
        match stored {
            Stored::Counts(counts) => Latency::try_from(counts).map(|latency| Self::from(&latency)),
            // As it would be written: two that are equal are equal in every letter.
            Stored::Packed(text) => read(&text).map(|latency| Self::from(&latency)).ok_or(InvalidLatency(text.len())),
        }
    }
}

impl From<Packed> for String {
    fn from(packed: Packed) -> Self {
        packed.0.as_ref().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(text: &str) -> Option<Packed> {
        Packed::try_from(Stored::Packed(text.to_owned())).ok()
    }

    #[test]
    fn every_latency_comes_back_as_it_was_also_from_what_is_stored() {
        let mut counts = vec![[0; BUCKETS], [u64::MAX; BUCKETS], std::array::from_fn(|bucket| bucket as u64)];
        for bucket in 0..BUCKETS {
            counts.extend([0, 4, 5, 10, 36, 60].map(|shift| std::array::from_fn(|at| u64::from(at == bucket) << shift)));
        }
        for latency in counts.into_iter().map(Latency::new) {
            let packed = Packed::from(&latency);
            assert_eq!(packed.latency(), latency);
            let plain = |letter: u8| letter.is_ascii_graphic() && letter != b'"' && letter != ESCAPED;
            assert!(packed.0.bytes().all(plain), "nothing is escaped: {packed:?}");
            assert_eq!(stored(&packed.0).as_ref(), Some(&packed));
            let once = Packed::try_from(Stored::Counts(latency.counts().to_vec()));
            assert_eq!(once, Ok(packed), "as it was stored once");
        }
    }

    #[test]
    fn a_few_answers_take_a_few_letters() {
        let latency = Latency::new(std::array::from_fn(|bucket| if (8..12).contains(&bucket) { 1000 } else { 0 }));
        assert_eq!(Packed::from(&latency).0.len(), 1 + 4 * 2);
        assert_eq!(Packed::from(&Latency::default()).0.len(), 0);
    }

    #[test]
    fn text_that_is_none_is_refused() {
        // No letter of ours, a bucket too far, a count that does not end, one beyond 64 bits.
        for bad in ["é", "0 ", "0\\", "0q", "I00", "J0", "0P", "0ppppppppppppp"] {
            assert_eq!(stored(bad), None, "{bad}");
        }
        assert!(Packed::try_from(Stored::Counts(vec![1, 2])).is_err());
        assert_eq!(stored("00").unwrap(), Packed::default(), "none is none");
    }
}
