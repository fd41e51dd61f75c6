//! The store: applied batches in memtables, flushed ones in segments, and the log behind both.
//!
//! ```text
//! apply ─► memtable ─full─► frozen memtables ─flush─► level 0 ─compaction─► levels 1 to 6
//!                                                └──► manifest ──► log cut
//! stage ─► staged segments ─seal─► manifest ─install─► all of the above
//! ```
//!
//! Readers take the current [`View`] without a lock or a count that they share, and then need no
//! lock at all. Writers get their places one at a time, and insert beside each other. One flush and
//! any number of compactions, of which none touches what another works on, run beside each other and
//! beside readers and writers, on whatever threads call [`Store::maintain`]; the store has no thread
//! of its own.

mod background;
mod checkpoint;
mod compact;
mod in_flight;
mod ingest;
mod install;
mod maintain;
mod meter;
mod open;
mod pressure;
mod read_view;
mod release;
mod replay;
mod signal;
mod sorted;
mod staging;
mod stats;
mod table;
mod verify;
mod view;
mod write;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::Guard;
use bytes::Bytes;

use self::compact::Compactions;
use self::in_flight::InFlight;
use self::install::Outdated;
use self::meter::Meter;
use self::pressure::Throttle;
use self::release::Releases;
use self::signal::Signal;
use self::staging::Staging;
use self::stats::Counters;
use self::write::Applied;
use crate::cursor::Direction;
use crate::error::{Error, Result};
use crate::key::Sequence;
use crate::log::{Log, Position};
use crate::manifest::Manifest;
use crate::options::Options;
use crate::planted::Planted;
use crate::range::KeyRange;
use crate::scan::{Cursor, Scan};
use crate::segment::BlockCache;
use crate::snapshot::{Snapshot, Snapshots};
use crate::vfs::{Vfs, VfsLock};

pub use self::background::{Maintenance, MaintenanceOptions, OnFailure};
pub use self::ingest::{Ingest, Ingested};
pub use self::maintain::{Maintained, Work};
pub use self::open::Recovery;
pub(crate) use self::open::{LOCK, LOG, SEGMENTS};
pub use self::pressure::{PRESSURE_BYTES, Pressure};
pub use self::read_view::ReadView;
pub use self::stats::{FilterStats, LatencyStats, LevelStats, Stats};
pub use self::verify::{VerifyProgress, VerifyReport};
use self::view::CurrentView;
pub(crate) use self::view::View;
pub use self::write::{Durability, WRITE_BATCH};

/// An open store. Clones are handles to the same one; it closes when the last is dropped.
///
/// Dropping it flushes nothing: what was not flushed is in the log.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// Locks are taken in the order of these fields. Only who tries, and does not wait, takes `flushing`
/// in the middle of a compaction.
pub(crate) struct Inner {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    segments_dir: PathBuf,
    options: Options,
    log: Arc<Log>,
    /// Whether the store replays and releases the log by itself.
    embedded: bool,
    /// Whether an embedded store still reads its log: then it must not cut it.
    replaying: AtomicBool,
    /// Batches up to this mark were in segments when the store was opened.
    flushed_at_open: u64,
    /// Where the log ended when the store was opened.
    last_at_open: Position,

    /// Held by the one flush.
    flushing: Mutex<()>,
    /// Held by the one who stages.
    staging: Mutex<Staging>,
    /// Whether there is an [`Ingest`].
    ingesting: AtomicBool,
    /// Held by who applies, or gives a write its place.
    applied: Mutex<Applied>,
    /// What is being compacted, and by how many.
    compactions: Compactions,
    /// Embedded writes that have their place and are not visible yet.
    in_flight: InFlight,
    /// Held while the tree is changed, on disk and in memory.
    manifest: Mutex<Manifest>,
    releases: Mutex<Releases>,
    pub(crate) snapshots: Snapshots,
    /// Blocks that were decompressed.
    cache: Arc<BlockCache>,
    view: CurrentView,
    /// Files to be removed.
    outdated: Mutex<Vec<Outdated>>,

    /// The last sequence that readers may see.
    visible: AtomicU64,
    flushed_mark: AtomicU64,
    next_segment: AtomicU64,
    /// How many entries the flush under way has written.
    flushed_entries: AtomicU64,
    /// Holds embedded writers back while there is too much to do.
    throttle: Throttle,
    /// The length of the log after it was last flushed for being too long.
    log_bytes_flushed: AtomicU64,
    /// Why nothing more is written, once a write of ours failed in doubt.
    poison: OnceLock<(PathBuf, String)>,
    signal: Signal,
    counters: Counters,
    meter: Meter,
    _lock: Box<dyn VfsLock>,
}

impl Store {
    /// The log in which this store's batches stand.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.inner.log
    }

    /// The directory it was opened in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The key's value. It lies where it was found, without a copy, and keeps that alive.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let (view, sequence) = self.inner.now();
        self.inner.meter.get(key, (&view, sequence), || view.get(key, sequence))
    }

    /// What `found` makes of the key's value, which it sees where it lies: nothing is copied,
    /// allocated or counted. Not called if the key is not there.
    pub fn get_with<T>(&self, key: &[u8], found: impl FnOnce(&[u8]) -> T) -> Result<Option<T>> {
        let (view, sequence) = self.inner.now();
        self.inner.meter.get(key, (&view, sequence), || view.get_with(key, sequence, found))
    }

    /// The keys of a range and their values, as they are now.
    pub fn scan(&self, range: impl Into<KeyRange>, direction: Direction) -> Result<Scan> {
        Scan::new(self.cursor(range), direction)
    }

    /// The keys that begin so, from the smallest up, and their values, as they are now.
    pub fn scan_prefix(&self, prefix: impl AsRef<[u8]>) -> Result<Scan> {
        self.scan(KeyRange::prefix(prefix.as_ref()), Direction::Forwards)
    }

    /// Walks a range both ways, as it is now.
    #[must_use]
    pub fn cursor(&self, range: impl Into<KeyRange>) -> Cursor {
        let (view, sequence) = self.inner.now();
        view.cursor(range.into(), sequence)
    }

    /// What there is now, held for many reads of one moment: each is then as cheap as can be.
    #[must_use]
    pub fn read_view(&self) -> ReadView {
        let (view, sequence) = self.inner.now();
        ReadView::new(Guard::into_inner(view), sequence)
    }

    /// The store as it is now, to be read for as long as one likes.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(&self.inner)
    }

    /// Every batch with this mark or a smaller one is in segments: it need not be applied again
    /// after a crash.
    #[must_use]
    pub fn flushed_mark(&self) -> u64 {
        self.inner.flushed_mark.load(Acquire)
    }
}

impl Inner {
    pub(crate) fn planted(&self) -> Planted {
        self.options.planted
    }

    pub(crate) fn visible(&self) -> Sequence {
        self.visible.load(Acquire)
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.get()
    }

    /// The view for a moment, without a count: see [`CurrentView::borrow`].
    pub(crate) fn borrow_view(&self) -> Guard<Arc<View>> {
        self.view.borrow()
    }

    /// A view, and the sequence at which to read it without being registered as a snapshot.
    ///
    /// The view must come first. Compactions keep what is visible when they begin, so a view's
    /// segments lack nothing at any later sequence; and a batch that is visible but not in the
    /// view came after all that is in it, so that what is read is a moment between the two steps.
    fn now(&self) -> (Guard<Arc<View>>, Sequence) {
        let view = self.borrow_view();
        let sequence = self.visible();
        (view, sequence)
    }

    /// Makes the next view. `change` must not read or write the disk: who makes the one after it
    /// waits.
    fn change_view(&self, change: impl FnOnce(&Arc<View>) -> View) {
        self.view.replace(change);
    }

    fn check_poison(&self) -> Result<()> {
        match self.poison.get() {
            Some((path, why)) => Err(Error::Poisoned { path: path.clone(), why: why.clone() }),
            None => Ok(()),
        }
    }

    /// After a failure in doubt nothing more is written: a sync that failed once proves nothing by
    /// succeeding later, and after a failed renaming it is unknown which manifest is there. A full
    /// disk is not in doubt, nor is a file that could not be opened or created.
    fn poison_if_in_doubt(&self, error: &Error) {
        if let Error::Io { doing: "write" | "sync" | "rename", path, .. } = error {
            self.poison.get_or_init(|| (path.clone(), error.to_string()));
        }
    }

    fn next_segment_id(&self) -> u64 {
        self.next_segment.load(Relaxed)
    }
}

/// Locks a mutex. A thread that panicked while it held one of ours left nothing half done: what
/// these locks guard is changed in single steps, after everything that can fail. Only
/// [`Inner::writer`] is another matter.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
