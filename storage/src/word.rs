//! Words: eight bytes of a key that mostly tell its place among others.
//!
//! Comparing two keys touches both, wherever they are. So what is compared often (the ends of a
//! level's segments, the heads of a merge, the end of a range) keeps a number for its key, and
//! looks at the key itself only where numbers are the same.

/// Makes words. Each leaves out what the keys that are expected all begin with; others get the
/// smallest word or the greatest, so that words never stand in another order than their keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words {
    prefix: Box<[u8]>,
}

impl Words {
    /// For keys that mostly lie between these two.
    pub(crate) fn between(low: &[u8], high: &[u8]) -> Words {
        let shared = low.iter().zip(high).take_while(|(low, high)| low == high).count();
        Words { prefix: low[..shared].into() }
    }

    /// Rises with the key, or stays the same.
    #[inline]
    pub(crate) fn of(&self, key: &[u8]) -> u64 {
        if self.prefix.is_empty() {
            return first_word(key);
        }
        match key.strip_prefix(&*self.prefix) {
            Some(rest) => first_word(rest),
            None if *key < *self.prefix => u64::MIN,
            None => u64::MAX,
        }
    }
}

/// The first bytes as a number; what ends before is filled up with zeros.
#[inline]
pub(crate) fn first_word(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => key.iter().rev().fold(0, |word, byte| word >> 8 | u64::from(*byte) << 56),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_leave_out_what_is_shared() {
        let check = |low: &[u8], high: &[u8], key: &[u8], expected: u64| {
            assert_eq!(Words::between(low, high).of(key), expected, "{key:?}");
        };
        check(b"", b"", b"12345678rest", u64::from_be_bytes(*b"12345678"));
        check(b"user1", b"user9", b"user12345678rest", u64::from_be_bytes(*b"12345678"));
        check(b"user1", b"user9", b"user12", u64::from_be_bytes(*b"12\0\0\0\0\0\0"));
        check(b"user1", b"user9", b"user", 0);
        check(b"user1", b"user9", b"use", 0);
        check(b"user1", b"user9", b"usf", u64::MAX);
    }

    proptest! {
        #[test]
        fn words_never_stand_in_another_order_than_their_keys(
            bounds in ("[ab]{0,12}", "[ab]{0,12}"),
            keys in ("[abc]{0,14}", "[abc]{0,14}"),
        ) {
            let words = Words::between(bounds.0.as_bytes(), bounds.1.as_bytes());
            let (a, b) = (keys.0.as_bytes(), keys.1.as_bytes());
            if words.of(a) != words.of(b) {
                prop_assert_eq!(words.of(a).cmp(&words.of(b)), a.cmp(b));
            }
        }
    }
}
