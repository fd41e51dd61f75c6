//! The log: records in the order in which they were appended, durable before anyone is told.
//!
//! ```text
//!  append ─► group that is forming ─┐ one leader takes all that waits,
//!  append ─►          "             ├─► writes it, a frame a group ─► syncs ─► wakes who waited
//!  append ─►          "             ┘ while the next group forms, and is written by the next leader
//! ```
//!
//! Records are numbered from 1 without gaps. [`Log::append`] only gives a record its [`Position`]
//! and never waits for the disk; [`Log::sync`] returns once the record is durable. Whoever finds
//! nobody writing becomes the leader and works for all who wait (group commit: DeWitt et al. 1984).
//! No one waits for others to join. What may be done at the same time is told in `turn`, and what
//! then counts in `flights`.
//!
//! Where the file system can, frames are written directly to the device, at aligned offsets of a
//! file that had been written to before: a sync then has no page to write back and no map of the
//! file to write, but only to flush the device. Elsewhere they go through the system's cache.
//!
//! # What is promised
//!
//! - What `sync` has answered `Ok` for is there after any crash, and damage to it is reported, never
//!   read as something else and never cut off in silence. Only the very last frames can be taken for
//!   torn when they are damaged: those behind which no later frame, written after their sync, tells
//!   that they had been durable. Opening and closing a log add such a frame if there is none.
//! - After a crash the log is a prefix of what was appended: no record without all before it.
//! - After a failed write or sync nothing more is taken ([`Error::Poisoned`]) until the log is opened
//!   again, and opening writes again what nothing proves to have been synced: a sync is never simply
//!   tried again and believed.
//! - A full disk, or a file that cannot be made, refuses without poisoning: `sync` fails for all who
//!   wait, *the records keep their positions and keep waiting*, and the next `sync` tries again. They
//!   are neither durable nor withdrawn, so an owner must treat their outcome as unknown, and should
//!   ask [`Log::is_refusing`] before it takes on more. [`LogOptions::pending_bytes_max`] bounds what
//!   waits.
//!
//! What the log alone cannot know is that it once began earlier or ended later: whoever deletes its
//! first or last files leaves a good, shorter log. An owner compares [`Log::first`] and [`Log::last`]
//! with what it relies on. And a file that has left the log is written to again under a new name, so
//! a hard link to one is not a copy.
//!
//! The files are drawn in `file` and `frame`; how the end of a log is judged is told in `tail`.

mod options;

mod reach;

mod turn;

mod state;

mod refusal;

mod waiters;

mod flights;

mod leader;

mod maker;

mod open;

mod replay;

mod rewrite;

mod survey;

mod tail;

mod reader;

mod files;

mod file;

mod frame;

mod buffer;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use options::{LogOptions, LogStats};
pub use replay::{RecoveryReport, Replay, ReplayedRecord, TornTail};
pub(crate) use rewrite::Rewriter;
pub use survey::{LogDamage, LogExtent, LogItem, LogSurvey};

use self::file::Name;
use self::files::Files;
use self::frame::Group;
pub(crate) use self::open::LOCK_NAME;
use self::refusal::Poison;
use self::state::{Goal, State};
use self::waiters::Calls;
use crate::error::{Error, Result};
use crate::vfs::{Vfs, VfsLock};

/// Whether a file of this name belongs to a log.
pub(crate) fn is_log_name(name: &str) -> bool {
    name == LOCK_NAME || Name::parse(name).is_some()
}

/// The number of a record in a log. The first is 1; 0 stands before all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The position of the record that follows.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// An open log. Shared by reference among all threads that append to it.
pub struct Log {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    options: LogOptions,
    state: Mutex<State>,
    seen: Seen,
    files: Mutex<Files>,
    /// Held by whoever takes files out of the log.
    truncation: Mutex<()>,
    /// Let go last: while the end is marked nobody else may have the log open.
    _lock: Option<Box<dyn VfsLock>>,
}

/// What the state says of how far the log has come, to be asked without its lock: those who append
/// ask after every record, and the leader holds the lock meanwhile.
#[derive(Debug)]
struct Seen {
    last: AtomicU64,
    durable: AtomicU64,
    is_refusing: AtomicBool,
}

impl Seen {
    fn new(state: &State) -> Self {
        Self {
            last: AtomicU64::new(state.last),
            durable: AtomicU64::new(state.durable()),
            is_refusing: AtomicBool::new(false),
        }
    }

    /// Called with the lock held, so that nothing older comes after something newer.
    fn update(&self, state: &State) {
        self.durable.store(state.durable(), Release);
        self.is_refusing.store(state.refusal.is_some(), Release);
    }
}

// Locks are taken in this order: truncation, files, state. A thread that panicked while it
// held one was a test's hook, or is a bug that `Leading` poisons the log for; so the locks
// themselves need not be poisoned as well.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A record of so many bytes gets a frame of its own, so that it can be copied with nothing locked.
const GROUP_OF_ITS_OWN_BYTES: usize = 32 << 10;

impl Log {
    /// Opens the log in a directory, or begins one. What a crash has torn off its end is cut,
    /// durably, before this returns. The second answer hands back the records.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path, options: LogOptions) -> Result<(Self, Replay)> {
        let opened = open::open(Arc::clone(&vfs), dir, options)?;
        let state = State::new(opened.durable, opened.end);
        let log = Self::assemble(vfs, dir, options, state, opened.files, Some(opened.lock));
        log.mark()?;
        Ok((log, opened.replay))
    }

    fn assemble(
        vfs: Arc<dyn Vfs>,
        dir: &Path,
        options: LogOptions,
        state: State,
        files: Files,
        lock: Option<Box<dyn VfsLock>>,
    ) -> Self {
        Self {
            vfs,
            dir: dir.to_path_buf(),
            options,
            seen: Seen::new(&state),
            state: Mutex::new(state),
            files: Mutex::new(files),
            truncation: Mutex::new(()),
            _lock: lock,
        }
    }

    /// Adds a record to the group that is forming, in memory only.
    pub fn append(&self, kind: u8, payload: &[u8]) -> Result<Position> {
        self.append_parts(kind, &[payload])
    }

    /// Adds a record whose payload is all of `parts`, one behind the other.
    pub fn append_parts(&self, kind: u8, parts: &[&[u8]]) -> Result<Position> {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if bytes > self.options.record_bytes_max {
            return Err(Error::invalid(format!(
                "a log record of {bytes} bytes: at most {} are allowed",
                self.options.record_bytes_max
            )));
        }
        let mut state = lock(&self.state);
        state.admit(bytes, &self.options)?;
        let position = if bytes < GROUP_OF_ITS_OWN_BYTES {
            state.append(kind, parts)
        } else {
            // Copied while others go on.
            let buffer = state.spare();
            drop(state);
            let mut group = Group::new(0, buffer);
            group.push(kind, parts);
            state = lock(&self.state);
            state.admit(bytes, &self.options)?;
            state.append_group(group)
        };
        self.seen.last.store(position, Release);
        Ok(Position(position))
    }

    /// Returns once every record up to `position` is durable.
    pub fn sync(&self, position: Position) -> Result<()> {
        self.reach(position, Goal::Durable)
    }

    /// Hands everything appended so far to the operating system, without syncing: it then survives
    /// the end of the process, but not a power cut.
    pub fn write(&self) -> Result<()> {
        self.reach(self.last(), Goal::Written)
    }

    /// The last position given out; 0 if there is none.
    #[must_use]
    pub fn last(&self) -> Position {
        Position(self.seen.last.load(Acquire))
    }

    /// The last position that is durable.
    #[must_use]
    pub fn durable(&self) -> Position {
        Position(self.seen.durable.load(Acquire))
    }

    /// The position of the oldest record that is still there; of the next one in an empty log.
    #[must_use]
    pub fn first(&self) -> Position {
        Position(lock(&self.files).first())
    }

    /// How many bytes of log files are in use.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let closed = lock(&self.files).closed_bytes();
        closed + lock(&self.state).end.offset
    }

    /// How many bytes wait to be written.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        lock(&self.state).pending_bytes
    }

    /// Whether the disk refused the last attempt to write, for example because it is full. Records
    /// can be appended, but will have to wait.
    #[must_use]
    pub fn is_refusing(&self) -> bool {
        self.seen.is_refusing.load(Acquire)
    }

    /// What the log has done since it was opened.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        lock(&self.state).stats
    }

    /// Whether [`Log::truncate_before`] would take a file out of the log.
    #[must_use]
    pub fn would_cut(&self, position: Position) -> bool {
        lock(&self.files).oldest_before(position.0).is_some()
    }

    /// Takes the files out of the log that hold only records before `position`. The last file always
    /// stays, and with it the number of the next record.
    pub fn truncate_before(&self, position: Position) -> Result<()> {
        let _truncation = lock(&self.truncation);
        loop {
            if let Some(poison) = &lock(&self.state).poison {
                return Err(poison.error());
            }
            let oldest = lock(&self.files).oldest_before(position.0);
            let Some(oldest) = oldest else { return Ok(()) };
            self.retire(oldest.number)?;
        }
    }

    /// Removes files that wait to be used again, all but so many; whether there were more. Their
    /// room is not needed while nobody writes.
    pub fn trim_free_files(&self, keep: usize) -> Result<bool> {
        let _truncation = lock(&self.truncation);
        let surplus = lock(&self.files).take_surplus(keep);
        for path in &surplus {
            self.vfs.remove(path).map_err(Error::io("remove", path))?;
        }
        // That they are gone need not last: a crash that brings them back brings free files.
        Ok(!surplus.is_empty())
    }

    fn retire(&self, number: u64) -> Result<()> {
        let path = Name::Live(number).path(&self.dir);
        let file_bytes = files::length(&*self.vfs, &path)?;
        let recycle = lock(&self.files).recycles(file_bytes, &self.options);
        let retired = files::retire(&*self.vfs, &self.dir, number, recycle);
        match retired {
            Ok(free) => {
                let mut files = lock(&self.files);
                files.live.pop_front();
                free.into_iter().for_each(|path| files.put_free(path));
                Ok(())
            }
            Err(error) => {
                // Nobody knows whether the file has left. If the log went on to use it for new
                // records under a new name, a crash could show them under the old one.
                self.poison(&path, &error.to_string());
                Err(error)
            }
        }
    }

    /// Takes nothing more, and wakes all who wait: whoever was called to lead finds nothing to lead
    /// any more, and would not call the next.
    fn poison(&self, path: &Path, why: &str) {
        let poison = Poison { path: path.to_path_buf(), why: why.to_owned() };
        let mut calls = Calls::default();
        let mut state = lock(&self.state);
        state.poison.get_or_insert(poison);
        state.call(&mut calls);
        drop(state);
        calls.wake();
    }
}

impl Drop for Log {
    /// Marks the end. What was appended and neither written nor synced is lost, as promised.
    fn drop(&mut self) {
        if lock(&self.state).poison.is_none() {
            // If it cannot be marked, damage to the last records is harder to tell from a torn
            // write, and nothing else is lost.
            let _ = self.mark();
        }
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.dir)
            .field("first", &self.first())
            .field("last", &self.last())
            .field("durable", &self.durable())
            .finish_non_exhaustive()
    }
}
