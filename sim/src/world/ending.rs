//! How a run comes to rest, and what is looked at then.

use kvorum_checker::{
    Ending, Isolation, Limits, Operation, Record, Verdict, acyclic, atomic, converged, serializable,
};
use kvorum_replication::{NodeId, Row};

use super::{Event, World};
use crate::plan::{NetworkKnobs, Work};
use crate::process::Protocol;
use crate::queue::{Instant, MILLISECOND, SECOND};
use crate::violation::Promise;
use crate::work::{as_lists, money_is_wrong};

/// How often it is looked whether a run has come to rest.
const LOOK: u64 = 20 * MILLISECOND;

/// How long it may take after everything healed: many times what the slowest timeouts add up to.
const REST_MAX: u64 = 60 * SECOND;

/// Writes that each client must get done after everything healed.
const WRITES_AFTER: u64 = 2;

/// Configurations for judging one run, which holds few operations.
const LIMITS: Limits = Limits { configurations_max: 300_000 };

/// Clients from here on are the judge's own looks at the replicas.
const JUDGE: u64 = 1_000;

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Faults strike.
    Faults,
    /// Everything is healed; clients finish.
    Healed { until: Instant },
    /// The power has failed everywhere, once more; no client asks.
    Restarted { until: Instant },
    /// All was looked at.
    Over,
}

impl<P: Protocol> World<P> {
    pub(super) fn look(&mut self) {
        let now = self.queue.now();
        match self.phase {
            Phase::Faults => {
                self.heal();
                self.phase = Phase::Healed { until: now + REST_MAX };
            }
            Phase::Healed { until } => match self.unrest() {
                None => {
                    self.say("plan", || "at rest; the power fails everywhere".to_owned());
                    self.phase = Phase::Restarted { until: now + REST_MAX };
                    for (name, count) in self.protocol.counted() {
                        self.activity.insert(name.to_owned(), count);
                    }
                    self.cut_power_everywhere();
                }
                Some(what) if now > until => {
                    self.fail(Promise::ComesToRest, format!("no rest after healing: {what}"));
                }
                Some(_) => {}
            },
            Phase::Restarted { until } => match self.unrest() {
                None => {
                    self.phase = Phase::Over;
                    self.judge();
                }
                Some(what) if now > until => {
                    let what = format!("no rest after the last restart: {what}");
                    self.fail(Promise::ComesToRest, what);
                }
                Some(_) => {}
            },
            Phase::Over => return,
        }
        self.queue.after(LOOK, Event::Look);
    }

    fn heal(&mut self) {
        self.say("plan", || "everything heals".to_owned());
        self.protocol.heal();
        self.network.mend_all();
        self.network.set_knobs(NetworkKnobs::calm());
        self.plan.clients.loss = 0;
        self.plan.clients.repeat = 0;
        for node in self.machines.keys().copied().collect::<Vec<_>>() {
            self.repair(node);
        }
        for machine in self.machines.values_mut() {
            machine.struck |= machine.disk.settle(&mut self.counts);
            machine.disk.heal(&mut self.counts);
            machine.trap = None;
            machine.words_left = None;
            machine.doomed_work = None;
            machine.doomed_start = None;
            machine.slow_until = 0;
        }
        for client in 0..self.clients.len() {
            self.clients[client].finish_after(WRITES_AFTER);
            if self.clients[client].task.is_none() {
                // It may have had nothing to do any more.
                self.wake_client(client, 0);
            }
        }
    }

    /// What is not at rest, if anything is not.
    fn unrest(&self) -> Option<String> {
        if let Some(client) = self.clients.iter().find(|client| !client.is_done()) {
            return Some(client.to_string());
        }
        for (node, machine) in &self.machines {
            let Some(process) = &machine.process else { return Some(format!("{node} is down")) };
            if let Some(asked) = machine.asked.values().next() {
                let (client, operation) = (asked.asker.client, &asked.operation);
                return Some(format!("{node} has not answered client {client}: {operation:?}"));
            }
            let status = process.report(self.time(*node)).status;
            if (status.in_flight, status.in_doubt, status.locks) != (0, 0, 0) {
                return Some(format!(
                    "{node} has {} in flight, {} in doubt, {} locks",
                    status.in_flight, status.in_doubt, status.locks
                ));
            }
        }
        let down = self.network.pairs().into_iter().find(|pair| !self.network.is_up(*pair));
        if let Some(down) = down {
            return Some(format!("{} and {} are not linked", down.0, down.1));
        }
        let nodes = self.machines.iter();
        let facts: Vec<(NodeId, P::Facts)> = nodes
            .filter_map(|(node, machine)| Some((*node, machine.process.as_ref()?.facts())))
            .collect();
        self.protocol.unrest(&facts)
    }

    /// Compares the copies, and asks whether one history explains what clients and copies say.
    fn judge(&mut self) {
        let now = self.queue.now();
        for node in self.machines.keys().copied().collect::<Vec<_>>() {
            self.harvest(node);
            self.verify(node);
        }
        let mut copies = Vec::new();
        for (node, machine) in &self.machines {
            let Some(process) = &machine.process else { continue };
            if process.store().is_none() || !self.protocol.is_replica(*node) {
                continue;
            }
            match process.rows() {
                Ok(rows) => copies.push((node.to_string(), rows, *node)),
                Err(error) => {
                    let what = format!("{node} cannot be read: {error}");
                    self.fail(Promise::NamesDamage, what);
                    return;
                }
            }
        }
        for (_, rows, node) in &copies {
            let record = seen(*node, rows, now);
            self.say(node, || format!("holds {}", record.operation));
            if let Some(what) = money_is_wrong(&self.plan.clients, &record) {
                self.fail(Promise::Conserves, what);
            }
            self.history.push(record);
        }
        let copies: Vec<(String, Vec<Row>)> =
            copies.into_iter().map(|(name, rows, _)| (name, rows)).collect();
        let isolation = Isolation::StrictSerializable;
        let dependencies = match self.plan.clients.work {
            Work::Mixed | Work::Bank => acyclic(&self.history, isolation),
            Work::Lists => acyclic(&as_lists(&self.history), isolation),
        };
        let verdicts = [
            (Promise::Converges, converged(&copies)),
            (Promise::Atomic, atomic(&self.history)),
            (Promise::Serializable, dependencies),
            (Promise::Serializable, serializable(&self.history, LIMITS)),
        ];
        for (promise, verdict) in verdicts {
            if !matches!(verdict, Verdict::Holds) {
                self.fail(promise, verdict.to_string());
            }
        }
    }
}

impl<P: Protocol> World<P> {
    /// Looks at every byte that a store has on its disk.
    fn verify(&mut self, node: NodeId) {
        let store = self.machines[&node].process.as_ref().and_then(|process| process.store());
        let Some(store) = store else { return };
        let problem = match store.verify() {
            Ok(report) => report.problems.into_iter().next(),
            Err(error) => Some(error),
        };
        if let Some(problem) = problem {
            let what = format!("the store of {node} is damaged: {problem}");
            self.fail(Promise::NamesDamage, what);
        }
    }
}

/// What a replica holds at the end, as a scan of all of it.
fn seen(node: NodeId, rows: &[Row], now: Instant) -> Record {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let rows = rows.iter().map(|(key, value)| (text(key), text(value))).collect();
    Record {
        client: JUDGE + u64::from(node.0),
        call: now,
        ret: now,
        ending: Ending::Done,
        operation: Operation::Scan { start: String::new(), end: None, rows, more: false },
    }
}
