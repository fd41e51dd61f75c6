//! What is wrong with a few operations, in a sentence.
//!
//! The part is the smallest that has no order, so each of its operations could be blamed. Blamed is
//! one that looked at a key and found what it cannot have found, and the reason is given as a person
//! would: who had changed the key before. Where none of the known reasons fits, the sentence shows
//! an order of the others.

use crate::history::{Deed, Ending, Record};
use crate::search::{Problem, order};
use crate::settle::settle;
use crate::steps::{Condition, Step, Steps};
use crate::times::Times;

/// Configurations for an order of the others.
const CONFIGURATIONS_MAX: usize = 20_000;

/// A sentence, and the place in the history of the operation that it blames.
pub(crate) struct Told {
    pub(crate) words: String,
    pub(crate) blamed: Option<usize>,
}

/// Tells why a part has no order. The part's numbers are its own; `names` says what they stand for.
pub(crate) fn tell(history: &[Record], part: &Problem, names: &Names<'_>) -> Told {
    let operations: Vec<Record> =
        part.steps.iter().map(|step| history[step.record].clone()).collect();
    let teller = Teller { history, part, names, times: Times::of(&operations) };
    let mut suspects: Vec<&Step> =
        part.steps.iter().filter(|step| step.required && !step.conditions.is_empty()).collect();
    // Who looked last is most likely the one who saw what was no longer so.
    suspects.sort_by_key(|step| (std::cmp::Reverse(step.call), step.record));
    suspects
        .iter()
        .find_map(|suspect| {
            let words = teller.reason(suspect)?;
            Some(Told { words, blamed: Some(suspect.record) })
        })
        .or_else(|| {
            suspects.iter().find_map(|suspect| {
                let words = teller.no_place(suspect)?;
                Some(Told { words, blamed: Some(suspect.record) })
            })
        })
        .unwrap_or_else(|| {
            let words =
                format!("no order of these {} operations explains what was seen", operations.len());
            Told { words, blamed: None }
        })
}

/// The keys and values behind a problem's numbers.
pub(crate) struct Names<'a> {
    pub(crate) steps: &'a Steps,
    /// For each key of the problem its number in the history.
    pub(crate) keys: Vec<u32>,
    /// For each version of the problem its number in the history.
    pub(crate) versions: Vec<u32>,
}

impl Names<'_> {
    fn key(&self, key: u32) -> &str {
        &self.steps.keys[self.keys[key as usize] as usize]
    }

    fn value(&self, version: u32) -> Option<&str> {
        self.steps.versions[self.versions[version as usize] as usize].value.as_deref()
    }

    /// The key with its value.
    fn version(&self, key: u32, version: u32) -> String {
        match self.value(version) {
            Some(value) => format!("{}={value}", self.key(key)),
            None => format!("{} absent", self.key(key)),
        }
    }
}

struct Teller<'a> {
    history: &'a [Record],
    part: &'a Problem,
    names: &'a Names<'a>,
    times: Times,
}

impl Teller<'_> {
    /// Why the suspect cannot have found what it found, if it is for one of the known reasons.
    fn reason(&self, suspect: &Step) -> Option<String> {
        self.overwritten(suspect)
            .or_else(|| self.seen_newer(suspect))
            .or_else(|| self.torn(suspect))
            .or_else(|| self.had_to_succeed(suspect))
            .or_else(|| self.taken_twice(suspect))
    }

    /// Somebody had overwritten what the suspect found, and nobody wrote it again.
    fn overwritten(&self, suspect: &Step) -> Option<String> {
        self.found(suspect).find_map(|(key, version)| {
            let over = self
                .part
                .steps
                .iter()
                .filter(|step| writes_other(step, key, version))
                .filter(|step| self.returned_before(step, suspect))
                .filter(|step| self.all_writers_before(suspect, key, version, step.call))
                .max_by_key(|step| step.ret)?;
            Some(format!(
                "{} {}, but {} had returned at {}, and nobody {} after that",
                self.finding(suspect, key, version),
                self.span(suspect),
                self.deed(over),
                self.times.at(over.ret),
                self.wrote(key, version),
            ))
        })
    }

    /// Somebody had already seen what came later than what the suspect found.
    fn seen_newer(&self, suspect: &Step) -> Option<String> {
        let seen = |(key, version): (u32, u32)| {
            let is_newer = |other: &&Step| {
                self.returned_before(other, suspect)
                    && self.found(other).any(|(k, newer)| k == key && newer != version)
            };
            self.part.steps.iter().filter(is_newer).find_map(|other| {
                let (_, newer) = self.found(other).find(|(k, _)| *k == key)?;
                let why = self.why_newer(suspect, other, key, version, newer)?;
                Some(format!(
                    "{} {}, but {} already {}, {why}",
                    self.finding(suspect, key, version),
                    self.span(suspect),
                    self.finding(other, key, newer),
                    self.span(other),
                ))
            })
        };
        self.found(suspect).find_map(seen)
    }

    /// Why what `other` found came later than the version, if it did.
    fn why_newer(
        &self,
        suspect: &Step,
        other: &Step,
        key: u32,
        version: u32,
        newer: u32,
    ) -> Option<String> {
        let last = self.last_writer(key, version);
        if self.all_writers_before(suspect, key, version, other.call) {
            let wrote = self.wrote(key, version);
            return Some(match last {
                Some(last) => format!(
                    "after {} had returned at {}, and nobody {wrote} again",
                    self.deed(last),
                    self.times.at(last.ret),
                ),
                None => format!("and nobody {wrote} after that"),
            });
        }
        let first = self.writers(key, newer).min_by_key(|writer| writer.call)?;
        let newer_is_after = newer != self.part.initial[key as usize]
            && self.all_writers_before(suspect, key, version, first.call);
        newer_is_after.then_some(())?;
        let last = last?;
        Some(format!(
            "and {} was called at {}, after {} had returned at {}",
            self.deed(first),
            self.times.at(first.call),
            self.deed(last),
            self.times.at(last.ret),
        ))
    }

    /// It saw something of a transaction, and of another of its keys what is older.
    fn torn(&self, suspect: &Step) -> Option<String> {
        self.found(suspect).find_map(|(key, version)| {
            let writers: Vec<&Step> = self.writers(key, version).collect();
            let [whole] = writers[..] else { return None };
            let (other_key, other) = self.found(suspect).find(|(other_key, other)| {
                whole.effects.iter().any(|(k, v)| k == other_key && v != other)
                    && self.all_writers_before(suspect, *other_key, *other, whole.call)
            })?;
            let older = match self.last_writer(other_key, other) {
                Some(last) => format!("which {} had written before", self.deed(last)),
                None => "as it was before".to_owned(),
            };
            (whole.record != suspect.record).then(|| {
                format!(
                    "{} {}, which {} wrote, but {}, {older}",
                    self.finding(suspect, key, version),
                    self.span(suspect),
                    self.deed(whole),
                    self.names.version(other_key, other),
                )
            })
        })
    }

    /// A precondition failed, though it held.
    fn had_to_succeed(&self, suspect: &Step) -> Option<String> {
        suspect.conditions.iter().find_map(|(key, condition)| {
            let Condition::IsNot(version) = condition else { return None };
            let before =
                |step: &&Step| self.returned_before(step, suspect) && writes(step, *key, *version);
            let last = self.part.steps.iter().filter(before).max_by_key(|step| step.call);
            let since = last.map_or(0, |step| step.call);
            let initial = *version == self.part.initial[*key as usize];
            let changed = self.part.steps.iter().any(|step| {
                writes_other(step, *key, *version) && (!step.required || step.ret >= since)
            });
            if changed || (last.is_none() && !initial) {
                return None;
            }
            let was = self.names.version(*key, *version).replacen('=', " was ", 1);
            let was = was.replace(" absent", " was absent");
            Some(match last {
                Some(last) => format!(
                    "{} {} failed, but {was}: {} had returned at {}, and nobody \
                     changed {} after that",
                    self.deed(suspect),
                    self.span(suspect),
                    self.deed(last),
                    self.times.at(last.ret),
                    self.names.key(*key),
                ),
                None => format!("{} failed, but {was}: nobody had changed it", self.deed(suspect),),
            })
        })
    }

    /// Two changed a key from the same value, which was there only once.
    fn taken_twice(&self, suspect: &Step) -> Option<String> {
        self.found(suspect).find_map(|(key, version)| {
            let takes = |step: &Step| {
                self.found(step).any(|found| found == (key, version))
                    && writes_other(step, key, version)
            };
            let other = self
                .part
                .steps
                .iter()
                .find(|step| step.record != suspect.record && step.required && takes(step))?;
            let initial = version == self.part.initial[key as usize];
            let times = self.writers(key, version).count() + usize::from(initial);
            (takes(suspect) && times == 1).then(|| {
                format!(
                    "{} and {} both found {}, but {}",
                    self.deed(other),
                    self.deed(suspect),
                    self.names.version(key, version),
                    if initial {
                        "nobody brought it back after the first of them".to_owned()
                    } else {
                        "it was written only once".to_owned()
                    },
                )
            })
        })
    }

    /// The others have an order, and the suspect fits nowhere into any.
    fn no_place(&self, suspect: &Step) -> Option<String> {
        let mut rest = self.part.clone();
        rest.steps.retain(|step| step.record != suspect.record);
        settle(&mut rest);
        let order = order(&rest, CONFIGURATIONS_MAX)?;
        let others: Vec<String> =
            order.into_iter().map(|place| self.deed(&rest.steps[place])).collect();
        let found: Vec<String> =
            self.found(suspect).map(|(key, version)| self.finding(suspect, key, version)).collect();
        let found = match found.first() {
            Some(first) if found.len() == 1 => first.clone(),
            _ => format!("{} ({})", self.deed(suspect), Deed(self.record(suspect))),
        };
        Some(format!(
            "{found} {}, and that fits nowhere between the others, which have an order: {}",
            self.span(suspect),
            others.join("; "),
        ))
    }

    fn span(&self, step: &Step) -> String {
        self.times.span(self.record(step))
    }

    fn record(&self, step: &Step) -> &Record {
        &self.history[step.record]
    }

    /// Keys that a step found to be something.
    fn found<'s>(&self, step: &'s Step) -> impl Iterator<Item = (u32, u32)> + use<'s> {
        step.conditions.iter().filter_map(|(key, condition)| match condition {
            Condition::Is(version) => Some((*key, *version)),
            Condition::IsNot(_) => None,
        })
    }

    fn writers(&self, key: u32, version: u32) -> impl Iterator<Item = &Step> {
        self.part.steps.iter().filter(move |step| writes(step, key, version))
    }

    fn last_writer(&self, key: u32, version: u32) -> Option<&Step> {
        self.writers(key, version).max_by_key(|step| step.ret)
    }

    /// Whether everybody else who wrote the version had returned by then.
    fn all_writers_before(&self, suspect: &Step, key: u32, version: u32, time: u64) -> bool {
        let initial = version == self.part.initial[key as usize];
        let mut writers =
            self.writers(key, version).filter(|step| step.record != suspect.record).peekable();
        (initial || writers.peek().is_some())
            && writers.all(|writer| writer.required && writer.ret < time)
    }

    fn returned_before(&self, step: &Step, other: &Step) -> bool {
        step.required && step.ret < other.call && step.record != other.record
    }

    fn client(&self, step: &Step) -> String {
        format!("client {}", self.record(step).client)
    }

    /// "client 1's put k=b".
    fn deed(&self, step: &Step) -> String {
        let record = self.record(step);
        let unknown = match record.ending {
            Ending::Unknown => " of unknown outcome",
            Ending::Done | Ending::NotDone | Ending::PreconditionFailed(_) => "",
        };
        format!("{}'s {}{unknown}", self.client(step), record.operation)
    }

    /// "client 1 read k=b".
    fn finding(&self, step: &Step, key: u32, version: u32) -> String {
        let record = self.record(step);
        let what = self.names.version(key, version);
        let reads = record.operation.is_read();
        match (reads, self.names.value(version)) {
            (true, Some(_)) => format!("{} read {what}", self.client(step)),
            (true, None) => format!("{} found {what}", self.client(step)),
            (false, _) => format!("{} found {what}", self.deed(step)),
        }
    }

    /// What nobody did after that.
    fn wrote(&self, key: u32, version: u32) -> String {
        match self.names.value(version) {
            Some(value) => format!("wrote {value}"),
            None => format!("removed {}", self.names.key(key)),
        }
    }
}

fn writes(step: &Step, key: u32, version: u32) -> bool {
    step.effects.contains(&(key, version))
}

fn writes_other(step: &Step, key: u32, version: u32) -> bool {
    step.effects.iter().any(|(k, v)| *k == key && *v != version)
}
