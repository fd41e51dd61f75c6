//! What a store holds, as simply as can be.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvorum_replication::{Answer, Page, Query, Range, Write};

/// Keys and their values.
pub(crate) type Contents = BTreeMap<Bytes, Bytes>;

/// Carries out writes, in their order.
pub(crate) fn apply<'a>(contents: &mut Contents, writes: impl IntoIterator<Item = &'a Write>) {
    for write in writes {
        match write {
            Write::Put(key, value) => contents.insert(key.clone(), value.clone()),
            Write::Delete(key) => contents.remove(key),
        };
    }
}

/// Whether this is what a store with these contents answers.
pub(crate) fn explains(contents: &Contents, query: &Query, answer: &Answer) -> bool {
    match (query, answer) {
        (Query::Get(key), Answer::Value(value)) => contents.get(key) == value.as_ref(),
        (Query::GetMany(keys), Answer::Values(values)) => {
            keys.len() == values.len()
                && keys.iter().zip(values).all(|(key, value)| contents.get(key) == value.as_ref())
        }
        (Query::Scan(range), Answer::Rows { rows, more }) => {
            let Range { start, limit, .. } = range;
            let held = contents.range(start.clone()..).filter(|(key, _)| range.contains(key));
            let held: Vec<_> = held.map(|(key, value)| (key.clone(), value.clone())).collect();
            let shown = held.len().min(*limit as usize);
            rows[..] == held[..rows.len().min(shown)] && (*more || rows.len() == held.len())
        }
        (Query::Page(Page { range, of: None, .. }), Answer::Page { rows, more, .. }) => {
            let answer = Answer::Rows { rows: rows.clone(), more: *more };
            explains(contents, &Query::Scan(range.clone()), &answer)
        }
        // It may be of any moment since its scan began, and the history is judged.
        (Query::Page(Page { of: Some(_), .. }), Answer::Page { .. }) => true,
        (_, Answer::Failed(_)) => true,
        (Query::Get(_) | Query::GetMany(_) | Query::Scan(_) | Query::Page(_), _) => false,
    }
}
