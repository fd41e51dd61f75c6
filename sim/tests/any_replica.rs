//! Two-phase commit through any replica, simulated: hundreds of clusters, each with its own faults.

use std::ops::ControlFlow::Continue;

use kvorum_sim::planted::Place;
use kvorum_sim::reduction::Knob;
use kvorum_sim::{Reduction, Setup, Totals, any_replica, run_seeds, threads};

/// How many seeds are run; each takes some hundredths of a second without optimisation.
const SEEDS: u64 = 400;

/// What replicas must have done meanwhile, however rarely: each stands for a way through the code
/// that is entered only under faults, or when many want the same.
const ACTIVITY: &[&str] = &[
    "replica aborted_below_finished",
    "replica commits_resent",
    "replica died_of_reads",
    "replica given_up",
    "replica informs",
    "replica overloaded",
    "replica parked",
    "replica promised_never",
    "replica reads_expired",
    "replica reads_impatient",
    "replica reads_waited",
    "replica retries_answered",
    "replica retries_attached",
    "replica superseded",
    "replica unknown",
    "replica waiters_dropped",
    "store compactions",
    "store flushes",
    "store log cuts",
];

#[test]
fn clusters_keep_their_promises_under_faults() {
    let setup = Setup::new(0);
    let totals = run_seeds(any_replica::simulate, 0..SEEDS, threads(), &setup, |_| Continue(()));
    let Totals { seeds, faults, activity, happened, done, unknown, violations, .. } = &totals;
    println!("{faults}{done} operations done, {unknown} of unknown outcome\n{happened:#?}");
    let again = "again: cargo run -p kvorum --bin kvorum-lab -- sim --any-replica --trace";
    let broken = violations.iter().map(|(seed, what)| format!("{again} --seed {seed}\n{what}\n"));
    assert!(violations.is_empty(), "{}", broken.collect::<String>());
    // A run that injected nothing, or in which nothing was done, proves nothing.
    assert_eq!(*seeds, SEEDS);
    assert_eq!(faults.never(Place::AnyReplica), [], "of these faults none has struck");
    let idle = ACTIVITY.iter().filter(|name| activity.get(**name).is_none_or(|count| *count == 0));
    assert_eq!(idle.collect::<Vec<_>>(), Vec::<&&str>::new(), "this has never happened");
    let never = happened.iter().filter(|(_, count)| **count == 0);
    assert_eq!(never.collect::<Vec<_>>(), [], "this has never happened");
    assert!(*done > 20_000 && *unknown > 200, "{done} done, {unknown} unknown");
}

/// Otherwise what is found once could not be found again.
#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 5, 9] {
        let setup = Setup::new(seed);
        let first = any_replica::simulate(&setup.clone().traced());
        let second = any_replica::simulate(&setup.clone().traced());
        let unwatched = any_replica::simulate(&setup);
        let (first_trace, second_trace) = (first.trace.unwrap(), second.trace.unwrap());
        assert!(first_trace.lines().count() > 300, "seed {seed} hardly does anything");
        let differing = first_trace.lines().zip(second_trace.lines()).find(|(a, b)| a != b);
        assert_eq!(differing, None, "seed {seed}");
        assert_eq!(first_trace, second_trace, "seed {seed}");
        assert_eq!(first.history, second.history, "seed {seed}");
        assert_eq!(first.faults, second.faults, "seed {seed}");
        assert_eq!(first.history, unwatched.history, "seed {seed}: watching changes something");
    }
}

/// Presumed abort by the book, without a coordinator process: in a calm run a commit costs four
/// messages and two records for each other replica, and three records at its coordinator. What is
/// counted is what travelled and what was appended, not what replicas say of themselves; only which
/// records were forced is their own count.
#[test]
fn a_calm_commit_costs_what_the_book_says() {
    let all: Vec<&str> = Knob::ALL.iter().map(|knob| knob.name()).collect();
    let flags = format!("--only-faults none --operations 60 --calm {}", all.join(","));
    let mut commits = 0;
    for seed in 0..40 {
        let reduction: Reduction = flags.parse().unwrap();
        let run = any_replica::simulate(&Setup { reduction, ..Setup::new(seed) });
        assert_eq!(run.violation, None, "seed {seed}");
        let count = |name: &str| run.activity[name];
        commits += count("commits of all replicas");
        for what in ["commits' messages", "commits' records"] {
            let (counted, expected) = (count(what), count(&format!("{what} by the book")));
            assert_eq!(counted, expected, "{what} of seed {seed}");
        }
    }
    assert!(commits > 2_000, "{commits} commits");
}
