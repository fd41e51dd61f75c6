//! What coordinator and participants keep in their logs.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use super::message::{Commit, CommitNumber, Decision, Parallel, TxnId};
use super::options::CommitMode;
use crate::contract::NodeId;
use crate::request::{ClientId, Key, Stamp, Writes};
use crate::sessions::Sessions;

/// What the coordinator keeps: presumed abort, so nothing before a commit, and nothing of an abort
/// unless the transaction would be committed without a word of the coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoordinatorRecord {
    /// A new incarnation, durable before its first transaction.
    Started {
        /// One more than the last.
        epoch: u64,
        /// How its transactions are committed.
        commit: CommitMode,
    },
    /// A session was given out.
    SessionOpened {
        /// To this client.
        client: ClientId,
    },
    /// The decision to commit: the moment at which the transaction happens, unless it has happened
    /// with the last promise already.
    Committed {
        /// Which.
        txn: TxnId,
        /// Its place in the serial order: one more than that of the record of this kind before it.
        number: CommitNumber,
        /// Of the client's request, so that a retry after a restart finds it.
        stamp: Option<Stamp>,
        /// Who has to be told, until each has acknowledged.
        participants: Arc<[NodeId]>,
    },
    /// The decision to abort a parallel transaction that participants were asked to prepare. Durable
    /// before anybody is told: all of them may come to be prepared after all.
    Aborted {
        /// Which.
        txn: TxnId,
        /// Everything below was over, durably: of those no abort has to be remembered.
        finished_below: TxnId,
    },
    /// Every participant has acknowledged: nobody will ask again.
    Ended {
        /// Which.
        txn: TxnId,
    },
    /// Which replicas a write needs from here on. Durable before anything counts as committed without
    /// those that it leaves out. It stands behind a checkpoint too.
    View(Box<View>),
    /// All that the records before it say and is still needed.
    Checkpoint(Box<CoordinatorCheckpoint>),
}

/// Which replicas a write needs, and what they were told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Counts from 1; views of one number leave out the same.
    pub number: u64,
    /// All replicas of the cluster, in the order of their numbers: the members, and those that are
    /// left out. None in a log from before they could change: those that the coordinator is started
    /// with.
    pub replicas: Vec<NodeId>,
    /// The greatest number that a replica ever had: no other is given a number up to it.
    pub highest: NodeId,
    /// Those that a write needs, in the order of their numbers.
    pub members: Vec<Member>,
    /// A view with fewer does not follow on this one.
    pub min_replicas: usize,
    /// No replica was granted a longer lease.
    pub lease: Duration,
    /// Whether all replicas know, durably, that they need a lease, and whom to ask without one. None
    /// is left out before.
    pub is_founded: bool,
    /// Of replicas that are left out, those that have not answered a coordinator that started.
    pub missed: Vec<Missed>,
}

impl View {
    /// What the view says of this replica, if it is a member.
    #[must_use]
    pub fn member(&self, replica: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.replica == replica)
    }
}

/// A replica that was not there when a coordinator started. Commits behind those in the log may have
/// been given other numbers then than it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missed {
    /// Which.
    pub replica: NodeId,
    /// The coordinator's epoch, the first such.
    pub epoch: u64,
    /// Up to this commit the log said which is which.
    pub commits: CommitNumber,
}

/// A replica that writes need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub replica: NodeId,
    /// From this transaction on.
    pub from: TxnId,
}

/// The coordinator's whole durable state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorCheckpoint {
    /// The newest incarnation.
    pub epoch: u64,
    /// The newest one that committed in parallel; 0 for none.
    pub parallel_epoch: u64,
    /// Everything below is over.
    pub finished_below: TxnId,
    /// All sessions.
    pub sessions: SessionTable,
    /// The newest commit's number.
    pub commits: CommitNumber,
    /// Committed, not acknowledged by everybody.
    pub committed: Vec<CommittedState>,
    /// Parallel, from `finished_below` on, and aborted.
    pub aborted: Vec<TxnId>,
}

/// A commit of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedState {
    /// Which.
    pub txn: TxnId,
    /// Its place in the serial order.
    pub number: CommitNumber,
    /// Who has to be told, until each has acknowledged.
    pub participants: Arc<[NodeId]>,
}

/// The sessions of a checkpoint, least recently used first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionTable {
    /// At the coordinator, the next session's number. At a participant, which learns of sessions
    /// from the writes it commits alone, one more than the greatest that was evicted: an unlisted
    /// one below this is expired, not new.
    pub next_client: u64,
    /// Each open session.
    pub sessions: Vec<SessionState>,
}

impl SessionTable {
    pub(super) fn of(sessions: &Sessions<()>) -> Self {
        let state = |(client, answered_below, settled): (_, _, &BTreeMap<u64, ()>)| SessionState {
            client,
            answered_below,
            committed: settled.keys().copied().collect(),
        };
        Self {
            next_client: sessions.next_client().0,
            sessions: sessions.list().map(state).collect(),
        }
    }

    pub(super) fn restore_into(self, sessions: &mut Sessions<()>) {
        let states = self.sessions.into_iter().map(|state| {
            let settled = state.committed.into_iter().map(|sequence| (sequence, ())).collect();
            (state.client, state.answered_below, settled)
        });
        sessions.restore(self.next_client, states);
    }
}

/// One session of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionState {
    /// Whose.
    pub client: ClientId,
    /// The client will not ask for writes below this one.
    pub answered_below: u64,
    /// The committed writes from there on, in order.
    pub committed: Vec<u64>,
}

/// What a participant keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParticipantRecord {
    /// A new incarnation.
    Started {
        /// One more than the last.
        incarnation: u64,
    },
    /// The promise to commit if told so, with all that is needed to do it. Durable before the vote.
    Prepared(Box<Prepared>),
    /// The promise to a restarted coordinator to prepare nothing of an older epoch any more. Durable
    /// before the answer.
    Promised {
        /// The coordinator's.
        epoch: u64,
    },
    /// The outcome of a prepared transaction; or, of one that never was prepared here, the promise
    /// never to vote yes on it (always an abort).
    Decided {
        /// Which.
        txn: TxnId,
        /// How it ended.
        decision: Decision,
    },
    /// There is this view: fresh reads need a lease from now on, or the word of others that they know
    /// of no newer one. Durable before the coordinator is told so. It stands behind a checkpoint too.
    View {
        /// Its number.
        number: u64,
        /// How many others have to say so.
        others: usize,
    },
    /// One phase: prepared and committed in one record.
    CommittedAlone {
        /// Which.
        txn: TxnId,
        /// Of the client's request.
        stamp: Option<Stamp>,
        /// In order; the last write of a key wins.
        writes: Writes,
    },
    /// All that the records before it say and is still needed.
    Checkpoint(Box<ParticipantCheckpoint>),
    /// Commits that were never prepared here, learnt from another replica. They follow on those
    /// applied before.
    Learned {
        /// Of the coordinator, everything below is over: outcomes below need not be remembered.
        finished_below: TxnId,
        /// In the order of their numbers.
        commits: Vec<Commit>,
    },
    /// The rows of another replica have taken the place of those here.
    Installed {
        /// The mark under which they were staged: above those of all that was applied before.
        mark: u64,
        /// The whole state then; it stands for every record before it.
        checkpoint: Box<ParticipantCheckpoint>,
    },
    /// This replica has lost what it had promised, and takes part in nothing from here on.
    Outside {
        /// Which life this is.
        life: u64,
    },
    /// It takes part again.
    Joined {
        /// Which life this is.
        life: u64,
        /// As in the message.
        from: TxnId,
        /// As in the message.
        serve_from: CommitNumber,
    },
}

/// A transaction that a participant has promised to commit if told so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Which.
    pub txn: TxnId,
    /// Everybody who votes on it.
    pub participants: Arc<[NodeId]>,
    /// What a commit applies; these keys are locked for others and for reads.
    pub writes: Writes,
    /// Keys that preconditions speak of and no write does: locked for writers only.
    pub checked: Vec<Key>,
    /// As in the prepare message.
    pub finished_below: TxnId,
    /// As in the prepare message.
    pub parallel: Option<Parallel>,
}

/// An outcome of a participant's checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecidedState {
    /// Of which.
    pub txn: TxnId,
    /// How it ended.
    pub decision: Decision,
    /// Of a parallel commit, what its coordinator may have lost with the record of it.
    pub pledge: Option<Pledge>,
}

/// What the promises on a parallel transaction say, without the writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pledge {
    /// Everybody who has promised.
    pub participants: Arc<[NodeId]>,
    /// Of the client's request.
    pub stamp: Option<Stamp>,
}

/// What a participant knows of how far a coordinator has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoordinatorProgress {
    /// Whose progress, and below what everything is over.
    pub finished_below: TxnId,
    /// Its newest commit that was applied here; all before it were too.
    pub applied: CommitNumber,
}

/// A participant's whole durable state, without the data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParticipantCheckpoint {
    /// The newest incarnation.
    pub incarnation: u64,
    /// The newest epoch promised to a restarted coordinator; 0 for none.
    pub promised: u64,
    /// In doubt.
    pub prepared: Vec<Prepared>,
    /// Decided, and not yet known to be over everywhere.
    pub decided: Vec<DecidedState>,
    /// How far each coordinator has come.
    pub coordinators: Vec<CoordinatorProgress>,
    /// Sessions whose writes this participant committed alone.
    pub sessions: SessionTable,
}

/// What follows from the commits up to one, besides the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replicated {
    /// Up to which.
    pub applied: CommitNumber,
    /// Of the coordinator, everything below is over.
    pub finished_below: TxnId,
    /// The commits that are not over.
    pub committed: Vec<AppliedState>,
    /// Of the coordinator that their numbers are from, as in a decision.
    pub epoch: u64,
}

/// A commit that is applied and not over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedState {
    /// Which.
    pub txn: TxnId,
    /// Its place in the serial order.
    pub number: CommitNumber,
    /// As in [`DecidedState::pledge`].
    pub pledge: Option<Pledge>,
}
