//! What a process serves as: from its flags to a core, and the node around it.

use std::time::{Duration, SystemTime};

use kvorum_node::{Claim, Node};
use kvorum_replication::paxos::{self, ReplicaOptions};
use kvorum_replication::two_phase::{
    Coordinator as CoordinatorCore, CoordinatorOptions, Participant, ParticipantOptions,
    any_replica,
};
use kvorum_replication::{NodeId, Role};
use kvorum_sim::Planted;
use kvorum_storage::{LogOptions, Options};

use super::arguments::{Coordinator, Peer, Protocol, Replica};
use super::error::ServeError;
use super::peers::{check_others, check_peers, check_replicas};
use super::points::{any_replica_points, coordinator_points, participant_points};
use super::serve::{Setup, serve};

/// Serves as a replica until a signal or an error ends it.
pub(super) fn replica(arguments: &Replica) -> Result<(), ServeError> {
    check_peers("--peer", &arguments.peer)?;
    match arguments.protocol {
        Protocol::TwoPhaseCommit => {
            if let Some(flag) = arguments.paxos.first_given() {
                return Err(ServeError::usage(
                    format!("{flag} belongs to another protocol than two-phase commit"),
                    "leave it out, or start the replica with --protocol paxos",
                ));
            }
            match arguments.peer.is_empty() {
                true => participant(arguments),
                false if arguments.rejoin => Err(ServeError::usage(
                    "--rejoin does not go with --peer: without a coordinator a replica of two-phase \
                     commit cannot be filled from the others",
                    "take its rows from the others into a new cluster (kvorum export), or give it its \
                     data directory back",
                )),
                false => any_replica(arguments),
            }
        }
        Protocol::Paxos => paxos(arguments),
    }
}

/// A replica of two-phase commit, one of equals: whichever a client asks coordinates.
fn any_replica(arguments: &Replica) -> Result<(), ServeError> {
    check_others(arguments.id, arguments.listen, &arguments.peer)?;
    let planted = arguments.process.planted();
    let options = any_replica::ReplicaOptions {
        id: arguments.id,
        replicas: founders(arguments.id, &arguments.peer),
        seed: seed()?,
        ..Default::default()
    };
    let setup = Setup {
        claim: Claim::any_replica(arguments.id),
        listen: arguments.listen,
        data_dir: &arguments.data_dir,
        peers: &arguments.peer,
        process: &arguments.process,
        points: &any_replica_points(),
    };
    let log = log_options(planted)?;
    serve(&setup, |vfs, armed, _, _| {
        let core = any_replica::Replica::new(options);
        let options = Options { log, planted: planted.storage, ..Options::default() };
        Node::open_store(vfs, &arguments.data_dir, options, core, armed)
    })
}

/// A replica of two-phase commit with a coordinator, which finds it.
fn participant(arguments: &Replica) -> Result<(), ServeError> {
    let life = if arguments.rejoin { new_life()? } else { 0 };
    let setup = Setup {
        claim: Claim { life, ..Claim::two_phase(Role::Replica, arguments.id) },
        listen: arguments.listen,
        data_dir: &arguments.data_dir,
        peers: &[],
        process: &arguments.process,
        points: &participant_points(),
    };
    let planted = arguments.process.planted();
    let options = ParticipantOptions {
        id: arguments.id,
        seed: seed()?,
        planted: planted.two_phase,
        ..Default::default()
    };
    let log = log_options(planted)?;
    serve(&setup, |vfs, armed, identity, _| {
        let core = Participant::new(ParticipantOptions { life: identity.life, ..options });
        let options = Options { log, planted: planted.storage, ..Options::default() };
        Node::open_store(vfs, &arguments.data_dir, options, core, armed)
    })
}

/// A replica of Multi-Paxos, one of equals.
fn paxos(arguments: &Replica) -> Result<(), ServeError> {
    check_others(arguments.id, arguments.listen, &arguments.peer)?;
    arguments.paxos.check()?;
    let planted = arguments.process.planted();
    let options = arguments.paxos.apply(ReplicaOptions {
        id: arguments.id,
        founders: founders(arguments.id, &arguments.peer),
        seed: seed()?,
        ..Default::default()
    });
    let life = if arguments.rejoin { new_life()? } else { 0 };
    let setup = Setup {
        claim: Claim { life, ..Claim::paxos(arguments.id, options.window) },
        listen: arguments.listen,
        data_dir: &arguments.data_dir,
        peers: &arguments.peer,
        process: &arguments.process,
        points: paxos::points::ALL,
    };
    let log = log_options(planted)?;
    serve(&setup, |vfs, armed, identity, _| {
        let core = paxos::Replica::new(ReplicaOptions { life: identity.life, ..options });
        let options = Options { log, planted: planted.storage, ..Options::default() };
        Node::open_store(vfs, &arguments.data_dir, options, core, armed)
    })
}

/// A number that no life of this replica had before: the milliseconds since 1970.
fn new_life() -> Result<u64, ServeError> {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok();
    let millis = since_1970.and_then(|since| u64::try_from(since.as_millis()).ok());
    millis.filter(|millis| *millis > 0).ok_or_else(|| {
        ServeError::failed(
            "the system's clock stands before 1970, and a life needs a number",
            "set the clock",
        )
    })
}

/// Everybody, in the order of the numbers: the same list on each of them.
fn founders(id: NodeId, others: &[Peer]) -> Vec<NodeId> {
    let mut founders: Vec<NodeId> = others.iter().map(|peer| peer.id).collect();
    founders.push(id);
    founders.sort_unstable();
    founders
}

/// Serves as a coordinator until a signal or an error ends it.
pub(super) fn coordinator(arguments: &Coordinator) -> Result<(), ServeError> {
    check_replicas(&arguments.data_dir, &arguments.replica)?;
    let setup = Setup {
        claim: Claim::two_phase(Role::Coordinator, NodeId::COORDINATOR),
        listen: arguments.listen,
        data_dir: &arguments.data_dir,
        peers: &arguments.replica,
        process: &arguments.process,
        points: &coordinator_points(),
    };
    let planted = arguments.process.planted();
    let options = CoordinatorOptions {
        // Without the flag a majority of as many as there are then.
        min_replicas: arguments.min_replicas.map_or(0, |min| min as usize),
        exclude_after: Duration::from_millis(arguments.exclude_after),
        commit: arguments.commit.into(),
        seed: seed()?,
        planted: planted.two_phase,
        ..Default::default()
    };
    let log = log_options(planted)?;
    serve(&setup, |vfs, armed, _, peers| {
        let replicas = peers.iter().map(|replica| replica.id).collect();
        let core = CoordinatorCore::new(CoordinatorOptions { replicas, ..options });
        Node::open_log(vfs, &arguments.data_dir, log, core, armed)
    })
}

/// The log's options, with chance in them, so that no client can write a value that would pass for a
/// frame of the log.
fn log_options(planted: Planted) -> Result<LogOptions, ServeError> {
    Ok(LogOptions { salt: seed()?, planted: planted.storage, ..LogOptions::default() })
}

/// Chance for the cores, which take it as a number: replicas that restart together shall not ask
/// together.
fn seed() -> Result<u64, ServeError> {
    let id = kvorum_node::ClusterId::random().map_err(|error| {
        ServeError::failed(format!("the system gives no random numbers: {error}"), "")
    })?;
    let (seed, _) = id.0.split_first_chunk().expect("sixteen bytes begin with eight");
    Ok(u64::from_le_bytes(*seed))
}
