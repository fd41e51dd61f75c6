//! Multi-Paxos, simulated: hundreds of clusters, each with its own faults.

use std::ops::ControlFlow::Continue;

use kvorum_sim::planted::Place;
use kvorum_sim::{Setup, Totals, paxos, run_seeds, threads};

/// How many seeds are run; each takes some hundredths of a second without optimisation.
const SEEDS: u64 = 400;

#[test]
fn clusters_keep_their_promises_under_faults() {
    let totals = run_seeds(paxos::simulate, 0..SEEDS, threads(), &Setup::new(0), |_| Continue(()));
    let Totals { seeds, faults, activity, happened, done, unknown, violations, .. } = &totals;
    println!(
        "{faults}{done} operations done, {unknown} of unknown outcome\n{happened:#?}\n{activity:#?}"
    );
    let again = "again: cargo run -p kvorum --bin kvorum-lab -- sim --protocol paxos --trace";
    let broken = violations.iter().map(|(seed, what)| format!("{again} --seed {seed}\n{what}\n"));
    assert!(violations.is_empty(), "{}", broken.collect::<String>());
    // A run that injected nothing, or in which nothing was done, proves nothing.
    assert_eq!(*seeds, SEEDS);
    assert_eq!(faults.never(Place::Paxos), [], "of these faults none has struck");
}
