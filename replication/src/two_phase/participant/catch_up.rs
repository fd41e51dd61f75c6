//! A gap in the commits: what is missing is asked of another replica, one at a time, an answer at a
//! time.
//!
//! ```text
//!  taker                                      donor
//!    │ hears of #9, has applied up to #5        │
//!    │ ── fetch from #6 ───────────────────────►│
//!    │ ◄─ #6, #7, what they wrote; has #8 ──────│ from memory
//!    │ applies them                             │
//!    │ ░ Learned #6, #7           (unforced)    │
//!    │ ── acknowledge ──► coordinator           │
//!    │ ── fetch from #8 ───────────────────────►│
//! ```
//!
//! What is prepared here needs no second record of its writes: the answer says that it is committed,
//! as the coordinator would. Who lags further than the memory of the others reaches takes over a
//! snapshot: [`super::take_over`].

use alloc::vec::Vec;
use core::time::Duration;

use super::state::{Early, Stage, Told};
use super::{Alarm, Out, Participant};
use crate::contract::{Effect, NodeId, Time};
use crate::transfer::Incoming;
use crate::two_phase::message::{Commit, CommitNumber, Message, TxnId};
use crate::two_phase::planted::Bug;
use crate::two_phase::record::Replicated;

/// What a replica knows of what it misses.
#[derive(Clone, Debug, Default)]
pub(super) struct CatchUp {
    /// There are commits up to here, as somebody said who knows.
    announced: CommitNumber,
    /// When somebody is asked, or somebody else.
    alarm: Option<Time>,
    /// Whose answer is awaited.
    asked: Option<NodeId>,
    /// Who was asked last: the others take turns.
    last_asked: Option<NodeId>,
    /// How often in a row nothing came of it.
    fruitless: u32,
    /// What is applied may have other numbers than at the others, so their rows are needed.
    anew: bool,
    /// It has taken the rows of another. Told to do so once more it waits a moment: that one may not
    /// have heard of the newest coordinator either.
    has_begun_anew: bool,
    /// Since another replica's rows took the place of all that was here, no number here is from before
    /// this epoch.
    numbers_since: u64,
    /// A snapshot on its way.
    pub(super) incoming: Option<Incoming<Replicated>>,
}

/// An answer of a donor, as the message has it.
pub(super) struct Commits {
    pub(super) commits: Vec<Commit>,
    pub(super) applied: CommitNumber,
    pub(super) finished_below: TxnId,
    pub(super) epoch: u64,
}

impl Participant {
    /// Somebody who knows says that there are commits up to here.
    pub(super) fn hear_of(&mut self, number: CommitNumber) {
        self.catch_up.announced = self.catch_up.announced.max(number);
    }

    /// The coordinator says that this replica misses commits.
    pub(super) fn told_to_catch_up(
        &mut self,
        now: Time,
        from: NodeId,
        (to, anew): (CommitNumber, bool),
        effects: &mut Out,
    ) {
        if from != NodeId::COORDINATOR {
            self.counters.strange_dropped += 1;
            return;
        }
        self.hear_of(to);
        self.catch_up.anew = anew && self.is_outside();
        if !self.catch_up.anew || !self.catch_up.has_begun_anew {
            self.ask_for_what_is_missing(now, effects);
        }
    }

    /// Asks at once, if nobody is asked.
    pub(super) fn ask_for_what_is_missing(&mut self, now: Time, effects: &mut Out) {
        if self.misses_some() && self.catch_up.asked.is_none() && !self.is_busy() {
            self.ask_next(now, effects);
        }
    }

    /// The newest commit that there is, as far as is known here.
    fn newest(&self) -> CommitNumber {
        let early = self.early.last_key_value().map_or(CommitNumber::ZERO, |(number, _)| *number);
        self.catch_up.announced.max(early)
    }

    pub(super) fn misses_some(&self) -> bool {
        self.applied < self.newest() || self.catch_up.anew
    }

    pub(super) fn is_to_begin_anew(&self) -> bool {
        self.catch_up.anew
    }

    pub(super) fn forget_to_begin_anew(&mut self) {
        self.catch_up.anew = false;
    }

    /// The rows are those of a replica that knew the numbers of this epoch.
    pub(super) fn begun_anew(&mut self, epoch: u64) {
        if core::mem::take(&mut self.catch_up.anew) {
            self.catch_up.has_begun_anew = true;
            self.promised = self.promised.max(epoch);
        }
    }

    /// Another replica's rows stand for all that was here, and none is taken whose numbers may be from
    /// before what was promised by then.
    pub(super) fn has_numbers_since(&mut self, promised: u64) {
        self.catch_up.numbers_since = promised;
    }

    /// Since when all numbers here are known to be right. To have promised an epoch is not enough: the
    /// coordinator may not have heard the answer, and have given the numbers to others.
    pub(super) fn numbers_since(&self) -> u64 {
        self.catch_up.numbers_since
    }

    /// Rows are on their way, or are being put in place.
    fn is_busy(&self) -> bool {
        self.catch_up.incoming.is_some() || self.is_installing()
    }

    /// At the end of each step: a gap that lasts is asked about, one that has closed is not.
    pub(super) fn look_for_gap(&mut self, now: Time) {
        if self.misses_some() {
            if self.catch_up.alarm.is_none() && !self.is_installing() && self.serving {
                self.wait_until(now.after(self.options.catch_up_after));
            }
        } else if self.catch_up.alarm.is_some() && !self.is_busy() {
            self.stop_waiting_for_commits();
            self.catch_up.fruitless = 0;
        }
    }

    pub(super) fn wait_until(&mut self, at: Time) {
        if let Some(alarm) = self.catch_up.alarm.replace(at) {
            self.alarms.cancel(alarm, Alarm::CatchUp);
        }
        self.alarms.set(at, Alarm::CatchUp);
    }

    /// Whoever was asked has answered, or answers too late.
    pub(super) fn nobody_is_asked(&mut self) {
        self.catch_up.asked = None;
    }

    pub(super) fn stop_waiting_for_commits(&mut self) {
        self.catch_up.asked = None;
        if let Some(alarm) = self.catch_up.alarm.take() {
            self.alarms.cancel(alarm, Alarm::CatchUp);
        }
    }

    pub(super) fn catch_up_alarm(&mut self, now: Time, effects: &mut Out) {
        self.catch_up.alarm = None;
        if self.catch_up.incoming.is_some() {
            self.fetch_piece_again(now, effects);
        } else if self.misses_some() && !self.is_installing() {
            self.ask_next(now, effects);
        }
    }

    /// Asks the replica whose turn it is. Each time that nothing comes of it the next one is asked
    /// later: a number that somebody made up is not asked for ten times a second for ever.
    pub(super) fn ask_next(&mut self, now: Time, effects: &mut Out) {
        let (first, max) = (self.options.catch_up_interval, self.options.catch_up_interval_max);
        let tries = self.catch_up.fruitless;
        let donors = u32::try_from(self.donors().count()).unwrap_or(u32::MAX).max(1);
        let wait = doubled(first, max, tries / donors);
        self.catch_up.fruitless = tries.saturating_add(1);
        self.catch_up.asked = None;
        self.wait_until(now.after(wait));
        let last = self.catch_up.last_asked;
        let next = self.donors().find(|donor| Some(*donor) > last).or(self.donors().next());
        if let Some(to) = next {
            self.ask(now, to, effects);
        }
    }

    fn donors(&self) -> impl Iterator<Item = NodeId> {
        self.peers_up.iter().copied().filter(|peer| *peer != NodeId::COORDINATOR)
    }

    fn ask(&mut self, now: Time, to: NodeId, effects: &mut Out) {
        self.catch_up.asked = Some(to);
        self.catch_up.last_asked = Some(to);
        self.counters.catch_ups_sent += 1;
        if self.catch_up.anew {
            self.catch_up.incoming = Some(Incoming::new(to));
            return self.fetch_piece(now, effects);
        }
        let message = Message::FetchCommits { from: self.applied.next() };
        effects.push_unheld(Effect::Send { to, message });
    }

    /// The answer: some commits, or none.
    pub(super) fn commits_came(
        &mut self,
        now: Time,
        from: NodeId,
        piece: Commits,
        effects: &mut Out,
    ) {
        let Commits { commits, applied, finished_below, epoch } = piece;
        let is_answer = self.catch_up.asked == Some(from) && !self.is_busy();
        if !is_answer || !self.is_sound(&commits, finished_below) || self.alone > 0 {
            self.counters.duplicates_dropped += 1;
            return;
        }
        if !self.has_room && !commits.is_empty() {
            // The alarm asks again.
            self.counters.disk_full += 1;
            return;
        }
        self.catch_up.asked = None;
        let before = self.applied;
        self.remember_below(finished_below);
        for commit in commits {
            self.learn_of(commit, epoch, effects);
        }
        if self.is_outside() {
            // Nobody else tells it.
            self.hear_of(applied);
        }
        self.apply_in_order(effects);
        // All that is over at the donor was applied there, and so is applied here.
        if self.applied >= applied {
            self.abort_what_is_over(effects);
        }
        if self.applied > before {
            self.catch_up.fruitless = 0;
            if self.misses_some() {
                self.wait_until(now.after(self.options.catch_up_interval));
                self.ask(now, from, effects);
            }
            self.has_caught_up(now, effects);
        }
    }

    /// What a replica of ours would say.
    fn is_sound(&self, commits: &[Commit], finished_below: TxnId) -> bool {
        let has_gap = |pair: &[Commit]| pair[0].number.next() != pair[1].number;
        let is_behind = |first: &Commit| first.number > self.applied.next();
        let ours = |txn: TxnId| txn.coordinator == NodeId::COORDINATOR;
        let skips = self.options.planted.has(Bug::CatchUpOverGap);
        (skips || !commits.first().is_some_and(is_behind))
            && !commits.windows(2).any(has_gap)
            && commits.iter().all(|commit| ours(commit.txn))
            && ours(finished_below)
    }

    /// A commit that another replica has applied.
    fn learn_of(&mut self, commit: Commit, epoch: u64, effects: &mut Out) {
        let number = commit.number;
        if self.options.planted.has(Bug::LearnTwice) && number <= self.applied {
            self.early.insert(number, Early::Learned { commit, epoch });
            return;
        }
        // The newest coordinator may give the number to another. The donor will know which.
        if commit.pledge.is_some() && self.is_of_before(epoch) {
            self.counters.outdated_dropped += 1;
            return;
        }
        if self.options.planted.has(Bug::CatchUpOverGap) && number > self.applied.next() {
            self.applied = CommitNumber(number.0 - 1);
        }
        if number <= self.applied || self.early.contains_key(&number) {
            return;
        }
        let txn = commit.txn;
        match self.transactions.get_mut(&txn).map(|promised| &mut promised.stage) {
            Some(Stage::Prepared { commit: known, alarm, .. }) => {
                *known = Some(Told { number, epoch });
                if let Some(alarm) = alarm.take() {
                    self.alarms.cancel(alarm, Alarm::Inquire(txn));
                }
                self.early.insert(number, Early::Prepared(txn));
            }
            // The others did not wait for this one. Its vote will not be missed.
            Some(Stage::Checking { .. } | Stage::Logging) => {
                let mut promised = self.forget(txn);
                self.wake_reads(txn, &mut promised.stage, effects);
                self.early.insert(number, Early::Learned { commit, epoch });
            }
            Some(Stage::Alone(_)) => unreachable!("what is committed alone was waited for"),
            None => {
                self.counters.learned += 1;
                self.early.insert(number, Early::Learned { commit, epoch });
            }
        }
    }

    /// The donor's memory begins later: its rows are needed.
    pub(super) fn truncated(
        &mut self,
        now: Time,
        from: NodeId,
        first: CommitNumber,
        effects: &mut Out,
    ) {
        let is_answer = self.catch_up.asked == Some(from);
        if !is_answer || first <= self.applied.next() || self.is_busy() || self.alone > 0 {
            self.counters.duplicates_dropped += 1;
            return;
        }
        self.catch_up.incoming = Some(Incoming::new(from));
        self.fetch_piece(now, effects);
    }

    /// Another replica serves this one no more.
    pub(super) fn lose_donor(&mut self, now: Time, peer: NodeId, effects: &mut Out) {
        if self.catch_up.incoming.as_ref().is_some_and(|incoming| incoming.from == peer) {
            self.give_up_snapshot(now, effects);
        } else if self.catch_up.asked == Some(peer) {
            self.ask_next(now, effects);
        }
    }
}

/// Twice the wait for each time, up to the greatest.
fn doubled(first: Duration, max: Duration, times: u32) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(times)).min(max).max(first.min(max))
}
