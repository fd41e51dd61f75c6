//! A replica is killed under load, misses keys and comes back; then the coordinator is killed. How
//! long that takes is for `kvorum-tests rejoin` to say, with a million keys and a machine for itself.

use std::path::Path;

use kvorum_tests::rejoin::Rejoin;
use kvorum_tests::{program, run};

#[test]
fn a_replica_that_was_killed_comes_back_while_writes_go_on() {
    let rejoin = Rejoin { keys: 3000, rate: 500, writers: 1 };
    let program = program(Path::new(env!("CARGO_BIN_EXE_kvorum-tests")));
    let outcome = run(rejoin.run(program, |_| {})).unwrap_or_else(|error| panic!("{error:#}"));
    println!("{outcome}");
    assert_eq!(outcome.missed, rejoin.keys);
    assert!(outcome.operations > 0 && outcome.rows as u64 > rejoin.keys);
}
