//! No damage of a data directory goes unnoticed that changes what is read from it.

use kvorum_tests::damage::directories;

/// `kvorum-tests damage` tries each byte; this has less time.
const STEP: usize = 3;

#[test]
fn what_is_read_from_a_damaged_directory_is_right_or_refused() {
    for directory in directories().unwrap() {
        let outcome = directory.damage_all(STEP).unwrap();
        println!("{}\n{outcome}", directory.name);
        assert_eq!(outcome.failures, Vec::<String>::new());
        // Damage that never hits anything proves nothing.
        for counts in [outcome.flips, outcome.cuts, outcome.removals] {
            assert!(counts.named > 0, "{}: {outcome}", directory.name);
        }
    }
}
