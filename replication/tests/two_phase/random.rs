//! Random schedules: clients write through the coordinator and read anywhere.

use std::time::Duration;

use kvorum_replication::random::Random;
use kvorum_replication::two_phase::message::{
    Commit, CommitNumber, Decision, Knowledge, Message, OnePhase, Prepare, SnapshotPiece, TxnId,
    Vote,
};
use kvorum_replication::two_phase::planted::Planted;
use kvorum_replication::two_phase::record::{ParticipantRecord, Replicated};
use kvorum_replication::two_phase::{CoordinatorOptions, ParticipantOptions, points};
use kvorum_replication::{
    Answer, ClientId, Happened, NodeId, Operation, Outcome, Query, RequestId, SnapshotId, Stamp,
};

use crate::harness::schedule::{self, Client, Driver, keep_every_promise, stop_nobody};
use crate::history;
use crate::node::Of;
use crate::room::{COORDINATOR, Cluster, Packet, TwoPhase};

pub(crate) type Schedule = schedule::Schedule<Nodes>;

/// How hostile a schedule is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hostility {
    common: schedule::Hostility,
    replicas: u32,
    asks_peers: bool,
    /// Replicas that are down may lose their disks.
    wipes: bool,
    /// What replicas keep of recent commits is this much.
    recent_bytes: usize,
    /// After so many milliseconds a replica asks for what it misses.
    catch_up_after: u64,
}

/// What only these schedules remember.
pub(crate) struct Nodes {
    wipes: bool,
    wiped: u64,
}

fn schedule(seed: u64, tracing: bool) -> Schedule {
    planted(seed, Planted::default(), tracing)
}

pub(crate) fn planted(seed: u64, planted: Planted, tracing: bool) -> Schedule {
    let hostility = Nodes::hostility(seed);
    let coordinator = CoordinatorOptions {
        replicas: (1..=hostility.replicas).map(NodeId).collect(),
        seed,
        read_timeout: Duration::from_secs(4),
        sessions_max: 3,
        planted,
        ..CoordinatorOptions::default()
    };
    // Some participants ask each other at once, so that they meet one who has not voted yet.
    let inquiries_before_peers = u32::from(!hostility.asks_peers) * 2;
    let inquire_after = Duration::from_millis(if hostility.asks_peers { 100 } else { 1000 });
    let participant = ParticipantOptions {
        seed,
        sessions_max: 3,
        inquire_after,
        inquiries_before_peers,
        recent_bytes_max: hostility.recent_bytes,
        piece_commits_max: 2,
        catch_up_after: Duration::from_millis(hostility.catch_up_after),
        catch_up_interval: Duration::from_millis(100),
        snapshot_idle_max: Duration::from_secs(2),
        planted,
        ..ParticipantOptions::default()
    };
    let mut cluster = Cluster::new(coordinator, participant, tracing);
    // With one replica, a message that outlives both its sender's and its receiver's process
    // would be new to both: links have to die with them, as TCP's do.
    cluster.links_die = hostility.replicas == 1;
    Schedule::of(seed, hostility.common, cluster, Nodes { wipes: hostility.wipes, wiped: 0 })
}

impl Driver for Nodes {
    type Room = TwoPhase;
    type Hostility = Hostility;

    const STEPS: usize = 800;
    const COUNTED: &[&str] = &[
        "promised_never",
        "aborted_below_finished",
        "commits_out_of_order",
        "reads_waited",
        "commits_resent",
        "retries_answered",
        "learned",
        "commits_passed_on",
        "truncated_sent",
        "snapshots_installed",
        "snapshots_given_up",
        "votes_voided",
        "joined",
    ];

    fn hostility(seed: u64) -> Hostility {
        let mut random = Random::new(seed);
        let mut mostly = || random.below(4) > 0;
        let common = schedule::Hostility::any(&mut mostly);
        let asks_peers = mostly();
        let replicas = match random.below(4) {
            0 => 1,
            1 => 2,
            _ => 3,
        };
        let wipes = random.below(3) == 0;
        let recent_bytes = if random.below(3) > 0 { 400 } else { 1 << 20 };
        let catch_up_after = if random.below(2) == 0 { 1 } else { 300 };
        Hostility { common, replicas, asks_peers, wipes, recent_bytes, catch_up_after }
    }

    fn step(schedule: &mut Schedule) {
        let hostility = schedule.hostility;
        match schedule.below(1000) {
            0..600 => schedule.deliver(),
            600..800 => schedule.sync(),
            800..900 => schedule.ask(),
            900..940 => schedule.tick(300),
            940..948 if hostility.loses => schedule.lose(),
            948..960 if hostility.repeats => schedule.repeat(),
            960..964 if hostility.crashes => schedule.crash(),
            964..966 if hostility.cuts => schedule.cut(),
            966..968 => schedule.checkpoint(),
            968..971 if schedule.driver.wipes => schedule.lose_disk(),
            971..1000 if schedule.one_in(2) => schedule.restart(),
            971..1000 => schedule.heal(),
            _ => {}
        }
    }

    fn ask(schedule: &mut Schedule, operation: Operation) -> Option<RequestId> {
        schedule.ask_at(COORDINATOR, operation)
    }

    fn reading(schedule: &mut Schedule, query: Query) -> (NodeId, Operation, Duration) {
        (schedule.some_node(), Operation::Read(query), Duration::from_secs(5))
    }

    fn points(schedule: &mut Schedule, node: NodeId) -> Vec<&'static str> {
        if node == COORDINATOR {
            return points::COORDINATOR.iter().map(|point| point.name).collect();
        }
        let list = match !schedule.is_whole(node) && !schedule.one_in(4) {
            true => points::SNAPSHOT,
            false => points::PARTICIPANT,
        };
        list.iter().map(|point| point.name).collect()
    }

    fn ends(_client: &Client, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Failed(failure) => failure.happened() == Happened::No,
            Outcome::Committed | Outcome::Answer(_) | Outcome::Session(_) => true,
        }
    }

    fn answered(schedule: &mut Schedule, _request: RequestId, outcome: &Outcome) {
        if matches!(outcome, Outcome::Session(_)) {
            schedule.sessions.clear();
        }
    }

    fn opens_sessions(node: NodeId) -> bool {
        node == COORDINATOR
    }

    /// Half a minute.
    fn heal(schedule: &mut Schedule) {
        schedule.heal_all();
        for _ in 0..60 {
            schedule.cluster.start_all();
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
    /// A replica loses its disk, if all others have what it had: who was let in again since it lost
    /// its own has, once that is durable.
    fn lose_disk(&mut self) {
        let node = self.some_node();
        let replicas = self.cluster.nodes().into_iter().skip(1);
        let mut others = replicas.filter(|other| *other != node);
        if node == COORDINATOR
            || self.cluster.nodes().len() < 3
            || others.any(|other| !self.is_whole(other))
        {
            return;
        }
        if self.cluster.is_up(node) {
            self.cluster.crash(node, 0);
        }
        self.driver.wiped += 1;
        self.cluster.wipe(node, self.driver.wiped);
        self.counts.add("disks lost", 1);
    }

    fn is_whole(&self, node: NodeId) -> bool {
        if !self.cluster.lives.contains_key(&node) {
            return true;
        }
        let is_joined =
            |record: &_| matches!(record, Of::Participant(ParticipantRecord::Joined { .. }));
        self.cluster.durable_log(node).iter().any(is_joined)
    }

    /// Puts a message on its way that says anything about anything.
    fn forge(&mut self) {
        let nodes = self.cluster.nodes();
        let (from, to) = (self.pick(&nodes), self.pick(&nodes));
        let (txn, finished_below) = (self.some_txn(), self.some_txn());
        let decision = self.some_decision();
        let message = match self.below(14) {
            0 => {
                let participants = [self.pick(&nodes), self.pick(&nodes)];
                let count = 1 + self.below(2);
                let client = ClientId(self.random.below(4));
                let stamp = Stamp { client, sequence: self.random.below(4), answered_below: 0 };
                Message::Prepare(Prepare {
                    txn,
                    participants: participants[..count].into(),
                    transaction: self.some_transaction().into(),
                    one_phase: self.one_in(2).then_some(OnePhase { stamp: Some(stamp) }),
                    finished_below,
                })
            }
            1 => Message::Vote { txn, vote: self.some_vote() },
            2 => Message::Decide { txn, decision, finished_below },
            3 => Message::Acknowledge { txn },
            4 => Message::Inquire { txn },
            5 if self.one_in(2) => Message::Inform { txn, knowledge: Knowledge::Undecided },
            5 => Message::Inform { txn, knowledge: Knowledge::Decided(decision) },
            6 => {
                let (read, epoch) = (self.random.below(9), self.random.below(4));
                Message::Read { read, epoch, query: Query::Get(self.some_key()) }
            }
            7 => self.some_commits(),
            8 => Message::Truncated { first: self.some_number() },
            9 => {
                let snapshot = self.one_in(2).then_some(SnapshotId(self.random.below(20)));
                Message::FetchSnapshot { snapshot, from: self.some_key() }
            }
            10 => self.some_piece(),
            11 => Message::CatchUp { to: self.some_number() },
            12 => Message::FetchCommits { from: self.some_number() },
            _ => {
                let (read, epoch) = (self.random.below(9), self.random.below(4));
                Message::ReadAnswer { read, epoch, answer: Answer::Values(vec![None]) }
            }
        };
        self.cluster.network.push(Packet { from, to, message });
    }

    fn some_number(&mut self) -> CommitNumber {
        CommitNumber(self.random.below(12))
    }

    fn some_commits(&mut self) -> Message {
        let from = self.some_number();
        let numbers = (from.0..).take(self.below(3));
        let commits = numbers.map(|number| Commit {
            number: CommitNumber(number),
            txn: self.some_txn(),
            transaction: self.some_transaction().into(),
        });
        let commits = commits.collect();
        let (applied, finished_below) = (self.some_number(), self.some_txn());
        Message::Commits { from, commits, applied, finished_below }
    }

    fn some_piece(&mut self) -> Message {
        let committed = vec![(self.some_txn(), self.some_number())];
        let (applied, finished_below) = (self.some_number(), self.some_txn());
        let state = Replicated { applied, finished_below, committed };
        let rows = vec![(self.some_key(), self.some_key())];
        let (snapshot, last) = (SnapshotId(self.random.below(20)), self.one_in(2));
        let (from, last) = (bytes::Bytes::new(), last.then(|| state.into()));
        Message::SnapshotPiece(SnapshotPiece { snapshot, from, rows, last })
    }

    fn some_txn(&mut self) -> TxnId {
        TxnId {
            coordinator: NodeId(u32::from(self.one_in(9))),
            epoch: self.random.below(4),
            number: self.random.below(12),
        }
    }

    fn some_decision(&mut self) -> Decision {
        match self.one_in(3) {
            true => Decision::Abort,
            false => Decision::Commit(CommitNumber(self.random.below(8))),
        }
    }

    fn some_vote(&mut self) -> Vote {
        let key = self.some_key();
        self.pick(&[
            Vote::Yes,
            Vote::Committed,
            Vote::Refused,
            Vote::Overloaded,
            Vote::DiskFull,
            Vote::Failed("forged".to_owned()),
            Vote::PreconditionFailed { index: 7, key: key.clone() },
            Vote::Conflict(key),
        ])
    }
}

/// Messages that only a bug or an attacker would send change what happens, and never stop a node.
#[test]
fn forged_messages_stop_nobody() {
    stop_nobody(0..400, |seed| schedule(seed, false), Schedule::forge);
}

#[test]
fn random_schedules_keep_every_promise() {
    let points = points::COORDINATOR.iter().chain(points::PARTICIPANT).chain(points::SNAPSHOT);
    let points = points.map(|point| point.name).chain(["disks lost"]);
    keep_every_promise(schedule, points);
}
