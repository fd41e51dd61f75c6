//! A process dies, or stands still, at a named point of the protocol while a transaction is under
//! way. Afterwards all replicas agree, nothing is locked, and the transaction happened as a whole or
//! not at all, as the point and what the client was told demand.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use kvorum::cluster::{Cluster, Member};
use kvorum_replication::two_phase::points::{self, Point};
use kvorum_replication::{Happened, Precondition, Row, Transaction, Write};
use kvorum_rpc::client::{Client, ClientError, ClientOptions};

use crate::{PATIENCE, ensure_killed, process_state, value_in};

/// A client that is told an unknown outcome instead of asking on until the cluster is back. Where
/// this is over before anything comes to the point, the next one has twice as much.
const IMPATIENT: Duration = Duration::from_millis(400);

/// A client that asks on under its stamp until the cluster is back.
const PATIENT: Duration = PATIENCE;

/// Between looks at a process that is to stand still.
const POLL: Duration = Duration::from_millis(1);

/// How a process is troubled at a fail point, and how patient its client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It dies; the client has given up before it is back.
    Killed,
    /// It dies; the client asks again until it is back.
    KilledWhileClientRetries,
    /// It stands still until the client has given up, and then goes on as if nothing was.
    Paused,
}

/// What must have become of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    Happened,
    NotHappened,
    /// It depends on which message was first.
    Either,
}

/// The process that has these points: a replica's are tried on the first one.
#[must_use]
pub fn member_of(point: &Point) -> Member {
    if points::COORDINATOR.contains(point) { Member::Coordinator } else { Member::Replica(1) }
}

/// Tries one point on a cluster that runs and is at rest, and leaves it so.
///
/// # Errors
/// If the fault did not fire, or anything afterwards is not as it must be.
pub async fn try_point(cluster: &mut Cluster, point: &Point, trouble: Trouble) -> Result<()> {
    let trial = Trial::new(point, trouble);
    let tried = trial.run(cluster).await;
    tried.with_context(|| format!("{} ({}), {trouble:?}", point.name, point.moment))
}

/// Whether a transaction that commits passes the point.
#[must_use]
pub fn is_of_commits(point: &Point) -> bool {
    !points::BESIDE_COMMITS.contains(&point.name)
}

/// Tries a point that an abort passes, or a start, on a cluster that runs and is at rest, and leaves
/// it so: the process dies there while another is started anew, or a transaction fails.
///
/// # Errors
/// If the fault did not fire, or anything afterwards is not as it must be.
pub async fn try_point_beside(cluster: &mut Cluster, point: &Point) -> Result<()> {
    let trial = Trial::new(point, Trouble::Killed);
    let tried = trial.run_beside(cluster).await;
    tried.with_context(|| format!("{} ({})", point.name, point.moment))
}

/// What the client is told of the change. On a busy machine or a slow disk the time of an impatient
/// one may be over before anything came to the point: the change is asked for again, with more time,
/// until the fault fires.
async fn told_once_it_fired(
    address: String,
    mut timeout: Duration,
    change: Transaction,
    fired: Rc<Cell<bool>>,
) -> Result<(), ClientError> {
    let (began, mut unknown) = (Instant::now(), None);
    loop {
        let told = ask(&address, timeout, &change).await;
        let told_at = Instant::now();
        while told.is_err() && !fired.get() && told_at.elapsed() < timeout {
            tokio::time::sleep(POLL).await;
        }
        let Err(error) = told else { return Ok(()) };
        if error.happened == Happened::Unknown {
            unknown = Some(error.clone());
        }
        if fired.get() || began.elapsed() > PATIENCE {
            // It may be an earlier one that came to the point.
            return Err(unknown.unwrap_or(error));
        }
        timeout *= 2;
    }
}

async fn ask(address: &str, timeout: Duration, change: &Transaction) -> Result<(), ClientError> {
    let options =
        ClientOptions { timeout, connect_timeout: PATIENCE, ..ClientOptions::new([address]) };
    Client::connect(options).await?.transact(change.clone()).await
}

struct Trial {
    point: &'static str,
    member: Member,
    trouble: Trouble,
    /// Two keys of one transaction: both change, or none.
    keys: [Bytes; 2],
}

impl Trial {
    fn new(point: &Point, trouble: Trouble) -> Self {
        let key = |which| Bytes::from(format!("{}/{trouble:?}/{which}", point.name));
        Self { point: point.name, member: member_of(point), trouble, keys: [key("a"), key("b")] }
    }

    async fn run(&self, cluster: &mut Cluster) -> Result<()> {
        let client = cluster.client(Member::Coordinator, PATIENCE).await?;
        client.transact(self.set_all("old")).await.context("the old values")?;
        cluster.settled(PATIENCE).await?;

        self.arm(cluster).await?;
        let timeout = match self.trouble {
            Trouble::Killed | Trouble::Paused => IMPATIENT,
            Trouble::KilledWhileClientRetries => PATIENT,
        };
        let address = cluster.address(Member::Coordinator).to_string();
        let (change, fired) = (self.change(), Rc::new(Cell::new(false)));
        let told = told_once_it_fired(address, timeout, change, fired.clone());
        let told = tokio::task::spawn_local(told);
        let told = match self.trouble {
            Trouble::Killed => {
                ensure_killed(cluster.await_exit(self.member, PATIENCE).await?)?;
                fired.set(true);
                let told = told.await?;
                self.check_meanwhile(cluster).await?;
                cluster.start(self.member, &[]).await?;
                told
            }
            Trouble::KilledWhileClientRetries => {
                ensure_killed(cluster.await_exit(self.member, PATIENCE).await?)?;
                fired.set(true);
                cluster.start(self.member, &[]).await?;
                told.await?
            }
            Trouble::Paused => {
                self.await_paused(cluster).await?;
                fired.set(true);
                let told = told.await?;
                cluster.resume(self.member)?;
                told
            }
        };
        let rows = cluster.settled(PATIENCE).await.context("after the restart")?;
        self.check(&told, &rows)?;
        self.check_service(cluster, &client, &rows).await
    }

    /// A transaction committed before, and one that must not be: it is there afterwards, and the other
    /// is not.
    async fn run_beside(&self, cluster: &mut Cluster) -> Result<()> {
        let client = cluster.client(Member::Coordinator, PATIENCE).await?;
        client.transact(self.set_all("old")).await.context("the old values")?;
        cluster.settled(PATIENCE).await?;
        let flag = format!("{}=abort", self.point);
        let stopped = cluster.stop(self.member, PATIENCE).await?;
        ensure!(stopped.success(), "it did not stop cleanly: {stopped}");
        // It may be gone before it says that it is ready.
        cluster.spawn(self.member, &["--fail-point", &flag])?;
        match self.point {
            points::COORDINATOR_ABORT_WRITTEN | points::COORDINATOR_ABORT_DURABLE => {
                cluster.await_ready(self.member).await?;
                cluster.await_links(PATIENCE).await?;
                let writer = cluster.client(Member::Coordinator, Duration::from_secs(3)).await?;
                let told = writer.transact(self.impossible()).await;
                ensure!(told.is_err(), "a transaction against its precondition was committed");
            }
            points::PARTICIPANT_EPOCH_PROMISED => {
                cluster.await_ready(self.member).await?;
                cluster.kill(Member::Coordinator)?;
                cluster.spawn(Member::Coordinator, &[])?;
            }
            _ => {}
        }
        ensure_killed(cluster.await_exit(self.member, PATIENCE).await?)?;
        cluster.start(self.member, &[]).await?;
        let rows = cluster.settled(PATIENCE).await.context("after the restart")?;
        for key in &self.keys {
            let value = value_in(&rows, key);
            ensure!(value.is_some_and(|value| value == "old"), "{key:?} holds {value:?}");
        }
        self.check_service(cluster, &client, &rows).await
    }

    /// A change whose precondition does not hold, as the replicas find when they are asked.
    fn impossible(&self) -> Transaction {
        let preconditions = vec![Precondition::Absent(self.keys[0].clone())];
        Transaction { preconditions, ..self.set_all("new") }
    }

    /// Restarts the process with its fail point armed. It is stopped cleanly: after a kill it would
    /// finish what was before, and might pass the point by that.
    async fn arm(&self, cluster: &mut Cluster) -> Result<()> {
        let action = match self.trouble {
            Trouble::Killed | Trouble::KilledWhileClientRetries => "abort",
            Trouble::Paused => "pause",
        };
        let flag = format!("{}={action}", self.point);
        let stopped = cluster.stop(self.member, PATIENCE).await?;
        ensure!(stopped.success(), "it did not stop cleanly: {stopped}");
        cluster.start(self.member, &["--fail-point", &flag]).await?;
        cluster.await_links(PATIENCE).await?;
        Ok(())
    }

    async fn await_paused(&self, cluster: &Cluster) -> Result<()> {
        let process = cluster.process_id(self.member).context("it is gone")?;
        let began = Instant::now();
        while process_state(process)? != 'T' {
            ensure!(began.elapsed() < PATIENCE, "it was to stop itself and runs");
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Reads of other keys go on while a replica is down.
    async fn check_meanwhile(&self, cluster: &Cluster) -> Result<()> {
        if self.member == Member::Coordinator {
            return Ok(());
        }
        let client = cluster.client(Member::Coordinator, PATIENCE).await?;
        client.get("untouched".into()).await.context("reading another key meanwhile")?;
        Ok(())
    }

    /// Whether what happened is allowed by the point and by what the client was told.
    fn check(&self, told: &Result<(), ClientError>, rows: &[Row]) -> Result<()> {
        let values = self.keys.each_ref().map(|key| value_in(rows, key));
        let happened = match values.map(|value| value.map(|value| &value[..])) {
            [Some(b"new"), Some(b"new")] => true,
            [Some(b"old"), Some(b"old")] => false,
            _ => bail!("half of the transaction happened: {values:?}"),
        };
        match told {
            Ok(()) => ensure!(happened, "it was acknowledged and did not happen"),
            Err(error) if error.happened == Happened::No => {
                ensure!(!happened, "the client was told that it did not happen: {error}");
            }
            Err(error) => ensure!(
                self.trouble != Trouble::KilledWhileClientRetries,
                "the client asked again until the cluster was back, and was told: {error}"
            ),
        }
        match self.must() {
            Must::Happened => ensure!(happened, "it was decided and did not happen; {told:?}"),
            Must::NotHappened => ensure!(!happened, "nobody decided it and it happened; {told:?}"),
            Must::Either => {}
        }
        Ok(())
    }

    /// What follows from the point alone.
    fn must(&self) -> Must {
        use Trouble::{Killed, KilledWhileClientRetries, Paused};
        match (self.point, self.trouble) {
            (
                points::COORDINATOR_BEFORE_BEGIN
                | points::COORDINATOR_BEGUN
                | points::COORDINATOR_SOME_PREPARES_SENT
                | points::PARTICIPANT_BEFORE_VOTE
                | points::PARTICIPANT_VOTE_DURABLE,
                Killed,
            ) => Must::NotHappened,
            // Its vote may be overtaken by the news of its death.
            (points::PARTICIPANT_VOTE_SENT, Killed) => Must::Either,
            // A paused process goes on with what it was at, unless its client's deadline is over or
            // it was given up; and a client that asks again may start anew what was aborted.
            (_, Paused | KilledWhileClientRetries) => Must::Either,
            (_, Killed) => Must::Happened,
        }
    }

    /// The cluster answers what the replicas hold, and takes writes.
    async fn check_service(&self, cluster: &Cluster, client: &Client, rows: &[Row]) -> Result<()> {
        for key in &self.keys {
            let read = client.get(key.clone()).await.context("reading afterwards")?;
            ensure!(read.as_ref() == value_in(rows, key), "a read of {key:?} answers {read:?}");
        }
        cluster.await_links(PATIENCE).await?;
        client.transact(self.set_all("after")).await.context("writing afterwards")?;
        let rows = cluster.settled(PATIENCE).await?;
        for key in &self.keys {
            ensure!(value_in(&rows, key).is_some_and(|value| value == "after"), "{key:?}");
        }
        Ok(())
    }

    fn set_all(&self, value: &'static str) -> Transaction {
        let put = |key: &Bytes| Write::Put(key.clone(), value.into());
        Transaction { preconditions: Vec::new(), writes: self.keys.iter().map(put).collect() }
    }

    /// Done twice, it would fail the second time: a retry that is not recognised shows.
    fn change(&self) -> Transaction {
        let is_old = |key: &Bytes| Precondition::Equals(key.clone(), "old".into());
        let preconditions = self.keys.iter().map(is_old).collect();
        Transaction { preconditions, ..self.set_all("new") }
    }
}
