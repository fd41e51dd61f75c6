//! Who reads the bytes, and what he may make of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use kvorum_node::{StoredRecord, read_identity};
use kvorum_replication::paxos::record::Record as PaxosRecord;
use kvorum_replication::two_phase::any_replica::record::Record as AnyReplicaRecord;
use kvorum_replication::two_phase::record::{CoordinatorRecord, ParticipantRecord};
use kvorum_storage::codec::Reader;
use kvorum_storage::inspect::{Directory, Layout, Owner, own_batch};
use kvorum_storage::repair::{Mending, Target as Into, repair};
use kvorum_storage::vfs::{CrashMode, MemoryVfs, OpenMode, Vfs as _};
use kvorum_storage::{Batch, Compression, Direction, Durability, Error, Log, Position, Store};

use super::archive::Archive;
use super::corpus::{DIR, options, stores};
use super::entropy::Entropy;
use super::mutate::{mutate, mutate_bytes};
use crate::engine::batches::small_batch;

/// No store of ours has so many rows: a reader that finds more goes round in circles.
const ROWS_MAX: usize = 100_000;

/// A parser of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The directory of a store: manifest, segments, log, marker.
    Store,
    /// The directory of a log alone.
    Log,
    /// The numbers and slices that all else is made of.
    Codec,
    /// A batch, as it stands in a log record.
    Batch,
    /// The file that says whose directory it is.
    Identity,
    /// The records of all protocols.
    Records,
}

/// What a case came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It was refused.
    Refused,
    /// It was opened, and damage was found in it.
    Damaged,
    /// It was taken as it is, and agrees with itself.
    Taken,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Store, Self::Log, Self::Codec, Self::Batch, Self::Identity, Self::Records];

    /// What flags call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Log => "log",
            Self::Codec => "codec",
            Self::Batch => "batch",
            Self::Identity => "identity",
            Self::Records => "records",
        }
    }

    /// Tries a case.
    ///
    /// # Errors
    /// If what was read does not agree with itself.
    pub fn try_case(self, entropy: &mut Entropy<'_>) -> Result<Seen> {
        match self {
            Self::Store => try_store(entropy),
            Self::Log => try_log(entropy),
            Self::Codec => try_codec(entropy),
            Self::Batch => try_batch(entropy),
            Self::Identity => try_identity(entropy),
            Self::Records => try_records(entropy),
        }
    }
}

type Rows = BTreeMap<Bytes, Bytes>;

fn try_store(entropy: &mut Entropy<'_>) -> Result<Seen> {
    let entry = &stores()[entropy.index(stores().len())];
    let archive = mutate(entry, entropy);
    let checked = check_store(&archive.disk(Path::new(DIR))?);
    // Under right checksums a manifest can say that the wrong segment is above the other, and a
    // segment that an old version of a key is the newest: then answers may differ. But nobody may
    // panic, hang, or take all memory.
    let differ = |is_meant: fn(&Path) -> bool| {
        let files = |archive: &Archive| {
            let files = archive.files.iter().filter(|(name, _)| is_meant(name));
            files.cloned().collect::<Vec<_>>()
        };
        files(&archive) != files(&entry.archive)
    };
    let is_excused = |error: &anyhow::Error| {
        let versions = error.is::<OtherVersion>();
        differ(|name| name == Path::new("MANIFEST"))
            || versions && differ(|name| name.extension().is_some_and(|end| end == "segment"))
    };
    if checked.as_ref().is_err_and(is_excused) {
        return Ok(Seen::Damaged);
    }
    checked
}

/// A get answers with another version of a key than a scan.
#[derive(Debug)]
struct OtherVersion {
    key: Bytes,
    scanned: Bytes,
    got: Option<Bytes>,
}

impl fmt::Display for OtherVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, scanned, got } = self;
        write!(f, "{key:?}: a scan sees {scanned:?}, a get {got:?}")
    }
}

impl std::error::Error for OtherVersion {}

fn check_store(disk: &MemoryVfs) -> Result<Seen> {
    let looked = look(disk)?;
    let image = disk.crash_image(CrashMode::KeepAll);
    let opened = open(&image);
    if let Some(Looked { rows: Some(rows), is_sound: true }) = &looked {
        let store = opened.as_ref().map_err(|error| anyhow::anyhow!("sound, but: {error}"))?;
        ensure!(read(store)? == Some(rows.clone()), "a look from outside sees other rows");
    }
    if looked.is_some_and(|looked| !looked.is_sound) {
        mend(disk)?;
    }
    let Ok(store) = opened else { return Ok(Seen::Refused) };
    let problems = store.verify()?.problems;
    let rows = match read(&store) {
        Ok(Some(rows)) => rows,
        Ok(None) | Err(_) if !problems.is_empty() => return Ok(Seen::Damaged),
        Ok(None) => anyhow::bail!("nothing is wrong, but not all can be read"),
        Err(error) => return Err(error.context("nothing is wrong")),
    };
    if !problems.is_empty() {
        return Ok(Seen::Damaged);
    }
    write_on(&image, store, rows)?;
    Ok(Seen::Taken)
}

fn open(disk: &MemoryVfs) -> kvorum_storage::Result<Store> {
    Store::open(Arc::new(disk.clone()), Path::new(DIR), options(Compression::None))
}

/// All rows, read in every way; none if an error says that they cannot be read.
fn read(store: &Store) -> Result<Option<Rows>> {
    let mut rows = Vec::new();
    for row in store.scan(.., Direction::Forwards)? {
        let Ok(row) = row else { return Ok(None) };
        rows.push(row);
        ensure!(rows.len() < ROWS_MAX, "a scan without end");
    }
    ensure!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0), "rows out of order");
    let mut backwards = rows.iter().rev();
    for row in store.scan(.., Direction::Backwards)? {
        let Ok(row) = row else { return Ok(None) };
        ensure!(backwards.next() == Some(&row), "a scan backwards sees other rows");
    }
    ensure!(backwards.next().is_none(), "a scan backwards is shorter");
    for (key, value) in &rows {
        let Ok(found) = store.get(key) else { return Ok(None) };
        if found.as_ref() != Some(value) {
            let (key, scanned) = (key.clone(), value.clone());
            return Err(OtherVersion { key, scanned, got: found }.into());
        }
    }
    Ok(Some(rows.into_iter().collect()))
}

/// A store that was taken is written to, and holds what it must when it is opened again.
fn write_on(disk: &MemoryVfs, store: Store, mut rows: Rows) -> Result<()> {
    let written = store.put("zebra", "new", Durability::Sync);
    let flushed = written.and_then(|_| store.flush()).and_then(|()| store.compact());
    match flushed {
        // A number that is used up.
        Err(Error::Invalid { .. } | Error::Overloaded { .. }) => return Ok(()),
        flushed => flushed.context("writing on")?,
    }
    rows.insert("zebra".into(), "new".into());
    ensure!(read(&store)? == Some(rows.clone()), "after writing on");
    drop(store);
    let store = open(disk).context("opening again")?;
    ensure!(read(&store)? == Some(rows), "after opening again");
    Ok(())
}

/// What a look from outside finds.
struct Looked {
    is_sound: bool,
    /// None if some are lost.
    rows: Option<Rows>,
}

fn directory(disk: &MemoryVfs, layout: Layout) -> kvorum_storage::Result<Directory> {
    let owner = Owner { layout: Some(layout), ..Owner::default() };
    Directory::open(Arc::new(disk.clone()), Path::new(DIR), owner)
}

/// None if the directory cannot be looked at.
fn look(disk: &MemoryVfs) -> Result<Option<Looked>> {
    let Ok(directory) = directory(disk, Layout::Store) else { return Ok(None) };
    let verified = directory.verify(&mut |_| Ok(()))?;
    let plan = directory.plan_log()?;
    let (overlay, misread) = directory.replay(&plan, &mut own_batch)?;
    let _ = directory.summary(&overlay, plan.extent.clone())?;
    let _ = directory.manifest_summary();
    let (mut rows, mut walk) = (Rows::new(), directory.rows(&overlay, b"")?);
    while let Some((key, value)) = walk.next()? {
        rows.insert(key, value);
        ensure!(rows.len() < ROWS_MAX, "rows without end");
    }
    let is_whole = walk.take_lost().is_empty() && misread.is_none();
    Ok(Some(Looked { is_sound: verified.is_sound(), rows: is_whole.then_some(rows) }))
}

/// What is repaired can be opened, or says why not.
fn mend(disk: &MemoryVfs) -> Result<()> {
    let image = disk.crash_image(CrashMode::KeepAll);
    let Ok(source) = directory(&image, Layout::Store) else { return Ok(()) };
    let target = Path::new("/repaired");
    let options = options(Compression::None);
    let mending = Mending { options: &options, check: &mut |_| Ok(()), losses: Vec::new() };
    image.create_dir_all(target)?;
    let Ok(repaired) = repair(&source, Into::Into(target), mending) else { return Ok(()) };
    if !repaired.was_damaged {
        return Ok(());
    }
    drop(source);
    let opened = Store::open(Arc::new(image), target, options);
    match opened {
        Ok(store) => {
            ensure!(repaired.losses.is_empty(), "served, although {:?}", repaired.losses);
            let problems = store.verify()?.problems;
            ensure!(problems.is_empty(), "repaired, and yet {problems:?}");
            ensure!(read(&store)?.is_some(), "repaired, and yet not all can be read");
        }
        Err(Error::Incomplete { .. }) => {
            ensure!(!repaired.losses.is_empty(), "refused, although nothing is lost");
        }
        Err(error) => anyhow::bail!("repaired without loss, and yet: {error}"),
    }
    Ok(())
}

fn try_log(entropy: &mut Entropy<'_>) -> Result<Seen> {
    let entry = &stores()[entropy.index(stores().len())];
    let disk = mutate(entry, entropy).disk(Path::new(DIR))?;
    let log_dir = Path::new(DIR).join("log");
    let replayed = |disk: &MemoryVfs| -> kvorum_storage::Result<(Log, Vec<(Position, Bytes)>)> {
        let vfs = Arc::new(disk.clone());
        let (log, mut replay) = Log::open(vfs, &log_dir, options(Compression::None).log)?;
        let mut records = Vec::new();
        while let Some(record) = replay.next()? {
            records.push((record.position, record.payload));
        }
        Ok((log, records))
    };
    let Ok((log, mut records)) = replayed(&disk) else { return Ok(Seen::Refused) };
    let positions = records.iter().map(|(position, _)| position.0);
    ensure!(positions.eq((log.first().0..).take(records.len())), "a gap in the log");
    // What was believed once is believed again, and what is written behind it.
    let written = log.append(1, b"written on").and_then(|position| {
        log.sync(position)?;
        Ok(position)
    });
    match written {
        Ok(position) => records.push((position, Bytes::from_static(b"written on"))),
        Err(Error::Invalid { .. } | Error::Overloaded { .. }) => {}
        Err(error) => return Err(error).context("writing on"),
    }
    let first = log.first();
    drop(log);
    let (log, again) = replayed(&disk.crash_image(CrashMode::LoseUnsynced)).context("again")?;
    ensure!(log.first() == first && again == records, "another log when opened again");
    Ok(Seen::Taken)
}

fn try_codec(entropy: &mut Entropy<'_>) -> Result<Seen> {
    let mut bytes = vec![0; 200];
    small_batch(3).encode(&mut bytes);
    mutate_bytes(&mut bytes, entropy);
    let mut reader = Reader::new(&bytes);
    loop {
        let before = reader.remaining();
        let read = match entropy.below(6) {
            0 => reader.u8().map(drop),
            1 => reader.u16().map(drop),
            2 => reader.u32().map(drop),
            3 => reader.u64().map(drop),
            4 => reader.varint().map(drop),
            _ => reader.slice(entropy.index(300)).map(drop),
        };
        if read.is_err() {
            return Ok(Seen::Refused);
        }
        ensure!(reader.remaining() < before, "something was read of nothing");
        if reader.is_empty() {
            return Ok(Seen::Taken);
        }
    }
}

fn try_batch(entropy: &mut Entropy<'_>) -> Result<Seen> {
    let mut bytes = Vec::new();
    small_batch(1 + entropy.below(80)).encode(&mut bytes);
    mutate_bytes(&mut bytes, entropy);
    let bytes = Bytes::from(bytes);
    let Ok(batch) = Batch::decode(&bytes) else { return Ok(Seen::Refused) };
    let mut again = Vec::new();
    batch.encode(&mut again);
    ensure!(again == bytes, "two encodings of a batch");
    Ok(Seen::Taken)
}

fn try_identity(entropy: &mut Entropy<'_>) -> Result<Seen> {
    let mut bytes = super::corpus::identity().to_vec();
    mutate_bytes(&mut bytes, entropy);
    if !entropy.one_in(8) {
        for sum in super::sums::of(Path::new("NODE"), &bytes) {
            sum.mend(&mut bytes);
        }
    }
    let (disk, dir) = (MemoryVfs::new(), Path::new(DIR));
    disk.create_dir_all(dir)?;
    disk.open(&dir.join(super::corpus::identity_name()), OpenMode::Create)?.write_at(&bytes, 0)?;
    match read_identity(&disk, dir) {
        Ok(Some(_)) => Ok(Seen::Taken),
        Ok(None) => anyhow::bail!("an identity is there"),
        Err(_) => Ok(Seen::Refused),
    }
}

fn try_records(entropy: &mut Entropy<'_>) -> Result<Seen> {
    let records = super::corpus::records();
    let (kind, payload) = &records[entropy.index(records.len())];
    let mut payload = payload.to_vec();
    mutate_bytes(&mut payload, entropy);
    let kind = if entropy.one_in(4) { 16 + entropy.below(64) as u8 } else { *kind };
    let payload = Bytes::from(payload);
    let taken = [
        again::<CoordinatorRecord>(kind, &payload)?,
        again::<ParticipantRecord>(kind, &payload)?,
        again::<PaxosRecord>(kind, &payload)?,
        again::<AnyReplicaRecord>(kind, &payload)?,
    ];
    Ok(if taken.contains(&true) { Seen::Taken } else { Seen::Refused })
}

/// A record that is taken means the same when it is written again.
fn again<R: StoredRecord + PartialEq>(kind: u8, payload: &Bytes) -> Result<bool> {
    let Ok(record) = R::decode(kind, payload) else { return Ok(false) };
    let mut bytes = Vec::new();
    let kind = record.encode(&mut bytes);
    let decoded = R::decode(kind, &Bytes::from(bytes));
    ensure!(decoded.is_ok_and(|decoded| decoded == record), "another record, written again");
    Ok(true)
}
