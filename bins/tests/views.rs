//! Replicas that are left out and come back, with real processes: what clients see meanwhile, what
//! they may read of the one that is away, and that it holds the same in the end.

mod support;

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use kvorum::cluster::Member;
use kvorum_checker::{Ending, History, Operation};
use kvorum_replication::two_phase::points;
use support::clients::Clients;
use support::{Fixture, once_available};

/// The one that is taken away.
const VICTIM: Member = Member::Replica(3);

/// The signal by which a process dies at a fail point.
const KILL: i32 = 9;

/// When writes were acknowledged, in order; by the clock of the history.
fn writes(history: &History) -> Vec<Duration> {
    let done = history.iter().filter(|record| {
        record.ending == Ending::Done && matches!(record.operation, Operation::Put { .. })
    });
    let mut at: Vec<_> = done.map(|record| Duration::from_nanos(record.ret)).collect();
    at.sort_unstable();
    at
}

/// What all replicas hold is the same.
#[track_caller]
fn all_hold_the_same(fixture: &Fixture) {
    assert!(!fixture.settled().is_empty());
    let inspected = fixture.kvorum(["--output", "json", "inspect"]).json();
    assert_eq!(inspected["equal"], true, "{inspected}");
}

#[test]
fn writes_go_on_without_who_is_killed_and_it_comes_back_while_they_do() {
    let mut fixture = Fixture::with_views();
    let clients = Clients::start(&fixture, 16, &[]);
    let killed = clients.began.elapsed();
    fixture.cluster.kill(VICTIM).unwrap();
    fixture.await_members(2);
    clients.go_on();
    let text = fixture.kvorum(["status"]);
    assert!(text.text().contains("writes go on without 1 of 3 replicas"), "{text:?}");
    let json = fixture.kvorum(["--output", "json", "status"]).json();
    assert_eq!(json["views"]["members"], 2, "{json}");
    assert!(json["views"]["excluded"].as_u64() >= Some(1), "{json}");

    fixture.restart(VICTIM);
    fixture.await_members(3);
    clients.go_on();
    let writes = writes(&clients.judged());
    let pause = writes.windows(2).filter(|pair| pair[1] >= killed).map(|pair| pair[1] - pair[0]);
    println!("no write for {:?} at most", pause.max().unwrap());
    all_hold_the_same(&fixture);
    let json = fixture.kvorum(["--output", "json", "status"]).json();
    assert!(json["views"]["rejoined"].as_u64() >= Some(1), "{json}");
    assert_eq!(json["processes"][3]["view"]["outside"], false, "{json}");
}

#[test]
fn who_stood_still_serves_nothing_old_and_comes_back() {
    let mut fixture = Fixture::with_views();
    // All reads ask the one that stands still, which does not know it afterwards.
    let clients = Clients::start(&fixture, 16, &[VICTIM]);
    let elsewhere = Clients::start(&fixture, 20, &[]);
    for _ in 0..3 {
        fixture.cluster.pause(VICTIM).unwrap();
        fixture.await_members(2);
        elsewhere.go_on();
        fixture.cluster.resume(VICTIM).unwrap();
        clients.go_on();
        fixture.await_members(3);
        elsewhere.go_on();
    }
    clients.judged();
    elsewhere.stop();
    all_hold_the_same(&fixture);
}

#[test]
fn who_is_outside_reads_nothing_that_is_to_be_fresh() {
    let mut fixture = Fixture::with_views();
    fixture.kvorum(["put", "k", "old"]).succeeded();
    // How that ended reaches the log with what is synced next; else the victim would be in doubt.
    fixture.settled();
    fixture.kvorum(["put", "other", "x"]).succeeded();
    fixture.cluster.kill(VICTIM).unwrap();
    fixture.await_members(2);
    fixture.kvorum(["put", "k", "new"]).succeeded();

    // It takes itself for a member, and nobody tells it better: the others must.
    fixture.cluster.pause(Member::Coordinator).unwrap();
    fixture.restart(VICTIM);
    let fresh = fixture.ask(VICTIM, ["--timeout", "2s", "get", "k"]);
    fresh.failed(4, &[]);
    let stale = fixture.ask(VICTIM, ["get", "k", "--read", "stale"]);
    assert_eq!(stale.succeeded().text(), "old\n");
    // The others need nobody for it.
    let member = once_available(|| fixture.ask(Member::Replica(1), ["get", "k"]));
    assert_eq!(member.succeeded().text(), "new\n");

    fixture.cluster.resume(Member::Coordinator).unwrap();
    fixture.await_members(3);
    let fresh = once_available(|| fixture.ask(VICTIM, ["get", "k"]));
    assert_eq!(fresh.succeeded().text(), "new\n");
    all_hold_the_same(&fixture);
}

/// A process died at its point: without the flag it comes back, and all goes on.
#[track_caller]
fn died_at(fixture: &mut Fixture, member: Member, point: &str) {
    assert_eq!(fixture.exit_of(member).signal(), Some(KILL), "{point}");
    assert!(fixture.cluster.log_tail(member).contains(&format!("fail point {point}")));
    fixture.restart(member);
}

#[test]
fn who_dies_at_a_change_of_the_view_comes_back() {
    let mut fixture = Fixture::with_views();
    let coordinator = points::COORDINATOR_VIEWS.iter().map(|point| (Member::Coordinator, point));
    let replica = points::PARTICIPANT_VIEWS.iter().map(|point| (Member::Replica(1), point));
    for (dies, point) in coordinator.chain(replica) {
        once_available(|| fixture.kvorum(["put", "before", point.name])).succeeded();
        // The view changes since another one is gone; on a busy machine it may change before that.
        fixture.cluster.kill(dies).unwrap();
        let armed = format!("{}=abort", point.name);
        fixture.cluster.spawn(dies, &["--fail-point", &armed]).unwrap();
        fixture.cluster.kill(VICTIM).unwrap();
        died_at(&mut fixture, dies, point.name);
        fixture.restart(VICTIM);
        fixture.await_members(3);
        let read = |key: &str| once_available(|| fixture.ask(VICTIM, ["get", key]));
        assert_eq!(read("before").succeeded().text(), format!("{}\n", point.name));
        once_available(|| fixture.kvorum(["put", "after", point.name])).succeeded();
        assert_eq!(read("after").succeeded().text(), format!("{}\n", point.name));
        all_hold_the_same(&fixture);
    }
}

/// Writes more than the others remember, so that rows are needed by who was away.
#[track_caller]
fn write_much(fixture: &Fixture) {
    let value = vec![b'v'; 15 << 20];
    for n in 0..5 {
        fixture.put_large(&format!("large {n}"), &value);
    }
}

#[test]
fn who_dies_while_it_takes_rows_comes_back() {
    let mut fixture = Fixture::with_views();
    let [staged, durable, installed] = points::SNAPSHOT else { panic!("there is another point") };
    // Once the record is durable the rows are put in place at the next start, and others are needed.
    for points in [&[staged, durable][..], &[installed]] {
        fixture.cluster.kill(VICTIM).unwrap();
        fixture.await_members(2);
        write_much(&fixture);
        for point in points {
            let armed = format!("{}=abort", point.name);
            fixture.cluster.spawn(VICTIM, &["--fail-point", &armed]).unwrap();
            assert_eq!(fixture.exit_of(VICTIM).signal(), Some(KILL), "{}", point.name);
            assert!(fixture.cluster.log_tail(VICTIM).contains(point.name));
        }
        fixture.restart(VICTIM);
        fixture.await_members(3);
        all_hold_the_same(&fixture);
    }
}
