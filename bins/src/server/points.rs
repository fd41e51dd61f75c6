//! At which points of its protocol a process can be made to die.

use kvorum_replication::points::Point;
use kvorum_replication::two_phase::{any_replica, points};

/// The fail points of a replica that coordinates: it passes those of both roles.
#[must_use]
pub fn any_replica_points() -> Vec<Point> {
    any_replica::points::all().copied().collect()
}

/// The fail points of a coordinator, those at a change of the view last.
#[must_use]
pub fn coordinator_points() -> Vec<Point> {
    [points::COORDINATOR, points::COORDINATOR_VIEWS].concat()
}

/// The fail points of a replica with a coordinator: of commits, of taking over rows, of views.
#[must_use]
pub fn participant_points() -> Vec<Point> {
    [points::PARTICIPANT, points::SNAPSHOT, points::PARTICIPANT_VIEWS].concat()
}
