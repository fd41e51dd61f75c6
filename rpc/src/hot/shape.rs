//! Messages by their shape.
//!
//! Who builds the same call again builds the same words, but for the numbers and the bytes that he
//! was given. So what goes and comes by the thousand is built once, to learn its words and where in
//! them the numbers stand; from then on it is written by filling those in, and read by comparing
//! the rest. A message of any other shape is read as any message is: others may lay out the same
//! call differently, and be as right.
//!
//! ```text
//!   head: words that are always the same │ first bytes, padded │ second bytes, padded
//!           with numbers in them, and a pointer to each ───▲─────────────▲
//! ```

use capnp::message::{Builder, HeapAllocator};

/// Messages that differ in `N` numbers and in `B` runs of bytes, none of them empty.
#[derive(Debug)]
pub(super) struct Shape<const N: usize, const B: usize> {
    /// Zero where numbers and pointers to bytes stand.
    head: Vec<u8>,
    /// Zero there, too, and ones elsewhere.
    fixed: Vec<u64>,
    numbers: [Hole; N],
    /// The words that point to the bytes.
    pointers: [usize; B],
}

/// Where a number stands.
#[derive(Clone, Copy, Debug)]
struct Hole {
    word: usize,
    /// Its bits, which are neighbours.
    mask: u64,
}

/// What makes one message of a shape.
pub(super) type Filling<'a, const N: usize, const B: usize> = ([u64; N], [&'a [u8]; B]);

impl<const N: usize, const B: usize> Shape<N, B> {
    /// Learns the shape from who builds it, who must put the bytes last, in their order.
    ///
    /// # Panics
    /// If the messages have no such shape.
    pub(super) fn learn(build: impl Fn(Filling<'_, N, B>, &mut Builder<HeapAllocator>)) -> Self {
        let words = |numbers, lens: [usize; B]| {
            let mut message = Builder::new_default();
            build((numbers, lens.map(|len| &[0; 2][..len])), &mut message);
            let (words, _) = message.get_segments_for_output()[0].as_chunks::<8>();
            words.iter().map(|word| u64::from_le_bytes(*word)).collect::<Vec<u64>>()
        };
        let one = [1; B];
        let plain = words([0; N], one);
        let numbers = std::array::from_fn(|number| {
            let mut filled = [0; N];
            filled[number] = u64::MAX;
            only_difference(&plain, &words(filled, one))
        });
        let pointers = std::array::from_fn(|bytes| {
            let mut lens = one;
            lens[bytes] = 2;
            only_difference(&plain, &words([0; N], lens)).word
        });
        let words = plain.len() - B;
        let mut fixed = vec![u64::MAX; words];
        for Hole { word, mask } in numbers {
            fixed[word] &= !mask;
        }
        for (bytes, word) in pointers.into_iter().enumerate() {
            let expected = pointer(word, words + bytes, 1);
            assert_eq!(plain[word], expected, "the bytes stand behind the head");
            fixed[word] = 0;
        }
        let head = plain.iter().zip(&fixed).flat_map(|(word, fixed)| (word & fixed).to_le_bytes());
        Self { head: head.collect(), fixed, numbers, pointers }
    }

    /// Appends a message with its framing.
    ///
    /// # Panics
    /// If it is larger than a message can be.
    pub(super) fn write(&self, to: &mut Vec<u8>, (numbers, bytes): Filling<'_, N, B>) {
        let words = bytes.iter().map(|bytes| bytes.len().div_ceil(8)).sum::<usize>();
        let words = self.fixed.len() + words;
        let framing = u64::from(u32::try_from(words).expect("calls and answers are bounded")) << 32;
        to.reserve(8 + words * 8);
        to.extend_from_slice(&framing.to_le_bytes());
        let head = to.len();
        to.extend_from_slice(&self.head);
        let mut fill = |word: usize, bits: u64| {
            let at = head + word * 8;
            let word = &mut to[at..at + 8];
            let old = u64::from_le_bytes((&*word).try_into().expect("eight bytes"));
            word.copy_from_slice(&(old | bits).to_le_bytes());
        };
        for (Hole { word, mask }, number) in self.numbers.into_iter().zip(numbers) {
            fill(word, number << mask.trailing_zeros() & mask);
        }
        let mut start = self.fixed.len();
        for (word, bytes) in self.pointers.into_iter().zip(bytes) {
            fill(word, pointer(word, start, bytes.len()));
            start += bytes.len().div_ceil(8);
        }
        for bytes in bytes {
            to.extend_from_slice(bytes);
            to.extend_from_slice(&[0; 8][..bytes.len().next_multiple_of(8) - bytes.len()]);
        }
    }

    /// What is filled into a message of this shape; none for any other message.
    pub(super) fn read<'a>(&self, message: &'a [u8]) -> Option<Filling<'a, N, B>> {
        let (words, _) = message.as_chunks::<8>();
        let head = words.get(..self.fixed.len())?;
        let word = |word: usize| u64::from_le_bytes(head[word]);
        // One that has another shape differs early: in the method, or in what it answers.
        for ((found, known), fixed) in head.iter().zip(self.head.as_chunks().0).zip(&self.fixed) {
            if (u64::from_le_bytes(*found) ^ u64::from_le_bytes(*known)) & fixed != 0 {
                return None;
            }
        }
        let numbers =
            self.numbers.map(|hole| (word(hole.word) & hole.mask) >> hole.mask.trailing_zeros());
        let mut bytes = [&[][..]; B];
        let mut start = self.fixed.len();
        for (bytes, at) in bytes.iter_mut().zip(self.pointers) {
            let len = usize::try_from(word(at) >> 35).expect("29 bits");
            let is_here = len > 0 && word(at) == pointer(at, start, len);
            *bytes = message.get(start * 8..start * 8 + len).filter(|_| is_here)?;
            start += len.div_ceil(8);
        }
        (start == words.len()).then_some((numbers, bytes))
    }
}

/// A pointer in the word `at` to so many bytes from the word `start` on.
fn pointer(at: usize, start: usize, len: usize) -> u64 {
    const LIST: u64 = 1;
    const OF_BYTES: u64 = 2;
    ((len as u64) << 3 | OF_BYTES) << 32 | ((start - at - 1) as u64) << 2 | LIST
}

/// The one word in which two messages differ, and its bits that do.
fn only_difference(one: &[u64], other: &[u64]) -> Hole {
    assert_eq!(one.len(), other.len(), "numbers take no more room if they are larger");
    let differ = |word: &usize| one[*word] != other[*word];
    let mut words = (0..one.len()).filter(differ);
    let word = words.next().expect("what is filled in is in the message");
    assert_eq!(words.next(), None, "what is filled in stands in one word");
    Hole { word, mask: one[word] ^ other[word] }
}
