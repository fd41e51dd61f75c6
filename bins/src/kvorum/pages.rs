//! A range too large for one answer, page by page.

use bytes::Bytes;
use kvorum_replication::Row;
use kvorum_rpc::client::{Client, Rows};

use crate::error::CommandError;
use crate::reading::Freshness;

/// Walks the rows of a range in order, all as they were at one moment.
pub(crate) struct Pages {
    freshness: Freshness,
    start: Bytes,
    end: Option<Bytes>,
    limit: u64,
    /// From the first page on.
    rows: Option<Rows>,
}

impl Pages {
    /// The keys that begin with `prefix` and lie from `from` up to and without `to`, at most
    /// `limit` of them.
    pub(crate) fn new(prefix: &[u8], from: &[u8], to: Option<&[u8]>, limit: Option<u64>) -> Self {
        let start = Bytes::copy_from_slice(prefix.max(from));
        let end = match (after_prefix(prefix), to) {
            (Some(end), Some(to)) => Some(end.min(Bytes::copy_from_slice(to))),
            (end, to) => end.or_else(|| to.map(Bytes::copy_from_slice)),
        };
        let limit = if is_empty(&start, end.as_ref()) { 0 } else { limit.unwrap_or(u64::MAX) };
        Self { freshness: Freshness::default(), start, end, limit, rows: None }
    }

    /// The same, as new as this.
    pub(crate) fn read(self, freshness: Freshness) -> Self {
        Self { freshness, ..self }
    }

    /// The next rows; `None` behind the last.
    pub(crate) async fn next(&mut self, client: &Client) -> Result<Option<Vec<Row>>, CommandError> {
        let rows = self.rows.get_or_insert_with(|| {
            let rows = self.freshness.rows(client, self.start.clone(), self.end.clone());
            rows.limit(self.limit)
        });
        Ok(rows.next().await?)
    }

    /// Whether the limit ended the walk and the range holds more.
    pub(crate) fn was_cut(&self) -> bool {
        let is_empty = is_empty(&self.start, self.end.as_ref());
        !is_empty && self.rows.as_ref().is_some_and(Rows::was_cut)
    }
}

fn is_empty(start: &Bytes, end: Option<&Bytes>) -> bool {
    end.is_some_and(|end| start >= end)
}

/// The first key behind this one.
pub(crate) fn after(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    Bytes::from(next)
}

/// The first key behind all that begin with this; `None` if there is none.
fn after_prefix(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(Bytes::from(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_bounds_make_a_range() {
        type Case<'a> = (&'a [u8], &'a [u8], Option<&'a [u8]>, &'a [u8], Option<&'a [u8]>, bool);
        let cases: &[Case<'_>] = &[
            (b"", b"", None, b"", None, false),
            (b"ab", b"", None, b"ab", Some(b"ac"), false),
            (b"a\xff", b"", None, b"a\xff", Some(b"b"), false),
            (b"\xff\xff", b"", None, b"\xff\xff", None, false),
            (b"", b"b", Some(b"d"), b"b", Some(b"d"), false),
            (b"ab", b"abc", Some(b"abd"), b"abc", Some(b"abd"), false),
            (b"ab", b"a", Some(b"z"), b"ab", Some(b"ac"), false),
            (b"ab", b"z", None, b"z", Some(b"ac"), true),
            (b"", b"d", Some(b"b"), b"d", Some(b"b"), true),
            (b"", b"", Some(b""), b"", Some(b""), true),
        ];
        for (prefix, from, to, start, end, done) in cases {
            let pages = Pages::new(prefix, from, *to, None);
            let found = (&pages.start[..], pages.end.as_deref(), pages.limit == 0);
            assert_eq!(found, (*start, *end, *done), "{prefix:?} {from:?} {to:?}");
        }
    }
}
