//! The deadlines of a core, and the one timer that the shell keeps for it.

use alloc::collections::BTreeSet;
use core::time::Duration;

use crate::contract::{Effect, Effects, Time};

/// After a timer that left due alarms behind, the next comes this much later: the work that piled
/// up is spread out instead of starving everything else.
const PAUSE: Duration = Duration::from_millis(10);

/// Alarms by time.
#[derive(Clone, Debug)]
pub(crate) struct Alarms<A> {
    by_time: BTreeSet<(Time, A)>,
    /// When the first of them is due: each step looks at it.
    first: Time,
    /// The time last asked of the shell, unless it has come. It may be too early, which costs a
    /// wasted timer and saves asking again with every alarm.
    asked: Time,
}

impl<A: Copy + Ord> Alarms<A> {
    pub(crate) fn new() -> Self {
        Self { by_time: BTreeSet::new(), first: Time::NEVER, asked: Time::NEVER }
    }

    pub(crate) fn set(&mut self, at: Time, alarm: A) {
        self.by_time.insert((at, alarm));
        self.first = self.first.min(at);
    }

    pub(crate) fn cancel(&mut self, at: Time, alarm: A) {
        self.by_time.remove(&(at, alarm));
        self.find_first();
    }

    fn find_first(&mut self) {
        self.first = self.by_time.first().map_or(Time::NEVER, |(first, _)| *first);
    }

    /// The timer has come.
    pub(crate) fn rang(&mut self) {
        self.asked = Time::NEVER;
    }

    /// Takes the next alarm that is due.
    pub(crate) fn due(&mut self, now: Time) -> Option<A> {
        if self.first > now {
            return None;
        }
        let (_, alarm) = self.by_time.pop_first()?;
        self.find_first();
        Some(alarm)
    }

    /// When the first one is due; never, if there is none.
    pub(crate) fn first(&self) -> Time {
        self.first
    }

    /// The time last asked of the shell; never, if it has come.
    pub(crate) fn asked(&self) -> Time {
        self.asked
    }

    /// Asks the shell for a timer if the one it keeps is too late.
    pub(crate) fn ask<M, P, R>(&mut self, now: Time, effects: &mut Effects<M, P, R>) {
        self.ask_for(self.first(), now, effects);
    }

    /// As [`Alarms::ask`], for an alarm that is due then and may be kept elsewhere.
    pub(crate) fn ask_for<M, P, R>(
        &mut self,
        first: Time,
        now: Time,
        effects: &mut Effects<M, P, R>,
    ) {
        if first == Time::NEVER {
            return;
        }
        let wanted = if first > now { first } else { now.after(PAUSE) };
        if wanted < self.asked {
            self.asked = wanted;
            effects.push_unheld(Effect::SetTimer(wanted));
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn asked(alarms: &mut Alarms<u8>, now: u64) -> Option<u64> {
        let mut effects: Effects<(), (), ()> = Effects::new();
        alarms.ask(Time(now), &mut effects);
        let times: Vec<u64> = effects
            .drain()
            .map(|effect| match effect {
                Effect::SetTimer(Time(at)) => at,
                other => panic!("not {other:?}"),
            })
            .collect();
        assert!(times.len() <= 1);
        times.first().copied()
    }

    #[test]
    fn the_shell_is_asked_only_for_what_is_earlier() {
        let mut alarms = Alarms::new();
        assert_eq!(asked(&mut alarms, 0), None);
        alarms.set(Time(50), 1);
        assert_eq!(asked(&mut alarms, 0), Some(50));
        alarms.set(Time(70), 2);
        assert_eq!(asked(&mut alarms, 0), None);
        alarms.set(Time(20), 3);
        assert_eq!(asked(&mut alarms, 0), Some(20));
        // A timer that comes for nothing is cheaper than asking anew each time.
        alarms.cancel(Time(20), 3);
        assert_eq!(asked(&mut alarms, 0), None);
        alarms.rang();
        assert_eq!(alarms.due(Time(20)), None);
        assert_eq!(asked(&mut alarms, 20), Some(50));
        alarms.rang();
        assert_eq!(alarms.due(Time(60)), Some(1));
        assert_eq!(alarms.due(Time(60)), None);
    }

    #[test]
    fn what_is_left_over_waits_a_little() {
        let mut alarms = Alarms::new();
        alarms.set(Time(1), 1);
        alarms.set(Time(2), 2);
        alarms.rang();
        assert_eq!(alarms.due(Time(5)), Some(1));
        assert_eq!(asked(&mut alarms, 5), Some(Time(5).after(PAUSE).0));
    }
}
