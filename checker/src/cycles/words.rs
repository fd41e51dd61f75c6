//! A cycle, in words.

use super::elements::{shown, version_shown};
use super::facts::Facts;
use super::finding::{Finding, Names};
use super::graph::kind;
use super::shortest::{FoundCycle, Way};
use super::transactions::{Micro, small};
use crate::verdict::Rule;

/// Says what each dependency of a cycle is.
pub(super) fn finding(facts: &Facts<'_>, follower: &[u32], cycle: &FoundCycle) -> Finding {
    let words = Words { facts, follower };
    let named = |node: u32| facts.order[node as usize];
    let mut transactions: Vec<u32> = cycle.ways.iter().map(|way| named(way.from)).collect();
    for way in &cycle.ways {
        if let Some(evidence) = words.evidence(way) {
            transactions.extend([evidence.was, evidence.is]);
        }
    }
    Finding::new(facts, Rule::Cycle(cycle.class), &transactions, |names| {
        let mut path: Vec<String> =
            cycle.ways.iter().map(|way| names.name(named(way.from))).collect();
        path.extend(cycle.ways.first().map(|way| names.name(named(way.from))));
        let ways: Vec<String> = cycle.ways.iter().map(|way| words.way(way, names)).collect();
        format!("{}: {}", path.join(" before "), ways.join("; "))
    })
}

struct Words<'a> {
    facts: &'a Facts<'a>,
    follower: &'a [u32],
}

/// Who shows that one version was there before another was.
struct Evidence {
    was: u32,
    by: u64,
    is: u32,
    after: u64,
}

impl Words<'_> {
    fn way(&self, way: &Way, names: &Names<'_>) -> String {
        let order = &self.facts.order;
        let (from, to) = (order[way.from as usize], order[way.to as usize]);
        let (one, other) = (names.name(from), names.name(to));
        match way.kind {
            kind::REALTIME => {
                let heads = &self.facts.transactions.heads;
                let ret = names.time(heads[from as usize].ret);
                let call = names.time(heads[to as usize].call);
                format!("{one} had returned at {ret} before {other} was called at {call}")
            }
            kind::WRITE_READ => self.read(from, to, &one, &other),
            _ => {
                let mut words = match self.version(way) {
                    Some(value) => self.overwritten(way.kind, value, to, &one, &other),
                    None => format!("{other} overwrote what {one} wrote"),
                };
                if let Some(evidence) = self.evidence(way) {
                    words.push_str(&format!(
                        " (the former was there by {}, see {}; the latter was there after {}, see {})",
                        names.time(evidence.by),
                        names.name(evidence.was),
                        names.time(evidence.after),
                        names.name(evidence.is)
                    ));
                }
                words
            }
        }
    }

    fn read(&self, writer: u32, reader: u32, one: &str, other: &str) -> String {
        let value = self.reads_of(reader).find(|value| self.facts.source(*value) == Some(writer));
        let Some(value) = value else { return format!("{other} read what {one} wrote") };
        let found = version_shown(self.facts, value);
        if self.facts.transactions.object_of(value).is_list {
            let text = self.facts.transactions.text(value);
            return format!("{other} read {found}, whose {text} {one} appended");
        }
        format!("{other} read {found}, which {one} wrote")
    }

    fn overwritten(&self, kind: u8, value: u32, to: u32, one: &str, other: &str) -> String {
        let transactions = self.facts.transactions;
        let object = transactions.object_of(value);
        let name = &object.name;
        let found = version_shown(self.facts, value);
        let did = if kind == kind::READ_WRITE { "read" } else { "wrote" };
        if !object.is_list {
            let left = self.facts.installed(to, transactions.values[value as usize].object);
            let left = left.map_or("something else", |left| transactions.text(left));
            let wrote = if self.facts.is_initial(value) { "wrote" } else { "overwrote it with" };
            return format!("{one} {did} {found}, and {other} {wrote} {name}={left} after that");
        }
        let appended = self.appended_after(value, to);
        let appended = shown(transactions, &appended);
        let appended = appended.trim_matches(['[', ']']);
        if kind == kind::READ_WRITE {
            return format!(
                "{one} read {found}, and {other} appended {appended} to {name} after that"
            );
        }
        let text = transactions.text(value);
        format!("{one} appended {text} to {name}, and {other} appended {appended} to it after that")
    }

    /// What a transaction appended to a list after this element.
    fn appended_after(&self, value: u32, who: u32) -> Vec<u32> {
        let transactions = self.facts.transactions;
        let longest = &transactions.object_of(value).longest;
        let from = longest.iter().position(|element| *element == value).map_or(0, |at| at + 1);
        let own = transactions.micro_of(who).iter().filter_map(|micro| match micro {
            Micro::Append { value: own } => Some(*own),
            Micro::Write { .. } | Micro::Read { .. } | Micro::ReadList { .. } => None,
        });
        let object = transactions.values[value as usize].object;
        own.filter(|own| transactions.values[*own as usize].object == object)
            .filter(|own| !longest[..from].contains(own))
            .collect()
    }

    fn reads_of(&self, reader: u32) -> impl Iterator<Item = u32> {
        let place = self.facts.rank[reader as usize];
        let rank = &self.facts.rank;
        let reads = &self.facts.reads;
        let from = reads.partition_point(|(who, _)| rank[*who as usize] < place);
        reads[from..].iter().take_while(move |(who, _)| *who == reader).map(|(_, value)| *value)
    }

    /// The version that is overwritten on this way.
    fn version(&self, way: &Way) -> Option<u32> {
        let transactions = small(self.facts.order.len());
        let values = small(self.facts.transactions.values.len());
        if let Some(first) = way.waypoints.first() {
            return first.checked_sub(transactions).filter(|value| *value < values);
        }
        let (from, to) = (self.facts.order[way.from as usize], self.facts.order[way.to as usize]);
        self.reads_of(from).find(|value| self.follower[*value as usize] == to)
    }

    /// For an order of versions that is known from the times alone: who shows it.
    fn evidence(&self, way: &Way) -> Option<Evidence> {
        let facts = self.facts;
        let heads = &facts.transactions.heads;
        let former = self.version(way).filter(|_| way.timed)?;
        let to = facts.order[way.to as usize];
        let object = facts.transactions.values[former as usize].object;
        let latter = facts.installed(to, object).filter(|left| facts.source(*left) == Some(to));
        let seen = |value: u32| {
            let readers = facts.reads.iter().filter(move |(_, read)| *read == value);
            facts.source(value).into_iter().chain(readers.map(|(who, _)| *who))
        };
        let was = seen(former)
            .filter(|who| facts.is_done(*who))
            .min_by_key(|who| (heads[*who as usize].ret, facts.rank[*who as usize]))?;
        let is = match latter {
            None => to,
            Some(latter) => seen(latter).max_by_key(|who| {
                (heads[*who as usize].call, std::cmp::Reverse(facts.rank[*who as usize]))
            })?,
        };
        let (by, after) = (heads[was as usize].ret, heads[is as usize].call);
        Some(Evidence { was, by, is, after })
    }
}
