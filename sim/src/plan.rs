//! What a seed makes of a run: how bad network, disks and clients are, and which faults strike when.
//!
//! Not every run has every kind of fault (swarm testing, Groce and others 2012): a seed that leaves
//! some out gets deeper into what the others do.

use kvorum_replication::NodeId;

use crate::chance::Chance;
use crate::faults::Fault;
use crate::process::Protocol;
use crate::queue::{Instant, MICROSECOND, MILLISECOND, SECOND};
use crate::reduction::{Knob, Reduction};

/// How the network behaves; shares are of a million messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetworkKnobs {
    pub(crate) latency_min: u64,
    pub(crate) latency_max: u64,
    pub(crate) loss: u64,
    pub(crate) repeat: u64,
    pub(crate) reorder: u64,
    pub(crate) delay: u64,
}

impl NetworkKnobs {
    /// A network without faults.
    pub(crate) fn calm() -> Self {
        Self {
            latency_min: 50 * MICROSECOND,
            latency_max: 500 * MICROSECOND,
            loss: 0,
            repeat: 0,
            reorder: 0,
            delay: 0,
        }
    }
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Everything there is.
    Mixed,
    /// Move money between accounts: none is made, none is lost.
    Bank,
    /// Append to lists, whose order is then known.
    Lists,
}

/// How clients behave, and how well they are connected.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientKnobs {
    pub(crate) clients: u64,
    pub(crate) keys: u64,
    pub(crate) work: Work,
    pub(crate) think_max: u64,
    pub(crate) attempt_timeout: u64,
    /// Of a million requests and answers.
    pub(crate) loss: u64,
    /// Of a million requests.
    pub(crate) repeat: u64,
    /// Each client's while faults strike, if there is a limit.
    pub(crate) operations: Option<u64>,
    /// Whether they ask for reads that may be old.
    pub(crate) stale: bool,
}

/// How disks behave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskKnobs {
    pub(crate) sync_min: u64,
    pub(crate) sync_max: u64,
    /// Whether what is synced next goes to the system's memory when the sync begins, so that a
    /// crash finds it written and not synced.
    pub(crate) writes_early: bool,
    /// Between two looks whether something is to be flushed or compacted, at most.
    pub(crate) maintenance_max: u64,
}

impl DiskKnobs {
    /// A quick disk.
    fn calm() -> Self {
        Self {
            sync_min: 20 * MICROSECOND,
            sync_max: 50 * MICROSECOND,
            writes_early: false,
            maintenance_max: 60 * MILLISECOND,
        }
    }
}

/// One fault, when its time comes; what the numbers mean depends on the fault.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strike {
    /// Its place in the plan, whatever is left out of it.
    pub(crate) index: u32,
    pub(crate) at: Instant,
    pub(crate) fault: Fault,
    pub(crate) node: NodeId,
    /// Whoever leads when it strikes, instead of `node`.
    pub(crate) at_leader: bool,
    pub(crate) other: NodeId,
    pub(crate) lasts: u64,
    pub(crate) number: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) network: NetworkKnobs,
    pub(crate) clients: ClientKnobs,
    pub(crate) disk: DiskKnobs,
    /// In the order in which they come.
    pub(crate) strikes: Vec<Strike>,
    /// When everything heals.
    pub(crate) safety_ends: Instant,
    /// Whether all clocks run alike.
    pub(crate) clocks_alike: bool,
    /// Whether an end of a broken link may miss that.
    pub(crate) breaks_unnoticed: bool,
}

/// The faults that strike at a time of their own, and how often one beside the others.
const STRIKES: &[(u64, Fault)] = &[
    (3, Fault::Kill),
    (2, Fault::PowerLoss),
    (3, Fault::TornWrites),
    (1, Fault::PowerLossAll),
    (8, Fault::DiedAtPoint),
    (2, Fault::PausedAtPoint),
    (2, Fault::IsolatedAtPoint),
    (5, Fault::DiedWriting),
    (5, Fault::DiedMaintaining),
    (4, Fault::DiedSpeaking),
    (3, Fault::DiedRecovering),
    (2, Fault::Pause),
    (3, Fault::LinkReset),
    (1, Fault::FlappingLink),
    (2, Fault::SlowLink),
    (2, Fault::Partition),
    (2, Fault::OneWayPartition),
    (2, Fault::WriteFailed),
    (2, Fault::WriteShort),
    (2, Fault::SyncFailed),
    (2, Fault::DiskFull),
    (1, Fault::SyncFull),
    (2, Fault::ReadFailed),
    (1, Fault::SlowDisk),
    (3, Fault::SegmentRot),
    (1, Fault::LogRot),
    (1, Fault::ManifestRot),
    (1, Fault::RestartStorm),
    (1, Fault::ClockForward),
    (1, Fault::ClockBack),
];

impl Plan {
    /// The plan of a seed for the nodes of this protocol.
    pub(crate) fn new<P: Protocol>(seed: u64, nodes: &[NodeId], protocol: &P) -> Self {
        let mut chance = Chance::new(seed, "plan");
        // Some runs are long: more files, more epochs, more that piles up.
        let safety_ends = match chance.below(16) {
            0 => chance.between(4 * SECOND, 10 * SECOND),
            _ => chance.between(SECOND, 3 * SECOND),
        };
        let mut plan = Self {
            network: draw_network(&mut chance),
            clients: draw_clients(&mut chance),
            disk: draw_disk(&mut chance),
            strikes: Vec::new(),
            safety_ends,
            clocks_alike: false,
            breaks_unnoticed: true,
        };
        plan.clients.stale = protocol.reads_stale();
        let strikes = STRIKES.iter().chain(protocol.own_strikes());
        let enabled: Vec<(u64, Fault)> = strikes.filter(|_| chance.one_in(2)).copied().collect();
        if enabled.is_empty() {
            return plan;
        }
        // Few, so that what follows from each can unfold; or a storm.
        let strikes = if chance.one_in(8) { 60 } else { chance.between(1, 14) };
        for _ in 0..strikes {
            let at = chance.below(safety_ends);
            let fault = chance.weighted(&enabled);
            plan.strikes.push(draw_strike(&mut chance, at, fault, nodes, protocol.writer()));
        }
        plan.strikes.sort_by_key(|strike| strike.at);
        for (index, strike) in (0..).zip(&mut plan.strikes) {
            strike.index = index;
        }
        plan
    }

    /// The plan without what the reduction leaves out.
    pub(crate) fn reduced(mut self, reduction: &Reduction) -> Self {
        if let Some(only) = &reduction.only_faults {
            self.strikes.retain(|strike| only.0.contains(&strike.index));
        }
        self.clients.clients = self.clients.clients.min(reduction.clients.unwrap_or(u64::MAX));
        self.clients.operations = reduction.operations;
        let heal_at = reduction.heal_at.map(|millis| millis.saturating_mul(MILLISECOND));
        self.safety_ends = self.safety_ends.min(heal_at.unwrap_or(u64::MAX));
        let calm = NetworkKnobs::calm();
        for knob in &reduction.calm.0 {
            match knob {
                Knob::Loss => self.network.loss = 0,
                Knob::Repeat => self.network.repeat = 0,
                Knob::Reorder => self.network.reorder = 0,
                Knob::Delay => self.network.delay = 0,
                Knob::Latency => {
                    self.network.latency_min = calm.latency_min;
                    self.network.latency_max = calm.latency_max;
                }
                Knob::RequestLoss => self.clients.loss = 0,
                Knob::RequestRepeat => self.clients.repeat = 0,
                Knob::Disk => self.disk = DiskKnobs::calm(),
                Knob::Clocks => self.clocks_alike = true,
                Knob::Unnoticed => self.breaks_unnoticed = false,
            }
        }
        self
    }
}

fn draw_network(chance: &mut Chance) -> NetworkKnobs {
    // None, some, or much of each.
    let mut share = |much: u64| match chance.below(4) {
        0 | 1 => 0,
        2 => much / 10,
        _ => much,
    };
    let (loss, repeat, reorder, delay) =
        (share(60_000), share(100_000), share(200_000), share(30_000));
    let latency_min = 30 * MICROSECOND;
    let latency_max = *chance.pick(&[60 * MICROSECOND, 500 * MICROSECOND, 8 * MILLISECOND]);
    NetworkKnobs { latency_min, latency_max, loss, repeat, reorder, delay }
}

fn draw_clients(chance: &mut Chance) -> ClientKnobs {
    ClientKnobs {
        // More of them leave so many unknown outcomes that a history is too hard to judge.
        clients: chance.between(2, 6),
        // Few are fought over; of many each keeps for long what was written to it.
        keys: *chance.pick(&[1, 2, 3, 4, 6, 24]),
        work: chance.weighted(&[(6, Work::Mixed), (1, Work::Bank), (1, Work::Lists)]),
        think_max: *chance.pick(&[MILLISECOND, 10 * MILLISECOND, 60 * MILLISECOND]),
        attempt_timeout: *chance.pick(&[30 * MILLISECOND, 150 * MILLISECOND, 600 * MILLISECOND]),
        loss: *chance.pick(&[0, 0, 5_000, 40_000]),
        repeat: *chance.pick(&[0, 0, 10_000, 80_000]),
        operations: None,
        stale: false,
    }
}

fn draw_disk(chance: &mut Chance) -> DiskKnobs {
    let sync_max = *chance.pick(&[50 * MICROSECOND, 600 * MICROSECOND, 10 * MILLISECOND]);
    DiskKnobs {
        sync_min: 20 * MICROSECOND,
        sync_max,
        writes_early: chance.one_in(2),
        maintenance_max: *chance.pick(&[MILLISECOND, 60 * MILLISECOND]),
    }
}

fn draw_strike(
    chance: &mut Chance,
    at: Instant,
    fault: Fault,
    nodes: &[NodeId],
    writer: Option<NodeId>,
) -> Strike {
    // The one that decides is worth more attention than each of the others.
    let at_leader = chance.one_in(3);
    let node = match writer {
        Some(writer) if at_leader => writer,
        Some(_) | None => *chance.pick(nodes),
    };
    let others: Vec<NodeId> = nodes.iter().copied().filter(|other| *other != node).collect();
    let lasts = match chance.below(4) {
        0 => chance.between(MILLISECOND, 20 * MILLISECOND),
        1 | 2 => chance.between(20 * MILLISECOND, 300 * MILLISECOND),
        _ => chance.between(300 * MILLISECOND, 1500 * MILLISECOND),
    };
    let (other, number) = (*chance.pick(&others), chance.number());
    let at_leader = at_leader && writer.is_none();
    Strike { index: 0, at, fault, node, at_leader, other, lasts, number }
}
