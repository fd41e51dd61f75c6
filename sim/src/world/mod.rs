//! The world of a run: machines, network and clients, one event after another.
//!
//! A run has two halves. In the first, the plan's faults strike. Then everything heals, and must
//! come to rest: every client gets some more work done, no transaction stays open, no lock stays
//! held. Then the power fails everywhere at once, and what comes back is judged: every copy is the
//! same, and one history of what clients saw explains all of it.

mod audits;
mod clients;
mod ending;
mod links;
mod machines;
mod offices;
mod rot;
mod strikes;

use std::collections::BTreeMap;

use kvorum_checker::History;
use kvorum_replication::{NodeId, Outcome, Request, Time};

use crate::chance::Chance;
use crate::client::Client;
use crate::faults::Counts;
use crate::machine::{Asker, Machine};
use crate::network::{Network, Pair, Passage};
use crate::plan::{Plan, Strike};
use crate::process::Protocol;
use crate::queue::{Instant, MILLISECOND, Queue};
use crate::trace::Trace;
use crate::violation::{Promise, Violation};
use crate::{Activity, Planned, Setup};

use ending::Phase;

/// Events of one run, at most: a run that needs more does not come to rest.
const EVENTS_MAX: u64 = 6_000_000;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event<M> {
    /// A message arrives.
    Deliver { from: NodeId, to: NodeId, passage: Passage, message: M },
    /// Two nodes try to make a link.
    Connect(Pair),
    /// A link breaks, if it still is this one.
    Break { pair: Pair, link: u64 },
    /// One end notices that the link stands, or broke.
    Link { node: NodeId, run: u64, peer: NodeId, up: bool },
    /// A process' timer may be due.
    Timer { node: NodeId, run: u64 },
    /// A process may have something to sync.
    SyncBegins { node: NodeId, run: u64 },
    /// A sync up to this position is done.
    SyncEnds { node: NodeId, run: u64, target: u64 },
    /// Time to flush or compact.
    Maintain { node: NodeId, run: u64 },
    /// A client's request arrives.
    Ask { node: NodeId, asker: Asker, request: Box<Request>, timeout: u64 },
    /// A client gets an answer.
    Answer { asker: Asker, outcome: Box<Outcome> },
    /// A client learns that the one it asked is gone.
    Gone { asker: Asker },
    /// A client has something to do.
    Client { client: usize, wake: u64 },
    /// A fault of the plan.
    Strike(Strike),
    /// Nothing keeps messages on this way any more.
    Mend { from: NodeId, to: NodeId },
    /// A fault of the plan is over.
    Relief(Strike),
    /// A process starts.
    Start { node: NodeId, run: u64 },
    /// A look whether the phase is over.
    Look,
}

impl<M> Event<M> {
    /// The node whose process the event is for, if it is for one.
    fn node(&self) -> Option<NodeId> {
        match self {
            Self::Deliver { to: node, .. }
            | Self::Link { node, .. }
            | Self::Timer { node, .. }
            | Self::SyncBegins { node, .. }
            | Self::SyncEnds { node, .. }
            | Self::Maintain { node, .. }
            | Self::Ask { node, .. }
            | Self::Start { node, .. } => Some(*node),
            Self::Connect(_)
            | Self::Break { .. }
            | Self::Answer { .. }
            | Self::Gone { .. }
            | Self::Client { .. }
            | Self::Strike(_)
            | Self::Mend { .. }
            | Self::Relief(_)
            | Self::Look => None,
        }
    }
}

pub(crate) struct World<P: Protocol> {
    pub(crate) seed: u64,
    pub(crate) protocol: P,
    pub(crate) queue: Queue<Event<P::Message>>,
    pub(crate) trace: Trace,
    pub(crate) counts: Counts,
    pub(crate) activity: Activity,
    pub(crate) plan: Plan,
    pub(crate) network: Network,
    pub(crate) machines: BTreeMap<NodeId, Machine<P>>,
    pub(crate) clients: Vec<Client>,
    pub(crate) attempts: u64,
    pub(crate) history: History,
    pub(crate) phase: Phase,
    /// Draws for what strikes all machines.
    pub(crate) chance: Chance,
    /// What went wrong, if anything did: the run stops there.
    pub(crate) broken: Option<Violation>,
    pub(crate) starts: u64,
    /// A node that led and is cut off, until when: clients may still reach it.
    pub(crate) deposed: Option<(NodeId, Instant)>,
}

impl<P: Protocol> World<P> {
    pub(crate) fn new(protocol: P, setup: &Setup) -> Self {
        let seed = setup.seed;
        let members = protocol.members();
        let nodes: Vec<NodeId> = members.iter().map(|(node, _)| *node).collect();
        let plan = Plan::new(seed, &nodes, &protocol).reduced(&setup.reduction);
        let mut chance = Chance::new(seed, "machines");
        let machines = members
            .into_iter()
            .map(|(node, points)| {
                let speed = match chance.below(4) {
                    0 | 1 => 1_000,
                    2 => chance.between(900, 1_100),
                    _ => chance.between(500, 2_000),
                };
                let speed = match protocol.drift_permille() {
                    _ if plan.clocks_alike => 1_000,
                    None => speed,
                    // Any two of them together stay within it.
                    Some(drift) => chance.between(1_000 - drift * 9 / 20, 1_000 + drift * 9 / 20),
                };
                let own = Chance::new(seed.wrapping_add(u64::from(node.0) << 32), "machine");
                (node, Machine::new(points, speed, own))
            })
            .collect();
        let clients = (0..plan.clients.clients).map(|id| Client::new(id, seed)).collect();
        Self {
            seed,
            network: Network::new(&nodes, plan.network, seed),
            protocol,
            queue: Queue::new(),
            trace: Trace::new(setup.traced),
            counts: Counts::default(),
            activity: Activity::new(),
            plan,
            machines,
            clients,
            attempts: 0,
            history: History::new(),
            phase: Phase::Faults,
            chance,
            broken: None,
            starts: 0,
            deposed: None,
        }
    }

    /// Lets everything happen until the run is over or something is wrong.
    pub(crate) fn run(&mut self) {
        self.begin();
        for _ in 0..EVENTS_MAX {
            if self.broken.is_some() || self.phase == Phase::Over {
                return;
            }
            let Some(event) = self.queue.next() else {
                let what = "nothing is going to happen any more".to_owned();
                self.fail(Promise::ComesToRest, what);
                return;
            };
            let node = event.node();
            self.handle(event);
            if let Some(node) = node {
                self.audit(node);
            }
        }
        self.fail(Promise::ComesToRest, format!("no rest after {EVENTS_MAX} events"));
    }

    fn begin(&mut self) {
        self.introduce();
        let nodes: Vec<NodeId> = self.machines.keys().copied().collect();
        for node in nodes {
            self.start(node);
        }
        for pair in self.network.pairs() {
            self.queue.after(0, Event::Connect(pair));
        }
        for client in 0..self.clients.len() {
            self.wake_client(client, 0);
        }
        for strike in self.plan.strikes.clone() {
            self.queue.at(strike.at, Event::Strike(strike));
        }
        self.queue.at(self.plan.safety_ends, Event::Look);
    }

    /// For whoever reads the trace without having seen one.
    fn introduce(&mut self) {
        let (clients, faults) = (self.clients.len(), self.plan.strikes.len());
        let heals = self.plan.safety_ends / MILLISECOND;
        let who = match self.protocol.writer() {
            Some(writer) => format!("{writer} takes the writes"),
            None => "any node may be asked".to_owned(),
        };
        self.say("plan", || {
            format!(
                "{clients} clients c0, c1, ..; {who}; {faults} planned faults; everything heals at \
                 {heals} ms"
            )
        });
        for strike in self.plan.strikes.clone() {
            let Strike { index, at, fault, node, at_leader, other, lasts, .. } = strike;
            let whom = if at_leader { "who leads".to_owned() } else { node.to_string() };
            self.say("plan", || {
                format!(
                    "fault {index} at {} ms: {} on {whom} (with {other}), {} ms",
                    at / MILLISECOND,
                    fault.name(),
                    lasts / MILLISECOND
                )
            });
        }
    }

    fn handle(&mut self, event: Event<P::Message>) {
        if let Some(until) = self.pausing(&event) {
            // A process that goes on may see first what came meanwhile, and then its timer.
            let late = match &event {
                Event::Timer { node, .. } => self.machine(*node).chance.below(MILLISECOND),
                _ => 0,
            };
            self.queue.at(until + late, event);
            return;
        }
        if let Some(node) = event.node() {
            let time = self.time(node);
            self.protocol.at(node, time);
        }
        match event {
            Event::Deliver { from, to, passage, message } => {
                self.deliver(from, to, passage, message);
            }
            Event::Connect(pair) => self.connect(pair),
            Event::Break { pair, link } => self.break_link(pair, link),
            Event::Link { node, run, peer, up } => self.notice_link(node, run, peer, up),
            Event::Timer { node, run } => self.fire_timer(node, run),
            Event::SyncBegins { node, run } => self.begin_sync(node, run),
            Event::SyncEnds { node, run, target } => self.end_sync(node, run, target),
            Event::Maintain { node, run } => self.maintain(node, run),
            Event::Ask { node, asker, request, timeout } => {
                self.ask(node, asker, *request, timeout);
            }
            Event::Answer { asker, outcome } => self.answer(asker, *outcome),
            Event::Gone { asker } => self.gone(asker),
            Event::Client { client, wake } => self.client_acts(client, wake),
            Event::Strike(strike) => self.strike(strike),
            Event::Mend { from, to } => self.network.mend(from, to),
            Event::Relief(strike) => self.relieve(strike),
            Event::Start { node, run } => {
                let machine = self.machine(node);
                if machine.run == run && machine.process.is_none() {
                    self.start(node);
                }
            }
            Event::Look => self.look(),
        }
    }

    /// Until when the process that this event is for stands still, if it does.
    fn pausing(&self, event: &Event<P::Message>) -> Option<Instant> {
        if matches!(event, Event::Start { .. }) {
            return None;
        }
        let node = event.node()?;
        self.machines[&node].paused_until.filter(|until| *until > self.queue.now())
    }

    pub(crate) fn machine(&mut self, node: NodeId) -> &mut Machine<P> {
        self.machines.get_mut(&node).expect("only members are named")
    }

    pub(crate) fn time(&self, node: NodeId) -> Time {
        self.machines[&node].time(self.queue.now())
    }

    pub(crate) fn fail(&mut self, promise: Promise, what: String) {
        if self.protocol.forgives(promise) {
            self.phase = Phase::Over;
            return;
        }
        self.say("!", || what.clone());
        self.broken.get_or_insert(Violation { promise, what });
    }

    /// How large the run was.
    pub(crate) fn planned(&self) -> Planned {
        Planned {
            faults: self.plan.strikes.iter().map(|strike| strike.index).collect(),
            clients: self.plan.clients.clients,
            operations: self.clients.iter().map(|client| client.operations).max().unwrap_or(0),
            heal_at: self.plan.safety_ends / MILLISECOND,
        }
    }

    pub(crate) fn say(&mut self, who: impl std::fmt::Display, words: impl FnOnce() -> String) {
        self.trace.line(self.queue.now(), who, words);
    }
}
