//! Two-phase commit, simulated: hundreds of clusters, each with its own faults.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use kvorum_checker::Ending;
use kvorum_sim::{Activity, Counts, Setup, two_phase};

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
    "replica promised_never",
    "replica reads_expired",
    "replica reads_waited",
    "replica refused",
    "store compactions",
    "store flushes",
    "store log cuts",
];

/// What the seeds together must have done to prove anything.
#[derive(Default)]
struct Totals {
    faults: Counts,
    activity: Activity,
    done: usize,
    unknown: usize,
    broken: Vec<String>,
}

#[test]
fn clusters_keep_their_promises_under_faults() {
    let totals = Mutex::new(Totals::default());
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
                    add(&totals, seed);
                }
            });
        }
    });
    let Totals { faults, activity, done, unknown, broken } = totals.into_inner().unwrap();
    println!("{faults}{done} operations done, {unknown} of unknown outcome");
    assert!(
        broken.is_empty(),
        "{}\nagain: cargo run -p kvorum-sim --example two_phase -- --seed N --trace",
        broken.join("\n")
    );
    // A run that injected nothing, or in which nothing was done, proves nothing.
    assert_eq!(faults.never(), [], "of these faults none has struck");
    let idle = ACTIVITY.iter().filter(|name| activity.get(**name).is_none_or(|count| *count == 0));
    assert_eq!(idle.collect::<Vec<_>>(), Vec::<&&str>::new(), "this has never happened");
    assert!(done > 20_000 && unknown > 200, "{done} done, {unknown} unknown");
}

fn add(totals: &Mutex<Totals>, seed: u64) {
    let run = two_phase::simulate(&Setup::new(seed));
    let mut totals = totals.lock().unwrap();
    totals.faults.add(&run.faults);
    for (name, count) in run.activity {
        *totals.activity.entry(name).or_default() += count;
    }
    totals.done += run.history.iter().filter(|record| record.ending == Ending::Done).count();
    totals.unknown += run.history.iter().filter(|record| record.ending == Ending::Unknown).count();
    totals.broken.extend(run.violation.map(|what| format!("seed {seed}: {what}")));
}

/// Otherwise what is found once could not be found again.
#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in [1, 5, 9] {
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
    let traces = [1, 5].map(|seed| two_phase::simulate(&Setup::new(seed).traced()).trace);
    assert_ne!(traces[0], traces[1], "another seed gives another run");
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
