//! What waits for a peer, in the portions in which it came: mostly a turn's words are a delivery's.

use std::collections::VecDeque;

use super::PeerOptions;
use crate::convert::peer::Delivery;

/// Messages in their order.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// With about how many bytes each takes.
    portions: VecDeque<(Delivery, usize)>,
    messages: usize,
    bytes: usize,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.messages
    }

    pub(super) fn is_empty(&self) -> bool {
        self.portions.is_empty()
    }

    /// Adds what fits behind the rest; says how many messages do not. However large the first is, it
    /// has room.
    pub(super) fn push(&mut self, mut messages: Delivery, options: &PeerOptions) -> usize {
        let room = options.queue_messages_max.saturating_sub(self.messages);
        let room_bytes = options.queue_bytes_max.saturating_sub(self.bytes);
        let (mut bytes, mut dropped) = (messages.bytes(), 0);
        if messages.len() > room || bytes > room_bytes {
            let fitting = messages.within(room, room_bytes).0;
            let fitting = fitting.max(usize::from(self.is_empty()));
            dropped = messages.split_off(fitting).len();
            bytes = messages.bytes();
        }
        if messages.len() > 0 {
            self.messages += messages.len();
            self.bytes += bytes;
            self.add(messages, bytes, options);
        }
        dropped
    }

    /// Adds a portion, to the last one if a delivery can carry both.
    fn add(&mut self, messages: Delivery, bytes: usize, options: &PeerOptions) {
        let mut messages = messages;
        if let Some((last, last_bytes)) = self.portions.back_mut()
            && last.len() + messages.len() <= options.batch_messages_max
            && *last_bytes + bytes <= options.batch_bytes_max
        {
            match last.append(messages) {
                Ok(()) => {
                    *last_bytes += bytes;
                    return;
                }
                Err(of_another_protocol) => messages = of_another_protocol,
            }
        }
        self.portions.push_back((messages, bytes));
    }

    /// Takes what one delivery carries, and says about how many bytes that is.
    pub(super) fn take(&mut self, options: &PeerOptions) -> Option<(Delivery, usize)> {
        let (mut messages, mut bytes) = self.portions.pop_front()?;
        if messages.len() > options.batch_messages_max || bytes > options.batch_bytes_max {
            let (fitting, _) = messages.within(options.batch_messages_max, options.batch_bytes_max);
            let rest = messages.split_off(fitting.max(1));
            let all_bytes = std::mem::replace(&mut bytes, messages.bytes());
            if rest.len() > 0 {
                self.portions.push_front((rest, all_bytes - bytes));
            }
        }
        self.messages -= messages.len();
        self.bytes -= bytes;
        Some((messages, bytes))
    }
}

#[cfg(test)]
mod tests {
    use kvorum_replication::NodeId;
    use kvorum_replication::two_phase::message::{Message, TxnId};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::convert::peer::Carried as _;

    fn inquire(number: u64) -> Message {
        Message::Inquire { txn: TxnId { coordinator: NodeId(0), epoch: 1, number } }
    }

    proptest! {
        #[test]
        fn what_is_taken_is_the_first_that_was_pushed_in_portions_within_limits(
            turns in vec((0..20_u64, any::<bool>()), 1..20),
            batch_messages_max in 1..30_usize,
            batch_bytes_max in 1..2000_usize,
            queue_messages_max in 0..60_usize,
            queue_bytes_max in 1..5000_usize,
        ) {
            let options = PeerOptions {
                batch_messages_max,
                batch_bytes_max,
                queue_messages_max,
                queue_bytes_max,
                ..PeerOptions::default()
            };
            let size = Message::together(vec![inquire(0)]).bytes();
            let mut waiting = Waiting::default();
            let (mut expected, mut number) = (VecDeque::new(), 0);
            for (count, takes) in turns {
                let said: Vec<_> = (number..number + count).map(inquire).collect();
                number += count;
                let held = expected.len();
                let room = queue_messages_max
                    .saturating_sub(held)
                    .min(queue_bytes_max.saturating_sub(held * size) / size)
                    .max(usize::from(held == 0))
                    .min(said.len());
                expected.extend(said[..room].to_vec());
                let dropped = waiting.push(Message::together(said.clone()), &options);
                prop_assert_eq!(dropped, said.len() - room);
                if !takes {
                    continue;
                }
                if let Some((taken, bytes)) = waiting.take(&options) {
                    prop_assert_eq!(bytes, taken.bytes());
                    prop_assert!(taken.len() <= batch_messages_max);
                    prop_assert!(bytes <= batch_bytes_max || taken.len() == 1);
                    let taken = Message::of(taken).unwrap();
                    prop_assert_eq!(&taken, &expected.drain(..taken.len()).collect::<Vec<_>>());
                }
                prop_assert_eq!(waiting.len(), expected.len());
                prop_assert_eq!(waiting.is_empty(), expected.is_empty());
            }
        }
    }
}
