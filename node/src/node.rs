//! One core over one log: performs effects in the order the contract asks for.
//!
//! ```text
//!  step ──► core ──► effects ──┬─ before the first record ─────────────► performed now
//!                              ├─ record ──► log, in memory
//!                              └─ behind a record ──► waiting ─durable─► performed then
//! ```
//!
//! A node never touches the disk in a step, and owns no thread: its driver watches
//! [`Node::sync_due`], syncs the log wherever it likes, and calls [`Node::settle`] when the log has
//! become more durable. All records that steps appended meanwhile go to the disk in the next write,
//! which is what group commit is.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kvorum_replication::{
    Core, Effect, Effects, Input, Operation, Outcome, Position, Query, Request, Role, SnapshotId,
    Time,
};
use kvorum_storage::vfs::Vfs;
use kvorum_storage::{self as storage, Log, LogOptions, Options, Store};

use crate::clock::Clock;
use crate::codec::StoredRecord;
use crate::error::NodeError;
use crate::inspector::Inspector;
use crate::journal::Journal;
use crate::keeper::Keeper;
use crate::mailbox::Turn;
use crate::planted::{Bug, Planted};
use crate::report::Report;

/// How long an install that the disk has no room for waits before it is tried again.
const INSTALL_PAUSE: Duration = Duration::from_millis(100);

type EffectOf<C> = Effect<<C as Core>::Message, <C as Core>::Record, <C as Core>::Resume>;
type EffectsOf<C> = Effects<<C as Core>::Message, <C as Core>::Record, <C as Core>::Resume>;
type InputOf<C> = Input<<C as Core>::Message, <C as Core>::Resume>;

/// A core with its disk. See the module's documentation.
pub struct Node<C: Core> {
    core: C,
    keeper: Keeper,
    /// The rest of the step at hand; empty between steps unless a fail point stopped it.
    effects: EffectsOf<C>,
    /// How many of these were looked at for records, which are in the log.
    appended: usize,
    /// What waits, each behind the record that it rests on, which stands here too.
    waiting: VecDeque<EffectOf<C>>,
    /// The first of these is an install for which there was no room. It is tried again from then on,
    /// and nothing overtakes it.
    install_again: Option<Time>,
    /// Answers of the store and resumes, to be handed over before anything else.
    fed_back: VecDeque<InputOf<C>>,
    turn: Turn<C::Message>,
    stopped_at: Option<&'static str>,
    /// What the core was told last.
    has_room: bool,
    /// What the driver said.
    is_stuck: bool,
    timer: Option<Time>,
    last_mark: u64,
    journal: Journal<C::Record>,
    clock: Clock,
    planted: Planted,
}

impl<C> Node<C>
where
    C: Core,
    C::Record: StoredRecord,
{
    /// Opens a node that keeps a log and no data, and replays it.
    pub fn open_log(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: LogOptions,
        core: C,
        armed: Vec<String>,
    ) -> Result<Self, NodeError> {
        let (log, mut replay) = Log::open(vfs, dir, options)?;
        let log = Arc::new(log);
        let first = log.first();
        let keeper = Keeper::log_only(dir, log);
        let mut node = Self::new(core, keeper, armed);
        let mut recovery = Recovery::new(Role::Coordinator, first);
        while let Some(record) = replay.next()? {
            recovery.replay(&mut node, record.position, record.kind, &record.payload)?;
        }
        recovery.finish(&node)?;
        Ok(node)
    }

    /// Opens a node with a store, and replays its log into both.
    pub fn open_store(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: Options,
        core: C,
        armed: Vec<String>,
    ) -> Result<Self, NodeError> {
        let (store, mut replay) = Store::open_with_replay(vfs, dir, options)?;
        let first = store.log().first();
        let keeper = Keeper::with_store(dir, store.clone());
        let mut node = Self::new(core, keeper, armed);
        let mut recovery = Recovery::new(Role::Replica, first);
        while let Some(record) = replay.next()? {
            recovery.replay(&mut node, record.position, record.kind, &record.payload)?;
            while store.pressure() == storage::Pressure::Stop {
                store.maintain()?;
            }
        }
        recovery.finish(&node)?;
        Ok(node)
    }

    fn new(core: C, keeper: Keeper, armed: Vec<String>) -> Self {
        let journal = Journal::new(Arc::clone(keeper.log()));
        Self {
            core,
            keeper,
            effects: Effects::with_points(armed),
            appended: 0,
            waiting: VecDeque::new(),
            install_again: None,
            fed_back: VecDeque::new(),
            turn: Turn::default(),
            stopped_at: None,
            has_room: true,
            is_stuck: false,
            timer: None,
            last_mark: 0,
            journal,
            clock: Clock::default(),
            planted: Planted::default(),
        }
    }

    /// Asks for checkpoints after so many bytes of records instead of [`CHECKPOINT_BYTES`](crate::CHECKPOINT_BYTES).
    pub fn set_checkpoint_bytes(&mut self, bytes: u64) {
        self.journal.set_checkpoint_bytes(bytes);
    }

    /// Gives the node a bug on purpose.
    pub fn set_planted(&mut self, planted: Planted) {
        self.planted = planted;
    }

    /// Keeps what is appended from now on for [`Node::take_records`]. Whoever asks for it must take
    /// it: nothing else bounds it.
    pub fn watch_records(&mut self) {
        self.journal.watch();
    }

    /// The records appended since it was last asked, if they are watched.
    pub fn take_records(&mut self) -> Vec<(Position, C::Record)> {
        self.journal.take_watched()
    }

    /// Hands the core one input and performs what may be performed at once.
    ///
    /// # Panics
    /// If a fail point has stopped the node: [`Node::settle`] comes first.
    pub fn step(&mut self, now: Time, input: InputOf<C>) -> Result<(), NodeError> {
        self.step_of_many(now, input)?;
        Ok(self.keeper.apply_gathered()?)
    }

    /// As [`Node::step`], of which many follow each other. What they apply may not be in the store
    /// before [`Node::settle`] was called: until then nobody may look there, and what the node says
    /// must not leave.
    pub fn step_of_many(&mut self, now: Time, input: InputOf<C>) -> Result<(), NodeError> {
        assert!(self.stopped_at.is_none(), "a stopped node is settled before it takes an input");
        // A driver counts deadlines on its own clock.
        let input = match input {
            Input::Request(request) => {
                self.clock.read(now);
                if let Some(outcome) = self.read_at_once(now, &request.operation)? {
                    self.turn.replies.push((request.id, outcome));
                    let now = self.begin(now);
                    return self.go_on(now);
                }
                let deadline = self.clock.inner(request.deadline);
                Input::Request(Request { deadline, ..request })
            }
            other => other,
        };
        let time = self.begin(now);
        // Answers and resumes go first.
        if self.fed_back.is_empty() {
            self.core.step(time, input, &mut self.effects);
        } else {
            self.fed_back.push_back(input);
        }
        self.go_on(time)
    }

    /// Whether the store as it is from now on answers this query: see [`Core::reads_at_once`].
    pub fn reads_at_once(&mut self, now: Time, query: &Query) -> bool {
        self.core.reads_at_once(self.clock.peek(now), query)
    }

    fn read_at_once(
        &mut self,
        now: Time,
        operation: &Operation,
    ) -> Result<Option<Outcome>, NodeError> {
        let (Operation::Read(query) | Operation::ReadStale(query)) = operation else {
            return Ok(None);
        };
        if !self.reads_at_once(now, query) {
            return Ok(None);
        }
        let answer = self.keeper.read(self.clock.peek(now), query.clone())?;
        Ok(Some(answer.into_outcome()))
    }

    /// Goes on where a fail point stopped, releases what waited for records that are durable now,
    /// and feeds back what comes of it. Stops at the next armed fail point.
    pub fn settle(&mut self, now: Time) -> Result<(), NodeError> {
        let now = self.begin(now);
        self.go_on(now)?;
        Ok(self.keeper.apply_gathered()?)
    }

    /// Looks at what may have changed besides, and says what time it is for the core.
    fn begin(&mut self, now: Time) -> Time {
        let now = self.clock.read(now);
        self.journal.look(now);
        self.install_again.take_if(|again| *again <= now);
        self.notice_room();
        self.keeper.drop_expired(now);
        now
    }

    /// Performs what may be performed, and what comes of it.
    fn go_on(&mut self, now: Time) -> Result<(), NodeError> {
        loop {
            // Many a resume has no effects.
            if self.effects.is_empty() {
                self.plan_checkpoint();
            } else {
                self.append_records(now)?;
                self.finish_step(now)?;
            }
            if self.stopped_at.is_some() {
                return Ok(());
            }
            if let Some(input) = self.fed_back.pop_front() {
                self.core.step(now, input, &mut self.effects);
            } else {
                match self.take_durable() {
                    // Nothing stands before it: it need not be queued.
                    Some(Effect::Resume(resume)) => {
                        self.core.step(now, Input::Resume(resume), &mut self.effects);
                    }
                    Some(Effect::Point(name)) => {
                        self.stopped_at = Some(name);
                        return Ok(());
                    }
                    Some(effect) => self.perform(now, effect)?,
                    None => return Ok(()),
                }
            }
        }
    }

    /// Says whether the store has more in memory than it can bring to the disk, for too long: then
    /// the core takes nothing new on, as if the log had no room.
    pub fn set_stuck(&mut self, is_stuck: bool) {
        self.is_stuck = is_stuck;
    }

    fn notice_room(&mut self) {
        let is_waiting = self.is_stuck || self.install_again.is_some();
        let has_room = !is_waiting && !self.log().is_refusing();
        if has_room != self.has_room {
            self.has_room = has_room;
            self.fed_back.push_front(Input::Room(has_room));
        }
    }

    /// What the node said since it was last asked. Taken even in the middle of a step that a fail
    /// point stopped.
    pub fn turn(&mut self) -> &mut Turn<C::Message> {
        &mut self.turn
    }

    /// The fail point at which the node stands, if it does; [`Node::settle`] passes it.
    pub fn take_point(&mut self) -> Option<&'static str> {
        self.stopped_at.take()
    }

    /// When the core wants [`Input::Timer`], on the driver's clock. A driver whose clock fell has to
    /// ask again after it called [`Node::settle`].
    #[must_use]
    pub fn timer(&self) -> Option<Time> {
        self.timer.map(|timer| self.clock.outer(timer))
    }

    /// Hands the core its timer.
    pub fn fire_timer(&mut self, now: Time) -> Result<(), NodeError> {
        self.timer = None;
        self.step(now, Input::Timer)
    }

    /// When the log should be synced: at once if somebody waits, shortly if nobody does.
    #[must_use]
    pub fn sync_due(&self, now: Time) -> Option<Time> {
        self.journal.sync_due(now, &self.clock)
    }

    /// The last record appended.
    #[must_use]
    pub fn last(&self) -> Position {
        Position(self.log().last().0)
    }

    /// The last record that is durable.
    #[must_use]
    pub fn durable(&self) -> Position {
        Position(self.log().durable().0)
    }

    /// The log, for whoever syncs it.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        self.keeper.log()
    }

    /// The store, for whoever flushes and compacts it; a coordinator has none.
    #[must_use]
    pub fn store(&self) -> Option<&Store> {
        self.keeper.store()
    }

    /// A look at the rows this node holds.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        Inspector::new(self.keeper.store().cloned())
    }

    /// How the node is.
    #[must_use]
    pub fn report(&self, now: Time) -> Report {
        Report {
            status: self.core.status(self.clock.peek(now)),
            log_last: self.last().0,
            log_durable: self.durable().0,
            uptime_millis: self.clock.peek(now).0 / 1_000_000,
            counters: Vec::new(),
        }
    }

    /// The protocol, for a judge that knows it.
    #[must_use]
    pub fn core(&self) -> &C {
        &self.core
    }

    /// The next of what waits, if its record is durable.
    fn take_durable(&mut self) -> Option<EffectOf<C>> {
        if self.install_again.is_some() {
            return None;
        }
        while let Effect::Persist { at, .. } = self.waiting.front()? {
            let reached = match self.planted.has(Bug::ReleaseBeforeSync) {
                true => self.last(),
                false => self.durable(),
            };
            if *at > reached {
                return None;
            }
            self.waiting.pop_front();
        }
        self.waiting.pop_front()
    }

    /// Appends the step's records, up to a fail point that nothing has to be durable for. An apply
    /// is performed only after its record is in the log, so that a flush, which syncs the log first,
    /// never writes to a segment what the log could forget: that holds for points between the two as
    /// well.
    fn append_records(&mut self, now: Time) -> Result<(), NodeError> {
        let (mut waits, mut applies, mut is_checkpoint) = (false, false, false);
        for effect in self.effects.iter().skip(self.appended) {
            match effect {
                // A point that waits for a record must not hold up the records after it: those of
                // the next steps are appended before it is reached.
                Effect::Point(_) if !waits && !applies => break,
                Effect::Apply { .. } => applies = true,
                Effect::Persist { at, record, urgency } => {
                    waits = true;
                    is_checkpoint |= self.journal.append(now, *at, record, *urgency)?;
                }
                _ => {}
            }
            self.appended += 1;
        }
        if is_checkpoint {
            self.journal.checkpoint_is_written();
        } else {
            self.plan_checkpoint();
        }
        Ok(())
    }

    fn plan_checkpoint(&mut self) {
        if self.journal.take_checkpoint_due(self.has_room) {
            self.fed_back.push_back(Input::Checkpoint);
        }
    }

    /// Performs the step at hand to its end, or to a fail point.
    fn finish_step(&mut self, now: Time) -> Result<(), NodeError> {
        while let Some(effect) = self.effects.pop_unheld() {
            self.appended = self.appended.saturating_sub(1);
            if let Effect::Point(name) = effect {
                self.stopped_at = Some(name);
                return Ok(());
            }
            self.perform(now, effect)?;
        }
        if self.planted.has(Bug::CutBeforeCheckpointDurable) {
            self.release_early()?;
        }
        // All its records are in the log: a point that would have kept them out stands before them.
        self.appended = 0;
        self.effects.append_held_to(&mut self.waiting);
        Ok(())
    }

    /// By a planted bug.
    fn release_early(&mut self) -> Result<(), NodeError> {
        for effect in self.effects.iter() {
            if let Effect::Release(position) = effect {
                self.keeper.release(storage::Position(position.0))?;
            }
        }
        Ok(())
    }

    fn perform(&mut self, now: Time, effect: EffectOf<C>) -> Result<(), NodeError> {
        match effect {
            Effect::Send { to, message } => self.turn.sends.push((to, message)),
            Effect::Reply { request, outcome } => self.turn.replies.push((request, outcome)),
            Effect::Apply { mark, writes } => {
                assert!(mark >= self.last_mark, "marks never fall");
                self.last_mark = mark;
                self.keeper.apply(mark, &writes)?;
            }
            Effect::Read { read, query } => {
                let answer = self.keeper.read(now, *query)?;
                self.fed_back.push_back(Input::Read { read, answer });
            }
            Effect::SetTimer(at) => self.timer = (at != Time::NEVER).then_some(at),
            Effect::Resume(resume) => self.fed_back.push_back(Input::Resume(resume)),
            Effect::Release(position) => {
                self.keeper.release(storage::Position(position.0))?;
            }
            Effect::TakeSnapshot(snapshot) => self.keeper.take_snapshot(snapshot)?,
            Effect::ReadSnapshot { read, snapshot, query } => {
                let answer = self.keeper.read_snapshot(snapshot, *query);
                self.fed_back.push_back(Input::Read { read, answer });
            }
            Effect::DropSnapshot(snapshot) => self.keeper.drop_snapshot(snapshot),
            Effect::Stage { snapshot, first, rows, last } => {
                let is_kept = self.keeper.stage(snapshot, first, &rows, last)?;
                self.fed_back.push_back(Input::Staged { snapshot, is_kept });
            }
            Effect::Install(snapshot) => self.install(now, snapshot)?,
            Effect::Persist { .. } => {
                unreachable!("what stands behind a record does not hold it")
            }
            Effect::Point(_) => unreachable!("a fail point stops the step that meets it"),
        }
        Ok(())
    }

    /// Has the staged rows for the store. The record says that they are, so without room for it the
    /// node can only wait; what stands behind it waits as well.
    fn install(&mut self, now: Time, snapshot: SnapshotId) -> Result<(), NodeError> {
        match self.keeper.install(snapshot, self.log().last()) {
            Ok(()) => {
                self.last_mark = self.last_mark.max(snapshot.0);
                Ok(())
            }
            Err(error @ storage::Error::DiskFull { .. }) => {
                tracing::error!(%error, "a snapshot waits for room to be installed");
                let effect = Effect::Install(snapshot);
                self.waiting.push_front(effect);
                self.install_again = Some(now.after(INSTALL_PAUSE));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Hands a log's records back to the core.
struct Recovery {
    role: Role,
    /// Whether the records so far make a whole state: from the first record, or a checkpoint on.
    whole: bool,
}

impl Recovery {
    fn new(role: Role, first: storage::Position) -> Self {
        Self { role, whole: first.0 <= 1 }
    }

    fn replay<C>(
        &mut self,
        node: &mut Node<C>,
        at: storage::Position,
        kind: u8,
        payload: &bytes::Bytes,
    ) -> Result<(), NodeError>
    where
        C: Core,
        C::Record: StoredRecord,
    {
        self.whole |= C::Record::is_checkpoint(kind);
        if !self.whole {
            return Ok(());
        }
        let position = Position(at.0);
        let record = C::Record::decode(kind, payload)
            .map_err(|malformed| self.error(node.keeper.dir(), position, malformed.0))?;
        node.core.recover(position, record, &mut node.effects);
        for effect in node.effects.drain() {
            match effect {
                Effect::Apply { mark, writes } => {
                    node.last_mark = node.last_mark.max(mark);
                    node.keeper.apply_again(mark, at, &writes)?;
                }
                Effect::Install(snapshot) => {
                    node.last_mark = node.last_mark.max(snapshot.0);
                    node.keeper.install(snapshot, at)?;
                }
                other => {
                    unreachable!("recovery applies and installs, but the core wants {other:?}")
                }
            }
        }
        Ok(())
    }

    fn finish<C>(&self, node: &Node<C>) -> Result<(), NodeError>
    where
        C: Core,
        C::Record: StoredRecord,
    {
        if self.whole {
            return Ok(());
        }
        let first = Position(node.log().first().0);
        Err(self.error(
            node.keeper.dir(),
            first,
            "the log's beginning is gone, and no checkpoint stands for it",
        ))
    }

    fn error(&self, dir: &Path, at: Position, what: &str) -> NodeError {
        NodeError::Record { dir: dir.to_owned(), at, role: self.role, what: what.to_owned() }
    }
}
