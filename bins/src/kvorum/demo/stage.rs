//! The cluster of the tour, and ways to look at it.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kvorum::cluster::{Cluster, ClusterError, Member};
use kvorum_replication::Row;
use kvorum_rpc::client::Client;

use super::guide::{Guide, Trouble, shown_bytes};

/// What is to come true does so within this, or the tour has failed; unless the command line is more
/// patient.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a replica may be silent before writes go on without it: as long as usual.
const EXCLUDE_AFTER: Duration = Duration::from_millis(500);

/// For those who are patient, longer; but well below what the coordinator waits for votes.
const EXCLUDE_AFTER_MAX: Duration = Duration::from_secs(1);

/// An operation may take so many times as long as a replica may be silent.
const PATIENT_TIMES: u32 = 20;

/// Between looks at what is to come true.
const POLL: Duration = Duration::from_millis(2);

/// The cluster.
pub(super) struct Stage {
    pub(super) cluster: Cluster,
    /// What is to come true does so within this.
    pub(super) patience: Duration,
    timeout: Duration,
}

impl Stage {
    /// Of operations that may take so long.
    pub(super) fn new(cluster: Cluster, timeout: Duration) -> Self {
        Self { cluster, patience: timeout.max(PATIENCE), timeout }
    }

    /// A replica that is stopped for a moment is not to be taken for dead, however long the moment is on
    /// a busy machine; nor is it to be left out, which comes sooner.
    pub(super) fn set_flags(&mut self) {
        let silence = format!("{}s", self.patience.as_secs());
        let exclude_after = (self.timeout / PATIENT_TIMES).clamp(EXCLUDE_AFTER, EXCLUDE_AFTER_MAX);
        for member in self.cluster.members() {
            let mut flags = vec!["--silence".to_owned(), silence.clone()];
            if member == Member::Coordinator {
                let millis = exclude_after.as_millis().to_string();
                flags.extend(["--exclude-after".to_owned(), millis]);
            }
            self.cluster.set_flags(member, flags.into_iter().map(Into::into).collect());
        }
    }

    /// A client as everybody uses it.
    pub(super) async fn client(&self) -> Result<Client, ClusterError> {
        self.cluster.client(Member::Coordinator, self.timeout).await
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
            let (locks, rows) = match self.look().await {
                Ok(looked) => looked,
                // Who does not answer may be busy.
                Err(error) if began.elapsed() > self.patience => return Err(error.into()),
                Err(_) => continue,
            };
            let held = rows.iter().map(|rows| value_in(rows, &key));
            let is_right =
                locks == 0 && held.clone().all(|held| held == expected.map(str::as_bytes));
            if is_right || began.elapsed() > self.patience {
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

    /// How many locks there are, and what each replica holds.
    async fn look(&self) -> Result<(u64, Vec<Vec<Row>>), ClusterError> {
        let statuses = self.cluster.statuses().await?;
        let locks = statuses.iter().map(|status| status.locks).sum();
        Ok((locks, self.cluster.rows_of_replicas().await?))
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
