//! A participant: promises, waits for the decision, and does as it is told.
//!
//! It holds the data. From its yes vote on it may not decide by itself: the keys stay locked and
//! reads of them wait, until the coordinator or another participant says how it ended.

mod alone;
mod catch_up;
mod decide;
mod donor;
mod doubt;
mod lease;
mod prepare;
mod reads;
mod recall;
mod recent;
mod recover;
mod standing;
mod state;
mod take_over;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use self::catch_up::{CatchUp, Commits};
use self::decide::Learnt;
use self::lease::Lease;
use self::recent::Recent;
use self::standing::Standing;
use self::state::{Asker, Decided, Early, Promised, Stage, WaitingRead};
use self::take_over::Installing;
use super::alarms::{TxnAlarm, TxnAlarms};
use super::audit::{ParticipantAudit, Table};
use super::locks::LockTable;
use super::message::{CommitNumber, Message, TxnId};
use super::options::ParticipantOptions;
use super::record::{ParticipantRecord, Replicated};
use super::table::TxnTable;
use crate::contract::{
    Core, Effect, Effects, Input, NodeId, Position, ReadId, RequestId, Role, Status, Time, Urgency,
};
use crate::counters::counters;
use crate::random::Random;
use crate::request::{Answer, ClientId, Failure, Outcome, Query};
use crate::sessions::{Origin, SessionLimits, Sessions};
use crate::transfer::{Outgoing, PIECES_MAX};

type Out = Effects<Message, ParticipantRecord, ParticipantResume>;

/// What a participant goes on with once a record is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParticipantResume {
    /// Its incarnation: it may take part.
    Serving,
    /// The promise on this transaction; its vote has gone out.
    Prepared(TxnId),
    /// The outcome of this transaction.
    Decided(TxnId),
    /// The commit of this transaction, which this participant decided alone.
    CommittedAlone(TxnId),
    /// The promise to a restarted coordinator, which wants to hear from this transaction on.
    Promised {
        /// The coordinator's epoch.
        epoch: u64,
        /// As in its question.
        first: TxnId,
    },
    /// That there is this view.
    View(u64),
    /// That it takes part in nothing.
    Outside,
    /// That another replica's rows take the place of those here; they are in place.
    Installed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Inquire(TxnId),
    Read(ReadId),
    Lease,
    CatchUp,
    SnapshotIdle,
    Join,
}

impl TxnAlarm for Alarm {
    fn of(txn: TxnId) -> Self {
        Self::Inquire(txn)
    }

    fn txn(self) -> Option<TxnId> {
        match self {
            Self::Inquire(txn) => Some(txn),
            Self::Read(_) | Self::Lease | Self::CatchUp | Self::SnapshotIdle | Self::Join => None,
        }
    }
}

counters! {
    /// What a participant counts.
    Counters {
        prepares,
        votes_yes_sent,
        votes_no_sent,
        acknowledgements_sent,
        inquiries_sent,
        informs_sent,
        read_answers_sent,
        records_forced,
        records_unforced,
        committed,
        committed_alone,
        aborted,
        aborted_below_finished,
        promised_never,
        conflicts,
        preconditions_failed,
        refused,
        overloaded,
        disk_full,
        commits_out_of_order,
        reads,
        reads_waited,
        reads_expired,
        reads_unleased,
        left_out,
        renewals_sent,
        inquiries,
        informs,
        recovers,
        recovered_sent,
        refused_by_promise,
        reads_looked_at_again,
        outdated_dropped,
        catch_ups_sent,
        truncated_sent,
        commits_passed_on,
        learned,
        snapshots_taken,
        snapshot_pieces_sent,
        snapshot_pieces,
        snapshots_installed,
        snapshots_given_up,
        snapshots_without_room,
        joined,
        duplicates_dropped,
        strange_dropped,
        dropped_not_serving,
    }
}

/// A participant of a two-phase commit cluster. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Participant {
    options: ParticipantOptions,
    random: Random,
    /// The last record's position.
    last: Position,
    incarnation: u64,
    serving: bool,
    /// Whether the disk has room for more.
    has_room: bool,
    /// Why it may not take part at all: its log contradicts itself.
    unfit: Option<String>,
    /// Everything between the arrival of its prepare and its outcome.
    transactions: TxnTable<Promised>,
    prepared_bytes: usize,
    /// One-phase commits whose records are not durable; their writes are applied in the order of
    /// the records, so no other write may be applied meanwhile.
    alone: usize,
    /// Their stamps.
    alone_stamps: BTreeMap<(ClientId, u64), TxnId>,
    locks: LockTable,
    /// Outcomes, until they are known to be over everywhere.
    decided: TxnTable<Decided>,
    /// Of the coordinator, everything below is over.
    finished_below: TxnId,
    /// Nothing of an older epoch is prepared any more.
    promised: u64,
    /// Whether that is durable.
    promise_is_durable: bool,
    lease: Lease,
    /// The newest commit applied; all before it were too.
    applied: CommitNumber,
    /// Commits that wait for the one before them.
    early: BTreeMap<CommitNumber, Early>,
    /// The newest commits, for replicas that miss them; and snapshots for those that miss more.
    recent: Recent,
    outgoing: Outgoing<Replicated>,
    /// What this replica misses itself.
    catch_up: CatchUp,
    installing: Option<Installing>,
    standing: Standing,
    /// One phase: the writes that this participant committed.
    sessions: Sessions<()>,
    last_read: u64,
    /// Reads of preconditions that the store is about to answer.
    checks: BTreeMap<ReadId, TxnId>,
    /// Reads of clients that the store is about to answer.
    asked: BTreeMap<ReadId, Asker>,
    /// Reads of keys that are in doubt.
    waiting: BTreeMap<ReadId, WaitingRead>,
    peers_up: BTreeSet<NodeId>,
    alarms: TxnAlarms<Alarm>,
    counters: Counters,
}

impl Participant {
    /// A participant that remembers nothing yet; its log follows by [`Core::recover`].
    ///
    /// # Panics
    /// If its number is the coordinator's.
    #[must_use]
    pub fn new(options: ParticipantOptions) -> Self {
        assert_ne!(options.id, NodeId::COORDINATOR, "a replica has a number of its own");
        let limits = SessionLimits {
            sessions_max: options.sessions_max,
            outstanding_per_session_max: options.outstanding_per_session_max,
            outstanding_max: options.outstanding_max,
        };
        Self {
            random: Random::new(options.seed),
            last: Position::ZERO,
            incarnation: 0,
            serving: false,
            has_room: true,
            unfit: None,
            transactions: TxnTable::default(),
            prepared_bytes: 0,
            alone: 0,
            alone_stamps: BTreeMap::new(),
            locks: LockTable::new(options.seed),
            decided: TxnTable::default(),
            finished_below: TxnId::FIRST,
            promised: 0,
            promise_is_durable: true,
            lease: Lease::new(options.renew_interval),
            applied: CommitNumber::ZERO,
            early: BTreeMap::new(),
            recent: Recent::default(),
            outgoing: Outgoing::default(),
            catch_up: CatchUp::default(),
            installing: None,
            standing: Standing::new(),
            sessions: Sessions::new(Origin::Learnt, limits),
            last_read: 0,
            checks: BTreeMap::new(),
            asked: BTreeMap::new(),
            waiting: BTreeMap::new(),
            peers_up: BTreeSet::new(),
            alarms: TxnAlarms::new(),
            counters: Counters::default(),
            options,
        }
    }

    /// How it is now, for a judge.
    #[must_use]
    pub fn audit(&self) -> ParticipantAudit {
        let options = &self.options;
        let promised = |promised: &Promised| match promised.stage {
            Stage::Logging | Stage::Prepared { .. } => true,
            Stage::Checking { .. } | Stage::Alone(_) => false,
        };
        // What is being prepared gets an outcome that is remembered, room or not.
        let outcomes_max = options.decided_max.saturating_add(options.prepared_max);
        let (held, pieces) = self.outgoing.lengths();
        let tables = [
            ("snapshots held", held, options.snapshots_max),
            ("pieces read", pieces, PIECES_MAX),
            ("bytes of recent commits", self.recent.bytes(), options.recent_bytes_max),
            ("prepares put off", self.standing.put_off_len(), options.prepared_max),
            ("transactions", self.transactions.len(), options.prepared_max),
            ("bytes prepared", self.prepared_bytes, options.prepared_bytes_max),
            ("outcomes", self.decided.len(), outcomes_max),
            ("waiting reads", self.waiting.len(), options.waiting_reads_max),
            ("reads without a lease", self.lease.waiting_len(), options.waiting_reads_max),
            ("sessions", self.sessions.len(), options.sessions_max),
        ];
        let open = self.transactions.iter();
        ParticipantAudit {
            open: open.clone().map(|(txn, _)| txn).collect(),
            promised: open.filter(|(_, it)| promised(it)).map(|(txn, _)| txn).collect(),
            lock_holders: self.locks.holders(),
            applied: self.applied,
            alone: self.alone,
            is_outside: self.standing.is_outside,
            is_installing: self.is_installing(),
            is_unfit: self.unfit.is_some(),
            tables: tables.into_iter().map(|(name, len, max)| Table { name, len, max }).collect(),
        }
    }

    fn message(&mut self, now: Time, from: NodeId, message: Message, effects: &mut Out) {
        if !self.serving || (self.is_outside() && !Self::hears_outside(&message)) {
            self.counters.dropped_not_serving += 1;
            return;
        }
        match message {
            Message::Prepare(prepare) => self.prepare(from, &prepare, effects),
            Message::Decide { txn, decision, finished_below, epoch } => {
                self.decide(from, txn, Learnt { decision, epoch }, finished_below, effects);
            }
            Message::Inquire { txn } => self.inquire(from, txn, effects),
            Message::Inform { txn, knowledge, epoch } => {
                self.inform(from, txn, knowledge, epoch, effects);
            }
            Message::Recover { epoch, first } => self.promise_epoch(from, epoch, first, effects),
            Message::Read { read, epoch, query } => {
                let asker = Asker::Coordinator { from, read, epoch };
                self.read(now, asker, *query, Time::NEVER, effects);
            }
            Message::View(message) => self.of_view(now, from, message, effects),
            Message::FetchCommits { from: number } => self.fetch_commits(from, number, effects),
            Message::Commits { from: _, commits, applied, finished_below, epoch } => {
                let piece = Commits { commits, applied, finished_below, epoch };
                self.commits_came(now, from, piece, effects);
            }
            Message::Truncated { first } => self.truncated(now, from, first, effects),
            Message::FetchSnapshot { snapshot, from: key } => {
                self.fetch_snapshot(now, from, snapshot, key, effects);
            }
            Message::SnapshotPiece(piece) => self.stage(now, from, piece, effects),
            Message::SnapshotGone { snapshot } => self.snapshot_gone(now, from, snapshot, effects),
            Message::CatchUp { to, anew } => {
                self.told_to_catch_up(now, from, (to, anew), effects);
            }
            Message::Join { life, from: first, serve_from, view, others } => {
                self.join(now, from, life, (first, serve_from), (view, others), effects);
            }
            Message::Vote { .. }
            | Message::Acknowledge { .. }
            | Message::ReadAnswer { .. }
            | Message::Recovered(_)
            | Message::Outside { .. } => {
                self.counters.strange_dropped += 1;
            }
        }
    }

    fn peer_up(&mut self, now: Time, peer: NodeId, effects: &mut Out) {
        self.peers_up.insert(peer);
        if self.serving && peer == NodeId::COORDINATOR {
            self.renew(now, effects);
            self.inquire_about_all(effects);
            self.ask_to_join(now, effects);
        }
    }

    fn peer_down(&mut self, now: Time, peer: NodeId, effects: &mut Out) {
        self.peers_up.remove(&peer);
        self.drop_reads_of(peer);
        self.lose_donor(now, peer, effects);
    }

    fn timer(&mut self, now: Time, effects: &mut Out) {
        self.alarms.rang();
        for _ in 0..self.options.alarms_per_timer_max {
            match self.alarms.due(now) {
                Some(Alarm::Inquire(txn)) => self.inquire_alarm(now, txn, effects),
                Some(Alarm::Read(read)) => self.read_alarm(read, effects),
                Some(Alarm::Lease) => self.lease_alarm(now, effects),
                Some(Alarm::CatchUp) => self.catch_up_alarm(now, effects),
                Some(Alarm::SnapshotIdle) => self.snapshot_idle_alarm(now, effects),
                Some(Alarm::Join) => self.ask_to_join(now, effects),
                None => return,
            }
        }
    }

    fn resume(&mut self, now: Time, resume: ParticipantResume, effects: &mut Out) {
        match resume {
            ParticipantResume::Serving => self.serve(now, effects),
            ParticipantResume::Prepared(txn) => self.vote_has_gone(now, txn),
            ParticipantResume::Decided(txn) => self.decision_is_durable(txn),
            ParticipantResume::CommittedAlone(txn) => self.committed_alone(txn, effects),
            ParticipantResume::Promised { epoch, first } => {
                self.epoch_is_promised(epoch, first, effects);
            }
            ParticipantResume::Outside => self.outside_is_durable(now, effects),
            ParticipantResume::View(view) => self.view_is_durable(now, view, effects),
            ParticipantResume::Installed => self.installed(now, effects),
        }
    }

    fn store_answered(&mut self, read: ReadId, answer: Answer, effects: &mut Out) {
        let mut answer = Some(answer);
        if self.piece_came(read, &mut answer, effects) {
            return;
        }
        let answer = answer.expect("it was asked something else");
        if let Some(txn) = self.checks.remove(&read) {
            self.checked(txn, answer, effects);
        } else if let Some(asker) = self.asked.remove(&read) {
            self.answer(asker, answer, effects);
        }
        // Else it was a check of a transaction that was aborted meanwhile.
    }

    fn next_read(&mut self) -> ReadId {
        self.last_read += 1;
        ReadId(self.last_read)
    }

    fn persist(&mut self, record: ParticipantRecord, urgency: Urgency, effects: &mut Out) {
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

impl Core for Participant {
    type Message = Message;
    type Record = ParticipantRecord;
    type Resume = ParticipantResume;

    fn step(&mut self, now: Time, input: Input<Message, ParticipantResume>, effects: &mut Out) {
        match input {
            Input::Started => self.start(effects),
            Input::Request(request) => self.request(now, request, effects),
            Input::Message { from, message } => self.message(now, from, message, effects),
            Input::PeerUp(peer) => self.peer_up(now, peer, effects),
            Input::PeerDown(peer) => self.peer_down(now, peer, effects),
            Input::Timer => self.timer(now, effects),
            Input::Read { read, answer } => self.store_answered(read, answer, effects),
            Input::Resume(resume) => self.resume(now, resume, effects),
            Input::Room(room) => self.has_room = room,
            Input::Checkpoint => self.checkpoint(effects),
            Input::Staged { snapshot, is_kept } => self.staged(now, snapshot, is_kept, effects),
            // Nobody can stand in for it.
            Input::Stopping => {}
        }
        self.look_for_gap(now);
        self.alarms.ask(now, effects);
    }

    fn recover(&mut self, at: Position, record: ParticipantRecord, effects: &mut Out) {
        self.last = at;
        self.replay(at, record, effects);
    }

    fn reads_at_once(&mut self, now: Time, query: &Query) -> bool {
        self.may_read_at_once(now, query)
    }

    fn status(&self, now: Time) -> Status {
        let in_doubt = |promised: &&Promised| match promised.stage {
            Stage::Prepared { doubt_from, commit: None, .. } => doubt_from <= now,
            Stage::Prepared { .. } | Stage::Checking { .. } | Stage::Logging | Stage::Alone(_) => {
                false
            }
        };
        let mut counters: Vec<(&'static str, u64)> = self.counters.list();
        counters.push(("applied", self.applied.0));
        counters.push(("outcomes_remembered", self.decided.len() as u64));
        counters.push(("reads_waiting", self.waiting.len() as u64));
        counters.push(("view", self.lease.view()));
        counters.push(("outside", u64::from(self.is_outside())));
        counters.push(("may_read", u64::from(self.is_current() && self.may_read(now))));
        Status {
            role: Role::Replica,
            incarnation: self.incarnation,
            in_flight: self.transactions.len() as u64,
            in_doubt: self.transactions.values().filter(in_doubt).count() as u64,
            locks: self.locks.len() as u64,
            leader: None,
            peers_up: self.peers_up.iter().copied().collect(),
            replicas: Vec::new(),
            counters,
        }
    }
}
