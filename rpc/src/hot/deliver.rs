//! Deliveries between nodes, below capnp-rpc: the calls on an inbox written into the outgoing bytes,
//! and read from where they arrived.
//!
//! Which number each side's inbox has is in the messages by which the two introduce themselves:
//! the dialler's in its call of `Gate.attach`, the other's in the answer to that. capnp-rpc keeps
//! the references to them; here they are only used.
//!
//! Nobody waits for the answer to a delivery but the sender's window. So it is kept back until this
//! side has something to say anyway, or for [`OWED_FOR`]: for each delivery one write less, and one
//! process less to wake.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use capnp::message::{Builder, HeapAllocator};
use capnp::traits::HasTypeId;
use capnp::{Error, any_pointer};
use capnp_rpc::rpc_capnp::{call, message, message_target, return_};
use kvorum_schema::client_capnp::gate;
use kvorum_schema::peer_capnp::inbox;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::serve::begin_answer;
use super::{FIRST_QUESTION, GATE_ATTACH, given};
use crate::vat::{Peeked, Shortcut, Wire};

/// Numbers before the first is used again: many more than are ever under way.
const QUESTIONS: u32 = 1 << 20;

/// Words of a delivery beside its messages, and of its answer.
const CALL_WORDS: usize = 32;
const ANSWER_WORDS: u32 = 16;

/// How many answers are kept back at most, far below a sender's window.
const OWED_MAX: usize = 8;

/// How long an answer is kept back at most, unless the node has more waiting than it can take.
const OWED_FOR: Duration = Duration::from_millis(2);

/// What takes deliveries.
pub(crate) trait Mailslot {
    /// Takes a delivery that came in so many bytes; false if capnp-rpc has to see to it.
    fn take(
        &self,
        method: u16,
        params: any_pointer::Reader<'_>,
        bytes: usize,
    ) -> Result<bool, Error>;

    /// Whether the node can take more.
    fn has_room(&self) -> bool;
}

/// The deliveries of one connection, both ways.
#[derive(Default)]
pub(crate) struct Deliveries {
    /// The question by which one side introduces itself, if this side asked it or the other.
    asked_attach: Cell<Option<u32>>,
    was_asked_attach: Cell<Option<u32>>,
    /// The numbers of the other side's inbox, and of this side's.
    their_inbox: Cell<Option<u32>>,
    own_inbox: Cell<Option<u32>>,
    slot: RefCell<Option<Rc<dyn Mailslot>>>,
    /// Deliveries that came and are not answered.
    owed: RefCell<Vec<u32>>,
    is_paying: Cell<bool>,
    /// Deliveries that went and are not answered, with their bytes.
    under_way: RefCell<VecDeque<(u32, usize)>>,
    bytes_under_way: Cell<usize>,
    next: Cell<u32>,
    /// Told when one was answered.
    answered: RefCell<Option<Arc<Notify>>>,
}

impl Deliveries {
    /// From now on what comes goes there.
    pub(crate) fn set_slot(&self, slot: Rc<dyn Mailslot>) {
        *self.slot.borrow_mut() = Some(slot);
    }

    /// From now on this is told when a delivery was answered.
    pub(crate) fn set_answered(&self, answered: Arc<Notify>) {
        *self.answered.borrow_mut() = Some(answered);
    }

    /// Whether it is known where the other side takes deliveries.
    pub(crate) fn can_deliver(&self) -> bool {
        self.their_inbox.get().is_some()
    }

    /// Deliveries that are not answered, and their bytes.
    pub(crate) fn under_way(&self) -> (usize, usize) {
        (self.under_way.borrow().len(), self.bytes_under_way.get())
    }

    /// Delivers over a wire by this method, whose parameters take so many bytes.
    ///
    /// # Panics
    /// If it is not known where: see [`Deliveries::can_deliver`].
    pub(crate) fn deliver(
        &self,
        wire: &Wire,
        method: u16,
        bytes: usize,
        write: impl FnOnce(any_pointer::Builder<'_>),
    ) {
        let inbox = self.their_inbox.get().expect("a link delivers to an inbox");
        self.pay(wire);
        let number = FIRST_QUESTION + self.next.get();
        self.next.set((self.next.get() + 1) % QUESTIONS);
        self.under_way.borrow_mut().push_back((number, bytes));
        self.bytes_under_way.set(self.bytes_under_way.get() + bytes);
        let words = u32::try_from(CALL_WORDS + bytes.div_ceil(8)).unwrap_or(u32::MAX);
        let mut message = Builder::new(HeapAllocator::new().first_segment_words(words));
        let mut call = message.init_root::<message::Builder<'_>>().init_call();
        call.set_question_id(number);
        call.set_interface_id(inbox::Client::TYPE_ID);
        call.set_method_id(method);
        call.reborrow().init_target().set_imported_cap(inbox);
        write(call.init_params().init_content());
        wire.say(&message);
    }

    /// Answers what came, if the node can take more.
    fn pay(&self, wire: &Wire) {
        if !self.slot.borrow().as_ref().is_some_and(|slot| slot.has_room()) {
            return;
        }
        for question in self.owed.borrow_mut().drain(..) {
            let mut message = Builder::new(HeapAllocator::new().first_segment_words(ANSWER_WORDS));
            let answer = begin_answer(question, &mut message);
            answer.init_results().init_content().init_as::<inbox::deliver_results::Builder<'_>>();
            wire.note_answer(false);
            wire.say(&message);
        }
    }

    fn call(
        self: &Rc<Self>,
        wire: &Rc<Wire>,
        call: call::Reader<'_>,
        bytes: usize,
    ) -> Result<bool, Error> {
        if call.get_interface_id() == gate::Client::TYPE_ID && call.get_method_id() == GATE_ATTACH {
            self.was_asked_attach.set(Some(call.get_question_id()));
            self.their_inbox.set(given(call.get_params()?));
            return Ok(false);
        }
        let target = call.get_target().map(|target| target.which());
        let is_ours = call.get_interface_id() == inbox::Client::TYPE_ID
            && matches!(target, Ok(Ok(message_target::ImportedCap(id)))
                if Some(id) == self.own_inbox.get());
        let Some(slot) = self.slot.borrow().clone().filter(|_| is_ours) else {
            return Ok(false);
        };
        if !slot.take(call.get_method_id(), call.get_params()?.get_content(), bytes)? {
            return Ok(false);
        }
        wire.note_question();
        self.owe(wire, call.get_question_id());
        Ok(true)
    }

    fn owe(self: &Rc<Self>, wire: &Rc<Wire>, question: u32) {
        self.owed.borrow_mut().push(question);
        // Who counts otherwise may have a smaller window.
        if question < FIRST_QUESTION || self.owed.borrow().len() >= OWED_MAX {
            self.pay(wire);
        }
        if !self.owed.borrow().is_empty() && !self.is_paying.replace(true) {
            spawn_local(Rc::clone(self).pay_soon(Rc::clone(wire)));
        }
    }

    async fn pay_soon(self: Rc<Self>, wire: Rc<Wire>) {
        while !self.owed.borrow().is_empty() && !wire.is_closed() {
            sleep(OWED_FOR).await;
            self.pay(&wire);
        }
        self.is_paying.set(false);
    }

    fn answer(&self, answer: return_::Reader<'_>) -> Result<bool, Error> {
        let number = answer.get_answer_id();
        if self.asked_attach.get() == Some(number) {
            self.asked_attach.set(None);
            if let return_::Results(results) = answer.which()? {
                self.their_inbox.set(given(results?));
            }
            return Ok(false);
        }
        if number < FIRST_QUESTION {
            return Ok(false);
        }
        let mut under_way = self.under_way.borrow_mut();
        // They are answered in order, but need not be.
        let Some(at) = under_way.iter().position(|(known, _)| *known == number) else {
            return Err(Error::failed(format!("an answer to {number}, which was not asked")));
        };
        let (_, bytes) = under_way.remove(at).expect("it was just found there");
        self.bytes_under_way.set(self.bytes_under_way.get() - bytes);
        if let return_::Exception(exception) = answer.which()? {
            let reason = exception?.get_reason()?.to_string()?;
            return Err(Error::disconnected(format!("a delivery failed: {reason}")));
        }
        if let Some(answered) = &*self.answered.borrow() {
            answered.notify_one();
        }
        Ok(true)
    }

    fn finish(wire: &Wire, number: u32) {
        let mut message = Builder::new(HeapAllocator::new().first_segment_words(8));
        let mut finish = message.init_root::<message::Builder<'_>>().init_finish();
        finish.set_question_id(number);
        wire.say(&message);
    }
}

impl Shortcut for Rc<Deliveries> {
    fn receive(
        &self,
        wire: &Rc<Wire>,
        frame: &Peeked<'_>,
        message: message::Reader<'_>,
    ) -> Result<bool, Error> {
        match message.which() {
            Ok(message::Call(call)) => self.call(wire, call?, frame.bytes()),
            Ok(message::Return(answer)) => {
                let answer = answer?;
                let is_ours = self.answer(answer)?;
                if is_ours && !answer.get_no_finish_needed() {
                    Deliveries::finish(wire, answer.get_answer_id());
                }
                Ok(is_ours)
            }
            _ => Ok(false),
        }
    }

    fn sending(&self, message: message::Reader<'_>) {
        match message.which() {
            Ok(message::Call(Ok(call)))
                if call.get_interface_id() == gate::Client::TYPE_ID
                    && call.get_method_id() == GATE_ATTACH =>
            {
                self.asked_attach.set(Some(call.get_question_id()));
                self.own_inbox.set(call.get_params().ok().and_then(given));
            }
            Ok(message::Return(Ok(answer)))
                if self.was_asked_attach.get() == Some(answer.get_answer_id()) =>
            {
                self.was_asked_attach.set(None);
                if let Ok(return_::Results(Ok(results))) = answer.which() {
                    self.own_inbox.set(given(results));
                }
            }
            _ => {}
        }
    }

    fn ended(&self, _reason: &Error) {
        // The slot knows its connection, which knows this.
        *self.slot.borrow_mut() = None;
        *self.answered.borrow_mut() = None;
    }
}
