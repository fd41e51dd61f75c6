//! Rows that are put aside to become the store: written like any other segments, and named by the
//! manifest, once they are sealed, beside the tree and not in it.
//!
//! ```text
//!           stage(first)        stage                 seal               install
//! nothing ──────────────► open ───────► open ─────────────────► sealed ──────────► the store
//!                           │                                      │
//!                           └─ a crash: the files are orphans      └─ a crash: waits for the
//!                                                                     same install
//! ```
//!
//! All of them have the same sequence, the smallest: nothing older is ever in one tree with them.
//! That also tells them from what was flushed, in which no two entries have the same.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::sorted::{SortedRows, check_row};
use super::{Inner, Store, lock};
use crate::error::{Error, Result};
use crate::key::{Kind, SEQUENCE_STAGED};
use crate::manifest::Staged;

/// How far staging has come in this process. What is sealed is in the manifest.
#[derive(Default)]
pub(super) enum Staging {
    /// Nothing was staged since the last seal, or since the store was opened.
    #[default]
    Nothing,
    Open(Box<SortedRows>),
    /// It failed, and its files were removed: going on would leave rows out.
    BrokenOff {
        why: String,
    },
}

impl Staging {
    fn begin() -> Staging {
        Staging::Open(Box::new(SortedRows::new(SEQUENCE_STAGED)))
    }
}

impl Store {
    /// Puts rows aside for [`Store::install`], behind those that were staged before, by rising keys.
    /// No reader sees them, and [`Store::flush`] and compaction leave them alone. With `first`, what
    /// was staged before is thrown away, sealed or not; so `stage(true, &[])` gives its room back.
    ///
    /// The rows go to segment files as they come: memory holds a piece of one file. A crash before
    /// [`Store::seal_staged`] throws them away. So does an error that is not [`Error::Invalid`], which
    /// else leaves the store as it is: staging then begins again with `first`.
    pub fn stage(&self, first: bool, rows: &[(Bytes, Bytes)]) -> Result<()> {
        let inner = &self.inner;
        inner.refuse_embedded("rows are staged")?;
        inner.check_poison()?;
        let mut staging = lock(&inner.staging);
        let behind = if first { None } else { inner.open_staging(&mut staging)?.last_key() };
        check_rows(behind, rows)?;
        if first {
            inner.throw_staged_away(&mut staging)?;
            *staging = Staging::begin();
        }
        let open = inner.open_staging(&mut staging)?;
        let written = rows.iter().try_for_each(|(key, value)| inner.stage_row(open, key, value));
        written.inspect_err(|error| inner.break_staging_off(&mut staging, error))
    }

    /// Makes what is staged durable, under this mark: a crash leaves it to [`Store::install`], or to
    /// the next [`Store::stage`] that is `first`. Nothing staged is the empty store. No more rows can
    /// be staged to these. Doing it again with the same mark does nothing.
    ///
    /// After an error nothing is sealed and what was staged is gone; but after one that leaves the
    /// disk in doubt, the next opening may find it sealed.
    pub fn seal_staged(&self, mark: u64) -> Result<()> {
        let inner = &self.inner;
        inner.refuse_embedded("staged rows are sealed")?;
        inner.check_poison()?;
        let mut staging = lock(&inner.staging);
        let sealed = self.sealed_mark();
        if matches!(*staging, Staging::Nothing)
            && let Some(sealed) = sealed
        {
            return match sealed == mark {
                true => Ok(()),
                false => Err(Error::invalid(format!(
                    "mark {mark} cannot be sealed: what is staged is sealed under mark {sealed}"
                ))),
            };
        }
        if matches!(*staging, Staging::Nothing) {
            *staging = Staging::begin();
        }
        let open = inner.open_staging(&mut staging)?;
        let result = inner.seal(open, mark);
        match result {
            Ok(()) => *staging = Staging::Nothing,
            Err(ref error) => inner.break_staging_off(&mut staging, error),
        }
        result
    }

    /// The mark under which staged rows are sealed and wait for their [`Store::install`].
    #[must_use]
    pub fn sealed_mark(&self) -> Option<u64> {
        lock(&self.inner.manifest).staged.as_ref().map(|staged| staged.mark)
    }
}

impl Inner {
    pub(super) fn refuse_embedded(&self, what: &str) -> Result<()> {
        if !self.embedded {
            return Ok(());
        }
        Err(Error::invalid(format!("{what} under an owner's log only: `open_with_replay`")))
    }

    /// What rows can be added to.
    fn open_staging<'a>(&self, staging: &'a mut Staging) -> Result<&'a mut SortedRows> {
        let what = match staging {
            Staging::Open(open) => return Ok(open),
            Staging::BrokenOff { why } => {
                format!("staging was broken off and must begin again: {why}")
            }
            Staging::Nothing => match &lock(&self.manifest).staged {
                Some(sealed) => format!("what is staged is sealed under mark {}", sealed.mark),
                None => "no staging has begun that these rows could go on".to_owned(),
            },
        };
        Err(Error::invalid(what))
    }

    fn stage_row(&self, open: &mut SortedRows, key: &[u8], value: &[u8]) -> Result<()> {
        let grown = open.add(self, key, Kind::Put, value)?;
        self.counters.staged_bytes.fetch_add(grown, Relaxed);
        self.counters.staged_rows.fetch_add(1, Relaxed);
        Ok(())
    }

    fn seal(&self, open: &mut SortedRows, mark: u64) -> Result<()> {
        let segments = open.finish(self)?;
        self.name_staged(Some(Staged { mark, segments }))
    }

    /// Writes a manifest that differs in what is staged.
    fn name_staged(&self, staged: Option<Staged>) -> Result<()> {
        let mut manifest = lock(&self.manifest);
        let mut next = manifest.clone();
        next.generation += 1;
        next.next_segment = self.next_segment_id();
        next.staged = staged;
        next.write(&*self.vfs, &self.dir, self.options.planted)?;
        *manifest = next;
        Ok(())
    }

    /// Throws away what is staged, sealed or not. After an error what is sealed still is.
    fn throw_staged_away(&self, staging: &mut Staging) -> Result<()> {
        let mut ids = match std::mem::take(staging) {
            Staging::Open(open) => open.into_ids(),
            Staging::Nothing | Staging::BrokenOff { .. } => Vec::new(),
        };
        let sealed = lock(&self.manifest).staged.clone();
        let mut result = Ok(());
        if let Some(sealed) = sealed {
            result = self.name_staged(None).inspect_err(|error| self.poison_if_in_doubt(error));
            if result.is_ok() {
                ids.extend(sealed.segments.iter().map(|segment| segment.id));
            }
        }
        self.remove_staged(&ids);
        result
    }

    /// After an error: staging is not what its owner believes it is any more.
    fn break_staging_off(&self, staging: &mut Staging, error: &Error) {
        self.poison_if_in_doubt(error);
        let broken = Staging::BrokenOff { why: error.to_string() };
        let Staging::Open(open) = std::mem::replace(staging, broken) else { return };
        // Where it is not known which manifest is there, it may be one that names the files.
        if self.poison.get().is_none() {
            self.remove_staged(&open.into_ids());
        }
    }

    fn remove_staged(&self, ids: &[u64]) {
        self.remove_unnamed(ids);
        self.counters.forget_staged();
    }
}

/// Whether all can be stored, one behind the other.
fn check_rows(behind: Option<&[u8]>, rows: &[(Bytes, Bytes)]) -> Result<()> {
    let mut last = behind;
    for (key, value) in rows {
        check_row("staged", last, key, value)?;
        last = Some(key);
    }
    Ok(())
}
