//! Short runs of the lab over real processes: every fault strikes, and every promise is kept.

use std::path::Path;
use std::time::Duration;

use kvorum::lab::nemesis::Kind;
use kvorum::lab::report::Finding;
use kvorum::lab::run::{RunOptions, run};
use kvorum::lab::summary::Outcome;
use kvorum::lab::workload::Workload;
use kvorum_tests::program;

fn make(kinds: &[Kind], workload: Workload, seconds: u64) -> Outcome {
    let options = RunOptions {
        nemesis: kinds.to_vec(),
        workload,
        length: Duration::from_secs(seconds),
        seed: 1,
        ..RunOptions::new(program(Path::new(env!("CARGO_BIN_EXE_kvorum-tests"))))
    };
    let outcome = run(&options, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
    for strike in &outcome.strikes {
        println!("{strike}");
    }
    println!("{outcome}");
    outcome
}

#[test]
fn registers_bear_kills_pauses_and_partitions() {
    let kinds = [Kind::Kill, Kind::Pause, Kind::Partition];
    let outcome = make(&kinds, Workload::Register, 5);
    assert_eq!(outcome.finding(), Finding::Holds);
    for kind in kinds {
        assert!(outcome.fired(kind).0 > 0, "{kind} never struck");
    }
    assert!(outcome.numbers.acknowledged_writes > 50, "too little to judge");
    assert_eq!(outcome.report.recoveries.len(), outcome.strikes.len());
}

#[test]
fn a_bank_bears_bad_links_full_disks_and_wrong_clocks() {
    let kinds = [Kind::OneWay, Kind::Delay, Kind::Reset, Kind::DiskFull, Kind::Clock];
    let outcome = make(&kinds, Workload::Bank, 6);
    assert_ne!(outcome.finding(), Finding::Violated);
    for kind in [Kind::Delay, Kind::DiskFull, Kind::Clock] {
        assert!(outcome.fired(kind).0 > 0, "{kind} never struck");
    }
    assert!(outcome.numbers.acknowledged_writes > 50, "too little to judge");
}
