//! How large a cluster is and how small everything else.

use std::time::Duration;

use kvorum_replication::NodeId;
use kvorum_replication::two_phase::any_replica::ReplicaOptions;
use kvorum_storage::{LogOptions, Options};

use crate::chance::Chance;
use crate::planted::Planted;

/// More than clients, so that those who are busy mostly keep theirs, and few enough that sessions
/// of which nobody heard push others out.
const FEW_SESSIONS: usize = 8;

/// A run is to see many log files, flushes, compactions and checkpoints, limits that are met, and
/// transactions that die of each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    replicas: u32,
    log_file_bytes: u64,
    memtable_bytes: usize,
    log_bytes_max: u64,
    pub(super) checkpoint_bytes: u64,
    sessions_max: usize,
    in_flight_max: usize,
    pub(super) prepared_max: usize,
    unfinished_span_max: u64,
    reads_max: usize,
    impatient_reads_max: usize,
    pub(super) tries_max: u32,
    /// Milliseconds.
    back_off_first: u64,
    read_patience: u64,
    vote_timeout: u64,
    resend_interval: u64,
    inquire_after: u64,
    inquiries_before_peers: u32,
    planted: Planted,
}

impl Sizes {
    pub(super) fn new(seed: u64, planted: Planted) -> Self {
        let mut chance = Chance::new(seed, "any-replica sizes");
        Self {
            replicas: chance.weighted(&[(6, 3), (2, 2), (1, 4), (1, 5)]),
            log_file_bytes: chance.weighted(&[(2, 2 << 10), (1, 16 << 10), (1, 256 << 10)]),
            memtable_bytes: chance.weighted(&[(2, 1 << 10), (1, 8 << 10), (1, 1 << 20)]),
            log_bytes_max: *chance.pick(&[4 << 10, 16 << 10, 1 << 20]),
            checkpoint_bytes: *chance.pick(&[256, 1 << 10, 5 << 10, 64 << 20]),
            sessions_max: *chance.pick(&[FEW_SESSIONS, 65_536]),
            in_flight_max: chance.weighted(&[(1, 2), (3, 16_384)]),
            prepared_max: chance.weighted(&[(1, 3), (3, 16_384)]),
            unfinished_span_max: chance.weighted(&[(1, 8), (3, 1 << 17)]),
            reads_max: chance.weighted(&[(1, 2), (3, 16_384)]),
            impatient_reads_max: *chance.pick(&[1, 64]),
            tries_max: chance.weighted(&[(1, 2), (3, 64)]),
            back_off_first: *chance.pick(&[1, 2, 20]),
            read_patience: *chance.pick(&[1, 20]),
            vote_timeout: *chance.pick(&[100, 500, 2_000]),
            resend_interval: *chance.pick(&[50, 500]),
            inquire_after: *chance.pick(&[5, 50, 1_000]),
            inquiries_before_peers: *chance.pick(&[0, 2]),
            planted,
        }
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.replicas).map(NodeId)
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

    pub(super) fn replica(&self, id: NodeId, seed: u64) -> ReplicaOptions {
        let millis = Duration::from_millis;
        let defaults = ReplicaOptions::default();
        // What coordinators that rest have left behind stays; it must not keep the others out.
        let span = self.unfinished_span_max.saturating_mul(4 * u64::from(self.replicas));
        let decided_max = usize::try_from(span).unwrap_or(usize::MAX).min(defaults.decided_max);
        ReplicaOptions {
            id,
            replicas: self.nodes().collect(),
            seed,
            sessions_max: self.sessions_max,
            in_flight_max: self.in_flight_max,
            prepared_max: self.prepared_max,
            unfinished_span_max: self.unfinished_span_max,
            decided_max,
            waiting_reads_max: self.reads_max,
            impatient_reads_max: self.impatient_reads_max,
            tries_max: self.tries_max,
            back_off_first: millis(self.back_off_first),
            read_patience: millis(self.read_patience),
            vote_timeout: millis(self.vote_timeout),
            resend_interval: millis(self.resend_interval),
            inquire_after: millis(self.inquire_after),
            inquiries_before_peers: self.inquiries_before_peers,
            planted: self.planted.any_replica,
            ..defaults
        }
    }
}
