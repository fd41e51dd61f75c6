//! A client's operations: tries, and what is made of their ends.

use std::time::Duration;

use bytes::Bytes;
use capnp::{Error, ErrorKind as CapnpKind};
use kvorum_replication::{ClientId, Failure, Range, Stamp, Transaction, Write};
use kvorum_schema::client_capnp::key_value::{
    delete_params, delete_results, get_results, open_session_params, open_session_results,
    put_params, put_results, scan_params, scan_results, transact_params, transact_results,
};
use kvorum_schema::client_capnp::{failure, get_result, scan_result, session_result, write_result};
use tokio::time::Instant;

use super::connection::{Connection, Unanswered};
use super::error::ClientError;
use super::types::{OnConflict, ProcessStatus, ScanPage};
use super::{ErrorKind, Freshness, Inner};
use crate::convert::client::{
    Told, check_key, check_transaction, read_failure, read_rows, transaction_bytes, write_stamp,
    write_transaction,
};
use crate::convert::{Rejected, admin::read_status, value_to_keep};
use crate::hot::{Method, Question, Response};

/// How long the server's own word on a deadline is waited for behind it: it knows more.
const GRACE: Duration = Duration::from_millis(200);

/// How often an operation follows servers that send it elsewhere without a pause: to a leader, and
/// on to the one that has followed it just now. More of it means that they disagree for a while.
const REDIRECTS_AT_ONCE: u32 = 3;

/// How one try ended.
pub(super) enum Tried<T> {
    Done(T),
    /// The server said so.
    Failed(Failure),
    Redirected(String),
    Unanswered(Unanswered),
    /// The answer cannot be understood.
    Garbled(String),
}

impl<T> From<Unanswered> for Tried<T> {
    fn from(unanswered: Unanswered) -> Self {
        Self::Unanswered(unanswered)
    }
}

/// How long an operation may take, retries included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Within {
    pub(super) deadline: Instant,
    pub(super) timeout: Duration,
}

impl Within {
    /// So long from now on.
    pub(super) fn from_now(timeout: Duration) -> Self {
        Self { deadline: Instant::now() + timeout, timeout }
    }
}

/// One operation on its way through its tries.
pub(super) struct Journey {
    /// For messages.
    name: &'static str,
    deadline: Instant,
    timeout: Duration,
    tries: u32,
    redirects: u32,
    /// Servers that could not serve it, and said so at once.
    refusals: u32,
    /// Whether it writes, and an earlier try may have reached the server.
    writes: bool,
    unsettled: bool,
}

/// What to do after a try.
pub(super) enum Next<T> {
    Return(Result<T, ClientError>),
    Again,
}

impl Journey {
    fn new(name: &'static str, timeout: Duration, writes: bool) -> Self {
        Self::within(name, Within::from_now(timeout), writes)
    }

    pub(super) fn within(name: &'static str, within: Within, writes: bool) -> Self {
        let Within { deadline, timeout } = within;
        Self {
            name,
            deadline,
            timeout,
            tries: 0,
            redirects: 0,
            refusals: 0,
            writes,
            unsettled: false,
        }
    }

    /// What the server is told of the deadline.
    pub(super) fn left_ms(&self) -> u32 {
        let left = self.deadline.saturating_duration_since(Instant::now());
        u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1)
    }

    pub(super) fn patience(&self) -> Instant {
        self.deadline + GRACE
    }

    fn late(&self, reason: &str, at: &str) -> ClientError {
        let what = format!(
            "{} had no outcome within {} ms ({at}: {reason})",
            self.name,
            self.timeout.as_millis()
        );
        match self.unsettled {
            true => ClientError::unknown(what),
            false => ClientError::late(what),
        }
    }
}

impl Inner {
    pub(super) async fn get(
        &self,
        key: Bytes,
        freshness: Freshness,
        within: Within,
    ) -> Result<Option<Bytes>, ClientError> {
        check_key(&key).map_err(invalid)?;
        let mut journey = Journey::within("get", within, false);
        loop {
            let connection = match self.reach(&mut journey).await? {
                Some(connection) => connection,
                None => continue,
            };
            let timeout_ms = journey.left_ms();
            let stale = freshness == Freshness::Stale;
            let asked = connection.store.get(&key, timeout_ms, stale);
            let tried = match connection.answer(asked, journey.patience()).await {
                Ok(Response::Value(value)) => Tried::Done(Some(value)),
                Ok(response) => {
                    let results = response.results::<get_results::Reader<'_>>();
                    ended(results.and_then(|results| results.get_result()).map(read_get))
                }
                Err(unanswered) => unanswered.into(),
            };
            if let Next::Return(result) = self.judge(&mut journey, &connection, tried).await {
                return result;
            }
        }
    }

    pub(super) async fn scan(
        &self,
        range: &Range,
        freshness: Freshness,
    ) -> Result<ScanPage, ClientError> {
        let mut journey = Journey::new("scan", self.options.timeout, false);
        loop {
            let connection = match self.reach(&mut journey).await? {
                Some(connection) => connection,
                None => continue,
            };
            let tried = scan_once(&connection, &journey, range, freshness).await;
            if let Next::Return(result) = self.judge(&mut journey, &connection, tried).await {
                return result;
            }
        }
    }

    /// Has a transaction happen, once, within this time. One that meets another in flight is told
    /// so at once, or waits a while and tries again.
    pub(super) async fn write(
        &self,
        transaction: &Transaction,
        within: Within,
        on_conflict: OnConflict,
    ) -> Result<(), ClientError> {
        check_transaction(transaction).map_err(invalid)?;
        let mut journey = Journey::within("write", within, true);
        let mut conflicts = 0;
        loop {
            let error = match self.write_in_session(&mut journey, transaction).await {
                Err(error) if error.kind == ErrorKind::Conflict => error,
                outcome => return outcome,
            };
            conflicts += 1;
            match on_conflict {
                OnConflict::Fail => return Err(error),
                OnConflict::Retry if self.pause(conflicts, within.deadline).await => {}
                OnConflict::Retry => return Err(error.gave_up(conflicts, within.timeout)),
            }
        }
    }

    async fn write_in_session(
        &self,
        journey: &mut Journey,
        transaction: &Transaction,
    ) -> Result<(), ClientError> {
        loop {
            let client = self.session(journey).await?;
            let sequence = self.session.take();
            let settled = Settled { inner: self, client, sequence };
            let outcome = self.write_once(journey, client, sequence, transaction).await;
            drop(settled);
            match outcome {
                // This very session is gone, and no try of this write has reached it before: the
                // write has not happened, and begins anew in a new session.
                Err(error) if error.kind == ErrorKind::SessionExpired => {
                    self.session.expire(client);
                    if journey.unsettled || Instant::now() >= journey.deadline {
                        return Err(error);
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Asks for one write under one stamp until its outcome is known, or the time is over.
    async fn write_once(
        &self,
        journey: &mut Journey,
        client: ClientId,
        sequence: u64,
        transaction: &Transaction,
    ) -> Result<(), ClientError> {
        loop {
            let connection = match self.reach(journey).await? {
                Some(connection) => connection,
                None => continue,
            };
            let stamp = self.session.stamp(client, sequence);
            let tried = send_write(&connection, journey, stamp, transaction).await;
            if let Next::Return(result) = self.judge(journey, &connection, tried).await {
                return result;
            }
        }
    }

    /// The session, opened if there is none.
    async fn session(&self, journey: &mut Journey) -> Result<ClientId, ClientError> {
        if let Some(client) = self.session.client() {
            return Ok(client);
        }
        let Ok(_guard) = tokio::time::timeout_at(journey.deadline, self.opening.lock()).await
        else {
            return Err(ClientError::late("no session was opened in time".to_owned()));
        };
        if let Some(client) = self.session.client() {
            return Ok(client);
        }
        // A session opened twice is one session too many, and nothing else.
        let mut opening = Journey { name: "opening a session", writes: false, ..*journey };
        loop {
            let connection = match self.reach(&mut opening).await? {
                Some(connection) => connection,
                None => continue,
            };
            let tried = open_session_once(&connection, &opening).await;
            if let Next::Return(result) = self.judge(&mut opening, &connection, tried).await {
                let client = result.map_err(ClientError::before_it_began)?;
                self.session.begin(client);
                return Ok(client);
            }
        }
    }

    pub(super) async fn status(&self) -> Result<ProcessStatus, ClientError> {
        let mut journey = Journey::new("status", self.options.timeout, false);
        loop {
            let connection = match self.reach(&mut journey).await? {
                Some(connection) => connection,
                None => continue,
            };
            let tried = self.status_once(&connection, &journey).await.unwrap_or_else(Tried::from);
            if let Next::Return(result) = self.judge(&mut journey, &connection, tried).await {
                return result;
            }
        }
    }

    async fn status_once(
        &self,
        connection: &Connection,
        journey: &Journey,
    ) -> Result<Tried<ProcessStatus>, Unanswered> {
        let admin = connection.admin(&self.options.token, journey.patience()).await?;
        let status = admin.status_request().send().promise;
        let response = connection.call(status, journey.patience()).await?;
        let status = response.get().and_then(|results| results.get_status());
        Ok(ended(status.map(|status| read_status(status).map(Tried::Done))))
    }

    pub(super) async fn inspect(&self, start: &Bytes, limit: u32) -> Result<ScanPage, ClientError> {
        let mut journey = Journey::new("inspect", self.options.timeout, false);
        loop {
            let connection = match self.reach(&mut journey).await? {
                Some(connection) => connection,
                None => continue,
            };
            let tried = self.inspect_once(&connection, &journey, start, limit).await;
            let tried = tried.unwrap_or_else(Tried::from);
            if let Next::Return(result) = self.judge(&mut journey, &connection, tried).await {
                return result;
            }
        }
    }

    async fn inspect_once(
        &self,
        connection: &Connection,
        journey: &Journey,
        start: &Bytes,
        limit: u32,
    ) -> Result<Tried<ScanPage>, Unanswered> {
        let admin = connection.admin(&self.options.token, journey.patience()).await?;
        let mut request = admin.inspect_request();
        request.get().set_start(start);
        request.get().set_limit(limit);
        let response = connection.call(request.send().promise, journey.patience()).await?;
        let page = response.get().map(|results| {
            let rows = read_rows(results.get_rows()?)?;
            Ok(Tried::Done(ScanPage { rows, more: results.get_more() }))
        });
        Ok(ended(page))
    }

    /// A connection for the next try; `None` if there was none and it was waited a while.
    pub(super) async fn reach(
        &self,
        journey: &mut Journey,
    ) -> Result<Option<std::rc::Rc<Connection>>, ClientError> {
        let error = match self.connection(journey.deadline).await {
            Ok(connection) => return Ok(Some(connection)),
            Err(error) => error,
        };
        journey.tries += 1;
        let hopeless = error.kind != ErrorKind::Unavailable;
        if hopeless || !self.back_off(journey.tries, journey.deadline).await {
            return Err(match journey.unsettled {
                true => ClientError::unknown(format!("{}: {}", journey.name, error.what)),
                false => error,
            });
        }
        Ok(None)
    }

    /// Decides after a try whether it was the last.
    pub(super) async fn judge<T>(
        &self,
        journey: &mut Journey,
        connection: &Connection,
        tried: Tried<T>,
    ) -> Next<T> {
        journey.tries += 1;
        let at = &connection.address;
        match tried {
            Tried::Done(value) => Next::Return(Ok(value)),
            Tried::Failed(Failure::Unknown { reason }) if journey.writes => {
                // Under its stamp it can be asked for again, and may be settled by then.
                journey.unsettled = true;
                self.again(journey, &reason, at).await
            }
            Tried::Failed(failure @ Failure::Unavailable { .. }) if self.has_choice(journey) => {
                // Another server may be on the right side of what is broken.
                journey.refusals += 1;
                self.leave(connection);
                self.again(journey, &format!("{failure:?}"), at).await
            }
            Tried::Failed(failure) if journey.unsettled && !settles(&failure) => {
                // This try did not happen; the earlier one whose answer was lost still may.
                if matches!(failure, Failure::Unavailable { .. }) {
                    self.leave(connection);
                }
                self.again(journey, &format!("{failure:?}"), at).await
            }
            Tried::Failed(failure) => {
                Next::Return(Err(ClientError::from_failure(journey.name, failure, at)))
            }
            Tried::Redirected(address) => self.redirected(journey, connection, &address).await,
            Tried::Unanswered(Unanswered::Lost(reason)) => {
                journey.unsettled |= journey.writes;
                self.leave(connection);
                self.again(journey, &reason, at).await
            }
            Tried::Unanswered(Unanswered::Late) => {
                journey.unsettled |= journey.writes;
                if connection.silent_for() >= self.options.timeout / 2 {
                    // Nothing at all came: the connection may be dead without knowing.
                    connection.close("the server was silent for too long");
                }
                Next::Return(Err(journey.late("no answer", at)))
            }
            Tried::Unanswered(Unanswered::Failed(error)) => {
                Next::Return(Err(exception(journey, &error, at)))
            }
            Tried::Garbled(reason) => Next::Return(Err(ClientError::garbled(
                format!(
                    "{} was answered in a way that cannot be read ({at}): {reason}",
                    journey.name
                ),
                journey.writes,
            ))),
        }
    }

    /// A server sends the operation elsewhere: it has done nothing.
    async fn redirected<T>(
        &self,
        journey: &mut Journey,
        connection: &Connection,
        address: &str,
    ) -> Next<T> {
        let at = &connection.address;
        journey.redirects += 1;
        if address.is_empty() || address == at {
            if self.has_choice(journey) {
                journey.refusals += 1;
                self.leave(connection);
                return self.again(journey, "it does not know who serves this", at).await;
            }
            let error = ClientError::misdirected(at);
            return Next::Return(Err(match journey.unsettled {
                true => ClientError::unknown(error.what),
                false => error,
            }));
        }
        self.follow(connection, address);
        match journey.redirects <= REDIRECTS_AT_ONCE {
            true => Next::Again,
            false => self.again(journey, &format!("it sends this to {address}"), at).await,
        }
    }

    /// Whether there is a server that has not refused yet, or the only one may think better of it.
    fn has_choice(&self, journey: &Journey) -> bool {
        let known = self.options.addresses.len() + self.learned.borrow().len();
        let choices = u32::try_from(known.max(2)).unwrap_or(u32::MAX);
        journey.refusals + 1 < choices
    }

    async fn again<T>(&self, journey: &Journey, reason: &str, at: &str) -> Next<T> {
        match self.back_off(journey.tries.saturating_sub(1), journey.deadline).await {
            true => Next::Again,
            false => Next::Return(Err(journey.late(reason, at))),
        }
    }
}

/// Says that a write will not be asked for again, also if its caller stopped waiting.
struct Settled<'a> {
    inner: &'a Inner,
    client: ClientId,
    sequence: u64,
}

impl Drop for Settled<'_> {
    fn drop(&mut self) {
        self.inner.session.settle(self.client, self.sequence);
    }
}

/// Whether a failure of a retry also says how the earlier tries of the same stamp ended. The core
/// looks at the stamp before these; the others may come from before it, or from its neighbours.
fn settles(failure: &Failure) -> bool {
    match failure {
        Failure::PreconditionFailed { .. }
        | Failure::SessionExpired
        | Failure::StaleSequence
        | Failure::Invalid { .. } => true,
        Failure::Conflict { .. }
        | Failure::Unavailable { .. }
        | Failure::Overloaded
        | Failure::SnapshotExpired
        | Failure::DiskFull { .. }
        | Failure::Unknown { .. }
        | Failure::Redirect { .. }
        | Failure::Storage { .. } => false,
    }
}

fn exception(journey: &Journey, error: &Error, at: &str) -> ClientError {
    let what = format!("{} failed ({at}): {}", journey.name, error.extra);
    match error.kind {
        CapnpKind::Overloaded if !journey.unsettled => ClientError::overloaded(what),
        CapnpKind::Unimplemented if !journey.unsettled => ClientError::refused(what),
        _ => ClientError::garbled(what, journey.writes),
    }
}

pub(super) fn invalid(rejected: Rejected) -> ClientError {
    match rejected {
        Rejected::Invalid(reason) => ClientError::invalid(reason),
        Rejected::Malformed(error) => ClientError::invalid(error.to_string()),
    }
}

async fn scan_once(
    connection: &Connection,
    journey: &Journey,
    range: &Range,
    freshness: Freshness,
) -> Tried<ScanPage> {
    let bytes = range.start.len() + range.end.as_ref().map_or(0, Bytes::len);
    let asked = connection.store.call::<scan_params::Owned>(Method::Scan, bytes, |mut params| {
        params.set_start(&range.start);
        if let Some(end) = &range.end {
            params.set_end(end);
            params.set_has_end(true);
        }
        params.set_limit(range.limit);
        params.set_timeout_ms(journey.left_ms());
        params.set_stale(freshness == Freshness::Stale);
    });
    match connection.answer(asked, journey.patience()).await {
        Ok(response) => {
            let results = response.results::<scan_results::Reader<'_>>();
            ended(results.and_then(|results| results.get_result()).map(read_scan))
        }
        Err(unanswered) => unanswered.into(),
    }
}

async fn open_session_once(connection: &Connection, journey: &Journey) -> Tried<ClientId> {
    let store = &connection.store;
    let asked = store.call::<open_session_params::Owned>(Method::OpenSession, 0, |mut params| {
        params.set_timeout_ms(journey.left_ms());
    });
    match connection.answer(asked, journey.patience()).await {
        Ok(response) => {
            let results = response.results::<open_session_results::Reader<'_>>();
            ended(results.and_then(|results| results.get_result()).map(read_session))
        }
        Err(unanswered) => unanswered.into(),
    }
}

/// Asks for a transaction once; one that is a single write has a method of its own.
async fn send_write(
    connection: &Connection,
    journey: &Journey,
    stamp: Stamp,
    transaction: &Transaction,
) -> Tried<()> {
    let timeout_ms = journey.left_ms();
    let (store, bytes) = (&connection.store, call_bytes(transaction));
    match (transaction.preconditions.as_slice(), transaction.writes.as_slice()) {
        ([], [Write::Put(key, value)]) if !value.is_empty() => {
            let asked = store.put(Some(stamp), key, value, timeout_ms);
            written(connection, journey, asked, |response| {
                response.results::<put_results::Reader<'_>>()?.get_result()
            })
            .await
        }
        ([], [Write::Put(key, value)]) => {
            let asked = store.call::<put_params::Owned>(Method::Put, bytes, |mut params| {
                write_stamp(Some(stamp), params.reborrow().init_stamp());
                params.set_key(key);
                params.set_value(value);
                params.set_timeout_ms(timeout_ms);
            });
            written(connection, journey, asked, |response| {
                response.results::<put_results::Reader<'_>>()?.get_result()
            })
            .await
        }
        ([], [Write::Delete(key)]) => {
            let asked = store.call::<delete_params::Owned>(Method::Delete, bytes, |mut params| {
                write_stamp(Some(stamp), params.reborrow().init_stamp());
                params.set_key(key);
                params.set_timeout_ms(timeout_ms);
            });
            written(connection, journey, asked, |response| {
                response.results::<delete_results::Reader<'_>>()?.get_result()
            })
            .await
        }
        _ => {
            let asked =
                store.call::<transact_params::Owned>(Method::Transact, bytes, |mut params| {
                    write_stamp(Some(stamp), params.reborrow().init_stamp());
                    write_transaction(transaction, params.reborrow().init_transaction());
                    params.set_timeout_ms(timeout_ms);
                });
            written(connection, journey, asked, |response| {
                response.results::<transact_results::Reader<'_>>()?.get_result()
            })
            .await
        }
    }
}

/// About how many bytes a transaction takes in a call.
fn call_bytes(transaction: &Transaction) -> usize {
    const OPERATION_BYTES: usize = 48;
    let operations = transaction.preconditions.len() + transaction.writes.len();
    transaction_bytes(transaction) + operations * OPERATION_BYTES
}

async fn written(
    connection: &Connection,
    journey: &Journey,
    asked: Result<Question, Error>,
    result: impl for<'a> FnOnce(&'a Response) -> Result<write_result::Reader<'a>, Error>,
) -> Tried<()> {
    match connection.answer(asked, journey.patience()).await {
        Ok(Response::Committed) => Tried::Done(()),
        Ok(response) => ended(result(&response).map(read_write)),
        Err(unanswered) => unanswered.into(),
    }
}

/// An answer that was read, or could not be.
pub(super) fn ended<T>(read: Result<Result<Tried<T>, Rejected>, Error>) -> Tried<T> {
    match read {
        Ok(Ok(tried)) => tried,
        Ok(Err(rejected)) => Tried::Garbled(Error::from(rejected).to_string()),
        // That answer comes by its shape, which says no more.
        Err(error) if error.kind == CapnpKind::Overloaded => Tried::Failed(Failure::Overloaded),
        Err(error) => Tried::Garbled(error.to_string()),
    }
}

pub(super) fn told<T>(failed: capnp::Result<failure::Reader<'_>>) -> Result<Tried<T>, Rejected> {
    Ok(match read_failure(failed?)? {
        Told::Failure(failure) => Tried::Failed(failure),
        Told::Redirect(address) => Tried::Redirected(address),
    })
}

fn read_get(result: get_result::Reader<'_>) -> Result<Tried<Option<Bytes>>, Rejected> {
    match result.which()? {
        get_result::Value(found) => Ok(Tried::Done(Some(value_to_keep(found?)?))),
        get_result::Missing(()) => Ok(Tried::Done(None)),
        get_result::Failed(failed) => told(failed),
    }
}

fn read_scan(result: scan_result::Reader<'_>) -> Result<Tried<ScanPage>, Rejected> {
    match result.which()? {
        scan_result::Rows(page) => {
            let rows = read_rows(page.get_rows()?)?;
            Ok(Tried::Done(ScanPage { rows, more: page.get_more() }))
        }
        scan_result::Failed(failed) => told(failed),
    }
}

pub(super) fn read_write(result: write_result::Reader<'_>) -> Result<Tried<()>, Rejected> {
    match result.which()? {
        write_result::Committed(()) => Ok(Tried::Done(())),
        write_result::Failed(failed) => told(failed),
    }
}

fn read_session(result: session_result::Reader<'_>) -> Result<Tried<ClientId>, Rejected> {
    match result.which()? {
        session_result::Client(client) => Ok(Tried::Done(ClientId(client))),
        session_result::Failed(failed) => told(failed),
    }
}
