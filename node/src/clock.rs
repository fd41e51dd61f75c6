//! A clock that may jump, made into one that does not fall.
//!
//! Cores count on a time that never goes back. Operating systems promise such a clock, and machines
//! have broken that promise: firmware, hypervisors, restored snapshots. When the driver's clock
//! falls, the core's time stands still for that moment and then goes on at the same pace, so that no
//! deadline moves away by the length of the fall. A jump forward is believed: it may have been a
//! long stop, and then deadlines have passed.

use kvorum_replication::Time;

/// Translates between the driver's time and the core's.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock {
    /// The core's time is ahead of the driver's by as much as all falls together.
    fallen: u64,
    /// The greatest time the core has seen.
    last: u64,
}

impl Clock {
    /// The core's time when the driver's clock shows `now`.
    pub(crate) fn read(&mut self, now: Time) -> Time {
        let time = self.inner(now);
        self.fallen = self.fallen.saturating_add(self.last.saturating_sub(time.0));
        self.last = self.last.max(time.0);
        Time(self.last)
    }

    /// The same without taking note of it.
    pub(crate) fn peek(&self, now: Time) -> Time {
        Time(self.inner(now).0.max(self.last))
    }

    /// A time of the driver's, past or to come, as the core counts.
    pub(crate) fn inner(&self, time: Time) -> Time {
        match time {
            Time::NEVER => Time::NEVER,
            Time(time) => Time(time.saturating_add(self.fallen)),
        }
    }

    /// A time of the core's as the driver counts.
    pub(crate) fn outer(&self, time: Time) -> Time {
        match time {
            Time::NEVER => Time::NEVER,
            Time(time) => Time(time.saturating_sub(self.fallen)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_never_falls_and_goes_on_at_its_pace() {
        let mut clock = Clock::default();
        let shown = [5, 9, 9, 2, 4, 100, 0, 1, 3];
        let read: Vec<u64> = shown.iter().map(|&now| clock.read(Time(now)).0).collect();
        assert_eq!(read, [5, 9, 9, 9, 11, 107, 107, 108, 110]);
        assert_eq!(clock.peek(Time(4)), Time(111));
        assert_eq!(clock.peek(Time(0)), Time(110), "not even when it is only looked at");
    }

    #[test]
    fn deadlines_stay_as_far_away_as_they_were() {
        let mut clock = Clock::default();
        clock.read(Time(1_000));
        let timer = Time(1_500);
        assert_eq!(clock.outer(timer), Time(1_500));
        clock.read(Time(200));
        assert_eq!(clock.outer(timer), Time(700), "five hundred from now, as before");
        assert_eq!(clock.inner(Time(700)), timer);
        assert_eq!(clock.inner(Time::NEVER), Time::NEVER);
        assert_eq!(clock.outer(Time::NEVER), Time::NEVER);
    }
}
