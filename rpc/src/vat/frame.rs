//! Messages in bytes: the standard framing of Cap'n Proto streams.
//!
//! ```text
//!   u32 segments - 1 │ u32 words of each │ padding to 8 bytes │ the segments' words
//! ```

use capnp::message::{ReaderOptions, ReaderSegments};
use capnp::{Error, OutputSegments, Word};

/// More segments than any builder of ours makes: sizes double.
const SEGMENTS_MAX: usize = 512;

/// A message where it arrived, among the other bytes of its buffer.
#[derive(Debug)]
pub(crate) struct Peeked<'a> {
    body: &'a [u8],
    /// The end of each segment, in bytes; empty if there is only one.
    ends: Vec<usize>,
}

impl Peeked<'_> {
    pub(crate) fn bytes(&self) -> usize {
        self.body.len()
    }

    /// All of it, if it is in one piece.
    pub(super) fn only_segment(&self) -> Option<&[u8]> {
        self.ends.is_empty().then_some(self.body)
    }

    /// A copy that outlives the buffer.
    pub(crate) fn to_frame(&self) -> Frame {
        let mut words = Word::allocate_zeroed_vec(self.body.len() / 8);
        Word::words_to_bytes_mut(&mut words).copy_from_slice(self.body);
        Frame { words, ends: self.ends.clone() }
    }
}

impl ReaderSegments for Peeked<'_> {
    fn get_segment(&self, index: u32) -> Option<&[u8]> {
        segment(self.body, &self.ends, index)
    }

    fn len(&self) -> usize {
        self.ends.len().max(1)
    }
}

/// A message's words, aligned as its readers need them.
#[derive(Debug)]
pub(crate) struct Frame {
    words: Vec<Word>,
    /// As in [`Peeked`].
    ends: Vec<usize>,
}

impl Frame {
    pub(super) fn bytes(&self) -> usize {
        self.words.len() * 8
    }
}

impl ReaderSegments for Frame {
    fn get_segment(&self, index: u32) -> Option<&[u8]> {
        segment(Word::words_to_bytes(&self.words), &self.ends, index)
    }

    fn len(&self) -> usize {
        self.ends.len().max(1)
    }
}

fn segment<'a>(bytes: &'a [u8], ends: &[usize], index: u32) -> Option<&'a [u8]> {
    let index = index as usize;
    if ends.is_empty() {
        return (index == 0).then_some(bytes);
    }
    let start = match index {
        0 => 0,
        _ => *ends.get(index - 1)?,
    };
    bytes.get(start..*ends.get(index)?)
}

/// How much may be walked of a message of so many bytes: every word a few times, so that pointers
/// that share their target cannot make a small message look like a large one.
pub(crate) fn reader_options(bytes: usize, nesting_max: i32) -> ReaderOptions {
    ReaderOptions {
        traversal_limit_in_words: Some(bytes / 8 * 4 + 1024),
        nesting_limit: nesting_max,
    }
}

/// Finds the first message in `bytes`, if all of it is there; says how many bytes it takes.
pub(super) fn peek(bytes: &[u8], bytes_max: usize) -> Result<Option<(Peeked<'_>, usize)>, Error> {
    let Some(first) = word(bytes, 0) else {
        return Ok(None);
    };
    let segments = first as usize + 1;
    if segments > SEGMENTS_MAX {
        return Err(Error::failed(format!(
            "a message of {segments} segments; at most {SEGMENTS_MAX} are taken"
        )));
    }
    let table_bytes = (segments / 2 + 1) * 8;
    if bytes.len() < table_bytes {
        return Ok(None);
    }
    let mut ends = Vec::with_capacity(if segments > 1 { segments } else { 0 });
    let mut body_bytes = 0_usize;
    for index in 1..=segments {
        let words = word(bytes, index).expect("the whole table is there") as usize;
        body_bytes = body_bytes.saturating_add(words.saturating_mul(8));
        if segments > 1 {
            ends.push(body_bytes);
        }
    }
    if body_bytes > bytes_max {
        return Err(Error::failed(format!(
            "a message of {body_bytes} bytes; at most {bytes_max} are taken"
        )));
    }
    let end = table_bytes + body_bytes;
    Ok(bytes.get(table_bytes..end).map(|body| (Peeked { body, ends }, end)))
}

fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let bytes = bytes.get(index * 4..index * 4 + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().expect("four bytes")))
}

/// Appends a message to `to`.
pub(super) fn append(to: &mut Vec<u8>, segments: &OutputSegments<'_>) {
    let table_bytes = (segments.len() / 2 + 1) * 8;
    let body_bytes: usize = segments.iter().map(|segment| segment.len()).sum();
    to.reserve(table_bytes + body_bytes);
    to.extend_from_slice(&small(segments.len() - 1).to_le_bytes());
    for segment in segments.iter() {
        to.extend_from_slice(&small(segment.len() / 8).to_le_bytes());
    }
    if segments.len().is_multiple_of(2) {
        to.extend_from_slice(&[0; 4]);
    }
    for segment in segments.iter() {
        to.extend_from_slice(segment);
    }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).expect("a builder's segments are counted in 32 bits")
}
