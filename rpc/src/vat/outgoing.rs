//! What capnp-rpc says.

use std::rc::Rc;

use capnp::Error;
use capnp::capability::Promise;
use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::rpc_capnp::message;

use super::wire::Wire;

/// Where the other side gives no hint: most messages fit, and zeroing the usual 1024 words costs
/// more than writing them.
const FIRST_SEGMENT_WORDS: u32 = 128;

/// The largest hint that is believed.
const FIRST_SEGMENT_WORDS_MAX: u32 = 1 << 18;

/// A message being built.
pub(super) struct Outgoing {
    message: Builder<HeapAllocator>,
    wire: Rc<Wire>,
}

impl Outgoing {
    pub(super) fn new(wire: Rc<Wire>, hint_words: u32) -> Self {
        let words = match hint_words {
            0 => FIRST_SEGMENT_WORDS,
            hint => hint.clamp(16, FIRST_SEGMENT_WORDS_MAX),
        };
        Self { message: Builder::new(HeapAllocator::new().first_segment_words(words)), wire }
    }

    fn account(&self) {
        let Ok(root) = self.message.get_root_as_reader::<message::Reader<'_>>() else {
            return;
        };
        if let Some(shortcut) = self.wire.shortcut() {
            shortcut.sending(root);
        }
        if let Ok(message::Return(Ok(answer))) = root.which() {
            self.wire.note_answer(!answer.get_no_finish_needed());
        }
    }
}

impl capnp_rpc::OutgoingMessage for Outgoing {
    fn get_body(&mut self) -> capnp::Result<capnp::any_pointer::Builder<'_>> {
        self.message.get_root()
    }

    fn get_body_as_reader(&self) -> capnp::Result<capnp::any_pointer::Reader<'_>> {
        self.message.get_root_as_reader()
    }

    fn send(self: Box<Self>) -> (Promise<(), Error>, Rc<Builder<HeapAllocator>>) {
        let sent = match self.wire.is_ending() {
            true => Promise::err(Error::disconnected("the connection has ended".to_owned())),
            false => {
                self.account();
                self.wire.say(&self.message);
                Promise::ok(())
            }
        };
        (sent, Rc::new(self.message))
    }

    fn take(self: Box<Self>) -> Builder<HeapAllocator> {
        self.message
    }

    fn size_in_words(&self) -> usize {
        self.message.size_in_words()
    }
}
