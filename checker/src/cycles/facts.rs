//! What each transaction saw of the others, and what it left behind.
//!
//! Reads are *external* if the transaction had not written the object itself before; only these say
//! something of others. The last write of an object is what a transaction *installs*, in Adya's
//! words; others are intermediate.

use std::collections::BTreeMap;

use super::elements;
use super::finding::{Finding, Findings};
use super::transactions::{ListRead, Micro, Transactions, small};
use crate::history::Ending;
use crate::verdict::Rule;

/// No transaction, or no value.
pub(crate) const NONE: u32 = u32::MAX;

/// More than one transaction: what is written twice does not tell who wrote it.
const SEVERAL: u32 = u32::MAX - 1;

/// The facts of a history. Transactions are named by their number, values know their objects.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) transactions: &'a Transactions,
    /// The transactions by time, and then as whatever else they differ in, so that the order of
    /// lines says nothing.
    pub(crate) order: Vec<u32>,
    /// The place of each transaction in that order.
    pub(crate) rank: Vec<u32>,
    /// Whether a transaction took place: it said so, or somebody read something of it.
    pub(crate) happened: Vec<bool>,
    /// For each value who wrote it, of those that may have taken place.
    writer: Vec<u32>,
    /// For each value somebody who wrote it and did not take place.
    aborted: Vec<u32>,
    /// For each value whether its writer left it behind.
    last: Vec<bool>,
    /// For each element what its writer appended to the list before.
    pub(crate) before: Vec<u32>,
    /// For each list whether its order is known: all reads agree.
    pub(crate) orderly: Vec<bool>,
    /// External reads whose version is known: who, and what.
    pub(crate) reads: Vec<(u32, u32)>,
    /// Object, who, and what it left there, by object.
    pub(crate) installs: Vec<(u32, u32, u32)>,
    /// For each value the one who read it and then wrote the object, and what it left there.
    pub(crate) successor: Vec<(u32, u32)>,
    pub(crate) findings: Findings,
}

/// What the transaction at hand has done to an object.
#[derive(Clone, Debug)]
struct Own {
    transaction: u32,
    /// What it found there first: a value, or the last element of a list.
    external: u32,
    external_list: Option<(ListRead, usize)>,
    written: u32,
    appended: Vec<u32>,
}

impl<'a> Facts<'a> {
    /// Looks at a history.
    pub(crate) fn of(transactions: &'a Transactions) -> Self {
        let values = transactions.values.len();
        let order = canonical_order(transactions);
        let mut rank = vec![0; order.len()];
        for (place, transaction) in (0..).zip(&order) {
            rank[*transaction as usize] = place;
        }
        let mut facts = Self {
            transactions,
            rank,
            happened: vec![false; order.len()],
            order,
            writer: vec![NONE; values],
            aborted: vec![NONE; values],
            last: vec![false; values],
            before: vec![NONE; values],
            orderly: transactions.objects.iter().map(|object| object.odd.is_empty()).collect(),
            reads: Vec::new(),
            installs: Vec::new(),
            successor: vec![(NONE, NONE); values],
            findings: Findings::default(),
        };
        facts.find_writers();
        facts.find_happened();
        facts.find_installs();
        elements::check(&mut facts);
        facts.find_reads();
        facts.find_absences();
        facts.find_successors();
        facts
    }

    /// Who wrote a value, if one transaction did and no other may have.
    pub(crate) fn source(&self, value: u32) -> Option<u32> {
        let writer = self.writer[value as usize];
        (writer < SEVERAL && self.transactions.values[value as usize].text.is_some())
            .then_some(writer)
    }

    /// Whether a value says which version it is: it was written once, or it is what the object
    /// begins with and nobody can have brought that back.
    pub(crate) fn is_version(&self, value: u32) -> bool {
        if self.transactions.values[value as usize].text.is_some() {
            return self.writer[value as usize] < SEVERAL;
        }
        self.writer[value as usize] == NONE
    }

    pub(crate) fn is_initial(&self, value: u32) -> bool {
        self.transactions.values[value as usize].text.is_none()
    }

    /// Whether somebody who may have taken place wrote this, perhaps several.
    pub(crate) fn is_written(&self, value: u32) -> bool {
        self.writer[value as usize] != NONE
    }

    /// Somebody who wrote this and did not take place.
    pub(crate) fn aborted(&self, value: u32) -> Option<u32> {
        Some(self.aborted[value as usize]).filter(|writer| *writer != NONE)
    }

    pub(crate) fn is_done(&self, transaction: u32) -> bool {
        self.transactions.heads[transaction as usize].ending == Ending::Done
    }

    fn find_writers(&mut self) {
        for transaction in self.order.clone() {
            let ending = self.transactions.heads[transaction as usize].ending;
            let possible = matches!(ending, Ending::Done | Ending::Unknown);
            for micro in self.transactions.micro_of(transaction) {
                let (value, is_append) = match micro {
                    Micro::Append { value } => (*value as usize, true),
                    Micro::Write { value } => (*value as usize, false),
                    Micro::Read { .. } | Micro::ReadList { .. } => continue,
                };
                if !possible {
                    if self.aborted[value] == NONE {
                        self.aborted[value] = transaction;
                    }
                } else if self.writer[value] == NONE {
                    self.writer[value] = transaction;
                } else if self.writer[value] != transaction || is_append {
                    self.writer[value] = SEVERAL;
                }
            }
        }
    }

    /// What is done has happened, and what somebody read of whom has happened too.
    fn find_happened(&mut self) {
        let mut found: Vec<u32> =
            self.order.iter().copied().filter(|transaction| self.is_done(*transaction)).collect();
        for object in &self.transactions.objects {
            let odd = object.odd.iter().flatten();
            found.extend(object.longest.iter().chain(odd).filter_map(|value| self.source(*value)));
        }
        while let Some(transaction) = found.pop() {
            if std::mem::replace(&mut self.happened[transaction as usize], true) {
                continue;
            }
            for micro in self.transactions.micro_of(transaction) {
                if let Micro::Read { value } = micro {
                    found.extend(self.source(*value));
                }
            }
        }
    }

    fn find_installs(&mut self) {
        let transactions = self.transactions;
        let mut written: Vec<(u32, u32)> = Vec::new();
        // Where an object is among them, if it is.
        let mut places = vec![0usize; transactions.objects.len()];
        for transaction in self.happened_in_order() {
            written.clear();
            for micro in transactions.micro_of(transaction) {
                let (Micro::Append { value } | Micro::Write { value }) = *micro else { continue };
                let object = transactions.values[value as usize].object;
                match written.get_mut(places[object as usize]) {
                    Some((known, last)) if *known == object => {
                        self.before[value as usize] = *last;
                        *last = value;
                    }
                    Some(_) | None => {
                        places[object as usize] = written.len();
                        written.push((object, value));
                    }
                }
            }
            for (object, value) in &written {
                self.last[*value as usize] = true;
                self.installs.push((*object, transaction, *value));
            }
        }
        let rank = &self.rank;
        self.installs.sort_unstable_by_key(|(object, who, _)| (*object, rank[*who as usize]));
    }

    fn happened_in_order(&self) -> Vec<u32> {
        self.order.iter().copied().filter(|t| self.happened[*t as usize]).collect()
    }

    fn find_reads(&mut self) {
        let transactions = self.transactions;
        let nothing = Own {
            transaction: NONE,
            external: NONE,
            external_list: None,
            written: NONE,
            appended: Vec::new(),
        };
        let mut own = vec![nothing; transactions.objects.len()];
        for transaction in self.happened_in_order() {
            for micro in transactions.micro_of(transaction) {
                let object = match *micro {
                    Micro::Append { value } | Micro::Write { value } | Micro::Read { value } => {
                        transactions.values[value as usize].object
                    }
                    Micro::ReadList { object, .. } => object,
                };
                let own = &mut own[object as usize];
                if own.transaction != transaction {
                    own.appended.clear();
                    let appended = std::mem::take(&mut own.appended);
                    let (external, external_list, written) = (NONE, None, NONE);
                    *own = Own { transaction, external, external_list, written, appended };
                }
                match *micro {
                    Micro::Append { value } => own.appended.push(value),
                    Micro::Write { value } => own.written = value,
                    Micro::Read { value } => self.read_register(transaction, value, own),
                    Micro::ReadList { object, list } => {
                        self.read_list(transaction, object, list, own);
                    }
                }
            }
        }
    }

    fn read_register(&mut self, reader: u32, value: u32, own: &mut Own) {
        let expected = if own.written == NONE { own.external } else { own.written };
        if expected != NONE {
            if value != expected {
                self.find_internal(reader, value, expected, own.written != NONE);
            }
            return;
        }
        own.external = value;
        self.check_value(reader, value);
        if self.is_version(value) && self.source(value) != Some(reader) {
            self.reads.push((reader, value));
        }
    }

    fn find_internal(&mut self, reader: u32, value: u32, expected: u32, written: bool) {
        let name = &self.transactions.object_of(value).name;
        let (found, expected) = (self.transactions.text(value), self.transactions.text(expected));
        let did = if written { "written" } else { "read" };
        let what = format!("read {name}={found} after it had itself {did} {name}={expected}");
        self.find_of_one(Rule::Internal, reader, &what);
    }

    fn read_list(&mut self, reader: u32, object: u32, list: ListRead, own: &mut Own) {
        let elements = self.transactions.elements(object, list);
        let external_length = elements.len().saturating_sub(own.appended.len());
        let (external, tail) = elements.split_at(external_length);
        let mut internal = tail != own.appended;
        if let Some((earlier, length)) = own.external_list {
            internal |= &self.transactions.elements(object, earlier)[..length] != external;
        }
        if internal {
            let name = &self.transactions.objects[object as usize].name;
            let found = elements::shown(self.transactions, elements);
            let what =
                format!("read {name}={found}, which contradicts what it had itself done before");
            self.find_of_one(Rule::Internal, reader, &what);
            return;
        }
        if own.external_list.is_some() {
            return;
        }
        own.external_list = Some((list, external_length));
        let initial = self.transactions.objects[object as usize].initial;
        let last = external.last().copied().unwrap_or(initial);
        if last != initial {
            self.check_intermediate(reader, last);
        }
        if self.orderly[object as usize] {
            self.reads.push((reader, last));
        }
    }

    /// A register's value that nobody wrote, or nobody who took place, or that was not to be seen.
    fn check_value(&mut self, reader: u32, value: u32) {
        if self.is_initial(value) {
            return;
        }
        if !self.is_written(value) {
            self.find_unwritten(reader, value);
        } else if self.source(value) == Some(reader) {
            let (name, text) = self.named(value);
            let what = format!("read {name}={text}, which it wrote itself only afterwards");
            self.find_of_one(Rule::Internal, reader, &what);
        } else {
            self.check_intermediate(reader, value);
        }
    }

    /// What nobody wrote who took place.
    pub(crate) fn find_unwritten(&mut self, reader: u32, value: u32) {
        let (name, text) = self.named(value);
        let is_list = self.transactions.object_of(value).is_list;
        let (found, wrote) = if is_list {
            (format!("{text} in {name}"), "appended")
        } else {
            (format!("{name}={text}"), "wrote")
        };
        let finding = match self.aborted(value) {
            Some(writer) => Finding::new(self, Rule::AbortedRead, &[reader, writer], |names| {
                let (reader, by) = (names.name(reader), names.name(writer));
                let it = names.name(writer);
                format!("{reader} read {found}, which {by} {wrote}; {it} did not happen")
            }),
            None => {
                let what = format!("read {found}, which nobody {wrote}");
                let client = self.transactions.heads[reader as usize].client;
                Finding::new(self, Rule::Fabricated, &[reader], |_| {
                    format!("client {client} {what}")
                })
            }
        };
        self.findings.add(finding);
    }

    fn check_intermediate(&mut self, reader: u32, value: u32) {
        let Some(writer) = self.source(value) else { return };
        if writer == reader || self.last[value as usize] {
            return;
        }
        let (name, text) = self.named(value);
        let is_list = self.transactions.object_of(value).is_list;
        let (found, wrote) = if is_list {
            (format!("{name} with {text} at its end"), "appended more to it")
        } else {
            (format!("{name}={text}"), "wrote it again")
        };
        let finding = Finding::new(self, Rule::IntermediateRead, &[reader, writer], |names| {
            let (reader, writer) = (names.name(reader), names.name(writer));
            format!("{reader} read {found}, but {writer} {wrote} after that, in one transaction")
        });
        self.findings.add(finding);
    }

    /// What a transaction alone shows.
    fn find_of_one(&mut self, rule: Rule, transaction: u32, what: &str) {
        let finding = Finding::new(self, rule, &[transaction], |names| {
            format!("{} {what}", names.name(transaction))
        });
        self.findings.add(finding);
    }

    pub(crate) fn named(&self, value: u32) -> (String, String) {
        let name = self.transactions.object_of(value).name.to_string();
        (name, self.transactions.text(value).to_owned())
    }

    /// A scan says of every key of its range that is not among its rows that it was absent.
    fn find_absences(&mut self) {
        let transactions = self.transactions;
        if transactions.scans.is_empty() {
            return;
        }
        let mut in_rows = vec![NONE; transactions.objects.len()];
        let mut is_installed = vec![false; transactions.objects.len()];
        for (object, _, _) in &self.installs {
            is_installed[*object as usize] = true;
        }
        let registers: BTreeMap<&str, (u32, u32)> = (0u32..)
            .zip(&transactions.objects)
            .filter(|(_, object)| !object.is_list && self.is_version(object.initial))
            .filter(|(number, _)| is_installed[*number as usize])
            .map(|(number, object)| (&*object.name, (number, object.initial)))
            .collect();
        for (number, scan) in (0u32..).zip(&transactions.scans) {
            for micro in transactions.micro_of(scan.transaction) {
                if let Micro::Read { value } = micro {
                    in_rows[transactions.values[*value as usize].object as usize] = number;
                }
            }
            let covered = registers
                .range(scan.start.as_str()..)
                .take_while(|(key, _)| scan.end.as_deref().is_none_or(|end| **key < end))
                .take_while(|(key, _)| scan.last.as_deref().is_none_or(|last| **key <= last));
            for (_, (object, initial)) in covered {
                if in_rows[*object as usize] != number {
                    self.reads.push((scan.transaction, *initial));
                }
            }
        }
    }

    /// Who read a version and then wrote the object follows it at once. Two of them cannot: one has
    /// lost the other's update.
    fn find_successors(&mut self) {
        let rank = &self.rank;
        self.reads.sort_unstable_by_key(|(who, value)| (rank[*who as usize], *value));
        for at in 0..self.reads.len() {
            let (reader, value) = self.reads[at];
            let Some(installed) =
                self.installed(reader, self.transactions.values[value as usize].object)
            else {
                continue;
            };
            let (first, _) = self.successor[value as usize];
            if first == NONE {
                self.successor[value as usize] = (reader, installed);
            } else if first != reader {
                self.find_lost_update(first, reader, value);
            }
        }
    }

    /// What a transaction left in an object.
    pub(crate) fn installed(&self, transaction: u32, object: u32) -> Option<u32> {
        let place = self.rank[transaction as usize];
        self.installs
            .binary_search_by_key(&(object, place), |(o, who, _)| (*o, self.rank[*who as usize]))
            .ok()
            .map(|at| self.installs[at].2)
    }

    fn find_lost_update(&mut self, one: u32, other: u32, value: u32) {
        let (name, _) = self.named(value);
        let found = elements::version_shown(self, value);
        let wrote =
            if self.transactions.object_of(value).is_list { "appended to" } else { "wrote" };
        let finding = Finding::new(self, Rule::LostUpdate, &[one, other], |names| {
            let (one, other) = (names.name(one), names.name(other));
            format!(
                "{one} and {other} both read {found} and then {wrote} {name}; whichever came \
                 second should have read what the first left there"
            )
        });
        self.findings.add(finding);
    }
}

/// By call, return and client; what agrees in all that is told apart by what it did.
fn canonical_order(transactions: &Transactions) -> Vec<u32> {
    let mut order: Vec<u32> = (0..small(transactions.len())).collect();
    let time = |transaction: &u32| {
        let head = &transactions.heads[*transaction as usize];
        (head.call, head.ret, head.client)
    };
    order.sort_by(|a, b| {
        time(a).cmp(&time(b)).then_with(|| {
            let shown = |transaction: &u32| transactions.record(*transaction).to_string();
            shown(a).cmp(&shown(b))
        })
    });
    order
}
