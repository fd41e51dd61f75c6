//! Each bug on purpose is found, and nothing without one: who finds no bug that is there on purpose
//! would find no other.

#![cfg(feature = "planted-bugs")]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use kvorum_sim::planted::{Bug, Hunted, KNOWN_SEEDS, control, hunt_from_known};
use kvorum_sim::{Planted, threads};

/// Seeds for each bug, at most.
const SEEDS_MAX: u64 = 2_000;
/// Seeds without a bug. They are few, for the same are run by hundreds in the other tests; here they
/// show that the build with bugs has none by itself.
const CONTROL: u64 = 20;

#[test]
fn nothing_is_found_where_nothing_was_planted() {
    assert_eq!(control(CONTROL, threads()), Hunted::Nothing { seeds: CONTROL });
}

#[test]
fn there_is_the_planted_bug_that_was_asked_for_and_no_other() {
    let names = |planted: Planted| -> Vec<&str> {
        Bug::all().filter(|bug| has(planted, *bug)).map(Bug::name).collect()
    };
    for bug in Bug::all() {
        assert_eq!(names(Planted::of(bug)), [bug.name()]);
    }
    assert!(names(Planted::default()).is_empty());
}

fn has(planted: Planted, bug: Bug) -> bool {
    match bug {
        Bug::TwoPhase(bug) => planted.two_phase.has(bug),
        Bug::AnyReplica(bug) => planted.any_replica.has(bug),
        Bug::Paxos(bug) => planted.paxos.has(bug),
        Bug::Node(bug) => planted.node.has(bug),
        Bug::Storage(bug) => planted.storage.has(bug),
    }
}

#[test]
fn every_known_seed_is_of_a_planted_bug_that_is_hunted() {
    let hunted: BTreeSet<&str> = Bug::hunted().map(Bug::name).collect();
    let known: BTreeSet<&str> = KNOWN_SEEDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(known.len(), KNOWN_SEEDS.len(), "one of each");
    assert_eq!(known.difference(&hunted).next(), None);
}

/// Most hunts are a run or two, too short to be shared: each thread hunts for bugs of its own.
/// `KVORUM_BUG=NAME` looks for one of them only.
#[test]
fn every_planted_bug_is_found() {
    let only = std::env::var("KVORUM_BUG").ok();
    let is_asked = |bug: &Bug| only.as_ref().is_none_or(|only| only == bug.name());
    let bugs: Vec<Bug> = Bug::hunted().filter(is_asked).collect();
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(why) = finds(*bug) {
                        missed.lock().unwrap().push(format!("{}: {why}", bug.name()));
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(!bugs.is_empty() && missed.is_empty(), "of {} bugs:\n{missed:#?}", bugs.len());
}

fn finds(bug: Bug) -> Result<(), String> {
    let began = Instant::now();
    match hunt_from_known(bug, SEEDS_MAX, 1) {
        Hunted::Found(found) => {
            let moved = match bug.known_seed() {
                Some(known) if known != found.seed => format!(", and no longer by seed {known}"),
                Some(_) | None => String::new(),
            };
            let (name, seed, took) = (bug.name(), found.seed, began.elapsed());
            println!("{name} by seed {seed}{moved}, in {took:.1?}: {}", found.violation);
            Ok(())
        }
        Hunted::Nothing { seeds } => Err(format!("not found in {seeds} seeds")),
        Hunted::Unsound(found) => {
            Err(format!("without it seed {} breaks: {}", found.seed, found.violation))
        }
    }
}
