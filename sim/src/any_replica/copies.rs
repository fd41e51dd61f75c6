//! What each copy must hold, by the commits that it has written down as carried out.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvorum_replication::NodeId;
use kvorum_replication::two_phase::any_replica::message::{TxnId, Work};

use super::truth::{Contents, Truth, apply, keys_of};
use crate::process::{Judgement, broken};
use crate::violation::Promise;

/// One replica's copy.
#[derive(Debug, Default)]
pub(super) struct Copy {
    pub(super) contents: Contents,
    /// So many commits.
    pub(super) commits: u64,
    /// How many of them wrote each key.
    writers: BTreeMap<Bytes, usize>,
}

impl Copy {
    /// Of those that conflict, each copy carries out the same in the same order, and nothing that
    /// has not happened.
    pub(super) fn carry_out(&mut self, node: NodeId, txn: TxnId, truth: &Truth) -> Judgement {
        let Some(work) = truth.work(txn) else {
            let what =
                format!("{node} carries out {txn}, which no durable record says is committed");
            return broken(Promise::WaitsForDisk, what);
        };
        self.commits += 1;
        let Work::Write { writes, .. } = &**work else { return Ok(()) };
        for key in keys_of(writes) {
            let place = self.writers.entry(key.clone()).or_default();
            let expected = truth.writer(key, *place);
            if expected != Some(txn) {
                let other = expected.map_or_else(|| "nobody".to_owned(), |it| it.to_string());
                let key = String::from_utf8_lossy(key);
                let what = format!("{node} lets {txn} write {key}, and it is the turn of {other}");
                return broken(Promise::OneOrder, what);
            }
            *place += 1;
        }
        apply(&mut self.contents, writes);
        Ok(())
    }
}
