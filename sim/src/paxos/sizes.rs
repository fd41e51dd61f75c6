//! How large a cluster is, how small everything else, and what fails in it by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use kvorum_replication::NodeId;
use kvorum_replication::paxos::{AcceptorRestart, ReplicaOptions};
use kvorum_storage::{LogOptions, Options};

use crate::chance::Chance;
use crate::planted::Planted;

/// More than clients, so that those who are busy keep theirs, and few enough that sessions of
/// which nobody heard push others out.
const FEW_SESSIONS: usize = 8;

/// What stops by itself and comes back, how often in the mean, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failing {
    Nothing,
    /// Acceptors everywhere, which know all they knew.
    Acceptors(u64),
    /// All roles, which know all they knew.
    Roles(u64),
    /// The acceptors of those who may lose what they know: they do, and ask to be let in again. Not
    /// the others: they are a majority as long as none of them is away.
    Rejoining(u64),
    /// Acceptors everywhere; they forget, and vote at once.
    Amnesia(u64),
}

/// A run is to see many log files, flushes, compactions, checkpoints, elections and snapshots, and
/// limits that are met.
#[derive(Clone, Debug)]
pub(super) struct Sizes {
    nodes: u32,
    /// The members that the cluster begins with.
    founders: u32,
    /// Who may lose what it knew. So few that a majority of any set of members never does.
    pub(super) forgetful: BTreeSet<NodeId>,
    /// No set of members that is asked for is smaller.
    pub(super) members_min: usize,
    pub(super) failing: Failing,
    log_file_bytes: u64,
    memtable_bytes: usize,
    log_bytes_max: u64,
    pub(super) checkpoint_bytes: u64,
    pub(super) sessions_max: usize,
    pub(super) window: u64,
    pipeline_max: usize,
    batch_commands_max: usize,
    batch_bytes_max: usize,
    requests_max: usize,
    accepted_bytes_max: usize,
    piece_slots_max: usize,
    piece_bytes_max: usize,
    retained_slots_max: usize,
    retained_bytes_max: usize,
    snapshot_rows_max: u32,
    snapshots_max: usize,
    reads_max: usize,
    /// Milliseconds.
    heartbeat_interval: u64,
    election_timeout_min: u64,
    /// The longest election timeout, in shortest ones.
    patience: u64,
    resend_interval: u64,
    snapshot_idle_max: u64,
    /// In hundredths of the shortest election timeout.
    lease: Option<u64>,
    pub(super) drift_permille: u32,
    planted: Planted,
}

impl Sizes {
    pub(super) fn new(seed: u64, planted: Planted, restart: Option<AcceptorRestart>) -> Self {
        let mut chance = Chance::new(seed, "paxos sizes");
        let nodes = chance.weighted(&[(6, 3), (4, 5), (1, 4)]);
        let founders = *chance.pick(&[nodes, nodes, nodes, nodes - 1, 3]).max(&3);
        let window = *chance.pick(&[4, 16, 256]);
        let timeout = *chance.pick(&[40, 100, 200]);
        // Seldom enough that somebody can be elected in between.
        let mean = timeout * *chance.pick(&[4, 10, 30]);
        let failing = draw_failing(&mut chance, mean, restart);
        let pipeline = [1, 4, 64_u64][chance.index(3)].min(window);
        let few = NodeId(1 + u32::try_from(chance.below(u64::from(nodes))).unwrap_or(0));
        Self {
            nodes,
            founders,
            forgetful: BTreeSet::from([few]),
            members_min: 3,
            failing,
            log_file_bytes: chance.weighted(&[(2, 2 << 10), (1, 16 << 10), (1, 256 << 10)]),
            memtable_bytes: chance.weighted(&[(2, 1 << 10), (1, 8 << 10), (1, 1 << 20)]),
            log_bytes_max: *chance.pick(&[4 << 10, 16 << 10, 1 << 20]),
            checkpoint_bytes: *chance.pick(&[1 << 10, 5 << 10, 64 << 20]),
            sessions_max: *chance.pick(&[FEW_SESSIONS, 65_536, 65_536]),
            window,
            pipeline_max: usize::try_from(pipeline).unwrap_or(1),
            batch_commands_max: *chance.pick(&[1, 3, 256]),
            batch_bytes_max: *chance.pick(&[100, 1 << 20]),
            requests_max: chance.weighted(&[(1, 2), (3, 16_384)]),
            accepted_bytes_max: chance.weighted(&[(1, 4_000), (3, 128 << 20)]),
            piece_slots_max: *chance.pick(&[1, 3, 1024]),
            piece_bytes_max: *chance.pick(&[200, 1 << 20]),
            retained_slots_max: *chance.pick(&[0, 4, 30, 65_536]),
            retained_bytes_max: chance.weighted(&[(1, 300), (3, 32 << 20)]),
            snapshot_rows_max: *chance.pick(&[1, 1, 3, 10_000]),
            snapshots_max: *chance.pick(&[1, 2]),
            reads_max: chance.weighted(&[(1, 2), (3, 16_384)]),
            heartbeat_interval: timeout / *chance.pick(&[3, 5]),
            election_timeout_min: timeout,
            patience: *chance.pick(&[2, 4]),
            resend_interval: *chance.pick(&[20, 250]),
            snapshot_idle_max: *chance.pick(&[30, 30_000]),
            lease: chance.weighted(&[(3, None), (1, Some(100)), (1, Some(70))]),
            drift_permille: *chance.pick(&[10, 100]),
            planted,
        }
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.nodes).map(NodeId)
    }

    pub(super) fn founders(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.founders).map(NodeId)
    }

    pub(super) fn has_leases(&self) -> bool {
        self.lease.is_some()
    }

    /// How long a lease is, if there are any.
    pub(super) fn lease(&self) -> Option<Duration> {
        self.lease.map(|share| Duration::from_millis(self.election_timeout_min * share / 100))
    }

    pub(super) fn may_expire_sessions(&self) -> bool {
        self.sessions_max == FEW_SESSIONS
    }

    pub(super) fn store_options(&self) -> Options {
        Options {
            memtable_bytes: self.memtable_bytes,
            block_bytes: 256,
            segment_bytes: 2 << 10,
            level1_bytes: 4 << 10,
            level_step: 4,
            log_bytes_max: self.log_bytes_max,
            log: LogOptions {
                file_bytes: self.log_file_bytes,
                planted: self.planted.storage,
                ..LogOptions::default()
            },
            planted: self.planted.storage,
            ..Options::default()
        }
    }

    pub(super) fn replica(&self, id: NodeId, seed: u64, life: u64, calm: bool) -> ReplicaOptions {
        let millis = Duration::from_millis;
        let failing = if calm { Failing::Nothing } else { self.failing };
        let (acceptors, roles, restart) = match failing {
            Failing::Nothing => (None, None, AcceptorRestart::Durable),
            Failing::Acceptors(mean) => (Some(mean), None, AcceptorRestart::Durable),
            Failing::Roles(mean) => (None, Some(mean), AcceptorRestart::Durable),
            Failing::Rejoining(mean) => {
                let forgets = self.forgetful.contains(&id);
                (forgets.then_some(mean), None, AcceptorRestart::Rejoin)
            }
            Failing::Amnesia(mean) => (Some(mean), None, AcceptorRestart::Amnesia),
        };
        let lease = self.lease();
        ReplicaOptions {
            id,
            founders: self.founders().collect(),
            life,
            seed,
            window: self.window,
            pipeline_max: self.pipeline_max,
            batch_commands_max: self.batch_commands_max,
            batch_bytes_max: self.batch_bytes_max,
            requests_max: self.requests_max,
            accepted_bytes_max: self.accepted_bytes_max,
            heartbeat_interval: millis(self.heartbeat_interval),
            election_timeout_min: millis(self.election_timeout_min),
            election_timeout_max: millis(self.patience * self.election_timeout_min),
            resend_interval: millis(self.resend_interval),
            piece_bytes_max: self.piece_bytes_max,
            piece_slots_max: self.piece_slots_max,
            retained_bytes_max: self.retained_bytes_max,
            retained_slots_max: self.retained_slots_max,
            snapshot_rows_max: self.snapshot_rows_max,
            snapshots_max: self.snapshots_max,
            snapshot_idle_max: millis(self.snapshot_idle_max),
            reads_max: self.reads_max,
            lease,
            clock_drift_permille: self.drift_permille,
            sessions_max: self.sessions_max,
            fail_acceptors: acceptors.map(millis),
            fail_roles: roles.map(millis),
            acceptor_restart: restart,
            planted: self.planted.paxos,
            ..ReplicaOptions::default()
        }
    }
}

fn draw_failing(chance: &mut Chance, mean: u64, restart: Option<AcceptorRestart>) -> Failing {
    let drawn = chance.weighted(&[
        (6, Failing::Nothing),
        (1, Failing::Acceptors(mean)),
        (1, Failing::Roles(mean)),
        (3, Failing::Rejoining(mean)),
    ]);
    match restart {
        None => drawn,
        Some(AcceptorRestart::Durable) => Failing::Acceptors(mean),
        Some(AcceptorRestart::Rejoin) => Failing::Rejoining(mean),
        Some(AcceptorRestart::Amnesia) => Failing::Amnesia(mean),
    }
}
