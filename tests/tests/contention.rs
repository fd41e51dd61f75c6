//! Many clients at once, with and without everything being killed.

use std::path::Path;
use std::time::Duration;

use kvorum::load::{LoadOptions, Until};
use kvorum_tests::load::kill_all_under_load;
use kvorum_tests::race::race;
use kvorum_tests::{cluster, program, run};

const SERVER: &str = env!("CARGO_BIN_EXE_kvorum-tests");

#[test]
fn of_two_writers_of_a_key_one_proceeds() {
    let raced = run(async {
        let cluster = cluster(program(Path::new(SERVER))).await?;
        race(&cluster, 200).await
    });
    let outcome = raced.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(outcome.conflicts + outcome.both_taken, 200);
}

#[test]
fn what_was_acknowledged_survives_the_death_of_all() {
    let tried = run(async {
        let mut cluster = cluster(program(Path::new(SERVER))).await?;
        let options = LoadOptions { until: Until::Operations(6_000), ..LoadOptions::default() };
        kill_all_under_load(&mut cluster, options, &[1_500, 3_000, 4_500]).await
    });
    let outcome = tried.unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(outcome.summary.counts.ended(), 6_000);
    for writable_after in outcome.writable_after {
        assert!(writable_after < Duration::from_secs(5), "{writable_after:?}");
    }
}
