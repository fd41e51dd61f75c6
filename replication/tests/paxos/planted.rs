//! Each bug on purpose has to be found: by a script that comes out differently, or else by the ghost or
//! the judge of the random schedules.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kvorum_replication::paxos::planted::{Bug, Planted};

use crate::harness::schedule::{Counts, Driver};
use crate::random::{Replicas, schedule};
use crate::script;

/// Schedules that each bug is looked for in.
const SEEDS: std::ops::Range<u64> = 0..600;

fn finds(seed: u64, planted: Planted) -> Option<String> {
    let hostility = Replicas::hostility(seed);
    let run = || schedule(seed, hostility, planted, false).run(&mut Counts::default());
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Some(format!("panic: {}", text.unwrap_or_default()))
        }
    }
}

/// What a script shows is not looked for in schedules. `KVORUM_BUG=NAME` looks for one of them only,
/// and in both.
#[test]
fn every_planted_bug_is_found() {
    let only = std::env::var("KVORUM_BUG").ok();
    // Panics are expected, thousands of them.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for bug in Bug::ALL.iter().filter(|bug| only.as_ref().is_none_or(|only| only == bug.name())) {
        let planted = Planted::of(*bug);
        let scripts = script::that_differ(planted);
        if !scripts.is_empty() && only.is_none() {
            println!("{}: {scripts:?}", bug.name());
            continue;
        }
        let found = SEEDS.into_iter().find_map(|seed| Some((seed, finds(seed, planted)?)));
        match &found {
            Some((seed, why)) => println!("{}: seed {seed}: {why}; {scripts:?}", bug.name()),
            None => println!("{}: by no seed; {scripts:?}", bug.name()),
        }
        if found.is_none() && scripts.is_empty() {
            missed.push(bug.name());
        }
    }
    let _ = std::panic::take_hook();
    assert!(missed.is_empty(), "nothing finds {missed:?}");
}
