//! One replica with a disk and a store in memory: the shell of the contract, with every choice that
//! a real one leaves to time in the hands of the test.

use std::collections::{BTreeMap, VecDeque};

use kvorum_replication::two_phase::any_replica::message::Message;
use kvorum_replication::two_phase::any_replica::record::Record;
use kvorum_replication::two_phase::any_replica::{Replica, Resume, points};
use kvorum_replication::{
    Answer, Core, Effect, Effects, Input, Key, NodeId, Outcome, Position, Query, RequestId, Row,
    Time, Value, Write,
};

use crate::show;

/// What survives a crash, and what does not yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// Every record ever, the released ones too: the judge reads them.
    pub(crate) log: Vec<Record>,
    /// How many of them are durable.
    pub(crate) durable: usize,
    /// Where recovery begins: the record after the first so many.
    pub(crate) start: usize,
    /// Rows that were flushed, and up to which mark.
    flushed: Rows,
    flushed_mark: u64,
}

impl Disk {
    /// Loses what is not durable, but for the first `keep` records of it.
    pub(crate) fn crash(&mut self, keep: usize) {
        self.log.truncate(self.durable.saturating_add(keep));
        self.durable = self.log.len();
    }
}

/// What a node says to the world.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    Send(NodeId, Message),
    Reply(RequestId, Outcome),
}

pub(crate) type Rows = BTreeMap<Key, Value>;

type ReplicaEffect = Effect<Message, Record, Resume>;

/// A running replica.
pub(crate) struct Machine {
    name: String,
    pub(crate) core: Replica,
    pub(crate) disk: Disk,
    pub(crate) rows: Rows,
    last_mark: u64,
    /// The record of a step, and what waits for it.
    held: VecDeque<(usize, ReplicaEffect)>,
    fed_back: VecDeque<Input<Message, Resume>>,
    pub(crate) timer: Option<Time>,
    effects: Effects<Message, Record, Resume>,
    /// The fail point at which it died.
    pub(crate) died_at: Option<&'static str>,
    pub(crate) outputs: Vec<Output>,
    /// What happened, in words, if anybody listens.
    pub(crate) trace: Option<Vec<String>>,
}

impl Machine {
    /// Recovers a core from its disk. It still has to be told that it has started.
    pub(crate) fn recover(
        name: String,
        core: Replica,
        disk: Disk,
        armed: Vec<String>,
        tracing: bool,
    ) -> Self {
        let mut machine = Self {
            name,
            core,
            rows: disk.flushed.clone(),
            last_mark: disk.flushed_mark,
            disk,
            held: VecDeque::new(),
            fed_back: VecDeque::new(),
            timer: None,
            effects: Effects::with_points(armed),
            died_at: None,
            outputs: Vec::new(),
            trace: tracing.then(Vec::new),
        };
        for index in machine.disk.start..machine.disk.log.len() {
            let at = Position(index as u64 + 1);
            let record = machine.disk.log[index].clone();
            machine.say(|| format!("recovers {at} {}", show::record(&record)));
            machine.core.recover(at, record, &mut machine.effects);
            let effects: Vec<ReplicaEffect> = machine.effects.drain().collect();
            for effect in effects {
                let Effect::Apply { mark, writes } = effect else {
                    panic!("recovery may only apply, not {effect:?}");
                };
                if mark > machine.disk.flushed_mark {
                    machine.apply(mark, writes);
                }
            }
        }
        machine
    }

    /// Hands over an input and does all that can be done without a sync.
    pub(crate) fn step(&mut self, now: Time, input: Input<Message, Resume>) {
        self.fed_back.push_back(input);
        self.settle(now);
    }

    /// Makes the log durable; what waited for that still does.
    pub(crate) fn make_durable(&mut self) {
        if !self.is_durable() {
            self.disk.durable = self.disk.log.len();
            let last = self.disk.durable;
            self.say(|| format!("syncs {last}"));
        }
    }

    /// Does what waited for the log.
    pub(crate) fn sync(&mut self, now: Time) {
        self.settle(now);
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.disk.durable == self.disk.log.len()
    }

    fn settle(&mut self, now: Time) {
        while self.died_at.is_none() {
            if let Some(input) = self.fed_back.pop_front() {
                self.core.step(now, input, &mut self.effects);
                let effects: Vec<ReplicaEffect> = self.effects.drain().collect();
                self.perform_step(effects);
            } else if self.held.front().is_some_and(|(behind, _)| *behind <= self.disk.durable) {
                let (_, effect) = self.held.pop_front().expect("it was just looked at");
                self.perform(effect);
            } else {
                return;
            }
        }
    }

    fn perform_step(&mut self, effects: Vec<ReplicaEffect>) {
        let mut behind = None;
        let mut effects = effects.into_iter();
        while let Some(effect) = effects.next() {
            match effect {
                Effect::Persist { at, record, .. } => {
                    self.append(at, record);
                    behind = Some(self.disk.log.len());
                }
                Effect::Point(name) if behind.is_none() => {
                    if name == points::COORDINATOR_DECISION_WRITTEN {
                        for effect in effects {
                            if let Effect::Persist { at, record, .. } = effect {
                                self.append(at, record);
                            }
                        }
                    }
                    return self.die(name);
                }
                effect => match behind {
                    Some(record) => {
                        assert!(
                            !matches!(effect, Effect::SetTimer(_) | Effect::Apply { .. }),
                            "it comes too late behind a record: {effect:?}"
                        );
                        self.held.push_back((record, effect));
                    }
                    None => self.perform(effect),
                },
            }
        }
    }

    fn append(&mut self, at: Position, record: Record) {
        assert_eq!(at.0, self.disk.log.len() as u64 + 1, "positions have no gaps");
        self.say(|| format!("writes {at} {}", show::record(&record)));
        self.disk.log.push(record);
    }

    fn perform(&mut self, effect: ReplicaEffect) {
        match effect {
            Effect::Send { to, message } => {
                self.say(|| format!("→ {to} {}", show::message(&message)));
                self.outputs.push(Output::Send(to, message));
            }
            Effect::Reply { request, outcome } => {
                self.say(|| format!("replies r{}: {}", request.0, show::outcome(&outcome)));
                self.outputs.push(Output::Reply(request, outcome));
            }
            Effect::Apply { mark, writes } => {
                self.say(|| format!("applies {mark} {}", show::writes(&writes)));
                self.apply(mark, writes);
            }
            Effect::Read { read, query } => {
                let answer = self.look_up(&query);
                self.fed_back.push_back(Input::Read { read, answer });
            }
            Effect::SetTimer(at) => self.timer = Some(at),
            Effect::Resume(resume) => self.fed_back.push_back(Input::Resume(resume)),
            Effect::Release(position) => self.release(position),
            Effect::Point(name) => self.die(name),
            Effect::Persist { .. } => unreachable!("records are appended before"),
            Effect::TakeSnapshot(_)
            | Effect::ReadSnapshot { .. }
            | Effect::DropSnapshot(_)
            | Effect::Stage { .. }
            | Effect::Install(_) => unreachable!("two-phase commit copies no stores"),
        }
    }

    fn die(&mut self, name: &'static str) {
        self.say(|| format!("dies at {name}"));
        self.died_at = Some(name);
    }

    fn apply(&mut self, mark: u64, writes: Vec<Write>) {
        assert!(mark > self.last_mark, "marks rise: {mark} after {}", self.last_mark);
        self.last_mark = mark;
        for write in writes {
            match write {
                Write::Put(key, value) => self.rows.insert(key, value),
                Write::Delete(key) => self.rows.remove(&key),
            };
        }
    }

    /// What the storage engine does for a release: flush everything applied so far, which syncs the
    /// log first, and only then cut it.
    fn release(&mut self, position: Position) {
        assert!(self.disk.durable as u64 >= position.0, "a checkpoint is durable before it counts");
        self.disk.durable = self.disk.durable.max(self.last_mark as usize);
        self.disk.flushed = self.rows.clone();
        self.disk.flushed_mark = self.last_mark;
        self.disk.start = position.0 as usize - 1;
        self.say(|| format!("releases what is before {position}"));
    }

    pub(crate) fn look_up(&self, query: &Query) -> Answer {
        answer(&self.rows, query)
    }

    fn say(&mut self, words: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:<2} {}", self.name, words()));
        }
    }
}

/// What rows answer to a query.
pub(crate) fn answer(rows: &Rows, query: &Query) -> Answer {
    match query {
        Query::Get(key) => Answer::Value(rows.get(key).cloned()),
        Query::GetMany(keys) => {
            Answer::Values(keys.iter().map(|key| rows.get(key).cloned()).collect())
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
