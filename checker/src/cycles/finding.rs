//! What was found to be wrong, in words, before it is a verdict.

use std::cell::RefCell;

use super::facts::Facts;
use super::transactions::Transactions;
use crate::history::Record;
use crate::times::Times;
use crate::verdict::{Rule, Verdict};

/// An anomaly.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) rule: Rule,
    /// Its transactions, by time; the words call the first T1, the second T2.
    pub(crate) transactions: Vec<u32>,
    pub(crate) words: String,
}

/// The first anomaly of each kind.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Finding {
    /// The words get to know what each transaction is called.
    pub(crate) fn new(
        facts: &Facts<'_>,
        rule: Rule,
        transactions: &[u32],
        words: impl FnOnce(&Names<'_>) -> String,
    ) -> Self {
        let mut named = transactions.to_vec();
        named.sort_unstable_by_key(|transaction| facts.rank[*transaction as usize]);
        named.dedup();
        let names = Names::of(facts.transactions, &named);
        let words = words(&names);
        Self { rule, transactions: named, words }
    }

    pub(crate) fn verdict(self, record: impl Fn(u32) -> Record) -> Verdict {
        let Self { rule, transactions, words } = self;
        Verdict::violated(rule, words, transactions.into_iter().map(record).collect())
    }
}

/// What some transactions are called, and how times are written beside them.
pub(crate) struct Names<'a> {
    transactions: &'a Transactions,
    /// By time, which is the order in which they are shown.
    named: &'a [u32],
    mentioned: RefCell<Vec<bool>>,
    times: Times,
}

impl<'a> Names<'a> {
    fn of(transactions: &'a Transactions, named: &'a [u32]) -> Self {
        let records: Vec<Record> = named.iter().map(|at| transactions.record(*at)).collect();
        let mentioned = RefCell::new(vec![false; named.len()]);
        Self { transactions, named, mentioned, times: Times::of(&records) }
    }

    /// T1 is the first of them; its client is told when it is mentioned first.
    pub(crate) fn name(&self, transaction: u32) -> String {
        let place = self.named.iter().position(|other| *other == transaction).unwrap_or(0);
        let mentioned = self
            .mentioned
            .borrow_mut()
            .get_mut(place)
            .is_none_or(|mentioned| std::mem::replace(mentioned, true));
        if mentioned {
            return format!("T{}", place + 1);
        }
        let client = self.transactions.heads[transaction as usize].client;
        format!("T{} (client {client})", place + 1)
    }

    pub(crate) fn time(&self, time: u64) -> String {
        self.times.at(time)
    }
}

impl Findings {
    /// Keeps it unless there is one of its kind.
    pub(crate) fn add(&mut self, finding: Finding) {
        if !self.has(finding.rule) {
            self.0.push(finding);
        }
    }

    pub(crate) fn has(&self, rule: Rule) -> bool {
        self.0.iter().any(|finding| finding.rule == rule)
    }

    /// All of them, the plainest first: what one read shows, and then the shortest cycle.
    pub(crate) fn into_sorted(mut self) -> Vec<Finding> {
        self.0.sort_by_key(|finding| match finding.rule {
            Rule::Cycle(_) => (finding.transactions.len(), finding.rule),
            rule => (0, rule),
        });
        self.0
    }
}
