//! Bugs on purpose, gathered from the crates that have them, and the hunt for each of them.
//!
//! A simulator that finds nothing may be blind. So each known trap of the protocol, the node and
//! the engine can be walked into on purpose, and it is shown that a violation is found within a
//! bounded number of seeds. An ordinary build has no such bug: see the feature `planted-bugs`.

#[cfg(feature = "planted-bugs")]
mod hunt;
#[cfg(feature = "planted-bugs")]
mod known;
#[cfg(feature = "planted-bugs")]
mod row;

use kvorum_replication::paxos::planted as paxos;
use kvorum_replication::two_phase::any_replica::planted as any_replica;
use kvorum_replication::two_phase::planted as two_phase;
use kvorum_storage::planted as storage;

use kvorum_node::planted as node;

use crate::Simulate;

#[cfg(feature = "planted-bugs")]
pub use hunt::{Found, Hunted, control, hunt, hunt_from_known};
#[cfg(feature = "planted-bugs")]
pub use known::KNOWN_SEEDS;
#[cfg(feature = "planted-bugs")]
pub use row::{Bounds, Row};

/// Which bug the nodes of a run have, if any. By default none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    /// That of their engines.
    pub storage: storage::Planted,
    /// That of their cores.
    pub two_phase: two_phase::Planted,
    /// That of their cores, if any replica coordinates.
    pub any_replica: any_replica::Planted,
    /// That of their cores, if those are replicas of Multi-Paxos.
    pub paxos: paxos::Planted,
    /// That of the shells around the cores.
    pub node: node::Planted,
}

/// What is simulated to find a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A cluster that commits in two phases: [`crate::two_phase::simulate`].
    TwoPhase,
    /// The same without a coordinator process: [`crate::any_replica::simulate`].
    AnyReplica,
    /// A cluster of Multi-Paxos: [`crate::paxos::simulate`].
    Paxos,
    /// A store by itself, for what no cluster asks of it: [`crate::engine::simulate`].
    Engine,
}

impl Place {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::TwoPhase, Self::AnyReplica, Self::Paxos, Self::Engine];

    /// What reports call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoPhase => "2pc",
            Self::AnyReplica => "2pc-any",
            Self::Paxos => "paxos",
            Self::Engine => "engine",
        }
    }

    /// The flags by which it is asked for.
    #[must_use]
    pub fn flags(self) -> &'static str {
        match self {
            Self::TwoPhase => "--protocol 2pc",
            Self::AnyReplica => "--protocol 2pc --any-replica",
            Self::Paxos => "--protocol paxos",
            Self::Engine => "--protocol engine",
        }
    }

    /// How it is simulated.
    #[must_use]
    pub fn simulate(self) -> Simulate {
        match self {
            Self::TwoPhase => crate::two_phase::simulate,
            Self::AnyReplica => crate::any_replica::simulate,
            Self::Paxos => crate::paxos::simulate,
            Self::Engine => crate::engine::simulate,
        }
    }
}

/// A bug of any part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Of the protocol.
    TwoPhase(two_phase::Bug),
    /// Of the protocol without a coordinator process.
    AnyReplica(any_replica::Bug),
    /// Of the other protocol.
    Paxos(paxos::Bug),
    /// Of the shell.
    Node(node::Bug),
    /// Of the engine.
    Storage(storage::Bug),
}

impl Bug {
    /// All of them: the protocols', the shell's, the engine's.
    pub fn all() -> impl Iterator<Item = Self> {
        let two_phase = two_phase::Bug::ALL.iter().copied().map(Self::TwoPhase);
        let any_replica = any_replica::Bug::ALL.iter().copied().map(Self::AnyReplica);
        let paxos = paxos::Bug::ALL.iter().copied().map(Self::Paxos);
        let node = node::Bug::ALL.iter().copied().map(Self::Node);
        let storage = storage::Bug::ALL.iter().copied().map(Self::Storage);
        two_phase.chain(any_replica).chain(paxos).chain(node).chain(storage)
    }

    /// Those that the simulator is to find. The others show themselves where messages of an old run come
    /// late, which links that end with their process do not let happen, or so seldom that the
    /// schedules of the core alone are the better hunters.
    pub fn hunted() -> impl Iterator<Item = Self> {
        const RARE: &[two_phase::Bug] = &[
            two_phase::Bug::CheckpointForgetsAborts,
            two_phase::Bug::CheckpointForgetsPledges,
            two_phase::Bug::RecoverWithoutStamps,
            two_phase::Bug::ReadsNotLookedAtAgain,
            two_phase::Bug::TakeOldNumbers,
            two_phase::Bug::LearnTwice,
            two_phase::Bug::InstallOlder,
            two_phase::Bug::ApplyWhileInstalling,
            two_phase::Bug::JoinKeepsOldVotes,
            two_phase::Bug::LeaseWithoutMargin,
            two_phase::Bug::TrustMissedNumbers,
            two_phase::Bug::JoinWithoutPromise,
            two_phase::Bug::RemoveUnderLease,
            two_phase::Bug::JoinKeepsOthers,
            two_phase::Bug::UseNumbersTwice,
        ];
        Self::all().filter(|bug| !matches!(bug, Self::TwoPhase(bug) if RARE.contains(bug)))
    }

    /// The one that flags call by this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::all().find(|bug| bug.name() == name)
    }

    /// What is to find it: nearly always a whole cluster.
    #[must_use]
    pub fn place(self) -> Place {
        match self {
            Self::Storage(
                storage::Bug::LeaveTornTail
                | storage::Bug::TrustBlocks
                | storage::Bug::SnapshotSeesLaterWrites
                | storage::Bug::CompactionForgetsSnapshots,
            ) => Place::Engine,
            Self::AnyReplica(_) => Place::AnyReplica,
            Self::Paxos(_) => Place::Paxos,
            Self::TwoPhase(_) | Self::Node(_) | Self::Storage(_) => Place::TwoPhase,
        }
    }

    /// What flags call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoPhase(bug) => bug.name(),
            Self::AnyReplica(bug) => bug.name(),
            Self::Paxos(bug) => bug.name(),
            Self::Node(bug) => bug.name(),
            Self::Storage(bug) => bug.name(),
        }
    }

    /// The mistake, in a sentence.
    #[must_use]
    pub fn trap(self) -> &'static str {
        match self {
            Self::TwoPhase(bug) => bug.trap(),
            Self::AnyReplica(bug) => bug.trap(),
            Self::Paxos(bug) => bug.trap(),
            Self::Node(bug) => bug.trap(),
            Self::Storage(bug) => bug.trap(),
        }
    }

    /// The rule that it breaks.
    #[must_use]
    pub fn rule(self) -> &'static str {
        match self {
            Self::TwoPhase(bug) => bug.rule(),
            Self::AnyReplica(bug) => bug.rule(),
            Self::Paxos(bug) => bug.rule(),
            Self::Node(bug) => bug.rule(),
            Self::Storage(bug) => bug.rule(),
        }
    }
}

impl Planted {
    /// The bug of this name and no other.
    #[cfg(feature = "planted-bugs")]
    pub fn named(name: &str) -> Result<Self, String> {
        Bug::by_name(name).map(Self::of).ok_or_else(|| {
            let names: Vec<&str> = Bug::all().map(Bug::name).collect();
            format!("there is no bug {name:?}; there are: {}", names.join(", "))
        })
    }

    /// The bug of this name: this build has none.
    #[cfg(not(feature = "planted-bugs"))]
    pub fn named(name: &str) -> Result<Self, String> {
        Err(format!("no bug {name:?}: this program was built without the feature planted-bugs"))
    }

    /// This bug and no other.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub fn of(bug: Bug) -> Self {
        let mut planted = Self::default();
        match bug {
            Bug::TwoPhase(bug) => planted.two_phase = two_phase::Planted::of(bug),
            Bug::AnyReplica(bug) => planted.any_replica = any_replica::Planted::of(bug),
            Bug::Paxos(bug) => planted.paxos = paxos::Planted::of(bug),
            Bug::Node(bug) => planted.node = node::Planted::of(bug),
            Bug::Storage(bug) => planted.storage = storage::Planted::of(bug),
        }
        planted
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_bug_has_a_name_of_its_own_and_is_found_by_it() {
        let names: BTreeSet<&str> = Bug::all().map(Bug::name).collect();
        assert_eq!(names.len(), Bug::all().count());
        for bug in Bug::all() {
            assert_eq!(Bug::by_name(bug.name()), Some(bug));
            let is_plain = |character: char| character.is_ascii_alphanumeric() || character == '-';
            assert!(bug.name().chars().all(is_plain), "{}", bug.name());
            assert!(!bug.trap().ends_with('.') && !bug.rule().ends_with('.'), "{}", bug.name());
        }
    }

    #[cfg(not(feature = "planted-bugs"))]
    #[test]
    fn there_are_none_unless_asked_for() {
        assert_eq!(size_of::<Planted>(), 0);
        assert!(Bug::all().all(|bug| Planted::named(bug.name()).is_err()));
    }

    #[cfg(feature = "planted-bugs")]
    #[test]
    fn a_hunt_finds_the_same_with_any_number_of_threads() {
        let bug = Bug::by_name("forget-locks-at-restart").expect("there is one");
        let alone = hunt(bug, 100, 1);
        assert!(matches!(alone, Hunted::Found(_)), "{alone:?}");
        assert_eq!(alone, hunt(bug, 100, 3));
    }
}
