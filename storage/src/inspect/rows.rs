//! The rows that a store would show, read without opening it.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;

use bytes::Bytes;

use super::{Directory, Entries};
use crate::batch::{Batch, Operation};
use crate::error::Result;
use crate::key::Kind;
use crate::manifest;
use crate::segment::{Entry, LostKeys};

/// What the log says beyond the segments: the newest word on each key. Held in memory.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    flushed_mark: u64,
    sealed_mark: Option<u64>,
    /// What lies under it.
    base: Base,
    rows: BTreeMap<Bytes, Option<Bytes>>,
}

/// What an overlay lies over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Base {
    /// The tree.
    #[default]
    Tree,
    /// The staged segments: the log says to install them.
    Staged,
    /// The tree, although the log says to install rows of this mark, which are not there.
    InsteadOf(u64),
}

impl Overlay {
    /// Takes over a batch, as [`Store::apply`](crate::Store::apply) would: marks rise, and what is
    /// in segments already is passed over.
    pub fn apply(&mut self, mark: u64, batch: &Batch) {
        if mark <= self.flushed_mark {
            return;
        }
        for operation in batch.operations() {
            match operation {
                Operation::Put { key, value } => {
                    self.rows.insert(key.clone(), Some(value.clone()));
                }
                Operation::Delete { key } => {
                    self.rows.insert(key.clone(), None);
                }
            }
        }
    }

    /// Puts the rows that are sealed under this mark in the place of all, as
    /// [`Store::install`](crate::Store::install) would. If there are none, what was there is still
    /// shown, and counted as lost.
    pub fn install(&mut self, mark: u64) {
        if mark <= self.flushed_mark {
            return;
        }
        if self.sealed_mark == Some(mark) {
            self.rows.clear();
            self.base = Base::Staged;
        } else {
            self.base = Base::InsteadOf(mark);
        }
    }
}

/// Walks the rows in the order of their keys.
pub struct Rows<'a> {
    entries: Entries<'a>,
    entry: Option<Entry>,
    overlay: Peekable<btree_map::Range<'a, Bytes, Option<Bytes>>>,
    last_key: Option<Bytes>,
    prefix: Bytes,
}

impl Directory {
    /// An overlay into which to apply what the log says.
    #[must_use]
    pub fn overlay(&self) -> Overlay {
        Overlay {
            flushed_mark: self.flushed_mark(),
            sealed_mark: self.sealed_mark(),
            base: Base::Tree,
            rows: BTreeMap::new(),
        }
    }

    /// The rows whose keys begin with `prefix`, of the segments and of what lies over them.
    pub fn rows<'a>(&'a self, overlay: &'a Overlay, prefix: &[u8]) -> Result<Rows<'a>> {
        let prefix = Bytes::copy_from_slice(prefix);
        let mut entries = match overlay.base {
            Base::Tree | Base::InsteadOf(_) => Entries::of_tree(self, prefix.clone())?,
            Base::Staged => Entries::of_staged(self, prefix.clone())?,
        };
        if let Base::InsteadOf(mark) = overlay.base {
            let why = format!("the log installs the rows of mark {mark}, which are not staged");
            let file = self.path().join(manifest::NAME);
            entries.lost.push(LostKeys { file, offset: 0, why, from: Bytes::new(), to: None });
        }
        let entry = entries.next()?;
        let overlay = overlay.rows.range(prefix.clone()..).peekable();
        Ok(Rows { entries, entry, overlay, last_key: None, prefix })
    }
}

impl Rows<'_> {
    /// The next row; none at the end.
    #[expect(clippy::should_implement_trait, reason = "it can fail, and then must not go on")]
    pub fn next(&mut self) -> Result<Option<(Bytes, Bytes)>> {
        loop {
            let Some((key, value)) = self.next_key()? else { return Ok(None) };
            if !key.starts_with(&self.prefix) {
                return Ok(None);
            }
            if let Some(value) = value {
                return Ok(Some((key, value)));
            }
        }
    }

    /// What could not be read since this was last asked. A row among these keys that is shown all
    /// the same may be an old version.
    pub fn take_lost(&mut self) -> Vec<LostKeys> {
        std::mem::take(&mut self.entries.lost)
    }

    /// The next key and the newest word on it: a value, or that it was deleted.
    fn next_key(&mut self) -> Result<Option<(Bytes, Option<Bytes>)>> {
        while let Some(entry) = &self.entry
            && self.last_key.as_ref() == Some(&entry.key)
        {
            self.entry = self.entries.next()?;
        }
        let over = match (self.overlay.peek(), &self.entry) {
            (None, None) => return Ok(None),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some((key, _)), Some(entry)) => **key <= entry.key,
        };
        let found = if over {
            self.overlay.next().map(|(key, value)| (key.clone(), value.clone()))
        } else {
            let entry = std::mem::replace(&mut self.entry, self.entries.next()?);
            entry.map(|entry| (entry.key, (entry.tag.kind() == Kind::Put).then_some(entry.value)))
        };
        self.last_key = found.as_ref().map(|(key, _)| key.clone());
        Ok(found)
    }
}

impl std::fmt::Debug for Rows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rows").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}
