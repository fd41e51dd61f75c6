//! Each bug on purpose that parallel commit may have, or the way in which a replica gets what it
//! missed, is found by a script that comes out differently, or else by random schedules; most would be
//! by both. (All of them, the older ones too, are hunted in the simulator: `kvorum-lab planted`.)

use std::panic::{AssertUnwindSafe, catch_unwind};

use kvorum_replication::two_phase::planted::{Bug, Planted};

use crate::{random, script};

/// Schedules that each bug is looked for in.
const SEEDS: std::ops::Range<u64> = 0..2_000;

const BUGS: &[Bug] = &[
    Bug::AbortWithoutRecord,
    Bug::CheckpointForgetsAborts,
    Bug::EndBeforeRecord,
    Bug::FinishedBelowBeforeRecovery,
    Bug::PresumeBeforeRecovery,
    Bug::RecoverFromSome,
    Bug::RecoverWithoutPromise,
    Bug::RecoverWithoutStamps,
    Bug::CheckpointForgetsPledges,
    Bug::TakeOldNumbers,
    Bug::ReadsNotLookedAtAgain,
    Bug::CatchUpOverGap,
    Bug::LearnTwice,
    Bug::InstallOlder,
    Bug::SnapshotForgetsOutcomes,
    Bug::ApplyWhileInstalling,
    Bug::ServeOutside,
    Bug::JoinKeepsOldVotes,
    Bug::CommitBeforeViewIsKnown,
    Bug::ExcludeUnderLease,
    Bug::LeaseWithoutMargin,
    Bug::ReadWithoutLease,
    Bug::ExcludeBeforeDurable,
    Bug::RecoverByOldView,
    Bug::AbortToExcluded,
    Bug::PromiseNeverInView,
    Bug::TrustMissedNumbers,
    Bug::JoinBeforeDecided,
    Bug::CheckpointForgetsView,
    Bug::RemoveUnderLease,
    Bug::JoinWithoutPromise,
    Bug::JoinKeepsOthers,
    Bug::ChangeBeforeKnown,
    Bug::UseNumbersTwice,
];

/// What a schedule says of a bug, if it is not that all is well.
fn finds(seed: u64, planted: Planted) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| random::finds(seed, planted))) {
        Ok(verdict) => verdict.err(),
        Err(panic) => Some(panic.downcast_ref::<String>().cloned().unwrap_or_default()),
    }
}

/// What a script shows is not looked for in schedules. `KVORUM_BUG=NAME` looks for one of them only,
/// and in both.
#[test]
fn every_planted_bug_is_found() {
    let only = std::env::var("KVORUM_BUG").ok();
    // Panics are expected, and their words are not.
    std::panic::set_hook(Box::new(|_| {}));
    let mut missed = Vec::new();
    for bug in BUGS {
        if only.as_ref().is_some_and(|only| only != bug.name()) {
            continue;
        }
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
    drop(std::panic::take_hook());
    assert!(missed.is_empty(), "nothing finds {missed:?}");
}
