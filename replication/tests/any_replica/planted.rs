//! Each bug on purpose is found: what says that there is none would say that there is one.

use kvorum_replication::two_phase::any_replica::planted::{Bug, Planted};

use crate::{contention, random};

/// Those that break no promise but that everybody gets through; random schedules are too unfair to
/// show that.
const STARVING: &[Bug] = &[Bug::WaitForOlder, Bug::YoungAgain, Bug::LockWithoutClaim];

/// `KVORUM_BUG=NAME` looks for one of them only.
#[test]
fn every_planted_bug_is_found() {
    let mut unseen = Vec::new();
    // Panics are expected, and their words are not.
    std::panic::set_hook(Box::new(|_| {}));
    let only = std::env::var("KVORUM_BUG").ok();
    for bug in Bug::ALL.iter().filter(|bug| only.as_ref().is_none_or(|only| only == bug.name())) {
        println!("{}", bug.name());
        let planted = Planted::of(*bug);
        let found = match STARVING.contains(bug) {
            true => contention::finds(planted),
            false => random::finds(planted),
        };
        if !found {
            unseen.push(bug.name());
        }
    }
    drop(std::panic::take_hook());
    assert!(unseen.is_empty(), "nothing found {unseen:?}");
}
