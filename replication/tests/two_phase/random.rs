//! Random schedules: clients write through the coordinator and read anywhere.

use std::sync::Arc;
use std::time::Duration;

use kvorum_replication::random::Random;
use kvorum_replication::two_phase::message::{
    Commit, CommitNumber, Decision, Knowledge, Message, OnePhase, Parallel, Prepare, Recalled,
    Recovered, SnapshotPiece, TxnId, Vote,
};
use kvorum_replication::two_phase::planted::Planted;
use kvorum_replication::two_phase::record::{AppliedState, ParticipantRecord, Pledge, Replicated};
use kvorum_replication::two_phase::{CommitMode, CoordinatorOptions, ParticipantOptions, points};
use kvorum_replication::{
    Answer, ClientId, Happened, NodeId, Operation, Outcome, Query, ReplicaChange, RequestId,
    SnapshotId, Stamp,
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
    /// So many have to remain, if fewer than there are may go on.
    min_replicas: usize,
    asks_peers: bool,
    commit: CommitMode,
    /// The coordinator does not commit in the same way in all its lives.
    changes_mode: bool,
    /// The coordinator dies again and again, and comes back at once.
    restless: bool,
    batches_voting_max: usize,
    /// Replicas that are down may lose their disks.
    wipes: bool,
    /// Replicas are added and removed.
    changes: bool,
    /// What replicas keep of recent commits is this much.
    recent_bytes: usize,
    /// After so many milliseconds a replica asks for what it misses.
    catch_up_after: u64,
}

/// What only these schedules remember.
pub(crate) struct Nodes {
    changes_mode: bool,
    restless: bool,
    wipes: bool,
    changes: bool,
    wiped: u64,
}

fn schedule(seed: u64, tracing: bool) -> Schedule {
    planted(seed, tracing, Planted::default())
}

/// What a schedule finds wrong with cores that have a bug.
#[cfg(feature = "planted-bugs")]
pub(crate) fn finds(seed: u64, bug: Planted) -> Result<(), String> {
    planted(seed, false, bug).run(&mut schedule::Counts::default())
}

fn planted(seed: u64, tracing: bool, planted: Planted) -> Schedule {
    let hostility = Nodes::hostility(seed);
    let coordinator = CoordinatorOptions {
        replicas: (1..=hostility.replicas).map(NodeId).collect(),
        commit: hostility.commit,
        min_replicas: if hostility.changes { 0 } else { hostility.min_replicas },
        exclude_after: Duration::from_millis(700),
        batches_voting_max: hostility.batches_voting_max,
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
        recalled_max: 2,
        recent_bytes_max: hostility.recent_bytes,
        piece_commits_max: 2,
        catch_up_after: Duration::from_millis(hostility.catch_up_after),
        catch_up_interval: Duration::from_millis(100),
        snapshot_idle_max: Duration::from_secs(2),
        planted,
        ..ParticipantOptions::default()
    };
    let spares = if hostility.changes { 2 } else { 0 };
    let mut cluster = Cluster::new(coordinator, participant, spares, tracing);
    // With one replica, a message that outlives both its sender's and its receiver's process
    // would be new to both: links have to die with them, as TCP's do.
    cluster.links_die = hostility.replicas == 1;
    let Hostility { changes_mode, restless, wipes, changes, .. } = hostility;
    let driver = Nodes { changes_mode, restless, wipes, changes, wiped: 0 };
    Schedule::of(seed, hostility.common, cluster, driver)
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
        "commits_recovered",
        "aborts_recovered",
        "refused_by_promise",
        "reads_looked_at_again",
        "outdated_dropped",
        "learned",
        "commits_passed_on",
        "truncated_sent",
        "snapshots_installed",
        "snapshots_given_up",
        "votes_voided",
        "excluded",
        "left_out",
        "rejoined",
        "reads_unleased",
        "joined",
        "replicas_changed",
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
        let commit = match random.below(4) {
            0 => CommitMode::AfterDecision,
            _ => CommitMode::Parallel,
        };
        let changes_mode = random.below(8) == 0;
        let restless = random.below(3) == 0;
        let batches_voting_max = [1, 2, usize::MAX][random.below(3) as usize];
        let wipes = random.below(3) == 0;
        let min_replicas = match replicas {
            2 | 3 if random.below(2) == 0 => replicas as usize - 1,
            _ => usize::MAX,
        };
        // Who is left out has not what was committed without it: a disk lost then may be the last.
        let wipes = wipes && min_replicas == usize::MAX;
        // By chance of its own: those that do not are as they were before some did.
        let changes = replicas == 3 && min_replicas == 2 && Random::new(!seed).below(3) > 0;
        let recent_bytes = if random.below(3) > 0 { 400 } else { 1 << 20 };
        let catch_up_after = if random.below(2) == 0 { 1 } else { 300 };
        Hostility {
            common,
            replicas,
            min_replicas,
            asks_peers,
            commit,
            changes_mode,
            restless,
            batches_voting_max,
            wipes,
            changes,
            recent_bytes,
            catch_up_after,
        }
    }

    fn step(schedule: &mut Schedule) {
        if schedule.driver.changes_mode && schedule.one_in(50) {
            let modes = [CommitMode::Parallel, CommitMode::AfterDecision];
            schedule.cluster.coordinator_options.commit = schedule.pick(&modes);
        }
        if schedule.driver.restless && schedule.one_in(60) {
            schedule.restart_coordinator();
        }
        let hostility = schedule.hostility;
        if schedule.driver.changes && schedule.one_in(20) {
            schedule.change_replicas();
        }
        match schedule.below(1000) {
            0..600 => schedule.deliver(),
            600..800 => schedule.sync(),
            800..900 => schedule.ask(),
            900..940 => schedule.tick(300),
            940..948 if hostility.loses => schedule.lose(),
            948..960 if hostility.repeats => schedule.repeat(),
            960 if hostility.crashes && schedule.one_in(4) => schedule.crash_all(),
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
            let list = points::COORDINATOR.iter().chain(points::COORDINATOR_VIEWS);
            return list.map(|point| point.name).collect();
        }
        let list = match !schedule.is_whole(node) && !schedule.one_in(4) {
            true => points::SNAPSHOT,
            false if schedule.one_in(8) => points::PARTICIPANT_VIEWS,
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
        if schedule.cluster.counter(COORDINATOR, "recovering") != Some(0) {
            return Err("the coordinator has not heard what it needs, or can't believe it".into());
        }
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
        if self.hostility.crashes && self.one_in(2) {
            // On its way back it dies once more.
            let point = self.pick(points::SNAPSHOT);
            self.cluster.arm(node, point.name);
            self.cluster.start(node);
        }
    }

    /// Asks for one replica more or one less; sometimes for what can't be.
    fn change_replicas(&mut self) {
        let node = self.some_node();
        let is_replica = self.cluster.replicas().contains(&node);
        let change = match is_replica == self.one_in(10) {
            true => ReplicaChange::Add(node),
            false => ReplicaChange::Remove(node),
        };
        self.ask_at(COORDINATOR, Operation::ChangeReplicas(change));
    }

    fn is_whole(&self, node: NodeId) -> bool {
        let standing = |record: &_| match record {
            Of::Participant(ParticipantRecord::Joined { .. }) => Some(true),
            Of::Participant(ParticipantRecord::Outside { .. }) => Some(false),
            _ => None,
        };
        let standing = self.cluster.durable_log(node).iter().rev().find_map(standing);
        standing.unwrap_or_else(|| !self.cluster.lives.contains_key(&node))
    }

    /// The coordinator dies and is back before anybody has done anything.
    fn restart_coordinator(&mut self) {
        let keep = self.below(3);
        if self.cluster.is_up(COORDINATOR) {
            self.cluster.crash(COORDINATOR, keep);
            self.counts.add("restarts at once", 1);
        }
        self.start_armed(COORDINATOR);
        self.cluster.sync(COORDINATOR);
    }

    /// The power fails: everybody loses what is not durable, but for a few records.
    fn crash_all(&mut self) {
        for node in self.cluster.nodes() {
            let keep = self.below(3);
            if self.cluster.is_up(node) {
                self.cluster.crash(node, keep);
            }
        }
        self.counts.add("power cuts", 1);
    }

    /// Puts a message on its way that says anything about anything.
    fn forge(&mut self) {
        let nodes = self.cluster.nodes();
        let (from, to) = (self.pick(&nodes), self.pick(&nodes));
        let (txn, finished_below) = (self.some_txn(), self.some_txn());
        let decision = self.some_decision();
        let message = match self.below(16) {
            0 => {
                let participants = [self.pick(&nodes), self.pick(&nodes)];
                let count = 1 + self.below(2);
                let client = ClientId(self.random.below(4));
                let stamp = Stamp { client, sequence: self.random.below(4), answered_below: 0 };
                Message::Prepare(Arc::new(Prepare {
                    txn,
                    participants: participants[..count].into(),
                    transaction: self.some_transaction().into(),
                    one_phase: self.one_in(2).then_some(OnePhase { stamp: Some(stamp) }),
                    parallel: self.one_in(2).then_some(Parallel { stamp: Some(stamp) }),
                    finished_below,
                }))
            }
            1 => Message::Vote { txn, vote: self.some_vote() },
            2 => {
                let epoch = self.random.below(5);
                Message::Decide { txn, decision, finished_below, epoch }
            }
            3 => Message::Acknowledge { txn },
            4 => Message::Inquire { txn },
            5 => {
                let knowledge = match self.one_in(2) {
                    true => Knowledge::Undecided,
                    false => Knowledge::Decided(decision),
                };
                Message::Inform { txn, knowledge, epoch: self.random.below(5) }
            }
            6 => {
                let (read, epoch) = (self.random.below(9), self.random.below(4));
                Message::Read { read, epoch, query: Box::new(Query::Get(self.some_key())) }
            }
            7 => Message::Recover { epoch: self.random.below(5), first: txn },
            8 => {
                let number = CommitNumber(self.random.below(8));
                let number = self.one_in(2).then_some(number);
                let participants = [self.pick(&nodes), self.pick(&nodes)].into();
                let recalled = vec![Recalled { txn, participants, stamp: None, number }];
                let (epoch, applied) = (self.random.below(5), CommitNumber(self.random.below(8)));
                let (first, next) = (TxnId::FIRST, self.one_in(3).then_some(finished_below));
                let is_outside = self.one_in(3);
                let answer = Recovered { epoch, first, applied, recalled, next, is_outside };
                Message::Recovered(Box::new(answer))
            }
            9 => self.some_commits(),
            10 => Message::Truncated { first: self.some_number() },
            11 => {
                let snapshot = self.one_in(2).then_some(SnapshotId(self.random.below(20)));
                Message::FetchSnapshot { snapshot, from: self.some_key() }
            }
            12 => self.some_piece(),
            13 => Message::CatchUp { to: self.some_number(), anew: false },
            14 => Message::FetchCommits { from: self.some_number() },
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
            pledge: self.some_pledge(),
            transaction: self.some_transaction().into(),
        });
        let commits = commits.collect();
        let (applied, finished_below) = (self.some_number(), self.some_txn());
        let epoch = self.random.below(5);
        Message::Commits { from, commits, applied, finished_below, epoch }
    }

    fn some_pledge(&mut self) -> Option<Pledge> {
        let participants = self.cluster.nodes().into_iter().skip(1).collect();
        self.one_in(2).then_some(Pledge { participants, stamp: None })
    }

    fn some_piece(&mut self) -> Message {
        let (txn, number, pledge) = (self.some_txn(), self.some_number(), self.some_pledge());
        let committed = vec![AppliedState { txn, number, pledge }];
        let (applied, finished_below) = (self.some_number(), self.some_txn());
        let epoch = self.random.below(5);
        let state = Replicated { applied, finished_below, committed, epoch };
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
    let points = points.chain(points::COORDINATOR_VIEWS).chain(points::PARTICIPANT_VIEWS);
    let points = points.map(|point| point.name);
    keep_every_promise(schedule, points.chain(["power cuts", "restarts at once", "disks lost"]));
}
