//! Who leads: asked of every replica again and again while a run lasts, to tell how the cluster got
//! over the loss of a leader. Nothing is judged by it alone, for an answer is old when it arrives.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use kvorum_rpc::client::{Client, ClientOptions};
use tokio::task::{AbortHandle, spawn_local};

use super::clock::Clock;
use crate::cluster::{Cluster, Member};
use crate::standing::Standing;

/// Between two questions to a replica.
const PAUSE: Duration = Duration::from_millis(50);

/// How long a replica is waited for.
const PATIENCE: Duration = Duration::from_millis(250);

/// Who led from then on, as far as was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lead {
    pub(super) ballot: u64,
    /// When it was seen first, in nanoseconds of the run.
    pub(super) from: u64,
    pub(super) member: Member,
}

/// Asks in the background.
pub(super) struct Leaders {
    seen: Rc<RefCell<Vec<Lead>>>,
    askers: Vec<AbortHandle>,
}

impl Leaders {
    /// Begins to ask; needs the thread's local tasks.
    pub(super) fn watch(cluster: &Cluster, clock: Clock) -> Self {
        let seen = Rc::default();
        let ask = |member| {
            let address = cluster.address(member).to_string();
            spawn_local(ask(member, address, clock, Rc::clone(&seen))).abort_handle()
        };
        let askers = cluster.replicas().map(ask).collect();
        Self { seen, askers }
    }

    /// Who is known to lead, for those who would strike at it.
    pub(super) fn known(&self) -> Known {
        Known(Rc::clone(&self.seen))
    }

    /// Every leader that was seen, by their ballots.
    pub(super) fn stop(self) -> Vec<Lead> {
        self.askers.iter().for_each(AbortHandle::abort);
        let mut leads = self.seen.take();
        leads.sort_unstable_by_key(|lead| (lead.ballot, lead.from));
        leads.dedup_by_key(|lead| lead.ballot);
        leads
    }
}

/// The newest leader that was seen.
#[derive(Clone)]
pub(super) struct Known(Rc<RefCell<Vec<Lead>>>);

impl Known {
    pub(super) fn leader(&self) -> Option<Member> {
        leader_at(&self.0.borrow(), u64::MAX)
    }
}

async fn ask(member: Member, address: String, clock: Clock, seen: Rc<RefCell<Vec<Lead>>>) {
    let options = ClientOptions {
        connect_timeout: PATIENCE,
        timeout: PATIENCE,
        ..ClientOptions::new([address])
    };
    let mut last = 0;
    loop {
        // Whoever is down or cannot answer leads nobody that matters.
        if let Ok(client) = Client::connect(options.clone()).await {
            while let Ok(status) = client.status().await {
                let Some(standing) = Standing::of(&status) else { return };
                if standing.leader == Some(status.node) && standing.ballot > last {
                    last = standing.ballot;
                    seen.borrow_mut().push(Lead { ballot: last, from: clock.nanos(), member });
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Who led at a time, as far as was seen by then: the one with the highest ballot.
pub(super) fn leader_at(leads: &[Lead], at: u64) -> Option<Member> {
    let known = leads.iter().filter(|lead| lead.from <= at);
    known.max_by_key(|lead| lead.ballot).map(|lead| lead.member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_ballot_seen_leads() {
        let lead = |ballot, from, replica| Lead { ballot, from, member: Member::Replica(replica) };
        let leads = [lead(1, 10, 1), lead(4, 20, 2), lead(3, 30, 1)];
        assert_eq!(leader_at(&leads, 5), None);
        assert_eq!(leader_at(&leads, 10), Some(Member::Replica(1)));
        assert_eq!(leader_at(&leads, 40), Some(Member::Replica(2)));
    }
}
