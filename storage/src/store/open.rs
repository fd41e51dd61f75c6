//! Opening: the manifest says what there must be, the log has the rest.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};

use super::compact::Compactions;
use super::in_flight::InFlight;
use super::meter::Meter;
use super::pressure::Throttle;
use super::release::Releases;
use super::signal::Signal;
use super::staging::Staging;
use super::stats::Counters;
use super::write::Applied;
use super::{CurrentView, Inner, Store, View};
use crate::error::{Error, Result};
use crate::levels::Levels;
use crate::log::{Log, RecoveryReport, Replay, ReplayedRecord};
use crate::manifest::{self, Manifest};
use crate::marker;
use crate::memtable::Memtable;
use crate::options::Options;
use crate::planted::Planted;
use crate::segment::{BlockCache, Segment, id_of, path_of};
use crate::snapshot::Snapshots;
use crate::vfs::{Vfs, VfsLock};

pub(crate) const LOCK: &str = "store.lock";
pub(crate) const LOG: &str = "log";
pub(crate) const SEGMENTS: &str = "segments";

/// What the log has that segments may not have: the owner reads it, oldest record first, and
/// applies again what its records say.
pub struct Recovery {
    replay: Replay,
    /// Segments that a crash left behind unfinished, or staged and not sealed, and that were removed.
    pub orphans_removed: usize,
}

impl Recovery {
    /// The next record of the log.
    #[expect(clippy::should_implement_trait, reason = "it can fail, and must not be skipped over")]
    pub fn next(&mut self) -> Result<Option<ReplayedRecord>> {
        self.replay.next()
    }

    /// What was found in the log, a torn end included.
    #[must_use]
    pub fn report(&self) -> &RecoveryReport {
        self.replay.report()
    }
}

impl Store {
    /// Opens the store in a directory, or makes one there, for an owner whose log has records of
    /// its own kinds: it reads them from the [`Recovery`] and calls [`Store::apply`] again.
    ///
    /// While it does, memtables may fill: when [`Store::pressure`] says [`Pressure::Stop`](crate::Pressure::Stop), call
    /// [`Store::maintain`] in between. [`Store::release`] is for afterwards: it would take away
    /// what is still to be read.
    pub fn open_with_replay(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: Options,
    ) -> Result<(Store, Recovery)> {
        open(vfs, dir, options, false)
    }

    /// Opens the store in a directory, or makes one there, for embedded use: it replays the
    /// batches in its log. Records of other kinds are another owner's, and refused.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path, options: Options) -> Result<Store> {
        let (store, recovery) = open(vfs, dir, options, true)?;
        store.inner.replay(recovery)?;
        store.inner.replaying.store(false, Relaxed);
        Ok(store)
    }
}

fn open(
    vfs: Arc<dyn Vfs>,
    dir: &Path,
    options: Options,
    embedded: bool,
) -> Result<(Store, Recovery)> {
    options.validate()?;
    let (segments_dir, log_dir) = (dir.join(SEGMENTS), dir.join(LOG));
    if !options.create_if_missing && Manifest::read(&*vfs, dir)?.is_none() {
        return Err(Error::Missing { file: dir.join(manifest::NAME) });
    }
    for dir in [&segments_dir, &log_dir] {
        create_dir_durably(&*vfs, dir)?;
    }
    let lock = lock_dir(&*vfs, dir)?;
    marker::refuse(&*vfs, dir)?;
    let mut manifest = match Manifest::read(&*vfs, dir)? {
        Some(manifest) => {
            // It may have been renamed by a process that died before it could sync that. It must
            // not be lost any more once segments are removed that only the one before it names.
            vfs.sync_dir(dir).map_err(Error::io("sync the directory", dir))?;
            manifest
        }
        None => begin(&*vfs, dir, options.planted)?,
    };
    // Embedded, marks are positions; beyond the log the next one would fall behind them.
    if embedded && manifest.flushed_mark > manifest.flushed_position.0 {
        let what = "the flushed mark is that of a record behind the flushed ones";
        return Err(Error::corrupt(&dir.join(manifest::NAME), 0, what));
    }
    if manifest.generation > 1 && !has_files(&*vfs, &log_dir)? {
        return Err(Error::Missing { file: log_dir });
    }
    let cache = Arc::new(BlockCache::new(options.block_cache_bytes));
    let levels = open_segments(&*vfs, &segments_dir, &manifest, &cache, options.planted)?;
    // They may be installed at once, and are kept until then: what can be seen now is said now.
    for staged in manifest.staged.iter().flat_map(|staged| &staged.segments) {
        Segment::open(&*vfs, &segments_dir, staged.clone(), &cache, options.planted)?;
    }
    if let Some((level, a, b)) = levels.overlap() {
        let what = format!("segments {a:#x} and {b:#x} of level {level} overlap");
        return Err(Error::corrupt(&dir.join(manifest::NAME), 0, what));
    }
    let (log, replay) = Log::open(Arc::clone(&vfs), &log_dir, options.log)?;
    check_log(&log, &manifest, &log_dir)?;
    let (orphans_removed, next_segment) = remove_orphans(&*vfs, &segments_dir, &manifest)?;
    if manifest.generation == 1 {
        // From now on a log that is not there is a log that was lost.
        manifest.generation = 2;
        manifest.write(&*vfs, dir, options.planted)?;
    }
    let view = View {
        installs: 0,
        active: Arc::new(Memtable::new()),
        frozen: Vec::new(),
        excess: options.limits().excess(&levels.shape()),
        levels: Arc::new(levels),
    };
    let applied = Applied {
        last_sequence: manifest.last_sequence,
        last_mark: manifest.flushed_mark,
        last_synced: log.last(),
    };
    let inner = Inner {
        vfs,
        dir: dir.to_path_buf(),
        segments_dir,
        last_at_open: log.last(),
        log: Arc::new(log),
        embedded,
        replaying: AtomicBool::new(true),
        flushed_at_open: manifest.flushed_mark,
        flushing: Mutex::new(()),
        compactions: Compactions::default(),
        staging: Mutex::new(Staging::default()),
        ingesting: AtomicBool::new(false),
        applied: Mutex::new(applied),
        in_flight: InFlight::new(embedded),
        releases: Mutex::new(Releases::default()),
        snapshots: Snapshots::default(),
        cache,
        view: CurrentView::new(view),
        outdated: Mutex::new(Vec::new()),
        visible: AtomicU64::new(manifest.last_sequence),
        flushed_mark: AtomicU64::new(manifest.flushed_mark),
        next_segment: AtomicU64::new(next_segment),
        flushed_entries: AtomicU64::new(0),
        throttle: Throttle::default(),
        log_bytes_flushed: AtomicU64::new(0),
        counters: Counters::at_opening(manifest.staged.as_ref()),
        manifest: Mutex::new(manifest),
        meter: Meter::default(),
        poison: OnceLock::new(),
        signal: Signal::default(),
        options,
        _lock: lock,
    };
    // There may be compactions that the last owner had no time for.
    inner.signal.raise();
    Ok((Store { inner: Arc::new(inner) }, Recovery { replay, orphans_removed }))
}

/// Makes a directory and its parents, so that those that are new are there after a crash.
pub(super) fn create_dir_durably(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    let new = dir.ancestors().take_while(|it| vfs.list(or_here(it)).is_err()).count();
    vfs.create_dir_all(dir).map_err(Error::io("create the directory", dir))?;
    for above in dir.ancestors().skip(1).take(new).map(or_here) {
        vfs.sync_dir(above).map_err(Error::io("sync the directory", above))?;
    }
    Ok(())
}

/// What is above a name without a path is where the process is.
fn or_here(dir: &Path) -> &Path {
    if dir.as_os_str().is_empty() { Path::new(".") } else { dir }
}

fn lock_dir(vfs: &dyn Vfs, dir: &Path) -> Result<Box<dyn VfsLock>> {
    let path = dir.join(LOCK);
    vfs.lock(&path).map_err(|error| match error.kind() {
        ErrorKind::WouldBlock => Error::Locked { path },
        _ => Error::io("lock", &path)(error),
    })
}

/// Makes a new store, unless there are parts of an old one.
fn begin(vfs: &dyn Vfs, dir: &Path, planted: Planted) -> Result<Manifest> {
    let has_segments = !list_segments(vfs, &dir.join(SEGMENTS))?.is_empty();
    if has_segments || has_files(vfs, &dir.join(LOG))? {
        return Err(Error::Missing { file: dir.join(manifest::NAME) });
    }
    // The directories are new: their own entries must last as well.
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    for dir in parent.into_iter().chain([dir]) {
        vfs.sync_dir(dir).map_err(Error::io("sync the directory", dir))?;
    }
    let manifest = Manifest::new();
    manifest.write(vfs, dir, planted)?;
    Ok(manifest)
}

fn has_files(vfs: &dyn Vfs, dir: &Path) -> Result<bool> {
    let names = vfs.list(dir).map_err(Error::io("list", dir))?;
    Ok(names.iter().any(|name| !name.ends_with(".lock")))
}

fn list_segments(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<u64>> {
    let names = vfs.list(dir).map_err(Error::io("list", dir))?;
    Ok(names.iter().filter_map(|name| id_of(name)).collect())
}

fn open_segments(
    vfs: &dyn Vfs,
    dir: &Path,
    manifest: &Manifest,
    cache: &Arc<BlockCache>,
    planted: Planted,
) -> Result<Levels> {
    let open = |(level, meta): &(usize, _)| {
        let segment = Segment::open(vfs, dir, Clone::clone(meta), cache, planted)?;
        Ok((*level, Arc::new(segment)))
    };
    Ok(Levels::new(manifest.segments.iter().map(open).collect::<Result<Vec<_>>>()?))
}

/// The segments rest on log records that were durable: a log that ends before them lost some. And
/// nothing behind those was cut off: neither may a log begin later.
fn check_log(log: &Log, manifest: &Manifest, log_dir: &Path) -> Result<()> {
    let (first, last, flushed) = (log.first(), log.last(), manifest.flushed_position);
    let what = if last < flushed {
        format!("the log ends at record {last}, but record {flushed} had been durable")
    } else if first > flushed.next() {
        format!("the log begins at record {first}, but record {} was still needed", flushed.next())
    } else {
        return Ok(());
    };
    Err(Error::corrupt(log_dir, 0, what))
}

/// Removes segments that the manifest does not name: a crash came before it did, or after it no
/// longer did. Answers with their number, and an id that no segment ever had.
fn remove_orphans(vfs: &dyn Vfs, dir: &Path, manifest: &Manifest) -> Result<(usize, u64)> {
    let named: BTreeSet<u64> = manifest.ids().collect();
    let (mut removed, mut next) = (0, manifest.next_segment);
    for id in list_segments(vfs, dir)? {
        if named.contains(&id) {
            continue;
        }
        let path = path_of(dir, id);
        vfs.remove(&path).map_err(Error::io("remove", &path))?;
        removed += 1;
        next = next.max(id.saturating_add(1));
    }
    Ok((removed, next))
}
