//! Transactions that read before they write: optimistic, checked when they commit, tried again.
//!
//! What a transaction has read is remembered, and when it commits, each read becomes a precondition:
//! the key still has the value that was seen, or is still not there. Preconditions and writes happen
//! at one moment or not at all, so the transaction as a whole happens at that moment: all that it
//! has read is true then (Kung and Robinson 1981, with the values themselves for versions). That a
//! key was changed meanwhile and changed back is not noticed, and does no harm: whatever depends on
//! the values alone would have come out the same at that moment.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use kvorum_replication::{Precondition, Range, Row, Transaction, Write};

use super::operations::Within;
use super::{Client, ClientError, ErrorKind, Freshness, OnConflict};

/// How long, and how often, a transaction is tried that finds what it has read changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// How long, all tries together; without it as long as one operation of the client.
    pub timeout: Option<Duration>,
    /// How often at most, the first try included; without it as often as the time allows.
    pub max: Option<u32>,
}

impl Tries {
    /// One try: a conflict is told at once.
    #[must_use]
    pub fn once() -> Self {
        Self { max: Some(1), ..Self::default() }
    }
}

/// A transaction that is being made: what it has read, and what it will write.
///
/// Made by [`Client::transaction`], or by hand with [`Client::begin`] and [`Txn::commit`]; one that
/// is dropped has not happened.
pub struct Txn {
    client: Client,
    /// What the tries of one transaction have together; else each call has the client's timeout.
    within: Option<Within>,
    /// What the store held, by key.
    seen: BTreeMap<Bytes, Option<Bytes>>,
    required: Vec<Precondition>,
    /// The last write of each key; `None` deletes it.
    writes: BTreeMap<Bytes, Option<Bytes>>,
    /// At how many moments the store was read.
    moments: u32,
    /// A read failed, so that what the caller makes of this is not its own doing.
    is_broken: bool,
}

impl Client {
    /// Runs a transaction that reads and writes, and tries it again as long as others get in its
    /// way, with pauses by chance in between, until the client's timeout is over.
    ///
    /// `body` reads and writes through the [`Txn`] it is given, and may be run several times: it
    /// should have no effects besides. If it succeeds, all that it wrote happens at one moment, at
    /// which everything that it has read is true; strictly serializable, and exactly once however
    /// often messages are lost. If it fails, nothing happens, and its error is answered, provided
    /// that what it has read was true at one moment; else it is run again.
    ///
    /// While it runs, reads made one after the other may show different moments; such a run never
    /// commits, but the body should not loop for ever over it. [`Txn::get_many`] shows one moment.
    ///
    /// Values that were read travel once more, as preconditions, and count against the size of a
    /// transaction.
    ///
    /// ```no_run
    /// use bytes::Bytes;
    /// use kvorum_rpc::client::{Client, ClientError};
    ///
    /// /// Adds one to a counter, and says what it is then.
    /// async fn increment(client: &Client) -> Result<u64, ClientError> {
    ///     client
    ///         .transaction(async |txn| {
    ///             let found = txn.get("counter").await?;
    ///             let text = found.as_deref().map(String::from_utf8_lossy);
    ///             let count = text.and_then(|text| text.parse().ok()).unwrap_or(0_u64) + 1;
    ///             txn.put("counter", count.to_string());
    ///             Ok(count)
    ///         })
    ///         .await
    /// }
    /// ```
    pub async fn transaction<T, E, F>(&self, body: F) -> Result<T, E>
    where
        F: AsyncFnMut(&mut Txn) -> Result<T, E>,
        E: From<ClientError>,
    {
        self.transaction_with(Tries::default(), body).await
    }

    /// As [`Client::transaction`], tried so long and so often. When it gives up it fails with the
    /// last [`ErrorKind::Conflict`], and has not happened.
    pub async fn transaction_with<T, E, F>(&self, tries: Tries, mut body: F) -> Result<T, E>
    where
        F: AsyncFnMut(&mut Txn) -> Result<T, E>,
        E: From<ClientError>,
    {
        let within = Within::from_now(tries.timeout.unwrap_or(self.inner.options.timeout));
        let mut tried = 0;
        loop {
            let mut txn = Txn { within: Some(within), ..self.begin() };
            let ended = match body(&mut txn).await {
                Ok(done) => txn.commit().await.map(|()| Ok(done)),
                Err(error) if txn.is_broken => return Err(error),
                Err(error) => {
                    txn.required.clear();
                    txn.confirm_reads().await.map(|()| Err(error))
                }
            };
            let conflict = match ended {
                Ok(result) => return result,
                Err(error) if error.kind == ErrorKind::Conflict => error,
                Err(error) => return Err(error.into()),
            };
            tried += 1;
            let may_again = tries.max.is_none_or(|max| tried < max);
            if !may_again || !self.inner.pause(tried, within.deadline).await {
                return Err(conflict.gave_up(tried, within.timeout).into());
            }
        }
    }

    /// Begins a transaction by hand, for whoever cannot run it again: a person who looks at what
    /// was read, say. Nothing is locked meanwhile; [`Txn::commit`] says if it was in vain.
    #[must_use]
    pub fn begin(&self) -> Txn {
        Txn {
            client: self.clone(),
            within: None,
            seen: BTreeMap::new(),
            required: Vec::new(),
            writes: BTreeMap::new(),
            moments: 0,
            is_broken: false,
        }
    }
}

impl Txn {
    /// The value of a key: what this transaction has written, what it has read before, or else what
    /// the store holds now.
    pub async fn get(&mut self, key: impl Into<Bytes>) -> Result<Option<Bytes>, ClientError> {
        let key = key.into();
        if let Some(known) = self.known(&key) {
            return Ok(known.clone());
        }
        let inner = &self.client.inner;
        let found = inner.get(key.clone(), Freshness::Linearizable, self.within()).await;
        let found = self.note(found)?;
        self.seen.insert(key, found.clone());
        Ok(found)
    }

    /// The values of several keys, in the order of the keys. Those that it did not know before are
    /// read at one point in time.
    pub async fn get_many(
        &mut self,
        keys: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Result<Vec<Option<Bytes>>, ClientError> {
        let keys: Vec<Bytes> = keys.into_iter().map(Into::into).collect();
        let mut missing: Vec<Bytes> =
            keys.iter().filter(|key| self.known(key).is_none()).cloned().collect();
        missing.sort();
        missing.dedup();
        if !missing.is_empty() {
            let inner = &self.client.inner;
            let found = inner.get_many(&missing, Freshness::Linearizable, self.within()).await;
            let found = self.note(found)?;
            self.seen.extend(missing.into_iter().zip(found));
        }
        Ok(keys.iter().map(|key| self.known(key).cloned().flatten()).collect())
    }

    /// The first rows of a range, at most as many as its limit, as they are now, with what this
    /// transaction has written in place of what it has overwritten.
    ///
    /// **What is checked at the commit are the rows that were found**: each is still there, with its
    /// value. That no row was added to the range meanwhile is not checked: a transaction whose
    /// outcome depends on that has to keep it in a key of its own, such as a counter of the rows.
    pub async fn scan(&mut self, range: Range) -> Result<Vec<Row>, ClientError> {
        let limit = range.limit as usize;
        let mut rows = self.client.rows(range.start.clone(), range.end.clone());
        let mut found = BTreeMap::new();
        let mut shown = 0;
        // Where what was read ends.
        let mut end = None;
        self.moments += 1;
        while shown < limit {
            let wanted = u32::try_from(limit - shown).unwrap_or(u32::MAX);
            rows = rows.page_rows(wanted.min(PAGE_ROWS_MAX));
            let page = rows.next_within(self.within()).await;
            let Some(page) = self.heed(page)? else {
                end = None;
                break;
            };
            end = page.last().map(|(key, _)| key.clone());
            for (key, value) in page {
                let seen = self.seen.entry(key.clone()).or_insert(Some(value)).clone();
                shown += usize::from(seen.is_some() && !self.writes.contains_key(&key));
                found.insert(key, seen);
            }
        }
        let upper = match (&end, &range.end) {
            (Some(last), _) => Bound::Included(last.clone()),
            (None, Some(end)) => Bound::Excluded(end.clone()),
            (None, None) => Bound::Unbounded,
        };
        if range.end.as_ref().is_none_or(|end| range.start < *end) {
            for (key, value) in self.writes.range((Bound::Included(range.start), upper)) {
                found.insert(key.clone(), value.clone());
            }
        }
        let rows = found.into_iter().filter_map(|(key, value)| Some((key, value?)));
        Ok(rows.take(limit).collect())
    }

    /// Sets a key's value when the transaction commits.
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.writes.insert(key.into(), Some(value.into()));
    }

    /// Removes a key when the transaction commits; removing what is not there is fine.
    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.writes.insert(key.into(), None);
    }

    /// The transaction happens only if this holds of the store at that moment, without what the
    /// transaction itself writes. If it does not, the transaction fails with
    /// [`ErrorKind::PreconditionFailed`], and is not tried again.
    pub fn require(&mut self, precondition: Precondition) {
        self.required.push(precondition);
    }

    /// Has the transaction happen, if all that it has read is still true. If not, or if another one
    /// is in its way, it fails with [`ErrorKind::Conflict`], and has not happened.
    pub async fn commit(self) -> Result<(), ClientError> {
        if self.writes.is_empty() {
            return self.confirm_reads().await;
        }
        let within = self.within();
        let Self { client, seen, required, writes, .. } = self;
        let checks = required.len();
        let mut preconditions = required;
        preconditions.extend(seen.into_iter().map(|(key, value)| match value {
            Some(value) => Precondition::Equals(key, value),
            None => Precondition::Absent(key),
        }));
        let writes = writes.into_iter().map(|(key, value)| match value {
            Some(value) => Write::Put(key, value),
            None => Write::Delete(key),
        });
        let transaction = Transaction { preconditions, writes: writes.collect() };
        let outcome = client.inner.write(&transaction, within, OnConflict::Fail).await;
        outcome.map_err(|error| match error.failed_precondition {
            Some(index) if index >= checks => match transaction.preconditions.get(index) {
                Some(read) => ClientError::changed(read.key()),
                None => error,
            },
            _ => error,
        })
    }

    /// Whether all that it has read, and what it requires, is true at one moment. What was read at
    /// one moment is.
    async fn confirm_reads(self) -> Result<(), ClientError> {
        if self.moments <= 1 && self.required.is_empty() {
            return Ok(());
        }
        let required = self.required.iter().map(Precondition::key);
        let mut keys: Vec<Bytes> = self.seen.keys().chain(required).cloned().collect();
        keys.sort();
        keys.dedup();
        let inner = &self.client.inner;
        let found = inner.get_many(&keys, Freshness::Linearizable, self.within()).await?;
        let now: BTreeMap<&Bytes, &Option<Bytes>> = keys.iter().zip(&found).collect();
        for (index, required) in self.required.iter().enumerate() {
            if !required.holds(now[required.key()].as_ref()) {
                return Err(ClientError::does_not_hold(index, required.key()));
            }
        }
        match self.seen.iter().find(|(key, seen)| now[*key] != *seen) {
            Some((key, _)) => Err(ClientError::changed(key)),
            None => Ok(()),
        }
    }

    /// What it wrote or has read of a key.
    fn known(&self, key: &Bytes) -> Option<&Option<Bytes>> {
        self.writes.get(key).or_else(|| self.seen.get(key))
    }

    /// One more moment at which the store was read.
    fn note<T>(&mut self, read: Result<T, ClientError>) -> Result<T, ClientError> {
        self.moments += 1;
        self.heed(read)
    }

    fn heed<T>(&mut self, read: Result<T, ClientError>) -> Result<T, ClientError> {
        self.is_broken |= read.is_err();
        read
    }

    fn within(&self) -> Within {
        self.within.unwrap_or_else(|| self.client.inner.within())
    }
}

/// Rows asked for at a time.
const PAGE_ROWS_MAX: u32 = 1024;
