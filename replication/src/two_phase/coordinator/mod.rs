//! The coordinator: gathers votes, decides, and tells the decision until everybody has it.
//!
//! It keeps no data. Its log holds its epochs, the sessions it gave out, and the commits; of an
//! abort it keeps nothing, since what it does not know is aborted (presumed abort). Under parallel
//! commit a transaction is committed without its log. There it keeps the aborts too, and what it
//! does not know after a restart it asks the participants.

mod batches;
mod begin;
mod complete;
mod exclude;
mod reads;
mod recover;
mod rejoin;
mod replicas;
mod round;
mod state;
mod view;
mod vote;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use self::batches::Batches;
use self::rejoin::{Joining, Returned};
use self::replicas::Asked;
use self::round::{Parked, Round};
use self::state::{Active, PendingRead, Phase};
use self::view::Views;
use super::alarms::{TxnAlarm, TxnAlarms};
use super::audit::{CoordinatorAudit, Table};
use super::locks::LockTable;
use super::message::{CommitNumber, Message, TxnId};
use super::options::{CommitMode, CoordinatorOptions};
use super::planted::Bug;
use super::record::CoordinatorRecord;
use super::table::TxnTable;
use crate::contract::{
    Core, Effect, Effects, Input, NodeId, Position, RequestId, Role, Status, Time, Urgency,
};
use crate::counters::counters;
use crate::hash::{Hashed, Seeded};
use crate::random::Random;
use crate::request::{ClientId, Failure, Operation, Outcome, Request};
use crate::sessions::{Origin, SessionLimits, Sessions};

type Out = Effects<Message, CoordinatorRecord, CoordinatorResume>;

/// What the coordinator goes on with once a record is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoordinatorResume {
    /// Its epoch: it may begin transactions.
    Serving,
    /// The commit of this transaction.
    Committed(TxnId),
    /// The abort of this transaction.
    Aborted(TxnId),
    /// The change of the view.
    View,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Transaction(TxnId),
    Read(u64),
    Round,
    Batch,
    View,
}

impl TxnAlarm for Alarm {
    fn of(txn: TxnId) -> Self {
        Self::Transaction(txn)
    }

    fn txn(self) -> Option<TxnId> {
        match self {
            Self::Transaction(txn) => Some(txn),
            Self::Read(_) | Self::Round | Self::Batch | Self::View => None,
        }
    }
}

counters! {
    /// What the coordinator counts.
    Counters {
        prepares_sent,
        commits_sent,
        aborts_sent,
        informs_sent,
        reads_sent,
        votes_yes,
        votes_no,
        acknowledgements,
        inquiries,
        read_answers,
        records_forced,
        records_unforced,
        begun,
        committed,
        aborted,
        unknown,
        conflicts,
        retries_answered,
        overloaded,
        disk_full,
        commits_resent,
        commits_recovered,
        aborts_recovered,
        recovers_sent,
        recovered,
        reads_retried,
        views,
        excluded,
        leases,
        votes_voided,
        joins_sent,
        rejoined,
        replicas_changed,
        duplicates_dropped,
        strange_dropped,
        dropped_not_serving,
    }
}

/// The coordinator of a two-phase commit cluster. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Coordinator {
    options: CoordinatorOptions,
    /// Those that a write needs: the members of the view.
    participants: Arc<[NodeId]>,
    views: Views,
    random: Random,
    /// The last record's position.
    last: Position,
    epoch: u64,
    /// The newest epoch that committed in parallel.
    parallel_epoch: u64,
    serving: bool,
    /// What is asked of the participants after a restart; until all have answered no write is taken
    /// on, and nothing is said of what is not known.
    round: Option<Round>,
    /// Whether the disk has room for more.
    has_room: bool,
    /// Transactions begun in this epoch.
    begun: u64,
    /// Commits in the log.
    commits: CommitNumber,
    sessions: Sessions<()>,
    /// Writes with a stamp that are in flight: until the commit is durable, or aborted.
    by_stamp: Hashed<(ClientId, u64), TxnId>,
    /// How many of each session they are.
    in_flight_of: Hashed<ClientId, usize>,
    /// Everything that is not over: in flight, or committed and not acknowledged by everybody.
    transactions: TxnTable<Active>,
    /// By the log that was found, everything below was over.
    over_below: TxnId,
    /// Parallel transactions that are aborted, from what is not over on: to be remembered, since
    /// their participants may all be prepared some day.
    aborted: BTreeSet<TxnId>,
    in_flight_bytes: usize,
    batches: Batches,
    /// The time of the step at hand.
    now: Time,
    /// From the beginning to the durable decision. Participants have their own; these spare the
    /// messages of a transaction that would lose.
    locks: LockTable,
    reads: BTreeMap<u64, PendingRead>,
    last_read: u64,
    peers_up: BTreeSet<NodeId>,
    /// Replicas that have lost their disks and are not let in again, as far as they said so lately:
    /// until then writes are refused at once instead of waiting for their votes.
    outside: BTreeMap<NodeId, Time>,
    /// Members that are back and were not let in, or not for sure.
    joining: BTreeMap<NodeId, Joining>,
    /// How the replicas are to change, and who has asked for it.
    change: Option<Asked>,
    alarms: TxnAlarms<Alarm>,
    counters: Counters,
}

impl Coordinator {
    /// A coordinator that remembers nothing yet; its log follows by [`Core::recover`].
    ///
    /// # Panics
    /// If no replica is named, or one twice.
    #[must_use]
    pub fn new(options: CoordinatorOptions) -> Self {
        let replicas: BTreeSet<NodeId> = options.replicas.iter().copied().collect();
        assert!(!replicas.is_empty(), "a cluster has at least one replica");
        assert_eq!(replicas.len(), options.replicas.len(), "each replica is named once");
        assert!(!replicas.contains(&NodeId::COORDINATOR), "the coordinator is no replica");
        let limits = SessionLimits {
            sessions_max: options.sessions_max,
            outstanding_per_session_max: options.outstanding_per_session_max,
            outstanding_max: options.outstanding_max,
        };
        let participants: Arc<[NodeId]> = replicas.into_iter().collect();
        Self {
            views: Views::new(&options, &participants),
            participants,
            random: Random::new(options.seed),
            last: Position::ZERO,
            epoch: 0,
            parallel_epoch: 0,
            serving: false,
            round: None,
            has_room: true,
            begun: 0,
            commits: CommitNumber::ZERO,
            sessions: Sessions::new(Origin::Given, limits),
            by_stamp: Hashed::with_hasher(Seeded::new(options.seed)),
            in_flight_of: Hashed::with_hasher(Seeded::new(options.seed)),
            transactions: TxnTable::default(),
            over_below: TxnId::FIRST,
            aborted: BTreeSet::new(),
            in_flight_bytes: 0,
            batches: Batches::default(),
            now: Time(0),
            locks: LockTable::new(options.seed),
            reads: BTreeMap::new(),
            last_read: 0,
            peers_up: BTreeSet::new(),
            outside: BTreeMap::new(),
            joining: BTreeMap::new(),
            change: None,
            alarms: TxnAlarms::new(),
            counters: Counters::default(),
            options,
        }
    }

    fn request(&mut self, now: Time, request: Request, effects: &mut Out) {
        let Request { id, deadline, operation } = request;
        if !self.serving {
            let reason = String::from("the coordinator is starting");
            return reply_failed(id, Failure::Unavailable { reason }, effects);
        }
        match operation {
            Operation::OpenSession => self.open_session(id, effects),
            // Its replicas answer from a prefix of the serial order, fresh or waited for: a read
            // that may be stale costs no less here.
            Operation::Read(query) | Operation::ReadStale(query) => {
                self.read(now, id, deadline, query, effects);
            }
            Operation::ChangeMembers { .. } => {
                let reason =
                    String::from("with a coordinator replicas are added and removed singly");
                reply_failed(id, Failure::Invalid { reason }, effects);
            }
            Operation::ChangeReplicas(change) => {
                self.change_replicas(now, Asked { request: id, deadline, change }, effects);
            }
            // What it is to find may not be known yet: its stamp, and the places in the order.
            Operation::Transact { stamp, transaction } if self.round.is_some() => {
                let parked = Parked { request: id, deadline, stamp, transaction };
                self.park(parked, effects);
            }
            Operation::Transact { stamp, transaction } => {
                self.transact(now, id, deadline, stamp, transaction, effects);
            }
        }
    }

    fn message(&mut self, now: Time, from: NodeId, message: Message, effects: &mut Out) {
        if !self.serving {
            self.counters.dropped_not_serving += 1;
            return;
        }
        self.views.hear(from, now);
        match message {
            Message::View(message) => self.of_view(now, from, message, effects),
            Message::Vote { txn, vote } => self.vote(now, from, txn, vote, effects),
            Message::Acknowledge { txn } => self.acknowledge(from, txn, effects),
            Message::Inquire { txn } => self.inquire(from, txn, effects),
            Message::ReadAnswer { read, epoch, answer } => {
                self.read_answer(now, from, read, epoch, answer, effects);
            }
            Message::Recovered(answer) => self.recovered(now, from, *answer, effects),
            Message::Outside { life, applied, promised } => {
                self.outside(now, from, Returned { life, applied, promised }, effects);
            }
            Message::Prepare(_)
            | Message::Decide { .. }
            | Message::Inform { .. }
            | Message::Recover { .. }
            | Message::Read { .. }
            | Message::FetchCommits { .. }
            | Message::Commits { .. }
            | Message::Truncated { .. }
            | Message::FetchSnapshot { .. }
            | Message::SnapshotPiece(_)
            | Message::SnapshotGone { .. }
            | Message::CatchUp { .. }
            | Message::Join { .. } => self.counters.strange_dropped += 1,
        }
    }

    fn open_session(&mut self, request: RequestId, effects: &mut Out) {
        if let Err(failure) = self.check_room() {
            return reply_failed(request, failure, effects);
        }
        let client = self.sessions.next_client();
        self.sessions.opened(client);
        self.persist(CoordinatorRecord::SessionOpened { client }, Urgency::Now, effects);
        effects.push(Effect::Reply { request, outcome: Outcome::Session(client) });
    }

    fn peer_up(&mut self, now: Time, peer: NodeId, effects: &mut Out) {
        if !self.peers_up.insert(peer) {
            // A new link, and nobody saw the old one break: what was sent over it may be lost.
            self.lose_votes_of(peer, effects);
            self.redirect_reads_of(now, peer, effects);
        }
        if self.serving {
            self.resend_commits_to(peer, effects);
            self.resend_prepares_to(peer, effects);
            self.ask_to_recover(peer, effects);
        }
    }

    fn peer_down(&mut self, now: Time, peer: NodeId, effects: &mut Out) {
        self.peers_up.remove(&peer);
        self.views.is_cut_off(peer);
        self.give_up_parked(effects);
        self.lose_votes_of(peer, effects);
        self.redirect_reads_of(now, peer, effects);
    }

    fn timer(&mut self, now: Time, effects: &mut Out) {
        self.alarms.rang();
        for _ in 0..self.options.alarms_per_timer_max {
            match self.alarms.due(now) {
                Some(Alarm::Transaction(txn)) => self.transaction_alarm(now, txn, effects),
                Some(Alarm::Read(read)) => self.read_alarm(now, read, effects),
                Some(Alarm::Round) => self.round_alarm(now, effects),
                Some(Alarm::Batch) => self.batch_alarm(effects),
                Some(Alarm::View) => self.view_alarm(now, effects),
                None => return,
            }
        }
    }

    fn resume(&mut self, now: Time, resume: CoordinatorResume, effects: &mut Out) {
        match resume {
            CoordinatorResume::Serving => self.serve(now, effects),
            CoordinatorResume::Committed(txn) => self.commit_is_durable(now, txn, effects),
            CoordinatorResume::Aborted(txn) => self.abort_is_durable(txn, effects),
            CoordinatorResume::View => self.view_is_durable(now, effects),
        }
    }

    /// How it is now, for a judge.
    #[must_use]
    pub fn audit(&self) -> CoordinatorAudit {
        let options = &self.options;
        // What was found at the start comes on top. It may be more than there ever was at once: that
        // transactions had ended need not be durable when others begin.
        let begun = self.transactions.keys().filter(|txn| txn.epoch == self.epoch).count();
        let tables = [
            ("transactions begun", begun, options.in_flight_max),
            ("bytes in flight", self.in_flight_bytes, options.in_flight_bytes_max),
            ("reads", self.reads.len(), options.reads_in_flight_max),
            ("sessions", self.sessions.len(), options.sessions_max),
        ];
        let waiters = |(txn, active): (TxnId, &Active)| {
            active.waiters.clone().into_iter().map(move |request| (request, txn))
        };
        CoordinatorAudit {
            waiting: self.transactions.iter().flat_map(waiters).collect(),
            open: self.transactions.keys().collect(),
            gathered: self.batches.gathered().collect(),
            lock_holders: self.locks.holders(),
            contradiction: self.round.as_ref().and_then(|round| round.contradiction.clone()),
            tables: tables.into_iter().map(|(name, len, max)| Table { name, len, max }).collect(),
        }
    }

    /// Of this coordinator's transactions, everything below the answer is over: committed, which its
    /// own log and all participants say durably, or aborted for good.
    fn finished_below(&self) -> TxnId {
        let open = self.transactions.first_key().unwrap_or_else(|| self.next_txn());
        match &self.round {
            // Nobody knows yet what else is open.
            Some(_) if !self.options.planted.has(Bug::FinishedBelowBeforeRecovery) => {
                open.min(self.over_below)
            }
            Some(_) | None => open,
        }
    }

    fn is_parallel(&self) -> bool {
        self.options.commit == CommitMode::Parallel && self.views.count() > 1
    }

    fn next_txn(&self) -> TxnId {
        TxnId { coordinator: NodeId::COORDINATOR, epoch: self.epoch, number: self.begun + 1 }
    }

    /// Whether this coordinator, or one of its earlier epochs, can have begun the transaction. If
    /// not, the sender knows more than the log: nothing may be presumed then.
    fn is_mine(&self, txn: TxnId) -> bool {
        txn.coordinator == NodeId::COORDINATOR && txn.number > 0 && txn < self.next_txn()
    }

    fn persist(&mut self, record: CoordinatorRecord, urgency: Urgency, effects: &mut Out) {
        match urgency {
            Urgency::Now => self.counters.records_forced += 1,
            Urgency::Soon => self.counters.records_unforced += 1,
        }
        self.last = self.last.next();
        effects.push(Effect::Persist { at: self.last, record, urgency });
    }
}

fn reply_failed(request: RequestId, failure: Failure, effects: &mut Out) {
    effects.push_unheld(Effect::Reply { request, outcome: Outcome::Failed(failure) });
}

impl Core for Coordinator {
    type Message = Message;
    type Record = CoordinatorRecord;
    type Resume = CoordinatorResume;

    fn step(&mut self, now: Time, input: Input<Message, CoordinatorResume>, effects: &mut Out) {
        self.now = now;
        match input {
            Input::Started => self.start(effects),
            Input::Request(request) => self.request(now, request, effects),
            Input::Message { from, message } => self.message(now, from, message, effects),
            Input::PeerUp(peer) => self.peer_up(now, peer, effects),
            Input::PeerDown(peer) => self.peer_down(now, peer, effects),
            Input::Timer => self.timer(now, effects),
            Input::Resume(resume) => self.resume(now, resume, effects),
            Input::Room(room) => self.has_room = room,
            Input::Checkpoint => self.checkpoint(effects),
            // Nobody can stand in for it.
            Input::Stopping => {}
            // A coordinator has no store, and so never asks one.
            Input::Read { .. } | Input::Staged { .. } => self.counters.strange_dropped += 1,
        }
        self.let_in(effects);
        self.alarms.ask(now, effects);
    }

    fn recover(&mut self, at: Position, record: CoordinatorRecord, _effects: &mut Out) {
        self.last = at;
        self.replay(record);
    }

    fn status(&self, _now: Time) -> Status {
        let told = |active: &&Active| matches!(active.phase, Phase::Committed { .. });
        let mut counters: Vec<(&'static str, u64)> = self.counters.list();
        counters.push(("sessions", self.sessions.len() as u64));
        counters.push(("view", self.views.current().number));
        counters.push(("view_founded", u64::from(self.views.current().is_founded)));
        counters.push(("members", self.participants.len() as u64));
        let outside = self.views.count().saturating_sub(self.participants.len());
        counters.push(("outside", outside as u64));
        counters.push(("commits", self.commits.0));
        counters.push(("recovering", u64::from(self.round.is_some())));
        let view = self.views.current();
        Status {
            role: Role::Coordinator,
            incarnation: self.epoch,
            in_flight: self.transactions.len() as u64,
            in_doubt: self.transactions.values().filter(told).count() as u64,
            locks: self.locks.len() as u64,
            leader: None,
            peers_up: self.peers_up.iter().copied().collect(),
            replicas: if view.number > 0 { view.replicas.clone() } else { Vec::new() },
            counters,
        }
    }
}
