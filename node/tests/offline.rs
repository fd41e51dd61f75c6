//! A node's directory, looked at and mended while the node does not run.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use kvorum_node::offline::{InDoubt, Offline, Whose};
use kvorum_node::{Claim, ClusterId, IdentityFile, Node, NodeError};
use kvorum_replication::two_phase::message::{CommitNumber, Decision, Message, Prepare, TxnId};
use kvorum_replication::two_phase::{Participant, ParticipantOptions};
use kvorum_replication::{Input, NodeId, Role, Time, Transaction, Write};
use kvorum_storage::inspect::Grade;
use kvorum_storage::repair::{Loss, Repaired, Target};
use kvorum_storage::vfs::{
    CrashMode, Fault, FaultyVfs, MemoryVfs, OpenMode, Operation, Outcome, Vfs,
};
use kvorum_storage::{Error, LogOptions, Options};

const DIR: &str = "/data";
const NOW: Time = Time(1_000_000_000);
const ONE: NodeId = NodeId(1);

type Rows = BTreeMap<Bytes, Bytes>;

fn options() -> Options {
    let log = LogOptions { file_bytes: 2 << 10, recycle_files_max: 1, ..LogOptions::default() };
    Options { memtable_bytes: 2 << 10, block_bytes: 256, log, ..Options::default() }
}

fn txn(number: u64) -> TxnId {
    TxnId { coordinator: NodeId::COORDINATOR, epoch: 1, number }
}

fn open(vfs: &MemoryVfs, dir: &str) -> Result<Node<Participant>, NodeError> {
    let vfs: Arc<dyn Vfs> = Arc::new(vfs.clone());
    IdentityFile::open(Arc::clone(&vfs), dir.as_ref(), &Claim::two_phase(Role::Replica, ONE))?;
    let options = options();
    let core = Participant::new(ParticipantOptions { id: ONE, ..ParticipantOptions::default() });
    Node::open_store(vfs, dir.as_ref(), options, core, Vec::new())
}

fn step(node: &mut Node<Participant>, message: Message) {
    node.step(NOW, Input::Message { from: NodeId::COORDINATOR, message }).unwrap();
    settle(node);
}

fn settle(node: &mut Node<Participant>) {
    node.log().sync(node.log().last()).unwrap();
    node.settle(NOW).unwrap();
}

fn prepare(node: &mut Node<Participant>, number: u64) -> Vec<Write> {
    let key = Bytes::from(format!("key{:02}", number * 7 % 23));
    let writes = match number % 6 {
        5 => vec![Write::Delete(key)],
        _ => vec![Write::Put(key, Bytes::from(format!("value {number} {}", "v".repeat(20))))],
    };
    let transaction = Transaction { preconditions: Vec::new(), writes: writes.clone() };
    let prepare = Prepare {
        txn: txn(number),
        participants: [ONE, NodeId(2)].into(),
        transaction: Arc::new(transaction),
        one_phase: None,
        parallel: None,
        finished_below: txn(number.saturating_sub(3).max(1)),
    };
    step(node, Message::Prepare(Arc::new(prepare)));
    writes
}

/// The directory of a replica that has committed, with rows in segments and others in the log, and
/// with one transaction in doubt; and its rows.
fn replica() -> (MemoryVfs, Rows) {
    let disk = MemoryVfs::new();
    let vfs: Arc<dyn Vfs> = Arc::new(disk.clone());
    let mut node = open(&disk, DIR).unwrap();
    {
        let identity =
            IdentityFile::open(vfs, DIR.as_ref(), &Claim::two_phase(Role::Replica, ONE)).unwrap();
        identity.adopt_cluster(ClusterId([7; 16])).unwrap();
    }
    node.step(NOW, Input::Started).unwrap();
    settle(&mut node);
    let mut rows = Rows::new();
    for number in 1..=60 {
        for write in prepare(&mut node, number) {
            match write {
                Write::Put(key, value) => rows.insert(key, value),
                Write::Delete(key) => rows.remove(&key),
            };
        }
        let decision = Decision::Commit(CommitNumber(number));
        step(
            &mut node,
            Message::Decide { txn: txn(number), decision, finished_below: txn(number), epoch: 1 },
        );
        if number == 40 {
            node.step(NOW, Input::Checkpoint).unwrap();
            settle(&mut node);
            node.store().unwrap().flush().unwrap();
        }
    }
    prepare(&mut node, 61);
    assert!(node.log().first().0 > 1, "the log was cut");
    (disk, rows)
}

fn look(disk: &MemoryVfs, dir: &str) -> Result<Offline, NodeError> {
    Offline::open(Arc::new(disk.clone()), dir.as_ref())
}

fn transaction(in_doubt: &InDoubt) -> TxnId {
    match in_doubt {
        InDoubt::Transaction { txn, .. } => *txn,
        InDoubt::Slot { .. } => panic!("there are no slots: {in_doubt:?}"),
    }
}

/// The rows, and whether any had to be left out.
fn rows(offline: &Offline) -> (Rows, bool) {
    let read = offline.read().unwrap();
    let mut rows = offline.directory().rows(&read.overlay, b"").unwrap();
    let mut found = Rows::new();
    while let Some((key, value)) = rows.next().unwrap() {
        found.insert(key, value);
    }
    let skipped = read.plan.is_lossy || read.misread.is_some() || !rows.take_lost().is_empty();
    (found, skipped)
}

fn scan(node: &Node<Participant>) -> Rows {
    let scan = node.store().unwrap().scan(.., kvorum_storage::Direction::Forwards).unwrap();
    scan.map(Result::unwrap).collect()
}

fn files(disk: &MemoryVfs) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: &Path| disk.open(path, OpenMode::Read).unwrap().map().unwrap().to_vec();
    disk.files().into_iter().map(|path| (path.clone(), read(&path))).collect()
}

fn mend(disk: &MemoryVfs, target: Target<'_>) -> Repaired {
    look(disk, DIR).unwrap().repair(target, &options()).unwrap()
}

#[test]
fn a_replicas_rows_and_doubts_are_those_it_would_have() {
    let (disk, expected) = replica();
    let offline = look(&disk, DIR).unwrap();
    let Whose::Node(identity) = offline.whose() else { panic!("{:?}", offline.whose()) };
    assert_eq!((identity.node, identity.cluster), (ONE, Some(ClusterId([7; 16]))));
    let verified = offline.verify().unwrap();
    assert!(verified.is_sound(), "{:?}", verified.findings);
    assert_eq!(rows(&offline), (expected.clone(), false));
    let read = offline.read().unwrap();
    let in_doubt: Vec<TxnId> = read.in_doubt.iter().map(transaction).collect();
    assert_eq!(in_doubt, [txn(61)]);
    let summary = offline.summary(&read).unwrap();
    assert_eq!(summary.keys, expected.len() as u64);
    assert!(summary.levels.iter().any(|level| level.segments > 0));
    drop(offline);
    let node = open(&disk, DIR).unwrap();
    assert_eq!(scan(&node), expected);
    assert!(matches!(look(&disk, DIR), Err(NodeError::Storage(Error::Locked { .. }))));
}

/// Everything of a replica: its identity, its tree, its votes.
#[test]
fn every_flipped_byte_of_a_replica_is_named_or_does_not_matter() {
    let (disk, expected) = replica();
    let (mut named, mut unnoticed, mut lossless, mut lossy) = (0, 0, 0, 0);
    for (path, bytes) in files(&disk) {
        for offset in 0..bytes.len() as u64 {
            disk.flip(&path, offset, 1 << (offset % 8)).unwrap();
            let context = format!("{} at {offset}", path.display());
            let offline = look(&disk, DIR).unwrap();
            let verified = offline.verify().unwrap();
            if verified.is_sound() {
                assert_eq!(rows(&offline), (expected.clone(), false), "{context}");
                assert_eq!(offline.read().unwrap().in_doubt.len(), 1, "{context}");
                let is_torn = verified.findings.iter().any(|it| it.grade == Grade::Torn);
                unnoticed += u32::from(!is_torn);
            } else {
                named += 1;
                if offset % 11 == 0 {
                    drop(offline);
                    let image = disk.crash_image(CrashMode::KeepAll);
                    let repaired = mend(&image, Target::Into("/new".as_ref()));
                    let opened = open(&image, "/new");
                    if repaired.losses.is_empty() {
                        let node = opened.unwrap();
                        assert_eq!(scan(&node), expected, "{context}");
                        lossless += 1;
                    } else {
                        assert!(opened.is_err(), "{context}: {repaired:?}");
                        lossy += 1;
                    }
                }
            }
            disk.flip(&path, offset, 1 << (offset % 8)).unwrap();
        }
    }
    println!("{named} named, {unnoticed} not noticed; {lossless} mended, {lossy} at a loss");
    assert!(named > 3000 && lossless > 20 && lossy > 20, "{named} {lossless} {lossy}");
}

#[test]
fn a_replica_that_may_have_forgotten_a_vote_does_not_serve() {
    let (disk, _) = replica();
    let logs = files(&disk).into_keys().filter(|path| path.extension().is_some_and(|e| e == "log"));
    let last = logs.max().unwrap();
    disk.flip(&last, 600, 1).unwrap();
    for target in [Target::Into("/new".as_ref()), Target::InPlace] {
        let image = disk.crash_image(CrashMode::KeepAll);
        let repaired = mend(&image, target);
        assert!(matches!(repaired.losses[..], [Loss::Records { .. }]), "{repaired:?}");
        assert!(repaired.records_behind > 0, "{repaired:?}");
        let dir = repaired.dir.to_str().unwrap().to_owned();
        let error = open(&image, &dir).err().unwrap();
        assert!(matches!(error, NodeError::Storage(Error::Incomplete { .. })), "{error}");
        // It is still whose it was, and can be read.
        let offline = look(&image, &dir).unwrap();
        assert!(matches!(offline.whose(), Whose::Node(identity) if identity.node == ONE));
        assert!(!rows(&offline).0.is_empty());
    }
}

/// While a repair is at work in place, the node's data stands aside; it is not gone.
#[test]
fn a_repair_in_place_that_found_no_room_loses_nothing_the_second_time() {
    let (disk, expected) = replica();
    disk.flip(&Path::new(DIR).join("MANIFEST"), 40, 1).unwrap();
    for files in 0.. {
        let image = disk.crash_image(CrashMode::KeepAll);
        let full = FaultyVfs::new(Arc::new(image.clone()));
        let _ = full.arm(Fault::always(Operation::Create, Outcome::DiskFull).after(files));
        let offline = Offline::open(Arc::new(full), DIR.as_ref()).unwrap();
        let first = offline.repair(Target::InPlace, &options());
        drop(offline);
        if first.is_ok() {
            assert!(files > 2, "{files}");
            break;
        }
        let second = mend(&image, Target::InPlace);
        assert!(second.losses.is_empty(), "room for {files} files: {:?}", second.losses);
        assert_eq!(scan(&open(&image, DIR).unwrap()), expected, "room for {files} files");
    }
}

#[test]
fn what_is_gone_is_missed_at_the_start() {
    let (disk, _) = replica();
    let image = disk.crash_image(CrashMode::KeepAll);
    image.remove(&Path::new(DIR).join("IDENTITY")).unwrap();
    let error = open(&image, DIR).err().unwrap();
    assert!(matches!(error, NodeError::Storage(Error::Missing { .. })), "{error}");
    let offline = look(&image, DIR).unwrap();
    assert!(matches!(offline.whose(), Whose::Lost { kind, .. } if kind.role == Role::Replica));
    assert!(!offline.verify().unwrap().is_sound());
    drop(offline);

    let image = disk.crash_image(CrashMode::KeepAll);
    for path in image.files() {
        if path.extension().is_some() || path.ends_with("MANIFEST") {
            image.remove(&path).unwrap();
        }
    }
    let verified = look(&image, DIR).unwrap().verify().unwrap();
    assert!(!verified.is_sound());
}
