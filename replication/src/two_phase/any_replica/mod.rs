//! Two-phase commit without a coordinator process: whichever replica a client asks coordinates
//! (Gray 1978; Mohan, Lindsay and Obermarck 1986 for presumed abort; Rosenkrantz, Stearns and Lewis
//! 1978 for wait-die; Bernstein, Hadzilacos and Goodman 1987 for reads of one copy, writes of all).
//!
//! **Promise.** A transaction happens on every replica or on none, all transactions happen in one
//! order that respects real time (strict serializability), and what was acknowledged survives any
//! crash. Any replica takes any request. Transactions that meet neither deadlock nor starve. The
//! price: a write needs every replica, and a participant that has voted yes waits for the decision,
//! however long that takes.
//!
//! ```text
//! client    coordinator                  participant (each other replica)
//!   │  request   │                           │
//!   │──────────► │ locks its own copy,       │
//!   │            │ checks preconditions      │
//!   │            │ ─── Prepare, age ───────► │ locks, or waits for younger, or dies
//!   │            │                           │ ▓ Prepared            (forced)
//!   │            │ ◄── Vote yes ──────────── │ from here on in doubt
//!   │ all yes:   │ ▓ Committed     (forced)  │
//!   │ ◄─ done ── │ ─── Decide commit ──────► │ applies, unlocks
//!   │            │ applies, unlocks          │ ░ Decided           (unforced)
//!   │            │ ░ Decided     (unforced)  │
//!   │            │ ◄── Acknowledge ───────── │
//!   │            │ ░ Ended       (unforced)  │
//!
//!   a vote "conflict": it died of an older one. Decide abort to the others; tried again after a
//!   while under another number and with the same age, so that it wins in time.
//! ```
//!
//! **Departures from the papers**, each argued in `docs/protocols/any-replica.md`: the coordinator's
//! own promise and its decision are one record; only the coordinator judges preconditions; reads are
//! of one copy, take no locks, and wait for what is prepared; a read that waits for long makes
//! younger writers die; a participant does not force its decision; an abort and the pruning of old
//! outcomes ride on a bound that every prepare and decision carries; who dies before it has asked
//! anybody waits for the lock without a claim.
//!
//! What the shell has to keep, beyond the rules of [`crate::contract`], is what two-phase commit
//! with a coordinator process asks of it.

pub mod audit;
mod coordinating;
mod locks;
pub mod message;
pub mod options;
mod participating;
pub mod planted;
pub mod points;
mod reads;
pub mod record;
mod recovery;
mod sessions;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

pub use self::options::ReplicaOptions;

use self::coordinating::Coordinating;
use self::locks::Locks;
use self::message::{Age, Message, Settled, TxnId, Work};
use self::participating::Participating;
use self::reads::Reads;
use self::record::Record;
use crate::alarms::Alarms;
use crate::contract::{
    Core, Effect, Effects, Input, NodeId, Position, ReadId, RequestId, Role, Status, Time, Urgency,
};
use crate::counters::counters;
use crate::random::Random;
use crate::request::{Answer, Failure, Operation, Outcome, Request};
use crate::sessions::{Origin, SessionLimits, Sessions};

type Out = Effects<Message, Record, Resume>;

/// What a replica goes on with once a record is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Its incarnation: it may take part.
    Serving,
    /// The promise on this transaction of another; its vote has gone out.
    Prepared(TxnId),
    /// The outcome of this transaction of another.
    Decided(TxnId),
    /// The commit of this own transaction.
    Committed(TxnId),
    /// That this own transaction was refused because of a precondition.
    Refused(Age),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    /// What a client asked for has waited long enough for what it waits for.
    Errand(Age),
    /// A commit was not acknowledged.
    Commit(TxnId),
    Inquire(TxnId),
    /// A read becomes impatient.
    Patience(ReadId),
    Read(ReadId),
}

counters! {
    /// What a replica counts.
    Counters {
        prepares_sent,
        votes_yes_sent,
        votes_no_sent,
        commits_sent,
        aborts_sent,
        acknowledgements_sent,
        inquiries_sent,
        informs_sent,
        records_forced,
        records_unforced,
        begun,
        tries,
        committed,
        applied,
        aborted,
        died,
        waited,
        parked,
        given_up,
        superseded,
        aborted_below_finished,
        promised_never,
        waiters_dropped,
        preconditions_failed,
        checked_alone,
        retries_answered,
        retries_attached,
        unavailable,
        unknown,
        conflicts,
        overloaded,
        disk_full,
        commits_resent,
        acknowledgements,
        inquiries,
        informs,
        reads,
        reads_waited,
        reads_impatient,
        reads_expired,
        died_of_reads,
        duplicates_dropped,
        strange_dropped,
        dropped_not_serving,
    }
}

/// A replica of a cluster in which every replica coordinates. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Replica {
    options: ReplicaOptions,
    /// All of them.
    replicas: Arc<[NodeId]>,
    /// All but this one: the participants of its transactions.
    others: Arc<[NodeId]>,
    random: Random,
    /// The last record's position.
    last: Position,
    /// How often it has started; the epoch of its transactions.
    incarnation: u64,
    serving: bool,
    /// Whether the disk has room for more.
    has_room: bool,
    /// Why it may not take part at all: its log contradicts itself.
    unfit: Option<String>,
    /// The Lamport clock that ages are read from.
    clock: u64,
    /// Of its own transactions and of others'.
    locks: Locks,
    /// How writes of sessions were settled on this copy.
    sessions: Sessions<Settled>,
    /// One was asked for, and not written yet.
    wants_checkpoint: bool,
    coordinating: Coordinating,
    participating: Participating,
    reads: Reads,
    last_read: u64,
    peers_up: BTreeSet<NodeId>,
    alarms: Alarms<Alarm>,
    counters: Counters,
}

impl Replica {
    /// A replica that remembers nothing yet; its log follows by [`Core::recover`].
    ///
    /// # Panics
    /// If a replica is named twice, or this one is not named, or has the number of a coordinator
    /// process.
    #[must_use]
    pub fn new(options: ReplicaOptions) -> Self {
        let replicas: BTreeSet<NodeId> = options.replicas.iter().copied().collect();
        assert_eq!(replicas.len(), options.replicas.len(), "each replica is named once");
        assert!(replicas.contains(&options.id), "this replica is one of them");
        assert!(!replicas.contains(&NodeId::COORDINATOR), "a replica has a number of its own");
        let limits = SessionLimits {
            sessions_max: options.sessions_max,
            outstanding_per_session_max: options.outstanding_per_session_max,
            outstanding_max: options.outstanding_max,
        };
        let others = replicas.iter().copied().filter(|replica| *replica != options.id);
        Self {
            others: others.collect(),
            random: Random::new(options.seed),
            last: Position::ZERO,
            incarnation: 0,
            serving: false,
            has_room: true,
            unfit: None,
            clock: 0,
            locks: Locks::new(options.prepared_max, options.planted),
            sessions: Sessions::new(Origin::Given, limits),
            wants_checkpoint: false,
            coordinating: Coordinating::default(),
            participating: Participating::default(),
            reads: Reads::default(),
            last_read: 0,
            peers_up: BTreeSet::new(),
            alarms: Alarms::new(),
            counters: Counters::default(),
            replicas: replicas.into_iter().collect(),
            options,
        }
    }

    fn request(&mut self, now: Time, request: Request, effects: &mut Out) {
        let Request { id, deadline, operation } = request;
        if let Some(reason) = &self.unfit {
            let reason = reason.clone();
            return reply_failed(id, Failure::Storage { reason }, effects);
        }
        if !self.serving {
            let reason = format!("{} is starting", self.options.id);
            return reply_failed(id, Failure::Unavailable { reason }, effects);
        }
        match operation {
            Operation::OpenSession => self.open_session(now, id, deadline, effects),
            // A fresh read is local too. One that need not be fresh would have to be a prefix of the
            // one order all the same, and so would have to wait as well.
            Operation::Read(query) | Operation::ReadStale(query) => {
                self.read(now, id, deadline, query, effects);
            }
            Operation::Transact { stamp, transaction } => {
                self.transact(now, id, deadline, stamp, transaction, effects);
            }
            Operation::ChangeMembers { .. } | Operation::ChangeReplicas(_) => {
                let reason = String::from(
                    "without a coordinator the replicas of two-phase commit are fixed",
                );
                reply_failed(id, Failure::Invalid { reason }, effects);
            }
        }
    }

    fn message(&mut self, now: Time, from: NodeId, message: Message, effects: &mut Out) {
        if !self.others.contains(&from) {
            self.counters.strange_dropped += 1;
            return;
        }
        if !self.serving {
            self.counters.dropped_not_serving += 1;
            return self.excuse(from, &message, effects);
        }
        match message {
            Message::Prepare(prepare) => self.prepare(from, prepare, effects),
            Message::Vote { txn, vote, clock } => self.vote(now, from, txn, vote, clock, effects),
            Message::Decide { txn, decision, finished_below } => {
                self.decide(from, txn, decision, finished_below, effects);
            }
            Message::Acknowledge { txn } => self.acknowledged(from, txn, effects),
            Message::Inquire { txn } if txn.coordinator == self.options.id => {
                self.inquired_as_coordinator(from, txn, effects);
            }
            Message::Inquire { txn } => self.inquired(from, txn, effects),
            Message::Inform { txn, knowledge } => {
                self.informed(from, txn, knowledge, effects);
            }
        }
    }

    fn peer_up(&mut self, peer: NodeId, effects: &mut Out) {
        if !self.others.contains(&peer) {
            return;
        }
        if !self.peers_up.insert(peer) {
            // A new link, and nobody saw the old one break: what was sent over it may be lost.
            self.give_up_votes_of(peer, effects);
            self.drop_waiters_of(peer);
        }
        if self.serving {
            self.resend_commits_to(peer, effects);
            self.inquire_about_all_of(peer, effects);
        }
    }

    fn peer_down(&mut self, peer: NodeId, effects: &mut Out) {
        if self.peers_up.remove(&peer) {
            self.give_up_what_needs(peer, effects);
            self.drop_waiters_of(peer);
        }
    }

    fn timer(&mut self, now: Time, effects: &mut Out) {
        self.alarms.rang();
        for _ in 0..self.options.alarms_per_timer_max {
            match self.alarms.due(now) {
                Some(Alarm::Errand(age)) => self.errand_alarm(now, age, effects),
                Some(Alarm::Commit(txn)) => self.resend_commit(now, txn, effects),
                Some(Alarm::Inquire(txn)) => self.inquire_alarm(now, txn, effects),
                Some(Alarm::Patience(read)) => self.lose_patience(now, read),
                Some(Alarm::Read(read)) => self.read_alarm(read, effects),
                None => return,
            }
        }
    }

    fn resume(&mut self, now: Time, resume: Resume, effects: &mut Out) {
        match resume {
            Resume::Serving => self.serve(now, effects),
            Resume::Prepared(txn) => self.vote_has_gone(now, txn),
            Resume::Decided(txn) => self.decision_is_durable(txn),
            Resume::Committed(txn) => self.commit_is_durable(now, txn, effects),
            Resume::Refused(age) => self.refusal_is_durable(age, effects),
        }
    }

    fn store_answered(&mut self, now: Time, read: ReadId, answer: Answer, effects: &mut Out) {
        if let Some(age) = self.coordinating.checks.remove(&read) {
            self.checked(now, age, answer, effects);
        } else if let Some(request) = self.reads.asked.remove(&read) {
            let outcome = answer.held_by(self.options.id).into_outcome();
            effects.push_unheld(Effect::Reply { request, outcome });
        }
        // Else it was a check of a transaction that was given up meanwhile.
    }

    /// Hands on the locks that were let go in this step, until nobody is left who could have one.
    /// It is done at the end of a step, and not where a lock is let go: so one step is one loop, and
    /// never a recursion through all who wait.
    fn go_on(&mut self, now: Time, effects: &mut Out) {
        loop {
            let (granted, freed) = self.locks.hand_on();
            if granted.is_empty() && freed.is_empty() {
                return;
            }
            for txn in granted {
                if txn.coordinator == self.options.id {
                    self.got_own_locks(now, txn, effects);
                } else {
                    self.got_locks(txn, effects);
                }
            }
            for resource in freed {
                self.wake_parked(now, &resource, effects);
            }
        }
    }

    /// Whether this replica, or one of its earlier incarnations, can have begun the transaction. If
    /// not, the sender knows more than the log: nothing may be presumed then.
    fn is_mine(&self, txn: TxnId) -> bool {
        let next = self.coordinating.next_txn(self.options.id, self.incarnation);
        txn.coordinator == self.options.id && txn.number > 0 && txn < next
    }

    fn next_read(&mut self) -> ReadId {
        self.last_read += 1;
        ReadId(self.last_read)
    }

    fn persist(&mut self, record: Record, urgency: Urgency, effects: &mut Out) {
        match urgency {
            Urgency::Now => self.counters.records_forced += 1,
            Urgency::Soon => self.counters.records_unforced += 1,
        }
        self.last = self.last.next();
        effects.push(Effect::Persist { at: self.last, record, urgency });
    }

    /// Why it takes no part, if it does not: its log contradicts itself.
    #[must_use]
    pub fn unfit(&self) -> Option<&String> {
        self.unfit.as_ref()
    }

    /// How it is now, for a judge.
    #[must_use]
    pub fn audit(&self) -> audit::ReplicaAudit {
        audit::of(self)
    }
}

fn reply_failed(request: RequestId, failure: Failure, effects: &mut Out) {
    effects.push_unheld(Effect::Reply { request, outcome: Outcome::Failed(failure) });
}

/// Has what the work writes applied; a session is no row.
fn apply(work: &Work, mark: Position, effects: &mut Out) {
    if let Work::Write { writes, .. } = work {
        effects.push_unheld(Effect::Apply { mark: mark.0, writes: writes.clone().into() });
    }
}

impl Core for Replica {
    type Message = Message;
    type Record = Record;
    type Resume = Resume;

    fn step(&mut self, now: Time, input: Input<Message, Resume>, effects: &mut Out) {
        match input {
            Input::Started => self.start(effects),
            Input::Request(request) => self.request(now, request, effects),
            Input::Message { from, message } => self.message(now, from, message, effects),
            Input::PeerUp(peer) => self.peer_up(peer, effects),
            Input::PeerDown(peer) => self.peer_down(peer, effects),
            Input::Timer => self.timer(now, effects),
            Input::Read { read, answer } => self.store_answered(now, read, answer, effects),
            Input::Resume(resume) => self.resume(now, resume, effects),
            Input::Room(room) => self.has_room = room,
            Input::Checkpoint => self.ask_for_checkpoint(effects),
            // It copies no stores, so nothing is ever staged; and nobody can stand in for it.
            Input::Staged { .. } | Input::Stopping => {}
        }
        self.go_on(now, effects);
        self.alarms.ask(now, effects);
    }

    fn recover(&mut self, at: Position, record: Record, effects: &mut Out) {
        self.last = at;
        self.replay(at, record, effects);
    }

    fn status(&self, now: Time) -> Status {
        let mut counters: Vec<(&'static str, u64)> = self.counters.list();
        let gauges = [
            ("unacknowledged", self.coordinating.commits.len()),
            ("waiting", self.locks.waiting()),
            ("outcomes_remembered", self.participating.decided.len()),
            ("reads_waiting", self.reads.waiting.len()),
            ("sessions", self.sessions.len()),
        ];
        counters.extend(gauges.map(|(name, count)| (name, count as u64)));
        counters.push(("clock", self.clock));
        let errands = self.coordinating.errands.len() + self.coordinating.commits.len();
        Status {
            role: Role::Replica,
            incarnation: self.incarnation,
            in_flight: (errands + self.participating.promised.len()) as u64,
            in_doubt: self.participating.in_doubt(now) as u64,
            locks: self.locks.len() as u64,
            peers_up: self.peers_up.iter().copied().collect(),
            replicas: Vec::new(),
            leader: None,
            counters,
        }
    }
}

/// Maps that hold what a role remembers are ordered: no step depends on chance.
type ByTxn<T> = BTreeMap<TxnId, T>;
