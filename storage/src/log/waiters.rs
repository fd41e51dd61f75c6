//! Threads that wait, each woken by itself: when its record has come where it wants it, or when it
//! is its turn to lead.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::thread::{self, Thread};

use super::state::Goal;

/// Why a thread was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Its record has come as far as it wanted.
    Reached,
    /// It is to lead, if there is still anything to do.
    Lead,
    /// Something went wrong.
    Look,
}

impl Call {
    const ASLEEP: u8 = 0;

    fn word(self) -> u8 {
        match self {
            Self::Reached => 1,
            Self::Lead => 2,
            Self::Look => 3,
        }
    }

    fn parse(word: u8) -> Option<Self> {
        [Self::Reached, Self::Lead, Self::Look].into_iter().find(|call| call.word() == word)
    }
}

/// A thread that waits.
#[derive(Debug)]
pub(super) struct Waiter {
    thread: Thread,
    call: AtomicU8,
}

impl Waiter {
    /// The thread that calls.
    fn new() -> Self {
        Self { thread: thread::current(), call: AtomicU8::new(Call::ASLEEP) }
    }

    /// Sleeps until called.
    pub(super) fn sleep(&self) -> Call {
        loop {
            if let Some(call) = Call::parse(self.call.load(Acquire)) {
                return call;
            }
            thread::park();
        }
    }
}

/// Those who wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    waiting: Vec<Waiting>,
    /// Somebody was called to lead and is not here yet.
    pub(super) is_leader_called: bool,
}

#[derive(Debug)]
struct Waiting {
    position: u64,
    goal: Goal,
    waiter: Arc<Waiter>,
}

impl Waiters {
    /// Adds the thread that calls. It must let go of the lock, and then sleep.
    pub(super) fn add(&mut self, position: u64, goal: Goal) -> Arc<Waiter> {
        let waiter = Arc::new(Waiter::new());
        self.waiting.push(Waiting { position, goal, waiter: Arc::clone(&waiter) });
        waiter
    }

    /// Calls those whose record has come far enough.
    pub(super) fn call_reached(&mut self, calls: &mut Calls, reached: impl Fn(Goal) -> u64) {
        let (written, durable) = (reached(Goal::Written), reached(Goal::Durable));
        self.waiting.retain(|waiting| {
            let reached = match waiting.goal {
                Goal::Written => written,
                Goal::Durable => durable,
            };
            let waits = waiting.position > reached;
            if !waits {
                calls.0.push((Arc::clone(&waiting.waiter), Call::Reached));
            }
            waits
        });
    }

    /// Calls the first who could lead, unless somebody is on the way already.
    pub(super) fn call_leader(&mut self, calls: &mut Calls, could: impl Fn(u64, Goal) -> bool) {
        if self.is_leader_called {
            return;
        }
        let first = self.waiting.iter().position(|waiting| could(waiting.position, waiting.goal));
        if let Some(first) = first {
            // First of all who are called, so that the disk does not stand idle meanwhile.
            calls.0.insert(0, (self.waiting.remove(first).waiter, Call::Lead));
            self.is_leader_called = true;
        }
    }

    /// Calls everyone.
    pub(super) fn call_all(&mut self, calls: &mut Calls) {
        calls.0.extend(self.waiting.drain(..).map(|waiting| (waiting.waiter, Call::Look)));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Those to be woken as soon as the lock is free: they would only wait for it.
#[derive(Debug, Default)]
pub(super) struct Calls(Vec<(Arc<Waiter>, Call)>);

impl Calls {
    pub(super) fn wake(&mut self) {
        for (waiter, call) in self.0.drain(..) {
            waiter.call.store(call.word(), Release);
            waiter.thread.unpark();
        }
    }
}

impl Drop for Calls {
    /// Also when a leader panics: whoever is called and not woken would sleep for ever.
    fn drop(&mut self) {
        self.wake();
    }
}
