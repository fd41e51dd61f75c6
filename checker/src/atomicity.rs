//! All of a transaction, or nothing of it.
//!
//! For every read of several keys at one moment: if it found what a transaction wrote to one of
//! them, then each other key that the transaction wrote and the read saw must hold what the
//! transaction wrote, or something that may have come after it. It holds something older if that
//! was written (by the only one who wrote it) by an operation that had returned before the
//! transaction was called, or if it is absent and nobody removed it since.

use std::collections::HashMap;

use crate::history::{Ending, Record};
use crate::steps::{Condition, Step, Steps};
use crate::verdict::{Rule, Verdict};

/// Judges every read of several keys against every transaction it saw something of. Exact only
/// where values are unique; what is written twice is not judged.
#[must_use]
pub fn atomic(history: &[Record]) -> Verdict {
    let steps = Steps::of(history);
    if let Some(verdict) = steps.fabricated(history) {
        return verdict;
    }
    let writers = Writers::of(&steps);
    for read in steps.steps.iter().filter(|step| step.required && step.conditions.len() > 1) {
        let found: HashMap<u32, u32> = read
            .conditions
            .iter()
            .filter_map(|(key, condition)| match condition {
                Condition::Is(version) => Some((*key, *version)),
                Condition::IsNot(_) => None,
            })
            .collect();
        for (key, version) in &read.conditions {
            let Condition::Is(version) = version else { continue };
            // A key that is absent does not say who removed it, or that it ever was there.
            if *version == steps.absent[*key as usize] {
                continue;
            }
            if let Some(transaction) = writers.only(*version)
                && let Some(torn) = torn(&steps, &writers, transaction, &found)
            {
                return name(history, &steps, read, transaction, *version, torn);
            }
        }
    }
    Verdict::Holds
}

/// A key that the transaction wrote and the read found older.
struct Torn {
    key: u32,
    found: u32,
    older: Option<usize>,
}

fn torn(
    steps: &Steps,
    writers: &Writers<'_>,
    transaction: &Step,
    found: &HashMap<u32, u32>,
) -> Option<Torn> {
    transaction.effects.iter().find_map(|(key, written)| {
        let found = *found.get(key)?;
        if found == *written {
            return None;
        }
        if steps.absent[*key as usize] == found {
            let removed =
                writers.of_version(found).iter().any(|step| may_follow(step, transaction));
            return (!removed).then_some(Torn { key: *key, found, older: None });
        }
        let older = writers.only(found)?;
        (!may_follow(older, transaction)).then_some(Torn {
            key: *key,
            found,
            older: Some(older.record),
        })
    })
}

/// Whether `step` can have taken place after `transaction`.
fn may_follow(step: &Step, transaction: &Step) -> bool {
    !step.required || step.ret >= transaction.call
}

fn name(
    history: &[Record],
    steps: &Steps,
    read: &Step,
    transaction: &Step,
    version: u32,
    torn: Torn,
) -> Verdict {
    let seen = &steps.versions[version as usize];
    let shown = |version: u32| {
        steps.versions[version as usize].value.clone().unwrap_or_else(|| "(absent)".to_owned())
    };
    let unknown = match history[transaction.record].ending {
        Ending::Unknown => " of unknown outcome",
        Ending::Done | Ending::NotDone | Ending::PreconditionFailed(_) => "",
    };
    let words = format!(
        "a read saw {}={} of a transaction{unknown}, and {}={}, which is older than it",
        steps.keys[seen.key as usize],
        shown(version),
        steps.keys[torn.key as usize],
        shown(torn.found),
    );
    let mut operations = vec![history[transaction.record].clone(), history[read.record].clone()];
    operations.extend(torn.older.map(|older| history[older].clone()));
    Verdict::violated(Rule::Atomicity, words, operations)
}

/// Who wrote each version.
struct Writers<'a> {
    steps: &'a [Step],
    of: Vec<Vec<u32>>,
}

impl<'a> Writers<'a> {
    fn of(steps: &'a Steps) -> Self {
        let mut of = vec![Vec::new(); steps.versions.len()];
        for (index, step) in (0u32..).zip(&steps.steps) {
            for (_, version) in &step.effects {
                of[*version as usize].push(index);
            }
        }
        Self { steps: &steps.steps, of }
    }

    fn only(&self, version: u32) -> Option<&'a Step> {
        match self.of[version as usize][..] {
            [only] => Some(&self.steps[only as usize]),
            _ => None,
        }
    }

    fn of_version(&self, version: u32) -> Vec<&'a Step> {
        self.of[version as usize].iter().map(|step| &self.steps[*step as usize]).collect()
    }
}
