//! One replica with a disk and a store in memory: the shell of the contract, with every choice that
//! a real one leaves to time in the hands of the test.

use std::collections::{BTreeMap, VecDeque};

use kvorum_replication::paxos::message::Message;
use kvorum_replication::paxos::record::Record;
use kvorum_replication::paxos::{PaxosRole, Replica, Resume};
use kvorum_replication::{
    Answer, Core, Effect, Effects, Input, Key, NodeId, Outcome, Position, Query, RequestId, Row,
    SnapshotId, Time, Value, Write,
};

use crate::show;

pub(crate) type Rows = BTreeMap<Key, Value>;

/// What survives a crash, and what does not yet.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// Every record ever, the released ones too: the ghost reads them.
    pub(crate) log: Vec<Record>,
    /// How many of them are durable.
    pub(crate) durable: usize,
    /// Where recovery begins: the record after the first so many.
    pub(crate) start: usize,
    /// Rows that were flushed, and up to which mark.
    flushed: Rows,
    flushed_mark: u64,
    /// What is staged, and as what.
    staged: Option<(SnapshotId, Rows)>,
    /// The same, as a crash leaves it.
    staged_durably: Option<(SnapshotId, Rows)>,
}

impl Disk {
    /// Loses what is not durable, but for the first `keep` records of it.
    pub(crate) fn crash(&mut self, keep: usize) {
        self.log.truncate(self.durable.saturating_add(keep));
        self.durable = self.log.len();
        self.staged = self.staged_durably.clone();
    }
}

/// What a node says to the world.
#[derive(Clone, Debug)]
pub(crate) enum Output {
    Send(NodeId, Message),
    Reply(RequestId, Outcome),
    Apply(u64, Vec<Write>),
    /// With the rows that are in place then.
    Install(SnapshotId, Rows),
}

type PaxosEffect = Effect<Message, Record, Resume>;

/// A running replica.
pub(crate) struct Machine {
    name: String,
    pub(crate) core: Replica,
    pub(crate) disk: Disk,
    pub(crate) rows: Rows,
    last_mark: u64,
    /// The record of a step, and what waits for it.
    held: VecDeque<(usize, PaxosEffect)>,
    fed_back: VecDeque<Input<Message, Resume>>,
    snapshots: BTreeMap<SnapshotId, Rows>,
    pub(crate) timer: Option<Time>,
    effects: Effects<Message, Record, Resume>,
    /// Rows of a scan of a snapshot, at most: what a real shell bounds by bytes.
    piece_rows_max: usize,
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
            snapshots: BTreeMap::new(),
            timer: None,
            effects: Effects::with_points(armed),
            piece_rows_max: 2,
            died_at: None,
            outputs: Vec::new(),
            trace: tracing.then(Vec::new),
        };
        for index in machine.disk.start..machine.disk.log.len() {
            let at = Position(index as u64 + 1);
            let record = machine.disk.log[index].clone();
            machine.say(|| format!("recovers {at} {}", show::record(&record)));
            machine.core.recover(at, record, &mut machine.effects);
            let effects: Vec<PaxosEffect> = machine.effects.drain().collect();
            for effect in effects {
                match effect {
                    Effect::Apply { mark, writes } if mark > machine.disk.flushed_mark => {
                        machine.apply(mark, writes);
                    }
                    Effect::Apply { .. } => {}
                    Effect::Install(snapshot) => machine.install(snapshot),
                    other => panic!("recovery may only apply and install, not {other:?}"),
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

    /// Stops one of the node's roles, or starts it again.
    pub(crate) fn toggle(&mut self, now: Time, role: PaxosRole, returns: bool) {
        match returns {
            true => self.core.bring_back(now, role, &mut self.effects),
            false => self.core.fail(now, role, &mut self.effects),
        }
        let effects: Vec<PaxosEffect> = self.effects.drain().collect();
        self.perform_step(effects);
        self.settle(now);
    }

    /// Makes the log durable, and does what waited for that.
    pub(crate) fn sync(&mut self, now: Time) {
        if !self.is_durable() {
            self.make_durable();
            let last = self.disk.durable;
            self.say(|| format!("syncs {last}"));
        }
        self.settle(now);
    }

    pub(crate) fn is_durable(&self) -> bool {
        self.disk.durable == self.disk.log.len()
    }

    fn make_durable(&mut self) {
        self.disk.durable = self.disk.log.len();
    }

    /// What the storage engine may do at any time: bring all that is applied to segments, which
    /// syncs the log first.
    pub(crate) fn flush(&mut self, now: Time) {
        self.make_durable();
        self.disk.flushed = self.rows.clone();
        self.disk.flushed_mark = self.last_mark;
        self.settle(now);
    }

    fn settle(&mut self, now: Time) {
        while self.died_at.is_none() {
            if let Some(input) = self.fed_back.pop_front() {
                self.core.step(now, input, &mut self.effects);
                let effects: Vec<PaxosEffect> = self.effects.drain().collect();
                self.perform_step(effects);
            } else if self.held.front().is_some_and(|(behind, _)| *behind <= self.disk.durable) {
                let (_, effect) = self.held.pop_front().expect("it was just looked at");
                self.perform(effect);
            } else {
                return;
            }
        }
    }

    /// As the real shell does: first the records, up to a fail point that waits for none, and then
    /// the rest.
    fn perform_step(&mut self, effects: Vec<PaxosEffect>) {
        let mut rest = VecDeque::new();
        let mut effects = effects.into_iter();
        let mut behind = None;
        let mut died = None;
        for effect in effects.by_ref() {
            match effect {
                Effect::Persist { at, record, .. } => {
                    self.append(at, record);
                    behind = Some(self.disk.log.len());
                }
                Effect::Point(name) if behind.is_none() => {
                    died = Some(name);
                    break;
                }
                effect => rest.push_back((behind, effect)),
            }
        }
        for (behind, effect) in rest {
            match behind {
                Some(record) => {
                    assert!(
                        !matches!(effect, Effect::SetTimer(_) | Effect::Apply { .. }),
                        "what is applied behind a record would come too late: {effect:?}"
                    );
                    self.held.push_back((record, effect));
                }
                None => self.perform(effect),
            }
        }
        if let Some(name) = died {
            self.die(name);
        }
    }

    fn append(&mut self, at: Position, record: Record) {
        assert_eq!(at.0, self.disk.log.len() as u64 + 1, "positions have no gaps");
        self.say(|| format!("writes {at} {}", show::record(&record)));
        self.disk.log.push(record);
    }

    fn perform(&mut self, effect: PaxosEffect) {
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
                self.say(|| format!("applies #{mark} {}", show::writes(&writes)));
                self.outputs.push(Output::Apply(mark, writes.clone()));
                self.apply(mark, writes);
            }
            Effect::Read { read, query } => {
                let answer = answer(&self.rows, &query);
                self.fed_back.push_back(Input::Read { read, answer });
            }
            Effect::TakeSnapshot(snapshot) => {
                self.say(|| format!("takes snapshot #{}", snapshot.0));
                self.snapshots.insert(snapshot, self.rows.clone());
            }
            Effect::DropSnapshot(snapshot) => {
                self.say(|| format!("drops snapshot #{}", snapshot.0));
                self.snapshots.remove(&snapshot).expect("it was taken");
            }
            Effect::ReadSnapshot { read, snapshot, query } => {
                let rows = self.snapshots.get(&snapshot).expect("it is held");
                let Query::Scan(mut range) = query else { panic!("a piece is a scan") };
                range.limit = range.limit.min(self.piece_rows_max as u32);
                let answer = answer(rows, &Query::Scan(range));
                self.fed_back.push_back(Input::Read { read, answer });
            }
            Effect::Stage { snapshot, first, rows, last } => {
                self.stage(snapshot, first, rows);
                if last {
                    self.disk.staged_durably = self.disk.staged.clone();
                }
                self.fed_back.push_back(Input::Staged { snapshot, is_kept: true });
            }
            Effect::Install(snapshot) => {
                self.say(|| format!("installs snapshot #{}", snapshot.0));
                self.install(snapshot);
                self.outputs.push(Output::Install(snapshot, self.rows.clone()));
            }
            Effect::SetTimer(at) => self.timer = Some(at),
            Effect::Resume(resume) => self.fed_back.push_back(Input::Resume(resume)),
            Effect::Release(position) => self.release(position),
            Effect::Point(name) => self.die(name),
            Effect::Persist { .. } => unreachable!("done before"),
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

    fn stage(&mut self, snapshot: SnapshotId, first: bool, rows: Vec<Row>) {
        self.say(|| format!("stages {} rows of #{}", rows.len(), snapshot.0));
        if first {
            self.disk.staged = Some((snapshot, Rows::new()));
        }
        let (staged, into) = self.disk.staged.as_mut().expect("the first piece comes first");
        assert_eq!(*staged, snapshot, "one snapshot is staged at a time");
        into.extend(rows);
    }

    /// All at once: the rows, the mark and the place where recovery finds them.
    fn install(&mut self, snapshot: SnapshotId) {
        if self.disk.flushed_mark >= snapshot.0 {
            return;
        }
        assert!(self.last_mark < snapshot.0, "a snapshot is newer than what it replaces");
        let (staged, rows) = self.disk.staged.take().expect("the record stands for staged rows");
        assert_eq!(staged, snapshot, "what is staged is what the record says");
        self.disk.staged_durably = None;
        self.rows = rows.clone();
        self.last_mark = snapshot.0;
        self.disk.flushed = rows;
        self.disk.flushed_mark = snapshot.0;
    }

    /// What the storage engine does for a release: flush everything applied so far, which syncs the
    /// log first, and only then cut it.
    fn release(&mut self, position: Position) {
        assert!(self.disk.durable as u64 >= position.0, "a checkpoint is durable before it counts");
        self.make_durable();
        self.disk.flushed = self.rows.clone();
        self.disk.flushed_mark = self.last_mark;
        self.disk.start = position.0 as usize - 1;
        self.say(|| format!("releases what is before {position}"));
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
