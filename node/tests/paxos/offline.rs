//! The directory of a Paxos replica, looked at and mended while it does not run.

use std::path::Path;
use std::sync::Arc;

use kvorum_node::NodeError;
use kvorum_node::offline::{InDoubt, Offline, Whose, meaning};
use kvorum_replication::paxos::points;
use kvorum_replication::{
    Input, NodeId, Operation, Protocol, Request, RequestId, Role, Transaction, Write,
};
use kvorum_storage::repair::{Loss, Target};
use kvorum_storage::vfs::{CrashMode, MemoryVfs, Vfs};
use kvorum_storage::{Error, LogItem};

use crate::cluster::Cluster;
use crate::machine::{DIR, Rows, storage_options};

const THREE: NodeId = NodeId(3);

fn look(disk: &MemoryVfs, dir: &str) -> Result<Offline, NodeError> {
    Offline::open(Arc::new(disk.clone()), Path::new(dir))
}

fn rows(offline: &Offline) -> Rows {
    let read = offline.read().unwrap();
    assert_eq!(read.misread, None);
    assert!(!read.plan.is_lossy);
    let mut rows = offline.directory().rows(&read.overlay, b"").unwrap();
    let mut found = Rows::new();
    while let Some((key, value)) = rows.next().unwrap() {
        found.insert(key, value);
    }
    assert!(rows.take_lost().is_empty());
    found
}

/// A cluster with all that a directory can hold: rows in segments and in the log, sessions, what was
/// refused and chosen twice, a snapshot, a batch that is not chosen. The node that holds that last,
/// and its rows.
fn busy() -> (Cluster, NodeId, Rows) {
    let mut cluster = Cluster::started(3);
    cluster.put_all(0..20);
    cluster.isolated.insert(THREE);
    cluster.put_all(5..50);
    cluster.heal(THREE);
    cluster.run_for(std::time::Duration::from_secs(3));
    cluster.refuse_some();
    cluster.put_all(30..40);
    let rows = cluster.converge();
    let leader = cluster.leader().unwrap();
    let others: Vec<NodeId> = cluster.nodes().into_iter().filter(|node| *node != leader).collect();
    cluster.isolated.extend(others);
    let writes = vec![Write::Put("open".into(), "1".into())];
    let transaction = Transaction { preconditions: vec![], writes };
    let request = Request {
        id: RequestId(1 << 40),
        deadline: cluster.now.after(std::time::Duration::from_secs(5)),
        operation: Operation::Transact { stamp: None, transaction },
    };
    cluster.step(leader, Input::Request(request));
    cluster.stop(leader);
    (cluster, leader, rows)
}

#[test]
fn a_replicas_rows_and_open_slots_are_those_it_would_have() {
    let (mut cluster, leader, expected) = busy();
    let disk = cluster.machine(leader).disk().clone();
    let offline = look(&disk, DIR).unwrap();
    let Whose::Node(identity) = offline.whose() else { panic!("{:?}", offline.whose()) };
    assert_eq!((identity.protocol, identity.node), (Protocol::Paxos, leader));
    let verified = offline.verify().unwrap();
    assert!(verified.is_sound(), "{:?}", verified.findings);
    assert_eq!(rows(&offline), expected);
    let read = offline.read().unwrap();
    let progress = read.progress.unwrap();
    assert_eq!(progress.applied, progress.chosen);
    let [InDoubt::Slot { slot, ballot, commands: 1, keys }] = &read.in_doubt[..] else {
        panic!("{:?}", read.in_doubt)
    };
    assert_eq!((*slot, *ballot), (progress.applied.next(), progress.promised));
    assert!(keys.iter().eq([&b"open"[..]]), "{keys:?}");
    assert_eq!(offline.summary(&read).unwrap().keys, expected.len() as u64);
    drop(offline);
    cluster.machine(leader).open().unwrap();
    assert_eq!(cluster.machine(leader).core().applied(), progress.applied);
    assert_eq!(cluster.machine(leader).rows(), expected);
}

#[test]
fn every_record_of_a_replica_can_be_shown() {
    let (mut cluster, ..) = busy();
    let mut names = std::collections::BTreeSet::new();
    for node in cluster.nodes() {
        if cluster.machine(node).is_up() {
            cluster.stop(node);
        }
        let offline = look(cluster.machine(node).disk(), DIR).unwrap();
        let kind = offline.whose().kind().unwrap();
        assert_eq!((kind.protocol, kind.role), (Protocol::Paxos, Role::Replica));
        let mut survey = offline.directory().log().unwrap();
        while let Some(item) = survey.next().unwrap() {
            let LogItem::Record(record) = item else { panic!("{item:?}") };
            let shown = meaning(kind, record.kind, &record.payload).unwrap();
            assert!(shown.fields.iter().all(|(_, value)| !value.is_empty()), "{shown:?}");
            names.insert(shown.name);
        }
    }
    for name in ["accepted", "chosen", "checkpoint"] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
}

/// The power failed when the record of a snapshot was durable: what the store will be is staged.
#[test]
fn a_snapshot_that_waits_to_be_installed_is_what_is_shown() {
    let mut cluster = Cluster::started(3);
    cluster.put_all(0..10);
    cluster.isolated.insert(THREE);
    cluster.put_all(5..50);
    cluster.stop(THREE);
    cluster.machine(THREE).armed.push(points::LEARNER_SNAPSHOT_DURABLE.to_owned());
    cluster.point_crash = CrashMode::LoseUnsynced;
    cluster.start(THREE);
    cluster.heal(THREE);
    cluster.run_for(std::time::Duration::from_secs(3));
    assert_eq!(cluster.crashed, [THREE]);
    let disk = cluster.machine(THREE).disk().clone();
    let offline = look(&disk, DIR).unwrap();
    assert!(offline.directory().sealed_mark().is_some());
    assert!(offline.verify().unwrap().is_sound());
    let shown = rows(&offline);
    assert_eq!(shown.len(), 50);
    let progress = offline.read().unwrap().progress.unwrap();
    drop(offline);
    cluster.machine(THREE).armed.clear();
    cluster.machine(THREE).open().unwrap();
    assert_eq!(cluster.machine(THREE).rows(), shown);
    assert_eq!(cluster.machine(THREE).core().applied(), progress.applied);
}

#[test]
fn every_flipped_byte_of_a_replica_is_named_or_does_not_matter() {
    let (mut cluster, leader, expected) = busy();
    let disk = cluster.machine(leader).disk().clone();
    let (mut named, mut mended, mut at_a_loss) = (0, 0, 0);
    for path in disk.files() {
        let bytes = disk.open(&path, kvorum_storage::vfs::OpenMode::Read).unwrap().len().unwrap();
        for offset in (0..bytes).step_by(7) {
            disk.flip(&path, offset, 1 << (offset % 8)).unwrap();
            let context = format!("{} at {offset}", path.display());
            let offline = look(&disk, DIR).unwrap();
            if offline.verify().unwrap().is_sound() {
                assert_eq!(rows(&offline), expected, "{context}");
            } else {
                named += 1;
                drop(offline);
                if named % 5 == 0 {
                    let image = disk.crash_image(CrashMode::KeepAll);
                    let offline = look(&image, DIR).unwrap();
                    let target = Target::Into(Path::new("/new"));
                    let repaired = offline.repair(target, &storage_options()).unwrap();
                    drop(offline);
                    let mut machine = cluster.copy(leader, &image, "/new");
                    if repaired.losses.is_empty() {
                        machine.open().unwrap();
                        assert_eq!(machine.rows(), expected, "{context}");
                        mended += 1;
                    } else {
                        assert!(machine.open().is_err(), "{context}: {repaired:?}");
                        at_a_loss += 1;
                    }
                }
            }
            disk.flip(&path, offset, 1 << (offset % 8)).unwrap();
        }
    }
    println!("{named} named; {mended} mended, {at_a_loss} at a loss");
    assert!(named > 500 && mended > 5 && at_a_loss > 5, "{named} {mended} {at_a_loss}");
}

#[test]
fn a_replica_that_may_have_forgotten_a_vote_does_not_serve() {
    let (mut cluster, leader, _) = busy();
    let disk = cluster.machine(leader).disk().clone();
    let is_log = |path: &std::path::PathBuf| path.extension().is_some_and(|it| it == "log");
    let last = disk.files().into_iter().filter(is_log).max().unwrap();
    disk.flip(&last, 600, 1).unwrap();
    let repaired = look(&disk, DIR).unwrap().repair(Target::InPlace, &storage_options()).unwrap();
    assert!(matches!(repaired.losses[..], [Loss::Records { .. }]), "{repaired:?}");
    let error = cluster.machine(leader).open().err().unwrap();
    assert!(matches!(error, NodeError::Storage(Error::Incomplete { .. })), "{error}");
}

#[test]
fn without_its_identity_it_is_known_by_its_records() {
    let (mut cluster, leader, expected) = busy();
    let disk = cluster.machine(leader).disk().clone();
    disk.remove(&Path::new(DIR).join("IDENTITY")).unwrap();
    let offline = look(&disk, DIR).unwrap();
    let Whose::Lost { kind, .. } = offline.whose() else { panic!("{:?}", offline.whose()) };
    assert_eq!((kind.protocol, kind.role), (Protocol::Paxos, Role::Replica));
    assert!(!offline.verify().unwrap().is_sound());
    assert_eq!(rows(&offline), expected);
}
