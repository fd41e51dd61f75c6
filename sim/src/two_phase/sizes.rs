//! How large a cluster is and how small everything else.

use std::time::Duration;

use kvorum_replication::NodeId;
use kvorum_replication::two_phase::{CommitMode, CoordinatorOptions, ParticipantOptions};
use kvorum_storage::{LogOptions, Options};

use crate::chance::Chance;
use crate::planted::Planted;

/// More than clients, so that those who are busy keep theirs, and few enough that sessions of
/// which nobody heard push others out.
const FEW_SESSIONS: usize = 8;

/// A run is to see many log files, flushes, compactions and checkpoints, and limits that are met.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// One decides alone, in one phase.
    pub(super) replicas: u32,
    log_file_bytes: u64,
    memtable_bytes: usize,
    log_bytes_max: u64,
    pub(super) checkpoint_bytes: u64,
    sessions_max: usize,
    in_flight_max: usize,
    prepared_max: usize,
    unfinished_span_max: u64,
    reads_max: usize,
    /// Milliseconds.
    vote_timeout: u64,
    resend_interval: u64,
    inquire_after: u64,
    inquiries_before_peers: u32,
    commit: Commit,
    recalled_max: usize,
    /// Milliseconds.
    catch_up_after: u64,
    catch_up_interval: u64,
    recent_bytes_max: usize,
    piece_commits_max: usize,
    snapshot_rows_max: u32,
    /// So many remain at least; as many as there are: nobody is left out.
    min_replicas: u32,
    /// Milliseconds.
    exclude_after: u64,
    join_lag_max: u64,
    /// Nodes that may come to be replicas.
    spares: u32,
    /// A lease bears less than a third.
    pub(super) drift_permille: u64,
    planted: Planted,
}

/// When the coordinator counts a transaction as committed.
#[derive(Clone, Copy, Debug)]
enum Commit {
    Always(CommitMode),
    /// It changes its mind with some of its starts.
    AsTheSeedSays,
}

impl Sizes {
    pub(super) fn new(seed: u64, planted: Planted) -> Self {
        let mut chance = Chance::new(seed, "sizes");
        let replicas = chance.weighted(&[(6, 3), (1, 1), (1, 2), (1, 5)]);
        // By a chance of their own: clusters without any are as they were before some had them.
        let spares = Chance::new(seed, "spares").weighted(&[(2, 0), (1, 1), (1, 2)]);
        Self {
            replicas,
            log_file_bytes: chance.weighted(&[(2, 2 << 10), (1, 16 << 10), (1, 256 << 10)]),
            memtable_bytes: chance.weighted(&[(2, 1 << 10), (1, 8 << 10), (1, 1 << 20)]),
            log_bytes_max: *chance.pick(&[4 << 10, 16 << 10, 1 << 20]),
            checkpoint_bytes: *chance.pick(&[256, 1 << 10, 5 << 10, 64 << 20]),
            sessions_max: *chance.pick(&[FEW_SESSIONS, 65_536]),
            in_flight_max: chance.weighted(&[(1, 2), (3, 16_384)]),
            prepared_max: chance.weighted(&[(1, 3), (3, 16_384)]),
            vote_timeout: *chance.pick(&[100, 500, 2_000]),
            resend_interval: *chance.pick(&[50, 500]),
            inquire_after: *chance.pick(&[5, 50, 1_000]),
            inquiries_before_peers: *chance.pick(&[0, 2]),
            unfinished_span_max: chance.weighted(&[(1, 8), (3, 1 << 18)]),
            reads_max: chance.weighted(&[(1, 2), (3, 16_384)]),
            commit: chance.weighted(&[
                (5, Commit::Always(CommitMode::Parallel)),
                (2, Commit::Always(CommitMode::AfterDecision)),
                (1, Commit::AsTheSeedSays),
            ]),
            recalled_max: *chance.pick(&[1, 3, 4096]),
            catch_up_after: *chance.pick(&[5, 100, 1_000]),
            catch_up_interval: *chance.pick(&[20, 500]),
            recent_bytes_max: *chance.pick(&[500, 5_000, 64 << 20]),
            piece_commits_max: *chance.pick(&[1, 3, 1024]),
            snapshot_rows_max: *chance.pick(&[1, 3, 10_000]),
            min_replicas: match replicas {
                1 => 1,
                _ if chance.one_in(2) => replicas,
                5 => *chance.pick(&[3, 4]),
                _ => replicas - 1,
            },
            exclude_after: *chance.pick(&[50, 150, 500]),
            join_lag_max: *chance.pick(&[1, 10, 4096]),
            spares,
            drift_permille: *chance.pick(&[10, 100, 300]),
            planted,
        }
    }

    pub(super) fn replicas(&self) -> impl Iterator<Item = NodeId> + use<> {
        (1..=self.replicas).map(NodeId)
    }

    /// Those that are no replicas at first, where there can be more.
    pub(super) fn spares(&self) -> impl Iterator<Item = NodeId> + use<> {
        let count = if self.has_views() { self.spares } else { 0 };
        (self.replicas + 1..=self.replicas + count).map(NodeId)
    }

    /// Whether the others may go on without a replica.
    pub(super) fn has_views(&self) -> bool {
        self.min_replicas < self.replicas
    }

    pub(super) fn may_expire_sessions(&self) -> bool {
        self.sessions_max == FEW_SESSIONS
    }

    /// Whether a transaction may be committed before its coordinator has a record of it.
    pub(super) fn may_be_parallel(&self) -> bool {
        match self.commit {
            Commit::Always(CommitMode::AfterDecision) => false,
            Commit::Always(CommitMode::Parallel) | Commit::AsTheSeedSays => true,
        }
    }

    pub(super) fn log_options(&self) -> LogOptions {
        LogOptions {
            file_bytes: self.log_file_bytes,
            planted: self.planted.storage,
            ..LogOptions::default()
        }
    }

    pub(super) fn store_options(&self) -> Options {
        Options {
            memtable_bytes: self.memtable_bytes,
            block_bytes: 256,
            segment_bytes: 2 << 10,
            level1_bytes: 4 << 10,
            level_step: 4,
            log_bytes_max: self.log_bytes_max,
            log: self.log_options(),
            planted: self.planted.storage,
            ..Options::default()
        }
    }

    pub(super) fn coordinator(&self, seed: u64) -> CoordinatorOptions {
        let commit = match self.commit {
            Commit::Always(commit) => commit,
            Commit::AsTheSeedSays if seed.is_multiple_of(2) => CommitMode::Parallel,
            Commit::AsTheSeedSays => CommitMode::AfterDecision,
        };
        CoordinatorOptions {
            replicas: self.replicas().collect(),
            commit,
            // Of a number that changes, a majority.
            min_replicas: match self.spares().next() {
                Some(_) => 0,
                None => usize::try_from(self.min_replicas).unwrap_or(usize::MAX),
            },
            exclude_after: Duration::from_millis(self.exclude_after),
            join_lag_max: self.join_lag_max,
            seed,
            sessions_max: self.sessions_max,
            in_flight_max: self.in_flight_max,
            unfinished_span_max: self.unfinished_span_max,
            reads_in_flight_max: self.reads_max,
            vote_timeout: Duration::from_millis(self.vote_timeout),
            resend_interval: Duration::from_millis(self.resend_interval),
            planted: self.planted.two_phase,
            ..CoordinatorOptions::default()
        }
    }

    pub(super) fn participant(&self, id: NodeId, seed: u64, life: u64) -> ParticipantOptions {
        let defaults = ParticipantOptions::default();
        let decided_max = usize::try_from(2 * self.unfinished_span_max).unwrap_or(usize::MAX);
        ParticipantOptions {
            id,
            life,
            seed,
            renew_interval: Duration::from_millis(self.exclude_after / 5),
            catch_up_after: Duration::from_millis(self.catch_up_after),
            catch_up_interval: Duration::from_millis(self.catch_up_interval),
            recent_bytes_max: self.recent_bytes_max,
            piece_commits_max: self.piece_commits_max,
            snapshot_rows_max: self.snapshot_rows_max,
            sessions_max: self.sessions_max,
            prepared_max: self.prepared_max,
            recalled_max: self.recalled_max,
            decided_max: decided_max.min(defaults.decided_max),
            waiting_reads_max: self.reads_max,
            inquire_after: Duration::from_millis(self.inquire_after),
            inquiries_before_peers: self.inquiries_before_peers,
            planted: self.planted.two_phase,
            ..defaults
        }
    }
}
