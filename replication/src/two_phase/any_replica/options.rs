//! How a replica is set up: every limit, with its reason.

use alloc::vec::Vec;
use core::time::Duration;

use super::planted::Planted;
use crate::contract::NodeId;
use crate::limits::Limits;

/// How a replica is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaOptions {
    /// This replica.
    pub id: NodeId,
    /// All replicas, this one included, the same on each of them, for ever: every one has to agree to
    /// every write, and their places in this list keep the numbers of their sessions apart.
    pub replicas: Vec<NodeId>,
    /// For the waits before a transaction that died is tried again, and for inquiries. Different on
    /// each replica, or they all try again at the same time.
    pub seed: u64,
    /// What a request may ask for.
    pub limits: Limits,
    /// Requests to write that are not answered; more are refused as overload. Enough for a second of
    /// writes at the speed of one disk, and little memory.
    pub in_flight_max: usize,
    /// Bytes of their keys and values. Two of the largest, or thousands of ordinary ones.
    pub in_flight_bytes_max: usize,
    /// Commits that some participant has not acknowledged. Above it nothing new is begun.
    pub unacknowledged_max: usize,
    /// How many transactions may be begun while an older one is not over. Participants remember
    /// every outcome from the oldest one on, so this bounds their memory: 24 bytes each.
    pub unfinished_span_max: u64,
    /// Retries of one write that wait for its outcome together; a client sends one at a time.
    pub retries_per_transaction_max: usize,
    /// How often a transaction that died is tried again before its client is told of the conflict.
    /// Each try makes it older compared with what is in flight, so few need many.
    pub tries_max: u32,
    /// The wait before the second try, at most; it is random, so that those who met do not meet
    /// again. About the time that a round takes.
    pub back_off_first: Duration,
    /// Each wait may be twice as long as the one before it, up to this.
    pub back_off_max: Duration,
    /// After this a write that gets no lock is given up, whatever deadline it came with.
    pub write_wait_max: Duration,
    /// How long votes are waited for before a transaction is given up. Far above a slow disk's
    /// sync, so that only a lost message, a stuck replica or a long queue runs into it.
    pub vote_timeout: Duration,
    /// How long an acknowledgement is waited for before a commit is sent again.
    pub resend_interval: Duration,
    /// Others' transactions prepared, being prepared or waiting here; the vote on more is overload.
    pub prepared_max: usize,
    /// Bytes of their keys and values. A checkpoint holds them all, and has to fit into one record of
    /// the log (64 MiB); one transaction of the largest size has to fit in here.
    pub prepared_bytes_max: usize,
    /// Bytes of promises and of own commits that are on their way to the disk: above it a checkpoint
    /// waits for the disk, since it holds both and has to fit into one record of the log.
    pub checkpoint_bytes_max: usize,
    /// Outcomes remembered because they may not be over everywhere.
    pub decided_max: usize,
    /// Reads that wait for the outcome of a prepared transaction.
    pub waiting_reads_max: usize,
    /// How long such a read waits at most; somebody in doubt that long needs its coordinator back.
    pub read_wait_max: Duration,
    /// After this a waiting read makes younger transactions that would write its keys die. Above a
    /// healthy round, so that ordinary reads disturb nobody.
    pub read_patience: Duration,
    /// Reads that may do so at a time; each prepare is compared with them all.
    pub impatient_reads_max: usize,
    /// How long after its vote a participant begins to ask for the outcome. Longer than a healthy
    /// round takes, shorter than an operator's patience.
    pub inquire_after: Duration,
    /// Each inquiry waits twice as long as the one before it, up to this.
    pub inquire_interval_max: Duration,
    /// After so many inquiries of the coordinator the other participants are asked too; at once if
    /// there is no link to the coordinator.
    pub inquiries_before_peers: u32,
    /// Deadlines handled at one timer; the rest comes with the next, so that a step stays short
    /// and a thousand transactions in doubt do not flood the network.
    pub alarms_per_timer_max: usize,
    /// Open sessions; the least recently used makes room.
    pub sessions_max: usize,
    /// Settled writes that a session remembers because the client may still ask for them.
    pub outstanding_per_session_max: usize,
    /// The same over all sessions, so that a checkpoint fits into one record; the least recently
    /// used session makes room.
    pub outstanding_max: usize,
    /// A bug on purpose.
    pub planted: Planted,
}

impl Default for ReplicaOptions {
    fn default() -> Self {
        Self {
            id: NodeId(1),
            replicas: Vec::from([NodeId(1)]),
            seed: 0,
            limits: Limits::default(),
            in_flight_max: 16_384,
            in_flight_bytes_max: 64 << 20,
            unacknowledged_max: 65_536,
            unfinished_span_max: 1 << 17,
            retries_per_transaction_max: 16,
            tries_max: 64,
            back_off_first: Duration::from_millis(2),
            back_off_max: Duration::from_millis(100),
            write_wait_max: Duration::from_secs(10),
            vote_timeout: Duration::from_secs(2),
            resend_interval: Duration::from_millis(500),
            prepared_max: 16_384,
            prepared_bytes_max: 40 << 20,
            checkpoint_bytes_max: 44 << 20,
            decided_max: 1 << 19,
            waiting_reads_max: 16_384,
            read_wait_max: Duration::from_secs(10),
            read_patience: Duration::from_millis(20),
            impatient_reads_max: 64,
            inquire_after: Duration::from_secs(1),
            inquire_interval_max: Duration::from_secs(8),
            inquiries_before_peers: 2,
            alarms_per_timer_max: 256,
            sessions_max: 65_536,
            outstanding_per_session_max: 1024,
            outstanding_max: 1 << 20,
            planted: Planted::default(),
        }
    }
}
