//! `kvorum store` on the directories of real processes: killed, damaged, looked at, mended.

#![expect(clippy::unwrap_used, reason = "in a test's helpers as in the test itself")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use kvorum::cluster::Member;
use serde_json::Value as Json;
use support::{Fixture, PATIENCE, Ran, Server, kvorum, run, server};
use tempfile::TempDir;

fn store(arguments: &[&str], dir: &Path) -> Ran {
    let mut all = vec!["store", arguments[0], dir.to_str().unwrap()];
    all.extend(&arguments[1..]);
    kvorum(all)
}

fn json(arguments: &[&str], dir: &Path) -> Ran {
    let mut all = vec!["--output", "json", "store", arguments[0], dir.to_str().unwrap()];
    all.extend(&arguments[1..]);
    kvorum(all)
}

/// Every file below a directory, with its bytes.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

fn flip(path: &Path, offset: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[offset] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn only_log(dir: &Path) -> PathBuf {
    let mut logs =
        files(dir).into_keys().filter(|path| path.extension().is_some_and(|e| e == "log"));
    let log = logs.next().unwrap();
    assert_eq!(logs.next(), None);
    log
}

/// A cluster whose processes have been killed, with rows in it, one of them bytes.
fn killed() -> Fixture {
    let mut fixture = Fixture::start();
    for number in 0..20 {
        fixture
            .kvorum(["put", &format!("user/{number:02}"), &format!("name {number}")])
            .succeeded();
    }
    run(fixture.client().args(["put", "photo", "-"]), b"\xff\xfe").succeeded();
    fixture.kvorum(["del", "user/07"]).succeeded();
    await_rest(&fixture);
    fixture.cluster.kill_all().unwrap();
    fixture
}

/// Waits until every process has on its disk how everything ended.
fn await_rest(fixture: &Fixture) {
    let began = Instant::now();
    loop {
        let status = fixture.kvorum(["--output", "json", "status"]).json();
        let rests = |process: &Json| {
            process["in_flight"] == 0 && process["log_last"] == process["log_durable"]
        };
        if status["processes"].as_array().unwrap().iter().all(rests) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{status}");
    }
}

#[test]
fn a_directory_in_use_is_left_alone() {
    let dir = TempDir::new().unwrap();
    let running = Server::replica(1, dir.path());
    for command in [&["verify"][..], &["dump"], &["stats"], &["repair", "--in-place"]] {
        store(command, dir.path()).failed(4, &["in use by a running process", "stop it first"]);
    }
    drop(running);
    assert!(store(&["verify"], dir.path()).succeeded().text().ends_with("sound\n"));
}

#[test]
fn what_is_no_data_directory_is_named() {
    let dir = TempDir::new().unwrap();
    store(&["verify"], dir.path()).failed(4, &["neither a store nor a log", "--data-dir"]);
    store(&["dump"], &dir.path().join("nowhere")).failed(4, &["nowhere"]);
    store(&["repair"], dir.path()).failed(2, &["--into"]);
    store(&["repair", "--in-place", "--into", "x"], dir.path()).failed(2, &["--in-place"]);
    let error = json(&["verify"], dir.path()).failed(4, &[]).error();
    assert_eq!((&error["kind"], &error["happened"]), (&"refused".into(), &"no".into()));
}

#[test]
fn rows_and_records_of_a_killed_cluster_are_shown() {
    let fixture = killed();
    let dir = fixture.cluster.data_directory(Member::Replica(2));
    let before = files(&dir);
    assert!(store(&["verify"], &dir).succeeded().text().ends_with("sound\n"));

    let dump = store(&["dump"], &dir);
    let lines: Vec<&str> = dump.succeeded().text().lines().collect();
    assert_eq!(lines.len(), 20);
    assert_eq!((lines[0], lines[1]), ("photo\t\\xff\\xfe", "user/00\tname 0"));
    let some = store(&["dump", "--prefix", "user/", "--limit", "2"], &dir);
    assert_eq!(some.succeeded().text(), "user/00\tname 0\nuser/01\tname 1\n");

    let log = json(&["dump", "--log", "--prefix", "user/07"], &dir);
    let records: Vec<Json> =
        log.succeeded().text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = records.iter().map(|record| record["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["prepared", "prepared"]);
    assert_eq!(records[1]["writes"][0]["op"], "del");
    let decided = store(&["dump", "--log"], &dir);
    assert!(decided.succeeded().text().contains("decision=commit number="), "{decided:?}");

    let stats = json(&["stats"], &dir).json();
    assert_eq!((&stats["keys"], &stats["node"]["id"]), (&20.into(), &2.into()));

    let decisions = fixture.cluster.data_directory(Member::Coordinator);
    let log = store(&["dump", "--log"], &decisions);
    assert!(log.succeeded().text().contains("committed"), "{log:?}");
    store(&["dump"], &decisions).failed(2, &["keeps no rows", "--log"]);
    assert_eq!(files(&dir), before, "looking has changed something");
}

/// What dump writes, import reads.
#[test]
fn a_dump_is_imported() {
    let mut fixture = killed();
    let dir = fixture.cluster.data_directory(Member::Replica(1));
    let dumped = json(&["dump"], &dir);
    let dumped = dumped.succeeded().text().to_owned();
    for member in fixture.cluster.members().collect::<Vec<_>>() {
        fixture.restart(member);
    }
    fixture.await_service();
    let live = fixture.kvorum(["export"]);
    assert_eq!(live.succeeded().text(), dumped);
    let other = Fixture::start();
    assert_eq!(other.feed(["import"], &dumped).code, 0);
    assert_eq!(other.kvorum(["export"]).succeeded().text(), dumped);
}

#[test]
fn a_torn_end_is_no_damage() {
    let fixture = killed();
    let dir = fixture.cluster.data_directory(Member::Replica(1));
    let log = only_log(&dir);
    let mut bytes = fs::read(&log).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end + 1..end + 25].copy_from_slice(b"the beginning of a frame");
    fs::write(&log, bytes).unwrap();
    let verify = store(&["verify"], &dir);
    assert!(verify.succeeded().text().contains("torn"), "{verify:?}");
    let repair = store(&["repair", "--in-place"], &dir);
    assert!(repair.succeeded().text().contains("nothing was done"), "{repair:?}");
}

#[test]
fn a_repair_without_loss_gives_a_directory_that_serves() {
    let mut fixture = killed();
    let dir = fixture.cluster.data_directory(Member::Replica(1));
    flip(&dir.join("MANIFEST"), 20);
    store(&["verify"], &dir).failed(6, &["is damaged: 1 finding", "store repair"]);
    let verify = json(&["verify"], &dir).json();
    assert_eq!(verify["findings"][0]["lost"]["kind"], "nothing");
    let repair = store(&["repair", "--in-place"], &dir);
    assert!(repair.succeeded().text().contains("a server may start on it"), "{repair:?}");
    assert!(dir.join("lost-1").join("MANIFEST").exists());
    store(&["verify"], &dir).succeeded();
    for member in fixture.cluster.members().collect::<Vec<_>>() {
        fixture.restart(member);
    }
    fixture.await_service();
    let inspect = fixture.kvorum(["inspect", "--limit", "0"]);
    assert!(inspect.succeeded().text().contains("equal: true"), "{inspect:?}");
}

#[test]
fn a_repair_with_loss_gives_a_directory_that_is_read_and_not_served() {
    let fixture = killed();
    let dir = fixture.cluster.data_directory(Member::Replica(1));
    let log = only_log(&dir);
    let end = fs::read(&log).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    flip(&log, end / 2);
    let before = files(&dir);
    store(&["verify"], &dir).failed(6, &["damaged"]);
    store(&["dump"], &dir).failed(6, &["warning: ", "behind the damage", "skipped"]);

    let new = TempDir::new().unwrap();
    let into = new.path().join("r1");
    let repair = store(&["repair", "--into", into.to_str().unwrap()], &dir);
    repair.failed(6, &["not everything could be saved", "must not be served"]);
    assert!(repair.text().contains("lost: ") && repair.text().contains("records of the log"));
    assert_eq!(files(&dir), before, "a repair into another directory changes the first");
    let said = fs::read_to_string(into.join("REPAIR")).unwrap();
    assert!(said.starts_with("incomplete\n") && said.contains("records of the log"), "{said}");

    let arguments = ["replica", "--id", "1", "--listen", "127.0.0.1:0", "--data-dir"];
    let refused = run(server().args(arguments).arg(&into), b"");
    refused.failed(6, &["REPAIR", "could not save everything", "the other replicas"]);
    let dump = store(&["dump"], &into);
    // It may warn of what was under way where the log ends now.
    assert!(dump.code == 0 && dump.text().contains("user/00\tname 0\n"), "{dump:?}");
    store(&["verify"], &into).failed(6, &["damaged: 1 finding"]);
    // Once more, into a directory that is taken.
    store(&["repair", "--into", into.to_str().unwrap()], &dir).failed(4, &["is not empty"]);
}
