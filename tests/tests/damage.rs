//! No damage of a data directory goes unnoticed that changes what is read from it.

use std::path::Path;

use kvorum_tests::damage::{directories, held};

/// `kvorum-tests damage` tries each byte; this has less time.
const STEP: usize = 3;

#[test]
fn what_is_read_from_a_damaged_directory_is_right_or_refused() {
    for directory in directories().unwrap() {
        let outcome = directory.damage_all(STEP).unwrap();
        println!("{}\n{outcome}", directory.name);
        assert_eq!(outcome.failures, Vec::<String>::new());
        // Damage that never hits anything proves nothing.
        let kinds = [outcome.flips, outcome.cuts, outcome.removals, outcome.misplaced];
        for counts in kinds {
            assert!(counts.named > 0, "{}: {outcome}", directory.name);
        }
    }
}

#[test]
fn a_store_that_another_process_has_open_is_refused_and_free_when_that_has_died() {
    held::try_held(Path::new(env!("CARGO_BIN_EXE_kvorum-tests"))).unwrap();
}
