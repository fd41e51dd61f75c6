//! How a replica is set up: every limit, with its reason.

use alloc::vec::Vec;
use core::time::Duration;

use super::planted::Planted;
use crate::contract::NodeId;
use crate::limits::Limits;

/// What an acceptor that stopped knows when it comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AcceptorRestart {
    /// All it knew: its disk is there.
    #[default]
    Durable,
    /// Nothing. It comes back under another life, and votes only after a majority has chosen to put
    /// it in the place of its former self, and it has caught up to there.
    Rejoin,
    /// Nothing, and it votes as if it had never voted. This breaks Paxos: two batches can be chosen
    /// in one slot. For simulations that have to find that.
    Amnesia,
}

/// How a replica is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaOptions {
    /// This replica.
    pub id: NodeId,
    /// The acceptors that a new cluster begins with, the same for all of them. Afterwards the log
    /// says who they are.
    pub founders: Vec<NodeId>,
    /// Which life a replica with an empty log votes under. Zero is a founder's; a replica whose disk
    /// was lost takes a number that it never had, a greater one.
    pub life: u64,
    /// For election timeouts. Different on each replica, or they all campaign at the same time.
    pub seed: u64,
    /// What a request may ask for.
    pub limits: Limits,
    /// How many slots may be proposed behind the last one applied (the window of Paxos Made
    /// Moderately Complex, alpha of Paxos Made Simple): membership takes effect so many slots after
    /// the command that changes it. The same on every replica of a cluster, for ever.
    pub window: u64,
    /// Slots open at a time; what comes meanwhile shares the next one. Enough for one group of a
    /// slow disk, so that batches form under load only. At most the window.
    pub pipeline_max: usize,
    /// How long a command waits for others to share its slot with, while slots are open. The smallest
    /// wait there is lets share what the shell hands over in one turn, and costs no time. Zero: a
    /// command gets a slot of its own as long as the pipeline has room.
    pub gather: Duration,
    /// Commands of one batch; it is applied in one step.
    pub batch_commands_max: usize,
    /// Bytes of keys and values of one batch, unless one command alone is larger.
    pub batch_bytes_max: usize,
    /// Requests that wait for a slot or for its outcome; more are refused as overload.
    pub requests_max: usize,
    /// Bytes of keys and values of requests that wait for a slot. Two of the largest.
    pub queue_bytes_max: usize,
    /// Bytes of batches accepted behind the last slot applied; an acceptor that lags that far takes
    /// nothing more on before it has caught up. It bounds what a checkpoint writes again.
    pub accepted_bytes_max: usize,
    /// After this a request is given up, whatever deadline it came with.
    pub request_timeout: Duration,
    /// How often a leader says that it lives. Several times in each election timeout.
    pub heartbeat_interval: Duration,
    /// How long a replica hears nothing before it doubts the leader, at least. Above the longest
    /// stall of a healthy node, twice, since both ends may stall, and a heartbeat. Heartbeats wait
    /// for no sync.
    pub election_timeout_min: Duration,
    /// At most; each wait is chosen between the two by chance, so that one wakes before the others.
    pub election_timeout_max: Duration,
    /// Campaigns that fail in a row wait twice as long each, up to so many times: duelling proposers
    /// give way to each other.
    pub backoff_doublings_max: u32,
    /// How long an answer to a prepare, an accept or a question is waited for before it is sent
    /// again.
    pub resend_interval: Duration,
    /// Bytes of batches in one promise, or in one answer to a learner; one batch may be larger.
    pub piece_bytes_max: usize,
    /// Slots in one promise, or in one answer to a learner.
    pub piece_slots_max: usize,
    /// Bytes of applied batches kept in memory for learners that lag. Who lags further gets a
    /// snapshot.
    pub retained_bytes_max: usize,
    /// The same in slots.
    pub retained_slots_max: usize,
    /// Rows of one piece of a snapshot; the shell bounds its bytes.
    pub snapshot_rows_max: u32,
    /// Snapshots held for learners at a time. Each keeps what it shows from being thrown away.
    pub snapshots_max: usize,
    /// A snapshot that nobody has asked for this long is dropped.
    pub snapshot_idle_max: Duration,
    /// Reads that wait; more are refused as overload.
    pub reads_max: usize,
    /// For how long a follower that answers a heartbeat promises nobody else anything, by its own
    /// clock. The leader then answers reads without asking. `None`: it asks, for each group of reads.
    /// At most the shortest election timeout.
    pub lease: Option<Duration>,
    /// How much faster one clock may run than another, in thousandths. A leader counts on its lease
    /// for that much less.
    pub clock_drift_permille: u32,
    /// Open sessions; the least recently used makes room.
    pub sessions_max: usize,
    /// Settled writes that a session remembers because the client may still ask for them.
    pub outstanding_per_session_max: usize,
    /// The same over all sessions, so that the table fits into one record and one message; the least
    /// recently used session makes room.
    pub outstanding_max: usize,
    /// Deadlines handled at one timer; the rest comes with the next, so that a step stays short.
    pub alarms_per_timer_max: usize,
    /// The acceptor stops and comes back, at random, about this often. To show that the others go on.
    pub fail_acceptors: Option<Duration>,
    /// Each role does, by itself.
    pub fail_roles: Option<Duration>,
    /// What an acceptor knows that comes back from that.
    pub acceptor_restart: AcceptorRestart,
    /// A bug on purpose.
    pub planted: Planted,
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        Self {
            id: NodeId(1),
            founders: Vec::from([NodeId(1)]),
            life: 0,
            seed: 0,
            limits: Limits::default(),
            window: 256,
            pipeline_max: 4,
            gather: Duration::from_nanos(1),
            batch_commands_max: 256,
            batch_bytes_max: 1 << 20,
            requests_max: 16_384,
            queue_bytes_max: 64 << 20,
            accepted_bytes_max: 128 << 20,
            request_timeout: Duration::from_secs(5),
            heartbeat_interval: Duration::from_millis(50),
            election_timeout_min: Duration::from_millis(400),
            election_timeout_max: Duration::from_millis(700),
            backoff_doublings_max: 3,
            resend_interval: Duration::from_millis(250),
            piece_bytes_max: 1 << 20,
            piece_slots_max: 1024,
            retained_bytes_max: 32 << 20,
            retained_slots_max: 65_536,
            snapshot_rows_max: 10_000,
            snapshots_max: 2,
            snapshot_idle_max: Duration::from_secs(30),
            reads_max: 16_384,
            lease: None,
            clock_drift_permille: 10,
            sessions_max: 65_536,
            outstanding_per_session_max: 1024,
            outstanding_max: 1 << 18,
            alarms_per_timer_max: 256,
            fail_acceptors: None,
            fail_roles: None,
            acceptor_restart: AcceptorRestart::Durable,
            planted: Planted::default(),
        }
    }
}

impl ReplicaOptions {
    /// # Panics
    /// If the options contradict each other: a mistake of the program, not of its user.
    pub(super) fn validate(&self) {
        assert_ne!(self.id, NodeId::COORDINATOR, "a replica has a number of its own");
        assert!(!self.founders.is_empty(), "a cluster begins with at least one replica");
        assert!(self.window > 0 && self.pipeline_max > 0, "something must be proposed");
        assert!(self.pipeline_max as u64 <= self.window, "the window bounds the open slots");
        assert!(
            self.batch_commands_max > 0 && self.piece_slots_max > 0,
            "a step must do something"
        );
        assert!(self.snapshot_rows_max > 0 && self.snapshots_max > 0, "a piece holds something");
        assert!(
            self.election_timeout_min < self.election_timeout_max,
            "between the timeouts chance needs room"
        );
        assert!(
            self.heartbeat_interval < self.election_timeout_min,
            "a leader that lives is heard in time"
        );
        assert!(
            self.lease.is_none_or(|lease| lease <= self.election_timeout_min),
            "a lease that outlives the election timeout would hold elections up"
        );
    }
}
