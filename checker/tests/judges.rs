//! Hand-made histories, good and bad, each judged; every bad one is a classic bug of a store.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod written;

use kvorum_checker::{
    Ending, Entry, FinalCopy, Limits, Rule, Verdict, atomic, converged, linearizable, read_entries,
    read_lines, serializable, write_copy, write_line,
};
use written::history;

/// What the judge must say, and for violations how many operations it must point at.
fn check(name: &str, verdict: &Verdict, expected: Option<(Rule, usize)>) {
    let found = verdict.violation().map(|v| (v.rule, v.operations.len()));
    assert_eq!(found, expected, "{name}: {verdict}");
    assert_eq!(verdict.holds(), expected.is_none(), "{name}: {verdict}");
}

#[test]
fn linearizable_histories_hold() {
    for (name, text) in [
        ("nothing", ""),
        ("one after the other", "1 0 1 put k=a\n1 2 3 get k -> a\n1 4 5 del k\n1 6 7 get k -> -"),
        ("a read overlapping a put may see it", "1 0 9 put k=a\n2 1 2 get k -> a"),
        ("a read overlapping a put may miss it", "1 0 9 put k=a\n2 1 2 get k -> -"),
        (
            "two puts overlap and readers agree on their order",
            "1 0 9 put k=a\n2 0 9 put k=b\n3 10 11 get k -> a\n4 12 13 get k -> a",
        ),
        ("unknown put happened", "1 0 ? put k=a\n2 5 6 get k -> a\n2 7 8 get k -> a"),
        ("unknown put never happened", "1 0 ? put k=a\n2 5 6 get k -> -"),
        ("unknown put happened late", "1 0 ? put k=a\n2 5 6 get k -> -\n2 7 8 get k -> a"),
        (
            "unknown delete happened late",
            "1 0 1 put k=a\n1 2 ? del k\n2 5 6 get k -> a\n2 7 8 get k -> -",
        ),
        (
            "one unknown delete explains one disappearance",
            "1 0 1 put k=a\n2 2 ? del k\n3 3 4 get k -> -\n1 5 6 put k=b\n3 7 8 get k -> b",
        ),
        ("a cas chain", "1 0 1 put k=a\n1 2 9 cas k b c\n2 2 9 cas k a b\n3 10 11 get k -> c"),
        ("a failed cas saw another value", "1 0 1 put k=a\n2 2 3 !0cas k b c\n2 4 5 get k -> a"),
        ("what did not happen is not seen", "1 0 1 !put k=a\n2 2 3 get k -> -"),
        ("touching intervals overlap", "1 0 5 put k=a\n2 5 6 get k -> -"),
        (
            "keys are independent",
            "1 0 1 put k=a\n1 2 3 put l=b\n2 4 5 get l -> b\n2 6 7 get k -> a",
        ),
    ] {
        check(name, &linearizable(&history(text), Limits::default()), None);
    }
}

#[test]
fn histories_that_are_not_linearizable_are_violations() {
    let rule = Rule::Linearizability;
    for (name, text, expected) in [
        ("a stale read", "1 0 1 put k=a\n1 2 3 put k=b\n2 4 5 get k -> a", (rule, 3)),
        ("an acknowledged write lost", "1 0 1 put k=a\n2 4 5 get k -> -", (rule, 2)),
        (
            "a value seen and then unseen",
            "1 0 1 put k=a\n2 2 30 put k=b\n3 5 6 get k -> b\n4 7 8 get k -> a",
            (rule, 4),
        ),
        (
            "two readers disagree on the order of two puts",
            "1 0 9 put k=a\n2 0 9 put k=b\n3 10 11 get k -> a\n4 12 13 get k -> b",
            (rule, 4),
        ),
        (
            "an unknown put happens at most once",
            "1 0 ? put k=a\n2 1 2 get k -> a\n2 3 4 put k=b\n2 5 6 get k -> b\n2 7 8 get k -> a",
            (rule, 4),
        ),
        (
            "a write undone after it was read",
            "1 0 1 put k=a\n1 2 ? put k=b\n2 3 4 get k -> b\n2 5 6 get k -> a",
            (rule, 4),
        ),
        ("two cas from one value", "1 0 1 put k=a\n1 2 9 cas k a b\n2 2 9 cas k a c", (rule, 3)),
        (
            "a cas that did not see the newest value",
            "1 0 1 put k=a\n1 2 3 put k=b\n2 4 5 cas k a c",
            (rule, 3),
        ),
        (
            "a deleted key comes back",
            "1 0 1 put k=a\n1 2 3 del k\n2 4 5 get k -> -\n3 6 7 get k -> a",
            (rule, 3),
        ),
        (
            "one unknown delete cannot explain two disappearances",
            "1 0 1 put k=a\n2 2 ? del k\n3 3 4 get k -> -\n1 5 6 put k=b\n3 7 8 get k -> b\n3 9 10 get k -> -",
            (rule, 5),
        ),
        (
            "a cas that failed although it had to succeed",
            "1 0 1 put k=a\n2 2 3 !0cas k a b",
            (rule, 2),
        ),
        (
            "a write applied twice, the second time over a newer one",
            "1 0 1 put k=a\n2 2 3 put k=b\n3 4 5 get k -> b\n4 6 7 get k -> a\n3 8 9 put k=c",
            (rule, 3),
        ),
        ("a value nobody wrote", "1 0 1 put k=a\n2 2 3 get k -> x", (Rule::Fabricated, 1)),
        (
            "a write that did not happen is seen",
            "1 0 1 !put k=a\n2 2 3 get k -> a",
            (Rule::Fabricated, 2),
        ),
        ("a read from the future", "2 2 3 get k -> a\n1 4 5 put k=a", (Rule::Fabricated, 2)),
    ] {
        check(name, &linearizable(&history(text), Limits::default()), Some(expected));
    }
}

#[test]
fn atomic_histories_hold() {
    for (name, text) in [
        ("all of it", "1 0 1 txn x=1 y=1\n2 2 3 mget x y -> 1 1"),
        ("nothing of it", "1 0 9 txn x=1 y=1\n2 2 3 mget x y -> - -"),
        ("overwritten in part", "1 0 1 txn x=1 y=1\n1 2 3 put y=2\n2 4 5 mget x y -> 1 2"),
        ("deleted in part", "1 0 1 txn x=1 y=1\n1 2 3 del y\n2 4 5 scan a - -> x=1"),
        ("a key beyond the limit", "1 0 1 txn x=1 y=1\n2 2 3 scan a - -> x=1 more"),
        ("another range", "1 0 1 txn x=1 y=1\n2 2 3 scan a y -> x=1"),
        ("absent before it was removed", "1 0 1 put y=1\n2 2 3 mget x y -> - 1\n1 4 5 txn x=- y=2"),
        ("an unknown one seen whole", "1 0 ? txn x=1 y=1\n2 2 3 mget x y -> 1 1"),
    ] {
        let history = history(text);
        check(name, &atomic(&history), None);
        check(name, &serializable(&history, Limits::default()), None);
    }
}

#[test]
fn histories_that_are_not_atomic_are_violations() {
    for (name, text, operations) in [
        ("half of it", "1 0 9 txn x=1 y=1\n2 2 3 mget x y -> 1 -", 2),
        ("half of it in a scan", "1 0 9 txn x=1 y=1\n2 2 3 scan a - -> y=1", 2),
        (
            "half of it over older values",
            "1 0 1 txn x=1 y=1\n2 2 9 txn x=2 y=2\n3 3 4 mget x y -> 2 1",
            3,
        ),
        ("half of one of unknown outcome", "1 0 ? txn x=1 y=1\n2 2 3 mget x y -> - 1", 2),
        ("a transaction saw half of another", "1 0 9 txn x=1 y=1\n2 2 3 txn if:x=1 if:y=- z=1", 2),
    ] {
        let history = history(text);
        check(name, &atomic(&history), Some((Rule::Atomicity, operations)));
        let whole = serializable(&history, Limits::default());
        check(name, &whole, Some((Rule::Serializability, operations)));
    }
}

#[test]
fn serializability_sees_what_one_key_and_one_read_cannot() {
    let rule = Rule::Serializability;
    for (name, text, expected) in [
        (
            "write skew: each saw the other absent",
            "1 0 9 txn if:x=- y=1\n2 0 9 txn if:y=- x=1",
            Some((rule, 2)),
        ),
        ("one after the other", "1 0 9 txn if:x=- y=1\n2 0 9 txn if:y=1 x=1", None),
        (
            "two readers see two writes in opposite orders",
            "1 0 9 put x=1\n2 0 9 put y=1\n3 1 8 mget x y -> 1 -\n4 1 8 mget x y -> - 1",
            Some((rule, 4)),
        ),
        (
            "a scan misses what was acknowledged before what it sees began",
            "1 0 1 put x=1\n2 2 3 put y=1\n3 0 9 scan a - -> y=1",
            Some((rule, 3)),
        ),
        ("keys alone are in order", "1 0 1 put x=1\n2 2 3 put y=1\n3 0 9 scan a - -> x=1", None),
        (
            "an unknown transaction cannot have happened and not happened",
            "1 0 ? txn x=1 y=1\n2 1 2 get x -> 1\n2 3 4 get y -> -",
            Some((rule, 3)),
        ),
        (
            "a failed precondition is a read",
            "1 0 1 txn x=1 y=1\n2 2 3 !0txn if:y z=1",
            Some((Rule::Linearizability, 2)),
        ),
    ] {
        check(name, &serializable(&history(text), Limits::default()), expected);
    }
}

#[test]
fn many_transactions_beside_one_torn_read_are_told_apart() {
    let mut text = String::new();
    for i in 0..300 {
        let at = i * 10;
        text += &format!("1 {at} {} txn x=x{i} y=y{i}\n", at + 6);
        text += &format!("2 {} {} mget x y -> x{i} y{i}\n", at + 7, at + 8);
    }
    check("sound", &serializable(&history(&text), Limits::default()), None);
    text += "3 1504 1506 mget x y -> x150 y149\n";
    let verdict = serializable(&history(&text), Limits::default());
    check("one torn read", &verdict, Some((Rule::Serializability, 3)));
    let shown = verdict.to_string();
    let torn = "> client 3  get x y: read x150 y149          from 14 ns to 16 ns";
    assert!(shown.contains(torn), "{shown}");
    let whole = "  client 1  txn put x=x150 put y=y150: done  from 10 ns to 16 ns";
    assert!(shown.contains(whole), "{shown}");
    assert!(shown.contains("(times since 1490 ns of the history)"), "{shown}");
}

#[test]
fn copies_converge_or_not() {
    let copy = |name: &str, rows: &[(&str, &str)]| {
        let rows = rows.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>();
        (name.to_owned(), rows)
    };
    let same = [copy("n1", &[("a", "1"), ("b", "2")]), copy("n2", &[("a", "1"), ("b", "2")])];
    check("same", &converged(&same), None);
    for (name, rows) in [
        ("a value differs", vec![("a", "1"), ("b", "3")]),
        ("a key is missing", vec![("a", "1")]),
        ("a key is left", vec![("a", "1"), ("b", "2"), ("c", "3")]),
    ] {
        let copies = [same[0].clone(), same[1].clone(), copy("n3", &rows)];
        check(name, &converged(&copies), Some((Rule::Convergence, 0)));
    }
}

#[test]
fn lines_are_written_and_read_back() {
    let history = history(
        "1 0 1 put k=a\n1 2 3 get k -> a\n1 2 3 get l -> -\n2 4 ? del k\n2 5 6 cas k a b
         2 5 6 !0cas k - b\n3 7 8 !txn if:k if:l=- if:m=1 k=2 l=-\n3 9 9 mget k l -> 1 -
         4 1 2 scan a z -> k=1 more\n4 1 2 scan a - -> ",
    );
    let mut bytes = Vec::new();
    for record in &history {
        write_line(&mut bytes, record).unwrap();
    }
    assert_eq!(read_lines(&bytes[..]).unwrap(), history);
    let documented = r#"{"client":1,"op":"cas","key":"k","value":"v","expected":null,"call":5,"ret":9,"ok":"unknown","result":null}"#;
    let read = read_lines(documented.as_bytes()).unwrap();
    assert_eq!(read[0].to_string(), "client 1 cas k (absent)->v: outcome unknown, called at 5");
}

#[test]
fn a_file_holds_operations_and_copies() {
    let operations = history(
        "1 0 1 append x 1, read x [1]\n1 2 3 read x, write y 1\n2 4 ? write x -, read y\n2 5 6 read y -",
    );
    let copies = ["n1", "n2"].map(|name| {
        let rows = vec![("k".to_owned(), format!("on {name}"))];
        (name.to_owned(), rows)
    });
    // What is done must say what it found: the second one's read of x is only asked.
    let operations: Vec<_> = operations
        .into_iter()
        .enumerate()
        .map(|(place, mut record)| {
            record.ending = if place == 1 { Ending::NotDone } else { record.ending };
            record
        })
        .collect();
    let mut bytes = Vec::new();
    write_copy(&mut bytes, &copies[0]).unwrap();
    for record in &operations {
        write_line(&mut bytes, record).unwrap();
    }
    write_copy(&mut bytes, &copies[1]).unwrap();
    assert_eq!(read_lines(&bytes[..]).unwrap(), operations);
    let entries: Vec<Entry> = read_entries(&bytes[..]).map(Result::unwrap).collect();
    assert_eq!(entries.len(), operations.len() + 2);
    let read: Vec<FinalCopy> = entries
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Copy(copy) => Some(copy),
            Entry::Operation(_) => None,
        })
        .collect();
    assert_eq!(read, copies);
    check("copies", &converged(&read), Some((Rule::Convergence, 0)));
    let mixed = history("1 0 1 append x 1, write y 1");
    assert!(write_line(Vec::new(), &mixed[0]).is_err());
}

#[test]
fn malformed_lines_are_named() {
    for (line, what) in [
        ("{", "EOF"),
        (r#"{"client":1,"op":"get","call":1,"ret":2,"ok":true}"#, "\"key\" is missing"),
        (r#"{"client":1,"op":"get","key":"k","call":3,"ret":2,"ok":true}"#, "before it was called"),
        (r#"{"client":1,"op":"pet","key":"k","call":1,"ret":2,"ok":true}"#, "no such operation"),
        (r#"{"client":1,"op":"get","key":"k","call":1,"ret":2,"ok":"maybe"}"#, "\"ok\" is"),
        (r#"{"client":1,"op":"get","key":"k","call":1,"ok":true}"#, "\"ret\" is missing"),
        (r#"{"client":1,"op":"get","key":"k","rsult":"a","call":1,"ret":2,"ok":true}"#, "rsult"),
        (
            r#"{"client":1,"op":"get","key":"k","rows":[],"call":1,"ret":2,"ok":true}"#,
            "\"rows\" does not belong to \"get\"",
        ),
        (
            r#"{"client":1,"op":"put","key":"k","value":"v","call":1,"ret":2,"ok":true,"failed":0}"#,
            "\"failed\" does not belong to \"put\"",
        ),
        (r#"{"op":"get","key":"k","call":1,"ret":2,"ok":true}"#, "\"client\" is missing"),
        (
            r#"{"client":1,"op":"list","ops":[["read","x"]],"call":1,"ret":2,"ok":true}"#,
            "what it found is missing",
        ),
        (
            r#"{"client":1,"op":"list","ops":[["read","x","1"]],"call":1,"ret":2,"ok":true}"#,
            "a list is read as a list",
        ),
        (
            r#"{"client":1,"op":"rw","ops":[["write","x","1"],["append","x","1"]],"call":1,"ret":2,"ok":true}"#,
            "\"ops\"[1], \"append\" in \"rw\": no such micro-operation",
        ),
        (
            r#"{"client":1,"op":"rw","ops":[["read","x","1","2"]],"call":1,"ret":2,"ok":true}"#,
            "trailing characters",
        ),
        (r#"{"copy":"n1"}"#, "\"rows\" is missing"),
        (r#"{"copy":"n1","rows":[],"client":1}"#, "\"client\" does not belong to \"copy\""),
    ] {
        let text = format!("\n{line}\n");
        let error = read_lines(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with("line 2: ") && error.contains(what), "{line}: {error}");
    }
}
