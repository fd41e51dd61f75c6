//! Whether a cluster that needs a majority took writes whenever it had one; under two-phase commit, a
//! majority and the coordinator.
//!
//! A protocol with a leader may pause when it loses it, but not for long. So: in every stretch of
//! time in which nothing new broke and the same majority of replicas ran and reached one another, no
//! pause between acknowledged writes is longer than the bound. When something breaks, or a majority
//! comes together, the clock begins anew: that may have been the leader.

use std::time::Duration;

use kvorum_replication::Protocol;

use super::clock::nanos;
use super::judge::Evidence;
use super::leaders::leader_at;
use super::nemesis::{Hurt, Strike};
use super::numbers::counted;
use super::proxy::Place;
use super::report::{Finding, JudgeVerdict};
use crate::cluster::Member;

/// How long writes may pause when somebody may have to come to lead.
const BOUND: Duration = Duration::from_secs(2);

/// And when somebody may have to be left out: one that was let in again, and then needed, may be
/// waited for until the votes of what was begun before are given up, and only then is it noticed that
/// another one is silent.
const BOUND_OF_VIEWS: Duration = Duration::from_secs(5);

/// What was promised, and what came.
pub(super) fn available(evidence: &Evidence<'_>) -> JudgeVerdict {
    let Evidence { protocol, replicas, strikes, acknowledged, broke_nanos: end, .. } = *evidence;
    let (bound, hub) = match protocol {
        Protocol::TwoPhase => (BOUND_OF_VIEWS, Some(Member::Coordinator)),
        Protocol::AnyReplica | Protocol::Paxos => (BOUND, None),
    };
    let (mut worst, mut whole) = ((0, 0), 0);
    for (from, to) in stretches(hub, replicas, strikes, end) {
        whole += to - from;
        let first = acknowledged.partition_point(|at| *at < from);
        let mut last = from;
        for at in acknowledged[first..].iter().copied().take_while(|at| *at < to).chain([to]) {
            worst = worst.max((at - last, last));
            last = at;
        }
    }
    let seconds = |nanos| Duration::from_nanos(nanos).as_secs_f64();
    let (pause, at) = worst;
    let words = format!(
        "with a majority for {:.1} of {:.1} s, and then never more than {:.0} ms without an \
         acknowledged write (from {:.3} s on); {} ms are allowed after each fault{}",
        seconds(whole),
        seconds(end),
        seconds(pause) * 1000.0,
        seconds(at),
        bound.as_millis(),
        losses(evidence)
    );
    let finding = match pause {
        _ if whole == 0 => Finding::Undecided,
        pause if pause > nanos(bound) => Finding::Violated,
        _ => Finding::Holds,
    };
    JudgeVerdict { judge: "available".to_owned(), finding, words, timeline_html: None }
}

/// How often the leader was lost and a majority was not, and how soon a write was acknowledged then.
fn losses(evidence: &Evidence<'_>) -> String {
    let Evidence { replicas, strikes, acknowledged, leaders, .. } = *evidence;
    let mut waits = Vec::new();
    for strike in strikes {
        let now: Vec<&Strike> =
            strikes.iter().filter(|it| it.from <= strike.from && strike.from < it.to).collect();
        let before: Vec<&Strike> = now.iter().copied().filter(|it| it.from < strike.from).collect();
        let Some(leader) = leader_at(leaders, strike.from) else { continue };
        let place = replicas.iter().position(|replica| *replica == leader);
        let has = |majority: &u32| place.is_some_and(|place| majority >> place & 1 == 1);
        let left = well(None, replicas, &now);
        if !well(None, replicas, &before).iter().any(has) || left.iter().any(has) || left.is_empty()
        {
            continue;
        }
        let next = acknowledged.partition_point(|at| *at <= strike.from);
        if let Some(at) = acknowledged.get(next) {
            waits.push(at - strike.from);
        }
    }
    waits.sort_unstable();
    let millis = |nanos: u64| Duration::from_nanos(nanos).as_secs_f64() * 1000.0;
    match (waits.get(waits.len().saturating_sub(1) / 2), waits.last()) {
        (Some(half), Some(most)) => format!(
            "; the leader was lost {}, and a write was acknowledged {:.0} ms later (half of them), \
             {:.0} ms (worst)",
            counted(waits.len() as u64, "time", "times"),
            millis(*half),
            millis(*most)
        ),
        _ => String::new(),
    }
}

/// Stretches of time in which nothing breaks and one majority is well.
fn stretches(
    hub: Option<Member>,
    replicas: &[Member],
    strikes: &[Strike],
    end: u64,
) -> Vec<(u64, u64)> {
    let mut edges: Vec<u64> = strikes.iter().flat_map(|strike| [strike.from, strike.to]).collect();
    edges.extend([0, end]);
    edges.retain(|edge| *edge <= end);
    edges.sort_unstable();
    edges.dedup();
    let mut stretches: Vec<(u64, u64)> = Vec::new();
    let mut majorities = Vec::new();
    for pair in edges.windows(2) {
        let (from, to) = (pair[0], pair[1]);
        let now: Vec<&Strike> =
            strikes.iter().filter(|strike| strike.from <= from && from < strike.to).collect();
        let before = std::mem::replace(&mut majorities, well(hub, replicas, &now));
        let breaks = strikes.iter().any(|strike| strike.from == from);
        let lasts = !breaks && before.iter().any(|majority| majorities.contains(majority));
        match stretches.last_mut() {
            Some(last) if lasts => last.1 = to,
            _ if majorities.is_empty() => {}
            _ => stretches.push((from, to)),
        }
    }
    stretches
}

/// Every smallest majority whose members run and reach one another, as bits by their place. With a
/// hub it has to be well, too, and they have to reach only that.
fn well(hub: Option<Member>, replicas: &[Member], now: &[&Strike]) -> Vec<u32> {
    let is_hurt = |replica: &Member| {
        now.iter().any(|strike| match &strike.hurt {
            Hurt::Members => strike.whom.is_empty() || strike.whom.contains(replica),
            Hurt::Ways(_) => false,
        })
    };
    let is_cut = |one: Member, other: Member| {
        let ends: [(Place, Place); 2] = [(one.into(), other.into()), (other.into(), one.into())];
        now.iter().any(|strike| match &strike.hurt {
            Hurt::Members => false,
            Hurt::Ways(ways) => ways.iter().any(|way| ends.contains(way)),
        })
    };
    let majority = u32::try_from(replicas.len() / 2 + 1).expect("replicas are few");
    let sets = (0..1_u32 << replicas.len()).filter(|set| set.count_ones() == majority);
    let members = |set: u32| (0..).zip(replicas).filter(move |(place, _)| set >> place & 1 == 1);
    let reaches_all = |set: u32, one: Member| match hub {
        Some(hub) => !is_hurt(&hub) && !is_cut(one, hub),
        None => members(set).all(|(_, other)| one == *other || !is_cut(one, *other)),
    };
    sets.filter(|set| members(*set).all(|(_, one)| !is_hurt(one) && reaches_all(*set, *one)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::leaders::Lead;
    use crate::lab::nemesis::Kind;
    use crate::lab::workload::Workload;

    const SECOND: u64 = 1_000_000_000;

    fn replicas() -> Vec<Member> {
        (1..=3).map(Member::Replica).collect()
    }

    fn strike(from: u64, to: u64, whom: &[u32], hurt: Hurt) -> Strike {
        let whom = whom.iter().copied().map(Member::Replica).collect();
        let (kind, name, evidence) = (Kind::Kill, String::new(), String::new());
        Strike { kind, name, whom, hurt, from: from * SECOND, to: to * SECOND, fired: 1, evidence }
    }

    fn down(from: u64, to: u64, whom: &[u32]) -> Strike {
        strike(from, to, whom, Hurt::Members)
    }

    fn cut(from: u64, to: u64, one: u32, other: u32) -> Strike {
        let ends = (Member::Replica(one).into(), Member::Replica(other).into());
        strike(from, to, &[one], Hurt::Ways(vec![ends]))
    }

    fn check(strikes: &[Strike], expected: &[(u64, u64)]) {
        check_with(None, strikes, expected);
    }

    #[track_caller]
    fn check_with(hub: Option<Member>, strikes: &[Strike], expected: &[(u64, u64)]) {
        let found = stretches(hub, &replicas(), strikes, 10 * SECOND);
        let expected: Vec<_> = expected.iter().map(|(a, b)| (a * SECOND, b * SECOND)).collect();
        assert_eq!(found, expected, "{strikes:?}");
    }

    #[test]
    fn a_stretch_ends_when_something_breaks_or_the_majority_goes() {
        check(&[], &[(0, 10)]);
        check(&[down(2, 4, &[1])], &[(0, 2), (2, 10)]);
        check(&[down(2, 6, &[1]), down(3, 5, &[2])], &[(0, 2), (2, 3), (5, 10)]);
        check(&[down(2, 4, &[])], &[(0, 2), (4, 10)]);
        // The majority that is well is another one from then on.
        check(&[down(2, 4, &[1]), down(4, 6, &[2])], &[(0, 2), (2, 4), (4, 10)]);
    }

    #[test]
    fn who_cannot_be_heard_is_in_no_majority_with_those() {
        check(&[cut(2, 4, 1, 2)], &[(0, 2), (2, 10)]);
        check(&[cut(2, 6, 1, 2), cut(3, 5, 3, 2)], &[(0, 2), (2, 3), (3, 10)]);
        check(
            &[cut(2, 6, 1, 2), cut(3, 5, 3, 2), cut(4, 5, 1, 3)],
            &[(0, 2), (2, 3), (3, 4), (5, 10)],
        );
    }

    #[test]
    fn with_a_coordinator_it_is_that_which_must_be_reached() {
        let hub = Some(Member::Coordinator);
        let gone = Strike { whom: vec![Member::Coordinator], ..down(2, 4, &[]) };
        check_with(hub, &[gone], &[(0, 2), (4, 10)]);
        check_with(hub, &[cut(2, 6, 1, 2), cut(3, 5, 1, 3)], &[(0, 2), (2, 3), (3, 10)]);
        let away = |from, to, replica| {
            let ends = (Member::Replica(replica).into(), Member::Coordinator.into());
            strike(from, to, &[replica], Hurt::Ways(vec![ends]))
        };
        check_with(hub, &[away(2, 6, 1), away(3, 5, 2)], &[(0, 2), (2, 3), (5, 10)]);
    }

    #[test]
    fn a_pause_counts_while_there_is_a_majority() {
        let strikes = [down(2, 8, &[1]), down(3, 7, &[2])];
        let finding = |acknowledged: &[u64]| {
            let at: Vec<u64> = acknowledged.iter().map(|tenths| tenths * SECOND / 10).collect();
            said(&strikes, &at, &[]).finding
        };
        assert_eq!(finding(&[10, 25, 75, 90]), Finding::Holds);
        assert_eq!(finding(&[19, 29, 90, 91]), Finding::Holds);
        assert_eq!(finding(&[19, 29, 91, 95]), Finding::Violated);
        assert_eq!(finding(&[19, 29, 75]), Finding::Violated);
        assert_eq!(said(&[down(0, 10, &[])], &[], &[]).finding, Finding::Undecided);
    }

    #[test]
    fn a_leader_is_lost_if_no_majority_has_it_any_more() {
        let leads = [Lead { ballot: 1, from: SECOND, member: Member::Replica(1) }];
        let lost = |strikes: &[Strike]| {
            let said = said(strikes, &[SECOND, 2 * SECOND, 5 * SECOND / 2, 4 * SECOND], &leads);
            said.words.split_once("the leader was lost ").map(|(_, words)| words.to_owned())
        };
        let once =
            "1 time, and a write was acknowledged 500 ms later (half of them), 500 ms (worst)";
        assert_eq!(lost(&[down(2, 3, &[1])]).as_deref(), Some(once));
        assert_eq!(lost(&[down(2, 3, &[2])]), None);
        assert_eq!(lost(&[cut(2, 3, 1, 2)]), None);
        let ways = [2, 3].map(|other| (Member::Replica(1).into(), Member::Replica(other).into()));
        let alone = strike(2, 3, &[1], Hurt::Ways(ways.to_vec()));
        assert_eq!(lost(&[alone]).as_deref(), Some(once));
        assert_eq!(lost(&[down(2, 3, &[])]), None, "then nobody can");
    }

    fn said(strikes: &[Strike], acknowledged: &[u64], leaders: &[Lead]) -> JudgeVerdict {
        available(&Evidence {
            history: &vec![],
            copies: &[],
            strikes,
            kinds: &[],
            protocol: Protocol::Paxos,
            replicas: &replicas(),
            leaders,
            acknowledged,
            broke_nanos: 10 * SECOND,
            workload: Workload::Register,
            keys: 2,
        })
    }
}
