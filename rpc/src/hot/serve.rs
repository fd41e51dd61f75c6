//! The server's side: reads, writes and transactions asked of the node from where they arrived, and
//! answered into the outgoing bytes.

use std::rc::Rc;
use std::time::Instant;

use capnp::Error;
use capnp::any_pointer;
use capnp::message::{Builder, HeapAllocator};
use capnp_rpc::rpc_capnp::{call, exception, message, payload, return_};
use kvorum_replication::{Answer, Operation, Outcome, Query, Write};
use kvorum_schema::client_capnp::key_value::{
    delete_params, delete_results, get_params, get_results, put_params, put_results,
    transact_params, transact_results,
};

use super::shapes::{CommittedAnswer, GetCall, PutCall, ValueAnswer};
use super::{Deliveries, Ledger, Method};
use crate::convert::{Rejected, key, value};
use crate::server::{Asker, Connection, Kind, Service, Share, Worker, key_value};
use crate::vat::{Held, Peeked, Shortcut, Wire};

/// Words of an answer beside its value: generous, so that one segment holds it all.
const ANSWER_WORDS: usize = 40;

/// Takes a connection's hot calls before capnp-rpc sees them.
pub(crate) struct Serving {
    worker: Rc<Worker>,
    ledger: Rc<Ledger>,
    /// If it turns out to be a node that has connected.
    deliveries: Rc<Deliveries>,
    share: Rc<Share>,
}

impl Serving {
    pub(crate) fn new(worker: Rc<Worker>, connection: &Connection) -> Self {
        Self {
            worker,
            ledger: Rc::clone(&connection.ledger),
            deliveries: Rc::clone(&connection.deliveries),
            share: Rc::clone(&connection.share),
        }
    }

    fn call(&self, wire: &Rc<Wire>, call: call::Reader<'_>) -> Result<bool, Error> {
        let Some(method) = self.method(call) else {
            self.ledger.ask_slow(call)?;
            return Ok(false);
        };
        let is_taken = self.take(wire, method, call.get_question_id(), || read(method, call))?;
        if !is_taken {
            // Whatever is wrong with a call, capnp-rpc and the store know how to say so.
            self.ledger.ask_slow(call)?;
        }
        Ok(is_taken)
    }

    /// Answers a call, or asks the node for its answer; false if it cannot be read.
    fn take(
        &self,
        wire: &Rc<Wire>,
        method: Method,
        question: u32,
        read: impl FnOnce() -> Option<(Operation, u32)>,
    ) -> Result<bool, Error> {
        // Refused before anything was done for it: not even its key is looked at.
        let Some(place) = self.share.admit(kind(method), Instant::now) else {
            self.ledger.check_new(question)?;
            self.worker.refuse(wire, method, question);
            return Ok(true);
        };
        let Some((operation, timeout_ms)) = read() else {
            return Ok(false);
        };
        let place = match self.worker.requests.read(&operation, place) {
            Ok(outcome) => {
                self.ledger.check_new(question)?;
                say_answer(wire, question, method, outcome, &self.worker.service);
                return Ok(true);
            }
            Err(place) => place,
        };
        self.ledger.ask_hot(question)?;
        wire.note_question();
        let bytes = key_value::operation_bytes(&operation);
        let answering = Answering {
            wire: Rc::clone(wire),
            ledger: Rc::clone(&self.ledger),
            question,
            method,
            _held: wire.hold(bytes),
        };
        self.worker.requests.ask(operation, timeout_ms, bytes, Asker::Call(answering), place);
        Ok(true)
    }

    /// The hot method that is called, if the call may take the shortcut.
    fn method(&self, call: call::Reader<'_>) -> Option<Method> {
        if !self.ledger.may_shortcut(call) {
            return None;
        }
        match Method::of(call.get_method_id())? {
            Method::OpenSession | Method::Scan | Method::GetMany => None,
            hot @ (Method::Get | Method::Put | Method::Delete | Method::Transact) => Some(hot),
        }
    }
}

fn kind(method: Method) -> Kind {
    match method {
        Method::Get => Kind::Get,
        Method::Scan | Method::GetMany => Kind::Scan,
        Method::OpenSession | Method::Put | Method::Delete | Method::Transact => Kind::Write,
    }
}

fn read(method: Method, call: call::Reader<'_>) -> Option<(Operation, u32)> {
    let params = call.get_params().ok()?;
    if !params.get_cap_table().ok()?.is_empty() {
        return None;
    }
    read_params(method, params).ok()?
}

fn read_get(call: &GetCall<'_>) -> Option<(Operation, u32)> {
    let query = Query::Get(key(call.key).ok()?);
    Some((key_value::reading(query, call.stale), call.timeout_ms))
}

fn read_put(call: &PutCall<'_>) -> Option<(Operation, u32)> {
    let write = Write::Put(key(call.key).ok()?, value(call.value).ok()?);
    Some((key_value::single(call.stamp, write), call.timeout_ms))
}

/// What is asked; `None` if not by a hot method.
fn read_params(
    method: Method,
    params: payload::Reader<'_>,
) -> Result<Option<(Operation, u32)>, Rejected> {
    let content = params.get_content();
    Ok(Some(match method {
        Method::Get => key_value::read_get(content.get_as::<get_params::Reader<'_>>()?)?,
        Method::Put => key_value::read_put(content.get_as::<put_params::Reader<'_>>()?)?,
        Method::Delete => key_value::read_delete(content.get_as::<delete_params::Reader<'_>>()?)?,
        Method::Transact => {
            key_value::read_transact(content.get_as::<transact_params::Reader<'_>>()?)?
        }
        Method::OpenSession | Method::Scan | Method::GetMany => return Ok(None),
    }))
}

impl Shortcut for Serving {
    fn recognise(&self, wire: &Rc<Wire>, message: &[u8]) -> Result<bool, Error> {
        if let Some(call) = GetCall::read(message) {
            return Ok(self.ledger.may_call(call.target)
                && self.take(wire, Method::Get, call.question, || read_get(&call))?);
        }
        let Some(call) = PutCall::read(message) else {
            return Ok(false);
        };
        Ok(self.ledger.may_call(call.target)
            && self.take(wire, Method::Put, call.question, || read_put(&call))?)
    }

    fn receive(
        &self,
        wire: &Rc<Wire>,
        frame: &Peeked<'_>,
        message: message::Reader<'_>,
    ) -> Result<bool, Error> {
        if self.deliveries.receive(wire, frame, message)? {
            return Ok(true);
        }
        match message.which() {
            Ok(message::Call(call)) => self.call(wire, call?),
            Ok(message::Bootstrap(bootstrap)) => {
                self.ledger.ask_bootstrap(bootstrap?)?;
                Ok(false)
            }
            Ok(message::Finish(finish)) => Ok(!self.ledger.finish(finish?)),
            Ok(message::Release(release)) => {
                self.ledger.release(release?);
                Ok(false)
            }
            _ => Ok(false),
        }
    }

    fn holds_back(&self) -> bool {
        self.ledger.is_full()
    }

    fn sending(&self, message: message::Reader<'_>) {
        self.deliveries.sending(message);
        if let Ok(message::Return(Ok(answer))) = message.which() {
            self.ledger.return_slow(answer);
        }
    }

    fn ended(&self, _reason: &Error) {}
}

/// A call that waits for the node.
pub(crate) struct Answering {
    wire: Rc<Wire>,
    ledger: Rc<Ledger>,
    question: u32,
    method: Method,
    /// Counts the request against the connection until it is answered.
    _held: Held,
}

impl Answering {
    /// Answers the call. No word is needed back: nothing is kept for it here.
    pub(crate) fn answer(self, outcome: Outcome, service: &Service) {
        let Self { wire, ledger, question, method, _held } = self;
        if ledger.return_hot(question) {
            say_answer(&wire, question, method, outcome, service);
        } else {
            let mut answer = new_answer(0);
            begin_answer(question, &mut answer).set_canceled(());
            wire.say_promptly(&answer);
        }
        wire.note_answer(false);
    }
}

/// Answers a call.
fn say_answer(wire: &Wire, question: u32, method: Method, outcome: Outcome, service: &Service) {
    match (method, &outcome) {
        (Method::Get, Outcome::Answer(Answer::Value(Some(value)))) if !value.is_empty() => {
            wire.say_with(|to| ValueAnswer { question, value }.write(to));
        }
        (Method::Put | Method::Delete | Method::Transact, Outcome::Committed) => {
            wire.say_with(|to| CommittedAnswer { question }.write(to));
        }
        _ => wire.say_promptly(&answer(question, method, outcome, service)),
    }
}

/// The answer to a call.
fn answer(
    question: u32,
    method: Method,
    outcome: Outcome,
    service: &Service,
) -> Builder<HeapAllocator> {
    let mut answer = new_answer(value_bytes(&outcome));
    let content = begin_answer(question, &mut answer).init_results().init_content();
    if let Err(error) = write_results(method, outcome, service, content) {
        answer = new_answer(0);
        let mut builder = begin_answer(question, &mut answer).init_exception();
        builder.set_type(exception::Type::Failed);
        builder.set_reason(&error.extra);
    }
    answer
}

/// Begins the answer to a question: one that needs no word back.
pub(super) fn begin_answer(
    question: u32,
    answer: &mut Builder<HeapAllocator>,
) -> return_::Builder<'_> {
    let mut builder = answer.init_root::<message::Builder<'_>>().init_return();
    builder.set_answer_id(question);
    builder.set_release_param_caps(false);
    builder.set_no_finish_needed(true);
    builder
}

pub(super) fn write_results(
    method: Method,
    outcome: Outcome,
    service: &Service,
    content: any_pointer::Builder<'_>,
) -> Result<(), Error> {
    match method {
        Method::Get => {
            let result = content.init_as::<get_results::Builder<'_>>().init_result();
            key_value::write_get(service, outcome, result)
        }
        Method::Put => {
            let result = content.init_as::<put_results::Builder<'_>>().init_result();
            key_value::write_write(service, outcome, result)
        }
        Method::Delete => {
            let result = content.init_as::<delete_results::Builder<'_>>().init_result();
            key_value::write_write(service, outcome, result)
        }
        Method::Transact => {
            let result = content.init_as::<transact_results::Builder<'_>>().init_result();
            key_value::write_write(service, outcome, result)
        }
        Method::OpenSession | Method::Scan | Method::GetMany => Err(not_hot()),
    }
}

fn not_hot() -> Error {
    Error::unimplemented("a method that is not answered here".to_owned())
}

fn value_bytes(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Answer(Answer::Value(Some(value))) => value.len(),
        Outcome::Answer(_) | Outcome::Committed | Outcome::Session(_) | Outcome::Failed(_) => 0,
    }
}

pub(super) fn new_answer(value_bytes: usize) -> Builder<HeapAllocator> {
    let words = u32::try_from(ANSWER_WORDS + value_bytes.div_ceil(8)).unwrap_or(u32::MAX);
    Builder::new(HeapAllocator::new().first_segment_words(words))
}
