//! The plan's faults, when their time comes.

use kvorum_replication::NodeId;

use super::{Event, World};
use crate::chance::Chance;
use crate::disk::Crash;
use crate::faults::Fault;
use crate::machine::{AtPoint, DoomedWork, Trap};
use crate::network::Pair;
use crate::plan::Strike;
use crate::process::Protocol;
use crate::queue::{MILLISECOND, SECOND};
use crate::world::ending::Phase;

/// Disk operations, passings of a fail point, or words before a planned death, at most.
const AHEAD_MAX: u64 = 12;

impl<P: Protocol> World<P> {
    #[expect(clippy::too_many_lines, reason = "one arm for each kind of fault")]
    pub(super) fn strike(&mut self, strike: Strike) {
        if self.phase != Phase::Faults {
            return;
        }
        let strike = self.aimed(strike);
        let Strike { index, fault, node, other, lasts, number, .. } = strike;
        let now = self.queue.now();
        self.say("plan", || {
            format!("fault {index}: {} on {node}, {} us", fault.name(), lasts / 1_000)
        });
        let ahead = number % AHEAD_MAX;
        let crash = drawn_crash(number);
        match fault {
            Fault::Kill => self.die(node, Crash::Kill, lasts),
            Fault::PowerLoss => self.die(node, Crash::PowerLoss, lasts),
            Fault::TornWrites => self.die(node, Crash::Torn { seed: number }, lasts),
            Fault::PowerLossAll => self.cut_power_everywhere(),
            Fault::DiedAtPoint | Fault::DiedOverSnapshot => {
                self.set_trap(&strike, AtPoint::Die(crash));
            }
            Fault::PausedAtPoint => self.set_trap(&strike, AtPoint::Pause),
            Fault::IsolatedAtPoint => self.set_trap(&strike, AtPoint::Isolate),
            Fault::DiedWriting => {
                let (names, after) =
                    if number >> 40 & 1 == 0 { (0, ahead) } else { (1 + ahead, number >> 41 & 3) };
                self.machine(node).disk.doom_after_names(names, after, crash);
            }
            Fault::DiedSpeaking => self.machine(node).words_left = Some((ahead, lasts)),
            Fault::DiedMaintaining => {
                // The one that decides has nothing to flush.
                let node = if Some(node) == self.protocol.writer() { other } else { node };
                let after = (number >> 40 & 1 == 0).then_some((number >> 41) % AHEAD_MAX);
                self.machine(node).doomed_work = Some(DoomedWork { crash, after, lasts });
            }
            Fault::DiedRecovering => {
                self.machine(node).doomed_start = Some((ahead / 2, crash));
                self.die(node, crash, lasts);
            }
            Fault::Pause => {
                if self.pause(node, lasts) {
                    self.counts.count(fault);
                }
            }
            Fault::LinkReset => {
                let pair = Pair::of(node, other);
                if self.network.is_up(pair) {
                    self.counts.count(fault);
                    let link = self.network.incarnation(pair);
                    self.break_link(pair, link);
                }
            }
            Fault::Partition => self.partition(&strike),
            Fault::OneWayPartition => {
                self.counts.count(fault);
                self.cut_way(node, other, lasts);
            }
            Fault::FlappingLink => self.flap(&strike),
            Fault::SlowLink => {
                let most = MILLISECOND << (number % 8);
                self.network.slow_down(Pair::of(node, other), now + lasts, most);
            }
            Fault::RestartStorm => self.storm(&strike),
            Fault::ClockForward | Fault::ClockBack => self.jump_clock(&strike),
            Fault::SegmentRot | Fault::LogRot | Fault::ManifestRot => self.rot(&strike),
            Fault::ReadFailed => {
                self.machine(node).disk.arm(fault, ahead / 4, 0, number.is_multiple_of(2));
                // Most reading is done at a start.
                if number >> 20 & 1 == 0 {
                    self.die(node, Crash::Kill, lasts);
                }
            }
            Fault::WriteFailed | Fault::WriteShort | Fault::SyncFailed | Fault::SyncFull => {
                let bytes = usize::try_from(number % 600).unwrap_or(0);
                self.machine(node).disk.arm(fault, ahead / 2, bytes, number.is_multiple_of(3));
            }
            Fault::DiskFull => {
                self.machine(node).disk.fill();
                self.queue.after(lasts, Event::Relief(strike));
            }
            Fault::SlowDisk => self.machine(node).slow_until = now + lasts,
            Fault::LeaderKilled
            | Fault::LeaderIsolated
            | Fault::LeaderHalfIsolated
            | Fault::LongAbsence
            | Fault::LongPause
            | Fault::CutFromCoordinator
            | Fault::DiskLost
            | Fault::MembersChanged => self.strike_cluster(&strike),
            Fault::MessageLost
            | Fault::MessageRepeated
            | Fault::MessageReordered
            | Fault::MessageDelayed
            | Fault::MessageCut
            | Fault::BreakUnnoticed
            | Fault::ClockSkew
            | Fault::RequestLost
            | Fault::RoleStopped
            | Fault::AcceptorForgot
            | Fault::RequestRepeated => unreachable!("{fault:?} has no time of its own"),
        }
    }

    /// The same strike, on the node that it is meant for.
    fn aimed(&self, strike: Strike) -> Strike {
        match self.protocol.leader() {
            Some(leader) if strike.at_leader && leader != strike.node => {
                let other = if strike.other == leader { strike.node } else { strike.other };
                Strike { node: leader, other, ..strike }
            }
            Some(_) | None => strike,
        }
    }

    /// The end of a fault that lasts.
    pub(super) fn relieve(&mut self, strike: Strike) {
        match strike.fault {
            Fault::DiskFull => {
                let machine = self.machines.get_mut(&strike.node).expect("only members are named");
                machine.struck |= machine.disk.settle(&mut self.counts);
                machine.disk.heal(&mut self.counts);
            }
            Fault::SegmentRot | Fault::LogRot | Fault::ManifestRot => self.repair(strike.node),
            other => unreachable!("{other:?} does not end by itself"),
        }
    }

    /// Breaks a link, and again when it may just have been made.
    fn flap(&mut self, strike: &Strike) {
        let pair = Pair::of(strike.node, strike.other);
        if self.network.is_up(pair) {
            self.counts.count(Fault::FlappingLink);
            let link = self.network.incarnation(pair);
            self.break_link(pair, link);
        }
        self.strike_again(strike, 80 * MILLISECOND);
    }

    /// Kills a process, and again when it may just have started.
    fn storm(&mut self, strike: &Strike) {
        let mut chance = Chance::new(strike.number, "storm");
        if self.machines[&strike.node].process.is_some() {
            self.counts.count(Fault::RestartStorm);
            let up_after = chance.between(MILLISECOND, 20 * MILLISECOND);
            self.die(strike.node, drawn_crash(strike.number), up_after);
        }
        self.strike_again(strike, 60 * MILLISECOND);
    }

    /// Plans what is left of a fault that strikes many times.
    fn strike_again(&mut self, strike: &Strike, most: u64) {
        let mut chance = Chance::new(strike.number, "again");
        let wait = chance.between(MILLISECOND, most);
        if wait < strike.lasts {
            let lasts = strike.lasts - wait;
            let rest = Strike { lasts, number: chance.number(), ..*strike };
            self.queue.after(wait, Event::Strike(rest));
        }
    }

    /// A process' clock shows another time from now on; its driver notices when it wakes up.
    fn jump_clock(&mut self, strike: &Strike) {
        let now = self.queue.now();
        if self.protocol.drift_permille().is_some() {
            return;
        }
        let mut chance = Chance::new(strike.number, "jump");
        let most = *chance.pick(&[50 * MILLISECOND, 5 * SECOND, 3_600 * SECOND]);
        let by = i64::try_from(chance.between(MILLISECOND, most)).unwrap_or(i64::MAX);
        let machine = self.machine(strike.node);
        if machine.process.is_none() {
            return;
        }
        machine.jump(now, if strike.fault == Fault::ClockBack { -by } else { by });
        self.counts.count(strike.fault);
        self.plan_wake(strike.node);
    }

    /// Parts the nodes into two groups that cannot reach each other.
    fn partition(&mut self, strike: &Strike) {
        let nodes: Vec<NodeId> = self.machines.keys().copied().collect();
        // Some but not all of the nodes: a number with some but not all bits set.
        let sides = 1 + strike.number % ((1 << nodes.len()) - 2);
        let side = |node: NodeId| {
            let place = nodes.iter().position(|other| *other == node);
            place.is_some_and(|place| sides >> place & 1 == 1)
        };
        self.counts.count(Fault::Partition);
        for pair in self.network.pairs() {
            if side(pair.0) != side(pair.1) {
                self.cut_pair(pair, strike.lasts);
            }
        }
    }

    /// Lets nothing through from one node to another for a while.
    pub(super) fn cut_way(&mut self, from: NodeId, to: NodeId, lasts: u64) {
        self.network.cut(from, to);
        self.doubt_link(Pair::of(from, to));
        self.queue.after(lasts, Event::Mend { from, to });
    }

    fn set_trap(&mut self, strike: &Strike, what: AtPoint) {
        let mut chance = Chance::new(strike.number, "trap");
        let snapshot_points = self.protocol.snapshot_points();
        let machine = self.machine(strike.node);
        let point = match strike.fault {
            Fault::DiedOverSnapshot => *chance.pick(snapshot_points),
            _ => *chance.pick(&machine.points),
        };
        let passes = chance.below(4);
        machine.trap = Some(Trap { point, passes, what, fault: strike.fault, lasts: strike.lasts });
    }
}

pub(super) fn drawn_crash(number: u64) -> Crash {
    match number >> 32 & 3 {
        0 => Crash::Kill,
        1 => Crash::PowerLoss,
        _ => Crash::Torn { seed: number },
    }
}
