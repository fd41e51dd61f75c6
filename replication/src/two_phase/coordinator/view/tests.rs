//! The view, told what happens.

use alloc::vec;

use super::*;

const EXCLUDE_AFTER: Duration = Duration::from_millis(400);

fn time(millis: u64) -> Time {
    Time(0).after(Duration::from_millis(millis))
}

fn txn(number: u64) -> TxnId {
    TxnId { coordinator: NodeId::COORDINATOR, epoch: 1, number }
}

fn options(min_replicas: usize) -> CoordinatorOptions {
    CoordinatorOptions {
        min_replicas,
        exclude_after: EXCLUDE_AFTER,
        ..CoordinatorOptions::default()
    }
}

fn replicas(count: u32) -> Vec<NodeId> {
    (1..=count).map(NodeId).collect()
}

/// So many replicas of which so many must remain, founded, all heard of at zero.
fn founded(count: u32, min_replicas: usize) -> Views {
    let mut views = Views::new(&options(min_replicas), &replicas(count));
    views.start(time(0), CommitNumber::ZERO);
    for _ in 0..2 {
        let view = views.next(time(0), None).expect("it is to be founded");
        views.is_logged(txn(1));
        all_know(&mut views, view.number);
    }
    assert!(views.current().is_founded);
    views
}

fn all_know(views: &mut Views, number: u64) {
    for member in views.members().iter() {
        views.knows(*member, number);
    }
}

/// These are heard of, as often as it is looked, up to this time; then the view to log, if any.
fn live(views: &mut Views, (from, to): (u64, u64), heard: &[u32]) -> Option<View> {
    for millis in (from..=to).step_by(80) {
        for id in heard {
            views.hear(NodeId(*id), time(millis));
        }
        if let Some(view) = views.next(time(millis), None) {
            return Some(view);
        }
    }
    None
}

fn ids(view: &View) -> Vec<u32> {
    view.members.iter().map(|member| member.replica.0).collect()
}

fn leaves_out(views: &mut Views, from: u64, heard: &[u32]) -> u64 {
    let view = live(views, (from, from + 560), heard).expect("somebody is silent");
    assert_eq!(ids(&view), heard);
    views.is_logged(txn(9));
    view.number
}

#[test]
fn who_is_silent_is_left_out_by_one_view_together() {
    let mut views = founded(5, 3);
    assert_eq!(views.others(), 2);
    let view = live(&mut views, (0, 560), &[1, 2, 3]).expect("two are silent");
    assert_eq!((view.number, ids(&view)), (2, vec![1, 2, 3]));
    // What is on its way is no view yet, and no second one is decided meanwhile.
    assert!(views.is_member(NodeId(4)) && views.grant(NodeId(4)).is_none());
    assert!(live(&mut views, (560, 2000), &[1, 2]).is_none());
    assert_eq!(views.is_logged(txn(1)), [NodeId(4), NodeId(5)]);
}

#[test]
fn one_that_was_stopped_itself_blames_nobody() {
    let mut views = founded(3, 2);
    assert!(live(&mut views, (0, 160), &[1, 2, 3]).is_none());
    assert!(views.next(time(5_000), None).is_none());
    // From then on silence counts again.
    assert!(live(&mut views, (5_000, 5_380), &[1, 2]).is_none());
    let view = live(&mut views, (5_400, 5_480), &[1, 2]).expect("the third is silent");
    assert_eq!(ids(&view), [1, 2]);
}

#[test]
fn with_too_few_nobody_is_left_out_until_one_is_back() {
    let mut views = founded(3, 2);
    assert!(live(&mut views, (0, 2_000), &[1]).is_none());
    assert!(!views.can_do_without(&[NodeId(2), NodeId(3)]));
    let view = live(&mut views, (2_080, 2_160), &[1, 3]).expect("two are there again");
    assert_eq!(ids(&view), [1, 3]);
}

#[test]
fn a_longer_lease_of_an_earlier_run_is_waited_for() {
    let mut views = founded(3, 2);
    let before = views.current().clone();
    let short = CoordinatorOptions { exclude_after: EXCLUDE_AFTER / 4, ..options(2) };
    let mut views_now = Views::new(&short, &replicas(3));
    views_now.replay(before);
    views_now.start(time(0), CommitNumber::ZERO);
    all_know(&mut views_now, 1);
    // 100 ms of silence, and the 225 ms by which the old lease is longer, and an eighth of that.
    let excluded_at = (0..600).step_by(20).find(|millis| {
        views_now.hear(NodeId(1), time(*millis));
        views_now.hear(NodeId(2), time(*millis));
        views_now.next(time(*millis), None).is_some()
    });
    assert_eq!(excluded_at, Some(360));
    // A longer one is in the log before anybody is granted it.
    let long = CoordinatorOptions { exclude_after: EXCLUDE_AFTER * 2, ..options(2) };
    views = Views { min_replicas: 2, ..Views::new(&long, &replicas(3)) };
    views.replay(founded(3, 2).current().clone());
    views.start(time(0), CommitNumber::ZERO);
    all_know(&mut views, 1);
    assert_eq!(views.grant(NodeId(1)), Some(EXCLUDE_AFTER * 3 / 4));
    let view = views.next(time(0), None).expect("leases get longer");
    assert_eq!((view.number, view.lease), (2, EXCLUDE_AFTER * 3 / 2));
}

#[test]
fn all_members_must_know_the_newest_view_that_left_somebody_out() {
    let mut views = founded(5, 3);
    let second = leaves_out(&mut views, 0, &[1, 2, 3, 4]);
    assert!(!views.is_settled());
    all_know(&mut views, second);
    assert!(views.is_settled());
    let third = leaves_out(&mut views, 560, &[1, 2, 3]);
    views.knows(NodeId(1), third);
    views.knows(NodeId(2), third);
    assert!(!views.is_settled());
    // Nobody is taken back before.
    views.knows(NodeId(5), third);
    assert!(views.with(NodeId(5), txn(20)).is_none());
    views.knows(NodeId(3), third);
    assert!(views.is_settled());
    let fourth = views.with(NodeId(5), txn(20)).expect("it knows the view");
    assert_eq!((fourth.number, ids(&fourth)), (third + 1, vec![1, 2, 3, 5]));
    views.is_logged(txn(22));
    // It leaves nobody out: what those before it know is enough.
    assert!(views.is_settled());
    assert!(!views.counts(NodeId(5), txn(21)) && views.counts(NodeId(5), txn(22)));
}

#[test]
fn who_has_not_what_the_others_have_is_not_enough_without_them() {
    let mut views = founded(3, 2);
    let number = leaves_out(&mut views, 0, &[1, 2]);
    all_know(&mut views, number);
    views.knows(NodeId(3), number);
    let back = views.with(NodeId(3), txn(5)).expect("it is near");
    views.is_logged(txn(5));
    views.knows(NodeId(3), back.number);
    assert!(!views.can_do_without(&[NodeId(2)]) && views.grant(NodeId(3)).is_none());
    views.needs(NodeId(3), CommitNumber(7));
    views.has_applied(NodeId(3), CommitNumber(6));
    assert!(!views.can_do_without(&[NodeId(2)]));
    views.has_applied(NodeId(3), CommitNumber(7));
    assert!(views.can_do_without(&[NodeId(2)]) && views.grant(NodeId(3)).is_some());
}

#[test]
fn of_the_starts_that_a_replica_missed_the_first_counts() {
    let mut views = founded(3, 2);
    leaves_out(&mut views, 0, &[1, 2]);
    views.begins_epoch(4, CommitNumber(10));
    views.begins_epoch(5, CommitNumber(30));
    let is_suspect =
        |applied, promised| views.is_suspect(NodeId(3), CommitNumber(applied), promised);
    assert_eq!([is_suspect(10, 3), is_suspect(11, 3), is_suspect(11, 4)], [false, true, false]);
    assert!(!views.is_suspect(NodeId(2), CommitNumber(99), 0));
}

#[test]
fn who_is_added_is_outside_and_nobody_is_left_out_before_all_know() {
    let mut views = founded(3, 0);
    assert_eq!((views.others(), views.current().highest), (1, NodeId(3)));
    views.want(Some(ReplicaChange::Add(NodeId(4))));
    let view = views.next(time(0), None).expect("it is to be added");
    assert_eq!((view.min_replicas, view.highest, ids(&view)), (3, NodeId(4), vec![1, 2, 3]));
    assert!(!views.is_replica(NodeId(4)) && views.is_changing());
    assert!(views.is_logged(txn(1)).is_empty());
    views.want(None);
    assert!(views.is_replica(NodeId(4)) && !views.is_member(NodeId(4)));
    // The third never hears of it.
    for member in [1, 2] {
        views.knows(NodeId(member), view.number);
    }
    assert!(live(&mut views, (0, 2_000), &[1, 2, 3]).is_none());
    views.knows(NodeId(3), view.number);
    assert!(views.next(time(2_000), None).expect("all know").is_founded);
    views.is_logged(txn(1));
    views.knows(NodeId(4), view.number);
    let back = views.with(NodeId(4), txn(5)).expect("it knows the view");
    assert_eq!(ids(&back), [1, 2, 3, 4]);
}

#[test]
fn who_is_to_be_removed_is_silent_and_has_no_lease() {
    let mut views = founded(4, 0);
    views.want(Some(ReplicaChange::Remove(NodeId(3))));
    assert!(views.grant(NodeId(3)).is_none() && views.grant(NodeId(2)).is_some());
    let left_out = live(&mut views, (0, 560), &[1, 2, 3, 4]).expect("it counts as silent");
    assert_eq!((ids(&left_out), left_out.replicas.len()), (vec![1, 2, 4], 4));
    views.is_logged(txn(1));
    assert!(views.with(NodeId(3), txn(2)).is_none());
    all_know(&mut views, left_out.number);
    let removed = views.next(time(560), None).expect("nobody needs it");
    assert_eq!((removed.replicas.len(), removed.min_replicas), (3, 2));
    views.is_logged(txn(1));
    assert!(views.are_so(ReplicaChange::Remove(NodeId(3))) && views.was_replica(NodeId(3)));
    // While what was committed before a start is asked for, nothing is changed.
    all_know(&mut views, removed.number);
    views.want(Some(ReplicaChange::Add(NodeId(5))));
    let round = Some((2, CommitNumber::ZERO));
    assert!(views.next(time(560), round).expect("all know").is_founded);
    views.is_logged(txn(1));
    assert!(views.next(time(560), round).is_none());
    assert!(views.next(time(560), None).is_some());
}

#[test]
fn a_view_from_before_replicas_could_change_has_those_of_the_start() {
    let mut views = Views::new(&options(2), &replicas(3));
    let old = View {
        number: 4,
        replicas: Vec::new(),
        highest: NodeId::COORDINATOR,
        ..views.current().clone()
    };
    views.replay(old);
    assert_eq!((views.count(), views.current().highest), (3, NodeId(3)));
}

#[test]
fn more_may_be_asked_to_remain_at_once_and_fewer_when_all_are_there() {
    let mut views = founded(3, 2);
    let number = leaves_out(&mut views, 0, &[1, 2]);
    let view = views.current().clone();
    let mut fewer = Views::new(&options(1), &replicas(3));
    fewer.replay(view.clone());
    fewer.start(time(0), CommitNumber::ZERO);
    all_know(&mut fewer, number);
    assert!(live(&mut fewer, (0, 320), &[1, 2]).is_none());
    let mut more = Views::new(&options(3), &replicas(3));
    more.replay(view);
    more.start(time(0), CommitNumber::ZERO);
    let next = more.next(time(0), None).expect("it is said at once");
    assert_eq!((next.number, next.min_replicas, ids(&next)), (number + 1, 3, vec![1, 2]));
}
