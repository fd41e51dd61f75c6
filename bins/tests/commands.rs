//! The commands against a real cluster.

mod support;

use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use kvorum::cluster::Member;
use serde_json::{Value as Json, json};
use support::{Fixture, PATIENCE, dead_address, seconds};
use tempfile::TempDir;

#[test]
fn keys_and_values_are_any_bytes() {
    let fixture = Fixture::start();
    fixture.kvorum(["put", "greeting", "hello world"]).succeeded();
    assert_eq!(fixture.kvorum(["get", "greeting"]).succeeded().text(), "hello world\n");
    fixture.kvorum(["put", "number", "-5"]).succeeded();
    assert_eq!(fixture.kvorum(["get", "number"]).text(), "-5\n");
    fixture.kvorum(["put", "nothing", ""]).succeeded();
    assert_eq!(fixture.kvorum(["get", "nothing"]).succeeded().stdout, b"\n");

    let key = OsString::from_vec(b"\xff\x01\n".to_vec());
    let value: Vec<u8> = (1..=u8::MAX).collect();
    let arguments = [OsString::from("put"), key.clone(), OsString::from_vec(value.clone())];
    fixture.kvorum(arguments).succeeded();
    let found = fixture.kvorum([OsString::from("get"), key.clone()]);
    assert_eq!(found.succeeded().stdout, [&value[..], b"\n"].concat());
    let json = fixture.kvorum([
        OsString::from("--output"),
        OsString::from("json"),
        OsString::from("get"),
        key.clone(),
    ]);
    assert_eq!(json.json()["key_base64"], "/wEK");

    fixture.kvorum([OsString::from("del"), key.clone()]).succeeded();
    let gone = fixture.kvorum([OsString::from("get"), key]);
    gone.failed(1, &["there is no key `\\xff\\x01\\n`"]);
    fixture.kvorum(["del", "never there"]).succeeded();
}

#[test]
fn values_come_from_standard_input_up_to_their_limit() {
    let fixture = Fixture::start();
    let largest = vec![b'v'; 16 << 20];
    fixture.put_large("large", &largest);
    let found = fixture.kvorum(["get", "large"]);
    assert!(found.succeeded().stdout == [&largest[..], b"\n"].concat(), "not the same bytes");
    fixture.feed(["put", "dash", "-"], "-").succeeded();
    assert_eq!(fixture.kvorum(["get", "dash"]).text(), "-\n");
    fixture.feed(["put", "empty", "-"], "").succeeded();
    assert_eq!(fixture.kvorum(["get", "empty"]).text(), "\n");
}

#[test]
fn programs_get_json() {
    let fixture = Fixture::start();
    let json = |arguments: &[&str]| fixture.kvorum(["--output", "json"].iter().chain(arguments));
    assert_eq!(json(&["put", "a", "1"]).succeeded().json(), json!({"committed": true}));
    assert_eq!(json(&["get", "a"]).succeeded().json(), json!({"key": "a", "value": "1"}));
    assert_eq!(json(&["del", "a"]).succeeded().json(), json!({"committed": true}));
    let missing = json(&["get", "a"]);
    assert!(missing.failed(1, &[]).stdout.is_empty());
    assert_eq!(
        missing.error(),
        json!({"error": "there is no key `a`", "kind": "not-found", "happened": "no"})
    );
}

#[test]
fn scans_show_rows_in_order() {
    let fixture = Fixture::start();
    let rows =
        "put b 2\nput a 1\nput c/1 'one\\n'\nput c/2 \"tab\\there\"\nput c/3 back\\\\slash\n";
    fixture.feed(["txn"], rows).succeeded();
    let scan = |arguments: &[&str]| {
        let ran = fixture.kvorum(["scan"].iter().chain(arguments));
        ran.succeeded().text().to_owned()
    };
    let c = ["c/1\tone\\\\n\n", "c/2\ttab\\there\n", "c/3\tback\\\\slash\n"];
    assert_eq!(scan(&[]), format!("a\t1\nb\t2\n{}", c.concat()));
    assert_eq!(scan(&["--prefix", "c/"]), c.concat());
    assert_eq!(scan(&["--prefix", "c/", "--limit", "2"]), c[..2].concat());
    assert_eq!(scan(&["--from", "b", "--to", "c/2"]), format!("b\t2\n{}", c[0]));
    assert_eq!(scan(&["--keys-only", "--limit", "1"]), "a\n");
    assert_eq!(scan(&["--prefix", "zzz"]), "");
    assert_eq!(scan(&["--limit", "0"]), "");
    let json = fixture.kvorum(["--output", "json", "scan", "--prefix", "c/2"]);
    assert_eq!(json.json(), json!({"key": "c/2", "value": "tab\there"}));
}

#[test]
fn scans_of_many_rows_go_page_by_page() {
    let fixture = Fixture::start();
    let puts: String = (0..3000).map(|n| format!("put key/{n:04} {n}\n")).collect();
    fixture.feed(["txn"], &puts).succeeded();
    let scan = fixture.kvorum(["scan"]);
    let lines: Vec<&str> = scan.succeeded().text().lines().collect();
    assert_eq!(lines.len(), 3000);
    assert!(lines.is_sorted());
    assert_eq!(lines[2999], "key/2999\t2999");
    let limited = fixture.kvorum(["scan", "--limit", "2500"]);
    assert_eq!(limited.text().lines().count(), 2500);
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let fixture = Fixture::start();
    let puts: String = (0..5000).map(|n| format!("put key/{n:04} {n:0100}\n")).collect();
    fixture.feed(["txn"], &puts).succeeded();
    let mut command = fixture.client();
    let mut child =
        command.arg("scan").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 8];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"key/0000");
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
}

#[test]
fn transactions_happen_as_a_whole_or_not() {
    let fixture = Fixture::start();
    let ran = fixture.feed(["txn"], "put ada 100 # coins\nput bob 20\ncheck ada absent\n");
    assert_eq!(ran.succeeded().text(), "committed\n");
    let transfer = "check ada = 100\ncheck bob present\nput ada 90\nput bob 30\n";
    let json = fixture.feed(["--output", "json", "txn"], transfer);
    assert_eq!(json.json(), json!({"committed": true, "checks": 2, "writes": 2}));
    let again = fixture.feed(["txn"], transfer);
    again.failed(3, &["ada"]);
    let json = fixture.feed(["--output", "json", "txn"], transfer);
    let error = json.failed(3, &[]).error();
    assert_eq!((&error["kind"], &error["happened"]), (&json!("precondition-failed"), &json!("no")));
    assert_eq!(fixture.kvorum(["scan"]).text(), "ada\t90\nbob\t30\n");
    let large = format!("put k '{}'\n", "v".repeat(15 << 20)).repeat(3);
    fixture.feed(["txn"], large).failed(2, &["line 2: here the transaction"]);
}

#[test]
fn status_shows_each_process() {
    let mut fixture = Fixture::start();
    let text = fixture.kvorum(["status"]);
    let lines: Vec<&str> = text.succeeded().text().lines().collect();
    assert_eq!(lines.len(), 5, "{lines:#?}");
    for (line, role) in lines[1..].iter().zip(["coordinator", "replica", "replica", "replica"]) {
        assert!(line.trim_start().starts_with(role) && line.contains(" up "), "{line}");
    }
    fixture.cluster.kill(Member::Replica(2)).unwrap();
    let down = fixture.kvorum(["status"]);
    let address = fixture.cluster.address(Member::Replica(2)).to_string();
    let text = down.succeeded().text();
    assert!(text.contains(&format!("replica 2 at {address} is down: ")), "{text}");
    let json = fixture.kvorum(["--output", "json", "status"]).json();
    let up: Vec<Json> =
        json["processes"].as_array().unwrap().iter().map(|process| process["up"].clone()).collect();
    assert_eq!(up, [true, true, false, true]);
    assert_eq!(json["processes"][0]["role"], "coordinator");
    assert_eq!(json["processes"][1]["in_doubt"], 0);
    assert_eq!(json["processes"][1]["incarnation"], 1);

    // The coordinator gone, any replica still knows the members.
    fixture.cluster.kill(Member::Coordinator).unwrap();
    fixture.kvorum(["status"]).failed(4, &[&fixture.connect]);
    let replica = fixture.cluster.address(Member::Replica(1)).to_string();
    let addresses = format!("{},{replica}", fixture.connect);
    let json = fixture.kvorum(["--connect", &addresses, "--output", "json", "status"]).json();
    let up: Vec<Json> =
        json["processes"].as_array().unwrap().iter().map(|process| process["up"].clone()).collect();
    assert_eq!(up, [false, true, false, true]);

    fixture.restart(Member::Coordinator);
    fixture.restart(Member::Replica(2));
    fixture.await_service();
    let json = fixture.kvorum(["--output", "json", "status"]).json();
    assert_eq!(json["processes"][2]["incarnation"], 2);
}

#[test]
fn inspect_compares_the_replicas() {
    let mut fixture = Fixture::start();
    let empty = fixture.kvorum(["--output", "json", "inspect"]).json();
    assert_eq!((&empty["equal"], &empty["keys"]), (&json!(true), &json!(0)));
    let puts: String = (0..2100).map(|n| format!("put key/{n:04} {n}\n")).collect();
    fixture.feed(["txn"], format!("{puts}put other x\n")).succeeded();
    let json = fixture.kvorum(["--output", "json", "inspect", "--limit", "1"]).json();
    assert_eq!((&json["equal"], &json["keys"]), (&json!(true), &json!(2101)));
    let digests: Vec<&Json> =
        json["replicas"].as_array().unwrap().iter().map(|replica| &replica["digest"]).collect();
    assert_eq!(digests.len(), 3);
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    let held = json!([{"id": 1, "value": "0"}, {"id": 2, "value": "0"}, {"id": 3, "value": "0"}]);
    assert_eq!(json["rows"], json!([{"key": "key/0000", "equal": true, "held_by": held}]));
    let prefixed = fixture.kvorum(["--output", "json", "inspect", "--prefix", "key/20"]).json();
    assert_eq!(prefixed["keys"], 100);

    let text = fixture.kvorum(["inspect", "--prefix", "other"]);
    assert!(text.succeeded().text().ends_with("\nequal: true\n"), "{}", text.text());
    let text = fixture.kvorum(["inspect", "--limit", "3"]);
    assert!(text.text().contains("... and 2098 more\n"), "{}", text.text());

    // A replica that cannot be asked may hold anything.
    fixture.cluster.kill(Member::Replica(3)).unwrap();
    let json = fixture.kvorum(["--output", "json", "inspect"]).json();
    assert_eq!((&json["equal"], &json["replicas"][2]["up"]), (&json!(false), &json!(false)));
    let text = fixture.kvorum(["inspect"]);
    assert!(text.succeeded().text().ends_with("\nequal: false\n"), "{}", text.text());
    assert!(text.text().contains("replica 3 at "), "{}", text.text());
}

#[test]
fn exports_can_be_imported() {
    let (fixture, dir) = (Fixture::start(), TempDir::new().unwrap());
    let file = dir.path().join("rows.jsonl");
    let puts: String = (0..300).map(|n| format!("put key/{n:03} {n}\n")).collect();
    fixture.feed(["txn"], format!("{puts}put \\xff\\x00 \\xfe\n")).succeeded();
    let before = fixture.kvorum(["scan"]).stdout;
    let export = fixture.kvorum(["export", file.to_str().unwrap()]);
    assert_eq!(
        (export.code, &export.stderr[..]),
        (0, format!("301 rows written to {}\n", file.display()).as_str())
    );
    assert_eq!(fixture.kvorum(["export"]).stdout, fs::read(&file).unwrap());

    let other = Fixture::start();
    let import = other.kvorum(["import", file.to_str().unwrap()]);
    assert_eq!((import.code, &import.stderr[..]), (0, "301 rows put\n"));
    assert_eq!(other.kvorum(["scan"]).stdout, before);

    let wrong = other.feed(["import"], "{\"key\":\"a\",\"value\":\"1\"}\n{\"key\":\"b\"}\n");
    wrong.failed(2, &["line 2: ", "`value_base64`"]);
    other.kvorum(["import", "/no/such/file"]).failed(2, &["/no/such/file"]);
}

#[test]
fn a_missing_replica_stops_writes_and_not_reads() {
    let mut fixture = Fixture::start();
    fixture.kvorum(["put", "k", "v"]).succeeded();
    fixture.cluster.kill(Member::Replica(2)).unwrap();
    let put = fixture.kvorum(["put", "k", "w"]);
    put.failed(4, &["2"]);
    assert_eq!(fixture.kvorum(["get", "k"]).succeeded().text(), "v\n");
    fixture.restart(Member::Replica(2));
    fixture.await_service();
    fixture.kvorum(["put", "k", "w"]).succeeded();
    assert_eq!(fixture.kvorum(["get", "k"]).text(), "w\n");
}

#[test]
fn of_two_writers_of_a_key_one_is_told_of_the_conflict() {
    let mut fixture = Fixture::start();
    // While a replica stands still, whoever comes first holds the key.
    fixture.cluster.pause(Member::Replica(2)).unwrap();
    let put = |value: &str| {
        let mut command = fixture.client();
        command.args(["--timeout", &seconds(PATIENCE), "put", "contended", value]);
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut writers = [put("one"), put("two")];
    let loser = loop {
        if let Some(loser) = writers.iter_mut().position(|w| w.try_wait().unwrap().is_some()) {
            break loser;
        }
        thread::sleep(Duration::from_millis(1));
    };
    fixture.cluster.resume(Member::Replica(2)).unwrap();
    let [one, two] = writers.map(|writer| writer.wait_with_output().unwrap());
    let (lost, won, value) = if loser == 0 { (one, two, "two\n") } else { (two, one, "one\n") };
    assert_eq!((lost.status.code(), won.status.code()), (Some(3), Some(0)), "{lost:?} {won:?}");
    let error = String::from_utf8(lost.stderr).unwrap();
    assert!(error.contains("conflict") && error.contains("contended"), "{error}");
    assert_eq!(fixture.kvorum(["get", "contended"]).text(), value);
}

#[test]
fn an_unknown_outcome_is_said_to_be_one_and_settles() {
    let mut fixture = Fixture::start();
    fixture.cluster.kill(Member::Coordinator).unwrap();
    let flags = ["--fail-point", "coordinator-all-votes=abort"];
    fixture.restart_with(Member::Coordinator, &flags);
    let (began, mut time) = (Instant::now(), 1);
    // The coordinator may still look for its replicas; and on a slow disk, or a busy machine, time may
    // be up before it gets to the point.
    let put = loop {
        let put = fixture.kvorum(["--timeout", &format!("{time}s"), "put", "k", "v"]);
        if put.code == 5 && fixture.has_ended(Member::Coordinator, Duration::from_secs(time)) {
            break put;
        }
        assert!([4, 5].contains(&put.code) && began.elapsed() < PATIENCE, "{put:?}");
        time = (2 * time).min(60);
    };
    put.failed(5, &[&fixture.connect]);
    let json = fixture.kvorum(["--connect", &fixture.connect, "--output", "json", "get", "k"]);
    assert_eq!(json.failed(4, &[]).error()["happened"], "no");

    fixture.restart(Member::Coordinator);
    assert_eq!(fixture.kvorum(["get", "k"]).succeeded().text(), "v\n");
    let json = fixture.kvorum(["--output", "json", "inspect"]).json();
    assert_eq!((&json["equal"], &json["keys"]), (&json!(true), &json!(1)));
}

#[test]
fn a_process_that_stands_still_is_shown_as_down() {
    let mut fixture = Fixture::start();
    fixture.cluster.pause(Member::Replica(3)).unwrap();
    // Whoever is slow to answer is shown as down, too: on a busy machine it is asked again.
    let status_with_up = |fixture: &Fixture, replica: usize| {
        let began = Instant::now();
        loop {
            let ran = fixture.kvorum(["--timeout", "8s", "--output", "json", "status"]);
            if ran.code == 0 && ran.json()["processes"][replica]["up"] == true {
                return ran.json();
            }
            assert!(began.elapsed() < PATIENCE, "{ran:?}");
        }
    };
    let json = status_with_up(&fixture, 2);
    assert_eq!(json["processes"][3]["up"], false);
    assert!(json["processes"][3]["error"].as_str().unwrap().contains("no answer"), "{json}");
    fixture.cluster.resume(Member::Replica(3)).unwrap();
    status_with_up(&fixture, 3);
}

#[test]
fn any_process_can_be_asked() {
    let mut fixture = Fixture::start();
    let replica = fixture.cluster.address(Member::Replica(2)).to_string();
    let ask = |fixture: &Fixture, arguments: &[&str]| {
        fixture.kvorum(["--connect", &replica].iter().chain(arguments))
    };
    ask(&fixture, &["put", "k", "v"]).succeeded();
    assert_eq!(ask(&fixture, &["get", "k"]).succeeded().text(), "v\n");
    assert_eq!(ask(&fixture, &["scan"]).succeeded().text(), "k\tv\n");
    assert_eq!(ask(&fixture, &["--output", "json", "inspect"]).json()["equal"], true);
    // It sends writers to the coordinator, and answers readers itself.
    fixture.cluster.kill(Member::Coordinator).unwrap();
    let began = Instant::now();
    loop {
        let ran = ask(&fixture, &["--timeout", "1s", "put", "k", "w"]);
        // On a busy machine time may be up before the replica has said where to turn to.
        if ran.failed(4, &[]).stderr.contains(&fixture.connect) {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{ran:?}");
    }
    assert_eq!(ask(&fixture, &["get", "k"]).succeeded().text(), "v\n");
}

#[test]
fn the_first_address_that_answers_is_used() {
    let fixture = Fixture::start();
    let addresses = format!("{},{}", dead_address(), fixture.connect);
    fixture.kvorum(["--connect", &addresses, "put", "k", "v"]).succeeded();
    assert_eq!(fixture.kvorum(["--connect", &addresses, "get", "k"]).text(), "v\n");
}
