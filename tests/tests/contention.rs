//! Many clients at once, with and without everything being killed.

use std::path::Path;

use kvorum::cluster::Member;
use kvorum::load::{Keys, LoadOptions, Until};
use kvorum_tests::load::{Kill, kill_under_mix, kill_under_puts};
use kvorum_tests::race::race;
use kvorum_tests::{cluster, program, run};

const SERVER: &str = env!("CARGO_BIN_EXE_kvorum-tests");

#[test]
fn of_two_writers_of_a_key_one_proceeds() {
    let raced = run(async {
        let cluster = cluster(program(Path::new(SERVER))).await?;
        race(&cluster, 200).await
    });
    let outcome = raced.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(outcome.rounds >= 200);
    assert_eq!(outcome.conflicts + outcome.both_taken, outcome.rounds);
}

#[test]
fn what_was_acknowledged_survives_the_death_of_all() {
    let tried = run(async {
        let mut cluster = cluster(program(Path::new(SERVER))).await?;
        let options = LoadOptions { until: Until::Operations(6_000), ..LoadOptions::default() };
        let kills = [1_500, 3_000, 4_500].map(|at| Kill { at, member: None });
        kill_under_puts(&mut cluster, options, &kills).await
    });
    let outcome = tried.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(outcome.summary.counts.ended(), 6_000);
    println!("writable again after {:?}", outcome.writable_after);
}

#[test]
fn what_clients_saw_through_deaths_has_an_order() {
    let tried = run(async {
        let mut cluster = cluster(program(Path::new(SERVER))).await?;
        let options = LoadOptions {
            clients: 8,
            until: Until::Operations(8_000),
            mix: "put=2,get=4,cas=2,del=1".parse().map_err(anyhow::Error::msg)?,
            keys: Keys::Among(5),
            ..LoadOptions::default()
        };
        let kills = [
            Kill { at: 500, member: Some(Member::Coordinator) },
            Kill { at: 1_000, member: Some(Member::Replica(1)) },
            Kill { at: 1_500, member: None },
            Kill { at: 2_000, member: Some(Member::Replica(3)) },
            Kill { at: 2_500, member: Some(Member::Coordinator) },
        ];
        kill_under_mix(&mut cluster, options, &kills).await
    });
    let outcome = tried.unwrap_or_else(|error| panic!("{error:#}"));
    let counts = outcome.summary.counts;
    assert!(counts.conflict > 0 && counts.precondition_failed > 0, "too tame: {counts:?}");
}
