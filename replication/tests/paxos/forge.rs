//! Messages that no replica would send: a node may be led astray by them, and never stopped.

use std::sync::Arc;

use kvorum_replication::paxos::message::{
    Accepted, Ballot, Batch, Command, Member, Message, Promise, ReadName, Slot, SnapshotPiece,
};
use kvorum_replication::paxos::planted::Planted;
use kvorum_replication::paxos::record::Replicated;
use kvorum_replication::{Key, NodeId, SnapshotId};

use crate::harness::schedule::{Driver, stop_nobody};
use crate::random::{Replicas, Schedule, schedule};
use crate::room::Packet;

impl Schedule {
    /// Puts a message on its way that says anything about anything.
    fn forge(&mut self) {
        let nodes = self.cluster.nodes();
        let (from, to) = (self.pick(&nodes), self.pick(&nodes));
        let (ballot, other) = (self.some_ballot(), self.some_ballot());
        let (slot, chosen) = (self.some_slot(), self.some_slot());
        let life = self.random.below(2);
        let name = ReadName { incarnation: self.random.below(3), number: self.random.below(5) };
        let round = self.random.below(9);
        let snapshot = SnapshotId(slot.0);
        let key = self.some_key();
        let accepted = vec![Accepted { slot, ballot: other, batch: self.some_batch() }];
        let state = Replicated {
            applied: slot,
            members: vec![(chosen, [Member { node: from, life }].into())],
            next_client: 3,
            sessions: Vec::new(),
        };
        let message = match self.below(20) {
            0 => Message::PreVote { ballot, instead_of: self.one_in(2).then_some(other) },
            1 => Message::PreVoteAnswer { ballot, life, granted: true, seen: other },
            2 => Message::Prepare { ballot, from: slot },
            3 => Message::Promise(Promise { ballot, life, chosen, accepted, more: Some(slot) }),
            4 => Message::Promise(Promise { ballot, life, chosen, accepted, more: None }),
            5 => Message::Accept { ballot, slot, batch: self.some_batch(), chosen },
            6 => Message::Accepted { ballot, slot, life },
            7 => Message::Refused { promised: ballot },
            8 => Message::Heartbeat { ballot, chosen, round },
            9 => Message::HeartbeatAck { ballot, round, life },
            10 => Message::ReadIndex { name },
            11 => Message::ReadIndexIs { name, index: slot },
            12 => Message::Learn { from: slot },
            13 => {
                let batches = vec![self.some_batch(), self.some_batch()];
                Message::Learned { from: slot, batches, chosen, leader: ballot }
            }
            14 => Message::Truncated { first: slot },
            15 => Message::FetchSnapshot { snapshot: Some(snapshot), from: key },
            16 => {
                let rows = vec![(key.clone(), key.clone())];
                let last = self.one_in(2).then(|| Arc::new(state));
                Message::SnapshotPiece(SnapshotPiece { snapshot, from: Key::new(), rows, last })
            }
            17 => Message::SnapshotGone { snapshot },
            18 => Message::TakeOver { ballot },
            _ => Message::Join { life },
        };
        self.cluster.network.push(Packet { from, to, message });
    }

    fn some_ballot(&mut self) -> Ballot {
        let round = self.pick(&[0, 1, 2, 3, 4, u64::MAX]);
        Ballot { round, node: NodeId(self.below(6) as u32) }
    }

    fn some_slot(&mut self) -> Slot {
        Slot(self.pick(&[0, 1, 2, 3, 4, 8, 16, 24, 1 << 40, u64::MAX]))
    }

    fn some_batch(&mut self) -> Arc<Batch> {
        let members = vec![Member { node: NodeId(self.below(5) as u32), life: 0 }; self.below(3)];
        let transaction = Arc::new(self.some_transaction());
        let commands = [
            Command::OpenSession,
            Command::ChangeMembers(members.into()),
            Command::Transact { stamp: None, transaction },
        ];
        let commands = vec![self.pick(&commands)];
        Arc::new(Batch { origin: self.some_ballot(), commands })
    }
}

/// What happens is changed by them, and nobody panics.
#[test]
fn forged_messages_stop_nobody() {
    let new = |seed| {
        let mut hostility = Replicas::hostility(seed);
        hostility.wipes = false;
        hostility.common.crashes = false;
        let mut schedule = schedule(seed, hostility, Planted::default(), false);
        // Marks and staged rows are the shell's; it need not believe a core that was lied to.
        schedule.cluster.believe_nothing();
        schedule
    };
    stop_nobody(0..200, new, Schedule::forge);
}
