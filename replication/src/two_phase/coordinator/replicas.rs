//! Changing which replicas the cluster has, while it serves.
//!
//! ```text
//!  client                coordinator                        members            n4
//!    │ ── add n4 ───────────►│                                 │                ·
//!    │                       │ ▓ View 2: n4 belongs to it      │                ·
//!    │ ◄─ done ──────────────│ ── announce view 2, ask 1 ─────►│                ·
//!    │                       │ ◄─ renew, knows view 2 ─────────│                ·
//!    │                       │ ▓ View 2: founded               │                │ starts, outside
//!    │                       │ ── excluded by view 2 ──────────────────────────►│
//!    │                       │     from here on it is a replica that was left out and is back
//! ```
//!
//! Who is removed is left out first, as if it were silent: writes go on, and its lease runs out. Then a
//! view says that it is no replica. Its number is nobody's from then on, so what it says later, from a
//! disk that nobody expects any more, is never taken for somebody else's.
//!
//! **Why reads stay fresh.** How many others a replica without a lease has to ask depends on how many
//! there are. All members know the view before one changes how many there are, and know that one
//! before anybody is left out again. So whoever is left out counted with the replicas that there were
//! then, and meets one that knows. Who is outside hears of the newest view before it is let in.

use alloc::format;
use alloc::string::String;

use super::{Coordinator, Out, reply_failed};
use crate::contract::{Effect, NodeId, RequestId, Time};
use crate::request::{Failure, Outcome, ReplicaChange};
use crate::two_phase::names::names;
use crate::two_phase::planted::Bug;

/// A change that is under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) request: RequestId,
    pub(super) deadline: Time,
    pub(super) change: ReplicaChange,
}

/// Who types a digit too many must not use up all the numbers that there are.
const NUMBERS_SKIPPED_MAX: u32 = 1_000;

impl Coordinator {
    pub(super) fn change_replicas(&mut self, now: Time, asked: Asked, effects: &mut Out) {
        let Asked { request, change, .. } = asked;
        match self.check_change(change) {
            Ok(()) if self.views.are_so(change) => {
                effects.push_unheld(Effect::Reply { request, outcome: Outcome::Committed });
            }
            Ok(()) => {
                let are_kept = self.views.are_kept();
                self.change = Some(asked);
                self.views.want(Some(change));
                match are_kept {
                    true => self.change_view(now, effects),
                    false => self.begin_to_look(now, effects),
                }
            }
            Err(failure) => reply_failed(request, failure, effects),
        }
    }

    fn check_change(&mut self, change: ReplicaChange) -> Result<(), Failure> {
        if self.change.is_some() {
            let reason = String::from("another change of the replicas is under way");
            return Err(Failure::Unavailable { reason });
        }
        self.check_room()?;
        let wrong = match (change, self.views.are_so(change)) {
            (ReplicaChange::Add(_), true) => None,
            (ReplicaChange::Add(replica), false) => self.why_not_add(replica),
            (ReplicaChange::Remove(replica), true) => (!self.views.was_replica(replica))
                .then(|| format!("{replica} is no replica of this cluster")),
            (ReplicaChange::Remove(replica), false) => self.why_not_remove(replica),
        };
        wrong.map_or(Ok(()), |reason| Err(Failure::Invalid { reason }))
    }

    fn why_not_add(&self, replica: NodeId) -> Option<String> {
        let highest = self.views.current().highest;
        if replica <= highest && !self.options.planted.has(Bug::UseNumbersTwice) {
            return Some(format!(
                "numbers are not used twice, and there was a replica {highest}: take a greater one"
            ));
        }
        if replica.0.saturating_sub(highest.0) > NUMBERS_SKIPPED_MAX {
            return Some(format!(
                "{replica} is far above {highest}, the greatest number so far, and no smaller one could \
                 be used after it: take n{}",
                highest.0 + 1
            ));
        }
        match self.views.count() {
            1 => Some(String::from(
                "the only replica decides alone, which can't be changed while it serves",
            )),
            count if count >= self.options.replicas_max => {
                Some(format!("{count} replicas are as many as there may be"))
            }
            _ => None,
        }
    }

    fn why_not_remove(&self, replica: NodeId) -> Option<String> {
        if self.views.count() <= 2 {
            return Some(String::from(
                "two replicas have to remain: one would decide alone, which can't be changed while \
                 it serves",
            ));
        }
        let (least, others) = self.views.too_few_without(replica)?;
        Some(format!(
            "{least} replicas have to remain that take part, and without {replica} {others} would"
        ))
    }

    /// The change is in the log, if that is what has become durable.
    pub(super) fn answer_change(&mut self, effects: &mut Out) {
        if let Some(Asked { request, change, .. }) = self.change
            && self.views.are_so(change)
        {
            self.change = None;
            self.views.want(None);
            self.counters.replicas_changed += 1;
            effects.push_unheld(Effect::Reply { request, outcome: Outcome::Committed });
        }
    }

    /// Nobody waits any more. What is in the log already is waited for all the same.
    pub(super) fn give_up_change(&mut self, now: Time, effects: &mut Out) {
        let Some(Asked { request, deadline, change }) = self.change else { return };
        if now < deadline || self.views.is_changing() {
            return;
        }
        self.change = None;
        self.views.want(None);
        let reason = match change {
            ReplicaChange::Remove(replica) if self.views.is_member(replica) => {
                format!("too few others are there to go on without {replica}")
            }
            ReplicaChange::Add(_) | ReplicaChange::Remove(_) => self.who_is_unaware(now),
        };
        reply_failed(request, Failure::Unavailable { reason }, effects);
    }

    fn who_is_unaware(&self, now: Time) -> String {
        let mut unaware = self.views.to_tell();
        unaware.retain(|replica| self.views.is_member(*replica));
        let away = self.views.away(now);
        match (unaware.is_empty(), away.is_empty()) {
            (false, _) => {
                format!("not all replicas say which view they know: {}", names(&unaware))
            }
            (true, false) => {
                format!("a replica may be down, and is not left out: {}", names(&away))
            }
            (true, true) => String::from(
                "the coordinator does not know yet what was committed before it started",
            ),
        }
    }
}
