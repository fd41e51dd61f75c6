//! Short runs of the lab over real processes: every fault strikes, and every promise is kept.

use std::path::Path;
use std::time::Duration;

use kvorum::lab::nemesis::Kind;
use kvorum::lab::report::Finding;
use kvorum::lab::run::{RunOptions, run};
use kvorum::lab::summary::Outcome;
use kvorum::lab::workload::Workload;
use kvorum_tests::{PATIENCE, program};

/// A run of so many seconds, in which these faults strike and enough is acknowledged to be judged. On
/// a busy machine or a slow disk that takes longer: then it is run for twice the time, and again.
fn make(kinds: &[Kind], strike: &[Kind], workload: Workload, mut seconds: u64) -> Outcome {
    loop {
        let options = RunOptions {
            nemesis: kinds.to_vec(),
            workload,
            length: Duration::from_secs(seconds),
            back_within: PATIENCE,
            seed: 1,
            ..RunOptions::new(program(Path::new(env!("CARGO_BIN_EXE_kvorum-tests"))))
        };
        let outcome = run(&options, &mut |_| {}).unwrap_or_else(|error| panic!("{error}"));
        for strike in &outcome.strikes {
            println!("{strike}");
        }
        println!("{outcome}");
        let calm: Vec<_> = strike.iter().filter(|kind| outcome.fired(**kind).0 == 0).collect();
        let is_enough = calm.is_empty() && outcome.numbers.acknowledged_writes > 50;
        if is_enough || outcome.finding() == Finding::Violated {
            return outcome;
        }
        assert!(seconds < PATIENCE.as_secs(), "too little to judge, or {calm:?} never struck");
        seconds *= 2;
    }
}

#[test]
fn registers_bear_kills_pauses_and_partitions() {
    let kinds = [Kind::Kill, Kind::Pause, Kind::Partition];
    let outcome = make(&kinds, &kinds, Workload::Register, 5);
    assert_eq!(outcome.finding(), Finding::Holds);
    assert_eq!(outcome.report.recoveries.len(), outcome.strikes.len());
}

#[test]
fn a_bank_bears_bad_links_full_disks_and_wrong_clocks() {
    let kinds = [Kind::OneWay, Kind::Delay, Kind::Reset, Kind::DiskFull, Kind::Clock];
    let outcome = make(&kinds, &[Kind::Delay, Kind::DiskFull, Kind::Clock], Workload::Bank, 6);
    assert_ne!(outcome.finding(), Finding::Violated);
}
