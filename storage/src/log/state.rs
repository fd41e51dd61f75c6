//! What the threads that append and those that wait share: the records that wait to be written,
//! how far the log has come, and who is doing what.

use std::collections::VecDeque;
use std::sync::Arc;

use super::buffer::Buffer;
use super::flights::Flights;
use super::frame::{FRAME_HEADER_BYTES, Group};
use super::maker::{Failure, OpenFile};
use super::options::{LogOptions, LogStats};
use super::refusal::{Poison, Refusal};
use super::turn::{Busy, Change, Load, Sync, Turn, Way, Zeros};
use super::waiters::{Calls, Waiters};
use crate::error::{Error, Result};

/// A frame takes no more records once it is this big, so that replaying holds little in memory,
/// and large backlogs fit into files.
pub(super) const GROUP_BYTES: usize = 1 << 20;

/// So many buffers are kept for the groups to come.
const SPARE_BUFFERS_MAX: usize = 4;

/// A buffer that a huge record has blown up beyond this is not kept.
const SPARE_BYTES_MAX: usize = 4 * GROUP_BYTES;

/// So many groups are on their way to being durable at once. With two, one is written while the one
/// before is synced; with more, groups become smaller, and the machine busier, for nothing.
const TURNS_MAX: usize = 2;

/// Records that are not to be synced are written directly as well if they are so large: the system
/// would have to write them soon, and whoever syncs the next small record would wait for that.
const DIRECT_BYTES_MIN: u64 = 64 << 10;

/// So much is written in the cache before the system is asked to begin writing it back.
const WRITE_BACK_BYTES: u64 = 1 << 20;

/// How far a caller wants its record to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal {
    /// Handed to the system: it survives the end of the process.
    Written,
    /// Synced: it survives a power cut.
    Durable,
}

/// Zeros are written once the frames have come so near to their end.
const ZEROS_AHEAD: u64 = 64 << 10;

/// None are if the last load was larger: to write as much twice is worse than what they save.
const ZEROS_LOAD_MAX: u64 = 64 << 10;

/// Guarded by the log's one lock, which nobody holds while the disk works.
#[derive(Debug)]
pub(super) struct State {
    /// Records that wait, oldest first; new ones join the last group.
    groups: VecDeque<Group>,
    pub(super) pending_bytes: usize,
    spare: Vec<Buffer>,
    /// The last position given out.
    pub(super) last: u64,
    /// The last position that has a place in a file.
    placed: u64,
    flights: Flights,
    pub(super) end: End,
    busy: Busy,
    /// The landing of the last write in the cache.
    cached: u64,
    /// From here on the system was not asked to write back what is in the cache.
    cached_from: u64,
    /// The size of the last frames that were given a place.
    load_bytes: u64,
    pub(super) waiters: Waiters,
    /// So many turns were refused by the disk and will be tried again.
    pub(super) refusals: u64,
    /// What the last turn met with, if it was refused.
    pub(super) refusal: Option<Refusal>,
    pub(super) poison: Option<Poison>,
    pub(super) stats: LogStats,
}

/// The end of the log.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// The last file.
    pub(super) file: Arc<OpenFile>,
    /// Where the next frame goes.
    pub(super) offset: u64,
    /// To here the file has been written to, with frames or zeros.
    pub(super) zeros_to: u64,
    /// The last frame is a mark, or there is none: all before it is proven durable.
    pub(super) marked: bool,
}

impl End {
    /// The end of a file that has no frames.
    pub(super) fn of_new(file: OpenFile) -> Self {
        let (offset, zeros_to) = (file.header.frames_at(), file.zeros_to);
        Self { file: Arc::new(file), offset, zeros_to, marked: true }
    }
}

enum Next {
    Wait,
    Again,
    Place(Way),
    Sync,
    Change,
}

impl State {
    /// Nothing waits, and everything up to `durable` is.
    pub(super) fn new(durable: u64, end: End) -> Self {
        Self {
            groups: VecDeque::new(),
            pending_bytes: 0,
            spare: Vec::new(),
            last: durable,
            placed: durable,
            flights: Flights::new(durable),
            end,
            busy: Busy::default(),
            cached: 0,
            cached_from: 0,
            load_bytes: 0,
            waiters: Waiters::default(),
            refusals: 0,
            refusal: None,
            poison: None,
            stats: LogStats::default(),
        }
    }

    /// Everything up to here is durable.
    pub(super) fn durable(&self) -> u64 {
        self.flights.durable()
    }

    /// The last position that has come so far.
    pub(super) fn reached(&self, goal: Goal) -> u64 {
        match goal {
            // After a failure the system may hold it or not.
            Goal::Written if self.poison.is_some() => self.durable(),
            Goal::Written => self.flights.written(),
            Goal::Durable => self.durable(),
        }
    }

    /// Whether a record of so many bytes is taken now.
    pub(super) fn admit(&self, bytes: usize, options: &LogOptions) -> Result<()> {
        if let Some(poison) = &self.poison {
            return Err(poison.error());
        }
        if self.pending_bytes == 0 || self.pending_bytes + bytes <= options.pending_bytes_max {
            return Ok(());
        }
        Err(match &self.refusal {
            Some(refusal) => refusal.error(),
            None => Error::Overloaded {
                what: format!("{} bytes wait for the log", self.pending_bytes).into(),
            },
        })
    }

    /// A buffer for a group.
    pub(super) fn spare(&mut self) -> Buffer {
        self.spare.pop().unwrap_or_default()
    }

    /// Gives a group of one record the next position.
    pub(super) fn append_group(&mut self, mut group: Group) -> u64 {
        self.last += 1;
        group.begin_at(self.last);
        self.pending_bytes += group.payload_bytes();
        self.groups.push_back(group);
        self.stats.appends += 1;
        self.last
    }

    /// Gives a record the next position and a place in the group that is forming.
    pub(super) fn append(&mut self, kind: u8, parts: &[&[u8]]) -> u64 {
        let position = self.last + 1;
        if self.groups.back().is_none_or(|group| group.bytes() >= GROUP_BYTES) {
            let buffer = self.spare();
            self.groups.push_back(Group::new(position, buffer));
        }
        let group = self.groups.back_mut().expect("there is a group: one was pushed if need be");
        let before = group.bytes();
        group.push(kind, parts);
        self.pending_bytes += group.bytes() - before;
        self.last = position;
        self.stats.appends += 1;
        position
    }

    /// What to tell a thread that wants the log to come that far, if it is known. `refusals` is how
    /// many there had been when it began.
    pub(super) fn outcome(&self, position: u64, goal: Goal, refusals: u64) -> Option<Result<()>> {
        if self.reached(goal) >= position {
            return Some(Ok(()));
        }
        if let Some(poison) = &self.poison {
            return Some(Err(poison.error()));
        }
        let refusal = self.refusal.as_ref().filter(|_| self.refusals != refusals);
        refusal.map(|refusal| Err(refusal.error()))
    }

    /// What the thread is to do; nothing until it is called. What it is told, it must do, and then
    /// say how it went.
    pub(super) fn turn(&mut self, position: u64, goal: Goal) -> Option<Turn> {
        match self.next(position, goal) {
            Next::Wait => None,
            Next::Again => self.write_again().map(Turn::Write),
            Next::Place(way) => Some(Turn::Write(self.place(way))),
            Next::Sync => {
                self.busy.syncs += 1;
                let landing = self.flights.begin_sync();
                Some(Turn::Sync(Sync { landing, file: Arc::clone(&self.end.file) }))
            }
            Next::Change => {
                self.busy.changing = true;
                let frame_bytes = self.groups.front().map_or(0, Group::bytes) as u64;
                let (full, unsynced) = (self.end.clone(), !self.flights.is_empty());
                let last = self.placed;
                Some(Turn::Change(Change { full, unsynced, last, frame_bytes }))
            }
        }
    }

    fn next(&self, position: u64, goal: Goal) -> Next {
        let busy = &self.busy;
        if self.reached(goal) >= position || busy.changing || self.poison.is_some() {
            Next::Wait
        } else if self.flights.has_refused() {
            if busy.writes() || busy.zeros { Next::Wait } else { Next::Again }
        } else if self.placed < position {
            self.next_place(goal)
        } else if goal == Goal::Durable && self.flights.needs_sync(position) {
            let syncs_max = if self.in_cache() { 1 } else { TURNS_MAX };
            if busy.syncs < syncs_max { Next::Sync } else { Next::Wait }
        } else {
            Next::Wait
        }
    }

    /// How the groups that wait may be written, if at all.
    fn next_place(&self, goal: Goal) -> Next {
        let busy = &self.busy;
        let Some(group) = self.groups.front() else { return Next::Wait };
        if !self.fits(self.end.offset, group) {
            let alone = !busy.writes() && busy.syncs == 0 && !busy.zeros;
            return if alone { Next::Change } else { Next::Wait };
        }
        if busy.zeros && self.end.offset + self.span(group) > self.end.zeros_to {
            return Next::Wait;
        }
        let direct = self.end.file.direct.is_some() && !self.in_cache();
        let way = match goal {
            Goal::Durable if direct => {
                (busy.direct + busy.syncs < TURNS_MAX).then_some(Way::Direct)
            }
            Goal::Durable => {
                (!busy.writes() && !busy.zeros && busy.syncs == 0).then_some(Way::Cached)
            }
            Goal::Written if busy.direct > 0 || busy.zeros || self.is_bulk(group) => {
                (!busy.bulk && !busy.cached).then_some(Way::Bulk)
            }
            Goal::Written => (!busy.bulk && !busy.cached).then_some(Way::Cached),
        };
        way.map_or(Next::Wait, Next::Place)
    }

    /// Whether a group is too large for the system's cache.
    fn is_bulk(&self, group: &Group) -> bool {
        self.end.file.direct.is_some() && self.span(group) >= DIRECT_BYTES_MIN
    }

    /// Whether the system's cache holds anything that was not synced.
    fn in_cache(&self) -> bool {
        self.busy.cached || !self.flights.is_synced(self.cached)
    }

    fn span(&self, group: &Group) -> u64 {
        self.end.file.header.span(group.bytes() as u64)
    }

    /// Whether a group's frame has room at an offset of the last file.
    fn fits(&self, offset: u64, group: &Group) -> bool {
        let file = &self.end.file;
        offset + self.span(group) + file.reserve_bytes() <= file.capacity
    }

    /// Gives the groups that wait a place, as far as the file has room.
    fn place(&mut self, way: Way) -> Load {
        let offset = self.end.offset;
        let mut groups = Vec::new();
        while let Some(group) = self.groups.front() {
            let end = self.end.offset + self.span(group);
            let in_zeros = self.busy.zeros && end > self.end.zeros_to;
            if in_zeros || !self.fits(self.end.offset, group) {
                break;
            }
            self.end.offset = end;
            self.placed = group.last();
            groups.extend(self.groups.pop_front());
        }
        self.end.zeros_to = self.end.zeros_to.max(self.end.offset);
        self.end.marked = false;
        self.load_bytes = self.end.offset - offset;
        let flight = self.flights.depart(offset, self.placed);
        self.load(flight, offset, groups, way)
    }

    fn write_again(&mut self) -> Option<Load> {
        let way = if self.end.file.direct.is_some() && !self.in_cache() {
            Way::Direct
        } else {
            Way::Cached
        };
        let (flight, offset, groups) = self.flights.depart_again()?;
        Some(self.load(flight, offset, groups, way))
    }

    fn load(&mut self, flight: u64, offset: u64, groups: Vec<Group>, way: Way) -> Load {
        match way {
            Way::Direct => self.busy.direct += 1,
            Way::Bulk => self.busy.bulk = true,
            Way::Cached => self.busy.cached = true,
        }
        let is_last = groups.last().is_some_and(|group| group.last() == self.placed);
        let (file, durable_before) = (Arc::clone(&self.end.file), self.durable());
        let write_back = self.write_back(offset, way);
        Load { flight, file, offset, groups, durable_before, way, is_last, write_back }
    }

    /// From where to write back what the cache holds, if it is enough.
    fn write_back(&mut self, offset: u64, way: Way) -> Option<u64> {
        if way != Way::Cached {
            return None;
        }
        if self.flights.is_synced(self.cached) {
            self.cached_from = offset;
        }
        let from = self.cached_from;
        (offset.saturating_sub(from) >= WRITE_BACK_BYTES).then(|| {
            self.cached_from = offset;
            from
        })
    }

    /// Takes account of a write.
    pub(super) fn end_write(&mut self, load: Load, outcome: &Result<(), Failure>) {
        match load.way {
            Way::Direct => self.busy.direct -= 1,
            Way::Bulk => self.busy.bulk = false,
            Way::Cached => self.busy.cached = false,
        }
        match outcome {
            Ok(()) => {
                self.flights.land(load.flight);
                if load.way == Way::Cached {
                    self.cached = self.flights.landings();
                }
                for group in load.groups {
                    self.pending_bytes -= group.payload_bytes();
                    self.stats.frames += 1;
                    self.stats.bytes += self.span(&group);
                    self.keep(group.into_buffer());
                }
            }
            // It keeps its place: others may have theirs behind it.
            Err(_) => self.flights.refuse(load.flight, load.groups),
        }
        self.refusal = None;
        self.fail(outcome.as_ref().err());
    }

    /// Takes account of a sync.
    pub(super) fn end_sync(&mut self, sync: &Sync, outcome: &Result<(), Failure>) {
        self.busy.syncs -= 1;
        // If another has failed meanwhile, the system may have told nobody but that one what this
        // one could not write either.
        if outcome.is_ok() && self.poison.is_none() {
            self.flights.end_sync(sync.landing);
            self.stats.syncs += 1;
        }
        self.fail(outcome.as_ref().err());
    }

    /// The file that is full has been synced.
    pub(super) fn full_is_durable(&mut self, change: &Change) {
        let landing = self.flights.begin_sync();
        self.flights.end_sync(landing);
        self.stats.syncs += u64::from(change.unsynced);
    }

    /// Takes account of a new file.
    pub(super) fn end_change(&mut self, outcome: Result<End, Failure>) -> Result<(), Failure> {
        self.busy.changing = false;
        let outcome = outcome.map(|end| {
            self.stats.files_made += 1;
            self.stats.files_recycled += u64::from(end.file.header.recycled);
            self.stats.bytes += self.end.file.header.span(FRAME_HEADER_BYTES as u64);
            self.stats.syncs += 1;
            self.cached_from = 0;
            self.end = end;
        });
        self.refusal = None;
        self.fail(outcome.as_ref().err());
        outcome
    }

    fn fail(&mut self, failure: Option<&Failure>) {
        match failure {
            None => {}
            Some(Failure::Refused(error)) => {
                self.refusals += 1;
                self.refusal = Some(Refusal::new(error));
            }
            Some(Failure::Broken(error)) => {
                let path = self.end.file.path.clone();
                self.poison.get_or_insert(Poison { path, why: error.to_string() });
            }
        }
    }

    /// Whom the last turn concerns: those whose record has come far enough; everyone, if something
    /// went wrong.
    pub(super) fn call(&mut self, calls: &mut Calls) {
        if self.waiters.is_empty() {
            return;
        }
        if self.poison.is_some() || self.refusal.is_some() {
            self.waiters.call_all(calls);
            return;
        }
        let (written, durable) = (self.reached(Goal::Written), self.reached(Goal::Durable));
        self.waiters.call_reached(calls, |goal| match goal {
            Goal::Written => written,
            Goal::Durable => durable,
        });
    }

    /// Whoever could go on while others are at work.
    pub(super) fn call_leader(&mut self, calls: &mut Calls) {
        if self.waiters.is_empty() {
            return;
        }
        let mut waiters = std::mem::take(&mut self.waiters);
        waiters
            .call_leader(calls, |position, goal| !matches!(self.next(position, goal), Next::Wait));
        self.waiters = waiters;
    }

    /// Whether a mark can be put at the end: everything is durable, and nobody at work.
    pub(super) fn can_mark(&self) -> bool {
        let busy = self.busy.writes() || self.busy.zeros || self.busy.changing;
        let header = self.end.file.header;
        let end = self.end.offset + header.span(FRAME_HEADER_BYTES as u64);
        !self.end.marked && !busy && self.durable() == self.placed && end <= self.end.file.capacity
    }

    /// A mark is at the end.
    pub(super) fn end_mark(&mut self, bytes: u64) {
        self.end.offset += bytes;
        self.end.zeros_to = self.end.zeros_to.max(self.end.offset);
        self.end.marked = true;
        self.stats.bytes += bytes;
    }

    /// The next piece of zeros, if the frames have come near the end of the one before.
    pub(super) fn begin_zeros(&mut self) -> Option<Zeros> {
        let End { file, offset, zeros_to, .. } = &self.end;
        let near = offset + ZEROS_AHEAD > *zeros_to && *zeros_to < file.capacity;
        let wanted = near && self.load_bytes <= ZEROS_LOAD_MAX;
        let busy = self.busy.zeros || self.busy.changing || self.busy.cached;
        if !wanted || busy || file.direct.is_none() || self.poison.is_some() {
            return None;
        }
        let zeros = Zeros { file: Arc::clone(file), from: *zeros_to };
        self.busy.zeros = true;
        Some(zeros)
    }

    /// The piece is written, up to here.
    pub(super) fn end_zeros(&mut self, outcome: Result<u64, Failure>) {
        self.busy.zeros = false;
        match outcome {
            Ok(zeros_to) => self.end.zeros_to = zeros_to,
            // A disk that is so full has better uses for its room.
            Err(Failure::Refused(_)) => self.end.zeros_to = self.end.file.capacity,
            Err(Failure::Broken(error)) => {
                let path = self.end.file.path.clone();
                self.poison.get_or_insert(Poison { path, why: error.to_string() });
            }
        }
    }

    fn keep(&mut self, buffer: Buffer) {
        if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BYTES_MAX {
            self.spare.push(buffer);
        }
    }
}
