//! A bank: the sum of all accounts is the same in every read.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod written;

use kvorum_checker::{Rule, Verdict, conserved};
use written::history;

const OPEN: &str = "1 0 1 txn a=100 b=100 c=0\n";

fn judged(text: &str, total: Option<i128>) -> Verdict {
    let verdict = conserved(&history(text), total);
    let rule = verdict.violation().map(|violation| violation.rule);
    assert!(rule.is_none_or(|rule| rule == Rule::Conservation), "{verdict}");
    verdict
}

#[test]
fn sums_that_stay_hold() {
    for (name, rest) in [
        ("nothing moved", "2 2 3 mget a b c -> 100 100 0"),
        (
            "before and after",
            "1 2 9 txn if:a=100 if:b=100 a=90 b=110\n2 2 3 mget a b c -> 100 100 0\n3 4 5 mget a b c -> 90 110 0",
        ),
        ("a scan", "1 2 9 txn if:a=100 a=90 c=10\n2 4 5 scan a z -> a=90 b=100 c=10"),
        (
            "reads of some accounts say nothing",
            "1 2 9 txn if:a=100 a=90 c=10\n2 4 5 mget a b -> 90 100\n3 4 5 scan a c -> a=90 b=100\n4 4 5 mget a b c -> 90 100 10",
        ),
        (
            "a scan that stops early says nothing of the rest",
            "2 4 5 scan a z -> a=100 b=100 more\n3 4 5 mget a b c -> 100 100 0",
        ),
        ("before the bank opens", "3 0 1 mget a b c -> - - -\n2 4 5 mget a b c -> 100 100 0"),
        ("in debt", "2 2 3 mget a b c -> -5 200 5"),
    ] {
        let verdict = judged(&format!("{OPEN}{rest}"), Some(200));
        assert!(verdict.holds(), "{name}: {verdict}");
    }
}

#[test]
fn sums_that_change_are_violations() {
    for (name, rest, operations, words) in [
        (
            "half a transfer",
            "1 2 9 txn if:a=100 if:b=100 a=90 b=110\n2 2 3 mget a b c -> 90 100 0",
            2,
            "client 2 found 190 in all accounts, 10 less than the 200 there are; it saw a=90 of \
             client 1's txn if a is 100 if b is 100 put a=90 put b=110, and b=100, as it was \
             before that",
        ),
        (
            "the other half, in a scan",
            "1 2 9 txn if:a=100 if:b=100 a=90 b=110\n2 2 3 scan a z -> a=100 b=110 c=0",
            2,
            "client 2 found 210 in all accounts, 10 more than the 200 there are; it saw b=110 of",
        ),
        (
            "an update lost",
            "1 2 3 txn a=90 b=110\n2 4 5 txn if:a=90 if:c=0 a=80 c=10\n3 6 7 mget a b c -> 80 100 10",
            3,
            "client 3 found 190 in all accounts, 10 less than the 200 there are; beside it is who",
        ),
        (
            "an account vanished",
            "2 2 3 scan a z -> a=100 c=0",
            2,
            "client 2 found 100 in all accounts, 100 less than the 200 there are",
        ),
        ("no number", "2 2 3 mget a b c -> 100 1oo 0", 1, "account b was \"1oo\""),
    ] {
        // What is inferred is what most found.
        let most = "4 10 11 mget a b c -> 100 100 0\n5 10 11 mget a b c -> 100 100 0\n";
        for total in [Some(200), None] {
            let verdict = judged(&format!("{OPEN}{most}{rest}"), total);
            let violation = verdict.violation().expect(name);
            assert!(violation.words.starts_with(words), "{name}: {verdict}");
            assert_eq!(violation.operations.len(), operations, "{name}: {verdict}");
        }
    }
}

#[test]
fn a_history_that_shows_nothing_is_undecided() {
    for text in ["", OPEN, "1 0 1 get a -> 5", "1 0 1 mget a b -> - -"] {
        let verdict = judged(text, None);
        assert!(matches!(verdict, Verdict::Undecided { .. }), "{text}: {verdict}");
    }
}
