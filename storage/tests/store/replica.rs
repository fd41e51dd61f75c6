//! An owner of a store as a replica is one: a log of its own records, marks that are no positions,
//! and now and then the whole state of somebody else. It remembers what the rows are after each
//! record, so that whatever a crash leaves of the log says what there must be.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kvorum_storage::vfs::Vfs;
use kvorum_storage::{
    Batch, Direction, Operation, Options, Position, Recovery, Result, Snapshot, Store,
};

use crate::support::{DIR, Random, make_room};

/// Kind of the records that hold one batch each, behind its mark.
const BATCH: u8 = 16;
/// Kind of the records that say to install what is sealed under a mark.
const INSTALLED: u8 = 17;

pub(crate) type Rows = BTreeMap<Bytes, Bytes>;

/// What the rows are, as the log has it.
#[derive(Default)]
pub(crate) struct History {
    /// After each record, by position; the first entry is before all.
    rows: Mutex<Vec<Arc<Rows>>>,
    /// Up to here records are durable for sure.
    pub(crate) durable: AtomicU64,
}

impl History {
    pub(crate) fn new() -> Arc<History> {
        let history = History::default();
        history.rows.lock().unwrap().push(Arc::default());
        Arc::new(history)
    }

    pub(crate) fn after(&self, position: u64) -> Arc<Rows> {
        let rows = self.rows.lock().unwrap();
        let known = rows.get(position as usize);
        Arc::clone(known.unwrap_or_else(|| panic!("nobody wrote record {position}")))
    }

    pub(crate) fn last(&self) -> u64 {
        self.rows.lock().unwrap().len() as u64 - 1
    }

    fn push(&self, rows: Rows) {
        self.rows.lock().unwrap().push(Arc::new(rows));
    }

    /// What a crash has taken is written anew.
    fn forget_after(&self, position: u64) {
        self.rows.lock().unwrap().truncate(position as usize + 1);
    }

    fn note_durable(&self, position: Position) {
        self.durable.fetch_max(position.0, SeqCst);
    }
}

pub(crate) struct Replica {
    pub(crate) store: Store,
    pub(crate) history: Arc<History>,
    /// The last one given.
    pub(crate) mark: u64,
    /// What is sealed, and under which mark.
    pub(crate) sealed: Option<(u64, Arc<Rows>)>,
}

impl Replica {
    /// Opens the store, and replays what the log has. The rows must be those after its last record.
    pub(crate) fn open(
        vfs: Arc<dyn Vfs>,
        options: &Options,
        history: Arc<History>,
        context: &str,
    ) -> Replica {
        let opened = Store::open_with_replay(vfs, DIR.as_ref(), options.clone());
        let (store, recovery) = opened.unwrap_or_else(|error| panic!("{context}: {error}"));
        let mark = replay(&store, recovery, context).max(store.flushed_mark());
        let last = store.log().last().0;
        let durable = history.durable.load(SeqCst);
        assert!(last >= durable, "{context}: log ends at {last}, record {durable} was durable");
        let replica = Replica { store, history, mark, sealed: None };
        replica.check_at(last, context);
        replica
    }

    /// All rows, read both ways, and every segment, must be as after this record.
    pub(crate) fn check_at(&self, position: u64, context: &str) {
        let expected = self.history.after(position);
        let rows = read(|direction| self.store.scan(.., direction).unwrap());
        assert_eq!(rows, *expected, "{context}: not the rows after record {position}");
        let report = self.store.verify().unwrap();
        assert!(report.problems.is_empty(), "{context}: {:?}", report.problems);
    }

    pub(crate) fn check(&self, context: &str) {
        self.check_at(self.history.last(), context);
    }

    /// Drops what the log has lost from the history, so that others take its place.
    pub(crate) fn go_on(&self) {
        let last = self.store.log().last();
        self.history.forget_after(last.0);
    }

    pub(crate) fn rows(&self) -> Arc<Rows> {
        self.history.after(self.history.last())
    }

    pub(crate) fn write(&mut self, batch: &Batch, random: &mut Random) -> Result<()> {
        let mut rows = Rows::clone(&self.rows());
        for operation in batch.operations() {
            match operation {
                Operation::Put { key, value } => rows.insert(key.clone(), value.clone()),
                Operation::Delete { key } => rows.remove(key),
            };
        }
        self.mark += 1 + random.below(3);
        let mut record = self.mark.to_le_bytes().to_vec();
        batch.encode(&mut record);
        self.history.push(rows);
        let position = self.store.log().append(BATCH, &record)?;
        // Applied before it is durable: a flush must take care of that.
        self.store.apply(self.mark, position, batch)?;
        if random.below(3) > 0 {
            self.sync()?;
        }
        make_room(&self.store);
        Ok(())
    }

    pub(crate) fn sync(&self) -> Result<()> {
        let last = self.store.log().last();
        self.store.log().sync(last)?;
        self.history.note_durable(last);
        Ok(())
    }

    /// Seals what was staged, which is these rows, as the state some way ahead.
    pub(crate) fn seal(&mut self, rows: Arc<Rows>, random: &mut Random) -> Result<()> {
        let mark = self.mark + 1 + random.below(50);
        self.store.seal_staged(mark)?;
        self.sealed = Some((mark, rows));
        Ok(())
    }

    /// Installs what is sealed.
    pub(crate) fn install(&mut self, random: &mut Random) -> Result<()> {
        let (mark, rows) = self.sealed.take().unwrap();
        self.history.push(Rows::clone(&rows));
        let position = self.store.log().append(INSTALLED, &mark.to_le_bytes())?;
        self.mark = self.mark.max(mark);
        // A replica waits for it. The store must not rest on that.
        if random.below(2) == 0 {
            self.sync()?;
        }
        self.store.install(mark, position)?;
        self.history.note_durable(position);
        Ok(())
    }
}

/// Applies and installs what the log says; answers with the last mark.
fn replay(store: &Store, mut recovery: Recovery, context: &str) -> u64 {
    let mut last = 0;
    while let Some(record) = recovery.next().unwrap() {
        let (mark, rest) = record.payload.split_first_chunk::<8>().unwrap();
        last = u64::from_le_bytes(*mark);
        let done = match record.kind {
            BATCH => {
                let batch = Batch::decode(&record.payload.slice_ref(rest)).unwrap();
                store.apply(last, record.position, &batch)
            }
            INSTALLED => store.install(last, record.position),
            other => panic!("{context}: a record of kind {other}"),
        };
        done.unwrap_or_else(|error| panic!("{context}: record {}: {error}", record.position));
        make_room(store);
    }
    last
}

fn read(scan: impl Fn(Direction) -> kvorum_storage::Scan) -> Rows {
    let forwards: Vec<_> = scan(Direction::Forwards).map(Result::unwrap).collect();
    let mut backwards: Vec<_> = scan(Direction::Backwards).map(Result::unwrap).collect();
    backwards.reverse();
    assert_eq!(forwards, backwards);
    forwards.into_iter().collect()
}

pub(crate) fn read_snapshot(snapshot: &Snapshot) -> Rows {
    read(|direction| snapshot.scan(.., direction).unwrap())
}

/// Few keys, so that versions pile up, and those of a whole state meet those of batches.
pub(crate) fn key(random: &mut Random) -> Bytes {
    format!("key{:03}", random.below(120)).into()
}

pub(crate) fn value(random: &mut Random) -> Bytes {
    let bytes = if random.below(20) == 0 { 500 } else { random.below(40) };
    let first = random.below(256) as u8;
    (0..bytes).map(|index| first.wrapping_add(index as u8)).collect::<Vec<u8>>().into()
}

pub(crate) fn batch(random: &mut Random) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..=random.below(4) {
        match random.below(3) {
            0 => batch.delete(key(random)),
            _ => batch.put(key(random), value(random)),
        };
    }
    batch
}

/// Somebody else's rows: sometimes none, sometimes several files of them.
pub(crate) fn whole_state(random: &mut Random) -> Arc<Rows> {
    let count = match random.below(6) {
        0 => 0,
        1 => 1,
        _ => random.below(120),
    };
    Arc::new((0..count).map(|_| (key(random), value(random))).collect())
}
