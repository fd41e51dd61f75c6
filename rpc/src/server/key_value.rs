//! `KeyValue`: reads and writes, checked at the edge and asked of the node.

use std::rc::Rc;
use std::time::Instant;

use capnp::Error;
use kvorum_replication::{
    Answer, Failure, Operation, Outcome, Page, Query, Stamp, Transaction, Write,
};
use kvorum_schema::client_capnp::{
    get_many_result, get_result, key_value, scan_result, write_result,
};
use tokio::sync::oneshot;

use super::admission::Kind;
use super::connection::Connection;
use super::hub::Service;
use super::requests::{Asker, given_up, writes};
use super::worker::Worker;
use crate::convert::client::{
    Told, read_held, read_keys, read_range, read_stamp, read_transaction, transaction_bytes,
    write_failure, write_held, write_rows, write_values,
};
use crate::convert::{Rejected, key, value};

pub(super) struct KeyValue {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
}

/// A request as it was read with its timeout, or what is wrong with it.
type Asked = Result<(Operation, u32), Rejected>;

impl KeyValue {
    pub(super) fn new(worker: Rc<Worker>, connection: Rc<Connection>) -> Self {
        Self { worker, connection }
    }

    async fn ask(&self, asked: Asked) -> Result<Outcome, Error> {
        self.connection.ledger.arrived();
        let (operation, timeout_ms) = match asked {
            Ok(asked) => asked,
            Err(Rejected::Invalid(reason)) => {
                return Ok(Outcome::Failed(Failure::Invalid { reason }));
            }
            Err(Rejected::Malformed(error)) => return Err(error),
        };
        let Some(place) = self.connection.share.admit(Kind::of(&operation), Instant::now) else {
            self.worker.requests.count_refusal();
            return Ok(Outcome::Failed(Failure::Overloaded));
        };
        let bytes = operation_bytes(&operation);
        let _held = self.connection.wire.hold(bytes);
        let writes = writes(&operation);
        let (asker, told) = oneshot::channel();
        self.worker.requests.ask(operation, timeout_ms, bytes, Asker::Task(asker), place);
        Ok(told.await.unwrap_or_else(|_| given_up(writes)))
    }

    async fn write(&self, asked: Asked, result: write_result::Builder<'_>) -> Result<(), Error> {
        let outcome = self.ask(asked).await?;
        write_write(&self.worker.service, outcome, result)
    }
}

/// The failure as a client can understand it.
fn told(service: &Service, failure: Failure) -> Told {
    match failure {
        Failure::Redirect { to } => Told::Redirect(service.address_of(to)),
        failure => Told::Failure(failure),
    }
}

impl key_value::Server for KeyValue {
    async fn open_session(
        self: Rc<Self>,
        params: key_value::OpenSessionParams,
        mut results: key_value::OpenSessionResults,
    ) -> Result<(), Error> {
        let asked = Ok((Operation::OpenSession, params.get()?.get_timeout_ms()));
        drop(params);
        let outcome = self.ask(asked).await?;
        let mut result = results.get().init_result();
        match outcome {
            Outcome::Session(client) => result.set_client(client.0),
            Outcome::Failed(failure) => {
                write_failure(&told(&self.worker.service, failure), result.init_failed())
            }
            outcome @ (Outcome::Committed | Outcome::Answer(_)) => return Err(odd(&outcome)),
        }
        Ok(())
    }

    async fn get(
        self: Rc<Self>,
        params: key_value::GetParams,
        mut results: key_value::GetResults,
    ) -> Result<(), Error> {
        let asked = read_get(params.get()?);
        drop(params);
        let outcome = self.ask(asked).await?;
        write_get(&self.worker.service, outcome, results.get().init_result())
    }

    async fn put(
        self: Rc<Self>,
        params: key_value::PutParams,
        mut results: key_value::PutResults,
    ) -> Result<(), Error> {
        let asked = read_put(params.get()?);
        drop(params);
        self.write(asked, results.get().init_result()).await
    }

    async fn delete(
        self: Rc<Self>,
        params: key_value::DeleteParams,
        mut results: key_value::DeleteResults,
    ) -> Result<(), Error> {
        let asked = read_delete(params.get()?);
        drop(params);
        self.write(asked, results.get().init_result()).await
    }

    async fn transact(
        self: Rc<Self>,
        params: key_value::TransactParams,
        mut results: key_value::TransactResults,
    ) -> Result<(), Error> {
        let asked = read_transact(params.get()?);
        drop(params);
        self.write(asked, results.get().init_result()).await
    }

    async fn scan(
        self: Rc<Self>,
        params: key_value::ScanParams,
        mut results: key_value::ScanResults,
    ) -> Result<(), Error> {
        let asked = read_scan(params.get()?);
        drop(params);
        let outcome = self.ask(asked).await?;
        write_scan(&self.worker.service, outcome, results.get().init_result())
    }

    async fn get_many(
        self: Rc<Self>,
        params: key_value::GetManyParams,
        mut results: key_value::GetManyResults,
    ) -> Result<(), Error> {
        let asked = read_get_many(params.get()?);
        drop(params);
        let outcome = self.ask(asked).await?;
        write_get_many(&self.worker.service, outcome, results.get().init_result())
    }
}

pub(crate) fn read_get(params: key_value::get_params::Reader<'_>) -> Asked {
    let query = Query::Get(key(params.get_key()?)?);
    Ok((reading(query, params.get_stale()), params.get_timeout_ms()))
}

pub(crate) fn read_put(params: key_value::put_params::Reader<'_>) -> Asked {
    let write = Write::Put(key(params.get_key()?)?, value(params.get_value()?)?);
    Ok((single(read_stamp(params.get_stamp()?), write), params.get_timeout_ms()))
}

pub(crate) fn read_delete(params: key_value::delete_params::Reader<'_>) -> Asked {
    let write = Write::Delete(key(params.get_key()?)?);
    Ok((single(read_stamp(params.get_stamp()?), write), params.get_timeout_ms()))
}

pub(crate) fn read_transact(params: key_value::transact_params::Reader<'_>) -> Asked {
    let stamp = read_stamp(params.get_stamp()?);
    let transaction = read_transaction(params.get_transaction()?)?;
    Ok((Operation::Transact { stamp, transaction }, params.get_timeout_ms()))
}

fn read_scan(params: key_value::scan_params::Reader<'_>) -> Asked {
    let range = read_range(
        params.get_start()?,
        params.get_end()?,
        params.get_has_end(),
        params.get_limit(),
    )?;
    let query = match params.get_paged() {
        true => {
            let of = read_held(params.get_of()?);
            Query::Page(Page { range, last: params.get_last(), of })
        }
        false => Query::Scan(range),
    };
    Ok((reading(query, params.get_stale()), params.get_timeout_ms()))
}

fn read_get_many(params: key_value::get_many_params::Reader<'_>) -> Asked {
    let query = Query::GetMany(read_keys(params.get_keys()?)?);
    Ok((reading(query, params.get_stale()), params.get_timeout_ms()))
}

pub(crate) fn reading(query: Query, stale: bool) -> Operation {
    match stale {
        true => Operation::ReadStale(query),
        false => Operation::Read(query),
    }
}

pub(crate) fn single(stamp: Option<Stamp>, write: Write) -> Operation {
    let transaction = Transaction { preconditions: Vec::new(), writes: vec![write] };
    Operation::Transact { stamp, transaction }
}

pub(crate) fn operation_bytes(operation: &Operation) -> usize {
    match operation {
        Operation::Transact { transaction, .. } => transaction_bytes(transaction),
        Operation::OpenSession
        | Operation::Read(_)
        | Operation::ReadStale(_)
        | Operation::ChangeMembers { .. }
        | Operation::ChangeReplicas(_) => 0,
    }
}

pub(crate) fn write_write(
    service: &Service,
    outcome: Outcome,
    mut result: write_result::Builder<'_>,
) -> Result<(), Error> {
    match outcome {
        Outcome::Committed => result.set_committed(()),
        Outcome::Failed(failure) => write_failure(&told(service, failure), result.init_failed()),
        outcome @ (Outcome::Session(_) | Outcome::Answer(_)) => return Err(odd(&outcome)),
    }
    Ok(())
}

pub(crate) fn write_get(
    service: &Service,
    outcome: Outcome,
    mut result: get_result::Builder<'_>,
) -> Result<(), Error> {
    match outcome {
        Outcome::Answer(Answer::Value(Some(value))) => result.set_value(&value),
        Outcome::Answer(Answer::Value(None)) => result.set_missing(()),
        Outcome::Failed(failure) => write_failure(&told(service, failure), result.init_failed()),
        outcome @ (Outcome::Answer(_) | Outcome::Committed | Outcome::Session(_)) => {
            return Err(odd(&outcome));
        }
    }
    Ok(())
}

fn write_get_many(
    service: &Service,
    outcome: Outcome,
    result: get_many_result::Builder<'_>,
) -> Result<(), Error> {
    match outcome {
        Outcome::Answer(Answer::Values(values)) => {
            let count = u32::try_from(values.len()).map_err(|_| odd(&"too many values"))?;
            write_values(&values, result.init_values(count));
        }
        Outcome::Failed(failure) => write_failure(&told(service, failure), result.init_failed()),
        outcome @ (Outcome::Answer(_) | Outcome::Committed | Outcome::Session(_)) => {
            return Err(odd(&outcome));
        }
    }
    Ok(())
}

fn write_scan(
    service: &Service,
    outcome: Outcome,
    result: scan_result::Builder<'_>,
) -> Result<(), Error> {
    let (rows, more, held) = match outcome {
        Outcome::Answer(Answer::Rows { rows, more }) => (rows, more, None),
        Outcome::Answer(Answer::Page { rows, more, held }) => (rows, more, held),
        Outcome::Failed(failure) => {
            write_failure(&told(service, failure), result.init_failed());
            return Ok(());
        }
        outcome @ (Outcome::Answer(_) | Outcome::Committed | Outcome::Session(_)) => {
            return Err(odd(&outcome));
        }
    };
    let mut builder = result.init_rows();
    builder.set_more(more);
    let count = u32::try_from(rows.len()).map_err(|_| odd(&"a scan of too many rows"))?;
    write_rows(&rows, builder.reborrow().init_rows(count));
    write_held(held, builder.init_held());
    Ok(())
}

/// The node answered a question that was not asked: our mistake, and no reason to die.
fn odd(answer: &dyn std::fmt::Debug) -> Error {
    tracing::error!(?answer, "the node's answer does not fit the question");
    Error::failed("the node's answer does not fit the question".to_owned())
}
