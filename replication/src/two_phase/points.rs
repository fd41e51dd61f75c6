//! The fail points of two-phase commit: the moments between two steps of the protocol at which a
//! test makes a process die or pause, to see what the others and its successor make of it.

pub use crate::points::Point;

/// Before anything is done about a transaction.
pub const COORDINATOR_BEFORE_BEGIN: &str = "coordinator-before-begin";
/// The transaction has its number and its locks; no prepare is sent.
pub const COORDINATOR_BEGUN: &str = "coordinator-begun";
/// The first prepare of several is sent.
pub const COORDINATOR_SOME_PREPARES_SENT: &str = "coordinator-some-prepares-sent";
/// All votes are yes; the decision is not in the log.
pub const COORDINATOR_ALL_VOTES: &str = "coordinator-all-votes";
/// The decision is in the log and not durable. Marked right before its record: the shell appends
/// and writes the step's records, without a sync, before it acts on this point.
pub const COORDINATOR_DECISION_WRITTEN: &str = "coordinator-decision-written";
/// The decision is durable and nobody was told.
pub const COORDINATOR_DECISION_DURABLE: &str = "coordinator-decision-durable";
/// The first participant of several was told.
pub const COORDINATOR_SOME_TOLD: &str = "coordinator-some-told";
/// All participants were told, the client was not.
pub const COORDINATOR_BEFORE_REPLY: &str = "coordinator-before-reply";
/// The client was told.
pub const COORDINATOR_AFTER_REPLY: &str = "coordinator-after-reply";
/// The last acknowledgement came; the end record is not written.
pub const COORDINATOR_ALL_ACKNOWLEDGED: &str = "coordinator-all-acknowledged";
/// The abort of a parallel transaction is in the log and not durable; as
/// [`COORDINATOR_DECISION_WRITTEN`].
pub const COORDINATOR_ABORT_WRITTEN: &str = "coordinator-abort-written";
/// The abort of a parallel transaction is durable and nobody was told.
pub const COORDINATOR_ABORT_DURABLE: &str = "coordinator-abort-durable";
/// After a restart, a participant has told all that it has prepared.
pub const COORDINATOR_SOME_RECOVERED: &str = "coordinator-some-recovered";
/// After a restart, all participants have; nothing of it is decided.
pub const COORDINATOR_ALL_RECOVERED: &str = "coordinator-all-recovered";
/// The change of the view is in the log and not durable; as [`COORDINATOR_DECISION_WRITTEN`].
pub const COORDINATOR_VIEW_WRITTEN: &str = "coordinator-view-written";
/// The change of the view is durable and nobody was told.
pub const COORDINATOR_VIEW_DURABLE: &str = "coordinator-view-durable";
/// All members know a view that leaves somebody out; nothing was decided under it.
pub const COORDINATOR_VIEW_KNOWN: &str = "coordinator-view-known";

/// The participant would vote yes; its record is not written.
pub const PARTICIPANT_BEFORE_VOTE: &str = "participant-before-vote";
/// The record is durable; the vote is not sent.
pub const PARTICIPANT_VOTE_DURABLE: &str = "participant-vote-durable";
/// The vote is sent: in doubt from here on.
pub const PARTICIPANT_VOTE_SENT: &str = "participant-vote-sent";
/// The commit has arrived; nothing is applied.
pub const PARTICIPANT_DECISION_RECEIVED: &str = "participant-decision-received";
/// The writes are visible; the decision is not durable here.
pub const PARTICIPANT_APPLIED: &str = "participant-applied";
/// The decision is durable here; the coordinator does not know.
pub const PARTICIPANT_BEFORE_ACKNOWLEDGE: &str = "participant-before-acknowledge";
/// The acknowledgement is sent.
pub const PARTICIPANT_ACKNOWLEDGED: &str = "participant-acknowledged";
/// Some rows of another replica are staged; no record says anything of them.
pub const PARTICIPANT_SNAPSHOT_STAGED: &str = "participant-snapshot-staged";
/// The record of all of them is durable; they are not in place.
pub const PARTICIPANT_SNAPSHOT_DURABLE: &str = "participant-snapshot-durable";
/// They are in place; nothing is acknowledged.
pub const PARTICIPANT_SNAPSHOT_INSTALLED: &str = "participant-snapshot-installed";
/// The promise to a restarted coordinator is durable; nothing is told.
pub const PARTICIPANT_EPOCH_PROMISED: &str = "participant-epoch-promised";
/// The participant knows a view, durably; the coordinator does not know that.
pub const PARTICIPANT_VIEW_DURABLE: &str = "participant-view-durable";

/// Whether the step's records are written, without a sync, before the shell acts on this point.
#[must_use]
pub fn is_behind_write(point: &str) -> bool {
    matches!(
        point,
        COORDINATOR_DECISION_WRITTEN | COORDINATOR_ABORT_WRITTEN | COORDINATOR_VIEW_WRITTEN
    )
}

/// Those that no commit passes: an abort does, or a start.
pub const BESIDE_COMMITS: &[&str] = &[
    COORDINATOR_ABORT_WRITTEN,
    COORDINATOR_ABORT_DURABLE,
    COORDINATOR_SOME_RECOVERED,
    COORDINATOR_ALL_RECOVERED,
    PARTICIPANT_EPOCH_PROMISED,
];

/// The coordinator's, in the order of the protocol.
pub const COORDINATOR: &[Point] = &[
    Point {
        name: COORDINATOR_BEFORE_BEGIN,
        moment: "a transaction has arrived and nothing was done about it",
    },
    Point { name: COORDINATOR_BEGUN, moment: "it has its number and locks; no prepare is sent" },
    Point {
        name: COORDINATOR_SOME_PREPARES_SENT,
        moment: "the first replica was asked to prepare, the others were not",
    },
    Point {
        name: COORDINATOR_ALL_VOTES,
        moment: "every replica has voted yes; the decision is not in the log",
    },
    Point {
        name: COORDINATOR_DECISION_WRITTEN,
        moment: "the decision is written to the log and not synced",
    },
    Point {
        name: COORDINATOR_DECISION_DURABLE,
        moment: "the decision is durable and nobody was told",
    },
    Point {
        name: COORDINATOR_SOME_TOLD,
        moment: "the first replica was told of the commit, the others were not",
    },
    Point {
        name: COORDINATOR_BEFORE_REPLY,
        moment: "all replicas were told of the commit, the client was not",
    },
    Point { name: COORDINATOR_AFTER_REPLY, moment: "the client was told of the commit" },
    Point {
        name: COORDINATOR_ALL_ACKNOWLEDGED,
        moment: "every replica has acknowledged; the end record is not written",
    },
    Point {
        name: COORDINATOR_ABORT_WRITTEN,
        moment: "the abort is written to the log and not synced",
    },
    Point { name: COORDINATOR_ABORT_DURABLE, moment: "the abort is durable and nobody was told" },
    Point {
        name: COORDINATOR_SOME_RECOVERED,
        moment: "after a restart: a replica has told what it has prepared",
    },
    Point {
        name: COORDINATOR_ALL_RECOVERED,
        moment: "after a restart: all replicas have; nothing of it is decided",
    },
];

/// A participant's, in the order of the protocol.
pub const PARTICIPANT: &[Point] = &[
    Point {
        name: PARTICIPANT_BEFORE_VOTE,
        moment: "the vote would be yes; the prepared record is not written",
    },
    Point {
        name: PARTICIPANT_VOTE_DURABLE,
        moment: "the prepared record is durable; the vote is not sent",
    },
    Point {
        name: PARTICIPANT_VOTE_SENT,
        moment: "the yes vote is sent: in doubt until the decision comes",
    },
    Point {
        name: PARTICIPANT_DECISION_RECEIVED,
        moment: "the commit has arrived and nothing is applied",
    },
    Point {
        name: PARTICIPANT_APPLIED,
        moment: "the writes are visible; the decision is not durable here",
    },
    Point {
        name: PARTICIPANT_BEFORE_ACKNOWLEDGE,
        moment: "the decision is durable here; the acknowledgement is not sent",
    },
    Point { name: PARTICIPANT_ACKNOWLEDGED, moment: "the acknowledgement is sent" },
    Point {
        name: PARTICIPANT_EPOCH_PROMISED,
        moment: "a restarted coordinator's epoch is promised, durably; nothing is told",
    },
];

/// Those of a participant that takes over the rows of another.
pub const SNAPSHOT: &[Point] = &[
    Point {
        name: PARTICIPANT_SNAPSHOT_STAGED,
        moment: "some rows of another replica are staged; no record says so",
    },
    Point {
        name: PARTICIPANT_SNAPSHOT_DURABLE,
        moment: "the record of all of them is durable; they are not in place",
    },
    Point {
        name: PARTICIPANT_SNAPSHOT_INSTALLED,
        moment: "they are in place; nothing is acknowledged",
    },
];

/// The coordinator's at a change of the view, which no transaction passes.
pub const COORDINATOR_VIEWS: &[Point] = &[
    Point {
        name: COORDINATOR_VIEW_WRITTEN,
        moment: "the change of the view is written to the log and not synced",
    },
    Point {
        name: COORDINATOR_VIEW_DURABLE,
        moment: "the change of the view is durable and nobody was told",
    },
    Point {
        name: COORDINATOR_VIEW_KNOWN,
        moment: "all members know that a replica is left out; nothing is decided without it",
    },
];

/// A participant's at a change of the view.
pub const PARTICIPANT_VIEWS: &[Point] = &[Point {
    name: PARTICIPANT_VIEW_DURABLE,
    moment: "a view is known durably; the coordinator does not know that",
}];
