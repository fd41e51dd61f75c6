//! See `kvorum_tests::fuzz`.
#![no_main]

use kvorum_tests::fuzz::{Entropy, Target};

libfuzzer_sys::fuzz_target!(|choices: &[u8]| {
    if let Err(error) = Target::Records.try_case(&mut Entropy::Given(choices)) {
        panic!("{error:#}");
    }
});
