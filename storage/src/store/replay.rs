//! Brings the batches in an embedded store's log back to memtables.
//!
//! Nobody reads them yet, so they are built whole. Where a disk is a real one, a second thread reads
//! ahead: it checks and decodes while this one builds.

use std::sync::Arc;
use std::sync::atomic::Ordering::Release;
use std::sync::mpsc::sync_channel;
use std::thread;

use bytes::Bytes;

use super::maintain::Maintained;
use super::open::Recovery;
use super::write::WRITE_BATCH;
use super::{Inner, LOG, View};
use crate::batch::Batch;
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::key::Sequence;
use crate::log::Position;
use crate::memtable::{Load, Memtable};

/// So much is handed over at once.
const PORTION_BYTES: usize = 256 << 10;
/// So many portions may wait: what is read while a memtable is sorted.
const PORTIONS_MAX: usize = 64;
/// A shorter log is read faster than a thread is made.
const LOG_BYTES_MIN: u64 = 4 << 20;

/// A batch that stands in the log and in no segment.
struct Logged {
    position: Position,
    count: usize,
    stored: Bytes,
}

/// Batches that become one memtable, until it is full.
struct Replaying<'a> {
    inner: &'a Inner,
    load: Load,
    next: Sequence,
}

impl Inner {
    /// Brings the batches in the log to memtables.
    pub(super) fn replay(&self, mut recovery: Recovery) -> Result<()> {
        let next = self.writer().last_sequence + 1;
        let mut replaying = Replaying { inner: self, load: Load::new(), next };
        if !self.vfs.is_simulated() && self.log.bytes() >= LOG_BYTES_MIN {
            self.replay_ahead(&mut recovery, &mut replaying)?;
        }
        // All of it, or what is left if there was no second thread to be had: none.
        loop {
            let portion = self.read_portion(&mut recovery)?;
            if portion.is_empty() {
                break;
            }
            replaying.add(portion)?;
        }
        self.take_over(replaying.load.finish());
        Ok(())
    }

    /// The same, while another thread reads.
    fn replay_ahead(&self, recovery: &mut Recovery, replaying: &mut Replaying<'_>) -> Result<()> {
        thread::scope(|scope| {
            let (send, receive) = sync_channel(PORTIONS_MAX);
            let read = move || {
                loop {
                    let portion = self.read_portion(recovery);
                    let is_over = portion.as_ref().map_or(true, Vec::is_empty);
                    // Nobody takes it any more once there was an error.
                    if send.send(portion).is_err() || is_over {
                        return;
                    }
                }
            };
            let spawned = thread::Builder::new().name("replay".into()).spawn_scoped(scope, read);
            if spawned.is_err() {
                return Ok(());
            }
            for portion in receive {
                replaying.add(portion?)?;
            }
            Ok(())
        })
    }

    /// The next batches of the log; none after the last.
    fn read_portion(&self, recovery: &mut Recovery) -> Result<Vec<Logged>> {
        let (mut portion, mut bytes) = (Vec::new(), 0);
        while bytes < PORTION_BYTES
            && let Some(record) = recovery.next()?
        {
            let position = record.position;
            if record.kind != WRITE_BATCH {
                let kind = record.kind;
                let what = format!(
                    "log record {position} is of kind {kind}, which is not a store's own: the directory belongs to another program"
                );
                return Err(Error::invalid(what));
            }
            if position.0 <= self.flushed_at_open {
                continue;
            }
            // The log's checksum was right, so this is our bug or a version to come.
            let batch = Batch::decode(&record.payload)
                .map_err(Malformed::at(&self.dir.join(LOG), position.0))?;
            let count = batch.len();
            bytes += record.payload.len() + size_of::<Logged>();
            portion.push(Logged { position, count, stored: batch.into_shared() });
        }
        Ok(portion)
    }

    /// Puts a memtable that was built in the place of the active one, which is empty.
    fn take_over(&self, memtable: Memtable) {
        if memtable.is_untouched() {
            return;
        }
        let mut applied = self.writer();
        applied.last_sequence = memtable.last_sequence().max(applied.last_sequence);
        applied.last_mark = memtable.last_mark();
        self.visible.store(applied.last_sequence, Release);
        let active = Arc::new(memtable);
        self.change_view(|view| View {
            installs: view.installs,
            active,
            frozen: view.frozen.clone(),
            levels: Arc::clone(&view.levels),
            excess: view.excess,
        });
    }

    /// Makes room for another memtable, and flushes if there are more than a writer might have left
    /// behind.
    fn freeze_replayed(&self) -> Result<()> {
        let applied = self.writer();
        self.freeze();
        drop(applied);
        while self.view().frozen.len() > self.options.memtables_max {
            if self.maintain()? == Maintained::Nothing {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Replaying<'_> {
    fn add(&mut self, portion: Vec<Logged>) -> Result<()> {
        for Logged { position, count, stored } in portion {
            let bytes = Memtable::bytes_of(count, stored.len());
            let is_full = self.load.bytes() + bytes > self.inner.options.memtable_bytes;
            if is_full && self.load.entries() > 0 {
                let full = std::mem::replace(&mut self.load, Load::new());
                self.inner.take_over(full.finish());
                self.inner.freeze_replayed()?;
            }
            self.load.add(stored, count, self.next, position);
            self.next += count as u64;
        }
        Ok(())
    }
}
