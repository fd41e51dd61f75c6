//! The fail points of Multi-Paxos: the moments between two steps of the protocol at which a test
//! makes a process die or pause.
//!
//! There is none between the application of a batch and its record: the shell appends the record
//! first, and would not while it stands at a point.

pub use crate::points::Point;

/// It would campaign; its own promise is not written.
pub const PROPOSER_BEFORE_PREPARE: &str = "proposer-before-prepare";
/// Its own promise is durable; nobody else was asked.
pub const PROPOSER_BALLOT_DURABLE: &str = "proposer-ballot-durable";
/// The first of the others was asked for a promise.
pub const PROPOSER_SOME_PREPARES_SENT: &str = "proposer-some-prepares-sent";
/// A quorum has promised; nothing was proposed.
pub const PROPOSER_ELECTED: &str = "proposer-elected";
/// A slot has a batch; nobody was asked to accept it.
pub const PROPOSER_BEFORE_ACCEPT: &str = "proposer-before-accept";
/// The first of the others was asked to accept it.
pub const PROPOSER_SOME_ACCEPTS_SENT: &str = "proposer-some-accepts-sent";
/// The leader's own vote is durable.
pub const PROPOSER_OWN_VOTE_DURABLE: &str = "proposer-own-vote-durable";
/// A batch is chosen and only the leader knows; nothing is applied, nobody was told.
pub const PROPOSER_CHOSEN: &str = "proposer-chosen";
/// The batch is applied, its client was told, and the leader's record of it is durable.
pub const PROPOSER_CHOSEN_DURABLE: &str = "proposer-chosen-durable";

/// A prepare has come; the promise is not written.
pub const ACCEPTOR_BEFORE_PROMISE: &str = "acceptor-before-promise";
/// The promise is durable and nobody was told.
pub const ACCEPTOR_PROMISE_DURABLE: &str = "acceptor-promise-durable";
/// The promise is sent.
pub const ACCEPTOR_PROMISE_SENT: &str = "acceptor-promise-sent";
/// An accept has come; the vote is not written.
pub const ACCEPTOR_BEFORE_ACCEPT: &str = "acceptor-before-accept";
/// The vote is durable and nobody was told.
pub const ACCEPTOR_ACCEPT_DURABLE: &str = "acceptor-accept-durable";
/// The vote is sent.
pub const ACCEPTOR_ACCEPTED_SENT: &str = "acceptor-accepted-sent";

/// A batch is known to be chosen and not applied.
pub const LEARNER_BEFORE_APPLY: &str = "learner-before-apply";
/// The record that it is applied is durable.
pub const LEARNER_CHOSEN_DURABLE: &str = "learner-chosen-durable";
/// Some rows of a snapshot are staged.
pub const LEARNER_SNAPSHOT_STAGED: &str = "learner-snapshot-staged";
/// The record of the snapshot is durable; it is not installed.
pub const LEARNER_SNAPSHOT_DURABLE: &str = "learner-snapshot-durable";
/// The snapshot is in the place of the old rows.
pub const LEARNER_SNAPSHOT_INSTALLED: &str = "learner-snapshot-installed";

/// All of them, in the order of the protocol.
pub const ALL: &[Point] = &[
    Point {
        name: PROPOSER_BEFORE_PREPARE,
        moment: "it would campaign; its own promise is not written",
    },
    Point {
        name: PROPOSER_BALLOT_DURABLE,
        moment: "its own promise is durable; nobody else was asked for one",
    },
    Point {
        name: PROPOSER_SOME_PREPARES_SENT,
        moment: "the first of the others was asked for a promise",
    },
    Point { name: ACCEPTOR_BEFORE_PROMISE, moment: "a prepare has come; no promise is written" },
    Point { name: ACCEPTOR_PROMISE_DURABLE, moment: "the promise is durable and nobody was told" },
    Point { name: ACCEPTOR_PROMISE_SENT, moment: "the promise is sent" },
    Point { name: PROPOSER_ELECTED, moment: "a quorum has promised; nothing was proposed" },
    Point {
        name: PROPOSER_BEFORE_ACCEPT,
        moment: "a slot has a batch; nobody was asked to accept it",
    },
    Point {
        name: PROPOSER_SOME_ACCEPTS_SENT,
        moment: "the first of the others was asked to accept a batch",
    },
    Point { name: PROPOSER_OWN_VOTE_DURABLE, moment: "the leader's own vote is durable" },
    Point { name: ACCEPTOR_BEFORE_ACCEPT, moment: "an accept has come; no vote is written" },
    Point { name: ACCEPTOR_ACCEPT_DURABLE, moment: "the vote is durable and nobody was told" },
    Point { name: ACCEPTOR_ACCEPTED_SENT, moment: "the vote is sent" },
    Point {
        name: PROPOSER_CHOSEN,
        moment: "a batch is chosen, and only the leader knows; nothing is applied",
    },
    Point {
        name: PROPOSER_CHOSEN_DURABLE,
        moment: "the batch is applied, its client was told, and the leader's record is durable",
    },
    Point { name: LEARNER_BEFORE_APPLY, moment: "a batch is known to be chosen and not applied" },
    Point { name: LEARNER_CHOSEN_DURABLE, moment: "the record that it is applied is durable" },
    Point { name: LEARNER_SNAPSHOT_STAGED, moment: "some rows of a snapshot are staged" },
    Point {
        name: LEARNER_SNAPSHOT_DURABLE,
        moment: "the record of a snapshot is durable; it is not installed",
    },
    Point {
        name: LEARNER_SNAPSHOT_INSTALLED,
        moment: "a snapshot is in the place of the old rows",
    },
];
