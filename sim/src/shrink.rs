//! Makes a failing run smaller, while it breaks the same promise (delta debugging: Zeller and
//! Hildebrandt 2002).
//!
//! What is left out of a plan shifts what is left of it, since events that no longer happen no
//! longer delay others. So a smaller run need not fail although the larger did, and a bug that
//! needs an exact moment shrinks less than one that does not.

use std::collections::BTreeSet;

use crate::reduction::{Calm, Knob, Numbers, Reduction};
use crate::violation::Violation;
use crate::{Run, Setup};

/// A failing run, as small as it was made.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The run.
    pub setup: Setup,
    /// How it fails.
    pub violation: Violation,
    /// How many runs it took.
    pub runs: u32,
}

/// Makes a failing run smaller, in at most so many runs. None if it does not fail.
pub fn shrink(run: impl Fn(&Setup) -> Run, failing: &Setup, runs_max: u32) -> Option<Shrunk> {
    let failing = Setup { traced: false, ..failing.clone() };
    let first = run(&failing);
    let violation = first.violation.clone()?;
    let mut shrinking =
        Shrinking { run, runs: 1, runs_max, setup: failing, last: first, violation };
    loop {
        let before = shrinking.setup.reduction.clone();
        shrinking.fewer_faults();
        shrinking.fewer_clients();
        shrinking.fewer_operations();
        shrinking.sooner_healed();
        shrinking.calmer();
        if shrinking.setup.reduction == before || shrinking.runs >= runs_max {
            break;
        }
    }
    let Shrinking { setup, violation, runs, .. } = shrinking;
    Some(Shrunk { setup, violation, runs })
}

struct Shrinking<R> {
    run: R,
    runs: u32,
    runs_max: u32,
    /// The smallest that fails so far.
    setup: Setup,
    /// What it came to.
    last: Run,
    violation: Violation,
}

impl<R: Fn(&Setup) -> Run> Shrinking<R> {
    /// Whether it still fails with this change; if so, it is kept.
    fn try_with(&mut self, change: impl FnOnce(&mut Reduction)) -> bool {
        if self.runs >= self.runs_max {
            return false;
        }
        let mut setup = self.setup.clone();
        change(&mut setup.reduction);
        if setup == self.setup {
            return false;
        }
        self.runs += 1;
        let run = (self.run)(&setup);
        let Some(violation) = run.violation.clone() else { return false };
        if violation.promise != self.violation.promise {
            return false;
        }
        self.setup = setup;
        self.violation = violation;
        self.last = run;
        true
    }

    fn try_faults(&mut self, faults: &[u32]) -> bool {
        let numbers = Numbers(faults.iter().copied().collect());
        self.try_with(|reduction| reduction.only_faults = Some(numbers))
    }

    /// Leaves out ever smaller parts of the plan's faults.
    fn fewer_faults(&mut self) {
        if self.last.planned.faults.is_empty() || self.try_faults(&[]) {
            return;
        }
        let mut parts = 2;
        while self.runs < self.runs_max {
            let faults = self.last.planned.faults.clone();
            let size = faults.len().div_ceil(parts).max(1);
            let smaller = faults.chunks(size).any(|left_out| {
                let rest: Vec<u32> =
                    faults.iter().copied().filter(|fault| !left_out.contains(fault)).collect();
                rest.len() < faults.len() && self.try_faults(&rest)
            });
            if smaller {
                parts = (parts - 1).max(2);
            } else if size == 1 {
                return;
            } else {
                parts = (parts * 2).min(faults.len());
            }
        }
    }

    fn fewer_clients(&mut self) {
        let clients = self.last.planned.clients;
        (1..clients).find(|&fewer| self.try_with(|it| it.clients = Some(fewer)));
    }

    fn fewer_operations(&mut self) {
        for fewer in smaller_than(self.last.planned.operations) {
            if self.try_with(|it| it.operations = Some(fewer)) {
                return;
            }
        }
    }

    fn sooner_healed(&mut self) {
        for sooner in smaller_than(self.last.planned.heal_at) {
            if self.try_with(|it| it.heal_at = Some(sooner)) {
                return;
            }
        }
    }

    /// First all at once, which mostly works; else one by one.
    fn calmer(&mut self) {
        let all: BTreeSet<Knob> = Knob::ALL.iter().copied().collect();
        if self.try_with(|it| it.calm = Calm(all)) {
            return;
        }
        for knob in Knob::ALL {
            self.try_with(|it| {
                it.calm.0.insert(*knob);
            });
        }
    }
}

/// Numbers below this one, the smallest first: few of them, at growing distances.
fn smaller_than(number: u64) -> Vec<u64> {
    let mut smaller: Vec<u64> = (0..64).map(|bit| 1 << bit).take_while(|it| *it < number).collect();
    smaller.extend([number / 8 * 5, number / 8 * 6, number / 8 * 7]);
    smaller.retain(|it| *it > 0 && *it < number);
    smaller.sort_unstable();
    smaller.dedup();
    smaller
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Planned;
    use crate::violation::Promise;

    /// Fails if both faults strike, two clients ask often enough, and messages are lost.
    fn simulate(setup: &Setup) -> Run {
        let Reduction { only_faults, clients, operations, calm, heal_at } = &setup.reduction;
        let kept = |fault: &u32| only_faults.as_ref().is_none_or(|only| only.0.contains(fault));
        let planned = Planned {
            faults: (0..20).filter(kept).collect(),
            clients: clients.unwrap_or(6).min(6),
            operations: operations.unwrap_or(100).min(100),
            heal_at: heal_at.unwrap_or(3000).min(3000),
        };
        let fails = planned.faults.contains(&3)
            && planned.faults.contains(&17)
            && planned.clients >= 2
            && planned.operations >= 9
            && planned.heal_at >= 800
            && !calm.has(Knob::Loss);
        let promise = if planned.faults.len() == 5 { Promise::NoPanic } else { Promise::Atomic };
        let violation = fails.then(|| Violation { promise, what: "as planned".to_owned() });
        Run { violation, planned, ..Run::empty(setup.seed) }
    }

    #[test]
    fn what_is_not_needed_goes() {
        let shrunk = shrink(simulate, &Setup::new(7), 300).expect("it fails");
        let calm: Vec<&str> =
            Knob::ALL.iter().map(|knob| knob.name()).filter(|name| *name != "loss").collect();
        assert_eq!(
            shrunk.setup.to_string(),
            format!(
                "--seed 7 --only-faults 3,17 --clients 2 --operations 10 --calm {} --heal-at 896",
                calm.join(",")
            )
        );
        assert_eq!(shrunk.violation.promise, Promise::Atomic);
    }

    #[test]
    fn no_more_runs_than_allowed_and_none_of_what_holds() {
        for runs_max in 1..20 {
            let shrunk = shrink(simulate, &Setup::new(7), runs_max).expect("it fails");
            assert!(shrunk.runs <= runs_max);
            assert!(simulate(&shrunk.setup).violation.is_some());
        }
        let reduction = "--clients 1".parse().expect("these are flags");
        assert!(shrink(simulate, &Setup { reduction, ..Setup::new(7) }, 50).is_none());
    }
}
