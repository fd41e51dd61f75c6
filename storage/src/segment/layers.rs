//! Finds a key's place among many that are sorted, by words: eight bytes of it at a time.
//!
//! A layer leaves out what all its keys begin with, and holds the next eight bytes of each as a
//! number, in one sorted array. A table over their highest bits says where in it to look, so that a
//! search touches two or three cache lines if keys are spread evenly, and halves its way where they
//! are not. Many keys with the same word have a layer of their own for what follows it (as in
//! Masstree: Mao, Kohler, Morris, "Cache craftiness for fast multicore key-value storage", 2012), so
//! that long common beginnings cost one more such search each, and no comparisons of keys. Few are
//! left to be compared.

use std::ops::Range;

use super::block::shared;
use crate::word::first_word;

const WORD_BYTES: usize = 8;
/// So many keys with the same word have a layer of their own.
const RUN_MIN: usize = 8;

/// Words of sorted keys.
pub(super) struct Layers {
    /// The first is the uppermost one.
    layers: Vec<Layer>,
}

struct Layer {
    /// What its keys begin with, behind what the layers above have seen of them.
    prefix: Box<[u8]>,
    /// The number of its first key.
    first: usize,
    words: Box<[u64]>,
    table: Table,
    /// Where in `words` runs of the same one begin that have a layer, rising, and which it is.
    deeper: Box<[(u32, u32)]>,
}

/// Entry `n` says how many words are below the least word whose distance from the first, shifted,
/// is `n`.
struct Table {
    first: u64,
    shift: u32,
    below: Box<[u32]>,
}

impl Layers {
    /// Of so many keys, which rise.
    pub(super) fn new<'a>(count: usize, key: impl Fn(usize) -> &'a [u8]) -> Layers {
        let mut layers = Vec::new();
        // Which keys, and how many bytes of them the layers above have seen. Each deeper layer sees
        // eight more, so this ends.
        let mut wanted = vec![(0..count, 0)];
        while let Some((keys, seen)) = wanted.get(layers.len()).cloned() {
            let behind = |number, seen: usize| key(number).get(seen..).unwrap_or_default();
            let prefix: Box<[u8]> = match keys.end.checked_sub(1) {
                Some(last) => {
                    let (first, last) = (behind(keys.start, seen), behind(last, seen));
                    first[..shared(first, last)].into()
                }
                None => Box::default(),
            };
            let seen = seen + prefix.len();
            let words: Box<[u64]> = keys.clone().map(|it| first_word(behind(it, seen))).collect();
            let mut deeper = Vec::new();
            let mut at = 0;
            for run in words.chunk_by(|a, b| a == b) {
                let from = keys.start + at;
                // If the first is long enough, so are all: a shorter one would come before it.
                if run.len() >= RUN_MIN && behind(from, seen).len() >= WORD_BYTES {
                    deeper.push((at as u32, wanted.len() as u32));
                    wanted.push((from..from + run.len(), seen + WORD_BYTES));
                }
                at += run.len();
            }
            let (table, deeper) = (Table::new(&words), deeper.into());
            layers.push(Layer { prefix, first: keys.start, words, table, deeper });
        }
        Layers { layers }
    }

    /// All keys before these are less than this one, and all behind them greater.
    pub(super) fn around(&self, key: &[u8]) -> Range<usize> {
        let (mut layer, mut rest) = (&self.layers[0], key);
        loop {
            let Some(behind) = rest.strip_prefix(&*layer.prefix) else {
                let is_less = rest < &*layer.prefix;
                let at = layer.first + if is_less { 0 } else { layer.words.len() };
                return at..at;
            };
            let word = first_word(behind);
            let (from, to) = layer.table.range(word);
            let below = from + layer.words[from..to].partition_point(|it| *it < word);
            let same = layer.words[below..to].partition_point(|it| *it == word);
            let next = match behind.get(WORD_BYTES..) {
                Some(behind) if same >= RUN_MIN => layer.deeper(below).map(|it| (it, behind)),
                // A shorter key has the word of a longer one that goes on with zeros.
                _ => None,
            };
            match next {
                Some((number, behind)) => (layer, rest) = (&self.layers[number], behind),
                None => return layer.first + below..layer.first + below + same,
            }
        }
    }
}

impl Layer {
    fn deeper(&self, at: usize) -> Option<usize> {
        let found = self.deeper.binary_search_by_key(&at, |(at, _)| *at as usize);
        found.ok().map(|place| self.deeper[place].1 as usize)
    }
}

impl Table {
    /// Of words that rise.
    fn new(words: &[u64]) -> Table {
        let (Some(first), Some(last)) = (words.first(), words.last()) else {
            return Table { first: 0, shift: 0, below: Box::default() };
        };
        let span = last - first;
        // Between as many entries as words, and twice as many.
        let wanted = usize::BITS - words.len().leading_zeros();
        let shift = (u64::BITS - span.leading_zeros()).saturating_sub(wanted);
        let mut below = vec![0; (span >> shift) as usize + 2];
        for word in words {
            below[((word - first) >> shift) as usize + 1] += 1;
        }
        for at in 1..below.len() {
            below[at] += below[at - 1];
        }
        Table { first: *first, shift, below: below.into() }
    }

    /// The words among which the first is that is not below this one, and all that are equal to it.
    fn range(&self, word: u64) -> (usize, usize) {
        let all = self.below.last().copied().unwrap_or_default() as usize;
        let Some(distance) = word.checked_sub(self.first) else { return (0, 0) };
        let at = usize::try_from(distance >> self.shift).unwrap_or(usize::MAX);
        match self.below.get(at..).and_then(|rest| rest.first_chunk::<2>()) {
            Some([from, to]) => (*from as usize, *to as usize),
            None => (all, all),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::amount;

    fn check(keys: &[Vec<u8>], probe: &[u8]) -> usize {
        let layers = Layers::new(keys.len(), |number| &keys[number]);
        for probe in keys.iter().map(Vec::as_slice).chain([probe]) {
            let around = layers.around(probe);
            assert!(keys[..around.start].iter().all(|key| key.as_slice() < probe), "{probe:?}");
            assert!(keys[around.end..].iter().all(|key| key.as_slice() > probe), "{probe:?}");
        }
        layers.layers.len()
    }

    #[test]
    fn long_common_beginnings_have_layers_of_their_own() {
        let mut keys = Vec::new();
        for tenant in ["a tenant with a long name/", "a tenant with another name/", "else/"] {
            for number in 0..amount(100_u64, 20) {
                keys.push([tenant.as_bytes(), &(number * number).to_be_bytes()].concat());
            }
        }
        keys.sort();
        // The words of the two differ in the second layer.
        assert_eq!(check(&keys, b"a tenant with a"), 2 + 3);
        let layers = Layers::new(keys.len(), |number| &keys[number]);
        for (number, key) in keys.iter().enumerate() {
            assert_eq!(layers.around(key), number..number + 1, "nothing is left to be compared");
        }
    }

    #[test]
    fn the_longest_keys_do_not_go_too_deep() {
        let keys: Vec<Vec<u8>> = (0..amount(40, 5)).map(|zeros| vec![0; zeros * 1600]).collect();
        check(&keys, &[0; 801]);
    }

    proptest! {
        #[test]
        fn what_is_around_a_key_is_right(
            prefix in prop_oneof![Just(""), Just("one word and more ")],
            keys in proptest::collection::btree_set("(a|b|\u{0}|word and word ){0,6}", 0..80),
            probe in "(a|b|c|\u{0}|word and word ){0,6}",
        ) {
            let keys: BTreeSet<Vec<u8>> =
                keys.iter().map(|key| (prefix.to_owned() + key).into_bytes()).collect();
            let keys: Vec<Vec<u8>> = keys.into_iter().collect();
            check(&keys, probe.as_bytes());
            check(&keys, (prefix.to_owned() + &probe).as_bytes());
        }
    }
}
