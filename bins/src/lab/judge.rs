//! What is said of a run when it is over: by the checkers of what clients saw, and of what the
//! replicas hold at the end.

use std::collections::BTreeMap;

use kvorum_checker::{
    Ending, History, Limits, Operation, Verdict, atomic, converged, linearizable, serializable,
    timeline,
};
use kvorum_replication::Protocol;

use super::available::available;
use super::leaders::Lead;
use super::nemesis::{Kind, Strike};
use super::report::{Finding, JudgeVerdict};
use super::workload::{Workload, balance, is_kept, total};
use crate::cluster::Member;

/// Keys that a verdict names.
const NAMED_MAX: usize = 5;

/// All rows of one replica, with its name.
pub(super) type Copy = (String, Vec<(String, String)>);

/// What there is to judge.
pub(super) struct Evidence<'a> {
    pub(super) history: &'a History,
    pub(super) copies: &'a [Copy],
    pub(super) strikes: &'a [Strike],
    pub(super) kinds: &'a [Kind],
    pub(super) protocol: Protocol,
    pub(super) replicas: &'a [Member],
    /// Who led, and since when.
    pub(super) leaders: &'a [Lead],
    /// When writes were acknowledged, in order.
    pub(super) acknowledged: &'a [u64],
    /// How long things were broken.
    pub(super) broke_nanos: u64,
    pub(super) workload: Workload,
    pub(super) keys: u32,
}

/// All verdicts.
pub(super) fn judge(evidence: &Evidence<'_>) -> Vec<JudgeVerdict> {
    const ALL_KEYS: &str = "strictly serializable";
    let (history, limits) = (evidence.history, Limits::default());
    let linearizable = of_checker("linearizable", linearizable(history, limits));
    let serializable = match linearizable.finding {
        // It would say the same again.
        Finding::Violated => verdict(ALL_KEYS, Finding::Violated, "since it is not linearizable"),
        Finding::Holds | Finding::Undecided => of_checker(ALL_KEYS, serializable(history, limits)),
    };
    let mut verdicts = vec![
        linearizable,
        of_checker("atomic", atomic(history)),
        serializable,
        of_checker("copies equal", converged(evidence.copies)),
    ];
    match evidence.workload {
        Workload::Register => verdicts.push(nothing_lost(history, evidence.copies)),
        Workload::Bank => verdicts.push(conserved(history, evidence.copies, evidence.keys)),
    }
    match evidence.protocol {
        Protocol::TwoPhase | Protocol::Paxos => verdicts.push(available(evidence)),
        Protocol::AnyReplica => {}
    }
    verdicts.push(all_struck(evidence));
    verdicts
}

/// A promise that this run's own course kept or broke.
pub(super) fn verdict(judge: &str, finding: Finding, words: impl Into<String>) -> JudgeVerdict {
    JudgeVerdict { judge: judge.to_owned(), finding, words: words.into(), timeline_html: None }
}

fn of_checker(judge: &str, said: Verdict) -> JudgeVerdict {
    let finding = match &said {
        Verdict::Holds => Finding::Holds,
        Verdict::Violated(_) => Finding::Violated,
        Verdict::Undecided { .. } => Finding::Undecided,
    };
    let words = match &said {
        Verdict::Holds => String::new(),
        Verdict::Violated(_) | Verdict::Undecided { .. } => said.to_string(),
    };
    let timeline_html = said.violation().map(timeline);
    JudgeVerdict { timeline_html, ..verdict(judge, finding, words) }
}

/// Keys that were written once and never again: what was acknowledged is on every replica, and
/// nothing that was refused is on any.
fn nothing_lost(history: &History, copies: &[Copy]) -> JudgeVerdict {
    const JUDGE: &str = "nothing lost";
    let copies: Vec<(&str, BTreeMap<&str, &str>)> = copies
        .iter()
        .map(|(name, rows)| {
            (&name[..], rows.iter().map(|(key, value)| (&key[..], &value[..])).collect())
        })
        .collect();
    let (mut wrong, mut checked, mut refused) = (Vec::new(), 0, 0);
    for record in history {
        let Operation::Put { key, value } = &record.operation else { continue };
        if !is_kept(key) {
            continue;
        }
        let holds = |copy: &BTreeMap<&str, &str>| copy.get(&key[..]) == Some(&&value[..]);
        let named = |copies: Vec<&str>| copies.join(", ");
        match record.ending {
            Ending::Done => {
                checked += 1;
                let lacking = copies.iter().filter(|(_, rows)| !holds(rows));
                let lacking: Vec<_> = lacking.map(|(name, _)| *name).collect();
                if !lacking.is_empty() {
                    wrong.push(format!("acknowledged, not on {}: {record}", named(lacking)));
                }
            }
            Ending::NotDone | Ending::PreconditionFailed(_) => {
                refused += 1;
                let holding = copies.iter().filter(|(_, rows)| holds(rows));
                let holding: Vec<_> = holding.map(|(name, _)| *name).collect();
                if !holding.is_empty() {
                    wrong.push(format!("refused, and on {}: {record}", named(holding)));
                }
            }
            Ending::Unknown => {}
        }
    }
    if checked == 0 || copies.is_empty() {
        return verdict(JUDGE, Finding::Undecided, "nothing was acknowledged, or nothing read");
    }
    if wrong.is_empty() {
        let words = format!(
            "{checked} acknowledged writes of keys that nobody touched again are on all {} \
             replicas, and none of {refused} refused ones is on any",
            copies.len()
        );
        return verdict(JUDGE, Finding::Holds, words);
    }
    let count = wrong.len();
    wrong.truncate(NAMED_MAX);
    verdict(JUDGE, Finding::Violated, format!("{count} writes\n  {}", wrong.join("\n  ")))
}

/// Whoever reads all accounts at one moment finds all the money.
fn conserved(history: &History, copies: &[Copy], accounts: u32) -> JudgeVerdict {
    const JUDGE: &str = "conserved";
    let expected = (u64::from(accounts), total(accounts));
    let found = |rows: &[(String, String)]| {
        let sum: Option<u64> = rows.iter().map(|(_, value)| balance(value)).sum();
        (rows.len() as u64, sum.unwrap_or(u64::MAX))
    };
    let mut reads = 0;
    for record in history {
        if let (Operation::Scan { rows, more: false, .. }, Ending::Done) =
            (&record.operation, record.ending)
        {
            reads += 1;
            if found(rows) != expected {
                let words =
                    format!("of {} in all a read found {}: {record}", expected.1, found(rows).1);
                return verdict(JUDGE, Finding::Violated, words);
            }
        }
    }
    for (name, rows) in copies {
        if found(rows) != expected {
            let (found, expected) = (found(rows).1, expected.1);
            let words = format!("at the end {name} holds {found} of {expected} in all");
            return verdict(JUDGE, Finding::Violated, words);
        }
    }
    if reads == 0 || copies.is_empty() {
        return verdict(JUDGE, Finding::Undecided, "nobody read all accounts");
    }
    let words = format!(
        "{reads} reads of {accounts} accounts, and {} replicas at the end, found {} each",
        copies.len(),
        expected.1
    );
    verdict(JUDGE, Finding::Holds, words)
}

/// A fault that never struck proves nothing.
fn all_struck(evidence: &Evidence<'_>) -> JudgeVerdict {
    let fired = |kind: &Kind| -> u64 {
        let of_kind = evidence.strikes.iter().filter(|strike| strike.kind == *kind);
        of_kind.map(|strike| strike.fired).sum()
    };
    let idle: Vec<&str> =
        evidence.kinds.iter().filter(|kind| fired(kind) == 0).map(|kind| kind.name()).collect();
    match idle.is_empty() {
        true => verdict("faults struck", Finding::Holds, ""),
        false => verdict(
            "faults struck",
            Finding::Undecided,
            format!("never struck, so nothing is known of it: {}; run longer", idle.join(", ")),
        ),
    }
}

#[cfg(test)]
mod tests {
    use kvorum_checker::Record;

    use super::*;
    use crate::lab::nemesis::Hurt;

    fn keep(name: &str, ending: Ending) -> Record {
        let (key, value) = (format!("kept/{name}"), format!("value of {name}"));
        let operation = Operation::Put { key, value };
        Record { client: 1, call: 1, ret: 2, ending, operation }
    }

    fn copy(name: &str, keys: &[&str]) -> Copy {
        let row = |key: &&str| (format!("kept/{key}"), format!("value of {key}"));
        (name.to_owned(), keys.iter().map(row).collect())
    }

    #[test]
    fn what_is_lost_or_undead_is_found() {
        let history = vec![
            keep("done", Ending::Done),
            keep("refused", Ending::NotDone),
            keep("unknown", Ending::Unknown),
        ];
        let check = |one: &[&str], other: &[&str], finding, words: &str| {
            let said = nothing_lost(&history, &[copy("one", one), copy("other", other)]);
            assert_eq!(said.finding, finding, "{said:?}");
            assert!(said.words.contains(words), "{said:?}");
        };
        check(&["done"], &["done"], Finding::Holds, "1 acknowledged");
        check(&["done", "unknown"], &["done", "unknown"], Finding::Holds, "all 2 replicas");
        check(&["done"], &[], Finding::Violated, "acknowledged, not on other");
        check(&[], &[], Finding::Violated, "acknowledged, not on one, other");
        check(&["done", "refused"], &["done"], Finding::Violated, "refused, and on one");
        assert_eq!(nothing_lost(&history, &[]).finding, Finding::Undecided);
        assert_eq!(nothing_lost(&vec![], &[copy("one", &[])]).finding, Finding::Undecided);
    }

    #[test]
    fn money_that_is_not_there_is_missed() {
        let rows = |balances: &[u64]| -> Vec<(String, String)> {
            let row = |(number, balance): (usize, &u64)| {
                (format!("account-{number:03}"), format!("{balance} 1.{number}"))
            };
            balances.iter().enumerate().map(row).collect()
        };
        let check = |read: &[u64], held: &[u64], finding| {
            let (start, end) = ("account-".to_owned(), None);
            let operation = Operation::Scan { start, end, rows: rows(read), more: false };
            let record = Record { client: 1, call: 1, ret: 2, ending: Ending::Done, operation };
            let said = conserved(&vec![record], &[("one".to_owned(), rows(held))], 2);
            assert_eq!(said.finding, finding, "{said:?}");
        };
        check(&[100, 100], &[90, 110], Finding::Holds);
        check(&[100, 99], &[100, 100], Finding::Violated);
        check(&[100, 100], &[101, 100], Finding::Violated);
        check(&[200], &[100, 100], Finding::Violated);
        assert_eq!(conserved(&vec![], &[], 2).finding, Finding::Undecided);
    }

    #[test]
    fn a_fault_that_never_struck_leaves_the_run_undecided() {
        let strike = |kind, fired| Strike {
            kind,
            name: String::new(),
            whom: Vec::new(),
            hurt: Hurt::Members,
            from: 0,
            to: 1,
            fired,
            evidence: String::new(),
        };
        let check = |strikes: &[Strike], finding| {
            let said = all_struck(&Evidence {
                history: &vec![],
                copies: &[],
                strikes,
                kinds: &[Kind::Kill, Kind::Pause],
                protocol: Protocol::TwoPhase,
                replicas: &[],
                leaders: &[],
                acknowledged: &[],
                broke_nanos: 1,
                workload: Workload::Register,
                keys: 2,
            });
            assert_eq!(said.finding, finding, "{said:?}");
        };
        check(&[strike(Kind::Kill, 1), strike(Kind::Pause, 2)], Finding::Holds);
        check(&[strike(Kind::Kill, 1), strike(Kind::Pause, 0)], Finding::Undecided);
        check(&[strike(Kind::Kill, 1)], Finding::Undecided);
    }
}
