//! The session guarantees: hand-made histories, and tiny random ones judged by trying every order of
//! the writes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod written;

use std::collections::{BTreeMap, BTreeSet};

use kvorum_checker::{Ending, Guarantee, History, Operation, Record, Rule, session, sessions};
use written::history;

/// Which guarantees, alone or together (`all`), a history breaks.
fn broken(history: &History) -> String {
    let short = |rule: &Rule| match rule {
        Rule::Session(Guarantee::ReadYourWrites) => "ryw",
        Rule::Session(Guarantee::MonotonicReads) => "mr",
        Rule::Session(Guarantee::MonotonicWrites) => "mw",
        Rule::Session(Guarantee::WritesFollowReads) => "wfr",
        Rule::Sessions => "all",
        rule => panic!("{rule} is no session's"),
    };
    let verdicts = sessions(history);
    let names =
        verdicts.iter().filter(|(_, verdict)| !verdict.holds()).map(|(rule, _)| short(rule));
    names.collect::<Vec<_>>().join(" ")
}

#[test]
fn hand_made_sessions_are_judged_right() {
    let text = include_str!("histories/sessions.txt");
    let sections: Vec<&str> = text.split("\n--- ").skip(1).collect();
    assert!(sections.len() > 25, "{} sections", sections.len());
    for section in sections {
        let (head, lines) = section.split_once('\n').unwrap();
        let (expected, name) = head.split_once(": ").unwrap();
        let expected = if expected == "holds" { "" } else { expected };
        let told = lines.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>();
        let mut history = history(&told.join("\n"));
        assert_eq!(broken(&history), expected, "{name}: {:#?}", sessions(&history));
        history.reverse();
        assert_eq!(broken(&history), expected, "{name}, the lines the other way round");
    }
}

#[test]
fn the_two_operations_are_named() {
    let text = "1 0 9 put k=a\n3 0 9 put k=b\n2 2 3 get k -> a\n2 4 5 get k -> b\n2 6 7 get k -> a";
    let verdict = session(&history(text), Guarantee::MonotonicReads);
    assert_eq!(
        verdict.violation().unwrap().words,
        "monotonic reads: client 2's get k: read a, and then client 2's get k: read b, so client \
         1's put k=a comes before client 3's put k=b; but monotonic reads: client 2's get k: read \
         b, and then client 2's get k: read a, so client 3's put k=b comes before client 1's put k=a"
    );
    let verdict = session(&history("1 0 1 put k=a\n1 2 3 get k -> -"), Guarantee::ReadYourWrites);
    assert_eq!(
        verdict.violation().unwrap().words,
        "read your writes: client 1's put k=a, and then client 1's get k: read (absent); but k was \
         found as if nobody had written it"
    );
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

const KEYS: [&str; 2] = ["x", "y"];

/// Few writes and many reads of whatever was or will be written.
fn random_history(random: &mut Random) -> History {
    let writes = 1 + random.below(4);
    let value = |random: &mut Random, key: usize| {
        let value = random.below(writes + 1);
        (value > 0 && (value % 2 == key as u64 || value.is_multiple_of(3)))
            .then(|| value.to_string())
    };
    let mut operations = Vec::new();
    for number in 1..=writes {
        // Odd values are of y and even ones of x; those that three divides are of both.
        let of = KEYS[usize::try_from(number % 2).unwrap()].to_owned();
        operations.push(if number.is_multiple_of(3) {
            let writes = KEYS.map(|key| (key.to_owned(), Some(number.to_string()))).to_vec();
            Operation::Transact { preconditions: Vec::new(), writes }
        } else {
            Operation::Put { key: of, value: number.to_string() }
        });
    }
    for _ in 0..1 + random.below(4) {
        operations.push(if random.below(2) == 0 {
            let results = vec![value(random, 0), value(random, 1)];
            Operation::GetMany { keys: KEYS.map(str::to_owned).to_vec(), results }
        } else {
            let key = usize::try_from(random.below(2)).unwrap();
            Operation::Get { key: KEYS[key].to_owned(), result: value(random, key) }
        });
    }
    for at in (1..operations.len()).rev() {
        operations.swap(at, usize::try_from(random.below(at as u64 + 1)).unwrap());
    }
    let mut call = 0;
    let record = |operation: Operation| {
        call += 10;
        let unknown = matches!(operation, Operation::Put { .. }) && random.below(6) == 0;
        let ending = if unknown { Ending::Unknown } else { Ending::Done };
        Record { client: random.below(3), call, ret: call + 5, ending, operation }
    };
    operations.into_iter().map(record).collect()
}

fn writes(record: &Record) -> Vec<(String, String)> {
    match &record.operation {
        Operation::Put { key, value } => vec![(key.clone(), value.clone())],
        Operation::Transact { writes, .. } => {
            writes.iter().map(|(key, value)| (key.clone(), value.clone().unwrap())).collect()
        }
        _ => Vec::new(),
    }
}

fn reads(record: &Record) -> Vec<(String, Option<String>)> {
    match &record.operation {
        Operation::Get { key, result } => vec![(key.clone(), result.clone())],
        Operation::GetMany { keys, results } => {
            keys.iter().cloned().zip(results.iter().cloned()).collect()
        }
        _ => Vec::new(),
    }
}

/// The definition, tried with every order of the writes.
struct Definition<'a> {
    history: &'a History,
    guarantees: &'a [Guarantee],
    writer: BTreeMap<(String, String), usize>,
}

impl<'a> Definition<'a> {
    fn holds(history: &'a History, guarantees: &'a [Guarantee]) -> bool {
        let mut writer = BTreeMap::new();
        for (at, record) in history.iter().enumerate() {
            writer.extend(writes(record).into_iter().map(|row| (row, at)));
        }
        let definition = Self { history, guarantees, writer };
        let all = (0..history.len()).filter(|at| !writes(&history[*at]).is_empty()).collect();
        let seen: Vec<BTreeSet<usize>> =
            (0..history.len()).map(|reader| definition.seen(reader)).collect();
        definition.some_order(&mut Vec::new(), all, &seen)
    }

    fn has(&self, guarantee: Guarantee) -> bool {
        self.guarantees.contains(&guarantee)
    }

    fn found(&self, reader: usize) -> impl Iterator<Item = usize> {
        let rows = reads(&self.history[reader]).into_iter();
        rows.filter_map(|(key, value)| self.writer.get(&(key, value?)).copied())
    }

    fn before(&self, at: usize) -> impl Iterator<Item = usize> {
        (0..at).filter(move |other| self.history[*other].client == self.history[at].client)
    }

    fn known_writes_before(&self, at: usize) -> impl Iterator<Item = usize> {
        self.before(at).filter(|other| {
            let record = &self.history[*other];
            record.ending == Ending::Done && !writes(record).is_empty()
        })
    }

    /// What a read must have seen at least.
    fn seen(&self, reader: usize) -> BTreeSet<usize> {
        let mut seen: BTreeSet<usize> = self.found(reader).collect();
        if self.has(Guarantee::ReadYourWrites) {
            seen.extend(self.known_writes_before(reader));
        }
        if self.has(Guarantee::MonotonicReads) {
            seen.extend(self.before(reader).flat_map(|earlier| self.found(earlier)));
            if self.has(Guarantee::ReadYourWrites) {
                let reads = self.before(reader).filter(|at| !reads(&self.history[*at]).is_empty());
                seen.extend(reads.flat_map(|earlier| self.known_writes_before(earlier)));
            }
        }
        loop {
            let mut more = seen.clone();
            for write in &seen {
                if self.has(Guarantee::MonotonicWrites) {
                    more.extend(self.known_writes_before(*write));
                }
                if self.has(Guarantee::WritesFollowReads) {
                    more.extend(self.before(*write).flat_map(|earlier| self.found(earlier)));
                }
            }
            if more == seen {
                return seen;
            }
            seen = more;
        }
    }

    fn some_order(
        &self,
        order: &mut Vec<usize>,
        left: BTreeSet<usize>,
        seen: &[BTreeSet<usize>],
    ) -> bool {
        if left.is_empty() {
            return (0..self.history.len()).all(|reader| self.answers(reader, order, seen));
        }
        left.iter().any(|write| {
            let mut before: BTreeSet<usize> = BTreeSet::new();
            if self.has(Guarantee::MonotonicWrites) {
                before.extend(self.known_writes_before(*write));
            }
            if self.has(Guarantee::WritesFollowReads) {
                before.extend(self.before(*write).flat_map(|earlier| self.found(earlier)));
            }
            if before.iter().any(|other| left.contains(other)) {
                return false;
            }
            let mut rest = left.clone();
            rest.remove(write);
            order.push(*write);
            let found = self.some_order(order, rest, seen);
            order.pop();
            found
        })
    }

    fn answers(&self, reader: usize, order: &[usize], seen: &[BTreeSet<usize>]) -> bool {
        reads(&self.history[reader]).into_iter().all(|(key, value)| {
            let writes_key =
                |write: &&usize| writes(&self.history[**write]).iter().any(|(k, _)| *k == key);
            let last = order.iter().filter(|write| seen[reader].contains(write)).rfind(writes_key);
            let expected = value.map(|value| self.writer.get(&(key.clone(), value)).copied());
            match expected {
                None => last.is_none(),
                // What nobody wrote is another judge's affair.
                Some(None) => true,
                Some(Some(writer)) => last == Some(&writer),
            }
        })
    }
}

#[test]
fn what_is_reported_has_no_order() {
    let mut random = Random(3);
    let mut totals: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for round in 0..6_000 {
        let history = random_history(&mut random);
        // What no guarantee is needed for is a torn read, which is another judge's affair.
        if !Definition::holds(&history, &[]) {
            continue;
        }
        for (rule, verdict) in sessions(&history) {
            let guarantees = match rule {
                Rule::Session(guarantee) => vec![guarantee],
                _ => Guarantee::ALL.to_vec(),
            };
            let holds = Definition::holds(&history, &guarantees);
            let shown = || history.iter().map(|record| format!("{record}\n")).collect::<String>();
            let false_alarm = holds && !verdict.holds();
            assert!(!false_alarm, "round {round}, {rule}:\n{}{verdict}", shown());
            let (wrong, reported) = totals.entry(rule.to_string()).or_default();
            *wrong += usize::from(!holds);
            *reported += usize::from(!verdict.holds());
        }
    }
    for (rule, (wrong, reported)) in &totals {
        println!("{rule}: {reported} of {wrong} reported");
        assert!(*wrong > 100 && reported * 100 >= wrong * 80, "{rule}: {reported} of {wrong}");
    }
}
