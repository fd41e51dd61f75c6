//! The cluster of the tour, and ways to look at it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::try_join_all;
use kvorum::cluster::{Cluster, Member};
use kvorum_replication::Row;
use kvorum_rpc::client::{Client, ClientError, ClientOptions, ProcessStatus};

use super::guide::{Guide, Trouble, shown_bytes};

/// What is to come true does so within this, or the tour has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between looks at what is to come true.
const POLL: Duration = Duration::from_millis(2);

/// The rows of the tour are few.
const ROWS_MAX: u32 = 1000;

/// The cluster.
pub(super) struct Stage {
    pub(super) cluster: Cluster,
}

impl Stage {
    pub(super) fn new(cluster: Cluster) -> Self {
        Self { cluster }
    }

    /// A client of one process, that waits so long for an answer.
    pub(super) async fn client_of(
        &self,
        member: Member,
        timeout: Duration,
    ) -> Result<Client, ClientError> {
        let addresses = [self.cluster.address(member).to_string()];
        Client::connect(ClientOptions { timeout, ..ClientOptions::new(addresses) }).await
    }

    /// A client as everybody uses it.
    pub(super) async fn client(&self) -> Result<Client, ClientError> {
        let timeout = ClientOptions::default().timeout;
        self.client_of(Member::Coordinator, timeout).await
    }

    /// What a process says of itself.
    pub(super) async fn status_of(&self, member: Member) -> Result<ProcessStatus, ClientError> {
        self.client_of(member, PATIENCE).await?.status().await
    }

    /// Waits until the coordinator has a link to each replica, which it needs for any write.
    pub(super) async fn await_links(&self) -> Result<ProcessStatus, Trouble> {
        let client = self.client_of(Member::Coordinator, PATIENCE).await?;
        let began = Instant::now();
        loop {
            let status = client.status().await?;
            if status.members.iter().all(|member| member.up) || began.elapsed() > PATIENCE {
                return Ok(status);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until so many transactions are in flight in a process.
    pub(super) async fn await_in_flight(&self, member: Member, count: u64) -> Result<(), Trouble> {
        let client = self.client_of(member, PATIENCE).await?;
        let began = Instant::now();
        while client.status().await?.in_flight != count && began.elapsed() < PATIENCE {
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Lets each replica say what it has of a key, once nothing is under way any more, and checks
    /// that all have this.
    pub(super) async fn observe_replicas(
        &self,
        guide: &mut Guide<'_>,
        key: &str,
        expected: Option<&str>,
    ) -> Result<(), Trouble> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let began = Instant::now();
        loop {
            let (locks, rows) = self.replicas().await?;
            let held = rows.iter().map(|rows| value_in(rows, &key));
            let is_right =
                locks == 0 && held.clone().all(|held| held == expected.map(str::as_bytes));
            if is_right || began.elapsed() > PATIENCE {
                let held: Vec<_> = held.map(shown_bytes).collect();
                let done = format!("inspect {} on each replica", shown_bytes(Some(&key)));
                let observed = format!("{}; {locks} locks", held.join(", "));
                let expected = expected.unwrap_or("(no such key)");
                let expected = format!("{expected} on all, and no lock");
                return guide.observe(done, observed, is_right, &expected);
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// How many keys are locked in the whole cluster, and the rows of each replica.
    async fn replicas(&self) -> Result<(u64, Vec<Vec<Row>>), Trouble> {
        let statuses = self.cluster.members().map(|member| self.status_of(member));
        let locks = try_join_all(statuses).await?.iter().map(|status| status.locks).sum();
        let replicas = self.cluster.members().filter(|&member| member != Member::Coordinator);
        let rows = replicas.map(async |member| {
            let client = self.client_of(member, PATIENCE).await?;
            Ok::<_, ClientError>(client.inspect(Bytes::new(), ROWS_MAX).await?.rows)
        });
        Ok((locks, try_join_all(rows).await?))
    }
}

fn value_in<'a>(rows: &'a [Row], key: &Bytes) -> Option<&'a [u8]> {
    rows.iter().find(|(row, _)| row == key).map(|(_, value)| &value[..])
}

/// Does something, and says how long it took.
pub(super) async fn timed<T>(doing: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let done = doing.await;
    (done, began.elapsed())
}
