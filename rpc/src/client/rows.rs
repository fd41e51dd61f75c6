//! Long scans: page by page, all of one point in time.
//!
//! The replica that answers the first page holds the snapshot that it has answered from, and gives
//! it a name; the other pages are asked of that. So all pages go to the server that was asked first:
//! a scan keeps its connection, wherever the client's writes are sent meanwhile, and if it breaks,
//! connects to the same address again.

use std::rc::Rc;

use bytes::Bytes;
use kvorum_replication::{Held, Range, Row};
use kvorum_schema::client_capnp::key_value::{scan_params, scan_results};
use kvorum_schema::client_capnp::scan_result;

use super::connection::Connection;
use super::error::ClientError;
use super::operations::{Journey, Next, Tried, Within, ended, told};
use super::{Client, Freshness, Inner};
use crate::convert::Rejected;
use crate::convert::client::{read_held, read_rows, write_held};
use crate::hot::Method;

/// Rows asked for at a time, unless said otherwise; a server also bounds a page's bytes.
const PAGE_ROWS: u32 = 1024;

/// The rows of a range, however many, all at one point in time: not before [`Client::rows`] was
/// called, and not after the first page came. Whatever is written between two pages is not seen.
///
/// A replica holds the snapshot for 30 seconds after each page. Whoever takes longer is told
/// [`ErrorKind::SnapshotExpired`](super::ErrorKind::SnapshotExpired), and has to scan again; so is
/// one whose replica is lost.
pub struct Rows {
    inner: Rc<Inner>,
    freshness: Freshness,
    page_rows: u32,
    /// The first key that was not read.
    start: Bytes,
    end: Option<Bytes>,
    left: u64,
    done: bool,
    /// From the first page on, if there are more.
    held: Option<Held>,
    connection: Option<Rc<Connection>>,
}

/// One page, and of which snapshot to read the next.
struct Page {
    rows: Vec<Row>,
    more: bool,
    held: Option<Held>,
}

impl Client {
    /// The rows from `start` up to and without `end`, page by page, at one point in time.
    #[must_use]
    pub fn rows(&self, start: Bytes, end: Option<Bytes>) -> Rows {
        Rows {
            inner: Rc::clone(&self.inner),
            freshness: Freshness::Linearizable,
            page_rows: PAGE_ROWS,
            start,
            end,
            left: u64::MAX,
            done: false,
            held: None,
            connection: None,
        }
    }
}

impl Rows {
    /// At most so many.
    #[must_use]
    pub fn limit(self, rows: u64) -> Self {
        Self { left: rows, ..self }
    }

    /// So many at a time.
    #[must_use]
    pub fn page_rows(self, rows: u32) -> Self {
        Self { page_rows: rows.max(1), ..self }
    }

    /// As the replica connected to holds them, be they old, without asking others; still all at one
    /// point in time.
    #[must_use]
    pub fn stale(self) -> Self {
        Self { freshness: Freshness::Stale, ..self }
    }

    /// The next page in byte order of the keys; `None` behind the last.
    pub async fn next(&mut self) -> Result<Option<Vec<Row>>, ClientError> {
        let within = self.inner.within();
        self.next_within(within).await
    }

    pub(super) async fn next_within(
        &mut self,
        within: Within,
    ) -> Result<Option<Vec<Row>>, ClientError> {
        if self.done || self.left == 0 {
            return Ok(None);
        }
        let page = self.page(within).await?;
        self.left = self.left.saturating_sub(page.rows.len() as u64);
        self.held = page.held;
        self.done = !page.more;
        if self.done || self.left == 0 {
            self.connection = None;
        }
        match page.rows.last() {
            Some((key, _)) => self.start = behind(key),
            // A page without rows cannot move on; more of them would be the same.
            None => self.done = true,
        }
        Ok((!page.rows.is_empty()).then_some(page.rows))
    }

    /// Whether the limit ended it, and the range holds more.
    #[must_use]
    pub fn was_cut(&self) -> bool {
        !self.done && self.left == 0
    }

    async fn page(&mut self, within: Within) -> Result<Page, ClientError> {
        let inner = Rc::clone(&self.inner);
        let mut journey = Journey::within("scan", within, false);
        loop {
            let held = self.connection.take().filter(|connection| !connection.is_closed());
            let connection = match held {
                Some(connection) => connection,
                None => match inner.reach(&mut journey).await? {
                    Some(connection) => connection,
                    None => continue,
                },
            };
            let tried = self.page_once(&connection, &journey).await;
            if self.held.is_some() && connection.is_closed() {
                // Nobody else holds the snapshot.
                inner.follow(&connection, &connection.address);
            }
            match inner.judge(&mut journey, &connection, tried).await {
                Next::Again => {}
                Next::Return(Err(error)) => return Err(error),
                Next::Return(Ok(page)) => {
                    let is_last = !page.more || page.rows.len() as u64 >= self.left;
                    if page.held.is_none() && !is_last {
                        return Err(ClientError::holds_no_snapshots(&connection.address));
                    }
                    self.connection = Some(connection);
                    return Ok(page);
                }
            }
        }
    }

    async fn page_once(&self, connection: &Connection, journey: &Journey) -> Tried<Page> {
        let limit = u32::try_from(self.left).unwrap_or(u32::MAX).min(self.page_rows);
        let range = Range { start: self.start.clone(), end: self.end.clone(), limit };
        let bytes = range.start.len() + range.end.as_ref().map_or(0, Bytes::len);
        let asked =
            connection.store.call::<scan_params::Owned>(Method::Scan, bytes, |mut params| {
                params.set_start(&range.start);
                if let Some(end) = &range.end {
                    params.set_end(end);
                    params.set_has_end(true);
                }
                params.set_limit(range.limit);
                params.set_timeout_ms(journey.left_ms());
                params.set_stale(self.freshness == Freshness::Stale);
                params.set_paged(true);
                params.set_last(u64::from(limit) >= self.left);
                write_held(self.held, params.init_of());
            });
        match connection.answer(asked, journey.patience()).await {
            Ok(response) => {
                let results = response.results::<scan_results::Reader<'_>>();
                ended(results.and_then(|results| results.get_result()).map(read_page))
            }
            Err(unanswered) => unanswered.into(),
        }
    }
}

fn read_page(result: scan_result::Reader<'_>) -> Result<Tried<Page>, Rejected> {
    match result.which()? {
        scan_result::Rows(page) => {
            let (rows, held) = (read_rows(page.get_rows()?)?, read_held(page.get_held()?));
            Ok(Tried::Done(Page { rows, more: page.get_more(), held }))
        }
        scan_result::Failed(failed) => told(failed),
    }
}

/// The first key behind this one.
fn behind(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    Bytes::from(next)
}
