//! Long histories of transactions are judged in time near their length, and a needle in them is
//! found. `examples/long_transactions` does the same with a million micro-operations.

#[path = "../examples/long_transactions/store.rs"]
mod store;

use std::time::{Duration, Instant};

use kvorum_checker::{Cycle, CycleKind, Isolation, Rule, Transactions, sessions};
use store::{MICRO_OPERATIONS, Shape, Store};

/// What takes seconds takes no longer than this on the slowest and busiest of machines; what grew with
/// the square of the length would take much longer on the fastest.
const LONG: Duration = Duration::from_secs(300);

#[test]
fn two_hundred_thousand_micro_operations_take_seconds() {
    const COUNT: u64 = 200_000;
    for shape in [Shape::Lists, Shape::Registers, Shape::Store] {
        for stale_from in [None, Some(COUNT / 3)] {
            let started = Instant::now();
            let mut store = Store::new(shape, stale_from);
            let mut transactions = Transactions::new();
            let each = if shape == Shape::Store { 2 } else { MICRO_OPERATIONS };
            for _ in 0..COUNT / each {
                transactions.push(&store.next());
            }
            let verdict = transactions.acyclic(Isolation::StrictSerializable);
            let violation = verdict.violation();
            let expected = Rule::Cycle(Cycle { realtime: true, kind: CycleKind::GSingle });
            let rule = stale_from.map(|_| expected);
            assert_eq!(violation.map(|v| v.rule), rule, "{shape:?}: {verdict}");
            let few = violation.is_none_or(|violation| violation.operations.len() <= 4);
            assert!(few, "{shape:?}: {verdict}");
            let took = started.elapsed();
            assert!(took < LONG, "{shape:?}: {took:?}");
        }
    }
}

#[test]
fn long_sessions_take_seconds() {
    let started = Instant::now();
    let mut store = Store::new(Shape::Store, None);
    let history: Vec<_> = (0..50_000).map(|_| store.next()).collect();
    for (rule, verdict) in sessions(&history) {
        assert!(verdict.holds(), "{rule}: {verdict}");
    }
    let took = started.elapsed();
    assert!(took < LONG, "{took:?}");
}
