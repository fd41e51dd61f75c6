//! Replicas that are added to a cluster that runs, and removed from it, with real processes; and one
//! that comes back without its disk.

mod support;

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use kvorum::cluster::Member;
use support::clients::Clients;
use support::{Fixture, PATIENCE, Server, dead_address, kvorum_at, once_available};
use tempfile::TempDir;

/// Between looks at what is to come true.
const POLL: Duration = Duration::from_millis(20);

/// A fourth replica, where it is to be.
fn fourth(address: &str, data_dir: &Path, flags: &[&str]) -> Server {
    let arguments = ["replica", "--silence", "5m", "--id", "4", "--listen", address, "--data-dir"];
    let arguments = arguments.iter().map(OsStr::new).chain([data_dir.as_os_str()]);
    Server::start(arguments.chain(flags.iter().map(OsStr::new)))
}

/// Every replica of the cluster answers, and all hold the same: what is under way has ended by then.
#[track_caller]
fn all_hold_the_same(fixture: &Fixture) {
    let began = Instant::now();
    loop {
        let inspected = fixture.kvorum(["--output", "json", "inspect"]).json();
        if inspected["equal"] == true {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{inspected}");
        thread::sleep(POLL);
    }
}

/// The numbers of all processes, as the coordinator says.
#[track_caller]
fn processes(fixture: &Fixture) -> Vec<u64> {
    let status = fixture.kvorum(["--output", "json", "status"]).json();
    let processes = status["processes"].as_array().cloned().unwrap_or_default();
    processes.iter().filter_map(|process| process["id"].as_u64()).collect()
}

#[test]
fn a_replica_is_added_and_another_removed_while_writes_go_on() {
    let mut fixture = Fixture::with_views();
    let clients = Clients::start(&fixture, 16, &[]);
    fixture.kvorum(["put", "before", "it came"]).succeeded();
    let (dir, address) = (TempDir::new().unwrap(), dead_address());
    let replica = format!("4={address}");

    let added = fixture.kvorum(["admin", "replica", "add", &replica]);
    assert!(added.succeeded().text().contains("--rejoin"), "{added:?}");
    assert_eq!(processes(&fixture), [0, 1, 2, 3, 4]);
    clients.go_on();
    // It is not taken for one that has everything.
    let empty = dir.path().join("empty");
    let mut wrong = fourth(&address, &empty, &[]);
    fixture.await_log(Member::Coordinator, "start it on an empty one with --rejoin");
    kvorum_at(&address, ["--timeout", "2s", "get", "before"]).failed(4, &[]);
    wrong.signal("TERM");
    wrong.wait();

    let data_dir = dir.path().join("r4");
    let _fourth = fourth(&address, &data_dir, &["--rejoin"]);
    let waited = fixture.kvorum(["admin", "replica", "add", &replica, "--wait"]);
    assert!(waited.text().contains("it takes part"), "{waited:?}");
    fixture.await_members(4);
    clients.go_on();
    let read = once_available(|| kvorum_at(&address, ["get", "before"]));
    assert_eq!(read.succeeded().text(), "it came\n");

    let gone = Member::Replica(1);
    fixture.cluster.kill(gone).unwrap();
    fixture.await_members(3);
    let removed = fixture.kvorum(["--output", "json", "admin", "replica", "remove", "1"]);
    assert_eq!(removed.succeeded().json()["removed"], 1);
    clients.go_on();

    // Its flags name those of the first start.
    fixture.cluster.kill(Member::Coordinator).unwrap();
    fixture.restart(Member::Coordinator);
    fixture.await_members(3);
    clients.go_on();
    assert_eq!(processes(&fixture), [0, 2, 3, 4]);
    // What is so already is done, and a number is nobody's for ever.
    fixture.kvorum(["admin", "replica", "remove", "1"]).succeeded();
    let again = format!("1={}", fixture.cluster.address(gone));
    fixture.kvorum(["admin", "replica", "add", &again]).failed(2, &["not used twice"]);
    assert_eq!(processes(&fixture), [0, 2, 3, 4], "what was refused left something");
    clients.judged();
    all_hold_the_same(&fixture);
}

#[test]
fn what_cannot_be_changed_is_refused_with_the_reason() {
    let fixture = Fixture::with_views();
    let admin = |arguments: &[&str]| {
        fixture.ask(Member::Replica(2), ["admin", "replica"].iter().chain(arguments))
    };
    let elsewhere = dead_address();
    admin(&["add", &format!("1={elsewhere}")]).failed(2, &["--replica 1=", "a member already"]);
    let two = format!("4={}", fixture.cluster.address(Member::Replica(2)));
    admin(&["add", &two]).failed(2, &["replica 2 is at"]);
    admin(&["remove", "9"]).failed(2, &["there is no replica 9", "1, 2, 3"]);
    assert_eq!(processes(&fixture), [0, 1, 2, 3]);
    let equals = Fixture::any_replica();
    let refused = equals.kvorum(["admin", "replica", "remove", "3"]);
    refused.failed(2, &["the replicas of its first start"]);
}

#[test]
fn a_replica_that_does_not_come_is_not_waited_for_for_ever() {
    let fixture = Fixture::with_views();
    let coordinator = fixture.cluster.address(Member::Coordinator).to_string();
    let at = dead_address();
    let add = |replica: &str, flags: &[&str]| {
        let arguments = ["admin", "replica", "add", replica, "--wait"];
        kvorum_at(&coordinator, arguments.iter().chain(flags))
    };
    // Somebody thinks better of it, and removes it.
    thread::scope(|scope| {
        let waiting = scope.spawn(|| add(&format!("4={at}"), &[]));
        fixture.await_log(Member::Coordinator, "a replica was added");
        fixture.kvorum(["admin", "replica", "remove", "4"]).succeeded();
        waiting.join().unwrap().failed(3, &["replica 4 was removed while it was waited for"]);
    });
    let late = add(&format!("5={at}"), &["--wait-timeout", "500ms"]);
    late.failed(5, &["does not take part after 500 ms", "wait for it once more"]);
    assert_eq!(processes(&fixture), [0, 1, 2, 3, 5], "it stays added");
}

#[test]
fn a_replica_that_has_lost_its_disk_comes_back_while_writes_go_on() {
    let mut fixture = Fixture::with_views();
    let clients = Clients::start(&fixture, 16, &[]);
    let lost = Member::Replica(2);
    fixture.cluster.kill(lost).unwrap();
    fixture.await_members(2);
    fs::remove_dir_all(fixture.cluster.data_directory(lost)).unwrap();
    fixture.restart_with(lost, &["--rejoin"]);
    fixture.await_members(3);
    clients.go_on();
    // The flag may stay.
    fixture.cluster.kill(lost).unwrap();
    fixture.await_members(2);
    fixture.restart_with(lost, &["--rejoin"]);
    fixture.await_members(3);
    clients.judged();
    all_hold_the_same(&fixture);
}
