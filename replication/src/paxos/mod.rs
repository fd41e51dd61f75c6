//! Multi-Paxos (Lamport, *Paxos Made Simple*, 2001; Chandra, Griesemer and Redstone, *Paxos Made
//! Live*, 2007; van Renesse and Altinbuken, *Paxos Made Moderately Complex*, 2015; Ongaro,
//! *Consensus: Bridging Theory and Practice*, 2014, ch. 4 and 6, for the practical parts).
//!
//! **Promise.** Linearizable; available while a majority of the replicas is, and can be heard. What
//! was acknowledged survives any crash of any processes, as long as the disks of a majority do.
//! Multi-key transactions with preconditions happen at one point of the one order, with a stamp once.
//!
//! ```text
//! client    leader                             each other replica
//!   │          │  silence: somebody campaigns         │
//!   │          │ ▓ Promised b              (forced)   │
//!   │          │ ─── Prepare b ─────────────────────► │ ▓ Promised b            (forced)
//!   │          │ ◄── Promise b, accepted per slot ─── │
//!   │          │ proposes those again, no-ops in gaps │
//!   │ request  │                                      │
//!   │────────► │ ─── Accept b, slot n ──────────────► │
//!   │          │ ▓ Accepted n, b           (forced)   │ ▓ Accepted n, b         (forced)
//!   │          │ ◄── Accepted b, n ────────────────── │
//!   │ majority:│ applies n                            │
//!   │ ◄─ done ─│ ░ Chosen n              (unforced)   │
//!   │          │ ─── next Accept, or Heartbeat: ────► │ applies up to n
//!   │          │     chosen up to n                   │ ░ Chosen n            (unforced)
//! ```
//!
//! **Departures from the papers**, each argued in `docs/protocols/paxos.md`: the three roles share
//! one node, one log and one core; a promise covers all slots; what is applied needs no vote any
//! more; the leader's own vote is one like the others; the read-only commands take no slot; a node
//! that lost its disk is another acceptor; pre-vote and check-quorum; sessions.
//!
//! One core, [`Replica`], holds the three roles, each in a room of its own, which own their state
//! and meet in a few calls. What the shell has to keep, beyond the rules of [`crate::contract`]: it
//! appends the records of a step before it applies anything of that step, and makes the log durable
//! up to there before what was applied goes to a segment.

mod acceptor;
pub mod audit;
mod failing;
mod learner;
mod membership;
pub mod message;
pub mod options;
pub mod planted;
pub mod points;
mod proposer;
mod reads;
pub mod record;
mod recovery;
mod snapshot;

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

pub use self::failing::PaxosRole;
pub use self::options::{AcceptorRestart, ReplicaOptions};

use self::acceptor::Acceptor;
use self::failing::Roles;
use self::learner::Learner;
use self::message::{Ballot, Member, Message, Slot};
use self::proposer::Proposer;
use self::reads::Reads;
use self::record::Record;
use self::snapshot::Snapshots;
use crate::alarms::Alarms;
use crate::contract::{
    Core, Effect, Effects, Input, NodeId, Position, ReadId, RequestId, Role, Status, Time, Urgency,
};
use crate::counters::counters;
use crate::random::Random;
use crate::request::{Answer, Failure, Operation, Outcome, Request};

type Out = Effects<Message, Record, Resume>;

/// What a replica goes on with once a record is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resume {
    /// Its incarnation: it may take part.
    Serving,
    /// The promise of this ballot.
    Promised(Ballot),
    /// A vote.
    Voted {
        /// With which ballot.
        ballot: Ballot,
        /// Where.
        slot: Slot,
    },
    /// That the acceptor has forgotten everything.
    Forgot,
    /// A snapshot, whose rows are in place now.
    Installed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Alarm {
    Election,
    Heartbeat(Ballot),
    Resend(Ballot),
    Gathered,
    Request(RequestId),
    Read(RequestId),
    AskAgain,
    CatchUp,
    SnapshotIdle,
    Role(PaxosRole),
}

counters! {
    /// What a replica counts.
    Counters {
        pre_votes,
        prepares_sent,
        promises_sent,
        accepts_sent,
        accepts_resent,
        accepted_sent,
        refused_sent,
        heartbeats_sent,
        heartbeat_acks_sent,
        hand_overs_sent,
        taken_over,
        read_indexes_sent,
        read_indexes_told,
        learns_sent,
        learned_sent,
        truncated_sent,
        snapshot_pieces_sent,
        joins_sent,
        records_forced,
        records_unforced,
        campaigns,
        campaigns_failed,
        elected,
        stepped_down,
        quorum_lost,
        proposed,
        reproposed,
        gaps_filled,
        window_filled,
        commands_proposed,
        chosen,
        applied,
        commands_applied,
        preconditions_failed,
        learned,
        catch_ups_repeated,
        snapshots_taken,
        snapshot_pieces,
        snapshots_installed,
        snapshots_without_room,
        snapshots_given_up,
        joins,
        reads,
        reads_stale,
        reads_waited,
        reads_expired,
        reads_by_lease,
        read_rounds,
        retries_answered,
        redirected,
        superseded,
        unavailable,
        unknown,
        overloaded,
        disk_full,
        roles_failed,
        roles_returned,
        acceptors_forgot,
        duplicates_dropped,
        strange_dropped,
        dropped_not_serving,
    }
}

/// A replica of a Multi-Paxos cluster. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Replica {
    options: ReplicaOptions,
    random: Random,
    /// The last record's position.
    last: Position,
    incarnation: u64,
    /// Under which life this node's acceptor votes.
    life: u64,
    serving: bool,
    /// Whether the disk has room for more.
    has_room: bool,
    /// Why it may not take part at all.
    unfit: Option<String>,
    acceptor: Acceptor,
    proposer: Proposer,
    learner: Learner,
    reads: Reads,
    snapshots: Snapshots,
    roles: Roles,
    /// That the acceptor forgot is durable; until then it does not vote.
    has_forgotten: bool,
    last_read: u64,
    peers_up: BTreeSet<NodeId>,
    alarms: Alarms<Alarm>,
    counters: Counters,
}

impl Replica {
    /// A replica that remembers nothing yet; its log follows by [`Core::recover`].
    ///
    /// # Panics
    /// If the options contradict each other.
    #[must_use]
    pub fn new(options: ReplicaOptions) -> Self {
        options.validate();
        Self {
            random: Random::new(options.seed),
            last: Position::ZERO,
            incarnation: 0,
            life: options.life,
            serving: false,
            has_room: true,
            unfit: None,
            acceptor: Acceptor::new(),
            proposer: Proposer::new(),
            learner: Learner::new(&options),
            reads: Reads::default(),
            snapshots: Snapshots::default(),
            roles: Roles::default(),
            has_forgotten: true,
            last_read: 0,
            peers_up: BTreeSet::new(),
            alarms: Alarms::new(),
            counters: Counters::default(),
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
            Operation::Read(query) if query.holder().is_none() => {
                self.read(now, id, deadline, query, effects);
            }
            // What is held was as new as it had to be when it was taken.
            Operation::Read(query) | Operation::ReadStale(query) => {
                self.read_stale(id, query, effects);
            }
            Operation::Transact { stamp, transaction } => {
                self.transact(now, id, deadline, stamp, transaction, effects);
            }
            Operation::ChangeMembers { members } => {
                self.change_members(now, id, deadline, &members, effects);
            }
            Operation::ChangeReplicas(_) => {
                let reason = String::from("under Multi-Paxos all replicas are named together");
                reply_failed(id, Failure::Invalid { reason }, effects);
            }
        }
    }

    fn message(&mut self, now: Time, from: NodeId, message: Message, effects: &mut Out) {
        if !self.serving || self.unfit.is_some() {
            self.counters.dropped_not_serving += 1;
            return;
        }
        if from == self.options.id {
            self.counters.strange_dropped += 1;
            return;
        }
        if !self.hears(message.addressee()) {
            self.counters.dropped_not_serving += 1;
            return;
        }
        let member = |life| Member { node: from, life };
        match message {
            Message::PreVote { ballot, instead_of } => {
                self.pre_vote(now, from, ballot, instead_of, effects);
            }
            Message::PreVoteAnswer { ballot, life, granted, seen } => {
                self.pre_vote_answer(now, member(life), ballot, granted, seen, effects);
            }
            Message::Prepare { ballot, from: first } => {
                self.prepare(now, from, ballot, first, effects);
            }
            Message::Promise(promise) => self.promise_came(now, from, promise, effects),
            Message::Accept { ballot, slot, batch, chosen } => {
                self.accept(now, from, ballot, slot, batch, effects);
                if self.proposer.leader_ballot() == ballot {
                    self.hear_chosen(now, from, ballot, chosen, effects);
                }
            }
            Message::Accepted { ballot, slot, life } => {
                self.accepted(now, member(life), ballot, slot, effects);
            }
            Message::Refused { promised } => self.refused(now, promised, effects),
            Message::Heartbeat { ballot, chosen, round } => {
                self.heartbeat(now, from, ballot, chosen, round, effects);
            }
            Message::HeartbeatAck { ballot, round, life } => {
                self.heartbeat_acked(now, member(life), ballot, round, effects);
            }
            Message::TakeOver { ballot } => self.take_over(now, from, ballot, effects),
            Message::ReadIndex { name } => self.read_index_asked(now, from, name, effects),
            Message::ReadIndexIs { name, index } => self.index_came(now, name, index, effects),
            Message::Learn { from: slot } => self.tell_learner(from, slot, effects),
            Message::Learned { from: first, batches, chosen, leader } => {
                self.batches_came(now, from, first, batches, (chosen, leader), effects);
            }
            Message::Truncated { first } => self.truncated(now, from, first, effects),
            Message::FetchSnapshot { snapshot, from: key } => {
                self.tell_piece(now, from, snapshot, key, effects);
            }
            Message::SnapshotPiece(piece) => self.stage(now, from, piece, effects),
            Message::SnapshotGone { snapshot } => self.snapshot_gone(now, snapshot, effects),
            Message::Join { life } => self.join(now, from, life, effects),
        }
    }

    /// Whether a role is there to hear something.
    fn hears(&self, role: Option<PaxosRole>) -> bool {
        match role {
            Some(PaxosRole::Acceptor) => self.roles.acceptor_is_up() && self.has_forgotten,
            Some(PaxosRole::Proposer) => self.roles.proposer_is_up(),
            Some(PaxosRole::Learner) => self.roles.learner_is_up(),
            None => true,
        }
    }

    fn peer_up(&mut self, now: Time, peer: NodeId, effects: &mut Out) {
        self.peers_up.insert(peer);
        if self.serving && self.unfit.is_none() {
            self.resend_to(now, peer, effects);
        }
    }

    fn peer_down(&mut self, now: Time, peer: NodeId) {
        self.peers_up.remove(&peer);
        if self.serving && self.proposer.leader() == Some(peer) {
            self.lose_leader(now);
        }
    }

    fn room(&mut self, now: Time, has_room: bool, effects: &mut Out) {
        self.has_room = has_room;
        if !has_room {
            // Somebody with room can go on with writes. If there is nobody, this one goes on with
            // reads.
            self.hand_over(now, effects);
        }
    }

    fn timer(&mut self, now: Time, effects: &mut Out) {
        self.alarms.rang();
        for _ in 0..self.options.alarms_per_timer_max {
            match self.alarms.due(now) {
                Some(Alarm::Election) => self.election_alarm(now, effects),
                Some(Alarm::Heartbeat(ballot)) => self.heartbeat_alarm(now, ballot, effects),
                Some(Alarm::Resend(ballot)) => self.resend_alarm(now, ballot, effects),
                Some(Alarm::Gathered) => self.gathered_alarm(now, effects),
                Some(Alarm::Request(request)) => self.request_alarm(request, effects),
                Some(Alarm::Read(request)) => self.read_alarm(request, effects),
                Some(Alarm::AskAgain) => self.ask_again(now, effects),
                Some(Alarm::CatchUp) => self.catch_up_alarm(now, effects),
                Some(Alarm::SnapshotIdle) => self.snapshot_idle_alarm(now, effects),
                Some(Alarm::Role(role)) => self.role_alarm(now, role, effects),
                None => return,
            }
        }
    }

    fn resume(&mut self, now: Time, resume: Resume, effects: &mut Out) {
        match resume {
            Resume::Serving => self.serve(now, effects),
            Resume::Promised(ballot) => {
                self.promise_is_durable(ballot);
                self.own_promise(now, ballot, effects);
            }
            Resume::Voted { ballot, slot } => {
                self.voted(ballot, slot);
                if ballot.node == self.options.id {
                    self.accepted(now, self.me(), ballot, slot, effects);
                }
            }
            Resume::Forgot => self.has_forgotten = true,
            Resume::Installed => self.installed(now, effects),
        }
    }

    fn store_answered(&mut self, now: Time, read: ReadId, answer: Answer, effects: &mut Out) {
        if self.preconditions_came(now, read, &answer, effects) {
            return;
        }
        let mut answer = Some(answer);
        if self.piece_came(read, &mut answer, effects) {
            return;
        }
        if let Some(answer) = answer {
            self.read_came(read, answer, effects);
        }
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
}

fn reply_failed(request: RequestId, failure: Failure, effects: &mut Out) {
    effects.push_unheld(Effect::Reply { request, outcome: Outcome::Failed(failure) });
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
            Input::PeerUp(peer) => self.peer_up(now, peer, effects),
            Input::PeerDown(peer) => self.peer_down(now, peer),
            Input::Timer => self.timer(now, effects),
            Input::Read { read, answer } => self.store_answered(now, read, answer, effects),
            Input::Staged { snapshot, is_kept } => self.staged(now, snapshot, is_kept, effects),
            Input::Resume(resume) => self.resume(now, resume, effects),
            Input::Room(room) => self.room(now, room, effects),
            Input::Stopping => self.hand_over(now, effects),
            Input::Checkpoint => self.checkpoint(effects),
        }
        self.alarms.ask(now, effects);
    }

    fn recover(&mut self, at: Position, record: Record, effects: &mut Out) {
        self.last = at;
        self.replay(at, record, effects);
    }

    fn status(&self, _now: Time) -> Status {
        let mut counters = self.counters.list();
        let leader = self.proposer.leader().map_or(0, |leader| leader.0);
        counters.push(("leader", u64::from(leader)));
        counters.push(("ballot", self.proposer.leader_ballot().round));
        counters.push(("promised", self.acceptor.promised().round));
        counters.push(("slots_chosen", self.learner.chosen.0));
        counters.push(("slots_applied", self.learner.applied.0));
        counters.push((
            "slots_retained",
            self.learner.applied.next().0 - self.learner.first_retained().0,
        ));
        counters.push(("sessions", self.learner.sessions.len() as u64));
        counters.push(("queued", self.proposer.queued() as u64));
        counters.push(("reads_waiting", self.reads.in_flight() as u64));
        counters.push(("votes_count", u64::from(self.counts_next())));
        Status {
            role: Role::Replica,
            incarnation: self.incarnation,
            in_flight: self.proposer.in_flight() as u64,
            in_doubt: 0,
            locks: 0,
            leader: self.proposer.leader(),
            peers_up: self.peers_up.iter().copied().collect(),
            replicas: Vec::new(),
            counters,
        }
    }
}
