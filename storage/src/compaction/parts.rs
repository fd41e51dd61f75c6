//! Cuts a compaction into parts by key, so that several threads can work on it.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::Result;
use crate::segment::Segment;

/// So many keys of each segment stand for all of it.
const SAMPLES: usize = 16;

/// The keys from `start` on that come before `end`; either may be open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) start: Option<Bytes>,
    pub(crate) end: Option<Bytes>,
}

/// At most so many parts with about as many bytes each. All versions of a key are in one of them.
pub(crate) fn cut(segments: &[Arc<Segment>], parts: usize) -> Result<Vec<Part>> {
    if parts <= 1 {
        return Ok(vec![Part::default()]);
    }
    let mut samples = Vec::new();
    for segment in segments {
        let keys = segment.sample_keys(SAMPLES)?;
        let bytes = segment.meta().bytes / keys.len().max(1) as u64;
        samples.extend(keys.into_iter().map(|key| (key, bytes)));
    }
    Ok(between(&keys_at(samples, parts)))
}

/// The keys before which the parts end.
fn keys_at(mut samples: Vec<(Bytes, u64)>, parts: usize) -> Vec<Bytes> {
    samples.sort();
    let Some((first, _)) = samples.first().cloned() else { return Vec::new() };
    let total: u64 = samples.iter().map(|(_, bytes)| bytes).sum();
    let part_bytes = (total / parts as u64).max(1);
    let (mut keys, mut before): (Vec<Bytes>, u64) = (Vec::new(), 0);
    for (key, bytes) in samples {
        let is_full = before >= part_bytes * (keys.len() as u64 + 1) && keys.len() + 1 < parts;
        if is_full && *keys.last().unwrap_or(&first) != key {
            keys.push(key);
        }
        before += bytes;
    }
    keys
}

fn between(keys: &[Bytes]) -> Vec<Part> {
    let starts = std::iter::once(None).chain(keys.iter().cloned().map(Some));
    let ends = keys.iter().cloned().map(Some).chain([None]);
    starts.zip(ends).map(|(start, end)| Part { start, end }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples as `key:bytes`; answers with the keys between parts.
    fn check(samples: &str, parts: usize, expected: &[&str]) {
        let sample = |text: &str| {
            let (key, bytes) = text.split_once(':').unwrap();
            (Bytes::copy_from_slice(key.as_bytes()), bytes.parse().unwrap())
        };
        let keys = keys_at(samples.split_whitespace().map(sample).collect(), parts);
        assert_eq!(keys, expected, "{samples}");
        let parts = between(&keys);
        assert_eq!(parts.first().unwrap().start, None);
        assert_eq!(parts.last().unwrap().end, None);
        assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert!(parts.iter().all(|it| it.end.is_none() || it.start < it.end), "{parts:?}");
    }

    #[test]
    fn parts_are_about_equal_and_leave_no_key_out() {
        check("", 4, &[]);
        check("a:10", 4, &[]);
        check("a:10 b:10 c:10 d:10", 2, &["c"]);
        check("a:10 b:10 c:10 d:10", 4, &["b", "c", "d"]);
        check("d:10 b:10 c:10 a:10", 2, &["c"]);
        check("a:1 b:1 c:1 d:97", 2, &[]);
        check("a:1 b:1 c:1 d:97 e:0 f:0", 4, &["e", "f"]);
        check("a:97 b:1 c:1 d:1", 2, &["b"]);
        check("a:10 a:10 a:10 a:10 b:1", 4, &["b"]);
    }
}
