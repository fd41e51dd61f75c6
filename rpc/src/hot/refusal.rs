//! The answer of an overloaded server: the same bytes every time, but for the question's number.
//!
//! It is written once, so that a refusal costs a copy: a server that is asked for more than it can
//! do must not spend its time on saying so.

use capnp::message::{Builder, HeapAllocator};
use kvorum_replication::{Failure, Outcome};

use super::Method;
use super::serve::{begin_answer, new_answer, write_results};
use crate::server::Service;
use crate::vat::Wire;

/// The answers, by method.
pub(crate) struct Refusals {
    get: Refusal,
    /// Put, delete and transact have results of one shape.
    write: Refusal,
}

struct Refusal {
    message: Vec<u8>,
    /// Where the question's number stands.
    number_at: usize,
}

impl Refusals {
    pub(crate) fn new(service: &Service) -> Self {
        Self { get: Refusal::new(Method::Get, service), write: Refusal::new(Method::Put, service) }
    }

    /// Refuses a call of a hot method.
    pub(crate) fn say(&self, wire: &Wire, method: Method, question: u32) {
        let refusal = match method {
            Method::Get => &self.get,
            Method::Put | Method::Delete | Method::Transact => &self.write,
            Method::OpenSession | Method::Scan | Method::GetMany => {
                unreachable!("these are never answered on the hot path")
            }
        };
        wire.say_again(&refusal.message, refusal.number_at, question);
    }
}

impl Refusal {
    fn new(method: Method, service: &Service) -> Self {
        let message = Self::message(method, u32::MAX, service);
        let other = Self::message(method, 0, service);
        let differs = |at: &usize| message[*at] != other[*at];
        let number_at = (0..message.len()).find(differs).expect("the numbers differ");
        Self { message, number_at }
    }

    fn message(method: Method, question: u32, service: &Service) -> Vec<u8> {
        let mut answer: Builder<HeapAllocator> = new_answer(0);
        let content = begin_answer(question, &mut answer).init_results().init_content();
        let outcome = Outcome::Failed(Failure::Overloaded);
        write_results(method, outcome, service, content).expect("a failure fits every method");
        capnp::serialize::write_message_to_words(&answer)
    }
}
