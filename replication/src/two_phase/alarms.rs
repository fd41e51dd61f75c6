//! The deadlines of a core, and the one timer that the shell keeps for it.

use alloc::collections::BTreeSet;
use core::time::Duration;

use crate::contract::{Effect, Effects, Time};

/// After a timer that left due alarms behind, the next comes this much later: the work that piled
/// up is spread out instead of starving everything else.
const PAUSE: Duration = Duration::from_millis(10);

/// Alarms by time.
#[derive(Clone, Debug)]
pub(super) struct Alarms<A> {
    by_time: BTreeSet<(Time, A)>,
    /// The time last asked of the shell, unless it has come. It may be too early, which costs a
    /// wasted timer and saves asking again with every alarm.
    asked: Time,
}

impl<A: Copy + Ord> Alarms<A> {
    pub(super) fn new() -> Self {
        Self { by_time: BTreeSet::new(), asked: Time::NEVER }
    }

    pub(super) fn set(&mut self, at: Time, alarm: A) {
        self.by_time.insert((at, alarm));
    }

    pub(super) fn cancel(&mut self, at: Time, alarm: A) {
        self.by_time.remove(&(at, alarm));
    }

    /// The timer has come.
    pub(super) fn rang(&mut self) {
        self.asked = Time::NEVER;
    }

    /// Takes the next alarm that is due.
    pub(super) fn due(&mut self, now: Time) -> Option<A> {
        let (at, alarm) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.by_time.pop_first();
        Some(alarm)
    }

    /// Asks the shell for a timer if the one it keeps is too late.
    pub(super) fn ask<M, P, R>(&mut self, now: Time, effects: &mut Effects<M, P, R>) {
        let Some((first, _)) = self.by_time.first() else { return };
        let wanted = if *first > now { *first } else { now.after(PAUSE) };
        if wanted < self.asked {
            self.asked = wanted;
            effects.push_unheld(Effect::SetTimer(wanted));
        }
    }
}
