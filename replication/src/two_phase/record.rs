//! What coordinator and participants keep in their logs.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::message::{CommitNumber, Decision, Parallel, TxnId};
use super::options::CommitMode;
use crate::contract::NodeId;
use crate::request::{ClientId, Key, Stamp, Write};
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
    /// All that the records before it say and is still needed.
    Checkpoint(Box<CoordinatorCheckpoint>),
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
    /// One phase: prepared and committed in one record.
    CommittedAlone {
        /// Which.
        txn: TxnId,
        /// Of the client's request.
        stamp: Option<Stamp>,
        /// In order; the last write of a key wins.
        writes: Vec<Write>,
    },
    /// All that the records before it say and is still needed.
    Checkpoint(Box<ParticipantCheckpoint>),
}

/// A transaction that a participant has promised to commit if told so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Which.
    pub txn: TxnId,
    /// Everybody who votes on it.
    pub participants: Arc<[NodeId]>,
    /// What a commit applies; these keys are locked for others and for reads.
    pub writes: Vec<Write>,
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
