//! What clients ask for and what they are told, the same under every protocol.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

use bytes::Bytes;

use crate::contract::{NodeId, RequestId, Time};

/// Any bytes, 1 B to 64 KiB.
pub type Key = Bytes;
/// Any bytes, 0 B to 16 MiB.
pub type Value = Bytes;
/// A key with its value.
pub type Row = (Key, Value);

/// Names a client session. Given out by the cluster, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

/// Makes a retry of a write exactly once (Raft dissertation §6.3): the same stamp, the same write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The session.
    pub client: ClientId,
    /// The write's number within the session, from 1.
    pub sequence: u64,
    /// The client knows the outcome of every write below this one and will not ask again.
    pub answered_below: u64,
}

/// A client's request as it reaches a core.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// For the reply.
    pub id: RequestId,
    /// After this time nobody waits for the reply.
    pub deadline: Time,
    /// What is asked.
    pub operation: Operation,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Begin a session, for the stamps of later writes.
    OpenSession,
    /// Read; linearizable.
    Read(Query),
    /// Read what the replica that is asked holds at that moment, be it old: for when only few
    /// replicas are left, or speed is worth more. A prefix of the one order all the same.
    ReadStale(Query),
    /// Write, all or nothing, if every precondition holds; strictly serializable.
    Transact {
        /// Makes a retry harmless; without one a repeated request is a new one.
        stamp: Option<Stamp>,
        /// What to write.
        transaction: Transaction,
    },
    /// Have these replicas, and no others, take part; under protocols that can change it.
    ChangeMembers {
        /// All of them, those that stay included.
        members: Vec<NodeId>,
    },
    /// Have one replica more, or one less; under two-phase commit with a coordinator. Whoever asks
    /// again for what is so already is told that it is done.
    ChangeReplicas(ReplicaChange),
}

/// How the replicas of a cluster with a coordinator change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaChange {
    /// This one belongs to the cluster from now on. It takes part once it has caught up. Its number
    /// is above those of all replicas that there ever were.
    Add(NodeId),
    /// This one does not belong to it any more, and its number is nobody's from now on.
    Remove(NodeId),
}

/// A question to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// The value of one key.
    Get(Key),
    /// The values of several keys at one point in time, answered in the same order.
    GetMany(Vec<Key>),
    /// The rows of a range at one point in time.
    Scan(Range),
    /// The next rows of a scan, all of whose pages show one point in time.
    Page(Page),
}

impl Query {
    /// Whether this is an answer to such a question; a failure always is.
    #[must_use]
    pub fn accepts(&self, answer: &Answer) -> bool {
        match (self, answer) {
            (_, Answer::Failed(_))
            | (Self::Get(_), Answer::Value(_))
            | (Self::Scan(_), Answer::Rows { .. })
            | (Self::Page(_), Answer::Page { .. } | Answer::NotHeld | Answer::TooManyHeld)
            | (Self::GetMany(_), Answer::TooLarge { .. }) => true,
            (Self::GetMany(keys), Answer::Values(values)) => keys.len() == values.len(),
            (
                Self::Get(_) | Self::GetMany(_) | Self::Scan(_) | Self::Page(_),
                Answer::Value(_)
                | Answer::Values(_)
                | Answer::Rows { .. }
                | Answer::Page { .. }
                | Answer::NotHeld
                | Answer::TooManyHeld
                | Answer::TooLarge { .. },
            ) => false,
        }
    }

    /// The replica that alone can answer, since it holds what is asked of.
    #[must_use]
    pub fn holder(&self) -> Option<NodeId> {
        match self {
            Self::Page(Page { of: Some(held), .. }) => Some(held.by),
            Self::Get(_) | Self::GetMany(_) | Self::Scan(_) | Self::Page(_) => None,
        }
    }
}

/// Part of a scan that takes several answers. The first page is read like any scan; the replica
/// that answers it holds the snapshot that it has answered from, and the other pages are read of
/// that, whatever was written since. So the scan as a whole happened when its first page was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// What is left of the scan's range. Keys outside of the first page's range are not at one point
    /// in time with it under every protocol.
    pub range: Range,
    /// None follows, unless this one is cut short: once it has as many rows as asked for, the
    /// snapshot is not needed any more.
    pub last: bool,
    /// Of which snapshot; without one, of a new one.
    pub of: Option<Held>,
}

/// Names a snapshot that a replica holds for the pages of a scan. It is held for a while after each
/// page, does not outlive the process, and is not given out twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Held {
    /// The replica.
    pub by: NodeId,
    /// Which run of it.
    pub run: u64,
    /// Counts those of the run, from 1.
    pub number: u64,
}

/// Keys from `start` up to and without `end`, in byte order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first key that belongs to it.
    pub start: Key,
    /// The first key that does not; `None` has no end.
    pub end: Option<Key>,
    /// At most this many rows.
    pub limit: u32,
}

impl Range {
    /// Whether the key lies between the bounds.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= &self.start[..] && self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

/// The store's answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To [`Query::Get`].
    Value(Option<Value>),
    /// To [`Query::GetMany`].
    Values(Vec<Option<Value>>),
    /// To [`Query::Scan`].
    Rows {
        /// In byte order of the keys.
        rows: Vec<Row>,
        /// Whether the range holds more than the limits of rows and bytes let through.
        more: bool,
    },
    /// To [`Query::Page`].
    Page {
        /// In byte order of the keys.
        rows: Vec<Row>,
        /// Whether the range holds more than the limits of rows and bytes let through.
        more: bool,
        /// Of which snapshot the next page is to be read, if the scan goes on.
        held: Option<Held>,
    },
    /// To [`Query::Page`]: the snapshot is not held any more, or not here.
    NotHeld,
    /// To [`Query::Page`]: the snapshot cannot be held, since too many are.
    TooManyHeld,
    /// To [`Query::GetMany`]: the values are too many bytes for one answer.
    TooLarge {
        /// How many, or more.
        bytes: u64,
    },
    /// The store could not read: corrupt or failing. Says what and where.
    Failed(String),
}

/// Bytes of the values that one [`Query::GetMany`] is answered with: they have to fit into a message
/// with room to spare.
pub const ANSWER_BYTES_MAX: usize = 24 << 20;

impl Answer {
    /// What a client is told, by the replica that its store answered so.
    #[must_use]
    pub fn into_outcome(self) -> Outcome {
        Outcome::Failed(match self.sized() {
            Self::Failed(reason) => Failure::Storage { reason },
            Self::NotHeld => Failure::SnapshotExpired,
            Self::TooManyHeld => Failure::Overloaded,
            Self::TooLarge { bytes } => Failure::Invalid {
                reason: format!(
                    "the values have {bytes} bytes together; at most {ANSWER_BYTES_MAX} are \
                     answered at once"
                ),
            },
            answer @ (Self::Value(_) | Self::Values(_) | Self::Rows { .. } | Self::Page { .. }) => {
                return Outcome::Answer(answer);
            }
        })
    }

    /// The same, unless it is too large to be told.
    #[must_use]
    pub fn sized(self) -> Self {
        let Self::Values(values) = &self else { return self };
        let bytes = values.iter().flatten().map(Bytes::len).fold(0, usize::saturating_add);
        match bytes > ANSWER_BYTES_MAX {
            true => Self::TooLarge { bytes: bytes as u64 },
            false => self,
        }
    }

    /// The same, held by this replica.
    #[must_use]
    pub fn held_by(self, replica: NodeId) -> Self {
        match self {
            Self::Page { rows, more, held: Some(held) } => {
                Self::Page { rows, more, held: Some(Held { by: replica, ..held }) }
            }
            answer => answer,
        }
    }
}

/// Writes that happen together, if all preconditions hold at that moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// All must hold.
    pub preconditions: Vec<Precondition>,
    /// In order; the last write of a key wins.
    pub writes: Vec<Write>,
}

/// Writes to apply, or to keep: a list of their own, or those of a transaction, shared with whoever
/// else keeps it.
#[derive(Clone)]
pub enum Writes {
    /// These.
    List(Vec<Write>),
    /// All of the transaction's.
    Of(Arc<Transaction>),
}

impl Writes {
    /// As a list of their own.
    #[must_use]
    pub fn into_list(self) -> Vec<Write> {
        match self {
            Self::List(list) => list,
            Self::Of(transaction) => transaction.writes.clone(),
        }
    }

    /// The transaction that consists of them.
    #[must_use]
    pub fn into_transaction(self) -> Arc<Transaction> {
        match self {
            Self::Of(transaction) if transaction.preconditions.is_empty() => transaction,
            writes => {
                let (preconditions, writes) = (Vec::new(), writes.into_list());
                Arc::new(Transaction { preconditions, writes })
            }
        }
    }
}

impl Deref for Writes {
    type Target = [Write];

    fn deref(&self) -> &[Write] {
        match self {
            Self::List(list) => list,
            Self::Of(transaction) => &transaction.writes,
        }
    }
}

impl From<Vec<Write>> for Writes {
    fn from(list: Vec<Write>) -> Self {
        Self::List(list)
    }
}

impl fmt::Debug for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl PartialEq for Writes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Writes {}

impl Transaction {
    /// Bytes of all its keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let checked = self.preconditions.iter().map(Precondition::bytes);
        checked.chain(self.writes.iter().map(Write::bytes)).fold(0, usize::saturating_add)
    }
}

/// What must hold of a key for a transaction to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The key is not there.
    Absent(Key),
    /// The key is there, whatever its value.
    Present(Key),
    /// The key is there and has this value.
    Equals(Key, Value),
}

impl Precondition {
    /// The key it speaks of.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Absent(key) | Self::Present(key) | Self::Equals(key, _) => key,
        }
    }

    /// Bytes of its key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Absent(key) | Self::Present(key) => key.len(),
            Self::Equals(key, value) => key.len().saturating_add(value.len()),
        }
    }

    /// Whether it holds of a key with this value.
    #[must_use]
    pub fn holds(&self, value: Option<&Value>) -> bool {
        match self {
            Self::Absent(_) => value.is_none(),
            Self::Present(_) => value.is_some(),
            Self::Equals(_, expected) => value == Some(expected),
        }
    }
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Set the key's value.
    Put(Key, Value),
    /// Remove the key; removing what is not there is fine.
    Delete(Key),
}

impl Write {
    /// The key it changes.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }

    /// Bytes of its key and value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len().saturating_add(value.len()),
            Self::Delete(key) => key.len(),
        }
    }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The session is open and will survive a crash.
    Session(ClientId),
    /// The transaction happened, durably.
    Committed,
    /// The answer to a read.
    Answer(Answer),
    /// It did not end well.
    Failed(Failure),
}

/// Whether a failed request changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Happened {
    /// It did not and will not.
    No,
    /// It may have, or may yet.
    Unknown,
}

/// Why a request did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Another transaction in flight holds this key. Did not happen; trying again may work.
    Conflict {
        /// The contended key.
        key: Key,
    },
    /// A precondition does not hold. Did not happen.
    PreconditionFailed {
        /// Its place in the transaction's list, from 0.
        index: u32,
        /// The key it speaks of.
        key: Key,
    },
    /// Too little of the cluster can be reached. Did not happen.
    Unavailable {
        /// Who is missing, and what was needed.
        reason: String,
    },
    /// Too much is in flight. Did not happen.
    Overloaded,
    /// The snapshot of this scan is not held any more: it was left alone for too long, or its
    /// replica has started anew.
    SnapshotExpired,
    /// It may have happened or not: the deadline came first.
    Unknown {
        /// What was being waited for.
        reason: String,
    },
    /// The session is not known any more, so it can't be told whether this write already happened.
    SessionExpired,
    /// The client said it would not ask for this write again.
    StaleSequence,
    /// The request breaks a limit or a rule. Did not happen.
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
    /// This node does not serve such requests; that one does.
    Redirect {
        /// Whom to ask.
        to: NodeId,
    },
    /// There is no room on a disk for what would have to be remembered; reads go on, and so do
    /// writes once there is room. Did not happen.
    DiskFull {
        /// Whose disk.
        node: NodeId,
    },
    /// A store is corrupt or its disk fails. Did not happen.
    Storage {
        /// What and where.
        reason: String,
    },
}

impl Failure {
    /// Whether the request may have changed something.
    #[must_use]
    pub fn happened(&self) -> Happened {
        match self {
            Self::Unknown { .. } | Self::SessionExpired | Self::StaleSequence => Happened::Unknown,
            Self::Conflict { .. }
            | Self::PreconditionFailed { .. }
            | Self::Unavailable { .. }
            | Self::Overloaded
            | Self::SnapshotExpired
            | Self::Invalid { .. }
            | Self::Redirect { .. }
            | Self::DiskFull { .. }
            | Self::Storage { .. } => Happened::No,
        }
    }
}
