//! The node's voice: answers go to the workers that asked, messages to the peers' queues.

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use kvorum_node::{Outbox, Turn};
use kvorum_replication::{NodeId, Outcome, RequestId};

use super::hub::{Command, Hub};
use super::requests;
use crate::convert::peer::Carried;

pub(super) struct HubOutbox<M> {
    hub: Arc<Hub>,
    /// One for each worker; emptied every turn, kept for their memory.
    replies: Vec<Vec<(RequestId, Outcome)>>,
    /// One for each peer that was ever spoken to; emptied every turn.
    sends: Vec<(NodeId, Vec<M>)>,
}

impl<M> HubOutbox<M> {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        let replies = (0..hub.workers()).map(|_| Vec::new()).collect();
        Self { hub, replies, sends: Vec::new() }
    }
}

impl<M: Carried> Outbox<M> for HubOutbox<M> {
    fn deliver(&mut self, turn: &mut Turn<M>) {
        for (to, message) in turn.sends.drain(..) {
            match self.sends.iter_mut().find(|(peer, _)| *peer == to) {
                Some((_, messages)) => messages.push(message),
                None => self.sends.push((to, vec![message])),
            }
        }
        for (to, messages) in &mut self.sends {
            if messages.is_empty() {
                continue;
            }
            // The next turn will have about as much to say.
            let next = Vec::with_capacity(messages.len());
            let delivery = M::together(std::mem::replace(messages, next));
            if self.hub.peers.send(*to, delivery) {
                self.hub.command(self.hub.worker_of(*to), Command::Dial(*to));
            }
        }
        for (request, outcome) in turn.replies.drain(..) {
            if let Some(replies) = self.replies.get_mut(requests::worker_of(request)) {
                replies.push((request, outcome));
            }
        }
        for (worker, replies) in self.replies.iter_mut().enumerate() {
            self.hub.port(worker).put(replies);
        }
    }

    fn drain(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        let (sender, receiver) = sync_channel(self.hub.workers());
        let asked = (0..self.hub.workers())
            .filter(|worker| self.hub.command(*worker, Command::Drain(sender.clone(), until)))
            .count();
        drop(sender);
        for _ in 0..asked {
            if receiver.recv_timeout(until.saturating_duration_since(Instant::now())).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kvorum_replication::two_phase::message::{Message, TxnId};

    use super::super::{Server, ServerOptions};
    use super::*;

    #[test]
    fn a_peer_is_dialled_however_much_its_worker_has_to_do() {
        let options = ServerOptions::new("127.0.0.1:0".parse().unwrap());
        let (mut server, mut outbox) = Server::bind(options).unwrap();
        for _ in 0..10_000 {
            server.hub.command(0, Command::Dial(NodeId(9)));
        }
        let peer = NodeId(2);
        server.hub.peers.learn(NodeId(1), &[(peer, "127.0.0.1:1".to_owned())], false);
        let txn = TxnId { coordinator: NodeId(0), epoch: 1, number: 1 };
        let sends = vec![(peer, Message::Inquire { txn })];
        outbox.deliver(&mut Turn { replies: Vec::new(), sends });
        let commands = &mut server.commands[0];
        let is_dialled = std::iter::from_fn(|| commands.try_recv().ok())
            .any(|command| matches!(command, Command::Dial(to) if to == peer));
        assert!(is_dialled, "messages wait for a peer that nobody dials");
    }
}
