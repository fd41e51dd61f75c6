//! Threads at work on one store, each checking all that it reads.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use kvorum_storage::vfs::Vfs;
use kvorum_storage::{
    Batch, Direction, Durability, Error, KeyRange, Maintained, Options, Position, Scan, Snapshot,
    Store,
};

use super::ledger::Ledger;
use super::model::{Found, Model};
use super::probe::Probes;
use super::random::Random;

/// Groups that a scan reads at most.
const SCAN_GROUPS: u32 = 60;

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) writes: AtomicU64,
    pub(crate) gets: AtomicU64,
    pub(crate) scans: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) snapshot_reads: AtomicU64,
    pub(crate) flushes: AtomicU64,
    pub(crate) compacts: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) maintained: AtomicU64,
    pub(crate) ingests: AtomicU64,
    pub(crate) ingested_segments: AtomicU64,
}

impl Counts {
    /// All of them, with their names.
    pub(crate) fn all(&self) -> [(&'static str, u64); 11] {
        [
            ("writes", &self.writes),
            ("gets", &self.gets),
            ("scans", &self.scans),
            ("rows", &self.rows),
            ("snapshot_reads", &self.snapshot_reads),
            ("flushes", &self.flushes),
            ("compacts", &self.compacts),
            ("checkpoints", &self.checkpoints),
            ("maintained", &self.maintained),
            ("ingests", &self.ingests),
            ("ingested_segments", &self.ingested_segments),
        ]
        .map(|(name, count)| (name, count.load(Relaxed)))
    }
}

/// How much of what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) writers: u32,
    pub(crate) readers: u32,
    pub(crate) maintainers: u32,
    /// Each writer begins a write so often; without it they follow each other.
    pub(crate) write_every: Option<Duration>,
    /// One write in so many waits until it is durable.
    pub(crate) sync_one_in: u64,
    /// One write in so many is of many groups, as sorted rows.
    pub(crate) ingest_one_in: u64,
    /// Flush, compact or checkpoint about so often.
    pub(crate) disturb_every: Duration,
}

/// One store, and all who work on it.
pub(crate) struct Work {
    pub(crate) store: Store,
    pub(crate) model: Model,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) counts: Arc<Counts>,
    pub(crate) probes: Option<Arc<Probes>>,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) options: Options,
    /// Checkpoints go here, if any are to be made.
    pub(crate) checkpoints: Option<PathBuf>,
    pub(crate) stop: AtomicBool,
    pub(crate) violations: Mutex<Vec<String>>,
}

impl Work {
    /// Runs all threads until [`Work::stop`] is set or something is wrong.
    pub(crate) fn run(&self, load: Load, seed: u64) {
        std::thread::scope(|scope| {
            for number in 0..load.writers {
                let random = Random::new(seed ^ u64::from(number + 1) << 32);
                scope.spawn(move || self.guard(|| self.writer(number, load, random)));
            }
            for number in 0..load.readers {
                let random = Random::new(seed ^ u64::from(number + 1) << 40);
                scope.spawn(move || self.guard(|| self.reader(random)));
            }
            for _ in 0..load.maintainers {
                scope.spawn(move || self.guard(|| self.maintainer()));
            }
            let random = Random::new(seed ^ 1 << 48);
            scope.spawn(move || self.guard(|| self.disturber(load.disturb_every, random)));
        });
    }

    /// Runs a thread's part; what is wrong stops all.
    fn guard(&self, part: impl FnOnce() -> Result<()>) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(part));
        let what = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "a panic".to_owned(),
        };
        self.report(what);
    }

    pub(crate) fn report(&self, what: String) {
        self.violations.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(what);
        self.stop.store(true, SeqCst);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(SeqCst)
    }

    /// Writes groups of its own, at its pace: a write that is late does not make the next one later.
    fn writer(&self, number: u32, load: Load, mut random: Random) -> Result<()> {
        let own = self.model.groups / load.writers;
        let mut next = Instant::now();
        while self.goes_on() {
            if let Some(every) = load.write_every {
                next += every;
                let wait = next.saturating_duration_since(Instant::now());
                std::thread::sleep(wait);
                if wait.is_zero() {
                    // What was missed is not made up for: that would be a load above capacity.
                    next = Instant::now();
                }
            }
            if random.one_in(load.ingest_one_in) {
                self.ingest(number, load, &mut random).context("an ingest")?;
                continue;
            }
            let mut versions = BTreeMap::new();
            for _ in 0..=random.below(10).saturating_sub(7) {
                let group = random.below(u64::from(own)) as u32 * load.writers + number;
                if let std::collections::btree_map::Entry::Vacant(entry) = versions.entry(group) {
                    entry.insert(self.ledger.begin(group)?);
                }
            }
            let durable = random.one_in(load.sync_one_in);
            let position = self.write(number, &versions, durable).context("a write")?;
            for (group, version) in versions {
                self.ledger.acknowledge(group, version, Some(position), durable)?;
            }
            self.counts.writes.fetch_add(1, Relaxed);
        }
        Ok(())
    }

    /// Takes many of its groups to their next version at once.
    fn ingest(&self, number: u32, load: Load, random: &mut Random) -> Result<()> {
        let mut ingest = match self.store.begin_ingest() {
            Ok(ingest) => ingest,
            // Another one is at it.
            Err(Error::Invalid { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let from = random.below(u64::from(self.model.groups) / 4) as u32;
        let own = (from..self.model.groups).filter(|group| group % load.writers == number);
        let mut versions = Vec::new();
        for group in own {
            let version = self.ledger.begin(group)?;
            versions.push((group, version));
            for member in 0..self.model.members(group) {
                let key = self.model.key(group, member);
                match self.model.value(group, member, version) {
                    Some(value) => ingest.put(&key, &value)?,
                    None => ingest.delete(&key)?,
                }
            }
        }
        if random.one_in(5) {
            // Given up: nothing of it is ever seen.
            drop(ingest);
            for (group, version) in versions {
                self.ledger.give_up(group, version)?;
            }
            return Ok(());
        }
        let ingested = ingest.finish()?;
        for (group, version) in versions {
            self.ledger.acknowledge(group, version, None, true)?;
        }
        self.counts.ingests.fetch_add(1, Relaxed);
        self.counts.ingested_segments.fetch_add(ingested.segments, Relaxed);
        Ok(())
    }

    fn write(&self, thread: u32, versions: &BTreeMap<u32, u32>, durable: bool) -> Result<Position> {
        let mut batch = Batch::new();
        for (group, version) in versions {
            self.model.write(&mut batch, *group, *version);
        }
        let durability = if durable { Durability::Sync } else { Durability::Buffered };
        let write = || self.store.write(batch, durability);
        Ok(match &self.probes {
            Some(probes) => probes.time(thread as usize, write)??,
            None => write()?,
        })
    }

    fn reader(&self, mut random: Random) -> Result<()> {
        let mut held: Vec<Held> = Vec::new();
        while self.goes_on() {
            match random.below(20) {
                0..12 => self.check_get(&mut random).context("a get")?,
                12..16 => {
                    let acknowledged = self.acknowledged_from(&mut random);
                    let scan = |range, way| self.store.scan(range, way);
                    self.check_scan(&acknowledged, &mut random, scan).context("a scan")?;
                }
                16 => held.push(self.hold(&mut random)),
                _ if held.is_empty() => {}
                _ => {
                    let index = random.below(held.len() as u64) as usize;
                    self.check_held(&mut held[index], &mut random).context("a snapshot")?;
                    if held.len() > 4 || random.one_in(6) {
                        held.swap_remove(index);
                    }
                }
            }
            std::thread::sleep(Duration::from_micros(random.below(1000)));
        }
        Ok(())
    }

    fn check_get(&self, random: &mut Random) -> Result<()> {
        let group = random.below(u64::from(self.model.groups)) as u32;
        let member = random.below(u64::from(self.model.members(group))) as u32;
        let from = self.ledger.acknowledged(group);
        let found = self.store.get(&self.model.key(group, member))?;
        let to = self.ledger.begun(group);
        self.counts.gets.fetch_add(1, Relaxed);
        let matches = (from..=to).any(|it| self.model.value(group, member, it) == found);
        ensure!(
            matches,
            "member {member} of group {group} is {:?}, which is none of versions {from} to {to}",
            found.as_ref().map(|value| value.slice(..value.len().min(8)))
        );
        Ok(())
    }

    /// A few neighbouring groups, with what a read that begins now must at least see.
    fn acknowledged_from(&self, random: &mut Random) -> BTreeMap<u32, u32> {
        let first = random.below(u64::from(self.model.groups)) as u32;
        let end = (first + 1 + random.below(u64::from(SCAN_GROUPS)) as u32).min(self.model.groups);
        (first..end).map(|group| (group, self.ledger.acknowledged(group))).collect()
    }

    /// Scans neighbouring groups; answers with what they were.
    fn check_scan(
        &self,
        acknowledged: &BTreeMap<u32, u32>,
        random: &mut Random,
        scan: impl Fn(KeyRange, Direction) -> kvorum_storage::Result<Scan>,
    ) -> Result<BTreeMap<u32, Found>> {
        let (Some((first, _)), Some((last, _))) =
            (acknowledged.first_key_value(), acknowledged.last_key_value())
        else {
            return Ok(BTreeMap::new());
        };
        let way = if random.one_in(2) { Direction::Forwards } else { Direction::Backwards };
        let range = (self.model.key(*first, 0)..=self.last_key(*last)).into();
        let rows: Vec<(Bytes, Bytes)> = scan(range, way)?.collect::<kvorum_storage::Result<_>>()?;
        self.counts.scans.fetch_add(1, Relaxed);
        self.counts.rows.fetch_add(rows.len() as u64, Relaxed);
        let in_order = rows.windows(2).all(|pair| match way {
            Direction::Forwards => pair[0].0 < pair[1].0,
            Direction::Backwards => pair[0].0 > pair[1].0,
        });
        ensure!(in_order, "rows out of order, {way:?}");
        let versions =
            acknowledged.iter().map(|(group, from)| (*group, *from..=self.ledger.begun(*group)));
        check_rows(&self.model, rows, versions)
    }

    fn last_key(&self, group: u32) -> Bytes {
        self.model.key(group, self.model.members(group) - 1)
    }

    fn hold(&self, random: &mut Random) -> Held {
        let acknowledged = self.acknowledged_from(random);
        let snapshot = self.store.snapshot();
        let begun = acknowledged.keys().map(|group| (*group, self.ledger.begun(*group))).collect();
        Held { snapshot, acknowledged, begun, seen: None }
    }

    /// A snapshot shows the same each time, and nothing that began after it.
    fn check_held(&self, held: &mut Held, random: &mut Random) -> Result<()> {
        let scan = |range, way| held.snapshot.scan(range, way);
        let found = self.check_scan(&held.acknowledged, random, scan)?;
        self.counts.snapshot_reads.fetch_add(1, Relaxed);
        for (group, found) in &found {
            let begun = held.begun[group];
            ensure!(*found.start() <= begun, "group {group} is {found:?}, after {begun}");
        }
        // Where all members are deleted, the versions that fit grow in number.
        let starts: Vec<u32> = found.values().map(|found| *found.start()).collect();
        let seen = held.seen.get_or_insert_with(|| starts.clone());
        ensure!(*seen == starts, "it showed {seen:?}, and then {starts:?}");
        Ok(())
    }

    fn maintainer(&self) -> Result<()> {
        while self.goes_on() {
            if self.store.wait_for_maintenance(Duration::from_millis(20)) {
                while self.goes_on() && self.store.maintain()? != Maintained::Nothing {
                    self.counts.maintained.fetch_add(1, Relaxed);
                }
            }
        }
        Ok(())
    }

    fn disturber(&self, every: Duration, mut random: Random) -> Result<()> {
        let mut next = Instant::now() + every;
        while self.goes_on() {
            std::thread::sleep(Duration::from_millis(2));
            if Instant::now() < next {
                continue;
            }
            match random.below(10) {
                0..5 => {
                    self.store.flush().context("a flush")?;
                    self.counts.flushes.fetch_add(1, Relaxed);
                }
                5..7 => {
                    self.store.compact().context("a compaction")?;
                    self.counts.compacts.fetch_add(1, Relaxed);
                }
                _ => self.check_checkpoint().context("a checkpoint")?,
            }
            let micros = every.as_micros() as u64;
            next = Instant::now() + Duration::from_micros(micros / 2 + random.below(micros));
        }
        Ok(())
    }

    /// What a checkpoint holds is what there was while it was made.
    fn check_checkpoint(&self) -> Result<()> {
        let Some(dir) = &self.checkpoints else { return Ok(()) };
        let _ = std::fs::remove_dir_all(dir);
        let groups = 0..self.model.groups;
        let from: Vec<u32> = groups.clone().map(|group| self.ledger.acknowledged(group)).collect();
        self.store.checkpoint(dir)?;
        let to = self.ledger.all_begun();
        let copy = Store::open(Arc::clone(&self.vfs), dir, self.options.clone())?;
        check_all(&copy, &self.model, |group| from[group as usize]..=to[group as usize])?;
        drop(copy);
        std::fs::remove_dir_all(dir)?;
        self.counts.checkpoints.fetch_add(1, Relaxed);
        Ok(())
    }
}

/// A snapshot, and what it may show of some groups.
struct Held {
    snapshot: Snapshot,
    acknowledged: BTreeMap<u32, u32>,
    begun: BTreeMap<u32, u32>,
    seen: Option<Vec<u32>>,
}

/// Checks rows by group. Other groups than these must not be there.
fn check_rows(
    model: &Model,
    rows: Vec<(Bytes, Bytes)>,
    versions: impl Iterator<Item = (u32, RangeInclusive<u32>)>,
) -> Result<BTreeMap<u32, Found>> {
    let of_group =
        |(group, versions)| (group, (vec![None; model.members(group) as usize], versions));
    let mut groups: BTreeMap<u32, (Vec<Option<Bytes>>, _)> = versions.map(of_group).collect();
    for (key, value) in rows {
        let (group, member) = model.parse(&key)?;
        let Some((members, _)) = groups.get_mut(&group) else {
            anyhow::bail!("group {group} is none that was asked for");
        };
        members[member as usize] = Some(value);
    }
    let check = |(group, (found, versions)): (u32, (Vec<_>, _))| {
        Ok((group, model.check(group, &found, versions)?))
    };
    groups.into_iter().map(check).collect()
}

/// Reads all of a store and checks each group. Answers with what they are.
pub(crate) fn check_all(
    store: &Store,
    model: &Model,
    versions: impl Fn(u32) -> RangeInclusive<u32>,
) -> Result<BTreeMap<u32, Found>> {
    let rows = store.scan(.., Direction::Forwards)?;
    let rows = rows.collect::<kvorum_storage::Result<Vec<_>>>()?;
    let mut backwards = store.scan(.., Direction::Backwards)?;
    for row in rows.iter().rev() {
        let other = backwards.next().context("a scan backwards that is shorter")??;
        ensure!(*row == other, "{:?} backwards is {:?}", row.0, other.0);
    }
    ensure!(backwards.next().is_none(), "a scan backwards that is longer");
    let versions = (0..model.groups).map(|group| (group, versions(group)));
    let found = check_rows(model, rows, versions)?;
    let report = store.verify()?;
    ensure!(report.problems.is_empty(), "verify finds {:?}", report.problems);
    Ok(found)
}
