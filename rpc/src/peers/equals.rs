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

use super::hello::{Changes, Verdict, lost_its_disk, of_another_cluster};
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

/// A new cluster has to agree on who takes part.
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

fn outlived(node: NodeId) -> String {
    format!(
        "{node} has come back in a later life since, with another data directory; this one is not \
         to be used any more"
    )
}
