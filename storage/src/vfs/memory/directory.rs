//! A directory's entries: those that programs see, those that a crash leaves, and the changes that
//! lie between.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::content::Content;
use super::{Crash, CrashMode};

/// A file without its names.
#[derive(Default)]
pub(super) struct Inode {
    content: Mutex<Content>,
}

impl Inode {
    pub(super) fn new(content: Content) -> Self {
        Self { content: Mutex::new(content) }
    }

    pub(super) fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Entries = BTreeMap<String, Arc<Inode>>;

#[derive(Default)]
pub(super) struct Directory {
    current: Entries,
    durable: Entries,
    /// What made `current` out of `durable`.
    changes: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Insert { name: String, inode: Arc<Inode> },
    Remove { name: String },
    Rename { from: String, to: String, inode: Arc<Inode> },
}

impl Change {
    fn inode(&mut self) -> Option<&mut Arc<Inode>> {
        match self {
            Self::Insert { inode, .. } | Self::Rename { inode, .. } => Some(inode),
            Self::Remove { .. } => None,
        }
    }

    fn apply(&self, entries: &mut Entries) {
        match self {
            Self::Insert { name, inode } => {
                entries.insert(name.clone(), Arc::clone(inode));
            }
            Self::Remove { name } => {
                entries.remove(name);
            }
            Self::Rename { from, to, inode } => {
                entries.remove(from);
                entries.insert(to.clone(), Arc::clone(inode));
            }
        }
    }
}

impl Directory {
    pub(super) fn get(&self, name: &str) -> Option<Arc<Inode>> {
        self.current.get(name).cloned()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.current.keys().map(String::as_str)
    }

    pub(super) fn create(&mut self, name: &str) -> io::Result<Arc<Inode>> {
        let inode = Arc::new(Inode::default());
        self.link(name, Arc::clone(&inode))?;
        Ok(inode)
    }

    pub(super) fn link(&mut self, name: &str, inode: Arc<Inode>) -> io::Result<()> {
        if self.current.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(Change::Insert { name: name.to_owned(), inode });
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        if !self.current.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.change(Change::Remove { name: name.to_owned() });
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let inode = self.get(from).ok_or(io::ErrorKind::NotFound)?;
        self.change(Change::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.current);
        self.changes.push(change);
    }

    pub(super) fn sync(&mut self) {
        self.changes.clear();
        self.durable.clone_from(&self.current);
    }

    pub(super) fn unsynced(&self) -> usize {
        let writes = self.current.values().map(|inode| inode.content().unsynced());
        self.changes.len() + writes.sum::<usize>()
    }

    pub(super) fn crash_image(&self, crash: &mut Crash) -> Self {
        if crash.mode == CrashMode::KeepAll {
            return self.copy(crash);
        }
        let mut entries = self.durable.clone();
        for change in self.surviving(crash) {
            change.apply(&mut entries);
        }
        crash.copy_all(entries.values_mut());
        Self { current: entries.clone(), durable: entries, changes: Vec::new() }
    }

    fn copy(&self, crash: &mut Crash) -> Self {
        let mut copy = Self {
            current: self.current.clone(),
            durable: self.durable.clone(),
            changes: self.changes.clone(),
        };
        crash.copy_all(copy.current.values_mut());
        crash.copy_all(copy.durable.values_mut());
        crash.copy_all(copy.changes.iter_mut().filter_map(Change::inode));
        copy
    }

    /// Journals keep the order of changes, so a prefix survives; simpler file systems keep none.
    fn surviving(&self, crash: &mut Crash) -> Vec<&Change> {
        let random = match crash.mode {
            CrashMode::LoseUnsynced => return Vec::new(),
            CrashMode::KeepAll => return self.changes.iter().collect(),
            CrashMode::Random { .. } => &mut crash.random,
        };
        if random.one_in(2) {
            self.changes.iter().take(random.up_to(self.changes.len())).collect()
        } else {
            self.changes.iter().filter(|_| random.one_in(2)).collect()
        }
    }
}
