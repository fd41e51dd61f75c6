//! A failing run of a real cluster, with a bug on purpose, is made smaller, and its flags repeat it.

#![cfg(feature = "planted-bugs")]

use kvorum_sim::planted::{Bug, Hunted, hunt};
use kvorum_sim::{Planned, Planted, Setup, shrink, threads, two_phase};

#[test]
fn a_failing_seed_becomes_a_small_command() {
    for name in
        ["vote-before-prepared-durable", "read-while-prepared", "end-before-all-acknowledged"]
    {
        let bug = Bug::by_name(name).expect("it is in the list");
        let Hunted::Found(found) = hunt(bug, 200, threads()) else { panic!("{name} is not found") };
        let failing = Setup { planted: Planted::of(bug), ..Setup::new(found.seed) };
        let whole = two_phase::simulate(&failing).planned;
        let shrunk = shrink(two_phase::simulate, &failing, 120).expect("it was found");
        println!("{name}, {} runs: {}", shrunk.runs, shrunk.setup);
        let flags = shrunk.setup.reduction.to_string();
        let reduction = flags.parse().expect("what is shown is understood");
        let again = two_phase::simulate(&Setup { reduction, ..failing });
        assert_eq!(again.violation, Some(shrunk.violation), "{name}: {flags}");
        let left = again.planned;
        assert!(
            left.faults.len() <= whole.faults.len() && left.clients <= whole.clients,
            "{flags}"
        );
        let size = |planned: &Planned| planned.operations * planned.clients;
        assert!(size(&left) < size(&whole) / 2, "{name} is still large: {flags}");
    }
}
