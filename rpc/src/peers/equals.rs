//! Who may link with whom in a cluster without a coordinator, and how it comes to be.
//!
//! ```text
//!   founder (lowest number)            another, all new
//!     │ ◄──── hello: no cluster ───────── │
//!     │ ───── not yet ──────────────────► │
//!     │ has met all: founds, durably      │
//!     │ ───── hello: cluster ───────────► │ joins, durably
//!     │ ◄──── not yet: cluster ────────── │
//!     │ remembers it, durably             │
//!     │ ───── hello: it has joined ─────► │ knows that it is known, durably
//!     │ ◄════ link ═════════════════════► │ and links with everybody
//! ```
//!
//! What that protects: a node that has voted must be remembered by whoever would let it in, or it
//! could lose its disk, be taken for new, and vote again. So there is one who lets new nodes in, the
//! founder, and nobody links with others before the founder remembers him. It founds once all have
//! come: one of them may know of a cluster to which the others belonged before they lost their disks.
//!
//! A node that has lost its disk comes back in a later life. Votes of that life count for nothing
//! until the others have chosen so, so anybody may let it in.

use kvorum_node::{ClusterId, Identity};
use kvorum_replication::NodeId;

use super::hello::{Changes, Verdict, lost_its_disk, of_another_cluster, outlived};
use crate::convert::peer::Hello;

type Judged = Result<(Changes, Verdict), String>;

/// Decides about another node, as [`super::hello::judge`] does.
pub(super) fn judge(own: &Identity, other: &Hello) -> Judged {
    if !own.members.iter().any(|(node, _)| *node == other.node) {
        return Err(format!(
            "{} does not belong to the cluster that {} knows; name it with --peer {}=...",
            other.node, own.node, other.node.0
        ));
    }
    if own.window != other.window {
        return Err(format!(
            "{} has a window of {} slots, and {} one of {}; it is the same on all, for ever",
            other.node, other.window, own.node, own.window
        ));
    }
    match (own.cluster, other.cluster) {
        (Some(ours), Some(theirs)) if ours != theirs => {
            Err(of_another_cluster((own.node, ours), (other.node, theirs)))
        }
        (Some(_), Some(_)) => both_joined(own, other),
        (None, Some(theirs)) => invited(own, other, theirs),
        (Some(_), None) => newcomer(own, other),
        (None, None) => both_new(own, other),
    }
}

/// Whose task it is to found the cluster.
pub(super) fn founder(own: &Identity) -> Option<NodeId> {
    own.members.iter().map(|(node, _)| *node).min()
}

/// Whether this node founds the cluster, and lets in who is new. One that has lost its disk cannot
/// say any more who had joined.
pub(super) fn is_founder(own: &Identity) -> bool {
    founder(own) == Some(own.node) && own.life == 0
}

fn both_joined(own: &Identity, other: &Hello) -> Judged {
    let known = own.joined_in(other.node);
    if known.is_some_and(|known| other.life < known) {
        return Err(outlived(other.node));
    }
    if other.joined_in(own.node).is_some_and(|known| own.life < known) {
        return Err(outlived(own.node));
    }
    let mut changes = Changes::default();
    if own.joined_in(own.node).is_none() {
        let by_founder = founder(own) == Some(other.node) && other.life == 0;
        if !by_founder || other.joined_in(own.node).is_none() {
            return Ok((changes, Verdict::NotYet));
        }
        changes.joined.push((own.node, own.life));
    }
    if other.joined_in(other.node).is_none() && !is_founder(own) {
        return Ok((changes, Verdict::NotYet));
    }
    if known != Some(other.life) {
        changes.joined.push((other.node, other.life));
    }
    Ok((changes, Verdict::Link))
}

fn invited(own: &Identity, other: &Hello, theirs: ClusterId) -> Judged {
    let mut changes = Changes::default();
    let known = other.joined_in(own.node);
    if known.is_some_and(|known| own.life <= known) {
        return Err(lost_its_disk(own.node, own.protocol));
    }
    let is_theirs = other.joined_in(other.node).is_some();
    if own.life > 0 && is_theirs {
        check_members(own, other)?;
        changes.cluster = Some(theirs);
        changes.joined.push((own.node, own.life));
    } else if is_theirs && founder(own) == Some(other.node) && other.life == 0 {
        check_members(own, other)?;
        changes.cluster = Some(theirs);
    }
    Ok((changes, Verdict::NotYet))
}

fn newcomer(own: &Identity, other: &Hello) -> Judged {
    if own.joined_in(other.node).is_some_and(|known| other.life <= known) {
        return Err(lost_its_disk(other.node, own.protocol));
    }
    if other.life == 0 && founder(own) == Some(own.node) {
        if own.life > 0 {
            return Err(format!(
                "{} has lost its disk, and with it who had joined the cluster; so it cannot say \
                 whether {} is new; start that with --rejoin",
                own.node, other.node
            ));
        }
        check_members(own, other)?;
    }
    Ok((Changes::default(), Verdict::NotYet))
}

fn both_new(own: &Identity, other: &Hello) -> Judged {
    let mut changes = Changes::default();
    if is_founder(own) && other.life == 0 {
        check_members(own, other)?;
        changes.met = true;
    }
    Ok((changes, Verdict::NotYet))
}

/// All have to agree on who takes part, from the first: what a majority is follows from that, and two
/// that count differently could each find one.
fn check_members(own: &Identity, other: &Hello) -> Result<(), String> {
    let ids = |members: &[(NodeId, String)]| {
        let mut ids: Vec<u32> = members.iter().map(|(node, _)| node.0).collect();
        ids.sort_unstable();
        ids
    };
    let (ours, theirs) = (ids(&own.members), ids(&other.members));
    match ours == theirs {
        true => Ok(()),
        false => Err(format!(
            "{} takes the replicas {ours:?} for the cluster, and {} {theirs:?}; each has to name \
             all the others with --peer",
            own.node, other.node
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kvorum_node::{Claim, IdentityFile};
    use kvorum_replication::Protocol;

    use super::super::hello;
    use super::*;
    use crate::convert::peer::VERSION;

    /// Numbers by chance, the same for a seed.
    struct Chance(u64);

    impl Chance {
        fn below(&mut self, bound: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 % bound as u64).unwrap()
        }

        fn one_in(&mut self, times: usize) -> bool {
            self.below(times) == 0
        }
    }

    struct Replica {
        file: IdentityFile,
        met: BTreeSet<NodeId>,
        /// Whether it has linked with anybody since its disk was empty, and so may have voted.
        voted: bool,
        /// Whether it has voted, and lost its disk.
        forgot: bool,
    }

    impl Replica {
        fn new(node: u32, count: u32, life: u64) -> Self {
            let claim = Claim { life, ..Claim::paxos(NodeId(node), 9) };
            let file = IdentityFile::in_memory(&claim).unwrap();
            let members = (1..=count).map(|node| (NodeId(node), format!("at:{node}"))).collect();
            file.set_members(members).unwrap();
            Self { file, met: BTreeSet::new(), voted: false, forgot: false }
        }

        fn hello(&self) -> Hello {
            let own = self.file.identity();
            Hello {
                version: VERSION,
                protocol: Protocol::Paxos,
                cluster: own.cluster,
                node: own.node,
                life: own.life,
                incarnation: 1,
                window: own.window,
                address: String::new(),
                members: own.members,
                joined: own.joined,
            }
        }

        /// Judges an introduction, and remembers; a crash may come between any two steps of that,
        /// and then there is no verdict.
        fn hear(&mut self, other: &Hello, chance: &mut Chance) -> Option<Verdict> {
            let (changes, verdict) = hello::judge(&self.file.identity(), other).ok()?;
            let crashes = |chance: &mut Chance, met: &mut BTreeSet<NodeId>| {
                let crashes = chance.one_in(20);
                if crashes {
                    met.clear();
                }
                crashes
            };
            for (node, life) in changes.joined {
                self.file.mark_joined(node, life).unwrap();
                if crashes(chance, &mut self.met) {
                    return None;
                }
            }
            if let Some(cluster) = changes.cluster {
                self.file.adopt_cluster(cluster).unwrap();
            }
            if changes.met {
                self.met.insert(other.node);
                super::super::joining::found_once_all_were_met(&self.file, &self.met).unwrap();
            }
            (!crashes(chance, &mut self.met)).then_some(verdict)
        }
    }

    /// One introduces itself to another. True if they link.
    fn dial(replicas: &mut [Replica], from: usize, to: usize, chance: &mut Chance) -> bool {
        let hello = replicas[from].hello();
        let Some(accepted) = replicas[to].hear(&hello, chance) else { return false };
        let answer = replicas[to].hello();
        if chance.one_in(10) {
            return false;
        }
        let Some(verdict) = replicas[from].hear(&answer, chance) else { return false };
        let links = accepted == Verdict::Link && verdict == Verdict::Link;
        if links {
            let identities = [from, to].map(|index| replicas[index].file.identity());
            assert_eq!(identities[0].cluster, identities[1].cluster);
            for index in [from, to] {
                let replica = &mut replicas[index];
                let life = replica.file.identity().life;
                assert!(!(replica.forgot && life == 0), "n{} votes anew", index + 1);
                replica.voted = true;
            }
        }
        links
    }

    /// Introductions at random, crashes and lost disks, of a minority; returns whether disks were.
    fn schedule(seed: u64) -> bool {
        let chance = &mut Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let count = [3, 5][chance.below(2)];
        let mut replicas: Vec<_> = (1..=count).map(|node| Replica::new(node, count, 0)).collect();
        let all = replicas.len();
        let mut losses = (all - 1) / 2;
        let mut lost = Vec::new();
        for _ in 0..60 * all {
            let (from, to) = (chance.below(all), chance.below(all));
            if from != to {
                dial(&mut replicas, from, to, chance);
            }
            if losses > 0 && chance.one_in(80) && !lost.contains(&from) {
                losses -= 1;
                lost.push(from);
                let forgot = replicas[from].voted;
                let node = u32::try_from(from).unwrap() + 1;
                replicas[from] = Replica { forgot, ..Replica::new(node, count, 0) };
            }
        }
        // Whoever has lost a disk is started as it should be.
        for index in &lost {
            let node = u32::try_from(*index).unwrap() + 1;
            replicas[*index] = Replica { forgot: true, ..Replica::new(node, count, 1) };
        }
        let mut linked = BTreeSet::new();
        for _ in 0..40 {
            for (from, to) in (0..all).flat_map(|from| (0..all).map(move |to| (from, to))) {
                if from != to && dial(&mut replicas, from, to, chance) {
                    linked.insert((from.min(to), from.max(to)));
                }
            }
        }
        // A founder that has lost its disk may have left others outside.
        if !lost.contains(&0) {
            assert_eq!(linked.len(), all * (all - 1) / 2, "not all have linked: {linked:?}");
        }
        !lost.is_empty()
    }

    #[test]
    fn whoever_has_voted_is_never_taken_for_new() {
        let with_losses = (0..300).filter(|seed| schedule(*seed)).count();
        assert!(with_losses > 100, "{with_losses}");
    }
}
