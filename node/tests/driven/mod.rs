//! A node whose turns are taken, and whose log is synced, by whoever brings it something.

#![expect(clippy::unwrap_used, reason = "only tests use it")]

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use kvorum_node::{DiskWait, Event, FailPoints, Node, NodeError, Outbox, Runner, Turn};
use kvorum_replication::{Effect, NodeId, Position, Urgency};
use kvorum_storage::LogOptions;
use kvorum_storage::vfs::{Fault, FaultyVfs, MemoryVfs, Operation, Outcome};

use crate::support::{Do, Obedient, Text};

/// So long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Says who has delivered what the node said.
struct Speakers(Sender<ThreadId>);

impl Outbox<Do> for Speakers {
    fn deliver(&mut self, turn: &mut Turn<Do>) {
        for _ in turn.sends.drain(..) {
            self.0.send(thread::current().id()).expect("the test listens to its end");
        }
    }

    fn drain(&mut self, _wait: Duration) {}
}

fn start(vfs: FaultyVfs) -> (Runner<Do>, Receiver<ThreadId>) {
    let (speaker, spoken) = channel();
    let (core, options) = (Obedient::default(), LogOptions::default());
    let node = Node::open_log(Arc::new(vfs), Path::new("node"), options, core, Vec::new());
    let outbox = Box::new(Speakers(speaker));
    let runner = Runner::start(node.unwrap(), outbox, FailPoints::default(), Box::new(|| {}));
    (runner.unwrap(), spoken)
}

/// A message that has a record made durable, and then somebody told.
fn word(at: u64) -> Event<Do> {
    let record = Text(format!("record {at}"));
    let messages = vec![Do::perform(vec![
        Effect::Persist { at: Position(at), record, urgency: Urgency::Now },
        Effect::Send { to: NodeId(9), message: Do::say("durable") },
    ])];
    Event::Messages { from: NodeId(9), messages, bytes: 1 }
}

fn faulty() -> FaultyVfs {
    FaultyVfs::new(Arc::new(MemoryVfs::new()))
}

#[test]
fn who_may_wait_for_the_disk_says_what_comes_of_it() {
    let (runner, spoken) = start(faulty());
    let handle = runner.handle();
    // The log's own thread does it while it is awake, as it is at first.
    let mut at = 0;
    loop {
        at += 1;
        handle.drive([word(at)], DiskWait::Short);
        if spoken.recv_timeout(PATIENCE).unwrap() == thread::current().id() {
            break;
        }
        assert!(at < 10_000, "the log's own thread is always awake");
        thread::yield_now();
    }
    runner.stop().unwrap();
}

#[test]
fn a_sync_that_fails_ends_the_node_whoever_made_it() {
    let vfs = faulty();
    let (runner, spoken) = start(vfs.clone());
    let fault = vfs.arm(Fault::always(Operation::Sync, Outcome::InputOutput));
    let handle = runner.handle();
    let mut at = 0;
    while !handle.is_closed() {
        at += 1;
        handle.drive([word(at)], DiskWait::Short);
        thread::yield_now();
    }
    assert!(matches!(runner.stop(), Err(NodeError::Storage(_))));
    assert_eq!(spoken.try_iter().count(), 0, "nothing was durable");
    assert!(fault.fired() > 0);
}

#[test]
fn many_who_bring_something_at_once_leave_nothing_behind() {
    const THREADS: u64 = 4;
    const WORDS: u64 = 200;
    let (runner, spoken) = start(faulty());
    let next = std::sync::Mutex::new(0);
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (handle, next) = (runner.handle(), &next);
            scope.spawn(move || {
                for _ in 0..WORDS {
                    let wait = if thread % 2 == 0 { DiskWait::Short } else { DiskWait::Never };
                    // Records come in the order of their positions.
                    let mut at = next.lock().unwrap_or_else(PoisonError::into_inner);
                    *at += 1;
                    let word = word(*at);
                    match thread {
                        0 => {
                            handle.drive([word], wait);
                        }
                        _ => {
                            handle.submit([word]);
                            drop(at);
                            handle.drive([], wait);
                        }
                    }
                }
            });
        }
    });
    for _ in 0..THREADS * WORDS {
        spoken.recv_timeout(PATIENCE).unwrap();
    }
    runner.stop().unwrap();
}
