//! Alarms of transactions. Nearly every one is cancelled before it is due, a moment after it was set,
//! so they are kept in no order: the first is looked for when a timer has to be asked for, or has come.

use alloc::vec::Vec;

use super::message::TxnId;
use super::table::TxnTable;
use crate::alarms::Alarms;
use crate::contract::{Effects, Time};

/// An alarm that may be a transaction's. Those are the least in the order of the others.
pub(super) trait TxnAlarm: Copy + Ord {
    /// The alarm of a transaction.
    fn of(txn: TxnId) -> Self;

    /// Whose it is, if a transaction's.
    fn txn(self) -> Option<TxnId>;
}

/// Alarms by time, of a transaction one at most.
#[derive(Clone, Debug)]
pub(super) struct TxnAlarms<A> {
    by_txn: TxnTable<Time>,
    /// None of them is earlier, but for those that are due.
    soonest: Time,
    /// Those that were due when a timer came, the first one last. What was cancelled since is still
    /// among them.
    due: Vec<(Time, TxnId)>,
    others: Alarms<A>,
}

impl<A: TxnAlarm> TxnAlarms<A> {
    pub(super) fn new() -> Self {
        Self {
            by_txn: TxnTable::default(),
            soonest: Time::NEVER,
            due: Vec::new(),
            others: Alarms::new(),
        }
    }

    pub(super) fn set(&mut self, at: Time, alarm: A) {
        let Some(txn) = alarm.txn() else { return self.others.set(at, alarm) };
        let before = self.by_txn.insert(txn, at);
        assert!(before.is_none(), "a transaction has one alarm at a time");
        self.soonest = self.soonest.min(at);
    }

    pub(super) fn cancel(&mut self, at: Time, alarm: A) {
        match alarm.txn() {
            Some(txn) => {
                self.by_txn.remove(&txn);
            }
            None => self.others.cancel(at, alarm),
        }
    }

    /// The timer has come.
    pub(super) fn rang(&mut self) {
        self.others.rang();
    }

    /// Takes the next alarm that is due.
    pub(super) fn due(&mut self, now: Time) -> Option<A> {
        self.drop_cancelled();
        if self.due.is_empty() && self.soonest <= now {
            self.look_for_due(now);
        }
        match self.due.last() {
            Some((at, txn)) if *at <= self.others.first() => {
                let txn = *txn;
                self.due.pop();
                self.by_txn.remove(&txn);
                Some(A::of(txn))
            }
            _ => self.others.due(now),
        }
    }

    /// Asks the shell for a timer if the one it keeps is too late.
    #[inline]
    pub(super) fn ask<M, P, R>(&mut self, now: Time, effects: &mut Effects<M, P, R>) {
        let first = self.others.first().min(self.soonest);
        if first < self.others.asked() || !self.due.is_empty() {
            self.ask_for_first(now, effects);
        }
    }

    fn ask_for_first<M, P, R>(&mut self, now: Time, effects: &mut Effects<M, P, R>) {
        self.drop_cancelled();
        let mut first = self.others.first();
        if let Some((at, _)) = self.due.last() {
            first = first.min(*at);
        }
        if first.min(self.soonest) >= self.others.asked() {
            return;
        }
        if self.soonest < first {
            self.soonest = self.by_txn.values().copied().min().unwrap_or(Time::NEVER);
            first = first.min(self.soonest);
        }
        self.others.ask_for(first, now, effects);
    }

    fn drop_cancelled(&mut self) {
        while let Some((at, txn)) = self.due.last()
            && self.by_txn.get(txn) != Some(at)
        {
            self.due.pop();
        }
    }

    fn look_for_due(&mut self, now: Time) {
        self.soonest = Time::NEVER;
        for (txn, at) in self.by_txn.iter() {
            if *at <= now {
                self.due.push((*at, txn));
            } else {
                self.soonest = self.soonest.min(*at);
            }
        }
        self.due.sort_unstable_by(|one, other| other.cmp(one));
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;
    use crate::contract::{Effect, NodeId};
    use crate::random::Random;

    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Alarm {
        Txn(TxnId),
        Other(u64),
    }

    impl TxnAlarm for Alarm {
        fn of(txn: TxnId) -> Self {
            Self::Txn(txn)
        }

        fn txn(self) -> Option<TxnId> {
            match self {
                Self::Txn(txn) => Some(txn),
                Self::Other(_) => None,
            }
        }
    }

    fn some(random: &mut Random) -> Alarm {
        match random.below(6) {
            0 => Alarm::Other(random.below(4)),
            _ => Alarm::Txn(TxnId {
                coordinator: NodeId::COORDINATOR,
                epoch: 1,
                number: random.below(50),
            }),
        }
    }

    fn timers(effects: &mut Effects<(), (), ()>) -> Vec<Effect<(), (), ()>> {
        effects.drain().collect()
    }

    /// The ones that are kept in order say what has to come out.
    #[test]
    fn they_come_as_if_kept_in_order() {
        let mut rings = 0;
        for seed in 0..60 {
            let random = &mut Random::new(seed);
            let (mut alarms, mut model) = (TxnAlarms::new(), Alarms::new());
            let mut set: BTreeMap<Alarm, Time> = BTreeMap::new();
            let (mut now, mut timer) = (Time(0), Time::NEVER);
            let mut effects = Effects::new();
            for _ in 0..600 {
                let alarm = some(random);
                if let Some(at) = set.remove(&alarm) {
                    alarms.cancel(at, alarm);
                    model.cancel(at, alarm);
                } else if random.below(3) > 0 {
                    let at = Time(now.0 + 1 + random.below(20));
                    alarms.set(at, alarm);
                    model.set(at, alarm);
                    set.insert(alarm, at);
                }
                if random.below(4) == 0 {
                    now = Time(now.0 + random.below(6));
                }
                if timer <= now {
                    (rings, timer) = (rings + 1, Time::NEVER);
                    alarms.rang();
                    model.rang();
                    for _ in 0..random.below(6) {
                        let due = alarms.due(now);
                        assert_eq!(due, model.due(now));
                        let Some(alarm) = due else { break };
                        set.remove(&alarm);
                    }
                }
                alarms.ask(now, &mut effects);
                let asked = timers(&mut effects);
                model.ask(now, &mut effects);
                assert_eq!(asked, timers(&mut effects));
                if let Some(Effect::SetTimer(at)) = asked.first() {
                    // The pause after alarms that are left is far longer than these steps.
                    timer = (*at).min(Time(now.0 + 30));
                }
            }
        }
        assert!(rings > 500, "{rings} timers");
    }
}
