//! The recovery round: what a restarted coordinator asks of the participants, and what it makes of
//! the answers.
//!
//! Under parallel commit a transaction is committed once all its participants are prepared, and the
//! coordinator may have died before its record of that was durable. So it asks everybody, and takes
//! no write on before all have answered. Who answers has promised to prepare nothing of an older
//! epoch any more: what is not prepared everywhere by then never will be, and is aborted.
//!
//! **Numbers.** What anybody was told keeps its number. What nobody knows a number of was applied
//! nowhere, so that its locks stand at every participant: it conflicts with nothing that comes after
//! it, and may take any number that is free. All numbers that were given out are taken again, since
//! whatever had one is prepared or committed everywhere; if not, somebody has lost a log.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::batches::Membership;
use super::state::{Active, Phase, Waiters};
use super::{Alarm, Coordinator, Out, reply_failed};
use crate::contract::{Effect, NodeId, RequestId, Time};
use crate::request::{Failure, Stamp, Transaction};
use crate::two_phase::locks::LockSet;
use crate::two_phase::message::{CommitNumber, Message, Recalled, Recovered, TxnId};
use crate::two_phase::names::are_not_reachable;
use crate::two_phase::options::CommitMode;
use crate::two_phase::planted::Bug;
use crate::two_phase::points;

/// What was asked after a restart, and has been answered so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Round {
    /// Who has not told everything, and from where on not.
    pub(super) missing: BTreeMap<NodeId, TxnId>,
    /// The newest commit that anybody has applied.
    applied: CommitNumber,
    /// What is prepared somewhere and has no record here.
    found: BTreeMap<TxnId, Found>,
    /// Who has lost what it had promised: it holds for others what they hold, and nothing else is
    /// asked of it.
    outside: BTreeSet<NodeId>,
    /// Why the answers can't be true together, or with the log: no write is taken on then.
    pub(super) contradiction: Option<String>,
    /// Writes that came meanwhile, and their bytes.
    parked: Vec<Parked>,
    parked_bytes: usize,
}

/// A write that waits for the end of the round.
#[derive(Clone, Debug)]
pub(super) struct Parked {
    pub(super) request: RequestId,
    pub(super) deadline: Time,
    pub(super) stamp: Option<Stamp>,
    pub(super) transaction: Transaction,
}

/// A parallel transaction without a record of its end.
#[derive(Clone, Debug)]
struct Found {
    participants: Arc<[NodeId]>,
    stamp: Option<Stamp>,
    number: Option<CommitNumber>,
    /// Who has prepared or committed it.
    holders: Vec<NodeId>,
}

/// How what was found ends.
struct Verdict {
    /// In the order of their numbers, which follow those in the log.
    commits: Vec<TxnId>,
    aborts: Vec<TxnId>,
}

impl Coordinator {
    pub(super) fn begin_round(&mut self) {
        if self.asks_at_start(self.commit_mode()) {
            self.views.begins_epoch(self.epoch, self.commits);
            let first = |replica: &NodeId| (*replica, TxnId::FIRST);
            let missing = self.participants.iter().map(first).collect();
            self.round = Some(Round { missing, ..Round::default() });
        }
    }

    /// Who commits in parallel asks at every start, the first one too: it may have lost its log. Who
    /// does not asks if anything that was begun in parallel before may not be over.
    pub(super) fn asks_at_start(&self, commit: CommitMode) -> bool {
        let may_be_open = self.parallel_epoch > 0 && self.over_below.epoch <= self.parallel_epoch;
        self.views.count() > 1 && (commit == CommitMode::Parallel || may_be_open)
    }

    /// With one replica there is nothing to say in parallel.
    pub(super) fn commit_mode(&self) -> CommitMode {
        match self.is_parallel() {
            true => CommitMode::Parallel,
            false => CommitMode::AfterDecision,
        }
    }

    pub(super) fn ask_to_recover(&mut self, peer: NodeId, effects: &mut Out) {
        let Some(first) = self.round.as_ref().and_then(|round| round.missing.get(&peer)) else {
            return;
        };
        self.counters.recovers_sent += 1;
        let message = Message::Recover { epoch: self.epoch, first: *first };
        effects.push(Effect::Send { to: peer, message });
    }

    pub(super) fn set_round_alarm(&mut self, now: Time) {
        if self.round.as_ref().is_some_and(|round| !round.missing.is_empty()) {
            self.alarms.set(now.after(self.options.resend_interval), Alarm::Round);
        }
    }

    /// A write has come before it is known what was committed: it waits, if that can't take long.
    pub(super) fn park(&mut self, parked: Parked, effects: &mut Out) {
        let bytes = match self.options.limits.check(&parked.transaction) {
            Ok(bytes) => bytes,
            Err(reason) => {
                return reply_failed(parked.request, Failure::Invalid { reason }, effects);
            }
        };
        if let Err(failure) = self.check_recovered() {
            return reply_failed(parked.request, failure, effects);
        }
        let options = &self.options;
        let round = self.round.as_mut().expect("it waits for the end of the round");
        if round.parked.len() >= options.in_flight_max
            || round.parked_bytes.saturating_add(bytes) > options.in_flight_bytes_max
        {
            self.counters.overloaded += 1;
            return reply_failed(parked.request, Failure::Overloaded, effects);
        }
        round.parked_bytes += bytes;
        round.parked.push(parked);
    }

    /// Why no write may wait for the end of the round: one that is not there has to answer, or the
    /// answers make no sense.
    fn check_recovered(&self) -> Result<(), Failure> {
        let Some(round) = &self.round else { return Ok(()) };
        let missing = round.missing.keys().copied();
        let away: Vec<NodeId> =
            missing.filter(|replica| !self.peers_up.contains(replica)).collect();
        let reason = match &round.contradiction {
            Some(why) => format!("the logs contradict each other: {why}"),
            None if away.is_empty() || self.may_wait_for(&away) => return Ok(()),
            None => format!(
                "the coordinator has started and has to hear what was committed before, and {}",
                are_not_reachable(&away)
            ),
        };
        Err(Failure::Unavailable { reason })
    }

    /// Writes can't wait any more.
    pub(super) fn give_up_parked(&mut self, effects: &mut Out) {
        let Err(failure) = self.check_recovered() else { return };
        let Some(round) = &mut self.round else { return };
        round.parked_bytes = 0;
        for parked in core::mem::take(&mut round.parked) {
            reply_failed(parked.request, failure.clone(), effects);
        }
    }

    /// Who has not answered is asked again, if it can be reached.
    pub(super) fn round_alarm(&mut self, now: Time, effects: &mut Out) {
        self.expire_parked(now, effects);
        let peers: Vec<NodeId> = self.peers_up.iter().copied().collect();
        for peer in peers {
            self.ask_to_recover(peer, effects);
        }
        self.set_round_alarm(now);
    }

    fn expire_parked(&mut self, now: Time, effects: &mut Out) {
        let Some(round) = &mut self.round else { return };
        let (expired, parked): (Vec<Parked>, Vec<Parked>) =
            core::mem::take(&mut round.parked).into_iter().partition(|it| it.deadline <= now);
        round.parked = parked;
        for Parked { request, .. } in expired {
            let reason = String::from("not all replicas have said in time what was committed");
            reply_failed(request, Failure::Unavailable { reason }, effects);
        }
    }

    /// A participant has promised, and tells what it has prepared.
    pub(super) fn recovered(
        &mut self,
        now: Time,
        from: NodeId,
        answer: Recovered,
        effects: &mut Out,
    ) {
        let Recovered { epoch, first, applied, recalled, next, is_outside } = answer;
        self.counters.recovered += 1;
        let Some(round) = self.round.as_mut().filter(|_| epoch == self.epoch) else {
            self.counters.duplicates_dropped += 1;
            return;
        };
        if round.missing.get(&from) != Some(&first) {
            self.counters.duplicates_dropped += 1;
            return;
        }
        if next.is_some_and(|next| next <= first) {
            self.counters.strange_dropped += 1;
            return;
        }
        round.applied = round.applied.max(applied);
        if is_outside {
            round.outside.insert(from);
        }
        for recalled in recalled {
            self.recall(from, recalled);
        }
        let round = self.round.as_mut().expect("it was there a moment ago");
        if let Some(next) = next {
            round.missing.insert(from, next);
            return self.ask_to_recover(from, effects);
        }
        round.missing.remove(&from);
        effects.point(points::COORDINATOR_SOME_RECOVERED);
        if self.options.planted.has(Bug::RecoverFromSome) {
            return self.finish_round(now, effects);
        }
        self.finish_round_if_all_have_answered(now, effects);
    }

    /// Who is left out is not waited for.
    pub(super) fn go_on_with_round(&mut self, now: Time, effects: &mut Out) {
        let Some(round) = &mut self.round else { return };
        round.missing.retain(|replica, _| self.views.is_member(*replica));
        self.finish_round_if_all_have_answered(now, effects);
    }

    /// What is found is committed without those that are left out: whom they ask has to know it.
    fn finish_round_if_all_have_answered(&mut self, now: Time, effects: &mut Out) {
        let all_have = self.round.as_ref().is_some_and(|round| round.missing.is_empty());
        if all_have && self.views.is_settled() {
            self.finish_round(now, effects);
        }
    }

    /// Takes note of what one participant has prepared, unless a record here says how it ended.
    fn recall(&mut self, from: NodeId, recalled: Recalled) {
        let Recalled { txn, participants, stamp, number } = recalled;
        let is_recorded = txn < self.over_below
            || self.aborted.contains(&txn)
            || self.transactions.contains_key(&txn)
            || number.is_some_and(|number| number <= self.commits);
        if is_recorded {
            return;
        }
        if txn.epoch >= self.epoch || !self.is_mine(txn) {
            self.counters.strange_dropped += 1;
            return;
        }
        let round = self.round.as_mut().expect("it is an answer to a round");
        let found = round.found.entry(txn).or_insert_with(|| Found {
            participants: participants.clone(),
            stamp,
            number,
            holders: Vec::new(),
        });
        let is_same = found.participants == participants
            && found.stamp == stamp
            && (found.number.is_none() || number.is_none() || found.number == number);
        if !is_same && round.contradiction.is_none() {
            let why = format!("{from} knows {txn} as another transaction, or by another number");
            round.contradiction = Some(why);
        }
        found.number = found.number.or(number);
        if !found.holders.contains(&from) {
            found.holders.push(from);
        }
    }

    /// Everybody has answered: what is prepared everywhere is committed, and the rest aborted.
    fn finish_round(&mut self, now: Time, effects: &mut Out) {
        let round = self.round.as_ref().expect("it is being finished");
        let verdict = match round.contradiction.clone() {
            Some(why) => Err(why),
            None => self.verdict(round),
        };
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(why) => {
                let round = self.round.as_mut().expect("it was there a moment ago");
                round.contradiction = Some(why);
                return self.give_up_parked(effects);
            }
        };
        effects.point(points::COORDINATOR_ALL_RECOVERED);
        let round = self.round.take().expect("it was there a moment ago");
        let mut found = round.found;
        // First all that stays open, so that nothing that is said passes it.
        let first = self.commits.next();
        for txn in &verdict.commits {
            let found = found.remove(txn).expect("the verdict is on what was found");
            self.open_again(*txn, found);
        }
        for (number, txn) in (first.0..).map(CommitNumber).zip(verdict.commits) {
            self.record_then_tell(txn, number, effects);
        }
        for txn in verdict.aborts {
            self.counters.aborts_recovered += 1;
            let holders = found.remove(&txn).expect("the verdict is on what was found").holders;
            self.tell_abort(txn, &holders, None, effects);
        }
        for Parked { request, deadline, stamp, transaction } in round.parked {
            self.transact(now, request, deadline, stamp, transaction, effects);
        }
    }

    fn verdict(&self, round: &Round) -> Result<Verdict, String> {
        let mut numbered: BTreeMap<CommitNumber, TxnId> = BTreeMap::new();
        let mut unnumbered = VecDeque::new();
        let mut aborts = Vec::new();
        for (txn, found) in &round.found {
            // What a replica that has lost its disk had promised it can't say. That nobody has a
            // record of an abort is enough: nobody was told of one.
            let is_needed = |node: NodeId| {
                (self.views.counts(node, *txn) || self.options.planted.has(Bug::RecoverByOldView))
                    && !round.outside.contains(&node)
            };
            let lacks = |node: &&NodeId| is_needed(**node) && !found.holders.contains(node);
            let stranger = found.participants.iter().find(|it| !self.views.was_replica(**it));
            if let Some(stranger) = stranger {
                return Err(format!("{stranger} takes part in {txn}, and never was a replica"));
            }
            match (found.number, found.participants.iter().find(lacks)) {
                (Some(number), Some(node)) if !self.options.planted.has(Bug::RecoverFromSome) => {
                    return Err(format!(
                        "{txn} is commit {number}, and {node} knows nothing of it"
                    ));
                }
                (Some(number), _) => {
                    if let Some(other) = numbered.insert(number, *txn) {
                        return Err(format!("{txn} and {other} are both commit {number}"));
                    }
                }
                (None, None) => unnumbered.push_back(*txn),
                (None, Some(_)) => aborts.push(*txn),
            }
        }
        let mut commits = Vec::new();
        let mut number = self.commits;
        loop {
            number = number.next();
            let known = numbered.remove(&number);
            // What is applied somewhere has its number there.
            let free = || (number > round.applied).then(|| unnumbered.pop_front()).flatten();
            match known.or_else(free) {
                Some(txn) => commits.push(txn),
                None if numbered.is_empty() && number > round.applied => break,
                None => return Err(format!("nobody knows commit {number}: a log is lost")),
            }
        }
        Ok(Verdict { commits, aborts })
    }

    /// It has happened before the restart, or its last promise was on the way then.
    fn open_again(&mut self, txn: TxnId, found: Found) {
        self.counters.commits_recovered += 1;
        self.commits = self.commits.next();
        let number = self.commits;
        let Found { participants, mut stamp, .. } = found;
        if self.options.planted.has(Bug::RecoverWithoutStamps) {
            stamp = None;
        }
        let active = Active {
            phase: Phase::Committing { number },
            participants,
            stamp,
            waiters: Waiters::new(),
            locks: LockSet::default(),
            bytes: 0,
            alarm: None,
            batch: Membership::None,
            transaction: None,
        };
        self.transactions.insert(txn, active);
        if let Some(stamp) = stamp {
            self.sessions.settle(stamp, ());
        }
    }
}
