//! Waiting for a record to come far enough, and leading while one waits.

use std::sync::MutexGuard;

use super::buffer::Buffer;
use super::frame::{FRAME_HEADER_BYTES, Group};
use super::maker::Failure;
use super::state::{End, Goal, State};
use super::turn::{Change, Turn, Way, Zeros};
use super::waiters::{Call, Calls};
use super::{Log, Position, leader, lock};
use crate::error::{Error, Result};

impl Log {
    pub(super) fn reach(&self, position: Position, goal: Goal) -> Result<()> {
        let mut calls = Calls::default();
        let mut state = lock(&self.state);
        if position.0 > state.last {
            let what = format!("position {position} is not in the log: its last is {}", state.last);
            return Err(Error::invalid(what));
        }
        let refusals = state.refusals;
        let outcome = loop {
            if let Some(outcome) = state.outcome(position.0, goal, refusals) {
                break outcome;
            }
            match state.turn(position.0, goal) {
                Some(turn) => {
                    let led;
                    (state, led) = self.lead(turn, state, &mut calls);
                    if let Err(Failure::Broken(error)) = led {
                        break Err(error);
                    }
                }
                None => {
                    let waiter = state.waiters.add(position.0, goal);
                    self.let_go(state, &mut calls);
                    let call = waiter.sleep();
                    if call == Call::Reached {
                        return Ok(());
                    }
                    state = lock(&self.state);
                    state.waiters.is_leader_called &= call != Call::Lead;
                }
            }
        };
        let zeros =
            if outcome.is_ok() && goal == Goal::Durable { state.begin_zeros() } else { None };
        self.let_go(state, &mut calls);
        if let Some(zeros) = zeros {
            self.fill(&zeros, &mut calls);
        }
        outcome
    }

    /// Does what is to be done, with nothing locked.
    fn lead<'a>(
        &'a self,
        turn: Turn,
        state: MutexGuard<'a, State>,
        calls: &mut Calls,
    ) -> (MutexGuard<'a, State>, Result<(), Failure>) {
        let leading = Leading { log: self };
        self.let_go(state, calls);
        let (mut state, outcome) = match turn {
            Turn::Write(mut load) => {
                let outcome = leader::write(&mut load);
                let mut state = lock(&self.state);
                state.end_write(load, &outcome);
                (state, outcome)
            }
            Turn::Sync(sync) => {
                let outcome = leader::sync(&sync.file, &self.options);
                let mut state = lock(&self.state);
                state.end_sync(&sync, &outcome);
                (state, outcome)
            }
            Turn::Change(change) => {
                let changed = self.change_file(&change, calls);
                let mut state = lock(&self.state);
                let outcome = state.end_change(changed);
                (state, outcome)
            }
        };
        std::mem::forget(leading);
        self.seen.update(&state);
        state.call(calls);
        (state, outcome)
    }

    fn change_file(&self, change: &Change, calls: &mut Calls) -> Result<End, Failure> {
        leader::sync_full(change, &self.options)?;
        let mut state = lock(&self.state);
        state.full_is_durable(change);
        self.seen.update(&state);
        state.call(calls);
        self.let_go(state, calls);
        leader::change_file(&*self.vfs, &self.dir, &self.options, change, &self.files)
    }

    /// Fills a piece of the file with zeros, ahead of the frames. The caller's own record is durable
    /// already, and those who were called are awake.
    fn fill(&self, zeros: &Zeros, calls: &mut Calls) {
        let leading = Leading { log: self };
        let outcome = leader::fill(zeros);
        std::mem::forget(leading);
        let mut state = lock(&self.state);
        state.end_zeros(outcome);
        state.call(calls);
        self.let_go(state, calls);
    }

    /// Unlocks the state, and then wakes those who are called, first of them who is to lead next.
    fn let_go(&self, mut state: MutexGuard<'_, State>, calls: &mut Calls) {
        state.call_leader(calls);
        drop(state);
        calls.wake();
    }

    /// Adds an empty frame that bears witness that all before it was durable, so that damage done
    /// to the last records later is told from a torn write. Not synced: if it is lost, nothing is.
    pub(super) fn mark(&self) -> Result<()> {
        let mut state = lock(&self.state);
        if !state.can_mark() {
            return Ok(());
        }
        let (End { file, offset, .. }, next) = (state.end.clone(), state.durable() + 1);
        let mut mark = Group::new(next, Buffer::default());
        let bytes = file.header.span(FRAME_HEADER_BYTES as u64);
        match leader::put(&file, Way::Direct, &mut mark, offset, next - 1, bytes) {
            Ok(()) => state.end_mark(bytes),
            // It would have been better to have it, but a full disk must not keep a log closed.
            Err(Error::DiskFull { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// A thread that works for all. Dropped by a panic only: then nobody knows what was written, and the
/// log is poisoned for those who wait.
struct Leading<'a> {
    log: &'a Log,
}

impl Drop for Leading<'_> {
    fn drop(&mut self) {
        self.log.poison(&self.log.dir, "a thread panicked while it wrote");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Barrier};
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::log::LogOptions;
    use crate::vfs::{Fault, FaultyVfs, MemoryVfs, Operation, Outcome, Phase};

    /// Nobody leads a poisoned log. So if the one who poisons it were not one who leads, and he left
    /// it to the next leader to wake those who wait, some could sleep for ever.
    #[test]
    fn who_waits_is_woken_when_a_file_cannot_leave_the_log() {
        let vfs = FaultyVfs::new(Arc::new(MemoryVfs::new().with_direct(None)));
        let options = LogOptions { file_bytes: 4096, ..LogOptions::default() };
        let (log, _) = Log::open(Arc::new(vfs.clone()), "/log".as_ref(), options).unwrap();
        while !log.would_cut(log.last()) {
            log.sync(log.append(0, &[7; 300]).unwrap()).unwrap();
        }
        let gate = Arc::new(Barrier::new(2));
        let held = Arc::clone(&gate);
        vfs.on_operation(move |event| {
            if event.operation == Operation::Sync && event.phase == Phase::Before {
                held.wait();
                held.wait();
            }
        });
        let fault = vfs.arm(Fault::once(Operation::SyncDir, Outcome::InputOutput));
        let (woken, wakes) = channel();
        thread::scope(|scope| {
            let log = &log;
            let at_the_disk = log.append(0, b"at the disk").unwrap();
            scope.spawn(move || log.sync(at_the_disk));
            gate.wait();
            let behind = log.append(0, b"behind it").unwrap();
            scope.spawn(move || woken.send(log.sync(behind)).unwrap());
            while lock(&log.state).waiters.is_empty() {
                thread::yield_now();
            }
            assert!(matches!(log.truncate_before(log.durable()), Err(Error::Io { .. })));
            let told = wakes.recv_timeout(Duration::from_secs(300));
            // So that a test that fails ends.
            gate.wait();
            assert!(matches!(told, Ok(Err(Error::Poisoned { .. }))), "{told:?}");
        });
        assert_eq!(fault.fired(), 1);
    }
}
