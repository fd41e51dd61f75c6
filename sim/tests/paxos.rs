//! Multi-Paxos, simulated: hundreds of clusters, each with its own faults.

use std::ops::ControlFlow::Continue;

use kvorum_replication::paxos::AcceptorRestart;
use kvorum_sim::planted::Place;
use kvorum_sim::{Promise, Reduction, Setup, Totals, paxos, run_seeds, threads};

/// How many seeds are run; each takes some hundredths of a second without optimisation.
const SEEDS: u64 = 300;

/// What nodes and stores must have done meanwhile, however rarely: each stands for a way through
/// the code that is entered only under faults, or when much has been done.
const ACTIVITY: &[&str] = &[
    "log files recycled",
    "replica accepts_resent",
    "replica catch_ups_repeated",
    "replica disk_full",
    "replica gaps_filled",
    "replica hand_overs_sent",
    "replica overloaded",
    "replica quorum_lost",
    "replica reads_by_lease",
    "replica reads_expired",
    "replica reads_stale",
    "replica reproposed",
    "replica retries_answered",
    "replica snapshots_given_up",
    "replica superseded",
    "replica unknown",
    "replica window_filled",
    "store compactions",
    "store flushes",
];

#[test]
fn clusters_keep_their_promises_under_faults() {
    let totals = run_seeds(paxos::simulate, 0..SEEDS, threads(), &Setup::new(0), |_| Continue(()));
    let Totals { seeds, faults, activity, happened, done, unknown, violations, .. } = &totals;
    println!("{faults}{happened:#?}\n{done} operations done, {unknown} of unknown outcome");
    let again = "again: cargo run -p kvorum --bin kvorum-lab -- sim --protocol paxos --trace";
    let broken = violations.iter().map(|(seed, what)| format!("{again} --seed {seed}\n{what}\n"));
    assert!(violations.is_empty(), "{}", broken.collect::<String>());
    // A run that injected nothing, or in which nothing was done, proves nothing.
    assert_eq!(*seeds, SEEDS);
    assert_eq!(faults.never(Place::Paxos), [], "of these faults none has struck");
    let idle = ACTIVITY.iter().filter(|name| activity.get(**name).is_none_or(|count| *count == 0));
    assert_eq!(idle.collect::<Vec<_>>(), Vec::<&&str>::new(), "this has never happened");
    assert!(happened.len() >= 5 && happened.values().all(|count| *count > 5), "{happened:?}");
    assert!(*done > 20_000 && *unknown > 200, "{done} done, {unknown} unknown");
}

/// Otherwise what is found once could not be found again; and one that is watched is the same run.
#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 5, 9] {
        let (first, second, unwatched) = (
            paxos::simulate(&Setup::new(seed).traced()),
            paxos::simulate(&Setup::new(seed).traced()),
            paxos::simulate(&Setup::new(seed)),
        );
        let (first_trace, second_trace) = (first.trace.unwrap(), second.trace.unwrap());
        assert!(first_trace.lines().count() > 1_000, "seed {seed} hardly does anything");
        let differing = first_trace.lines().zip(second_trace.lines()).find(|(a, b)| a != b);
        assert_eq!(differing, None, "seed {seed}");
        assert_eq!(first_trace, second_trace, "seed {seed}");
        assert_eq!(first.history, second.history, "seed {seed}");
        assert_eq!(first.history, unwatched.history, "seed {seed}");
        assert_eq!(first.faults, second.faults, "seed {seed}");
    }
}

/// A reduced run is as repeatable, and what is left out does not happen.
#[test]
fn a_reduced_run_is_one_too() {
    let flags = "--only-faults 0,2 --clients 2 --operations 9 --calm loss,repeat --heal-at 700";
    let reduction: Reduction = flags.parse().unwrap();
    for seed in 0..10 {
        let setup = Setup { reduction: reduction.clone(), ..Setup::new(seed) }.traced();
        let (first, second) = (paxos::simulate(&setup), paxos::simulate(&setup));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        let planned = &first.planned;
        assert!(planned.faults.iter().all(|fault| [0, 2].contains(fault)), "seed {seed}");
        assert!(planned.clients <= 2 && planned.operations <= 9, "seed {seed}: {planned:?}");
        assert_eq!(first.violation, None, "seed {seed}");
    }
}

/// Acceptors that forget and vote at once break consensus, and the judge sees where: the slot, and
/// both batches. Acceptors that forget and ask to be let in again do not.
#[test]
fn amnesia_splits_a_slot() {
    let like = |restart| Setup { acceptor_restart: Some(restart), ..Setup::new(0) };
    let run = |restart| {
        run_seeds(paxos::simulate, 0..40, threads(), &like(restart), |_| Continue(())).violations
    };
    let split = run(AcceptorRestart::Amnesia);
    assert!(!split.is_empty(), "nothing was found");
    for (seed, violation) in &split {
        assert_eq!(violation.promise, Promise::OneChosen, "seed {seed}: {violation}");
        assert!(violation.what.starts_with("two batches are chosen in #"), "{violation}");
    }
    assert_eq!(run(AcceptorRestart::Rejoin), []);
    assert_eq!(run(AcceptorRestart::Durable), []);
}
