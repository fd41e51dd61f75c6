//! One register for each key, and one store for all of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::explain::{explain, explain_conflict};
use crate::history::Record;
use crate::search::{Found, Problem, conflict, search};
use crate::settle::settle;
use crate::steps::{Condition, Step, Steps};
use crate::verdict::{Rule, Verdict};
use crate::words::{Names, tell};

/// How far a judge goes before it gives up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Configurations kept in memory for one key, or one group of keys: 16 bytes each and some.
    pub configurations_max: usize,
}

impl Default for Limits {
    /// About 200 MB; a history that holds needs about as many configurations as writes.
    fn default() -> Self {
        Self { configurations_max: 4_000_000 }
    }
}

/// Judges each key by itself.
#[must_use]
pub fn linearizable(history: &[Record], limits: Limits) -> Verdict {
    let steps = Steps::of(history);
    if let Some(verdict) = steps.fabricated(history) {
        return verdict;
    }
    each_key(history, &steps, limits)
}

/// Judges keys that operations touch together as one: strict serializability of the store.
#[must_use]
pub fn serializable(history: &[Record], limits: Limits) -> Verdict {
    let steps = Steps::of(history);
    if let Some(verdict) = steps.fabricated(history) {
        return verdict;
    }
    // What is wrong with one key is said more simply of one key.
    let verdict = each_key(history, &steps, limits);
    if verdict.violation().is_some() {
        return verdict;
    }
    let judge_group = |group: &Group| {
        let name = format!("keys {}", names(&steps, group));
        judge(history, &steps, group, limits, Rule::Serializability, &name)
    };
    match first_violation(&groups(&steps), judge_group) {
        Verdict::Holds => verdict,
        found => found,
    }
}

fn each_key(history: &[Record], steps: &Steps, limits: Limits) -> Verdict {
    let mut of_key: Vec<Vec<u32>> = vec![Vec::new(); steps.keys.len()];
    for (index, step) in (0u32..).zip(&steps.steps) {
        for key in touched(step) {
            if of_key[key as usize].last() != Some(&index) {
                of_key[key as usize].push(index);
            }
        }
    }
    let groups: Vec<Group> =
        (0u32..).zip(of_key).map(|(key, steps)| Group { keys: vec![key], steps }).collect();
    let judge_key = |group: &Group| {
        let name = format!("key {}", names(steps, group));
        judge(history, steps, group, limits, Rule::Linearizability, &name)
    };
    first_violation(&groups, judge_key)
}

/// Judges groups side by side. The verdict is that of the first group with a violation, whichever
/// thread is done first.
fn first_violation(groups: &[Group], judge: impl Fn(&Group) -> Verdict + Sync) -> Verdict {
    let next = AtomicUsize::new(0);
    let violated = AtomicUsize::new(usize::MAX);
    let work = || {
        let mut verdicts: Vec<(usize, Verdict)> = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= groups.len().min(violated.load(Ordering::Relaxed)) {
                return verdicts;
            }
            let verdict = judge(&groups[place]);
            if verdict.violation().is_some() {
                violated.fetch_min(place, Ordering::Relaxed);
            }
            if !verdict.holds() {
                verdicts.push((place, verdict));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut verdicts = std::thread::scope(|scope| {
        let spawn = |_| scope.spawn(work);
        let others: Vec<_> = (1..threads.min(THREADS_MAX).min(groups.len())).map(spawn).collect();
        let mut verdicts = work();
        for other in others {
            verdicts.extend(other.join().expect("a judge that panics has found a bug of ours"));
        }
        verdicts
    });
    verdicts.sort_by_key(|(place, verdict)| (verdict.violation().is_none(), *place));
    verdicts.into_iter().next().map_or(Verdict::Holds, |(_, verdict)| verdict)
}

/// More would only add up their memory.
const THREADS_MAX: usize = 8;

/// Keys that are judged together, and the steps that touch them.
struct Group {
    keys: Vec<u32>,
    steps: Vec<u32>,
}

fn judge(
    history: &[Record],
    steps: &Steps,
    group: &Group,
    limits: Limits,
    rule: Rule,
    name: &str,
) -> Verdict {
    let (mut problem, names) = project(steps, group);
    settle(&mut problem);
    if let Some(conflict) = conflict(&problem)
        && let Some(part) = explain_conflict(&project(steps, group).0, &conflict)
    {
        return name_part(history, &part, &names, rule, name);
    }
    match search(&problem, limits.configurations_max) {
        Found::Order => Verdict::Holds,
        Found::GaveUp => Verdict::Undecided {
            why: format!("{name}: gave up after {} configurations", limits.configurations_max),
        },
        Found::NoOrder { until } => {
            let part = explain(&project(steps, group).0, until);
            name_part(history, &part, &names, rule, name)
        }
    }
}

/// The verdict on a part that has no order.
fn name_part(
    history: &[Record],
    part: &Problem,
    names: &Names<'_>,
    rule: Rule,
    name: &str,
) -> Verdict {
    let told = tell(history, part, names);
    let operations = part.steps.iter().map(|step| history[step.record].clone()).collect();
    let verdict = Verdict::violated(rule, format!("{name}: {}", told.words), operations);
    match told.blamed {
        Some(record) => verdict.blaming(&history[record]),
        None => verdict,
    }
}

/// The group's part of all steps, with its own numbers, and what they stand for.
fn project<'a>(steps: &'a Steps, group: &Group) -> (Problem, Names<'a>) {
    let keys: HashMap<u32, u32> = group.keys.iter().copied().zip(0..).collect();
    let mut versions: HashMap<u32, u32> = HashMap::new();
    let mut number = |version: u32| {
        let next = u32::try_from(versions.len()).expect("fewer than all versions, which fit");
        *versions.entry(version).or_insert(next)
    };
    let initial = group.keys.iter().map(|key| number(steps.absent[*key as usize])).collect();
    let mut projected = Vec::with_capacity(group.steps.len());
    for index in &group.steps {
        let step = &steps.steps[*index as usize];
        let mut conditions = Vec::new();
        for (key, condition) in &step.conditions {
            if let Some(key) = keys.get(key) {
                let condition = match condition {
                    Condition::Is(version) => Condition::Is(number(*version)),
                    Condition::IsNot(version) => Condition::IsNot(number(*version)),
                };
                conditions.push((*key, condition));
            }
        }
        let effects = step
            .effects
            .iter()
            .filter_map(|(key, version)| keys.get(key).map(|key| (*key, number(*version))))
            .collect();
        projected.push(Step { conditions, effects, ..*step });
    }
    let mut named = vec![0; versions.len()];
    for (version, number) in &versions {
        named[*number as usize] = *version;
    }
    let names = Names { steps, keys: group.keys.clone(), versions: named };
    (Problem { steps: projected, initial, versions: versions.len() }, names)
}

/// Keys that some step joins, directly or through others; keys that stand alone are left out.
fn groups(steps: &Steps) -> Vec<Group> {
    let mut parent: Vec<u32> = (0u32..).take(steps.keys.len()).collect();
    let mut joined = vec![false; steps.keys.len()];
    for step in &steps.steps {
        let mut keys = touched(step);
        if let Some(first) = keys.next() {
            for key in keys.filter(|key| *key != first) {
                joined[first as usize] = true;
                joined[key as usize] = true;
                let (a, b) = (root(&mut parent, first), root(&mut parent, key));
                parent[a.max(b) as usize] = a.min(b);
            }
        }
    }
    let mut groups: BTreeMap<u32, Group> = BTreeMap::new();
    for key in (0u32..).take(steps.keys.len()).filter(|key| joined[*key as usize]) {
        let root = root(&mut parent, key);
        let group =
            groups.entry(root).or_insert_with(|| Group { keys: Vec::new(), steps: Vec::new() });
        group.keys.push(key);
    }
    for (index, step) in (0u32..).zip(&steps.steps) {
        if let Some(key) = touched(step).next()
            && let Some(group) = groups.get_mut(&root(&mut parent, key))
        {
            group.steps.push(index);
        }
    }
    groups.into_values().collect()
}

fn root(parent: &mut [u32], mut key: u32) -> u32 {
    while parent[key as usize] != key {
        parent[key as usize] = parent[parent[key as usize] as usize];
        key = parent[key as usize];
    }
    key
}

fn touched(step: &Step) -> impl Iterator<Item = u32> {
    step.conditions.iter().map(|(key, _)| *key).chain(step.effects.iter().map(|(key, _)| *key))
}

fn names(steps: &Steps, group: &Group) -> String {
    let names: Vec<&str> =
        group.keys.iter().take(8).map(|key| steps.keys[*key as usize].as_str()).collect();
    let more = if group.keys.len() > 8 { " ..." } else { "" };
    format!("{}{more}", names.join(" "))
}
