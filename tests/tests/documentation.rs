//! What the documentation lists is what there is.

use kvorum_replication::two_phase::points::{self, Point};

/// The fail points that a page lists: the names in the first cells of its tables' rows.
fn listed<'a>(page: &'a str, prefix: &str) -> Vec<&'a str> {
    let names = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    names.map(|(name, _)| name).filter(|name| name.starts_with(prefix)).collect()
}

#[test]
fn the_page_on_two_phase_commit_lists_every_fail_point_in_order() {
    let page = include_str!("../../docs/two-phase-commit.md");
    let names = |points: &'static [Point]| points.iter().map(|point| point.name);
    let coordinator: Vec<&str> =
        names(points::COORDINATOR).chain(names(points::COORDINATOR_VIEWS)).collect();
    let participant: Vec<&str> = names(points::PARTICIPANT)
        .chain(names(points::SNAPSHOT))
        .chain(names(points::PARTICIPANT_VIEWS))
        .collect();
    assert!(!coordinator.is_empty() && !participant.is_empty());
    assert_eq!(listed(page, "coordinator-"), coordinator);
    assert_eq!(listed(page, "participant-"), participant);
}
