//! The newest commits, kept in memory for replicas that miss them. What they wrote is shared with
//! whom it was taken from, not copied.

use alloc::collections::VecDeque;

use crate::two_phase::message::{Commit, CommitNumber};

/// What a commit takes besides its keys and values: its place here, and the lists of its operations.
const COMMIT_BYTES: usize = 160;

/// Commits without a gap, the newest last.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    /// With their bytes.
    commits: VecDeque<(Commit, usize)>,
    bytes: usize,
}

impl Recent {
    /// Adds the commit behind the newest one. The oldest go where that is too much.
    pub(super) fn push(&mut self, commit: Commit, bytes_max: usize) {
        if self.commits.back().is_some_and(|(last, _)| last.number.next() != commit.number) {
            self.clear();
        }
        let writes = commit.transaction.writes.iter();
        let bytes = COMMIT_BYTES + writes.map(|write| write.bytes()).sum::<usize>();
        self.bytes += bytes;
        self.commits.push_back((commit, bytes));
        while self.bytes > bytes_max {
            let Some((_, bytes)) = self.commits.pop_front() else { return };
            self.bytes -= bytes;
        }
    }

    /// Other commits are the newest now.
    pub(super) fn clear(&mut self) {
        self.commits.clear();
        self.bytes = 0;
    }

    /// The oldest of them.
    pub(super) fn first(&self) -> Option<CommitNumber> {
        self.commits.front().map(|(commit, _)| commit.number)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Those from this one on, with their bytes.
    pub(super) fn from(&self, number: CommitNumber) -> impl Iterator<Item = (&Commit, usize)> {
        let skipped = self.first().map_or(0, |first| number.0.saturating_sub(first.0));
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX).min(self.commits.len());
        self.commits.range(skipped..).map(|(commit, bytes)| (commit, *bytes))
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::contract::NodeId;
    use crate::request::{Transaction, Value, Write};
    use crate::two_phase::message::TxnId;

    fn commit(number: u64, bytes: usize) -> Commit {
        let writes = vec![Write::Put(Value::new(), Value::from(vec![0; bytes]))];
        Commit {
            number: CommitNumber(number),
            txn: TxnId { coordinator: NodeId::COORDINATOR, epoch: 1, number },
            pledge: None,
            transaction: Arc::new(Transaction { preconditions: Vec::new(), writes }),
        }
    }

    fn numbers(recent: &Recent, from: u64) -> Vec<u64> {
        recent.from(CommitNumber(from)).map(|(commit, _)| commit.number.0).collect()
    }

    #[test]
    fn the_oldest_go_and_no_gap_stays() {
        let mut recent = Recent::default();
        assert_eq!((recent.first(), numbers(&recent, 1)), (None, vec![]));
        for number in 4..8 {
            recent.push(commit(number, 100), 4 * (COMMIT_BYTES + 100));
        }
        assert_eq!((numbers(&recent, 0), numbers(&recent, 6)), (vec![4, 5, 6, 7], vec![6, 7]));
        recent.push(commit(8, 200), 4 * (COMMIT_BYTES + 100));
        assert_eq!(recent.first(), Some(CommitNumber(6)), "it takes the room of two");
        assert_eq!(numbers(&recent, 9), vec![]);
        recent.push(commit(20, 100), 4 * (COMMIT_BYTES + 100));
        assert_eq!(numbers(&recent, 0), vec![20], "those between are missing");
        recent.push(commit(21, 10_000), 4 * (COMMIT_BYTES + 100));
        assert_eq!((recent.first(), recent.bytes()), (None, 0), "one that is too large by itself");
    }
}
