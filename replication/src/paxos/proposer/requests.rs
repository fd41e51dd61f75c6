//! Clients' requests, from their arrival to their one reply.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::contract::{Effect, NodeId, RequestId, Time};
use crate::paxos::learner::Verdict;
use crate::paxos::message::{Ballot, Batch, Command, Member, Slot};
use crate::paxos::planted::Bug;
use crate::paxos::record::Settled;
use crate::paxos::{Alarm, Out, Replica, reply_failed};
use crate::request::{Failure, Outcome, Stamp, Transaction};
use crate::sessions::Standing;

/// A command that waits for a slot.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    request: Option<RequestId>,
    command: Command,
    bytes: usize,
}

impl Queued {
    pub(super) fn changes_members(&self) -> bool {
        matches!(self.command, Command::ChangeMembers(_))
    }
}

/// A request that is not answered.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// When it is given up.
    alarm: Time,
    /// Whether it may have happened: its command is proposed.
    is_proposed: bool,
}

impl Replica {
    pub(in crate::paxos) fn open_session(
        &mut self,
        now: Time,
        request: RequestId,
        deadline: Time,
        effects: &mut Out,
    ) {
        self.ask(now, request, deadline, Ok((Command::OpenSession, 0)), effects);
    }

    pub(in crate::paxos) fn transact(
        &mut self,
        now: Time,
        request: RequestId,
        deadline: Time,
        stamp: Option<Stamp>,
        transaction: Transaction,
        effects: &mut Out,
    ) {
        let checked = self
            .check_transaction(stamp, &transaction)
            .map(|bytes| (Command::Transact { stamp, transaction: Arc::new(transaction) }, bytes));
        self.ask(now, request, deadline, checked, effects);
    }

    pub(in crate::paxos) fn change_members(
        &mut self,
        now: Time,
        request: RequestId,
        deadline: Time,
        members: &[NodeId],
        effects: &mut Out,
    ) {
        let invalid = |reason| Outcome::Failed(Failure::Invalid { reason });
        let command = match self.proposer.is_changing() {
            true => Err(String::from("another change of the members is on its way")),
            false => self.change_to(members),
        };
        let checked = command.map(|command| (command, 0)).map_err(invalid);
        self.ask(now, request, deadline, checked, effects);
    }

    fn check_transaction(
        &mut self,
        stamp: Option<Stamp>,
        transaction: &Transaction,
    ) -> Result<usize, Outcome> {
        let invalid = |reason| Outcome::Failed(Failure::Invalid { reason });
        let bytes = self.options.limits.check(transaction).map_err(invalid)?;
        let Some(stamp) = stamp else { return Ok(bytes) };
        if stamp.sequence == 0 || stamp.answered_below > stamp.sequence {
            return Err(invalid(format!(
                "write {} of a session that has every answer below {}",
                stamp.sequence, stamp.answered_below
            )));
        }
        // What is settled stays settled, so any replica may say so. The rest is judged in its turn:
        // this table may be old.
        match self.learner.sessions.standing(stamp, 0) {
            Standing::Settled(how) => {
                self.counters.retries_answered += 1;
                Err(settled_outcome(how, transaction))
            }
            Standing::New | Standing::Stale | Standing::Expired | Standing::TooManyOutstanding => {
                Ok(bytes)
            }
        }
    }

    fn ask(
        &mut self,
        now: Time,
        request: RequestId,
        deadline: Time,
        checked: Result<(Command, usize), Outcome>,
        effects: &mut Out,
    ) {
        let (command, bytes) = match checked {
            Ok(checked) => checked,
            Err(outcome) => return effects.push_unheld(Effect::Reply { request, outcome }),
        };
        if !self.leads()
            && let Some(to) = self.proposer.leader()
        {
            self.counters.redirected += 1;
            return reply_failed(request, Failure::Redirect { to }, effects);
        }
        if let Err(failure) = self.admit(now, deadline, bytes) {
            return reply_failed(request, failure, effects);
        }
        let alarm = deadline.min(now.after(self.options.request_timeout));
        self.alarms.set(alarm, Alarm::Request(request));
        self.proposer.requests.insert(request, Asked { alarm, is_proposed: false });
        self.enqueue(Some(request), command, bytes);
        self.propose_what_waits(now, effects);
    }

    fn admit(&mut self, now: Time, deadline: Time, bytes: usize) -> Result<(), Failure> {
        if !self.has_room {
            self.counters.disk_full += 1;
            return Err(Failure::DiskFull { node: self.options.id });
        }
        let queued = self.proposer.queue_bytes.saturating_add(bytes);
        if self.proposer.requests.len() >= self.options.requests_max
            || queued > self.options.queue_bytes_max
        {
            self.counters.overloaded += 1;
            return Err(Failure::Overloaded);
        }
        if deadline <= now {
            let reason = String::from("the deadline had passed when the request arrived");
            return Err(Failure::Unavailable { reason });
        }
        self.check_reach()
    }

    /// Without a leader, and without links to enough replicas to elect one, waiting is in vain.
    pub(in crate::paxos) fn check_reach(&mut self) -> Result<(), Failure> {
        let next = self.learner.applied.next();
        let reaches =
            |member: Member| member.node == self.options.id || self.peers_up.contains(&member.node);
        if self.proposer.leader().is_some() || self.learner.membership.is_quorum(next, reaches) {
            return Ok(());
        }
        self.counters.unavailable += 1;
        Err(Failure::Unavailable { reason: self.why_unavailable() })
    }

    pub(in crate::paxos) fn enqueue(
        &mut self,
        request: Option<RequestId>,
        command: Command,
        bytes: usize,
    ) {
        self.proposer.queue_bytes += bytes;
        self.proposer.queue.push_back(Queued { request, command, bytes });
    }

    /// The commands of the next slot, if any wait.
    pub(super) fn take_batch(&mut self, ballot: Ballot, slot: Slot) -> Option<Arc<Batch>> {
        let mut commands = Vec::new();
        let mut requests = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.proposer.queue.front() {
            let is_full = commands.len() >= self.options.batch_commands_max
                || bytes + next.bytes > self.options.batch_bytes_max;
            if !commands.is_empty() && is_full {
                break;
            }
            let Some(next) = self.proposer.queue.pop_front() else { break };
            self.proposer.queue_bytes -= next.bytes;
            if let Some(request) = next.request {
                // One that was given up meanwhile must not happen: its client was told so.
                let Some(asked) = self.proposer.requests.get_mut(&request) else { continue };
                asked.is_proposed = true;
            }
            bytes += next.bytes;
            commands.push(next.command);
            requests.push(next.request);
        }
        if commands.is_empty() {
            return None;
        }
        self.counters.commands_proposed += commands.len() as u64;
        self.proposer.by_slot.insert(slot, (ballot, requests));
        Some(Arc::new(Batch { origin: ballot, commands }))
    }

    /// There is a leader again, and it is another node.
    pub(super) fn redirect_queue(&mut self, effects: &mut Out) {
        let Some(to) = self.proposer.leader() else { return };
        self.proposer.queue_bytes = 0;
        for queued in core::mem::take(&mut self.proposer.queue) {
            let Some(request) = queued.request else { continue };
            if self.forget_request(request) {
                self.counters.redirected += 1;
                reply_failed(request, Failure::Redirect { to }, effects);
            }
        }
    }

    /// Whether it still waited.
    fn forget_request(&mut self, request: RequestId) -> bool {
        let Some(asked) = self.proposer.requests.remove(&request) else { return false };
        self.alarms.cancel(asked.alarm, Alarm::Request(request));
        true
    }

    pub(in crate::paxos) fn request_alarm(&mut self, request: RequestId, effects: &mut Out) {
        let Some(asked) = self.proposer.requests.remove(&request) else { return };
        let may_happen = asked.is_proposed && !self.options.planted.has(Bug::DenyProposed);
        let failure = match may_happen {
            true => {
                self.counters.unknown += 1;
                let reason =
                    String::from("it is proposed, and no majority has accepted it in time");
                Failure::Unknown { reason }
            }
            false => {
                self.counters.unavailable += 1;
                self.unqueue(request);
                Failure::Unavailable { reason: self.why_unavailable() }
            }
        };
        reply_failed(request, failure, effects);
    }

    fn unqueue(&mut self, request: RequestId) {
        let queue = &mut self.proposer.queue;
        let place = queue.iter().position(|queued| queued.request == Some(request));
        if let Some(queued) = place.and_then(|place| queue.remove(place)) {
            self.proposer.queue_bytes -= queued.bytes;
        }
    }

    pub(in crate::paxos) fn why_unavailable(&self) -> String {
        let all = self.learner.membership.nodes();
        let me = self.options.id;
        if self.leads() {
            return format!("{me} leads, and what is proposed before it is not accepted");
        }
        let is_up = |node: &&NodeId| **node == me || self.peers_up.contains(*node);
        let up = all.iter().filter(is_up).count();
        let missing: Vec<String> =
            all.iter().filter(|node| !is_up(node)).map(NodeId::to_string).collect();
        let without = match &missing[..] {
            [] => String::new(),
            [one] => format!(", not {one}"),
            [first @ .., last] => format!(", not {} and {last}", first.join(", ")),
        };
        format!(
            "no leader that a majority follows: {me} reaches {up} of {} replicas{without}",
            all.len()
        )
    }

    /// The outcome of a slot is known: of the batch proposed there, or of another's.
    pub(in crate::paxos) fn answer_slot(
        &mut self,
        slot: Slot,
        batch: &Batch,
        verdicts: &[Verdict],
        effects: &mut Out,
    ) {
        let Some((mut origin, requests)) = self.proposer.by_slot.remove(&slot) else { return };
        if self.options.planted.has(Bug::AnswerForAnother) {
            origin = batch.origin;
        }
        for (index, request) in requests.into_iter().enumerate() {
            let Some(request) = request.filter(|request| self.forget_request(*request)) else {
                continue;
            };
            let outcome = match (verdicts.get(index), batch.commands.get(index)) {
                (Some(verdict), Some(command)) if origin == batch.origin => {
                    self.outcome(verdict, command)
                }
                // Another batch was chosen in its slot, and it was proposed in no other.
                _ => {
                    self.counters.superseded += 1;
                    let reason = String::from("the leader changed before it was chosen");
                    Outcome::Failed(Failure::Unavailable { reason })
                }
            };
            effects.push_unheld(Effect::Reply { request, outcome });
        }
    }

    /// Slots up to here were learnt as a snapshot, which does not tell what each came to.
    pub(in crate::paxos) fn slots_are_unknown(&mut self, up_to: Slot, effects: &mut Out) {
        while let Some(entry) = self.proposer.by_slot.first_entry()
            && *entry.key() <= up_to
        {
            let (_, requests) = entry.remove();
            for request in requests.into_iter().flatten() {
                if self.forget_request(request) {
                    let reason = String::from("this replica fell behind before it was chosen");
                    reply_failed(request, Failure::Unknown { reason }, effects);
                }
            }
        }
    }

    fn outcome(&self, verdict: &Verdict, command: &Command) -> Outcome {
        match (verdict, command) {
            (Verdict::Session(client), _) => Outcome::Session(*client),
            (Verdict::Done, _) => Outcome::Committed,
            (Verdict::Settled(how), Command::Transact { transaction, .. }) => {
                settled_outcome(*how, transaction)
            }
            (Verdict::Stale, _) => Outcome::Failed(Failure::StaleSequence),
            (Verdict::Expired, _) => Outcome::Failed(Failure::SessionExpired),
            (Verdict::TooManyOutstanding, _) => {
                let reason = format!(
                    "more than {} writes of one session without a word that they were answered",
                    self.options.outstanding_per_session_max
                );
                Outcome::Failed(Failure::Invalid { reason })
            }
            (Verdict::Settled(_) | Verdict::NoChange, _) => {
                let reason = String::from("another change of the members came first");
                Outcome::Failed(Failure::Invalid { reason })
            }
        }
    }
}

fn settled_outcome(how: Settled, transaction: &Transaction) -> Outcome {
    match how {
        Settled::Committed => Outcome::Committed,
        Settled::Refused { precondition } => {
            let index = usize::try_from(precondition).unwrap_or(usize::MAX);
            match transaction.preconditions.get(index) {
                Some(failed) => Outcome::Failed(Failure::PreconditionFailed {
                    index: precondition,
                    key: failed.key().clone(),
                }),
                // The client has put another write under the number of one that is settled.
                None => Outcome::Failed(Failure::StaleSequence),
            }
        }
    }
}
