//! The client's side: calls on the store written into the outgoing bytes, and their answers cut
//! out of the incoming ones.
//!
//! The questions asked here have numbers that capnp-rpc, which counts from 0 and takes the lowest
//! that is free, never reaches. The store is asked for here too, so that the reference to it is
//! this side's own, whatever capnp-rpc releases.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use capnp::message::{Builder, HeapAllocator, Reader};
use capnp::traits::{FromPointerReader, HasTypeId, Owned};
use capnp::{Error, ErrorKind};
use capnp_rpc::rpc_capnp::{cap_descriptor, exception, message, payload, return_};
use kvorum_replication::Stamp;
use kvorum_schema::client_capnp::gate;
use tokio::time::Instant;

use super::questions::{Question, Questions, Unheard};
use super::shapes::{CommittedAnswer, GetCall, OverloadedAnswer, PutCall, ValueAnswer, begin_call};
use super::{GATE_CLIENT, Method};
use crate::convert::value_to_keep;
use crate::vat::{Frame, Peeked, Shortcut, Wire, reader_options};

/// Words of a call beside its keys and values: generous, so that one segment holds it all.
const CALL_WORDS: usize = 48;

/// The store at the other end of a connection.
pub(crate) struct Store {
    wire: Rc<Wire>,
    asking: Rc<Asking>,
    import: u32,
}

impl Store {
    /// Shows the token at the gate of a connection on which nothing has been said yet.
    pub(crate) async fn open(
        wire: &Rc<Wire>,
        asking: &Rc<Asking>,
        token: &[u8],
    ) -> Result<Self, Error> {
        let bootstrap = asking.questions.open()?;
        let mut message = Builder::new_default();
        let builder = message.init_root::<message::Builder<'_>>();
        builder.init_bootstrap().set_question_id(bootstrap.number());
        wire.say(&message);

        let asked = asking.questions.open()?;
        asking.gate.set(Some(asked.number()));
        let mut message = Builder::new_default();
        let mut call = message.init_root::<message::Builder<'_>>().init_call();
        call.set_question_id(asked.number());
        call.set_interface_id(gate::Client::TYPE_ID);
        call.set_method_id(GATE_CLIENT);
        let mut target = call.reborrow().init_target().init_promised_answer();
        target.set_question_id(bootstrap.number());
        let params = call.init_params().init_content();
        params.init_as::<gate::client_params::Builder<'_>>().set_token(token);
        wire.say(&message);

        drop(bootstrap);
        let import = match asked.await {
            Ok(given) => given.capability()?,
            Err(Unheard::Failed(error)) => return Err(error),
            Err(Unheard::Late) => unreachable!("it is waited for as long as it takes"),
        };
        Ok(Self { wire: Rc::clone(wire), asking: Rc::clone(asking), import })
    }

    /// Asks for the value of a key.
    pub(crate) fn get(&self, key: &[u8], timeout_ms: u32, stale: bool) -> Result<Question, Error> {
        let opened = self.asking.questions.open()?;
        let (question, target) = (opened.number(), self.import);
        let call = GetCall { question, target, timeout_ms, stale, key };
        self.wire.say_with(|to| call.write(to));
        Ok(opened)
    }

    /// Asks for a key to have a value, which is not empty.
    pub(crate) fn put(
        &self,
        stamp: Option<Stamp>,
        key: &[u8],
        value: &[u8],
        timeout_ms: u32,
    ) -> Result<Question, Error> {
        let opened = self.asking.questions.open()?;
        let (question, target) = (opened.number(), self.import);
        let call = PutCall { question, target, timeout_ms, stamp, key, value };
        self.wire.say_with(|to| call.write(to));
        Ok(opened)
    }

    /// Calls a method; `bytes` says how large the parameters will be.
    pub(crate) fn call<P: Owned>(
        &self,
        method: Method,
        bytes: usize,
        write: impl FnOnce(P::Builder<'_>),
    ) -> Result<Question, Error> {
        let question = self.asking.questions.open()?;
        let words = u32::try_from(CALL_WORDS + bytes.div_ceil(8)).unwrap_or(u32::MAX);
        let mut message = Builder::new(HeapAllocator::new().first_segment_words(words));
        let call = begin_call(question.number(), self.import, method, &mut message);
        write(call.init_params().init_content().init_as());
        self.wire.say_promptly(&message);
        Ok(question)
    }
}

/// Takes the answers to the hot path's questions before capnp-rpc sees them.
#[derive(Default)]
pub(crate) struct Asking {
    questions: Rc<Questions>,
    /// The question whose answer is the store.
    gate: Cell<Option<u32>>,
}

impl Shortcut for Asking {
    fn recognise(&self, _wire: &Rc<Wire>, message: &[u8]) -> Result<bool, Error> {
        let (question, response) = if let Some(answer) = CommittedAnswer::read(message) {
            (answer.question, Response::Committed)
        } else if let Some(answer) = ValueAnswer::read(message) {
            let Ok(value) = value_to_keep(answer.value) else { return Ok(false) };
            (answer.question, Response::Value(value))
        } else if let Some(answer) = OverloadedAnswer::read(message) {
            (answer.question, Response::Overloaded)
        } else {
            return Ok(false);
        };
        if !Questions::owns(question) {
            return Ok(false);
        }
        match self.questions.answer(question, || Ok(response)) {
            true => Ok(true),
            false => Err(not_asked(question)),
        }
    }

    fn receive(
        &self,
        wire: &Rc<Wire>,
        frame: &Peeked<'_>,
        message: message::Reader<'_>,
    ) -> Result<bool, Error> {
        let Ok(message::Return(answer)) = message.which() else {
            return Ok(false);
        };
        let answer = answer?;
        let number = answer.get_answer_id();
        if !Questions::owns(number) {
            return Ok(false);
        }
        if !self.questions.answer(number, || Response::new(wire, frame, answer)) {
            return Err(not_asked(number));
        }
        if !answer.get_no_finish_needed() {
            self.finish(wire, number);
        }
        Ok(true)
    }

    fn sending(&self, _message: message::Reader<'_>) {}

    fn ended(&self, reason: &Error) {
        self.questions.end(reason);
    }
}

impl Asking {
    /// Tells those that wait for answers longer than they want to.
    pub(crate) fn expire(&self, now: Instant) {
        self.questions.expire(now);
    }

    /// Tells a server that does not know that it need not be told.
    fn finish(&self, wire: &Wire, number: u32) {
        let keeps = self.gate.get() == Some(number);
        if keeps {
            self.gate.set(None);
        }
        let mut message = Builder::new(HeapAllocator::new().first_segment_words(8));
        let mut finish = message.init_root::<message::Builder<'_>>().init_finish();
        finish.set_question_id(number);
        finish.set_release_result_caps(!keeps);
        wire.say(&message);
    }
}

/// An answer with results.
pub(crate) enum Response {
    /// The value that was asked for.
    Value(Bytes),
    /// The write has happened.
    Committed,
    /// Too much is in flight; it has not happened.
    Overloaded,
    /// Any results.
    Results(Reader<Frame>),
}

impl Response {
    /// The results, or the error that came instead.
    fn new(wire: &Wire, frame: &Peeked<'_>, answer: return_::Reader<'_>) -> Result<Self, Error> {
        match answer.which()? {
            return_::Results(_) => {
                let options = reader_options(frame.bytes(), wire.limits.nesting_max);
                Ok(Self::Results(Reader::new(frame.to_frame(), options)))
            }
            return_::Exception(exception) => Err(thrown(exception?)),
            return_::Canceled(())
            | return_::ResultsSentElsewhere(())
            | return_::TakeFromOtherQuestion(_)
            | return_::AcceptFromThirdParty(_) => {
                Err(Error::failed("an answer without results".to_owned()))
            }
        }
    }

    /// The results as the method's schema names them.
    pub(crate) fn results<'a, R: FromPointerReader<'a>>(&'a self) -> Result<R, Error> {
        self.payload()?.get_content().get_as()
    }

    fn payload(&self) -> Result<payload::Reader<'_>, Error> {
        let message = match self {
            Self::Results(message) => message,
            Self::Overloaded => return Err(Error::overloaded(String::new())),
            Self::Value(_) | Self::Committed => return Err(no_results()),
        };
        match message.get_root::<message::Reader<'_>>()?.which()? {
            message::Return(answer) => match answer?.which()? {
                return_::Results(results) => results,
                _ => Err(no_results()),
            },
            _ => Err(no_results()),
        }
    }

    /// The one capability among the results. A promise of one is as good: the reference to it is
    /// kept, and the other side passes on what comes for it.
    fn capability(&self) -> Result<u32, Error> {
        let table = self.payload()?.get_cap_table()?;
        let only = table.try_get(0).filter(|_| table.len() == 1).map(|only| only.which());
        match only {
            Some(Ok(
                cap_descriptor::SenderHosted(import) | cap_descriptor::SenderPromise(import),
            )) => Ok(import),
            _ => Err(Error::failed("the gate gave no store".to_owned())),
        }
    }
}

fn not_asked(number: u32) -> Error {
    Error::failed(format!("an answer to {number}, which was not asked"))
}

fn no_results() -> Error {
    Error::failed("an answer without results".to_owned())
}

fn thrown(exception: exception::Reader<'_>) -> Error {
    let kind = match exception.get_type() {
        Ok(exception::Type::Overloaded) => ErrorKind::Overloaded,
        Ok(exception::Type::Disconnected) => ErrorKind::Disconnected,
        Ok(exception::Type::Unimplemented) => ErrorKind::Unimplemented,
        Ok(exception::Type::Failed) | Err(_) => ErrorKind::Failed,
    };
    let reason = exception.get_reason().ok().and_then(|reason| reason.to_string().ok());
    Error { kind, extra: reason.unwrap_or_else(|| "an error that cannot be read".to_owned()) }
}
