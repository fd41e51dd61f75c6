//! Our own engine, embedded, with threads for its background work as a program would have them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use kvorum_storage::vfs::RealVfs;
use kvorum_storage::{Batch, Direction, Durability, Maintained, Options, Snapshot, Store};

use crate::engine::{Engine, Reader, Seen, Settings, Work};
use crate::load::{Entries, Key};

/// As many as the peers are given.
const BACKGROUND_THREADS: usize = 2;

/// A thread with nothing to do looks again after so long.
const IDLE: Duration = Duration::from_millis(100);

pub(crate) struct Kvorum {
    store: Arc<Store>,
    background: Arc<Background>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Background {
    stop: AtomicBool,
    busy: AtomicUsize,
}

impl Kvorum {
    pub(crate) fn open(dir: &Path, settings: Settings) -> Result<Kvorum> {
        let options = Options { memtable_bytes: settings.write_buffer_bytes, ..Options::default() };
        let store = Arc::new(Store::open(Arc::new(RealVfs), dir, options)?);
        let background = Arc::new(Background::default());
        let start = |_| {
            let (store, background) = (Arc::clone(&store), Arc::clone(&background));
            std::thread::spawn(move || background.work(&store))
        };
        let threads = (0..BACKGROUND_THREADS).map(start).collect();
        Ok(Kvorum { store, background, threads })
    }
}

impl Background {
    fn work(&self, store: &Store) {
        while !self.stop.load(SeqCst) {
            store.wait_for_maintenance(IDLE);
            self.busy.fetch_add(1, SeqCst);
            while self.unit(store) {}
            self.busy.fetch_sub(1, SeqCst);
        }
    }

    /// Whether there was a unit of work, and there may be another one.
    fn unit(&self, store: &Store) -> bool {
        let did = store.maintain().expect("this disk works");
        did != Maintained::Nothing && !self.stop.load(SeqCst)
    }
}

impl Drop for Kvorum {
    fn drop(&mut self) {
        self.background.stop.store(true, SeqCst);
        for thread in self.threads.drain(..) {
            self.store.wake_maintenance();
            if thread.join().is_err() {
                eprintln!("a background thread panicked");
            }
        }
    }
}

impl Engine for Kvorum {
    fn write(&self, entries: &Entries) -> Result<()> {
        let mut batch = Batch::new();
        for (key, value) in entries.iter() {
            batch.put(key.to_vec(), value.to_vec());
        }
        self.store.write(batch, Durability::Sync)?;
        Ok(())
    }

    fn read(&self, view: Seen, work: &mut Work<'_>) -> Result<()> {
        match view {
            Seen::Latest => work(&mut Latest(&self.store)),
            Seen::Snapshot => work(&mut Old(self.store.snapshot())),
        }
    }

    fn settle(&self) -> Result<()> {
        self.store.flush()?;
        while self.store.maintain()? != Maintained::Nothing || self.background.busy.load(SeqCst) > 0
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

struct Latest<'a>(&'a Store);

impl Reader for Latest<'_> {
    fn get(&mut self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get(key)?.map(|value| found(&value)).is_some())
    }

    fn scan(&mut self, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        for entry in self.0.scan(from.as_slice().., Direction::Forwards)? {
            let (key, value) = entry?;
            if !each(&key, &value) {
                break;
            }
        }
        Ok(())
    }
}

struct Old(Snapshot);

impl Reader for Old {
    fn get(&mut self, key: &Key, found: &mut dyn FnMut(&[u8])) -> Result<bool> {
        Ok(self.0.get(key)?.map(|value| found(&value)).is_some())
    }

    fn scan(&mut self, from: &Key, each: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        for entry in self.0.scan(from.as_slice().., Direction::Forwards)? {
            let (key, value) = entry?;
            if !each(&key, &value) {
                break;
            }
        }
        Ok(())
    }
}
