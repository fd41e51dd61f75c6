//! What was found to be wrong, in words, before it is a verdict.

use crate::history::Record;
use crate::verdict::{Rule, Violation};

/// An anomaly.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) rule: Rule,
    /// Its transactions, by time; the words call the first T1, the second T2.
    pub(super) transactions: Vec<u32>,
    pub(super) words: String,
}

/// The first anomaly of each kind.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Finding {
    /// The words get to know what each transaction is called.
    pub(super) fn new(
        rank: &[u32],
        rule: Rule,
        transactions: &[u32],
        words: impl FnOnce(&dyn Fn(u32) -> String) -> String,
    ) -> Self {
        let mut named = transactions.to_vec();
        named.sort_unstable_by_key(|transaction| rank[*transaction as usize]);
        named.dedup();
        let words = words(&|transaction| {
            let place = named.iter().position(|other| *other == transaction);
            format!("T{}", place.map_or(0, |place| place + 1))
        });
        Self { rule, transactions: named, words }
    }
}

impl Findings {
    /// Keeps it unless there is one of its kind.
    pub(super) fn add(&mut self, finding: Finding) {
        if !self.has(finding.rule) {
            self.0.push(finding);
        }
    }

    pub(super) fn has(&self, rule: Rule) -> bool {
        self.0.iter().any(|finding| finding.rule == rule)
    }

    /// All of them, the plainest first: what one read shows, and then the shortest cycle.
    pub(super) fn into_sorted(mut self) -> Vec<Finding> {
        self.0.sort_by_key(|finding| match finding.rule {
            Rule::Cycle(_) => (finding.transactions.len(), finding.rule),
            rule => (0, rule),
        });
        self.0
    }
}

impl Finding {
    pub(super) fn violation(self, record: impl Fn(u32) -> Record) -> Violation {
        let Self { rule, transactions, words } = self;
        let operations = transactions.into_iter().map(record).collect();
        let (blamed, differences) = (Vec::new(), Vec::new());
        Violation { rule, words, operations, blamed, differences }
    }
}
