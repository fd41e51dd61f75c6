//! Transactions that read and write, and scans of one moment, against real clusters.

#![expect(clippy::unwrap_used, reason = "in a test's helpers as in the test itself")]

mod support;

use std::process::Stdio;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use kvorum::cluster::Member;
use kvorum_replication::{Row, Transaction, Write};
use kvorum_rpc::client::{Client, ClientError, ClientOptions, ErrorKind, Rows};
use serde_json::json;
use support::{Fixture, PATIENCE};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

/// Runs a test's client, connected to the cluster and patient.
fn with_client<T>(fixture: &Fixture, test: impl AsyncFnOnce(Client) -> T) -> T {
    with_client_at(&fixture.connect, test)
}

fn with_client_at<T>(connect: &str, test: impl AsyncFnOnce(Client) -> T) -> T {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { test(connected(connect).await).await })
}

async fn connected(connect: &str) -> Client {
    let options = ClientOptions { timeout: PATIENCE, ..ClientOptions::new(connect.split(',')) };
    Client::connect(options).await.unwrap()
}

#[test]
fn statements_read_compare_and_add() {
    let fixture = Fixture::start();
    let input =
        "add visits 1\nput name ada\nget name visits nobody\ncas name ada bob\nadd visits -3\n";
    // A check speaks of the store before the transaction.
    fixture.feed(["txn"], input).failed(3, &["precondition 1", "\"name\""]);
    fixture.kvorum(["put", "name", "ada"]).succeeded();
    let ran = fixture.feed(["txn"], input);
    let expected = "visits\t1\nname\tada\nvisits\t1\nnobody\nvisits\t-2\ncommitted\n";
    assert_eq!(ran.succeeded().text(), expected);
    assert_eq!(fixture.kvorum(["scan"]).text(), "name\tbob\nvisits\t-2\n");

    let json = fixture.feed(["--output", "json", "txn"], "get name nobody\ndel name\nget name\n");
    let expected = json!({
        "committed": true, "checks": 0, "writes": 1,
        "reads": [
            {"key": "name", "value": "bob"},
            {"key": "nobody", "value": null},
            {"key": "name", "value": null},
        ],
    });
    assert_eq!(json.succeeded().json(), expected);
    let only = fixture.feed(["txn"], "get visits\ncheck name absent\n");
    assert_eq!(only.succeeded().text(), "visits\t-2\ncommitted\n");
    let only = fixture.feed(["txn"], "check visits present\ncheck name present\nget visits\n");
    only.failed(3, &["precondition-failed", "precondition 2"]);
    assert!(only.stdout.is_empty());

    fixture.kvorum(["put", "word", "one"]).succeeded();
    fixture.feed(["txn"], "add word 1\n").failed(2, &["`word` holds no whole number: `one`"]);
    let wrong = fixture.feed(["txn"], "get a\n  add a one\n");
    wrong.failed(2, &["line 2: column 9: `one` is no whole number"]);
}

#[test]
fn several_keys_are_shown_at_once() {
    let fixture = Fixture::start();
    fixture.feed(["txn"], "put a 1\nput b 'tab\\there'\n").succeeded();
    assert_eq!(fixture.kvorum(["get", "a", "b"]).succeeded().text(), "a\t1\nb\ttab\\\\there\n");
    let missing = fixture.kvorum(["get", "a", "none", "b", "--read", "stale"]);
    assert_eq!(missing.failed(1, &["`none`"]).text(), "a\t1\nnone\nb\ttab\\\\there\n");
    let json = fixture.kvorum(["--output", "json", "get", "none", "a"]);
    let lines: Vec<serde_json::Value> =
        json.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines, [json!({"key": "none", "value": null}), json!({"key": "a", "value": "1"})]);
    let large = vec![b'v'; 13 << 20];
    fixture.put_large("large/1", &large);
    fixture.put_large("large/2", &large);
    fixture.kvorum(["get", "large/1", "large/2"]).failed(2, &["bytes together"]);
}

#[test]
fn the_shell_reads_within_a_transaction() {
    let fixture = Fixture::start();
    fixture.kvorum(["put", "a", "1"]).succeeded();
    let input = "begin\nget a\nput a 2\nget a b\nadd n 5\ncas b x y\nabort\nadd n 2\ncas a 1 3\n";
    let ran = fixture.feed(["shell"], input);
    // One that is not there is an error, as everywhere.
    ran.failed(1, &["line 4: there is no key `b`"]);
    assert_eq!(ran.text(), "1\na\t2\nb\nn\t5\nn\t2\nok\nok\n");
    let ran = fixture.feed(["shell"], "begin\nget a n\nput a 4\ncommit\nget a\n");
    assert_eq!(ran.succeeded().text(), "a\t3\nn\t2\ncommitted\n4\n");
}

#[test]
fn a_transaction_of_the_shell_that_was_overtaken_is_told_so() {
    let fixture = Fixture::start();
    fixture.kvorum(["put", "a", "1"]).succeeded();
    with_client(&fixture, async |client| {
        let mut txn = client.begin();
        assert_eq!(txn.get("a").await, Ok(Some(Bytes::from("1"))));
        fixture.kvorum(["put", "a", "2"]).succeeded();
        txn.put("b", "3");
        let error = txn.commit().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
    });
    fixture.kvorum(["get", "b"]).failed(1, &[]);
}

/// A client that goes on putting a key while a replica stands still, and so mostly holds it.
fn holds(fixture: &Fixture, key: &str) -> std::process::Child {
    let mut command = fixture.client();
    command.args(["--timeout", "60s", "put", key, "held"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn whoever_meets_a_conflict_may_wait_for_its_turn() {
    let mut fixture = Fixture::start();
    let began = Instant::now();
    loop {
        fixture.cluster.pause(Member::Replica(2)).unwrap();
        let mut holder = holds(&fixture, "contended");
        // Whoever came first itself says nothing of conflicts, and the next one does.
        let arguments = ["--timeout", "300ms", "txn", "--on-conflict", "retry"];
        let mut tries = (0..5).map(|_| fixture.feed(arguments, "put contended mine\n"));
        let gave_up = tries.find(|ran| ran.code == 3);
        let waits = {
            let mut command = fixture.client();
            command.args(["--timeout", "60s", "put", "--on-conflict", "retry", "contended", "w"]);
            command.stderr(Stdio::piped()).spawn().unwrap()
        };
        fixture.cluster.resume(Member::Replica(2)).unwrap();
        let waited = waits.wait_with_output().unwrap();
        holder.wait().unwrap();
        if let (Some(gave_up), true) = (&gave_up, waited.status.success()) {
            let words = ["conflict", "contended", "gave up after", "tries within 300 ms"];
            gave_up.failed(3, &words);
            return;
        }
        // What was under way when the replica stood still may have been given up.
        assert!(began.elapsed() < PATIENCE, "{gave_up:?} {waited:?}");
    }
}

/// Adds one, by reading and writing; says how often that was tried.
async fn increment(client: &Client, key: &'static str) -> Result<u32, ClientError> {
    let mut tries = 0;
    client
        .transaction(async |txn| {
            tries += 1;
            let found = txn.get(key).await?;
            let count = found.map_or(0, |found| String::from_utf8_lossy(&found).parse().unwrap());
            txn.put(key, (count + 1_u64).to_string());
            Ok(tries)
        })
        .await
}

const CLIENTS: u64 = 6;
const INCREMENTS: u64 = 20;

#[track_caller]
fn many_count_to_the_exact_sum(fixture: &Fixture) {
    let count = |_| {
        with_client(fixture, async |client| {
            let mut tries = 0;
            for _ in 0..INCREMENTS {
                tries += u64::from(increment(&client, "counter").await.unwrap());
            }
            tries
        })
    };
    let tries: u64 = thread::scope(|scope| {
        let clients: Vec<_> =
            (0..CLIENTS).map(|number| scope.spawn(move || count(number))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let sum = CLIENTS * INCREMENTS;
    let found = fixture.kvorum(["get", "counter"]);
    assert_eq!(found.succeeded().text(), format!("{sum}\n"));
    assert!(tries > sum, "nobody got in anybody's way, which shows nothing");
}

#[test]
fn many_clients_count_to_the_exact_sum() {
    many_count_to_the_exact_sum(&Fixture::start());
}

#[test]
fn many_clients_count_to_the_exact_sum_under_paxos() {
    let fixture = Fixture::paxos(3, &[]);
    fixture.await_service();
    many_count_to_the_exact_sum(&fixture);
}

#[test]
fn many_clients_count_to_the_exact_sum_through_any_replica() {
    let fixture = Fixture::any_replica();
    fixture.await_service();
    many_count_to_the_exact_sum(&fixture);
}

#[test]
fn many_commands_add_to_the_exact_sum() {
    let fixture = Fixture::start();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let added = fixture.feed(["txn", "--on-conflict", "retry"], "add counter 2\n");
                    added.succeeded();
                }
            });
        }
    });
    assert_eq!(fixture.kvorum(["get", "counter"]).text(), "40\n");
}

/// More than a page holds, and more than two.
const ACCOUNTS: u32 = 2500;
const EACH: u32 = 100;

fn account(number: u32) -> Bytes {
    Bytes::from(format!("account/{number:05}"))
}

async fn open_accounts(client: &Client) {
    let writes = (0..ACCOUNTS).map(|number| Write::Put(account(number), EACH.to_string().into()));
    let transaction = Transaction { preconditions: Vec::new(), writes: writes.collect() };
    client.transact(transaction).await.unwrap();
}

async fn transfer(client: &Client, from: u32, to: u32) -> Result<(), ClientError> {
    client
        .transaction(async |txn| {
            let held = txn.get_many([account(from), account(to)]).await?;
            let [from_held, to_held] =
                [&held[0], &held[1]].map(|held| number(held.as_ref().unwrap()));
            let amount = from_held.min(7);
            txn.put(account(from), (from_held - amount).to_string());
            txn.put(account(to), (to_held + amount).to_string());
            Ok(())
        })
        .await
}

fn number(value: &Bytes) -> u32 {
    String::from_utf8_lossy(value).parse().unwrap()
}

fn total(rows: &[Row]) -> u32 {
    rows.iter().map(|(_, value)| number(value)).sum()
}

async fn rest(rows: &mut Rows, found: &mut Vec<Row>) -> Result<(), ClientError> {
    while let Some(page) = rows.next().await? {
        found.extend(page);
    }
    Ok(())
}

/// Between the first page and the second, money moves from the last page to the first one and from
/// the first to the last; none of it is seen.
#[track_caller]
fn a_long_scan_is_of_one_moment(connect: &str) {
    with_client_at(connect, async |client| {
        let scan = || client.rows(Bytes::from("account/"), Some(Bytes::from("account0")));
        for stale in [false, true] {
            let mut rows = if stale { scan().stale() } else { scan() };
            let mut found = rows.next().await.unwrap().unwrap();
            let before = total(&found);
            let in_last_page = ACCOUNTS - 1;
            assert!((found.len() as u32) < in_last_page);
            transfer(&client, in_last_page, 0).await.unwrap();
            transfer(&client, 1, in_last_page - 1).await.unwrap();
            client.delete(account(in_last_page - 2)).await.unwrap();
            rest(&mut rows, &mut found).await.unwrap();
            assert_eq!(found.len(), ACCOUNTS as usize, "stale: {stale}");
            assert_eq!(
                total(&found),
                EACH * ACCOUNTS,
                "stale: {stale}, {before} on the first page"
            );
            let deleted = account(in_last_page - 2);
            client.put(deleted, EACH.to_string().into()).await.unwrap();
            let mut now = Vec::new();
            rest(&mut scan(), &mut now).await.unwrap();
            assert_ne!(now, found, "nothing was written meanwhile");
            assert_eq!(total(&now), EACH * ACCOUNTS);
        }
    });
}

#[test]
fn a_long_scan_through_the_coordinator_is_of_one_moment() {
    let fixture = Fixture::start();
    with_client(&fixture, async |client| open_accounts(&client).await);
    a_long_scan_is_of_one_moment(&fixture.connect);
}

#[test]
fn a_long_scan_of_a_replica_of_multi_paxos_is_of_one_moment() {
    let fixture = Fixture::paxos(3, &[]);
    fixture.await_service();
    with_client(&fixture, async |client| open_accounts(&client).await);
    // Each answers from its own copy; writes go to the leader, and the scan stays where it began.
    for replica in 1..=3 {
        let address = fixture.cluster.address(Member::Replica(replica)).to_string();
        a_long_scan_is_of_one_moment(&address);
    }
}

#[test]
fn a_long_scan_of_any_replica_is_of_one_moment() {
    let fixture = Fixture::any_replica();
    fixture.await_service();
    with_client(&fixture, async |client| open_accounts(&client).await);
    a_long_scan_is_of_one_moment(&fixture.connect);
}

#[test]
fn scans_under_writes_find_what_there_always_was() {
    let fixture = Fixture::start();
    with_client(&fixture, async |client| open_accounts(&client).await);
    let (mut scans, mut different) = (0, 0);
    thread::scope(|scope| {
        let writers: Vec<_> = (1..=3)
            .map(|seed| {
                let fixture = &fixture;
                scope.spawn(move || {
                    with_client(fixture, async |client| {
                        for number in 0..150 {
                            let from = (seed * 797 + number * 1213) % ACCOUNTS;
                            let to = (from + 1 + number % (ACCOUNTS - 1)) % ACCOUNTS;
                            transfer(&client, from, to).await.unwrap();
                        }
                    });
                })
            })
            .collect();
        let mut last = Vec::new();
        while scans == 0 || writers.iter().any(|writer| !writer.is_finished()) {
            let scan = fixture.kvorum(["scan", "--prefix", "account/"]);
            let text = scan.succeeded().text();
            let held = |line: &str| line.split_once('\t').unwrap().1.parse::<u32>().unwrap();
            assert_eq!(text.lines().map(held).sum::<u32>(), EACH * ACCOUNTS);
            different += u32::from(scan.stdout != last);
            last.clone_from(&scan.stdout);
            scans += 1;
        }
    });
    assert!(different > 1, "{scans} scans saw nothing change");
}

#[test]
fn a_scan_whose_replica_is_lost_says_so() {
    let mut fixture = Fixture::start();
    let (runtime, local) =
        (Builder::new_current_thread().enable_all().build().unwrap(), LocalSet::new());
    let connect = fixture.connect.clone();
    let mut rows = local.block_on(&runtime, async {
        let client = connected(&connect).await;
        open_accounts(&client).await;
        let mut rows = client.rows(Bytes::new(), None);
        assert!(rows.next().await.unwrap().is_some());
        rows
    });
    // Whichever holds it, it does not any more.
    for replica in (1..=3).map(Member::Replica) {
        fixture.cluster.kill(replica).unwrap();
        fixture.restart(replica);
    }
    fixture.await_service();
    let error = local.block_on(&runtime, rows.next()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::SnapshotExpired, "{error}");
    assert_eq!(error.remedy, "scan again");
}
