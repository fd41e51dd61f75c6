//! Random schedules: any replica is asked, and any may die, fill up or get a new link.

use std::time::Duration;

use kvorum_replication::random::Random;
use kvorum_replication::two_phase::any_replica::message::{
    Age, Decision, Knowledge, Message, Prepare, Settled, TxnId, Vote, Work,
};
use kvorum_replication::two_phase::any_replica::planted::Planted;
use kvorum_replication::two_phase::any_replica::{ReplicaOptions, points};
use kvorum_replication::{
    ClientId, Failure, Happened, NodeId, Operation, Outcome, Query, RequestId, Stamp,
};

use crate::harness::schedule::{self, Client, Driver, keep_every_promise, settles, stop_nobody};
use crate::history;
use crate::room::{AnyReplica, Cluster, Packet};

type Schedule = schedule::Schedule<Replicas>;

/// How hostile a schedule is.
#[derive(Clone, Copy, Debug)]
struct Hostility {
    common: schedule::Hostility,
    replicas: u32,
    asks_peers: bool,
    /// There is room for little.
    tight: bool,
}

/// Repeated messages that come much later.
struct Replicas {
    late: Vec<Packet>,
}

fn schedule(seed: u64, planted: Planted, tracing: bool) -> Schedule {
    let hostility = Replicas::hostility(seed);
    // Some participants ask each other at once, so that they meet one who has not voted yet.
    let inquiries_before_peers = u32::from(!hostility.asks_peers) * 2;
    let inquire_after = Duration::from_millis(if hostility.asks_peers { 100 } else { 1000 });
    let options = ReplicaOptions {
        replicas: (1..=hostility.replicas).map(NodeId).collect(),
        seed,
        read_wait_max: Duration::from_secs(4),
        sessions_max: 6,
        inquire_after,
        inquiries_before_peers,
        planted,
        ..ReplicaOptions::default()
    };
    let options = if hostility.tight { tight(options) } else { options };
    let cluster = Cluster::new(options, tracing);
    Schedule::of(seed, hostility.common, cluster, Replicas { late: Vec::new() })
}

/// With limits that are met all the time.
fn tight(options: ReplicaOptions) -> ReplicaOptions {
    ReplicaOptions {
        in_flight_max: 4,
        unacknowledged_max: 3,
        unfinished_span_max: 8,
        retries_per_transaction_max: 2,
        tries_max: 2,
        prepared_max: 4,
        decided_max: 8,
        waiting_reads_max: 2,
        impatient_reads_max: 1,
        checkpoint_bytes_max: 4,
        alarms_per_timer_max: 2,
        outstanding_max: 6,
        ..options
    }
}

impl Driver for Replicas {
    type Room = AnyReplica;
    type Hostility = Hostility;

    const STEPS: usize = 800;
    const COUNTED: &[&str] = &[
        "promised_never",
        "aborted_below_finished",
        "reads_waited",
        "reads_impatient",
        "died_of_reads",
        "commits_resent",
        "retries_answered",
        "retries_attached",
        "died",
        "waited",
        "parked",
        "given_up",
        "superseded",
        "waiters_dropped",
        "preconditions_failed",
        "checked_alone",
        "unavailable",
        "unknown",
    ];

    fn hostility(seed: u64) -> Hostility {
        let mut random = Random::new(seed);
        let mut mostly = || random.below(4) > 0;
        let mut common = schedule::Hostility::any(&mut mostly);
        let asks_peers = mostly();
        common.insists = !mostly();
        let tight = !mostly();
        let replicas = match random.below(4) {
            0 => 1,
            1 => 2,
            _ => 3,
        };
        Hostility { common, replicas, asks_peers, tight }
    }

    fn step(schedule: &mut Schedule) {
        let hostility = schedule.hostility;
        match schedule.below(1000) {
            0..600 => schedule.deliver(),
            600..800 => schedule.sync(),
            800..900 => schedule.ask(),
            900..940 => schedule.tick(300),
            940..948 if hostility.loses => schedule.lose(),
            948..960 if hostility.repeats => schedule.repeat_or_delay(),
            960..964 if hostility.crashes => schedule.crash(),
            964..966 if hostility.cuts => schedule.cut(),
            948..960 if schedule.one_in(3) => schedule.checkpoint(),
            966..968 => schedule.fill_disk(),
            968..970 if hostility.cuts => schedule.relink(),
            970..976 if !schedule.driver.late.is_empty() => schedule.send_late(),
            970..1000 if schedule.one_in(2) => schedule.restart(),
            970..1000 => schedule.heal(),
            _ => {}
        }
    }

    fn ask(schedule: &mut Schedule, operation: Operation) -> Option<RequestId> {
        let node = schedule.some_node();
        schedule.ask_at(node, operation)
    }

    fn reading(schedule: &mut Schedule, query: Query) -> (NodeId, Operation, Duration) {
        (schedule.some_node(), Operation::Read(query), Duration::from_secs(5))
    }

    fn points(_schedule: &mut Schedule, _node: NodeId) -> Vec<&'static str> {
        points::all().map(|point| point.name).collect()
    }

    fn ends(client: &Client, outcome: &Outcome) -> bool {
        let is_refused = |failure: &Failure| failure.happened() == Happened::No;
        let refused = matches!(outcome, Outcome::Failed(failure) if is_refused(failure));
        settles(outcome) || (refused && !client.unsettled)
    }

    fn answered(schedule: &mut Schedule, _request: RequestId, outcome: &Outcome) {
        if matches!(outcome, Outcome::Session(_)) {
            schedule.sessions.clear();
        }
    }

    /// Half a minute.
    fn heal(schedule: &mut Schedule) {
        schedule.heal_all();
        schedule.cluster.network.append(&mut schedule.driver.late);
        for _ in 0..60 {
            for node in schedule.cluster.nodes() {
                schedule.cluster.room(node, true);
                if !schedule.cluster.is_up(node) {
                    schedule.cluster.start(node);
                }
            }
            schedule.cluster.run();
            schedule.cluster.tick(Duration::from_millis(500));
        }
        schedule.cluster.run();
    }

    fn judge(schedule: &mut Schedule) -> Result<(), String> {
        schedule.at_rest()?;
        schedule.take_counters()?;
        history::judge(&schedule.cluster, &mut schedule.counts)
    }
}

impl Schedule {
    fn repeat_or_delay(&mut self) {
        if let Some(packet) = self.repeated() {
            let is_late = self.one_in(2);
            let into = if is_late { &mut self.driver.late } else { &mut self.cluster.network };
            into.push(packet);
        }
    }

    fn send_late(&mut self) {
        let index = self.below(self.driver.late.len());
        self.cluster.network.push(self.driver.late.swap_remove(index));
        self.counts.add("late", 1);
    }

    fn fill_disk(&mut self) {
        let (node, has_room) = (self.some_node(), !self.one_in(4));
        self.cluster.room(node, has_room);
        self.counts.add("full disks", u64::from(!has_room));
    }

    /// A new link, and nobody saw the old one break.
    fn relink(&mut self) {
        if let Some((one, other)) = self.some_pair()
            && self.cluster.is_up(one)
            && self.cluster.is_up(other)
        {
            self.cluster.relink(one, other);
            self.counts.add("relinks", 1);
        }
    }

    /// Puts a message on its way that says anything about anything.
    fn forge(&mut self) {
        let nodes = self.cluster.nodes();
        let (from, to) = (self.pick(&nodes), self.pick(&nodes));
        let (txn, finished_below) = (self.some_txn(), self.some_txn());
        let decision = self.pick(&[Decision::Commit, Decision::Abort]);
        let message = match self.below(7) {
            0 | 1 => self.some_prepare(txn, finished_below),
            2 => {
                let clock = self.pick(&[0, 9, u64::MAX]);
                Message::Vote { txn, vote: self.some_vote(), clock }
            }
            3 => Message::Decide { txn, decision, finished_below },
            4 => Message::Acknowledge { txn },
            5 => Message::Inquire { txn },
            _ if self.one_in(2) => Message::Inform { txn, knowledge: Knowledge::Undecided },
            _ => Message::Inform { txn, knowledge: Knowledge::Decided(decision) },
        };
        self.cluster.network.push(Packet { from, to, message });
    }

    fn some_prepare(&mut self, txn: TxnId, finished_below: TxnId) -> Message {
        let client = ClientId(self.random.below(4));
        let stamp = Stamp { client, sequence: self.random.below(4), answered_below: 0 };
        let writes = self.some_transaction().writes;
        let work = match self.below(4) {
            0 => Work::OpenSession { client },
            _ => Work::Write {
                stamp: self.one_in(2).then_some(stamp),
                writes,
                checked: vec![self.some_key()],
            },
        };
        let clock = self.pick(&[0, 3, 30, u64::MAX]);
        Message::Prepare(Prepare {
            txn,
            age: Age { clock, first: self.some_txn() },
            participants: self.cluster.nodes().into(),
            work: work.into(),
            finished_below,
        })
    }

    fn some_txn(&mut self) -> TxnId {
        TxnId {
            coordinator: self.pick(&self.cluster.nodes()),
            epoch: self.random.below(4),
            number: self.random.below(12),
        }
    }

    fn some_vote(&mut self) -> Vote {
        let key = self.some_key();
        self.pick(&[
            Vote::Yes,
            Vote::Refused,
            Vote::Absent,
            Vote::InFlight,
            Vote::Settled(Settled::Committed),
            Vote::Settled(Settled::Refused { precondition: 7 }),
            Vote::StaleSequence,
            Vote::SessionExpired,
            Vote::Overloaded,
            Vote::DiskFull,
            Vote::Conflict(key),
        ])
    }
}

/// Messages that only a bug or an attacker would send change what happens, and never stop a node.
#[test]
fn forged_messages_stop_nobody() {
    stop_nobody(0..400, |seed| schedule(seed, Planted::default(), false), Schedule::forge);
}

#[test]
fn random_schedules_keep_every_promise() {
    let points = points::all().map(|point| point.name);
    let must_have = ["late", "full disks", "relinks"].into_iter().chain(points);
    keep_every_promise(|seed, tracing| schedule(seed, Planted::default(), tracing), must_have);
}

/// Whether this bug shows itself here.
#[cfg(feature = "planted-bugs")]
pub(crate) fn finds(planted: Planted) -> bool {
    let mut counts = schedule::Counts::default();
    (0..4000).any(|seed| {
        let mut try_it = || schedule(seed, planted, false).run(&mut counts);
        let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(&mut try_it));
        match &judged {
            Ok(Err(why)) => println!("    seed {seed}: {}", why.lines().next().unwrap_or_default()),
            Err(why) => println!(
                "    seed {seed}: panics: {:?}",
                why.downcast_ref::<String>()
                    .map(|it| &**it)
                    .or(why.downcast_ref::<&str>().copied())
            ),
            Ok(Ok(_)) => {}
        }
        !matches!(judged, Ok(Ok(_)))
    })
}
