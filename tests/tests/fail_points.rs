//! Coordinator and replica die, and stand still, at each point of the protocol.

use std::path::Path;

use kvorum_replication::two_phase::points::{self, Point};
use kvorum_tests::fail_points::{Trouble, is_of_commits, try_point, try_point_beside};
use kvorum_tests::{cluster, program, run};

fn check(points: &[Point], trouble: Trouble) {
    let tried = run(async {
        let mut cluster = cluster(program(Path::new(env!("CARGO_BIN_EXE_kvorum-tests")))).await?;
        for point in points.iter().filter(|point| is_of_commits(point)) {
            try_point(&mut cluster, point, trouble).await?;
        }
        Ok(())
    });
    if let Err(error) = tried {
        panic!("{error:#}");
    }
}

#[test]
fn the_coordinator_is_killed() {
    check(points::COORDINATOR, Trouble::Killed);
}

#[test]
fn the_coordinator_is_killed_while_its_client_retries() {
    check(points::COORDINATOR, Trouble::KilledWhileClientRetries);
}

#[test]
fn the_coordinator_is_paused() {
    check(points::COORDINATOR, Trouble::Paused);
}

#[test]
fn a_replica_is_killed() {
    check(points::PARTICIPANT, Trouble::Killed);
}

#[test]
fn a_replica_is_killed_while_its_client_retries() {
    check(points::PARTICIPANT, Trouble::KilledWhileClientRetries);
}

#[test]
fn a_replica_is_paused() {
    check(points::PARTICIPANT, Trouble::Paused);
}

#[test]
fn who_is_killed_at_an_abort_or_a_start_comes_back() {
    let tried = run(async {
        let mut cluster = cluster(program(Path::new(env!("CARGO_BIN_EXE_kvorum-tests")))).await?;
        let points = points::COORDINATOR.iter().chain(points::PARTICIPANT);
        for point in points.filter(|point| !is_of_commits(point)) {
            try_point_beside(&mut cluster, point).await?;
        }
        Ok(())
    });
    if let Err(error) = tried {
        panic!("{error:#}");
    }
}
