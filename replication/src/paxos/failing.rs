//! Roles that fail on purpose, and come back, at random: to show that the others go on, and what an
//! acceptor may know when it comes back.
//!
//! A role that is down hears nothing. What it had sent to the log before is durable or will be, as
//! after a crash; with [`AcceptorRestart::Durable`] it comes back with all of that.

use core::time::Duration;

use super::options::AcceptorRestart;
use super::record::Record;
use super::{Alarm, Out, Replica};
use crate::contract::{Effect, Time, Urgency};
use crate::paxos::Resume;

/// The roles of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PaxosRole {
    /// It campaigns and leads.
    Proposer,
    /// It promises and votes.
    Acceptor,
    /// It learns and applies.
    Learner,
}

/// Which roles are up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Roles {
    proposer_is_down: bool,
    acceptor_is_down: bool,
    learner_is_down: bool,
}

impl Roles {
    pub(super) fn proposer_is_up(self) -> bool {
        // A proposer that learns nothing could serve nobody.
        !self.proposer_is_down && !self.learner_is_down
    }

    pub(super) fn acceptor_is_up(self) -> bool {
        !self.acceptor_is_down
    }

    pub(super) fn learner_is_up(self) -> bool {
        !self.learner_is_down
    }

    fn flag(&mut self, role: PaxosRole) -> &mut bool {
        match role {
            PaxosRole::Proposer => &mut self.proposer_is_down,
            PaxosRole::Acceptor => &mut self.acceptor_is_down,
            PaxosRole::Learner => &mut self.learner_is_down,
        }
    }
}

impl Replica {
    pub(super) fn arm_failures(&mut self, now: Time) {
        for role in [PaxosRole::Proposer, PaxosRole::Acceptor, PaxosRole::Learner] {
            self.arm_failure(now, role);
        }
    }

    fn arm_failure(&mut self, now: Time, role: PaxosRole) {
        let mean = match role {
            PaxosRole::Acceptor => self.options.fail_acceptors.or(self.options.fail_roles),
            PaxosRole::Proposer | PaxosRole::Learner => self.options.fail_roles,
        };
        let Some(mean) = mean else { return };
        let nanos = u64::try_from(mean.as_nanos()).unwrap_or(u64::MAX).saturating_mul(2).max(1);
        // Down for a quarter as long as up, in the mean.
        let is_down = *self.roles.flag(role);
        let wait = self.random.below(if is_down { nanos / 4 + 1 } else { nanos });
        self.alarms.set(now.after(Duration::from_nanos(wait)), Alarm::Role(role));
    }

    pub(super) fn role_alarm(&mut self, now: Time, role: PaxosRole, effects: &mut Out) {
        match *self.roles.flag(role) {
            true => self.bring_back(now, role, effects),
            false => self.fail(now, role, effects),
        }
        self.arm_failure(now, role);
    }

    /// Stops a role. For tests that choose the moment; [`ReplicaOptions::fail_roles`] leaves it to
    /// chance.
    ///
    /// [`ReplicaOptions::fail_roles`]: super::ReplicaOptions::fail_roles
    pub fn fail(&mut self, now: Time, role: PaxosRole, effects: &mut Out) {
        *self.roles.flag(role) = true;
        self.counters.roles_failed += 1;
        if !self.roles.proposer_is_up() {
            self.step_down(now, effects);
        }
    }

    /// Whether a role is up.
    #[must_use]
    pub fn is_up(&self, role: PaxosRole) -> bool {
        let mut roles = self.roles;
        !*roles.flag(role)
    }

    /// Starts a role again.
    pub fn bring_back(&mut self, now: Time, role: PaxosRole, effects: &mut Out) {
        if !core::mem::take(self.roles.flag(role)) {
            return;
        }
        self.counters.roles_returned += 1;
        match role {
            PaxosRole::Acceptor => self.acceptor_returns(now, effects),
            PaxosRole::Learner => {
                self.apply_what_is_chosen(now, effects);
                self.catch_up(now, None, effects);
            }
            PaxosRole::Proposer => {}
        }
    }

    fn acceptor_returns(&mut self, now: Time, effects: &mut Out) {
        match self.options.acceptor_restart {
            AcceptorRestart::Durable => return self.vote_for_own(effects),
            AcceptorRestart::Rejoin => self.life += 1,
            AcceptorRestart::Amnesia => {}
        }
        // A proposer beside it would count votes that are forgotten.
        self.step_down(now, effects);
        self.counters.acceptors_forgot += 1;
        self.acceptor.forget();
        self.persist(Record::Forgot { life: self.life }, Urgency::Now, effects);
        // What is known by votes alone is still to be applied, and recovery must find it.
        self.log_known(self.learner.applied, effects);
        effects.push(Effect::Resume(Resume::Forgot));
        self.has_forgotten = false;
    }
}
