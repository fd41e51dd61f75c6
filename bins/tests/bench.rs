//! The bench over a real cluster, also one that fails under it.

#![expect(clippy::unwrap_used, reason = "in a test's helpers as in the test itself")]

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use kvorum::cluster::Member;
use serde_json::Value as Json;
use support::{Fixture, PATIENCE, client, dead_address, kvorum, lab, run};

#[test]
fn it_counts_measures_and_writes_a_history() {
    let fixture = Fixture::start();
    let directory = tempfile::tempdir().unwrap();
    let history = directory.path().join("history");
    let bench = ["--output", "json", "bench", "--ops", "400", "--clients", "4", "--history"];
    let arguments = bench.map(OsStr::new).into_iter().chain([history.as_os_str()]);
    let ran = fixture.kvorum(arguments);
    let report = ran.succeeded().json();
    assert_eq!((&report["ok"], &report["unknown"]), (&Json::from(400), &Json::from(0)));
    let number = |value: &Json| value.as_f64().unwrap();
    assert!(number(&report["ops_per_second"]) > 0.0);
    let latencies = ["p50", "p90", "p99", "p99_9", "max"].map(|name| &report["latency_us"][name]);
    assert!(number(latencies[0]) > 0.0);
    assert!(latencies.windows(2).all(|pair| number(pair[0]) <= number(pair[1])), "{report}");

    // What the history calls acknowledged is there.
    let text = fs::read_to_string(history).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
    let puts: BTreeSet<_> = lines
        .filter(|line| line["op"] == "put" && line["ok"] == true)
        .map(|line| (line["key"].to_string(), line["value"].to_string()))
        .collect();
    assert_eq!(puts.len(), 400);
    let rows = fixture.kvorum(["--output", "json", "scan"]);
    let rows = rows.text().lines().map(|line| serde_json::from_str::<Json>(line).unwrap());
    let rows: BTreeSet<_> =
        rows.map(|row| (row["key"].to_string(), row["value"].to_string())).collect();
    assert_eq!(rows, puts);

    let ran = fixture.kvorum(["bench", "--mix", "get", "--keys", "50", "--ops", "400"]);
    let text = ran.succeeded().text();
    assert!(text.contains("get: 16 clients") && text.contains("p99.9"), "{text}");
}

#[test]
fn whatever_it_asks_the_judges_understand() {
    let fixture = Fixture::start();
    let directory = tempfile::tempdir().unwrap();
    let history = directory.path().join("history");
    let mix = ["--mix", "put=2,get=2,txn=1,rmw=3,cas=1,del=1", "--txn-keys", "3"];
    let keys = ["--keys", "5", "--distribution", "zipfian", "--ops", "300", "--clients", "8"];
    let mut bench = fixture.client();
    bench.args(["--output", "json", "bench", "--history"]).arg(&history).args(mix).args(keys);
    let report = run(&mut bench, b"").succeeded().json();
    assert!(report["ok"].as_u64().unwrap() > 0, "{report}");
    let text = fs::read_to_string(&history).unwrap();
    assert!(text.contains("\"txn\""), "no transaction is in the history");
    // It may have to say that it is still at it.
    let judged = run(lab().arg("check").arg(&history).args(["--model", "serializable"]), b"");
    assert_eq!(judged.code, 0, "{judged:?}");
}

#[test]
fn an_open_loop_begins_by_the_clock_also_at_the_replicas() {
    let fixture = Fixture::start();
    let mix = ["--mix", "get=8,scan=1,txn=1", "--keys", "200", "--scan-rows", "7"];
    let rate = ["--rate", "500", "--arrivals", "fixed", "--seconds", "1", "--warm-up", "100ms"];
    let mut bench = fixture.client();
    bench.args(["--output", "json", "bench", "--clients", "4", "--to", "replicas"]);
    let report = run(bench.args(mix).args(rate), b"").succeeded().json();
    let count = |name: &str| report[name].as_u64().unwrap();
    let names = ["ok", "conflict", "unavailable", "overloaded", "unknown", "not_begun"];
    let offered: u64 = names.into_iter().map(count).sum();
    assert!(offered.abs_diff(500) <= 1, "{report}");
    assert!(count("ok") > 0, "{report}");
    assert_eq!((&report["rate"], &report["arrivals"]), (&500.0.into(), &"fixed".into()));

    let text = fixture.kvorum(["bench", "--rate", "200", "--mix", "put", "--seconds", "300ms"]);
    let text = text.succeeded().text();
    assert!(text.contains("200 a second (poisson) by 16 clients with at most 64"), "{text}");
}

#[test]
fn it_lives_through_the_death_of_a_replica() {
    let mut fixture = Fixture::start();
    // On a busy machine a bench may be over before the replica is gone, or back: then another one
    // goes on for longer.
    let noticed = ["3s", "20s", "2m"].into_iter().any(|time| {
        let report = bench_through_a_death(&mut fixture, time);
        assert!(report["ok"].as_u64() > Some(0), "{report}");
        println!("{report}");
        let refused = report["unavailable"].as_u64() > Some(0);
        refused && report["longest_pause_us"].as_f64() > Some(300e3)
    });
    assert!(noticed, "the death was not noticed");
}

/// The report of a bench of so long, during which a replica is killed and comes back.
fn bench_through_a_death(fixture: &mut Fixture, time: &str) -> Json {
    let directory = tempfile::tempdir().unwrap();
    let history = directory.path().join("history");
    let mut bench = fixture.client();
    bench.args(["--timeout", "5m", "--output", "json", "bench", "--give-up", "5m"]);
    bench.args(["--seconds", time, "--warm-up", "1ms", "--history"]);
    let bench = bench.arg(&history).stdout(Stdio::piped()).stderr(Stdio::piped());
    let bench = bench.spawn().unwrap();
    let await_line = |what: &str| {
        let began = Instant::now();
        let is_there = || {
            let Ok(file) = fs::File::open(&history) else { return false };
            BufReader::new(file).lines().map_while(Result::ok).any(|line| line.contains(what))
        };
        while !is_there() {
            assert!(began.elapsed() < PATIENCE, "no {what} in the history");
            thread::sleep(Duration::from_millis(5));
        }
    };
    await_line("\"ok\":true");
    fixture.cluster.kill(Member::Replica(2)).unwrap();
    thread::sleep(Duration::from_millis(300));
    fixture.restart(Member::Replica(2));
    let ended = bench.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    serde_json::from_slice(&ended.stdout).unwrap()
}

#[test]
fn without_a_cluster_it_says_so() {
    let dead = dead_address();
    let ran = kvorum(["--connect", &dead, "bench", "--ops", "10"]);
    ran.failed(4, &["cannot connect", &dead]);
}

#[test]
fn its_patience_is_limited() {
    let mut fixture = Fixture::start();
    fixture.cluster.kill(Member::Replica(1)).unwrap();
    let ran = fixture.kvorum(["bench", "--ops", "10", "--give-up", "300ms"]);
    ran.failed(4, &["a write needs every replica"]);
    let ran = fixture.kvorum(["bench", "--seconds", "200ms", "--warm-up", "1ms"]);
    ran.failed(4, &["nothing was acknowledged"]);
}

#[test]
fn a_run_in_which_nothing_ended_is_no_success() {
    let mut fixture = Fixture::start();
    // The first operations begin while it warms up, and do not end before all is over.
    fixture.cluster.pause(Member::Replica(1)).unwrap();
    let bench = ["--timeout", "2s", "bench", "--warm-up", "1s", "--seconds", "1ms"];
    let began = Instant::now();
    loop {
        let ran = fixture.kvorum(bench);
        // On a busy machine it may not even be connected by then.
        if !ran.failed(4, &[]).stderr.contains("connect") || began.elapsed() > PATIENCE {
            ran.failed(4, &["nothing was acknowledged"]);
            break;
        }
    }
}

#[test]
fn it_may_have_a_cluster_of_its_own() {
    let temporary = tempfile::tempdir().unwrap();
    let bench = ["--timeout", "5m", "bench", "--fresh", "--ops", "100", "--clients", "2"];
    let ran = run(client().args(bench).env("TMPDIR", temporary.path()), b"");
    assert!(ran.succeeded().text().contains("100 ok"), "{ran:?}");
    assert!(fs::read_dir(temporary.path()).unwrap().next().is_none());
}

#[test]
fn wrong_flags_are_usage() {
    kvorum(["bench", "--clients", "0"]).failed(2, &["--clients"]);
    kvorum(["bench", "--arrivals", "fixed"]).failed(2, &["--rate"]);
    kvorum(["bench", "--key-bytes", "3"]).failed(2, &["--key-bytes 3", "from 8 to 65536"]);
}
