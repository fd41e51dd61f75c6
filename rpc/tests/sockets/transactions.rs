//! Transactions that read, and scans of one moment, against a server whose node the test plays.

use std::time::Duration;

use crate::support::{Behaviour, Rows, client, coordinator, options, play, run};
use bytes::Bytes;
use kvorum_node::Event;
use kvorum_replication::{
    Failure, Happened, NodeId, Operation, Outcome, Precondition, Range, Role, Transaction, Write,
};
use kvorum_rpc::client::{Client, ClientError, ClientOptions, ErrorKind, OnConflict, Tries};

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn put_all(client: &Client, rows: &[(&'static str, &'static str)]) {
    for (key, value) in rows {
        client.put(b(key), b(value)).await.unwrap();
    }
}

#[test]
fn many_keys_are_read_in_one_call() {
    let played = coordinator(options());
    run(async {
        let client = client(&played).await;
        put_all(&client, &[("a", "1"), ("b", "")]).await;
        let keys = vec![b("b"), b("none"), b("a"), b("a")];
        let expected = vec![Some(b("")), None, Some(b("1")), Some(b("1"))];
        assert_eq!(client.get_many(keys.clone()).await, Ok(expected.clone()));
        assert_eq!(client.get_many_stale(keys).await, Ok(expected));
        assert_eq!(client.get_many(Vec::new()).await, Ok(Vec::new()));
        let error = client.get_many(vec![b("a"), Bytes::new()]).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Invalid);
        let error = client.get_many(vec![b("a"); 16_385]).await.unwrap_err();
        assert!(error.what.contains("16385 keys"), "{error}");
    });
}

#[test]
fn compare_and_set_says_whether_it_did() {
    let played = coordinator(options());
    run(async {
        let client = client(&played).await;
        let cas = |old, new| client.compare_and_set(b("k"), old, new);
        assert_eq!(cas(Some(b("1")), Some(b("2"))).await, Ok(false));
        assert_eq!(cas(None, Some(b("1"))).await, Ok(true));
        assert_eq!(cas(None, Some(b("3"))).await, Ok(false));
        assert_eq!(cas(Some(b("1")), Some(b("2"))).await, Ok(true));
        assert_eq!(cas(Some(b("2")), None).await, Ok(true));
        assert_eq!(client.get(b("k")).await, Ok(None));
    });
}

#[test]
fn a_transaction_that_was_overtaken_is_run_again() {
    let played = coordinator(options());
    run(async {
        let client = client(&played).await;
        client.put(b("counter"), b("1")).await.unwrap();
        let mut runs = 0;
        let sum = client.transaction(async |txn| {
            runs += 1;
            let found = txn.get("counter").await?.unwrap();
            if runs == 1 {
                client.put(b("counter"), b("5")).await?;
            }
            let sum: u32 = String::from_utf8_lossy(&found).parse::<u32>().unwrap() + 1;
            txn.put("counter", sum.to_string());
            Ok::<_, ClientError>(sum)
        });
        assert_eq!(sum.await, Ok(6));
        assert_eq!(runs, 2);
        assert_eq!(client.get(b("counter")).await, Ok(Some(b("6"))));
    });
}

#[test]
fn what_was_absent_must_still_be_absent() {
    let played = coordinator(options());
    run(async {
        let client = client(&played).await;
        let mut runs = 0;
        let first = client.transaction(async |txn| {
            runs += 1;
            let is_first = txn.get("lock").await?.is_none();
            if runs == 1 {
                client.put(b("lock"), b("other")).await?;
            }
            if is_first {
                txn.put("lock", "mine");
            }
            Ok::<_, ClientError>(is_first)
        });
        assert_eq!(first.await, Ok(false));
        assert_eq!(client.get(b("lock")).await, Ok(Some(b("other"))));
    });
}

#[test]
fn it_gives_up_when_it_was_tried_often_enough() {
    let played = coordinator(options());
    run(async {
        let client = client(&played).await;
        let mut runs = 0_u32;
        let tries = Tries { max: Some(3), ..Tries::default() };
        let outcome = client.transaction_with(tries, async |txn| {
            runs += 1;
            txn.get("k").await?;
            client.put(b("k"), Bytes::from(runs.to_string())).await?;
            txn.put("k", "mine");
            Ok::<_, ClientError>(())
        });
        let error = outcome.await.unwrap_err();
        assert_eq!((error.kind, error.happened), (ErrorKind::Conflict, Happened::No));
        assert!(
            error.what.contains("\"k\" was changed") && error.what.contains("3 tries"),
            "{error}"
        );
        assert_eq!(runs, 3);

        let tries = Tries { timeout: Some(Duration::from_millis(50)), ..Tries::default() };
        let outcome = client.transaction_with(tries, async |txn| {
            runs += 1;
            txn.get("k").await?;
            client.put(b("k"), Bytes::from(runs.to_string())).await?;
            txn.put("k", "mine");
            Ok::<_, ClientError>(())
        });
        assert_eq!(outcome.await.unwrap_err().kind, ErrorKind::Conflict);
        assert_eq!(client.get(b("k")).await, Ok(Some(Bytes::from(runs.to_string()))));
    });
}

/// A body's error of its own.
#[derive(Debug)]
enum Poor {
    By(i64),
    Client(ClientError),
}

impl From<ClientError> for Poor {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

#[test]
fn an_error_of_the_body_stands_only_if_what_it_saw_was_true_at_one_moment() {
    let played = coordinator(options());
    run(async {
        let client = client(&played).await;
        put_all(&client, &[("alice", "10"), ("bob", "90")]).await;
        let number = |value: Option<Bytes>| -> i64 {
            String::from_utf8_lossy(&value.unwrap()).parse().unwrap()
        };
        let withdraw = async |amount: i64, is_overtaken: bool| {
            let mut runs = 0;
            client
                .transaction(async |txn| {
                    runs += 1;
                    let alice = number(txn.get("alice").await?);
                    if runs == 1 && is_overtaken {
                        // The sum stays 100, and is never less.
                        let writes =
                            vec![Write::Put(b("alice"), b("95")), Write::Put(b("bob"), b("5"))];
                        client.transact(Transaction { writes, ..Transaction::default() }).await?;
                    }
                    let bob = number(txn.get("bob").await?);
                    if alice + bob < amount {
                        return Err(Poor::By(amount - alice - bob));
                    }
                    txn.put("alice", (alice - amount).to_string());
                    Ok(())
                })
                .await
        };
        assert!(matches!(withdraw(200, false).await, Err(Poor::By(100))));
        // 10 and 5 were never there together.
        assert!(withdraw(100, true).await.is_ok());
        assert_eq!(client.get(b("alice")).await, Ok(Some(b("-5"))));
        let failed: Result<_, Poor> =
            client.transaction(async |txn| Ok(txn.get(Bytes::new()).await?)).await;
        assert!(matches!(failed, Err(Poor::Client(error)) if error.kind == ErrorKind::Invalid));
    });
}

#[test]
fn it_sees_its_own_writes_and_reads_each_key_once() {
    let played = coordinator(options());
    run(async {
        let client = client(&played).await;
        put_all(&client, &[("a", "1"), ("b", "2"), ("c", "3"), ("d", "4"), ("e", "5")]).await;
        let mut txn = client.begin();
        assert_eq!(txn.get("a").await, Ok(Some(b("1"))));
        txn.put("b", "new");
        txn.delete("d");
        txn.put("bb", "more");
        client.put(b("a"), b("changed")).await.unwrap();
        let many = txn.get_many(["d", "a", "b", "e", "e"]).await.unwrap();
        let expected = [None, Some(b("1")), Some(b("new")), Some(b("5")), Some(b("5"))];
        assert_eq!(many, expected);

        let range = |limit| Range { start: b("b"), end: None, limit };
        let rows = [(b("b"), b("new")), (b("bb"), b("more")), (b("c"), b("3")), (b("e"), b("5"))];
        assert_eq!(txn.scan(range(10)).await.unwrap(), rows);
        assert_eq!(txn.scan(range(3)).await.unwrap(), rows[..3]);
        assert_eq!(txn.scan(range(1)).await.unwrap(), rows[..1]);
        assert_eq!(txn.scan(range(0)).await.unwrap(), []);
        let nothing = Range { start: b("c"), end: Some(b("b")), limit: 9 };
        assert_eq!(txn.scan(nothing).await.unwrap(), []);

        let error = txn.commit().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Conflict);
        assert!(error.what.contains("\"a\""), "{error}");
        assert_eq!(client.get(b("bb")).await, Ok(None));
    });
}

#[test]
fn rows_that_a_scan_found_are_checked_and_new_ones_are_not() {
    let played = coordinator(options());
    run(async {
        let client = client(&played).await;
        put_all(&client, &[("r/1", "1"), ("r/2", "2")]).await;
        let range = || Range { start: b("r/"), end: Some(b("r0")), limit: 100 };
        for (changed, ends_well) in [("r/3", true), ("r/2", false)] {
            let mut txn = client.begin();
            assert!(txn.scan(range()).await.unwrap().len() >= 2);
            client.put(b(changed), b("x")).await.unwrap();
            txn.put("count", "2");
            assert_eq!(txn.commit().await.is_ok(), ends_well, "{changed}");
        }
    });
}

#[test]
fn a_transaction_that_only_reads_is_confirmed_by_reading() {
    let played = coordinator(options());
    run(async {
        let client = client(&played).await;
        put_all(&client, &[("a", "1"), ("b", "1")]).await;
        for (overtaken, expected) in [(false, Ok(())), (true, Err(ErrorKind::Conflict))] {
            let mut txn = client.begin();
            txn.get("a").await.unwrap();
            txn.get("b").await.unwrap();
            if overtaken {
                client.put(b("a"), b("2")).await.unwrap();
            }
            assert_eq!(txn.commit().await.map_err(|error| error.kind), expected);
        }
        // What was read in one go was so at one moment, whatever comes later.
        let mut txn = client.begin();
        txn.get_many(["a", "b"]).await.unwrap();
        client.put(b("a"), b("3")).await.unwrap();
        assert_eq!(txn.commit().await, Ok(()));
        for (holds, expected) in [("3", Ok(())), ("4", Err((ErrorKind::PreconditionFailed, 1)))] {
            let mut txn = client.begin();
            txn.require(Precondition::Present(b("b")));
            txn.require(Precondition::Equals(b("a"), b(holds)));
            let outcome = txn.commit().await;
            let outcome = outcome.map_err(|error| (error.kind, error.failed_precondition.unwrap()));
            assert_eq!(outcome, expected);
        }
    });
}

#[test]
fn what_a_transaction_requires_is_not_tried_again() {
    let played = coordinator(options());
    run(async {
        let client = client(&played).await;
        let mut runs = 0;
        let outcome = client.transaction(async |txn| {
            runs += 1;
            txn.get("a").await?;
            txn.require(Precondition::Absent(b("b")));
            txn.require(Precondition::Present(b("b")));
            txn.put("a", "1");
            Ok::<_, ClientError>(())
        });
        let error = outcome.await.unwrap_err();
        assert_eq!(
            (error.kind, error.failed_precondition),
            (ErrorKind::PreconditionFailed, Some(1))
        );
        assert_eq!(runs, 1);
    });
}

/// Answers so many writes with a conflict before it does one.
fn contended(mut conflicts: u32) -> Behaviour {
    let mut rows = Rows::default();
    Box::new(move |event, turn| {
        let Event::Request(request) = event else { return };
        let outcome = match &request.operation {
            Operation::Transact { .. } if conflicts > 0 => {
                conflicts -= 1;
                Outcome::Failed(Failure::Conflict { key: b("k") })
            }
            operation => rows.answer(operation),
        };
        turn.replies.push((request.id, outcome));
    })
}

#[test]
fn a_conflict_is_told_or_tried_again_as_the_client_wants_it() {
    let cases = [
        (OnConflict::Fail, 1, Duration::from_secs(60), Err(ErrorKind::Conflict)),
        (OnConflict::Retry, 7, Duration::from_secs(60), Ok(())),
        (OnConflict::Retry, u32::MAX, Duration::from_millis(200), Err(ErrorKind::Conflict)),
    ];
    for (on_conflict, conflicts, timeout, expected) in cases {
        let played =
            play(Role::Coordinator, NodeId::COORDINATOR, None, options(), contended(conflicts));
        run(async {
            let options =
                ClientOptions { on_conflict, timeout, ..ClientOptions::new([played.connect_to()]) };
            let client = Client::connect(options).await.unwrap();
            let outcome = client.put(b("k"), b("v")).await;
            if let (OnConflict::Retry, Err(error)) = (on_conflict, &outcome) {
                assert!(error.what.contains("gave up after"), "{error}");
            }
            assert_eq!(outcome.map_err(|error| error.kind), expected);
        });
    }
}

#[test]
fn a_scan_shows_one_moment_however_many_pages_it_has() {
    let played = coordinator(options());
    run(async {
        let client = client(&played).await;
        let key = |number: u32| Bytes::from(format!("key/{number:03}"));
        for number in 0..100 {
            client.put(key(number), b("old")).await.unwrap();
        }
        let mut rows = client.rows(b("key/"), Some(b("key0"))).page_rows(7);
        let mut found = Vec::new();
        while let Some(page) = rows.next().await.unwrap() {
            assert!(page.len() <= 7);
            found.extend(page);
            client.put(key(99), b("new")).await.unwrap();
            client.delete(key(50)).await.unwrap();
            client.put(b("key/050a"), b("new")).await.unwrap();
        }
        let expected: Vec<_> = (0..100).map(|number| (key(number), b("old"))).collect();
        assert_eq!(found, expected);
        assert!(!rows.was_cut());
        assert_eq!(rows.next().await, Ok(None));

        for (limit, pages) in [(0, 0), (6, 1), (7, 1), (8, 2), (14, 2)] {
            let mut rows = client.rows(Bytes::new(), None).page_rows(7).limit(limit);
            let (mut found, mut count) = (0, 0);
            while let Some(page) = rows.next().await.unwrap() {
                found += page.len() as u64;
                count += 1;
            }
            assert_eq!((found, count), (limit, pages));
            assert!(rows.was_cut());
        }
    });
}

#[test]
fn a_scan_whose_snapshot_is_gone_says_so() {
    let mut rows = Rows::default();
    let forgetful: Behaviour = Box::new(move |event, turn| {
        let Event::Request(request) = event else { return };
        let outcome = match &request.operation {
            Operation::Read(query) if query.holder().is_some() => {
                Outcome::Failed(Failure::SnapshotExpired)
            }
            operation => rows.answer(operation),
        };
        turn.replies.push((request.id, outcome));
    });
    let played = play(Role::Coordinator, NodeId::COORDINATOR, None, options(), forgetful);
    run(async {
        let client = client(&played).await;
        put_all(&client, &[("a", "1"), ("b", "2")]).await;
        let mut rows = client.rows(Bytes::new(), None).page_rows(1);
        assert_eq!(rows.next().await.unwrap().unwrap().len(), 1);
        let error = rows.next().await.unwrap_err();
        assert_eq!((error.kind, error.happened), (ErrorKind::SnapshotExpired, Happened::No));
        assert_eq!(error.remedy, "scan again");
    });
}
