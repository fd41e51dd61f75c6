//! Stored bytes that nobody wrote are refused, or agree with themselves.

use kvorum_tests::fuzz::{Entropy, Seen, Target};

/// `kvorum-tests fuzz` takes them from the clock.
const SEED: u64 = 1;

/// It tries as many as there is time for, each target in a process of its own.
const CASES: u64 = 150;

/// Cases that once were answered with a panic.
const FOUND: [(Target, u64, u64); 1] = [
    // The manifest has so many entries of a segment that no others could be added.
    (Target::Store, 1_795_296_428_429, 1042),
];

fn try_case(target: Target, seed: u64, case: u64) -> Seen {
    let tried = target.try_case(&mut Entropy::of_case(target.name(), seed, case));
    tried.unwrap_or_else(|error| panic!("{}, seed {seed}, case {case}: {error:#}", target.name()))
}

#[test]
fn what_was_found_once_is_answered() {
    for (target, seed, case) in FOUND {
        try_case(target, seed, case);
    }
}

#[test]
fn bytes_that_nobody_wrote_are_refused_or_agree_with_themselves() {
    for target in Target::ALL {
        let seen: Vec<Seen> = (0..CASES).map(|case| try_case(target, SEED, case)).collect();
        // Cases that are all refused, or all taken, prove nothing.
        for must in [Seen::Refused, Seen::Taken] {
            assert!(seen.contains(&must), "{}: never {must:?}", target.name());
        }
    }
}
