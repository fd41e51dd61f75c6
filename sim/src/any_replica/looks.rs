//! How a replica is after an event: its locks, its promises, its copy.

use std::collections::BTreeSet;

use bytes::Bytes;
use kvorum_replication::NodeId;
use kvorum_replication::two_phase::any_replica::audit::{ReplicaAudit, Table, Wait};
use kvorum_replication::two_phase::any_replica::message::{Age, TxnId};

use super::auditor::Auditor;
use super::truth::Contents;
use crate::process::{Judgement, Rows, broken};
use crate::violation::Promise;

/// What is remembered of a look until the next one.
#[derive(Debug, Default)]
pub(super) struct Look {
    holders: BTreeSet<TxnId>,
    waiters: BTreeSet<TxnId>,
    has_impatient_reads: bool,
}

impl Look {
    fn new(facts: &ReplicaAudit) -> Self {
        let is_impatient = |table: &Table| table.name == "impatient reads" && table.len > 0;
        Self {
            holders: facts.lock_holders.iter().copied().collect(),
            waiters: facts.lock_waiters.iter().copied().collect(),
            has_impatient_reads: facts.tables.iter().any(is_impatient),
        }
    }

    fn knows(&self, txn: TxnId) -> bool {
        self.holders.contains(&txn) || self.waiters.contains(&txn)
    }
}

impl Auditor {
    /// An event is over, and this is how a replica is now.
    pub(super) fn looks(
        &mut self,
        node: NodeId,
        facts: &ReplicaAudit,
        rows: Rows<'_>,
    ) -> Judgement {
        if let (Some(unheard), Some(diary)) = (self.unheard.get_mut(&node), self.diaries.get(&node))
        {
            unheard.retain(|txn| diary.undone().contains(txn));
        }
        if facts.is_unfit {
            let what = format!("{node} finds that its own log contradicts itself");
            return broken(Promise::Remembers, what);
        }
        if let Some(Table { name, len, max }) = facts.tables.iter().find(|it| it.len > it.max) {
            let what = format!("{node} has {len} {name}, and may have {max}");
            return broken(Promise::Bounded, what);
        }
        for (age, txn) in &facts.errands {
            self.ages.extend(txn.map(|txn| (txn, *age)));
        }
        let look = Look::new(facts);
        self.locks_end(node, facts, &look)?;
        self.keeps_promises(node, facts, &look)?;
        let before = self.looks.remove(&node).unwrap_or_default();
        self.waits_for_younger(node, facts, &before)?;
        self.dies_of_older(node, &before, &look)?;
        self.looks.insert(node, look);
        self.holds(node, rows)
    }

    /// Who holds a lock, or waits for one, is on its way.
    fn locks_end(&self, node: NodeId, facts: &ReplicaAudit, look: &Look) -> Judgement {
        let own: BTreeSet<TxnId> =
            facts.errands.iter().filter_map(|(_, txn)| *txn).chain(facts.commits.clone()).collect();
        let mut all = look.holders.iter().chain(&look.waiters);
        match all.find(|txn| !own.contains(txn) && !facts.open.contains(txn)) {
            Some(txn) => broken(
                Promise::LocksEnd,
                format!("{node} holds a lock or a claim for {txn}, which is over"),
            ),
            None => Ok(()),
        }
    }

    /// What the log promises is known, and locked: as a participant until the outcome, as the
    /// coordinator from the first prepare until it is done on the own copy.
    fn keeps_promises(&self, node: NodeId, facts: &ReplicaAudit, look: &Look) -> Judgement {
        let Some(diary) = self.diaries.get(&node) else { return Ok(()) };
        if let Some(txn) = diary.in_doubt().iter().find(|txn| !facts.promised.contains(txn)) {
            let what = format!("{node} has promised {txn}, which is not over, and has forgotten");
            return broken(Promise::Remembers, what);
        }
        let asked = facts.errands.iter().filter_map(|(_, txn)| *txn);
        let asked = asked.filter(|txn| self.prepares.contains_key(txn));
        let bound = diary.in_doubt().iter().chain(diary.undone()).copied().chain(asked);
        match bound.into_iter().find(|txn| !look.holders.contains(txn)) {
            Some(txn) => broken(
                Promise::HoldsLocks,
                format!("{node} has promised {txn}, or asked others to, and holds no lock for it"),
            ),
            None => Ok(()),
        }
    }

    /// All waits, everywhere, go from older to younger transactions, so there is no circle of them;
    /// and who comes later does not pass a claim.
    fn waits_for_younger(
        &mut self,
        node: NodeId,
        facts: &ReplicaAudit,
        before: &Look,
    ) -> Judgement {
        for Wait { waiter, waiter_age, waits_for, age } in &facts.waits {
            if !waiter_age.is_older_than(age) {
                let what = format!(
                    "{waiter} of age {waiter_age} waits at {node} for {waits_for} of age {age}"
                );
                return broken(Promise::WaitsForYounger, what);
            }
            let passed = before.waiters.contains(waiter) && !before.knows(*waits_for);
            if passed && facts.lock_holders.contains(waits_for) {
                let what =
                    format!("{waits_for} has a lock at {node} on which {waiter} had a claim");
                return broken(Promise::WaitsForYounger, what);
            }
            self.waits += u64::from(!before.waiters.contains(waiter));
        }
        Ok(())
    }

    /// Who died was younger than somebody who was in its way, or than a read that had waited long.
    fn dies_of_older(&mut self, node: NodeId, before: &Look, after: &Look) -> Judgement {
        let deaths = std::mem::take(&mut self.deaths);
        for (at, txn, age) in deaths.into_iter().filter(|(at, ..)| *at == node) {
            let mut others = [before, after]
                .into_iter()
                .flat_map(|look| look.holders.iter().chain(&look.waiters));
            let is_older = |other: &TxnId| {
                *other != txn && self.ages.get(other).is_none_or(|it: &Age| it.is_older_than(&age))
            };
            let had_reason = before.has_impatient_reads
                || after.has_impatient_reads
                || before.waiters.len() >= self.prepared_max
                || others.any(is_older);
            if !had_reason {
                let what = format!("{txn} of age {age} dies at {at}, and nobody there is older");
                return broken(Promise::WaitsForYounger, what);
            }
        }
        Ok(())
    }

    /// A copy holds what its commits say.
    fn holds(&mut self, node: NodeId, rows: Rows<'_>) -> Judgement {
        let Some(copy) = self.copies.get(&node) else { return Ok(()) };
        if self.compared.get(&node) == Some(&copy.commits) {
            return Ok(());
        }
        // A disk that fails is told of where it matters; here there is nothing to compare.
        let Ok(rows) = rows() else { return Ok(()) };
        self.compared.insert(node, copy.commits);
        let rows: Contents = rows.into_iter().collect();
        let expected = &copy.contents;
        let keys: BTreeSet<&Bytes> = rows.keys().chain(expected.keys()).collect();
        match keys.into_iter().find(|key| rows.get(*key) != expected.get(*key)) {
            None => Ok(()),
            Some(key) => broken(
                Promise::HoldsCommits,
                format!(
                    "{node}, with {} commits, holds {} under {}, and the commits say {}",
                    copy.commits,
                    shown(rows.get(key)),
                    String::from_utf8_lossy(key),
                    shown(expected.get(key)),
                ),
            ),
        }
    }
}

fn shown(value: Option<&Bytes>) -> String {
    value.map_or_else(|| "nothing".to_owned(), |it| crate::words::text(it))
}
