//! Links and messages between nodes.

use kvorum_replication::NodeId;

use super::{Event, World};
use crate::faults::Fault;
use crate::network::{Pair, Passage};
use crate::process::{Happening, Protocol};
use crate::queue::MILLISECOND;
use crate::world::ending::Phase;

/// How long two nodes wait before they try again to make a link, at least.
const RETRY: u64 = 10 * MILLISECOND;

impl<P: Protocol> World<P> {
    pub(super) fn connect(&mut self, pair: Pair) {
        if self.network.is_up(pair) {
            return;
        }
        let both_run = [pair.0, pair.1].iter().all(|node| self.machines[node].process.is_some());
        if !both_run || self.network.is_cut_either_way(pair) {
            let wait = self.network.chance(pair).between(RETRY, 8 * RETRY);
            self.queue.after(wait, Event::Connect(pair));
            return;
        }
        self.network.connect(pair);
        self.say("net", || format!("{} and {} are linked", pair.0, pair.1));
        for (node, peer) in [(pair.0, pair.1), (pair.1, pair.0)] {
            let run = self.machines[&node].run;
            self.queue.after(0, Event::Link { node, run, peer, up: true });
        }
    }

    /// Breaks a link for both ends, which notice it at their own times.
    pub(super) fn break_link(&mut self, pair: Pair, link: u64) {
        if !self.network.is_up(pair) || self.network.incarnation(pair) != link {
            return;
        }
        self.network.disconnect(pair);
        self.say("net", || format!("the link of {} and {} breaks", pair.0, pair.1));
        let mut last = 0;
        for (node, peer) in [(pair.0, pair.1), (pair.1, pair.0)] {
            let run = self.machines[&node].run;
            let missed = self.phase == Phase::Faults && self.network.chance(pair).one_in(10);
            if missed && self.plan.breaks_unnoticed {
                self.counts.count(Fault::BreakUnnoticed);
                continue;
            }
            // Mostly the system says so; if it was the machine that died, only silence does.
            let most = if self.network.chance(pair).one_in(6) {
                400 * MILLISECOND
            } else {
                5 * MILLISECOND
            };
            let wait = self.network.chance(pair).below(most);
            last = last.max(wait);
            self.queue.after(wait, Event::Link { node, run, peer, up: false });
        }
        let wait = last + self.network.chance(pair).between(1, 8 * RETRY);
        self.queue.after(wait, Event::Connect(pair));
    }

    /// All links of a node whose process is gone.
    pub(super) fn break_links_of(&mut self, node: NodeId) {
        for pair in self.network.pairs() {
            if (pair.0 == node || pair.1 == node) && self.network.is_up(pair) {
                let link = self.network.incarnation(pair);
                self.break_link(pair, link);
            }
        }
    }

    pub(super) fn notice_link(&mut self, node: NodeId, run: u64, peer: NodeId, up: bool) {
        if self.machines[&node].run == run {
            self.tell(node, if up { Happening::PeerUp(peer) } else { Happening::PeerDown(peer) });
        }
    }

    /// A pair that is cut off from each other notices after a while, if it lasts.
    pub(super) fn doubt_link(&mut self, pair: Pair) {
        if self.network.is_up(pair) {
            let link = self.network.incarnation(pair);
            let wait = self.network.chance(pair).between(20 * MILLISECOND, 400 * MILLISECOND);
            self.queue.after(wait, Event::Break { pair, link });
        }
    }

    pub(super) fn send(&mut self, from: NodeId, to: NodeId, message: P::Message) {
        let judgement = self.protocol.says(from, to, &message);
        self.heed(judgement);
        let now = self.queue.now();
        let passages = self.network.send(now, from, to, &mut self.counts);
        let protocol = &self.protocol;
        self.trace.line(now, from, || {
            let lost = if passages.is_empty() { " (lost)" } else { "" };
            format!("to {to}{lost}: {}", protocol.describe(&message))
        });
        for passage in passages {
            let message = message.clone();
            self.queue.at(passage.at, Event::Deliver { from, to, passage, message });
        }
    }

    pub(super) fn deliver(
        &mut self,
        from: NodeId,
        to: NodeId,
        passage: Passage,
        message: P::Message,
    ) {
        if self.machines[&to].process.is_none() {
            return;
        }
        if self.network.arrives(from, to, &passage, &mut self.counts) {
            let protocol = &self.protocol;
            let now = self.queue.now();
            self.trace.line(now, to, || format!("from {from}: {}", protocol.describe(&message)));
            self.tell(to, Happening::Message { from, message });
        }
    }
}
