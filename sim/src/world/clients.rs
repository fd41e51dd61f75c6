//! Clients, and their connections to the nodes.

use std::time::Duration;

use kvorum_checker::{self as checker, Ending, Record};
use kvorum_replication::{
    Answer, Failure, Happened, NodeId, Operation, Outcome, Request, RequestId,
};

use super::{Event, World};
use crate::chance::Chance;
use crate::client::Task;
use crate::faults::Fault;
use crate::machine::{Asked, Asker};
use crate::process::{Happening, Protocol};
use crate::queue::{MICROSECOND, MILLISECOND};
use crate::violation::Promise;
use crate::words;
use crate::work::money_is_wrong;

/// Attempts at one operation before a client gives it up.
const ATTEMPTS_MAX: u64 = 8;

/// The same once everything is healed: it must get through.
const ATTEMPTS_AFTER_MAX: u64 = 400;

/// How long a client waits before it tries again, at most; so much more each time. One that gives
/// up soon leaves many writes of unknown outcome, which are hard to judge and show little.
const RETRY_MAX: u64 = 20 * MILLISECOND;

impl<P: Protocol> World<P> {
    pub(super) fn wake_client(&mut self, client: usize, wait: u64) {
        let wake = self.clients[client].wake + 1;
        self.clients[client].wake = wake;
        self.queue.after(wait, Event::Client { client, wake });
    }

    /// The client's wait is over: for the time to begin something, or for an answer.
    pub(super) fn client_acts(&mut self, client: usize, wake: u64) {
        let now = self.queue.now();
        let knobs = self.plan.clients;
        let this = &mut self.clients[client];
        let is_idle = this.task.is_none() && this.has_done(knobs.operations);
        if this.wake != wake || this.is_done() || is_idle {
            return;
        }
        match &mut this.task {
            None => {
                let task = this.next_task(now, &knobs);
                this.task = Some(task);
            }
            Some(task) if task.attempt != 0 => {
                // Nobody has answered in time.
                task.uncertain |= task.is_write();
                this.favourites.forget();
            }
            Some(_) => {}
        }
        self.attempt(client);
    }

    /// Asks once more, or gives up.
    fn attempt(&mut self, client: usize) {
        let this = &mut self.clients[client];
        let finishing = this.is_finishing();
        let Some(task) = &mut this.task else { return };
        let most = if finishing { ATTEMPTS_AFTER_MAX } else { ATTEMPTS_MAX };
        let may_repeat = task.is_stamped() || !task.uncertain;
        if task.attempts >= most || !may_repeat {
            let ending = if task.uncertain { Ending::Unknown } else { Ending::NotDone };
            self.finish(client, ending);
            return;
        }
        task.attempts += 1;
        self.attempts += 1;
        task.attempt = self.attempts;
        let asker = Asker { client, attempt: self.attempts };
        let operation = task.operation.clone();
        let stamped = task.is_stamped();
        let node = self.choose_node(client, &operation);
        let timeout = self.plan.clients.attempt_timeout;
        let task = self.clients[client].task.as_ref();
        let number = task.map_or(0, |task| task.attempts);
        let asked = task.and_then(|task| task.recorded.as_ref());
        let is_stale = task.is_some_and(Task::is_stale_read);
        self.trace.line(self.queue.now(), format!("c{client}"), || match asked {
            Some(asked) => format!("asks {node}, attempt {number}: {asked}"),
            None if is_stale => format!("asks {node}, attempt {number}: a read that may be old"),
            None => format!("asks {node}, attempt {number}: open a session"),
        });
        self.ask_over_wire(node, asker, operation, timeout, stamped);
        // The node gets a little less than the client waits, so that its answer can arrive.
        self.wake_client(client, timeout + 5 * MILLISECOND);
    }

    fn choose_node(&mut self, client: usize, operation: &Operation) -> NodeId {
        let nodes: Vec<NodeId> = self.machines.keys().copied().collect();
        let this = &mut self.clients[client];
        let now = self.queue.now();
        let deposed = self.deposed.filter(|(_, until)| *until > now).map(|(node, _)| node);
        let former = deposed.or(this.favourites.former);
        let favourite = self.protocol.writer().or(this.favourites.favourite);
        let chance = &mut this.chance;
        let elsewhere = match operation {
            Operation::Read(_) | Operation::ReadStale(_) => chance.one_in(2),
            _ if self.protocol.anyone_writes() => chance.one_in(3),
            // To be told where to go.
            Operation::OpenSession
            | Operation::Transact { .. }
            | Operation::ChangeMembers { .. }
            | Operation::ChangeReplicas(_) => chance.one_in(20),
        };
        match (favourite, former) {
            (Some(node), _) if !elsewhere => node,
            (Some(_), Some(former)) if chance.one_in(2) => former,
            (Some(_), _) => *chance.pick(&nodes),
            (None, _) => {
                let node = *chance.pick(&nodes);
                this.favourites.favourite = Some(node);
                node
            }
        }
    }

    fn ask_over_wire(
        &mut self,
        node: NodeId,
        asker: Asker,
        operation: Operation,
        timeout: u64,
        stamped: bool,
    ) {
        let knobs = self.plan.clients;
        // One draw for each attempt, whatever becomes of it: others are not shifted.
        let mut wire = Chance::new(self.clients[asker.client].wire.number(), "request");
        let mut copies = 1;
        if wire.per_million(knobs.loss) {
            self.counts.count(Fault::RequestLost);
            copies = 0;
        } else if stamped && wire.per_million(knobs.repeat) {
            // The copy may arrive after the answer to the other: as an attempt that nobody heard
            // of would.
            self.counts.count(Fault::RequestRepeated);
            copies = 2;
            if let Some(task) = &mut self.clients[asker.client].task {
                task.uncertain = true;
            }
        }
        for copy in 0..copies {
            let late = if copy == 0 { 0 } else { wire.below(2_000 * MILLISECOND) };
            let wait = wire.between(30 * MICROSECOND, 300 * MICROSECOND) + late;
            // The node fills in what is its own.
            let request = Request {
                id: RequestId(0),
                deadline: kvorum_replication::Time::NEVER,
                operation: operation.clone(),
            };
            let request = Box::new(request);
            self.queue.after(wait, Event::Ask { node, asker, request, timeout });
        }
    }

    /// A request arrives at a node, or at a machine where nobody listens.
    pub(super) fn ask(&mut self, node: NodeId, asker: Asker, mut request: Request, timeout: u64) {
        let now = self.time(node);
        let acknowledged = self.protocol.acknowledged();
        let machine = self.machine(node);
        if machine.process.is_none() {
            self.queue.after(MILLISECOND, Event::Gone { asker });
            return;
        }
        machine.next_request += 1;
        request.id = RequestId(machine.next_request);
        request.deadline = now.after(Duration::from_nanos(timeout));
        let operation = request.operation.clone();
        machine.asked.insert(request.id, Asked { asker, operation, acknowledged });
        self.tell(node, Happening::Request(request));
    }

    pub(super) fn send_answer(&mut self, node: NodeId, asker: Asker, outcome: Outcome) {
        let mut wire = Chance::new(self.clients[asker.client].wire.number(), "answer");
        if wire.per_million(self.plan.clients.loss) {
            self.counts.count(Fault::RequestLost);
            self.say(node, || format!("to c{} (lost): {}", asker.client, words::outcome(&outcome)));
            return;
        }
        self.say(node, || format!("to c{}: {}", asker.client, words::outcome(&outcome)));
        let wait = wire.between(30 * MICROSECOND, 300 * MICROSECOND);
        self.queue.after(wait, Event::Answer { asker, outcome: Box::new(outcome) });
    }

    /// Whom the client asked is gone; what became of the request nobody knows.
    pub(super) fn gone(&mut self, asker: Asker) {
        let this = &mut self.clients[asker.client];
        let Some(task) = this.task.as_mut().filter(|task| task.attempt == asker.attempt) else {
            return;
        };
        task.uncertain |= task.is_write();
        task.attempt = 0;
        this.favourites.forget();
        let wait = this.chance.below(RETRY_MAX * task.attempts.clamp(1, ATTEMPTS_MAX));
        self.wake_client(asker.client, wait);
    }

    pub(super) fn answer(&mut self, asker: Asker, outcome: Outcome) {
        let this = &mut self.clients[asker.client];
        let Some(task) = this.task.as_mut().filter(|task| task.attempt == asker.attempt) else {
            return;
        };
        match outcome {
            Outcome::Session(id) => {
                this.session = Some(id);
                this.task = None;
                self.wake_client(asker.client, 0);
            }
            Outcome::Committed => self.finish(asker.client, Ending::Done),
            Outcome::Answer(Answer::Failed(_)) => self.finish(asker.client, Ending::NotDone),
            Outcome::Answer(_) if task.is_stale_read() => self.finish(asker.client, Ending::Done),
            Outcome::Answer(answer) => match task.recorded.as_mut().map(|r| fill(r, answer)) {
                Some(Ok(())) => self.finish(asker.client, Ending::Done),
                Some(Err(what)) => self.fail(Promise::TellsTruth, what),
                None => {
                    let what = format!("{:?} was answered as a read", task.operation);
                    self.fail(Promise::TellsTruth, what);
                }
            },
            Outcome::Failed(failure) => self.failed(asker.client, failure),
        }
    }

    fn failed(&mut self, client: usize, failure: Failure) {
        let this = &mut self.clients[client];
        let Some(task) = &mut this.task else { return };
        if failure == Failure::SessionExpired && self.protocol.may_expire_sessions() {
            this.forget_session();
            self.finish(client, Ending::Unknown);
            return;
        }
        // These can only be lies: clients ask for nothing invalid, one thing at a time, in order.
        if matches!(
            failure,
            Failure::Invalid { .. } | Failure::SessionExpired | Failure::StaleSequence
        ) {
            let what = format!("client {client} was told {failure:?} of {:?}", task.operation);
            self.fail(Promise::TellsTruth, what);
            return;
        }
        match failure {
            Failure::Redirect { to } if self.machines.contains_key(&to) => {
                this.favourites.prefer(to)
            }
            Failure::Redirect { .. }
            | Failure::Unavailable { .. }
            | Failure::Unknown { .. }
            | Failure::DiskFull { .. } => this.favourites.forget(),
            _ => {}
        }
        let retry = match failure {
            Failure::Redirect { .. } => true,
            _ if task.opens_session() => true,
            _ if failure.happened() == Happened::Unknown => {
                task.uncertain |= task.is_write();
                true
            }
            _ => task.uncertain,
        };
        // Asked again for ever it would be refused for ever.
        let refused = matches!(failure, Failure::PreconditionFailed { .. });
        if retry && refused && task.attempts >= ATTEMPTS_MAX {
            if let Failure::PreconditionFailed { key, .. } = failure {
                this.surprise = Some(String::from_utf8_lossy(&key).into_owned());
            }
            self.finish(client, Ending::Unknown);
            return;
        }
        if retry {
            task.attempt = 0;
            let wait = this.chance.below(RETRY_MAX * task.attempts.clamp(1, ATTEMPTS_MAX));
            self.wake_client(client, wait);
            return;
        }
        let ending = match failure {
            Failure::PreconditionFailed { index, key } => {
                this.surprise = Some(String::from_utf8_lossy(&key).into_owned());
                Ending::PreconditionFailed(usize::try_from(index).unwrap_or(usize::MAX))
            }
            _ => Ending::NotDone,
        };
        self.finish(client, ending);
    }

    fn finish(&mut self, client: usize, ending: Ending) {
        let now = self.queue.now();
        let think = self.plan.clients.think_max;
        let this = &mut self.clients[client];
        let Some(task) = this.task.take() else { return };
        if ending == Ending::Done && task.is_write() {
            this.wrote();
        }
        let wait = this.chance.below(think);
        if let Some(operation) = task.recorded {
            let record = Record { client: this.id, call: task.called, ret: now, ending, operation };
            remember(this, &record);
            let wrong = (ending == Ending::Done)
                .then(|| money_is_wrong(&self.plan.clients, &record))
                .flatten();
            self.trace.line(now, format!("c{client}"), || record.to_string());
            self.history.push(record);
            if let Some(what) = wrong {
                self.fail(Promise::Conserves, what);
            }
        }
        self.wake_client(client, wait);
    }
}

/// Puts the answer into what the history will say; an error if it answers another question.
fn fill(recorded: &mut checker::Operation, answer: Answer) -> Result<(), String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match (recorded, answer) {
        (checker::Operation::Get { result, .. }, Answer::Value(value)) => {
            *result = value.as_deref().map(text);
        }
        (checker::Operation::GetMany { keys, results }, Answer::Values(values))
            if values.len() == keys.len() =>
        {
            *results = values.iter().map(|value| value.as_deref().map(text)).collect();
        }
        (checker::Operation::Scan { rows, more, .. }, Answer::Rows { rows: found, more: rest }) => {
            *rows = found.iter().map(|(key, value)| (text(key), text(value))).collect();
            *more = rest;
        }
        (recorded, answer) => {
            return Err(format!("{recorded} was answered with {answer:?}"));
        }
    }
    Ok(())
}

/// Keeps what the client learned of keys.
fn remember(client: &mut crate::client::Client, record: &Record) {
    if record.ending != Ending::Done {
        return;
    }
    match &record.operation {
        checker::Operation::Get { key, result } => {
            client.known.insert(key.clone(), result.clone());
        }
        checker::Operation::Put { key, value }
        | checker::Operation::CompareAndSet { key, value, .. } => {
            client.known.insert(key.clone(), Some(value.clone()));
        }
        checker::Operation::Delete { key } => {
            client.known.insert(key.clone(), None);
        }
        checker::Operation::Transact { writes, .. } => {
            client.known.extend(writes.iter().cloned());
        }
        checker::Operation::Scan { rows, .. } => {
            client.known.extend(rows.iter().map(|(k, v)| (k.clone(), Some(v.clone()))));
        }
        checker::Operation::GetMany { keys, results } => {
            client.known.extend(keys.iter().cloned().zip(results.iter().cloned()));
        }
        checker::Operation::MicroOperations(_) => unreachable!("the store knows none"),
    }
}
