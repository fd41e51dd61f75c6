//! What a store holds and answers, as simply as can be.

use std::collections::BTreeMap;

use kvorum_replication::{Answer, Held, Key, NodeId, Query, Row, Value, Write};

pub(crate) type Rows = BTreeMap<Key, Value>;

pub(crate) fn write(rows: &mut Rows, writes: &[Write]) {
    for write in writes {
        match write {
            Write::Put(key, value) => rows.insert(key.clone(), value.clone()),
            Write::Delete(key) => rows.remove(key),
        };
    }
}

/// What rows answer to a query.
pub(crate) fn answer(rows: &Rows, query: &Query) -> Answer {
    match query {
        Query::Get(key) => Answer::Value(rows.get(key).cloned()),
        Query::GetMany(keys) => {
            Answer::Values(keys.iter().map(|key| rows.get(key).cloned()).collect())
        }
        Query::Page(page) => {
            let Answer::Rows { rows, more } = answer(rows, &Query::Scan(page.range.clone())) else {
                unreachable!("a scan is answered with rows");
            };
            let held = page.of.or(Some(Held { by: NodeId(0), run: 1, number: 1 }));
            Answer::Page { rows, more, held: held.filter(|_| more && !page.last) }
        }
        Query::Scan(range) => {
            let mut found = rows
                .iter()
                .filter(|(key, _)| range.contains(key))
                .map(|(key, value)| (key.clone(), value.clone()));
            let rows: Vec<Row> = found.by_ref().take(range.limit as usize).collect();
            Answer::Rows { rows, more: found.next().is_some() }
        }
    }
}
