//! Processes: how they start, act, sync, stop and die.

use std::fmt::Display;

use kvorum_node::NodeError;
use kvorum_replication::NodeId;
use kvorum_storage::{Error, Maintained, Position};

use super::{Event, World};
use crate::disk::Crash;
use crate::faults::Fault;
use crate::machine::{AtPoint, DoomedWork, Trap};
use crate::network::Pair;
use crate::process::{Happening, Protocol};
use crate::queue::{MICROSECOND, MILLISECOND, SECOND};
use crate::violation::Promise;
use crate::world::ending::Phase;

/// How long a log waits for room on a full disk before it tries again, as in production.
const DISK_FULL_PAUSE: u64 = 100 * MILLISECOND;

/// How often a process that cannot start tries again before it counts as broken.
const STARTS_MAX: u64 = 2_000;

impl<P: Protocol> World<P> {
    pub(super) fn start(&mut self, node: NodeId) {
        self.starts += 1;
        if self.starts > STARTS_MAX {
            self.fail(Promise::StaysUp, format!("{node} does not stay up"));
            return;
        }
        let machine = self.machine(node);
        machine.struck = false;
        if let Some((after, crash)) = machine.doomed_start.take() {
            machine.disk.doom(after, crash);
        }
        let vfs = machine.disk.vfs();
        let opened = self.protocol.open(node, vfs, self.seed ^ (u64::from(node.0) << 48));
        if self.dies_of_doom(node, Fault::DiedRecovering) {
            return;
        }
        match opened {
            Ok(process) => {
                self.audit_opened(node, &*process);
                let now = self.queue.now();
                self.machine(node).start(now, process);
                self.say(node, || "starts".to_owned());
                self.tell(node, Happening::Started);
                self.plan_maintenance(node);
            }
            Err(error) => self.stop_failed(node, error),
        }
    }

    /// Lets something happen to a process, if it runs, and what follows from it.
    pub(super) fn tell(&mut self, node: NodeId, happening: Happening<P::Message>) {
        let now = self.time(node);
        if let Some(process) = &mut self.machine(node).process {
            let result = process.step(now, happening);
            self.follow(node, result);
        }
    }

    pub(super) fn fire_timer(&mut self, node: NodeId, run: u64) {
        let now = self.time(node);
        let machine = self.machine(node);
        if machine.run != run {
            return;
        }
        machine.timer_at = None;
        let skewed = machine.is_skewed();
        if let Some(process) = &mut machine.process {
            let due = process.timer().is_some_and(|timer| timer <= now);
            // If not, its clock fell, and it has to see that.
            let result = if due { process.fire_timer(now) } else { process.settle(now) };
            if due && skewed {
                self.counts.count(Fault::ClockSkew);
            }
            self.follow(node, result);
        }
    }

    /// What a process says and wants after it did something, up to the next point at which it ends.
    fn follow(&mut self, node: NodeId, result: Result<(), NodeError>) {
        let mut result = result;
        loop {
            if self.dies_of_doom(node, Fault::DiedWriting) {
                return;
            }
            if let Err(error) = result {
                self.stop_failed(node, error);
                return;
            }
            if !self.speak(node) {
                return;
            }
            let now = self.time(node);
            let machine = self.machine(node);
            let Some(process) = &mut machine.process else { return };
            let Some(point) = process.take_point() else { break };
            match machine.trap {
                Some(trap) if trap.point == point && trap.passes == 0 => {
                    machine.trap = None;
                    if self.spring(node, trap) {
                        return;
                    }
                }
                Some(ref mut trap) if trap.point == point => trap.passes -= 1,
                Some(_) | None => {}
            }
            let Some(process) = &mut self.machine(node).process else { return };
            result = process.settle(now);
        }
        self.plan_wake(node);
    }

    /// Hands on what the process said; false if it died over it.
    fn speak(&mut self, node: NodeId) -> bool {
        self.audit_records(node);
        let machine = self.machine(node);
        let Some(process) = &mut machine.process else { return false };
        let turn = std::mem::take(process.turn());
        let words = (turn.sends.len() + turn.replies.len()) as u64;
        let mut left = u64::MAX;
        if let Some((remaining, _)) = &mut machine.words_left {
            left = *remaining;
            *remaining = remaining.saturating_sub(words);
        }
        let dies = words > left;
        let mut answers = Vec::new();
        for (request, outcome) in turn.replies {
            answers.extend(machine.asked.remove(&request).map(|asked| (asked, outcome)));
        }
        for (to, message) in turn.sends {
            if left == 0 {
                break;
            }
            left -= 1;
            self.send(node, to, message);
        }
        for (asked, outcome) in answers {
            if left == 0 {
                break;
            }
            left -= 1;
            let judgement = self.protocol.answers(node, &asked, &outcome);
            self.heed(judgement);
            self.send_answer(node, asked.asker, outcome);
        }
        if dies {
            let lasts = self.machine(node).words_left.take().map_or(0, |(_, lasts)| lasts);
            self.counts.count(Fault::DiedSpeaking);
            self.die(node, Crash::Kill, lasts);
        }
        !dies
    }

    /// Does what is planned for a fail point; true if the process is gone.
    fn spring(&mut self, node: NodeId, trap: Trap) -> bool {
        let now = self.queue.now();
        self.counts.count(trap.fault);
        match trap.what {
            AtPoint::Die(crash) => {
                self.say(node, || format!("dies at {}", trap.point));
                if self.protocol.is_written_point(trap.point) {
                    self.write_unsynced(node);
                }
                self.die(node, crash, trap.lasts);
                true
            }
            AtPoint::Pause => {
                self.say(node, || format!("pauses at {}", trap.point));
                self.machine(node).paused_until = Some(now + trap.lasts);
                false
            }
            AtPoint::Isolate => {
                self.say(node, || format!("is cut off at {}", trap.point));
                self.isolate(node, trap.lasts);
                false
            }
        }
    }

    /// Lets the step at hand come to its end and its records to the file, nothing of it said.
    fn write_unsynced(&mut self, node: NodeId) {
        let now = self.time(node);
        if let Some(process) = &mut self.machine(node).process {
            // An error here would only leave less written.
            let _ = process.settle(now);
            let _ = process.log().write();
        }
        self.audit_last_records(node);
    }

    /// Ends a process in whose disk a planned crash has come.
    fn dies_of_doom(&mut self, node: NodeId, fault: Fault) -> bool {
        let machine = self.machine(node);
        let Some(kind) = machine.disk.take_doom() else { return false };
        self.audit_last_records(node);
        self.harvest(node);
        self.counts.count(fault);
        self.counts.count(kind);
        self.say(node, || format!("{}: {}", fault.name(), kind.name()));
        let lasts = self.machine(node).chance.between(MILLISECOND, 300 * MILLISECOND);
        self.gone_for(node, lasts);
        true
    }

    /// Ends a process now.
    pub(super) fn die(&mut self, node: NodeId, crash: Crash, lasts: u64) {
        self.audit_last_records(node);
        self.harvest(node);
        let machine = self.machines.get_mut(&node).expect("only members are named");
        machine.disk.settle(&mut self.counts);
        // What the process does when it is dropped comes after the crash, and is not seen.
        let kind = machine.disk.crash(crash);
        let had_process = machine.process.take().is_some();
        if had_process {
            self.counts.count(kind);
        }
        self.say(node, || format!("{} for {} ms", kind.name(), lasts / MILLISECOND));
        self.gone_for(node, lasts);
    }

    /// A process that met an error stops, as in production; only a fault of its disk excuses that.
    pub(super) fn stop_failed(&mut self, node: NodeId, error: impl Display) {
        self.say(node, || format!("stops: {error}"));
        self.audit_last_records(node);
        let counts = &mut self.counts;
        let machine = self.machines.get_mut(&node).expect("only members are named");
        machine.struck |= machine.disk.settle(counts) || machine.disk.rot().is_some();
        if !machine.struck {
            let what = format!("{node} stopped although its disk did not fail: {error}");
            self.fail(Promise::StaysUp, what);
            return;
        }
        machine.disk.crash(Crash::Kill);
        let lasts = self.machine(node).chance.between(MILLISECOND, 200 * MILLISECOND);
        self.gone_for(node, lasts);
    }

    /// Counts what the process did, while it is still there to be asked.
    pub(super) fn harvest(&mut self, node: NodeId) {
        let Some(process) = &self.machines[&node].process else { return };
        let status = process.report(self.time(node)).status;
        let mut counters: Vec<(String, u64)> = Vec::new();
        for (name, count) in status.counters {
            if let Some(fault) = self.protocol.fault_counted(name) {
                self.counts.add_many(fault, count);
            }
            if !self.protocol.is_gauge(name) {
                counters.push((format!("{} {name}", status.role), count));
            }
        }
        let log = process.log().stats();
        counters.push(("log files made".to_owned(), log.files_made));
        counters.push(("log files recycled".to_owned(), log.files_recycled));
        if let Some(store) = process.store() {
            let stats = store.stats();
            counters.push(("store flushes".to_owned(), stats.flushes));
            counters.push(("store compactions".to_owned(), stats.compactions));
            counters.push(("store moves".to_owned(), stats.moves));
            counters.push(("store log cuts".to_owned(), stats.log_cuts));
        }
        for (name, count) in counters {
            *self.activity.entry(name).or_default() += count;
        }
    }

    /// The process is gone: links break, clients notice or not, and it comes back after a while.
    fn gone_for(&mut self, node: NodeId, lasts: u64) {
        let askers = self.machine(node).stop();
        for asker in askers {
            let wire = &mut self.clients[asker.client].wire;
            if !wire.one_in(4) {
                let wait = wire.between(100 * MICROSECOND, 5 * MILLISECOND);
                self.queue.after(wait, Event::Gone { asker });
            }
        }
        self.break_links_of(node);
        let run = self.machines[&node].run;
        let lasts = if self.phase == Phase::Faults { lasts } else { lasts.min(50 * MILLISECOND) };
        self.queue.after(lasts, Event::Start { node, run });
    }

    /// Plans the process' timer and its next sync.
    pub(super) fn plan_wake(&mut self, node: NodeId) {
        let now = self.queue.now();
        let time = self.time(node);
        let machine = self.machine(node);
        let Some(process) = &machine.process else { return };
        let run = machine.run;
        let timer = process.timer().map(|timer| machine.instant(timer).max(now));
        let sync = process.sync_due(time).map(|due| machine.instant(due).max(now));
        let sync = sync.filter(|_| !machine.syncing);
        if let Some(timer) = timer
            && machine.timer_at.is_none_or(|planned| timer < planned)
        {
            machine.timer_at = Some(timer);
            self.queue.at(timer, Event::Timer { node, run });
        }
        let machine = self.machine(node);
        if let Some(sync) = sync
            && machine.sync_at.is_none_or(|planned| sync < planned)
        {
            machine.sync_at = Some(sync);
            self.queue.at(sync, Event::SyncBegins { node, run });
        }
    }

    pub(super) fn begin_sync(&mut self, node: NodeId, run: u64) {
        let now = self.queue.now();
        let time = self.time(node);
        let disk = self.plan.disk;
        let wait = self.machine(node).chance.between(disk.sync_min, disk.sync_max);
        let slow = self.machine(node).chance.between(20 * MILLISECOND, 300 * MILLISECOND);
        let machine = self.machine(node);
        if machine.run != run {
            return;
        }
        machine.sync_at = None;
        let Some(process) = &mut machine.process else { return };
        if machine.syncing || process.sync_due(time).is_none_or(|due| due > time) {
            // Its clock fell, and it has to see that.
            let result = process.settle(time);
            self.follow(node, result);
            return;
        }
        machine.syncing = true;
        let target = process.log().last().0;
        let is_slow = machine.slow_until > now;
        let written = if disk.writes_early { process.log().write() } else { Ok(()) };
        let wait = if is_slow { slow } else { wait };
        if is_slow {
            self.counts.count(Fault::SlowDisk);
        }
        match written {
            Ok(()) | Err(Error::DiskFull { .. }) => {
                self.queue.after(wait, Event::SyncEnds { node, run, target });
                let _ = self.dies_of_doom(node, Fault::DiedWriting);
            }
            Err(error) => self.follow(node, Err(error.into())),
        }
    }

    pub(super) fn end_sync(&mut self, node: NodeId, run: u64, target: u64) {
        let now = self.time(node);
        let machine = self.machine(node);
        if machine.run != run {
            return;
        }
        let Some(process) = &mut machine.process else { return };
        match process.log().sync(Position(target)) {
            Ok(()) => {
                machine.syncing = false;
                if self.dies_of_doom(node, Fault::DiedWriting) {
                    return;
                }
                self.say(node, || format!("log durable up to #{target}"));
                let Some(process) = &mut self.machine(node).process else { return };
                let result = process.settle(now);
                self.follow(node, result);
            }
            Err(Error::DiskFull { .. }) => {
                self.say(node, || "the log waits for room".to_owned());
                self.queue.after(DISK_FULL_PAUSE, Event::SyncEnds { node, run, target });
                if self.dies_of_doom(node, Fault::DiedWriting) {
                    return;
                }
                let Some(process) = &mut self.machine(node).process else { return };
                let result = process.settle(now);
                self.follow(node, result);
            }
            Err(error) => self.follow(node, Err(error.into())),
        }
    }

    fn plan_maintenance(&mut self, node: NodeId) {
        let machine = &self.machines[&node];
        if machine.process.as_ref().is_some_and(|process| process.store().is_some()) {
            let run = machine.run;
            let most = self.plan.disk.maintenance_max;
            let wait = self.machine(node).chance.between(100 * MICROSECOND, most);
            self.queue.after(wait, Event::Maintain { node, run });
        }
    }

    /// One flush or compaction; that it fails is no reason to stop, as in production.
    pub(super) fn maintain(&mut self, node: NodeId, run: u64) {
        let machine = self.machine(node);
        if machine.run != run {
            return;
        }
        let doomed = machine.doomed_work;
        if let Some(DoomedWork { crash, after: Some(after), .. }) = doomed {
            machine.disk.doom(after, crash);
        }
        let Some(process) = &machine.process else { return };
        let Some(store) = process.store() else { return };
        let worked = match store.maintain() {
            Ok(Maintained::Did(_)) => true,
            Ok(Maintained::Nothing) => false,
            Err(error) => {
                self.cannot_maintain(node, &error);
                true
            }
        };
        let fault = if doomed.is_some() { Fault::DiedMaintaining } else { Fault::DiedWriting };
        if self.dies_of_doom(node, fault) {
            self.machine(node).doomed_work = None;
            return;
        }
        if let Some(DoomedWork { crash, after, lasts }) = doomed {
            let machine = self.machine(node);
            if after.is_some() {
                machine.disk.spare();
            }
            if worked {
                machine.doomed_work = None;
                self.counts.count(fault);
                return self.die(node, crash, lasts);
            }
        }
        self.plan_maintenance(node);
    }

    fn cannot_maintain(&mut self, node: NodeId, error: &Error) {
        let counts = &mut self.counts;
        let machine = self.machines.get_mut(&node).expect("only members are named");
        machine.struck |= machine.disk.settle(counts) || machine.disk.rot().is_some();
        if !machine.struck {
            let what = format!("{node} cannot maintain its store on a sound disk: {error}");
            self.fail(Promise::StaysUp, what);
        }
    }

    /// Cuts a node off from all others for a while.
    pub(super) fn isolate(&mut self, node: NodeId, lasts: u64) {
        for pair in self.network.pairs() {
            if pair.0 == node || pair.1 == node {
                self.cut_pair(pair, lasts);
            }
        }
    }

    pub(super) fn cut_pair(&mut self, pair: Pair, lasts: u64) {
        self.cut_way(pair.0, pair.1, lasts);
        self.cut_way(pair.1, pair.0, lasts);
    }

    /// The power fails on all machines at once.
    pub(super) fn cut_power_everywhere(&mut self) {
        let nodes: Vec<NodeId> = self.machines.keys().copied().collect();
        for node in nodes {
            let seed = self.chance.number();
            let crash = if self.chance.one_in(2) { Crash::PowerLoss } else { Crash::Torn { seed } };
            let lasts = self.chance.between(MILLISECOND, SECOND / 2);
            self.die(node, crash, lasts);
        }
        self.counts.count(Fault::PowerLossAll);
    }
}
