//! A range too large for one answer, page by page.

use bytes::Bytes;
use kvorum_replication::{Range, Row};
use kvorum_rpc::client::Client;

use crate::error::CommandError;
use crate::reading::Freshness;

/// Rows asked for at a time; the server also bounds a page's bytes.
const PAGE_ROWS: u32 = 1024;

/// Walks the rows of a range in order. Each page shows the store at one moment.
pub(crate) struct Pages {
    freshness: Freshness,
    start: Bytes,
    end: Option<Bytes>,
    rows_left: u64,
    done: bool,
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
        let done = end.as_ref().is_some_and(|end| start >= *end);
        let freshness = Freshness::default();
        Self { freshness, start, end, rows_left: limit.unwrap_or(u64::MAX), done }
    }

    /// The same, each page as new as this.
    pub(crate) fn read(self, freshness: Freshness) -> Self {
        Self { freshness, ..self }
    }

    /// The next rows; `None` behind the last.
    pub(crate) async fn next(&mut self, client: &Client) -> Result<Option<Vec<Row>>, CommandError> {
        if self.done || self.rows_left == 0 {
            return Ok(None);
        }
        let limit = u32::try_from(self.rows_left).unwrap_or(u32::MAX).min(PAGE_ROWS);
        let range = Range { start: self.start.clone(), end: self.end.clone(), limit };
        let page = self.freshness.scan(client, range).await?;
        self.done = !page.more;
        self.rows_left = self.rows_left.saturating_sub(page.rows.len() as u64);
        match page.rows.last() {
            Some((key, _)) => self.start = after(key),
            // A page without rows cannot move on; more of them would be the same.
            None => return Ok(None),
        }
        Ok(Some(page.rows))
    }

    /// Whether the limit ended the walk and the range holds more.
    pub(crate) fn was_cut(&self) -> bool {
        !self.done && self.rows_left == 0
    }
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
            let found = (&pages.start[..], pages.end.as_deref(), pages.done);
            assert_eq!(found, (*start, *end, *done), "{prefix:?} {from:?} {to:?}");
        }
    }
}
