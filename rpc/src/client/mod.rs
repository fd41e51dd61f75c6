//! The client: one connection to a cluster, kept up, with every write exactly once.

mod connection;
mod error;
mod many;
mod operations;
mod replicas;
mod rows;
mod session;
mod transaction;
mod types;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use kvorum_replication::random::Random;
use kvorum_replication::{Precondition, Range, Transaction, Write};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use connection::{Connection, Unreachable, open_within};
pub use error::{ClientError, ErrorKind};
use operations::Within;
use replicas::Change;
pub use rows::Rows;
use session::Session;
pub use transaction::{Tries, Txn};
pub use types::{ClientOptions, MemberStatus, OnConflict, ProcessStatus, ScanPage};

/// Addresses that a client remembers beside those it was given.
const LEARNED_MAX: usize = 8;

/// The longest pause before a transaction that met another one is tried again: about as long as one
/// takes. It doubles with every try.
const CONFLICT_PAUSE_MIN: Duration = Duration::from_millis(1);

/// It grows no longer than this: many that want the same key wait their turn by then.
const CONFLICT_PAUSE_MAX: Duration = Duration::from_millis(128);

/// One connection at a time to one of several addresses. Reconnects with back-off, follows servers
/// that send it elsewhere and stays there; a write that lost its connection is retried under the
/// same stamp until its deadline.
///
/// Lives on one thread's tokio `LocalSet` or `LocalRuntime`. Clones share the connection: many
/// calls at once are multiplexed over it, which is how to go fast.
#[derive(Clone)]
pub struct Client {
    inner: Rc<Inner>,
}

/// What a read may miss.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Freshness {
    /// Nothing that was acknowledged before it began.
    Linearizable,
    /// What the replica that answers has not heard of.
    Stale,
}

struct Inner {
    options: ClientOptions,
    current: RefCell<Option<Rc<Connection>>>,
    /// Held by whoever connects, so that the others wait for the one connection.
    connecting: Mutex<()>,
    /// Where to begin the next round of addresses.
    next: Cell<usize>,
    /// Where a server sent us, and we have not been yet.
    redirect: RefCell<Option<String>>,
    /// Where servers sent us, and it was right: for when none of the addresses given answers.
    learned: RefCell<VecDeque<String>>,
    last_address: RefCell<String>,
    session: Session,
    /// Held by whoever opens a session.
    opening: Mutex<()>,
    /// For pauses.
    random: RefCell<Random>,
}

impl Client {
    /// Connects to the first address that answers; if none does, says of each why.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let client = Self {
            inner: Rc::new(Inner {
                options,
                current: RefCell::default(),
                connecting: Mutex::new(()),
                next: Cell::new(0),
                redirect: RefCell::default(),
                learned: RefCell::default(),
                last_address: RefCell::default(),
                session: Session::default(),
                opening: Mutex::new(()),
                random: RefCell::new(Random::new(seed())),
            }),
        };
        let deadline = Instant::now() + client.inner.options.timeout;
        client.inner.connection(deadline).await?;
        Ok(client)
    }

    /// The value of a key; linearizable.
    pub async fn get(&self, key: Bytes) -> Result<Option<Bytes>, ClientError> {
        self.inner.get(key, Freshness::Linearizable, self.inner.within()).await
    }

    /// The value of a key as the replica connected to holds it, be it old, without asking others:
    /// for when only few replicas are left, or speed is worth more.
    pub async fn get_stale(&self, key: Bytes) -> Result<Option<Bytes>, ClientError> {
        self.inner.get(key, Freshness::Stale, self.inner.within()).await
    }

    /// The values of several keys at one point in time, in the order of the keys; strictly
    /// serializable.
    pub async fn get_many(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Bytes>>, ClientError> {
        self.inner.get_many(&keys, Freshness::Linearizable, self.inner.within()).await
    }

    /// The values of several keys at one point in time as the replica connected to holds them, be
    /// they old, without asking others.
    pub async fn get_many_stale(
        &self,
        keys: Vec<Bytes>,
    ) -> Result<Vec<Option<Bytes>>, ClientError> {
        self.inner.get_many(&keys, Freshness::Stale, self.inner.within()).await
    }

    /// Sets a key's value.
    pub async fn put(&self, key: Bytes, value: Bytes) -> Result<(), ClientError> {
        self.transact(single(Write::Put(key, value))).await
    }

    /// Removes a key; removing what is not there is fine.
    pub async fn delete(&self, key: Bytes) -> Result<(), ClientError> {
        self.transact(single(Write::Delete(key))).await
    }

    /// Does all of a transaction's writes at once if its preconditions hold, or none.
    pub async fn transact(&self, transaction: Transaction) -> Result<(), ClientError> {
        let on_conflict = self.inner.options.on_conflict;
        self.inner.write(&transaction, self.inner.within(), on_conflict).await
    }

    /// Gives a key the value `new` if it has the value `old`, at one moment; says whether it had.
    /// `None` stands for a key that is not there, before or after.
    pub async fn compare_and_set(
        &self,
        key: Bytes,
        old: Option<Bytes>,
        new: Option<Bytes>,
    ) -> Result<bool, ClientError> {
        let expected = match old {
            Some(old) => Precondition::Equals(key.clone(), old),
            None => Precondition::Absent(key.clone()),
        };
        let write = match new {
            Some(new) => Write::Put(key, new),
            None => Write::Delete(key),
        };
        let transaction = Transaction { preconditions: vec![expected], writes: vec![write] };
        match self.transact(transaction).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind == ErrorKind::PreconditionFailed => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The rows of a range at one point in time: as many as fit into one answer. For more of them
    /// there is [`Client::rows`].
    pub async fn scan(&self, range: Range) -> Result<ScanPage, ClientError> {
        self.inner.scan(&range, Freshness::Linearizable).await
    }

    /// The rows of a range at one point in time as the replica connected to holds them, be it an old
    /// one, without asking others.
    pub async fn scan_stale(&self, range: Range) -> Result<ScanPage, ClientError> {
        self.inner.scan(&range, Freshness::Stale).await
    }

    /// How the process connected to is.
    pub async fn status(&self) -> Result<ProcessStatus, ClientError> {
        self.inner.status().await
    }

    /// Rows that the process connected to holds itself, from `start` on, without asking others.
    pub async fn inspect(&self, start: Bytes, limit: u32) -> Result<ScanPage, ClientError> {
        self.inner.inspect(&start, limit).await
    }

    /// Has the cluster, one with a coordinator, this replica as well; fine if it has it. It takes part
    /// once it was started, in a new life, and has caught up.
    pub async fn add_replica(&self, node: u32, address: &str) -> Result<(), ClientError> {
        self.inner.change_replicas(&Change::Add(node, address)).await
    }

    /// Has the cluster, one with a coordinator, this replica no more; fine if it was removed before.
    /// Nobody will ever have its number again.
    pub async fn remove_replica(&self, node: u32) -> Result<(), ClientError> {
        self.inner.change_replicas(&Change::Remove(node)).await
    }

    /// The address connected to, or the last one that was.
    #[must_use]
    pub fn address(&self) -> String {
        self.inner.last_address.borrow().clone()
    }
}

fn single(write: Write) -> Transaction {
    Transaction { preconditions: Vec::new(), writes: vec![write] }
}

/// A number that no other client has begun with: each hasher is keyed by chance.
fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl Inner {
    /// The time that one operation has.
    fn within(&self) -> Within {
        Within::from_now(self.options.timeout)
    }

    /// The connection there is, or a new one to the first address that answers.
    async fn connection(&self, deadline: Instant) -> Result<Rc<Connection>, ClientError> {
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let Ok(_guard) = tokio::time::timeout_at(deadline, self.connecting.lock()).await else {
            return Err(ClientError::unreachable("no connection came in time".to_owned()));
        };
        if let Some(current) = self.current() {
            return Ok(current);
        }
        let addresses = self.round();
        if addresses.is_empty() {
            return Err(ClientError::no_address());
        }
        let mut reasons = Vec::new();
        let mut refused = false;
        for address in &addresses {
            let left = deadline.saturating_duration_since(Instant::now());
            let wait = self.options.connect_timeout.min(left.max(Duration::from_millis(1)));
            match open_within(address, &self.options, wait).await {
                Ok(connection) => return Ok(self.keep(connection)),
                Err(Unreachable::Away(reason)) => reasons.push(format!("{address}: {reason}")),
                Err(Unreachable::Refused(reason)) => {
                    refused = true;
                    reasons.push(format!("{address}: {reason}"));
                }
            }
            self.move_on(address);
        }
        Err(match refused {
            true => ClientError::refused(reasons.join(", ")),
            false => ClientError::unreachable(reasons.join(", ")),
        })
    }

    fn current(&self) -> Option<Rc<Connection>> {
        self.current.borrow().clone().filter(|connection| !connection.is_closed())
    }

    fn keep(&self, connection: Connection) -> Rc<Connection> {
        let address = &connection.address;
        let mut learned = self.learned.borrow_mut();
        if !self.options.addresses.contains(address) && !learned.contains(address) {
            learned.push_front(address.clone());
            learned.truncate(LEARNED_MAX);
        }
        self.last_address.borrow_mut().clone_from(&connection.address);
        let connection = Rc::new(connection);
        *self.current.borrow_mut() = Some(Rc::clone(&connection));
        connection
    }

    /// The addresses in the order to be tried: where a server sent us, then round from the last,
    /// then where we were sent before.
    fn round(&self) -> Vec<String> {
        let addresses = &self.options.addresses;
        let start = if addresses.is_empty() { 0 } else { self.next.get() % addresses.len() };
        let redirect = self.redirect.borrow_mut().take();
        let learned = self.learned.borrow();
        let all = redirect
            .iter()
            .chain(&addresses[start..])
            .chain(&addresses[..start])
            .chain(learned.iter());
        let mut round: Vec<String> = Vec::new();
        for address in all {
            if !round.contains(address) {
                round.push(address.clone());
            }
        }
        round
    }

    /// The next round does not begin with this address.
    fn move_on(&self, from: &str) {
        let addresses = &self.options.addresses;
        if addresses.is_empty() {
            return;
        }
        let next = self.next.get() % addresses.len();
        if addresses[next] == from {
            self.next.set(next + 1);
        }
    }

    /// Leaves this server. Its connection stays for the calls that are under way over it.
    fn leave(&self, connection: &Connection) {
        if self.is_current(connection) {
            self.move_on(&connection.address);
            *self.current.borrow_mut() = None;
        }
    }

    /// Leaves this server for the one it named. If another call did already, there is nothing to do.
    fn follow(&self, connection: &Connection, address: &str) {
        if self.is_current(connection) {
            self.leave(connection);
            *self.redirect.borrow_mut() = Some(address.to_owned());
        }
    }

    fn is_current(&self, connection: &Connection) -> bool {
        let current = self.current.borrow();
        current.as_ref().is_some_and(|current| std::ptr::eq(Rc::as_ptr(current), connection))
    }

    /// Waits before a transaction that met another one tries again, by chance, so that those who met
    /// do not meet again; false if the deadline would come first.
    async fn pause(&self, tries: u32, deadline: Instant) -> bool {
        let longest = CONFLICT_PAUSE_MIN.saturating_mul(1 << tries.min(10)).min(CONFLICT_PAUSE_MAX);
        let micros = u64::try_from(longest.as_micros()).unwrap_or(u64::MAX);
        let pause = Duration::from_micros(self.random.borrow_mut().below(micros) + 1);
        if Instant::now() + pause >= deadline {
            return false;
        }
        sleep(pause).await;
        true
    }

    /// Waits before the next try; false if the deadline would come first.
    async fn back_off(&self, tries: u32, deadline: Instant) -> bool {
        let pause = self.options.backoff_min.saturating_mul(1 << tries.min(10));
        let pause = pause.min(self.options.backoff_max);
        if Instant::now() + pause >= deadline {
            return false;
        }
        sleep(pause).await;
        true
    }
}
