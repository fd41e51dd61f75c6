//! Whose a data directory is, over restarts and between versions.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::sync::Arc;

use kvorum_node::{Claim, ClusterId, Identity, IdentityFile, NodeError, read_identity};
use kvorum_replication::{NodeId, Protocol, Role};
use kvorum_storage::Error;
use kvorum_storage::vfs::{MemoryVfs, OpenMode, Vfs};

const DIR: &str = "/data";
const WINDOW: u64 = 256;

fn open(disk: &MemoryVfs, claim: &Claim) -> Result<IdentityFile, NodeError> {
    IdentityFile::open(Arc::new(disk.clone()), Path::new(DIR), claim)
}

/// Opens it and lets it go.
fn refused(disk: &MemoryVfs, claim: &Claim) -> NodeError {
    open(disk, claim).expect_err("it was opened")
}

fn rejoining(node: u32, life: u64) -> Claim {
    Claim { life, ..Claim::paxos(NodeId(node), WINDOW) }
}

fn write(disk: &MemoryVfs, bytes: &[u8]) {
    disk.create_dir_all(Path::new(DIR)).unwrap();
    let path = Path::new(DIR).join("IDENTITY");
    disk.open(&path, OpenMode::Create).unwrap().write_at(bytes, 0).unwrap();
}

/// What an identity of format 1 looks like: replica 3 of a cluster, with one member.
const FORMAT_1: &[u8] = &[
    b'k', b'v', b'o', b'r', b'u', b'm', b'i', b'd', 1, 0, 0, 0, // magic, format
    1, 3, 0, 0, 0, // a replica, its number
    16, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, // its cluster
    1, 0, 0, 0, 0, 0, 0, 0, 3, b'a', b':', b'1', // one member: the coordinator
    1, 0, 0, 0, 2, 0, 0, 0, // one that has joined
];

fn with_checksum(bytes: &[u8]) -> Vec<u8> {
    [bytes, &crc32c::crc32c(bytes).to_le_bytes()].concat()
}

#[test]
fn format_1_is_two_phase_commit() {
    let disk = MemoryVfs::new();
    write(&disk, &with_checksum(FORMAT_1));
    let expected = Identity {
        protocol: Protocol::TwoPhase,
        role: Role::Replica,
        node: NodeId(3),
        life: 0,
        window: 0,
        cluster: Some(ClusterId([7; 16])),
        members: vec![(NodeId::COORDINATOR, "a:1".to_owned())],
        joined: vec![(NodeId(2), 0)],
    };
    assert_eq!(read_identity(&disk, Path::new(DIR)).unwrap(), Some(expected.clone()));
    let claim = Claim::two_phase(Role::Replica, NodeId(3));
    // A member of a cluster has a log.
    disk.create_dir_all(&Path::new(DIR).join("log")).unwrap();
    let paxos = refused(&disk, &Claim::paxos(NodeId(3), WINDOW));
    assert!(matches!(paxos, NodeError::WrongProtocol { .. }), "{paxos}");
    let file = open(&disk, &claim).unwrap();
    assert_eq!(file.identity(), expected);
    file.mark_joined(NodeId(4), 0).unwrap();
    for life in [7, 9, 8] {
        file.mark_joined(NodeId(5), life).unwrap();
    }
    assert_eq!(file.identity().joined_in(NodeId(5)), Some(9), "a life never goes back");
    assert_eq!(file.identity().joined_in(NodeId(6)), None);
    drop(file);
    let changed =
        Identity { joined: vec![(NodeId(2), 0), (NodeId(4), 0), (NodeId(5), 9)], ..expected };
    assert_eq!(open(&disk, &claim).unwrap().identity(), changed, "in format 2 by now");
}

#[test]
fn formats_to_come_are_refused() {
    let disk = MemoryVfs::new();
    let mut bytes = FORMAT_1.to_vec();
    bytes[8] = 3;
    write(&disk, &with_checksum(&bytes));
    let error = refused(&disk, &Claim::two_phase(Role::Replica, NodeId(3)));
    assert!(error.to_string().contains("another version"), "{error}");
}

#[test]
fn what_the_first_start_said_is_kept() {
    let disk = MemoryVfs::new();
    let claim = Claim::paxos(NodeId(1), WINDOW);
    let made = open(&disk, &claim).unwrap().identity();
    assert_eq!((made.protocol, made.life, made.window), (Protocol::Paxos, 0, WINDOW));
    assert_eq!(open(&disk, &claim).unwrap().identity(), made);
    let cases: [(Claim, &str); 4] = [
        (Claim::paxos(NodeId(2), WINDOW), "replica n1, not to replica n2"),
        (Claim::paxos(NodeId(1), 128), "window of 256 slots, not 128"),
        (Claim::two_phase(Role::Replica, NodeId(1)), "Multi-Paxos, not of two-phase commit"),
        (
            Claim { protocol: Protocol::AnyReplica, window: 0, ..claim },
            "Multi-Paxos, not of two-phase commit through any replica",
        ),
    ];
    for (claim, words) in cases {
        let error = refused(&disk, &claim);
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(open(&disk, &claim).unwrap().identity(), made, "nothing has changed");
}

#[test]
fn a_life_begins_with_an_empty_directory_only() {
    let disk = MemoryVfs::new();
    assert_eq!(open(&disk, &rejoining(1, 77)).unwrap().identity().life, 77);
    assert_eq!(open(&disk, &rejoining(1, 99)).unwrap().identity().life, 77, "it lives already");
    assert_eq!(open(&disk, &rejoining(1, 0)).unwrap().identity().life, 77);
    let founder = MemoryVfs::new();
    open(&founder, &rejoining(2, 0)).unwrap();
    assert_eq!(open(&founder, &rejoining(2, 99)).unwrap().identity().life, 0, "it lost nothing");
}

#[test]
fn a_new_life_is_for_replicas_that_others_can_fill() {
    let replica = Claim::two_phase(Role::Replica, NodeId(1));
    let disk = MemoryVfs::new();
    assert_eq!(open(&disk, &Claim { life: 5, ..replica }).unwrap().identity().life, 5);
    let coordinator = Claim::two_phase(Role::Coordinator, NodeId::COORDINATOR);
    for claim in [coordinator, Claim::any_replica(NodeId(1))] {
        let disk = MemoryVfs::new();
        let claim = Claim { life: 5, ..claim };
        let error = refused(&disk, &claim);
        assert!(matches!(error, NodeError::CannotRejoin { .. }), "{error}");
        assert_eq!(read_identity(&disk, Path::new(DIR)).unwrap(), None, "it made itself known");
        open(&disk, &Claim { life: 0, ..claim }).unwrap();
    }
}

#[test]
fn replicas_come_and_go() {
    let disk = MemoryVfs::new();
    let claim = Claim::two_phase(Role::Coordinator, NodeId::COORDINATOR);
    let file = open(&disk, &claim).unwrap();
    let at = |node: u32| (NodeId(node), format!("a:{node}"));
    file.set_members(vec![at(0), at(1), at(2)]).unwrap();
    file.mark_joined(NodeId(1), 7).unwrap();
    let before = file.identity();

    file.add_member(NodeId(3), "a:3").unwrap();
    let added = file.identity();
    assert_eq!(added.members, [at(0), at(1), at(2), at(3)]);
    assert_eq!(added.joined, [(NodeId(1), 7), (NodeId(3), 0)], "empty, it needs a new life");
    file.restore_member(NodeId(3), &before).unwrap();
    assert_eq!(file.identity(), before);

    file.add_member(NodeId(1), "b:1").unwrap();
    assert_eq!(file.identity().joined_in(NodeId(1)), Some(7), "a life never goes back");
    assert_eq!(file.identity().members[1], (NodeId(1), "b:1".to_owned()));
    file.restore_member(NodeId(1), &before).unwrap();
    assert_eq!(file.identity(), before);

    for node in [NodeId(1), NodeId(2)] {
        file.remove_member(node).unwrap();
    }
    let removed = file.identity();
    drop(file);
    assert_eq!(removed.members, [at(0)]);
    assert_eq!(removed.joined, [(NodeId(1), 7), (NodeId(2), 0)], "what was removed is known");
    assert_eq!(open(&disk, &claim).unwrap().identity(), removed);
}

#[test]
fn a_flipped_bit_is_found() {
    let disk = MemoryVfs::new();
    drop(open(&disk, &rejoining(1, 77)).unwrap());
    let path = Path::new(DIR).join("IDENTITY");
    let len = disk.open(&path, OpenMode::Read).unwrap().len().unwrap();
    for offset in 0..len {
        for bit in 0..8 {
            disk.flip(&path, offset, 1 << bit).unwrap();
            let error = refused(&disk, &rejoining(1, 77));
            let is_corrupt = matches!(error, NodeError::Storage(Error::Corrupt { .. }));
            assert!(is_corrupt, "byte {offset}: {error}");
            disk.flip(&path, offset, 1 << bit).unwrap();
        }
    }
}
