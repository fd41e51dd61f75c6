//! One node with a disk and a store in memory: the shell of the contract, with every choice that a
//! real one leaves to time in the hands of the test.

use std::collections::{BTreeMap, VecDeque};

use kvorum_replication::{
    Core as _, Effect, Effects, Input, NodeId, Operation, Outcome, Position, Query, Request,
    RequestId, Row, SnapshotId, Time, Write, Writes,
};

use super::rows::{self, Rows};
use super::{MessageOf, RecordOf, ResumeOf, Room, show};

/// Rows of a scan of a snapshot, at most: what a real shell bounds by bytes.
const PIECE_ROWS_MAX: u32 = 2;

/// What survives a crash, and what does not yet.
pub(crate) struct Disk<R: Room> {
    /// Every record ever, the released ones too: the judges read them.
    pub(crate) log: Vec<RecordOf<R>>,
    /// How many of them are durable.
    pub(crate) durable: usize,
    /// Where recovery begins: the record after the first so many.
    start: usize,
    /// Rows that were flushed, and up to which mark.
    flushed: Rows,
    flushed_mark: u64,
    /// What is staged, and as what.
    staged: Option<(SnapshotId, Rows)>,
    /// The same, as a crash leaves it.
    staged_durably: Option<(SnapshotId, Rows)>,
}

impl<R: Room> Default for Disk<R> {
    fn default() -> Self {
        Self {
            log: Vec::new(),
            durable: 0,
            start: 0,
            flushed: Rows::new(),
            flushed_mark: 0,
            staged: None,
            staged_durably: None,
        }
    }
}

impl<R: Room> Disk<R> {
    /// Loses what is not durable, but for the first `keep` records of it.
    pub(crate) fn crash(&mut self, keep: usize) {
        self.log.truncate(self.durable.saturating_add(keep));
        self.durable = self.log.len();
        self.staged = self.staged_durably.clone();
    }
}

/// What a node says to the world.
pub(crate) enum Output<R: Room> {
    Send(NodeId, MessageOf<R>),
    Reply(RequestId, Outcome),
    Apply(u64, Writes),
    /// With the rows that are in place then.
    Install(SnapshotId, Rows),
}

type EffectOf<R> = Effect<MessageOf<R>, RecordOf<R>, ResumeOf<R>>;

/// A running node.
pub(crate) struct Machine<R: Room> {
    name: String,
    pub(crate) core: R::Core,
    pub(crate) disk: Disk<R>,
    pub(crate) rows: Rows,
    last_mark: u64,
    /// The record of a step, and what waits for it.
    held: VecDeque<(usize, EffectOf<R>)>,
    fed_back: VecDeque<Input<MessageOf<R>, ResumeOf<R>>>,
    snapshots: BTreeMap<SnapshotId, Rows>,
    pub(crate) timer: Option<Time>,
    effects: Effects<MessageOf<R>, RecordOf<R>, ResumeOf<R>>,
    /// The fail point at which it died.
    pub(crate) died_at: Option<&'static str>,
    pub(crate) outputs: Vec<Output<R>>,
    /// What happened, in words, if anybody listens.
    pub(crate) trace: Option<Vec<String>>,
}

impl<R: Room> Machine<R> {
    /// Recovers a core from its disk. It still has to be told that it has started.
    pub(crate) fn recover(
        name: String,
        core: R::Core,
        disk: Disk<R>,
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
            died_at: None,
            outputs: Vec::new(),
            trace: tracing.then(Vec::new),
        };
        for index in machine.disk.start..machine.disk.log.len() {
            let at = Position(index as u64 + 1);
            let record = machine.disk.log[index].clone();
            machine.say(|| format!("recovers {at} {}", R::record(&record)));
            machine.core.recover(at, record, &mut machine.effects);
            let effects: Vec<EffectOf<R>> = machine.effects.drain().collect();
            for effect in effects {
                match effect {
                    Effect::Apply { mark, writes } if mark > machine.disk.flushed_mark => {
                        machine.apply(mark, &writes);
                    }
                    Effect::Apply { .. } => {}
                    Effect::Install(snapshot) if R::COPIES_STORES => machine.install(snapshot),
                    other => panic!("recovery may not {other:?}"),
                }
            }
        }
        machine
    }

    /// Hands over an input and does all that can be done without a sync.
    pub(crate) fn step(&mut self, now: Time, input: Input<MessageOf<R>, ResumeOf<R>>) {
        let at_once = self.answer_at_once(now, &input);
        self.fed_back.push_back(input);
        self.settle(now);
        if let Some((asked, expected)) = at_once {
            let is_it = |output: &Output<R>| match output {
                Output::Reply(request, outcome) => *request == asked && *outcome == expected,
                Output::Send(..) | Output::Apply(..) | Output::Install(..) => false,
            };
            assert!(self.outputs.iter().any(is_it), "it said that it reads r{} at once", asked.0);
        }
    }

    /// The answer to a read of which the core says that nothing is in its way.
    fn answer_at_once(
        &mut self,
        now: Time,
        input: &Input<MessageOf<R>, ResumeOf<R>>,
    ) -> Option<(RequestId, Outcome)> {
        let Input::Request(Request { id, operation, .. }) = input else { return None };
        let (Operation::Read(query) | Operation::ReadStale(query)) = operation else {
            return None;
        };
        let answer = || rows::answer(&self.rows, query).into_outcome();
        self.core.reads_at_once(now, query).then(|| (*id, answer()))
    }

    /// Has the core do something that is no input, and all that follows without a sync.
    pub(crate) fn disturb(
        &mut self,
        now: Time,
        disturb: impl FnOnce(&mut R::Core, &mut Effects<MessageOf<R>, RecordOf<R>, ResumeOf<R>>),
    ) {
        disturb(&mut self.core, &mut self.effects);
        let effects: Vec<EffectOf<R>> = self.effects.drain().collect();
        self.perform_step(effects);
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

    pub(crate) fn is_durable(&self) -> bool {
        self.disk.durable == self.disk.log.len()
    }

    /// What the storage engine may do at any time: bring all that is applied to segments, which
    /// syncs the log first.
    pub(crate) fn flush(&mut self) {
        let durable = R::durable_with(self.last_mark, self.disk.log.len());
        self.disk.durable = self.disk.durable.max(durable);
        self.disk.flushed = self.rows.clone();
        self.disk.flushed_mark = self.last_mark;
    }

    /// Does what was fed back, and what waited for what is durable now.
    pub(crate) fn settle(&mut self, now: Time) {
        while self.died_at.is_none() {
            if let Some(input) = self.fed_back.pop_front() {
                self.core.step(now, input, &mut self.effects);
                let effects: Vec<EffectOf<R>> = self.effects.drain().collect();
                self.perform_step(effects);
            } else if self.held.front().is_some_and(|(behind, _)| *behind <= self.disk.durable) {
                let (_, effect) = self.held.pop_front().expect("it was just looked at");
                self.perform(effect);
            } else {
                return;
            }
        }
    }

    /// Appends a step's records, up to a fail point that waits for none, and does what waits for
    /// none of them; the rest is held.
    fn perform_step(&mut self, effects: Vec<EffectOf<R>>) {
        let mut unheld = Vec::new();
        let mut behind = None;
        let mut died = None;
        for effect in effects {
            match effect {
                Effect::Persist { at, record, .. } => {
                    if died.is_some_and(|point| !R::is_behind_write(point)) {
                        break;
                    }
                    if !R::RECORDS_FIRST {
                        unheld.drain(..).for_each(|effect| self.perform(effect));
                    }
                    self.append(at, record);
                    behind = Some(self.disk.log.len());
                }
                _ if died.is_some() => {}
                Effect::Point(name) if behind.is_none() => died = Some(name),
                effect => match behind {
                    Some(record) => self.hold(record, effect),
                    None => unheld.push(effect),
                },
            }
        }
        unheld.into_iter().for_each(|effect| self.perform(effect));
        if let Some(name) = died {
            self.die(name);
        }
    }

    fn hold(&mut self, record: usize, effect: EffectOf<R>) {
        let is_late = matches!(effect, Effect::SetTimer(_))
            || !R::APPLIES_BEHIND_RECORDS && matches!(effect, Effect::Apply { .. });
        assert!(!is_late, "it comes too late behind a record: {effect:?}");
        self.held.push_back((record, effect));
    }

    fn append(&mut self, at: Position, record: RecordOf<R>) {
        assert_eq!(at.0, self.disk.log.len() as u64 + 1, "positions have no gaps");
        self.say(|| format!("writes {at} {}", R::record(&record)));
        self.disk.log.push(record);
    }

    fn perform(&mut self, effect: EffectOf<R>) {
        match effect {
            Effect::Send { to, message } => {
                self.say(|| format!("→ {} {}", show::node(to), R::message(&message)));
                self.outputs.push(Output::Send(to, message));
            }
            Effect::Reply { request, outcome } => {
                self.say(|| format!("replies r{}: {}", request.0, show::outcome(&outcome)));
                self.outputs.push(Output::Reply(request, outcome));
            }
            Effect::Apply { mark, writes } => {
                self.say(|| format!("applies {}{mark} {}", R::MARK_SIGN, show::writes(&writes)));
                self.apply(mark, &writes);
                self.outputs.push(Output::Apply(mark, writes));
            }
            Effect::Read { read, query } => {
                let answer = rows::answer(&self.rows, &query);
                self.fed_back.push_back(Input::Read { read, answer });
            }
            Effect::TakeSnapshot(_)
            | Effect::ReadSnapshot { .. }
            | Effect::DropSnapshot(_)
            | Effect::Stage { .. }
            | Effect::Install(_) => {
                assert!(R::COPIES_STORES, "this protocol copies no stores: {effect:?}");
                self.copy(effect);
            }
            Effect::SetTimer(at) => self.timer = Some(at),
            Effect::Resume(resume) => self.fed_back.push_back(Input::Resume(resume)),
            Effect::Release(position) => self.release(position),
            Effect::Point(name) => self.die(name),
            Effect::Persist { .. } => unreachable!("records are appended before"),
        }
    }

    /// Effects by which a store gets from one node to another.
    fn copy(&mut self, effect: EffectOf<R>) {
        match effect {
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
                let Query::Scan(mut range) = *query else { panic!("a piece is a scan") };
                range.limit = range.limit.min(PIECE_ROWS_MAX);
                let answer = rows::answer(rows, &Query::Scan(range));
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
            other => unreachable!("it copies nothing: {other:?}"),
        }
    }

    fn die(&mut self, name: &'static str) {
        self.say(|| format!("dies at {name}"));
        self.died_at = Some(name);
    }

    fn apply(&mut self, mark: u64, writes: &[Write]) {
        assert!(mark > self.last_mark, "marks rise: {mark} after {}", self.last_mark);
        self.last_mark = mark;
        rows::write(&mut self.rows, writes);
    }

    fn stage(&mut self, snapshot: SnapshotId, first: bool, rows: Vec<Row>) {
        self.say(|| format!("stages {} rows of #{}", rows.len(), snapshot.0));
        if first {
            self.disk.staged = Some((snapshot, Rows::new()));
        }
        let (staged, into) = self.disk.staged.as_mut().expect("the first piece comes first");
        // The name that comes with the last rows counts.
        *staged = snapshot;
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
        self.flush();
        self.disk.start = position.0 as usize - 1;
        self.say(|| format!("releases what is before {position}"));
    }

    fn say(&mut self, words: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:<2} {}", self.name, words()));
        }
    }
}
