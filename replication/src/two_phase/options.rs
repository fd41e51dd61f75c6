//! How the two cores are set up: every limit, with its reason.

use alloc::vec::Vec;
use core::time::Duration;

use super::planted::Planted;
use crate::contract::NodeId;
use crate::limits::Limits;

/// When a transaction counts as committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommitMode {
    /// When every participant's promise is durable (parallel commit). The coordinator tells everybody
    /// at once, and its own record follows.
    #[default]
    Parallel,
    /// When the coordinator's own record is durable, which it waits for (presumed abort).
    AfterDecision,
}

/// How a coordinator is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorOptions {
    /// The replicas: every one that is not left out has to agree to every write. With exactly one, it
    /// decides alone. Once they have changed, or one was left out, the log says which they are.
    pub replicas: Vec<NodeId>,
    /// How many there may be.
    pub replicas_max: usize,
    /// A replica that is silent is left out as long as so many remain; 0 stands for a majority of as
    /// many as there are. As many as there are, or more: none ever is. Changing it to fewer takes
    /// effect once all replicas are there.
    pub min_replicas: usize,
    /// How long a replica may be silent before it is left out. Above a slow disk's sync, and what a
    /// busy machine keeps a process waiting: to leave one out that is merely slow costs a catch-up.
    pub exclude_after: Duration,
    /// When a transaction of several replicas counts as committed.
    pub commit: CommitMode,
    /// For the choice of the replica that a read goes to.
    pub seed: u64,
    /// A replica that was left out and is back may lag by so many commits when it is taken in again.
    /// New transactions wait until it has them: less than the blink of an eye.
    pub join_lag_max: u64,
    /// What a request may ask for.
    pub limits: Limits,
    /// Transactions begun and not ended; more are refused as overload. Enough for a second of
    /// writes at the speed of one disk, and little memory.
    pub in_flight_max: usize,
    /// Bytes of keys and values of transactions that wait for votes. Two of the largest, or
    /// thousands of ordinary ones.
    pub in_flight_bytes_max: usize,
    /// How many transactions may be begun while an older one is not over. Participants remember
    /// every outcome from the oldest one on, so this bounds their memory: 16 bytes each.
    pub unfinished_span_max: u64,
    /// Retries of one write that wait for its outcome together; a client sends one at a time.
    pub retries_per_transaction_max: usize,
    /// Reads that wait for a replica's answer; more are refused as overload.
    pub reads_in_flight_max: usize,
    /// While so many batches of transactions wait for votes, those that begin are gathered into the
    /// next: two, so that one is on its way while the other is synced. Without limit none is gathered.
    pub batches_voting_max: usize,
    /// How long a transaction is gathered at most: a batch may have to wait for a lost vote.
    pub gather_max: Duration,
    /// How long votes are waited for before a transaction is given up. Far above a slow disk's
    /// sync, so that only a lost message or a stuck replica runs into it.
    pub vote_timeout: Duration,
    /// How long an acknowledgement is waited for before a commit is sent again.
    pub resend_interval: Duration,
    /// How long one replica may take over a read before another is asked as well.
    pub read_retry_interval: Duration,
    /// After this a read is given up, whatever deadline it came with.
    pub read_timeout: Duration,
    /// Deadlines handled at one timer; the rest comes with the next, so that a step stays short.
    pub alarms_per_timer_max: usize,
    /// Open sessions; the least recently used makes room.
    pub sessions_max: usize,
    /// Committed writes that a session remembers because the client may still ask for them.
    pub outstanding_per_session_max: usize,
    /// The same over all sessions, so that a checkpoint fits into one record; the least recently
    /// used session makes room.
    pub outstanding_max: usize,
    /// A bug on purpose.
    pub planted: Planted,
}

impl Default for CoordinatorOptions {
    fn default() -> Self {
        Self {
            replicas: Vec::new(),
            replicas_max: 31,
            min_replicas: usize::MAX,
            exclude_after: Duration::from_millis(500),
            commit: CommitMode::default(),
            seed: 0,
            join_lag_max: 4096,
            limits: Limits::default(),
            in_flight_max: 16_384,
            in_flight_bytes_max: 64 << 20,
            unfinished_span_max: 1 << 18,
            retries_per_transaction_max: 16,
            reads_in_flight_max: 16_384,
            batches_voting_max: 2,
            gather_max: Duration::from_millis(2),
            vote_timeout: Duration::from_secs(2),
            resend_interval: Duration::from_millis(500),
            read_retry_interval: Duration::from_secs(1),
            read_timeout: Duration::from_secs(30),
            alarms_per_timer_max: 1024,
            sessions_max: 65_536,
            outstanding_per_session_max: 1024,
            outstanding_max: 1 << 20,
            planted: Planted::default(),
        }
    }
}

/// How a participant is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParticipantOptions {
    /// This replica.
    pub id: NodeId,
    /// Which life of this replica begins if its disk is empty: 0 for one that never had another,
    /// else greater than those before, and then it takes part in nothing before it is let in again.
    /// A disk that is not empty says it itself.
    pub life: u64,
    /// Spreads the inquiries of participants that fell into doubt together.
    pub seed: u64,
    /// What a transaction or a read may ask for.
    pub limits: Limits,
    /// Transactions prepared or being prepared; the vote on more is overload. A coordinator begins
    /// no more than this.
    pub prepared_max: usize,
    /// Bytes of their keys and values. A checkpoint holds them all, and has to fit into one record
    /// of the log (64 MiB); one transaction of the largest size has to fit in here.
    pub prepared_bytes_max: usize,
    /// Outcomes remembered because they may not be over everywhere: twice what a coordinator
    /// allows itself, for those of an earlier epoch.
    pub decided_max: usize,
    /// Transactions in one answer to a restarted coordinator, which asks for the rest: some hundred
    /// kilobytes.
    pub recalled_max: usize,
    /// Reads that wait for the outcome of a prepared transaction.
    pub waiting_reads_max: usize,
    /// How long such a read waits at most; somebody in doubt that long needs the coordinator back.
    pub read_wait_max: Duration,
    /// How long after its vote a participant begins to ask for the outcome. Longer than a healthy
    /// round takes, shorter than an operator's patience.
    pub inquire_after: Duration,
    /// Each inquiry waits twice as long as the one before it, up to this.
    pub inquire_interval_max: Duration,
    /// After so many inquiries of the coordinator the other participants are asked too.
    pub inquiries_before_peers: u32,
    /// How often a replica that has no lease asks for one, and others for the view they know.
    pub renew_interval: Duration,
    /// Deadlines handled at one timer; the rest comes with the next, so that a step stays short
    /// and a thousand transactions in doubt do not flood the network.
    pub alarms_per_timer_max: usize,
    /// One phase: sessions whose writes are remembered; not below the coordinator's, or a retry
    /// could be told that its session has expired although it has not.
    pub sessions_max: usize,
    /// One phase: as the coordinator's limit of this name.
    pub outstanding_per_session_max: usize,
    /// One phase: as the coordinator's limit of this name.
    pub outstanding_max: usize,
    /// How long a gap in the commits may last before another replica is asked. Above the
    /// coordinator's `resend_interval`: mostly a message was lost, and comes again.
    pub catch_up_after: Duration,
    /// How long one replica may take to answer before another is asked; twice as long each time
    /// that nothing comes of it.
    pub catch_up_interval: Duration,
    /// At most so long.
    pub catch_up_interval_max: Duration,
    /// Bytes of recent commits kept in memory for replicas that lag: seconds of writes at full
    /// speed. Who lags further gets a snapshot.
    pub recent_bytes_max: usize,
    /// Bytes of commits in one answer to a replica that lags; one commit may be larger.
    pub piece_bytes_max: usize,
    /// Commits in one answer.
    pub piece_commits_max: usize,
    /// Rows of one piece of a snapshot; the shell bounds its bytes.
    pub snapshot_rows_max: u32,
    /// Snapshots held for others at a time. Each keeps what it shows from being thrown away.
    pub snapshots_max: usize,
    /// A snapshot that nobody has asked for this long is dropped.
    pub snapshot_idle_max: Duration,
    /// A bug on purpose.
    pub planted: Planted,
}

impl Default for ParticipantOptions {
    fn default() -> Self {
        Self {
            id: NodeId(1),
            life: 0,
            seed: 0,
            limits: Limits::default(),
            prepared_max: 16_384,
            prepared_bytes_max: 40 << 20,
            decided_max: 1 << 19,
            recalled_max: 4096,
            waiting_reads_max: 16_384,
            read_wait_max: Duration::from_secs(10),
            inquire_after: Duration::from_secs(1),
            inquire_interval_max: Duration::from_secs(8),
            inquiries_before_peers: 2,
            renew_interval: Duration::from_millis(100),
            alarms_per_timer_max: 256,
            sessions_max: 65_536,
            outstanding_per_session_max: 1024,
            outstanding_max: 1 << 20,
            catch_up_after: Duration::from_secs(1),
            catch_up_interval: Duration::from_millis(500),
            catch_up_interval_max: Duration::from_secs(8),
            recent_bytes_max: 64 << 20,
            piece_bytes_max: 1 << 20,
            piece_commits_max: 1024,
            snapshot_rows_max: 10_000,
            snapshots_max: 2,
            snapshot_idle_max: Duration::from_secs(30),
            planted: Planted::default(),
        }
    }
}
