//! The shapes of the calls and answers that come by the thousand.

use std::sync::LazyLock;

use capnp::message::{Builder, HeapAllocator};
use capnp::traits::HasTypeId;
use capnp_rpc::rpc_capnp::{call, message};
use kvorum_replication::{ClientId, Failure, Stamp};
use kvorum_schema::client_capnp::key_value::{
    self, get_params, get_results, put_params, put_results,
};

use super::Method;
use super::serve::begin_answer;
use super::shape::Shape;
use crate::convert::client::{Told, write_failure};

static GET: LazyLock<Shape<4, 1>> = LazyLock::new(|| {
    Shape::learn(|([question, target, timeout_ms, stale], [key]), message| {
        let call = begin_call(low(question), low(target), Method::Get, message);
        let mut params = call.init_params().init_content().init_as::<get_params::Builder<'_>>();
        params.set_key(key);
        params.set_timeout_ms(low(timeout_ms));
        params.set_stale(stale != 0);
    })
});

static PUT: LazyLock<Shape<6, 2>> = LazyLock::new(|| {
    Shape::learn(|(numbers, [key, value]), message| {
        let [question, target, timeout_ms, client, sequence, answered_below] = numbers;
        let call = begin_call(low(question), low(target), Method::Put, message);
        let mut params = call.init_params().init_content().init_as::<put_params::Builder<'_>>();
        let mut stamp = params.reborrow().init_stamp();
        stamp.set_client(client);
        stamp.set_sequence(sequence);
        stamp.set_answered_below(answered_below);
        params.set_key(key);
        params.set_value(value);
        params.set_timeout_ms(low(timeout_ms));
    })
});

static VALUE: LazyLock<Shape<1, 1>> = LazyLock::new(|| {
    Shape::learn(|([question], [value]), message| {
        let content = begin_answer(low(question), message).init_results().init_content();
        content.init_as::<get_results::Builder<'_>>().init_result().set_value(value);
    })
});

static COMMITTED: LazyLock<Shape<1, 0>> = LazyLock::new(|| {
    Shape::learn(|([question], []), message| {
        let content = begin_answer(low(question), message).init_results().init_content();
        content.init_as::<put_results::Builder<'_>>().init_result().set_committed(());
    })
});

static OVERLOADED_READ: LazyLock<Shape<1, 0>> = LazyLock::new(|| {
    Shape::learn(|([question], []), message| {
        let content = begin_answer(low(question), message).init_results().init_content();
        let result = content.init_as::<get_results::Builder<'_>>().init_result();
        write_failure(&Told::Failure(Failure::Overloaded), result.init_failed());
    })
});

static OVERLOADED_WRITE: LazyLock<Shape<1, 0>> = LazyLock::new(|| {
    Shape::learn(|([question], []), message| {
        let content = begin_answer(low(question), message).init_results().init_content();
        let result = content.init_as::<put_results::Builder<'_>>().init_result();
        write_failure(&Told::Failure(Failure::Overloaded), result.init_failed());
    })
});

/// A number that stands in 32 bits.
fn low(number: u64) -> u32 {
    number as u32
}

/// Begins a call on a store.
pub(super) fn begin_call(
    question: u32,
    target: u32,
    method: Method,
    message: &mut Builder<HeapAllocator>,
) -> call::Builder<'_> {
    let mut call = message.init_root::<message::Builder<'_>>().init_call();
    call.set_question_id(question);
    call.set_interface_id(key_value::Client::TYPE_ID);
    call.set_method_id(method.number());
    call.reborrow().init_target().set_imported_cap(target);
    call
}

/// A read of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GetCall<'a> {
    pub(super) question: u32,
    pub(super) target: u32,
    pub(super) timeout_ms: u32,
    pub(super) stale: bool,
    pub(super) key: &'a [u8],
}

/// A write of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PutCall<'a> {
    pub(super) question: u32,
    pub(super) target: u32,
    pub(super) timeout_ms: u32,
    pub(super) stamp: Option<Stamp>,
    pub(super) key: &'a [u8],
    pub(super) value: &'a [u8],
}

/// The value of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ValueAnswer<'a> {
    pub(super) question: u32,
    pub(super) value: &'a [u8],
}

/// A write has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommittedAnswer {
    pub(super) question: u32,
}

/// Too much is in flight for a read or a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OverloadedAnswer {
    pub(super) question: u32,
}

impl<'a> GetCall<'a> {
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let Self { question, target, timeout_ms, stale, key } = *self;
        let numbers = [question.into(), target.into(), timeout_ms.into(), stale.into()];
        GET.write(to, (numbers, [key]));
    }

    pub(super) fn read(message: &'a [u8]) -> Option<Self> {
        let ([question, target, timeout_ms, stale], [key]) = GET.read(message)?;
        Some(Self {
            question: low(question),
            target: low(target),
            timeout_ms: low(timeout_ms),
            stale: stale != 0,
            key,
        })
    }
}

impl<'a> PutCall<'a> {
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        let Self { question, target, timeout_ms, stamp, key, value } = *self;
        let [client, sequence, answered_below] =
            stamp.map_or([0; 3], |stamp| [stamp.client.0, stamp.sequence, stamp.answered_below]);
        let numbers =
            [question.into(), target.into(), timeout_ms.into(), client, sequence, answered_below];
        PUT.write(to, (numbers, [key, value]));
    }

    pub(super) fn read(message: &'a [u8]) -> Option<Self> {
        let (numbers, [key, value]) = PUT.read(message)?;
        let [question, target, timeout_ms, client, sequence, answered_below] = numbers;
        let stamp = Stamp { client: ClientId(client), sequence, answered_below };
        Some(Self {
            question: low(question),
            target: low(target),
            timeout_ms: low(timeout_ms),
            stamp: (client != 0).then_some(stamp),
            key,
            value,
        })
    }
}

impl<'a> ValueAnswer<'a> {
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        VALUE.write(to, ([self.question.into()], [self.value]));
    }

    pub(super) fn read(message: &'a [u8]) -> Option<Self> {
        let ([question], [value]) = VALUE.read(message)?;
        Some(Self { question: low(question), value })
    }
}

impl CommittedAnswer {
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        COMMITTED.write(to, ([self.question.into()], []));
    }

    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let ([question], []) = COMMITTED.read(message)?;
        Some(Self { question: low(question) })
    }
}

impl OverloadedAnswer {
    pub(super) fn read(message: &[u8]) -> Option<Self> {
        let found = OVERLOADED_WRITE.read(message).or_else(|| OVERLOADED_READ.read(message));
        let ([question], []) = found?;
        Some(Self { question: low(question) })
    }
}

#[cfg(test)]
mod tests;
