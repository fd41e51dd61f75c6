//! Two-phase commit, simulated: hundreds of clusters, each with its own faults.

use std::ops::ControlFlow::Continue;
use std::time::Duration;

use kvorum_checker::{Ending, Operation, Record};
use kvorum_sim::planted::Place;
use kvorum_sim::reduction::Knob;
use kvorum_sim::{Fault, Reduction, Setup, Totals, run_seeds, threads, two_phase};

/// How many seeds are run; each takes some hundredths of a second without optimisation.
const SEEDS: u64 = 400;

/// What nodes and stores must have done meanwhile, however rarely: each stands for a way through
/// the code that is entered only under faults, or when much has been done.
const ACTIVITY: &[&str] = &[
    "coordinator commits_resent",
    "coordinator conflicts",
    "coordinator overloaded",
    "coordinator reads_retried",
    "coordinator retries_answered",
    "coordinator unknown",
    "log files recycled",
    "replica aborted_below_finished",
    "replica commits_out_of_order",
    "replica committed_alone",
    "replica informs",
    "replica joined",
    "replica learned",
    "replica snapshots_installed",
    "replica promised_never",
    "replica reads_expired",
    "replica reads_waited",
    "replica refused",
    "coordinator excluded",
    "coordinator leases",
    "coordinator rejoined",
    "coordinator views",
    "replica left_out",
    "replica reads_unleased",
    "store compactions",
    "store flushes",
    "store log cuts",
];

#[test]
fn clusters_keep_their_promises_under_faults() {
    let totals =
        run_seeds(two_phase::simulate, 0..SEEDS, threads(), &Setup::new(0), |_| Continue(()));
    let Totals { seeds, faults, activity, happened, done, unknown, violations, .. } = &totals;
    println!("{faults}{happened:#?}\n{done} operations done, {unknown} of unknown outcome");
    let again = "again: cargo run -p kvorum --bin kvorum-lab -- sim --trace";
    let broken = violations.iter().map(|(seed, what)| format!("{again} --seed {seed}\n{what}\n"));
    assert!(violations.is_empty(), "{}", broken.collect::<String>());
    // A run that injected nothing, or in which nothing was done, proves nothing.
    assert_eq!(*seeds, SEEDS);
    assert_eq!(faults.never(Place::TwoPhase), [], "of these faults none has struck");
    let idle = ACTIVITY.iter().filter(|name| activity.get(**name).is_none_or(|count| *count == 0));
    assert_eq!(idle.collect::<Vec<_>>(), Vec::<&&str>::new(), "this has never happened");
    let never = happened.iter().filter(|(_, count)| **count == 0);
    assert_eq!(never.collect::<Vec<_>>(), [], "this has never happened");
    assert!(*done > 20_000 && *unknown > 200, "{done} done, {unknown} unknown");
}

/// Otherwise what is found once could not be found again.
#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 9, 180] {
        let (first, second) = (
            two_phase::simulate(&Setup::new(seed).traced()),
            two_phase::simulate(&Setup::new(seed).traced()),
        );
        let (first_trace, second_trace) = (first.trace.unwrap(), second.trace.unwrap());
        assert!(first_trace.lines().count() > 1_000, "seed {seed} hardly does anything");
        let differing = first_trace.lines().zip(second_trace.lines()).find(|(a, b)| a != b);
        assert_eq!(differing, None, "seed {seed}");
        assert_eq!(first_trace, second_trace, "seed {seed}");
        assert_eq!(first.history, second.history, "seed {seed}");
        assert_eq!(first.faults, second.faults, "seed {seed}");
    }
    let traces = [1, 9].map(|seed| two_phase::simulate(&Setup::new(seed).traced()).trace);
    assert_ne!(traces[0], traces[1], "another seed gives another run");
}

/// A reduced run is as repeatable, and what is left out does not happen.
#[test]
fn a_reduced_run_is_one_too() {
    let flags = "--only-faults 0,2 --clients 2 --operations 9 --calm loss,repeat --heal-at 700";
    let reduction: Reduction = flags.parse().unwrap();
    for seed in 0..20 {
        let setup = Setup { reduction: reduction.clone(), ..Setup::new(seed) }.traced();
        let (first, second) = (two_phase::simulate(&setup), two_phase::simulate(&setup));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        let planned = &first.planned;
        assert!(planned.faults.iter().all(|fault| [0, 2].contains(fault)), "seed {seed}");
        assert!(planned.clients <= 2 && planned.operations <= 9, "seed {seed}: {planned:?}");
        assert!(planned.heal_at <= 700, "seed {seed}");
        assert_eq!(first.faults.of(Fault::MessageLost), 0, "seed {seed}");
        assert_eq!(first.violation, None, "seed {seed}");
    }
}

/// Presumed abort by the book (PROTOCOLS: Mohan, Lindsay and Obermarck 1986): in a calm run a commit
/// costs four messages and two records for each replica, and two records at the coordinator. What is
/// counted is what travelled and what was appended, not what nodes say of themselves.
#[test]
fn a_calm_commit_costs_what_the_book_says() {
    let all: Vec<&str> = Knob::ALL.iter().map(|knob| knob.name()).collect();
    let flags = format!("--only-faults none --operations 60 --calm {}", all.join(","));
    let mut commits = 0;
    for seed in 0..40 {
        let reduction = flags.parse().unwrap();
        let run = two_phase::simulate(&Setup { reduction, ..Setup::new(seed) });
        assert_eq!(run.violation, None, "seed {seed}");
        let count = |name: &str| run.activity[name];
        commits += count("commits of all replicas");
        for what in ["messages", "records"] {
            let (counted, expected) = (
                count(&format!("commits' {what}")),
                count(&format!("commits' {what} by the book")),
            );
            assert_eq!(counted, expected, "{what} of seed {seed}");
        }
    }
    assert!(commits > 2_000, "{commits} commits");
}

/// One replica is away, and nothing else is wrong: writes wait for it until it is left out, and then go on.
#[test]
fn writes_go_on_while_a_replica_is_away() {
    let all: Vec<&str> = Knob::ALL.iter().map(|knob| knob.name()).collect();
    let calm = all.join(",");
    let (mut longest, mut absences) = (Duration::ZERO, 0);
    for seed in 0..150 {
        let reduction = "--clients 1 --heal-at 1".parse().unwrap();
        let planned = Setup { reduction, ..Setup::new(seed) }.traced();
        let plan = two_phase::simulate(&planned).trace.unwrap();
        let Some(absence) = plan.lines().find_map(absence) else { continue };
        // Undisturbed clients do much in the time that other faults would take.
        let heal_at = absence.until / 1_000_000;
        let flags = format!("--only-faults {} --calm {calm} --heal-at {heal_at}", absence.index);
        let run =
            two_phase::simulate(&Setup { reduction: flags.parse().unwrap(), ..Setup::new(seed) });
        assert_eq!(run.violation, None, "seed {seed}");
        let written = |record: &&Record| record.ending == Ending::Done && writes(&record.operation);
        let mut times: Vec<u64> = run.history.iter().filter(written).map(|it| it.ret).collect();
        times.sort_unstable();
        let during = |pair: &&[u64]| pair[0] < absence.until && pair[1] > absence.from;
        let pauses = times.windows(2).filter(during).map(|pair| pair[1] - pair[0]);
        let pause = Duration::from_nanos(pauses.max().unwrap_or_default());
        assert!(pause < Duration::from_millis(800), "seed {seed}: no write for {pause:?}");
        absences += 1;
        longest = longest.max(pause);
    }
    println!("{absences} replicas were away; the longest pause of writes was {longest:.0?}");
    assert!(absences > 10, "{absences}");
}

/// A replica of a cluster that goes on without it is away, and comes back, from then till then.
struct Absence {
    index: u32,
    from: u64,
    until: u64,
}

/// Reads `fault 3 at 812 ms: node away for long on n2 (with n1), 400 ms`, or of a pause.
fn absence(line: &str) -> Option<Absence> {
    let kinds = [Fault::LongAbsence, Fault::LongPause].map(|it| format!(" ms: {} on n", it.name()));
    let (head, tail) = kinds.iter().find_map(|kind| line.split_once(kind.as_str()))?;
    if tail.starts_with('0') {
        return None;
    }
    let (head, from) = head.split_once(" at ")?;
    let index = head.split_once("fault ")?.1.parse().ok()?;
    let lasts: u64 = tail.split_once("), ")?.1.strip_suffix(" ms")?.parse().ok()?;
    let from = from.parse::<u64>().ok()? * 1_000_000;
    // Half a second more, or it would not be long; and then it comes back.
    Some(Absence { index, from, until: from + (1_500 + lasts) * 1_000_000 })
}

fn writes(operation: &Operation) -> bool {
    match operation {
        Operation::Put { .. }
        | Operation::Delete { .. }
        | Operation::CompareAndSet { .. }
        | Operation::Transact { .. } => true,
        Operation::Get { .. }
        | Operation::GetMany { .. }
        | Operation::Scan { .. }
        | Operation::MicroOperations(_) => false,
    }
}

/// A traced run is the same run as one that nobody watches.
#[test]
fn watching_changes_nothing() {
    for seed in 20..30 {
        let (watched, unwatched) = (
            two_phase::simulate(&Setup::new(seed).traced()),
            two_phase::simulate(&Setup::new(seed)),
        );
        assert_eq!(watched.history, unwatched.history, "seed {seed}");
        assert_eq!(watched.nanoseconds, unwatched.nanoseconds, "seed {seed}");
    }
}
