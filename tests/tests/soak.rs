//! A short soak: `kvorum-tests soak` is the same for as long as one likes.

use std::path::Path;
use std::time::Duration;

use kvorum_tests::engine::disk_full::small::{Kind, run};
use kvorum_tests::engine::soak::Soak;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kvorum-tests");

#[test]
fn a_store_that_is_killed_and_unplugged_over_and_over_loses_nothing_and_says_nothing_false() {
    let dir = tempfile::tempdir().unwrap();
    let soak = Soak {
        seconds: 8,
        seed: 11,
        // Beside other tests a busy machine says nothing about stalls: no life is so long.
        stall: Duration::from_secs(300),
        strict: false,
        dir: dir.path().to_path_buf(),
        program: PROGRAM.into(),
    };
    let outcome = soak.run().unwrap();
    println!("{}{}", outcome.text, outcome.json);
    assert_eq!(outcome.violations, Vec::<String>::new());
    assert!(outcome.kills >= 2 && outcome.cuts >= 2, "{}", outcome.text);
}

#[test]
fn a_small_file_system_may_be_full_as_often_as_it_likes() {
    for kind in [Kind::Tmpfs, Kind::Ext4] {
        // Without the right to mount there is nothing to be seen; the other tests leave no room by
        // other means.
        match run(kind, Path::new(PROGRAM)).unwrap() {
            Some(said) => println!("{kind:?}: {said}"),
            None => println!("{kind:?} cannot be mounted here"),
        }
    }
}
