//! The network between the nodes: links that stand or break, messages that travel or do not.
//!
//! A link is like a connection: in order unless a fault reorders, and what is under way when it
//! breaks is lost. Repeated messages are worse than any real connection's: a copy may come seconds
//! later, over another link, to another run of its receiver, as it could from a network that keeps
//! packets. Cores are promised no better.

use std::collections::BTreeMap;

use kvorum_replication::NodeId;

use crate::chance::Chance;
use crate::faults::{Counts, Fault};
use crate::plan::NetworkKnobs;
use crate::queue::{Instant, MILLISECOND, SECOND};

/// Two nodes, the smaller first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair(pub(crate) NodeId, pub(crate) NodeId);

impl Pair {
    pub(crate) fn of(a: NodeId, b: NodeId) -> Self {
        Self(a.min(b), a.max(b))
    }
}

/// A message's way: when it arrives, over which link if not over any, and as which one of its
/// direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passage {
    pub(crate) at: Instant,
    /// The link has to be this one still; a copy travels by itself.
    pub(crate) link: Option<u64>,
    pub(crate) number: u64,
}

#[derive(Debug)]
struct Link {
    up: bool,
    /// Counts the links of this pair.
    incarnation: u64,
    directions: BTreeMap<NodeId, Direction>,
    /// This link's own draws: what happens on others does not shift them.
    chance: Chance,
}

/// What one end of a link has sent.
#[derive(Debug, Default)]
struct Direction {
    sent: u64,
    last_arrival: Instant,
    newest_arrived: u64,
}

#[derive(Debug)]
pub(crate) struct Network {
    links: BTreeMap<Pair, Link>,
    /// From whom to whom nothing gets through, and how many partitions say so.
    cuts: BTreeMap<(NodeId, NodeId), u32>,
    /// Links that are slow, until when, and by how much at most.
    slow: BTreeMap<Pair, (Instant, u64)>,
    knobs: NetworkKnobs,
}

impl Network {
    pub(crate) fn new(nodes: &[NodeId], knobs: NetworkKnobs, seed: u64) -> Self {
        let mut links = BTreeMap::new();
        for a in nodes {
            for b in nodes.iter().filter(|b| *b > a) {
                let directions = [(*a, Direction::default()), (*b, Direction::default())].into();
                let salt = u64::from(a.0) << 32 | u64::from(b.0) << 48;
                let chance = Chance::new(seed.wrapping_add(salt), "link");
                let link = Link { up: false, incarnation: 0, directions, chance };
                links.insert(Pair(*a, *b), link);
            }
        }
        Self { links, cuts: BTreeMap::new(), slow: BTreeMap::new(), knobs }
    }

    pub(crate) fn pairs(&self) -> Vec<Pair> {
        self.links.keys().copied().collect()
    }

    /// The draws of a link.
    pub(crate) fn chance(&mut self, pair: Pair) -> &mut Chance {
        &mut self.link(pair).chance
    }

    pub(crate) fn set_knobs(&mut self, knobs: NetworkKnobs) {
        self.knobs = knobs;
    }

    pub(crate) fn is_up(&self, pair: Pair) -> bool {
        self.links[&pair].up
    }

    pub(crate) fn incarnation(&self, pair: Pair) -> u64 {
        self.links[&pair].incarnation
    }

    pub(crate) fn connect(&mut self, pair: Pair) {
        let link = self.link(pair);
        link.up = true;
        link.incarnation += 1;
        for direction in link.directions.values_mut() {
            *direction = Direction::default();
        }
    }

    pub(crate) fn disconnect(&mut self, pair: Pair) {
        self.link(pair).up = false;
    }

    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId) {
        *self.cuts.entry((from, to)).or_default() += 1;
    }

    pub(crate) fn mend(&mut self, from: NodeId, to: NodeId) {
        if let Some(count) = self.cuts.get_mut(&(from, to)) {
            *count = count.saturating_sub(1);
        }
    }

    pub(crate) fn slow_down(&mut self, pair: Pair, until: Instant, most: u64) {
        self.slow.insert(pair, (until, most));
    }

    pub(crate) fn mend_all(&mut self) {
        self.cuts.clear();
        self.slow.clear();
    }

    pub(crate) fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.cuts.get(&(from, to)).is_some_and(|count| *count > 0)
    }

    pub(crate) fn is_cut_either_way(&self, pair: Pair) -> bool {
        self.is_cut(pair.0, pair.1) || self.is_cut(pair.1, pair.0)
    }

    /// Sends a message: where its copies, none or one or two, arrive.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        from: NodeId,
        to: NodeId,
        counts: &mut Counts,
    ) -> Vec<Passage> {
        let pair = Pair::of(from, to);
        if !self.links.get(&pair).is_some_and(|link| link.up) {
            return Vec::new();
        }
        if self.is_cut(from, to) {
            counts.count(Fault::MessageCut);
            return Vec::new();
        }
        // One draw for each message, whatever becomes of it: others are not shifted.
        let mut chance = Chance::new(self.chance(pair).number(), "message");
        if chance.per_million(self.knobs.loss) {
            counts.count(Fault::MessageLost);
            return Vec::new();
        }
        let mut wait = chance.between(self.knobs.latency_min, self.knobs.latency_max);
        if let Some((_, most)) = self.slow.get(&pair).filter(|(until, _)| *until > now) {
            counts.count(Fault::SlowLink);
            wait += chance.between(most / 2, *most);
        }
        if chance.per_million(self.knobs.delay) {
            counts.count(Fault::MessageDelayed);
            wait += chance.between(5 * MILLISECOND, 400 * MILLISECOND);
        }
        let overtakes = chance.per_million(self.knobs.reorder);
        let repeated = chance.per_million(self.knobs.repeat);
        let latest = *chance.pick(&[MILLISECOND, 50 * MILLISECOND, 3 * SECOND]);
        let later = chance.below(latest);
        let link = self.link(pair);
        let incarnation = link.incarnation;
        let direction = link.directions.get_mut(&from).expect("both ends have a direction");
        direction.sent += 1;
        let mut at = now + wait;
        if !overtakes {
            at = at.max(direction.last_arrival);
            direction.last_arrival = at;
        }
        let number = direction.sent;
        let mut passages = vec![Passage { at, link: Some(incarnation), number }];
        if repeated {
            passages.push(Passage { at: at + later, link: None, number });
        }
        passages
    }

    /// Whether a message that arrives does arrive.
    pub(crate) fn arrives(
        &mut self,
        from: NodeId,
        to: NodeId,
        passage: &Passage,
        counts: &mut Counts,
    ) -> bool {
        if self.is_cut(from, to) {
            counts.count(Fault::MessageCut);
            return false;
        }
        let Some(incarnation) = passage.link else {
            counts.count(Fault::MessageRepeated);
            return true;
        };
        let link = self.link(Pair::of(from, to));
        if !link.up || link.incarnation != incarnation {
            return false;
        }
        let direction = link.directions.get_mut(&from).expect("both ends have a direction");
        if passage.number < direction.newest_arrived {
            counts.count(Fault::MessageReordered);
        }
        direction.newest_arrived = direction.newest_arrived.max(passage.number);
        true
    }

    fn link(&mut self, pair: Pair) -> &mut Link {
        self.links.get_mut(&pair).expect("every two nodes have a link")
    }
}
