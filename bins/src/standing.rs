//! Where a replica of Multi-Paxos stands, as its counters tell.

use kvorum_rpc::client::ProcessStatus;

/// What one replica knows of who leads, and how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The number of the replica that it takes for the leader.
    pub leader: Option<u32>,
    /// The round of that leader's ballot, or of the last one's.
    pub ballot: u64,
    /// The round of the highest ballot that its acceptor has promised.
    pub promised: u64,
    /// Up to this slot it knows what is chosen.
    pub chosen: u64,
    /// Up to this slot its store has everything.
    pub applied: u64,
    /// Whether its votes count.
    pub votes: bool,
}

impl Standing {
    /// Reads a status; `None` if it is no replica of Multi-Paxos that gave it.
    #[must_use]
    pub fn of(status: &ProcessStatus) -> Option<Self> {
        let counter = |name: &str| {
            let found = status.counters.iter().find(|(counter, _)| counter == name);
            found.map(|(_, value)| *value)
        };
        Some(Self {
            leader: status.leader,
            ballot: counter("ballot")?,
            promised: counter("promised")?,
            chosen: counter("slots_chosen")?,
            applied: counter("slots_applied")?,
            votes: counter("votes_count")? > 0,
        })
    }

    /// Of several, who leads: the one that takes itself for the leader, with the highest ballot. One
    /// that was deposed and has not heard of it may do so as well.
    #[must_use]
    pub fn leader(all: impl IntoIterator<Item = (u32, Self)>) -> Option<(u32, Self)> {
        let leads = all.into_iter().filter(|(node, standing)| standing.leader == Some(*node));
        leads.max_by_key(|(_, standing)| standing.ballot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_of_another_protocol_has_none() {
        assert_eq!(Standing::of(&ProcessStatus::default()), None);
        let names =
            ["leader", "ballot", "promised", "slots_chosen", "slots_applied", "votes_count"];
        let counters = names.into_iter().zip([0, 3, 4, 7, 6, 1]);
        let counters = counters.map(|(name, value)| (name.to_owned(), value)).collect();
        let status = ProcessStatus { counters, ..Default::default() };
        let expected =
            Standing { leader: None, ballot: 3, promised: 4, chosen: 7, applied: 6, votes: true };
        assert_eq!(Standing::of(&status), Some(expected));
    }

    #[test]
    fn the_highest_ballot_leads() {
        let standing = |leader, ballot| Standing {
            leader: Some(leader),
            ballot,
            promised: ballot,
            chosen: 0,
            applied: 0,
            votes: true,
        };
        let deposed = (1, standing(1, 3));
        let (leader, follower) = ((2, standing(2, 4)), (3, standing(2, 4)));
        assert_eq!(Standing::leader([deposed, leader, follower]), Some(leader));
        assert_eq!(Standing::leader([follower]), None);
    }
}
