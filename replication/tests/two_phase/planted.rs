//! Bugs on purpose in how a replica gets what it missed: each has to be found by the judge of the
//! random schedules, or else by a script that comes out differently.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kvorum_replication::two_phase::planted::{Bug, Planted};

use crate::harness::schedule::Counts;
use crate::random::planted;
use crate::script;

/// Schedules that each bug is looked for in.
const SEEDS: std::ops::Range<u64> = 0..300;

const BUGS: &[Bug] = &[
    Bug::CatchUpOverGap,
    Bug::LearnTwice,
    Bug::InstallOlder,
    Bug::SnapshotForgetsOutcomes,
    Bug::ApplyWhileInstalling,
    Bug::ServeOutside,
    Bug::JoinKeepsOldVotes,
];

fn finds(seed: u64, bug: Planted) -> Option<String> {
    let run = || planted(seed, bug, false).run(&mut Counts::default());
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Some(format!("panic: {}", text.unwrap_or_default()))
        }
    }
}

#[test]
fn every_planted_bug_is_found() {
    // Panics are expected, thousands of them.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for bug in BUGS {
        let found =
            SEEDS.into_iter().find_map(|seed| Some((seed, finds(seed, Planted::of(*bug))?)));
        let scripts = script::that_differ(Planted::of(*bug));
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
