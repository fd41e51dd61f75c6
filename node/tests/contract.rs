//! The node keeps the rules of the contract, shown with a core that does as it is told.

mod driven;
mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvorum_node::NodeError;
use kvorum_replication::{
    Effect, Input, NodeId, Operation as Asked, Outcome, Position, Query, ReadId, Request,
    RequestId, Time, Urgency, Write, Writes,
};
use kvorum_storage::vfs::{Fault, FaultyVfs, MemoryVfs, Operation, Outcome as DiskOutcome};
use kvorum_storage::{Error, LogOptions};

use support::{Bench, Do, Order, Text};

const NOW: Time = Time(1_000_000_000);

fn persist(at: u64, urgency: Urgency) -> Order {
    Effect::Persist { at: Position(at), record: Text(format!("record {at}")), urgency }
}

fn send(text: &str) -> Order {
    Effect::Send { to: NodeId(9), message: Do::say(text) }
}

fn put(key: &'static str, value: &'static str) -> Writes {
    let (key, value) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(value.as_bytes()));
    vec![Write::Put(key, value)].into()
}

fn get(read: u64, key: &'static str) -> Order {
    Effect::read(ReadId(read), Query::Get(Bytes::from_static(key.as_bytes())))
}

#[test]
fn what_follows_a_record_waits_until_it_is_durable() {
    let mut bench = Bench::log();
    bench.order(vec![send("early"), persist(1, Urgency::Now), send("late")]);
    assert_eq!(bench.said(), ["early"]);
    bench.node.settle(NOW).unwrap();
    assert_eq!(bench.said(), Vec::<String>::new(), "nothing was synced yet");
    bench.sync();
    assert_eq!(bench.said(), ["late"]);
}

#[test]
fn effects_are_released_in_the_order_of_their_records() {
    let mut bench = Bench::log();
    bench.order(vec![persist(1, Urgency::Now), send("first")]);
    bench.order(vec![persist(2, Urgency::Soon), send("second"), persist(3, Urgency::Now)]);
    bench.order(vec![send("rests on nothing")]);
    assert_eq!(bench.said(), ["rests on nothing"]);
    bench.sync();
    assert_eq!(bench.said(), ["first", "second"]);
}

#[test]
fn records_are_synced_when_somebody_waits_or_soon() {
    let mut bench = Bench::log();
    assert_eq!(bench.node.sync_due(NOW), None);
    bench.order(vec![persist(1, Urgency::Soon)]);
    assert_eq!(bench.node.sync_due(NOW), Some(NOW.after(kvorum_node::SOON)));
    bench.order(vec![persist(2, Urgency::Now)]);
    assert_eq!(bench.node.sync_due(NOW), Some(NOW));
    bench.sync();
    assert_eq!(bench.node.sync_due(NOW), None);
}

#[test]
fn a_record_that_nobody_waits_for_rides_with_those_that_are_synced_anyway() {
    let mut bench = Bench::log();
    let millis = |millis| NOW.after(Duration::from_millis(millis));
    bench.order_at(millis(0), vec![persist(1, Urgency::Soon), persist(2, Urgency::Now)]);
    bench.order_at(millis(1), vec![persist(3, Urgency::Now), persist(4, Urgency::Soon)]);
    let log = Arc::clone(bench.node.log());
    log.sync(log.last()).unwrap();
    bench.node.settle(millis(3)).unwrap();
    bench.order_at(millis(3), vec![persist(5, Urgency::Now), persist(6, Urgency::Soon)]);
    log.sync(kvorum_storage::Position(5)).unwrap();
    bench.node.settle(millis(4)).unwrap();
    let due = bench.node.sync_due(millis(4));
    match log.durable() == log.last() {
        true => assert_eq!(due, None),
        false => assert_eq!(due, Some(millis(4).after(kvorum_node::SOON))),
    }
    bench.order_at(millis(5), vec![persist(7, Urgency::Soon)]);
    assert_eq!(bench.node.sync_due(millis(5)), Some(millis(5).after(kvorum_node::SOON)));
}

#[test]
fn what_many_steps_apply_is_there_for_whoever_looks_next() {
    let mut bench = Bench::store();
    let step = |bench: &mut Bench, orders| {
        let message = Do::perform(orders);
        let input = Input::Message { from: NodeId(9), message };
        bench.node.step_of_many(NOW, input).unwrap();
    };
    let apply = |mark, writes| Effect::Apply { mark, writes };
    step(&mut bench, vec![persist(1, Urgency::Now), apply(1, put("a", "1"))]);
    step(&mut bench, vec![persist(2, Urgency::Now), apply(2, put("b", "2"))]);
    step(&mut bench, vec![persist(3, Urgency::Now), get(1, "a"), apply(3, put("a", "3"))]);
    bench.sync();
    let rows = |bench: &Bench| {
        let (rows, _) = bench.node.inspector().rows(Bytes::new(), 9).unwrap();
        rows.iter().map(|row| format!("{row:?}")).collect::<Vec<_>>()
    };
    let rows_then = rows(&bench);
    assert_eq!(rows_then.len(), 2);
    assert!(bench.node.core().heard().contains(&"read 1: 1".to_owned()), "of before the third");
    // Unheld, so that nothing makes them wait for the disk.
    let all = 600;
    for mark in 4..4 + all {
        step(&mut bench, vec![apply(mark, put("a", "4"))]);
    }
    step(&mut bench, vec![apply(4 + all, vec![Write::Delete(Bytes::from_static(b"b"))].into())]);
    bench.node.settle(NOW).unwrap();
    let rows_now = rows(&bench);
    assert_eq!(rows_now.len(), 1, "{rows_now:?}");
    assert_ne!(rows_now[0], rows_then[0]);
}

#[test]
fn resumes_and_answers_come_before_the_next_input() {
    let mut bench = Bench::store();
    bench.order(vec![
        persist(1, Urgency::Now),
        Effect::Resume(Text("durable".to_owned())),
        get(1, "k"),
    ]);
    bench.sync();
    bench.order(vec![send("next")]);
    let heard = bench.node.core().heard();
    assert_eq!(heard, ["orders", "resume durable", "read 1: none", "orders"]);
}

#[test]
fn an_apply_before_its_record_is_read_at_once_and_one_behind_it_is_not() {
    let mut bench = Bench::store();
    let apply = |mark, writes| Effect::Apply { mark, writes };
    bench.order(vec![apply(1, put("k", "at once")), persist(1, Urgency::Soon)]);
    bench.order(vec![get(7, "k")]);
    assert_eq!(bench.node.core().heard().last().unwrap(), "read 7: at once");
    bench.order(vec![persist(2, Urgency::Now), apply(2, put("k", "durable"))]);
    bench.order(vec![get(8, "k")]);
    assert_eq!(bench.node.core().heard().last().unwrap(), "read 8: at once");
    bench.sync();
    bench.order(vec![get(9, "k")]);
    assert_eq!(bench.node.core().heard().last().unwrap(), "read 9: durable");
}

#[test]
fn an_armed_point_stops_the_step_before_its_record_is_appended() {
    let mut bench = Bench::armed(&["before"]);
    bench.order(vec![
        send("told"),
        Effect::Point("before"),
        persist(1, Urgency::Now),
        send("late"),
    ]);
    assert_eq!(bench.said(), ["told"]);
    assert_eq!(bench.node.last(), Position::ZERO, "the record waits for the point to be passed");
    assert_eq!(bench.node.take_point(), Some("before"));
    bench.node.settle(NOW).unwrap();
    assert_eq!(bench.node.last(), Position(1));
    bench.sync();
    assert_eq!(bench.said(), ["late"]);
}

/// Else a flush could bring to a segment what the log does not know yet, and would again give away
/// the number of after a crash.
#[test]
fn a_point_behind_an_apply_comes_when_the_record_is_in_the_log() {
    let mut bench = Bench::armed(&["received", "applied"]);
    bench.order(vec![
        Effect::Point("received"),
        Effect::Apply { mark: 1, writes: put("k", "one") },
        Effect::Apply { mark: 2, writes: put("k", "two") },
        Effect::Point("applied"),
        persist(1, Urgency::Soon),
        persist(2, Urgency::Soon),
        send("late"),
    ]);
    assert_eq!(bench.node.last(), Position::ZERO);
    assert_eq!(bench.node.take_point(), Some("received"));
    bench.node.settle(NOW).unwrap();
    assert_eq!(bench.node.take_point(), Some("applied"));
    let store = bench.node.store().unwrap();
    assert_eq!(store.get(b"k").unwrap().as_deref(), Some(b"two".as_slice()));
    store.flush().unwrap();
    assert_eq!(store.flushed_mark(), 2);
    assert_eq!(bench.node.durable(), Position(2), "the flush synced the records of both applies");
    bench.node.settle(NOW).unwrap();
    bench.sync();
    assert_eq!(bench.said(), ["late"]);
}

#[test]
fn a_point_behind_a_record_waits_for_it_too() {
    let mut bench = Bench::armed(&["durable"]);
    bench.order(vec![persist(1, Urgency::Now), Effect::Point("durable"), send("late")]);
    assert_eq!(bench.node.take_point(), None);
    bench.sync();
    assert_eq!(bench.said(), Vec::<String>::new());
    assert_eq!(bench.node.take_point(), Some("durable"));
    bench.node.settle(NOW).unwrap();
    assert_eq!(bench.said(), ["late"]);
}

#[test]
fn recovery_hands_back_the_records_and_only_repeats_applies() {
    let vfs = MemoryVfs::new();
    {
        let mut bench = Bench::store_on(&vfs);
        for at in 1..=3 {
            bench.order(vec![
                persist(at, Urgency::Now),
                Effect::Apply {
                    mark: at,
                    writes: put("k", ["one", "two", "three"][at as usize - 1]),
                },
            ]);
        }
        bench.sync();
    }
    let mut bench = Bench::store_on(&vfs);
    assert_eq!(bench.node.core().heard(), ["recover 1", "recover 2", "recover 3"]);
    bench.order(vec![get(1, "k")]);
    assert_eq!(
        bench.node.core().heard().last().unwrap(),
        "read 1: none",
        "the core applied nothing"
    );
}

#[test]
fn recovery_begins_with_a_checkpoint_once_the_beginning_is_gone() {
    let vfs = MemoryVfs::new();
    let options = LogOptions { file_bytes: 4096, recycle_files_max: 0, ..LogOptions::default() };
    {
        let mut bench = Bench::log_on(&vfs, options).unwrap();
        for at in 1..=100 {
            bench.order(vec![persist(at, Urgency::Now), send(&"x".repeat(100))]);
            bench.sync();
        }
        let checkpoint = Text(format!("checkpoint {}", "x".repeat(100)));
        bench.order(vec![
            Effect::Persist { at: Position(101), record: checkpoint, urgency: Urgency::Now },
            Effect::Release(Position(101)),
        ]);
        bench.order(vec![persist(102, Urgency::Now)]);
        bench.sync();
        assert!(bench.node.log().first().0 > 1, "nothing was released");
    }
    let bench = Bench::log_on(&vfs, options).unwrap();
    assert_eq!(bench.node.core().heard(), ["recover 101", "recover 102"]);
}

#[test]
fn a_log_without_its_beginning_or_a_checkpoint_is_refused() {
    let vfs = MemoryVfs::new();
    let options = LogOptions { file_bytes: 4096, recycle_files_max: 0, ..LogOptions::default() };
    {
        let mut bench = Bench::log_on(&vfs, options).unwrap();
        for at in 1..=200 {
            bench.order(vec![persist(at, Urgency::Now)]);
            bench.sync();
        }
        bench.order(vec![Effect::Release(Position(200))]);
        assert!(bench.node.log().first().0 > 1, "nothing was released");
    }
    let refused = Bench::log_on(&vfs, options).err().expect("half a state was taken for a whole");
    assert!(matches!(refused, NodeError::Record { .. }), "{refused}");
    assert!(refused.to_string().contains("no checkpoint"), "{refused}");
}

#[test]
fn the_core_is_asked_for_a_checkpoint_when_the_log_has_grown() {
    let mut bench = Bench::log();
    bench.node.set_checkpoint_bytes(50);
    for at in 1..=7 {
        bench.order(vec![persist(at, Urgency::Soon)]);
    }
    let asked = bench.node.core().heard().iter().filter(|heard| *heard == "checkpoint").count();
    assert_eq!(asked, 1, "seven records of eight bytes pass fifty once");
}

/// Else it would be asked for again by what it writes again itself, for ever.
#[test]
fn a_large_checkpoint_calls_for_no_other_one() {
    let mut bench = Bench::log();
    bench.node.set_checkpoint_bytes(50);
    let asked = |bench: &Bench| {
        bench.node.core().heard().iter().filter(|heard| *heard == "checkpoint").count()
    };
    let checkpoint = Text(format!("checkpoint {}", "x".repeat(100)));
    bench.order(vec![
        Effect::Persist { at: Position(1), record: checkpoint, urgency: Urgency::Now },
        persist(2, Urgency::Now),
        persist(3, Urgency::Now),
    ]);
    for at in 4..=18 {
        assert_eq!(asked(&bench), 0, "before record {at}");
        bench.order(vec![persist(at, Urgency::Now)]);
    }
    assert_eq!(asked(&bench), 1, "as much was written besides it as it is large");
}

#[test]
fn no_checkpoint_goes_to_a_full_disk() {
    let mut bench = Bench::log();
    bench.node.set_checkpoint_bytes(20);
    bench.node.set_stuck(true);
    for at in 1..=9 {
        bench.order(vec![persist(at, Urgency::Now)]);
    }
    bench.node.set_stuck(false);
    bench.node.settle(NOW).unwrap();
    assert_eq!(
        bench.node.core().heard().iter().filter(|heard| *heard != "orders").collect::<Vec<_>>(),
        ["room false", "room true", "checkpoint"]
    );
}

#[test]
fn replies_and_timers_reach_the_driver() {
    let mut bench = Bench::log();
    let reply = Effect::Reply { request: RequestId(4), outcome: Outcome::Committed };
    bench.order(vec![reply, Effect::SetTimer(NOW.after(kvorum_node::SOON))]);
    assert_eq!(bench.node.turn().replies, [(RequestId(4), Outcome::Committed)]);
    assert_eq!(bench.node.timer(), Some(NOW.after(kvorum_node::SOON)));
    bench.node.fire_timer(NOW).unwrap();
    assert_eq!(bench.node.timer(), None);
    assert_eq!(bench.node.core().heard().last().unwrap(), "timer");
}

#[test]
fn the_core_is_told_when_the_disk_is_full_and_when_it_has_room_again() {
    let disk = FaultyVfs::new(Arc::new(MemoryVfs::new()));
    let options = LogOptions { file_bytes: 4096, ..LogOptions::default() };
    let mut bench = Bench::log_on(&disk, options).unwrap();
    let full = disk.arm(Fault::always(Operation::Allocate, DiskOutcome::DiskFull));
    let more = disk.arm(Fault::always(Operation::Create, DiskOutcome::DiskFull));
    let mut at = 0;
    let refused = loop {
        at += 1;
        bench.order(vec![persist(at, Urgency::Now), send("durable")]);
        if let Err(error) = bench.node.log().sync(bench.node.log().last()) {
            break error;
        }
        assert!(at < 10_000, "the log never needs another file");
    };
    assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
    assert!(full.fired() + more.fired() > 0);
    bench.node.settle(NOW).unwrap();
    assert_eq!(bench.node.core().heard().last().unwrap(), "room false");
    assert_eq!(bench.said().len() as u64, at - 1, "the last one waits");
    disk.heal();
    bench.sync();
    assert_eq!(bench.node.core().heard().last().unwrap(), "room true");
    assert_eq!(bench.said(), ["durable"]);
}

#[test]
fn a_store_that_cannot_flush_counts_as_a_full_disk() {
    let mut bench = Bench::store();
    bench.node.set_stuck(true);
    bench.node.settle(NOW).unwrap();
    bench.node.settle(NOW).unwrap();
    bench.node.set_stuck(false);
    bench.node.settle(NOW).unwrap();
    assert_eq!(bench.node.core().heard(), ["room false", "room true"]);
}

#[test]
fn a_clock_that_falls_moves_no_deadline_away() {
    let mut bench = Bench::log();
    bench.order(vec![Effect::SetTimer(NOW.after(Duration::from_secs(5)))]);
    assert_eq!(bench.node.timer(), Some(NOW.after(Duration::from_secs(5))));
    let fallen = Time(NOW.0 / 4);
    bench.node.settle(fallen).unwrap();
    assert_eq!(bench.node.timer(), Some(fallen.after(Duration::from_secs(5))), "still five");
    bench.node.fire_timer(fallen).unwrap();
    let request = Request {
        id: RequestId(1),
        deadline: fallen.after(Duration::from_secs(1)),
        operation: Asked::OpenSession,
    };
    bench.node.step(fallen, Input::Request(request)).unwrap();
    let deadline = NOW.after(Duration::from_secs(1));
    let heard = bench.node.core().heard().last().unwrap();
    assert!(heard.contains(&format!("{deadline:?}")), "one second from its now, not {heard}");
}
