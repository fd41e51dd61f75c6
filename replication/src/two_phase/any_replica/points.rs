//! The fail points of two-phase commit through any replica. The moments are those of a coordinator
//! and of a participant, and so are their names; a replica passes both.

pub use crate::points::Point;
use crate::two_phase::points::BESIDE_COMMITS;
use crate::two_phase::points::{COORDINATOR, PARTICIPANT};
pub use crate::two_phase::points::{
    COORDINATOR_AFTER_REPLY, COORDINATOR_ALL_ACKNOWLEDGED, COORDINATOR_ALL_VOTES,
    COORDINATOR_BEFORE_BEGIN, COORDINATOR_BEFORE_REPLY, COORDINATOR_BEGUN,
    COORDINATOR_DECISION_DURABLE, COORDINATOR_DECISION_WRITTEN, COORDINATOR_SOME_PREPARES_SENT,
    COORDINATOR_SOME_TOLD, PARTICIPANT_ACKNOWLEDGED, PARTICIPANT_APPLIED,
    PARTICIPANT_BEFORE_ACKNOWLEDGE, PARTICIPANT_BEFORE_VOTE, PARTICIPANT_DECISION_RECEIVED,
    PARTICIPANT_VOTE_DURABLE, PARTICIPANT_VOTE_SENT,
};

/// All of them, in the order of the protocol. What a coordinator process does beside its commits a
/// replica does not.
pub fn all() -> impl Iterator<Item = &'static Point> {
    let of_commits = |point: &&Point| !BESIDE_COMMITS.contains(&point.name);
    COORDINATOR.iter().chain(PARTICIPANT).filter(of_commits)
}
