//! A replica dies under load, misses a million keys, and comes back while writes go on; then the
//! coordinator dies and is started again. Measured: how long no write was acknowledged, and how long
//! it took until the replica was a full member again. What clients saw meanwhile is judged.
//!
//! ```text
//!  watch  ──────────────────────────────────────────────────────────────────────►  judged
//!               ↓ SIGKILL replica 3           ↓ start              ↓ SIGKILL, start coordinator
//!  bulk             │ keys that it misses │
//!  crowd                                    │ writes at full speed │
//! ```

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use kvorum::cluster::{Cluster, ClusterOptions, Member, Program};
use kvorum::load::{Arrivals, Keys, Load, LoadOptions, Pace, Until};
use kvorum_checker::{Ending, History, Limits, Operation, Verdict, linearizable};
use kvorum_rpc::client::{ClientOptions, ProcessStatus};
use tempfile::TempDir;

use crate::PATIENCE;
use crate::load::{await_acknowledged, read_history};

/// The one that dies.
const VICTIM: Member = Member::Replica(3);

/// Keys of the load that is judged: few enough that they are read soon after they were written.
const WATCHED_KEYS: u64 = 512;

/// Keys that the crowd writes, over and over, so that the stores do not grow by them.
const CROWD_KEYS: u64 = 100_000;

/// Longer than those of the others, so that it is none of theirs.
const CROWD_KEY_BYTES: usize = 20;

/// Acknowledgements of the watch that show that all is well again.
const CALM: u64 = 1000;

/// How long the replica is waited for before it is asked again.
const ASK_FOR: Duration = Duration::from_millis(250);

/// Writes may stop for so long when a process dies.
const STOPPED_MAX: Duration = Duration::from_secs(1);

/// The replica is to be a member again within this.
const BACK_MAX: Duration = Duration::from_secs(30);

/// What to try.
#[derive(Clone, Copy, Debug)]
pub struct Rejoin {
    /// Keys written while the replica is away.
    pub keys: u64,
    /// Operations a second that are judged, half of them writes.
    pub rate: u32,
    /// Connections that write at full speed while it comes back, each with sixteen puts at a time.
    pub writers: u32,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The longest time without an acknowledged write after the replica was killed.
    pub stopped: Duration,
    /// Keys it missed.
    pub missed: u64,
    /// How long it took to write them.
    pub missed_in: Duration,
    /// From its start until it answered a read of its own, as a member.
    pub back_after: Duration,
    /// Puts a second meanwhile, of the crowd.
    pub crowd_rate: f64,
    /// The longest time without an acknowledged write meanwhile.
    pub stopped_meanwhile: Duration,
    /// How it got what it missed.
    pub caught_up_by: String,
    /// From the coordinator's restart to the next acknowledged write.
    pub coordinator_back: Duration,
    /// Operations that were judged.
    pub operations: usize,
    /// Rows of each replica in the end.
    pub rows: usize,
}

impl Outcome {
    /// Whether it was as fast as it should be.
    ///
    /// # Errors
    /// If not.
    pub fn check(&self) -> Result<()> {
        let within = |what: &str, took: Duration, most: Duration| {
            ensure!(took < most, "{what}: {took:.3?}, and {most:?} are allowed");
            Ok(())
        };
        within("writes stopped when the replica was killed", self.stopped, STOPPED_MAX)?;
        within("the replica was back", self.back_after, BACK_MAX)?;
        within("writes stopped while it came back", self.stopped_meanwhile, STOPPED_MAX)?;
        within("the coordinator was back", self.coordinator_back, STOPPED_MAX)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        writeln!(f, "replica killed under load: no write for {:.0} ms", millis(self.stopped))?;
        let missed_in = self.missed_in.as_secs_f64();
        writeln!(f, "it missed {} keys, written in {missed_in:.1} s", self.missed)?;
        writeln!(
            f,
            "started again: a full member after {:.1} s ({}), while {:.0} puts a second went on, \
             with no pause over {:.0} ms",
            self.back_after.as_secs_f64(),
            self.caught_up_by,
            self.crowd_rate,
            millis(self.stopped_meanwhile)
        )?;
        writeln!(
            f,
            "coordinator killed under load: a write {:.0} ms after its restart",
            millis(self.coordinator_back)
        )?;
        write!(
            f,
            "{} operations judged: linearizable; {} rows, the same on each replica",
            self.operations, self.rows
        )
    }
}

impl Rejoin {
    /// Tries it, on a cluster of its own.
    ///
    /// # Errors
    /// If something is lost, stale or not the same everywhere, or a process does not come back.
    pub async fn run(&self, program: Program, say: impl Fn(&str)) -> Result<Outcome> {
        let mut cluster = Cluster::new(ClusterOptions::new(program))?;
        cluster.start_all().await?;
        cluster.await_links(PATIENCE).await?;
        cluster.await_members(3, PATIENCE).await?;
        let watch = Watch::start(&cluster, self.rate)?;
        watch.await_calm().await?;

        let killed = watch.now();
        cluster.kill(VICTIM)?;
        cluster.await_members(2, PATIENCE).await?;
        watch.await_calm().await?;
        let all_went_on = watch.now();
        say("writes go on without the replica");
        let (missed, missed_in) = self.write_bulk(&cluster).await?;
        say(&format!("{missed} keys are written"));

        let (crowd, begun) = (self.crowd(&cluster)?, Instant::now());
        let started = watch.now();
        let back_after = come_back(&mut cluster).await?;
        let crowd_rate = crowd.counts().ok as f64 / begun.elapsed().as_secs_f64();
        let is_back = watch.now();
        say("it is back");
        watch.await_calm().await?;
        crowd.stop();
        crowd.join()?;
        let caught_up_by = ways(&cluster.status(VICTIM).await?);

        cluster.kill(Member::Coordinator)?;
        let restarted = watch.now();
        cluster.start(Member::Coordinator, &[]).await?;
        watch.await_calm().await?;
        say("the coordinator is back");

        let history = watch.end()?;
        let rows = cluster.settled(PATIENCE).await?.len();
        ensure!(rows as u64 >= missed, "of {missed} keys there are {rows}");
        let verdict = linearizable(&history, Limits::default());
        ensure!(matches!(verdict, Verdict::Holds), "{verdict:#?}");
        let writes = Writes::of(&history);
        Ok(Outcome {
            stopped: writes.longest_pause(killed, all_went_on),
            missed,
            missed_in,
            back_after,
            crowd_rate,
            stopped_meanwhile: writes.longest_pause(started, is_back),
            caught_up_by,
            coordinator_back: writes.next_after(restarted) - restarted,
            operations: history.len(),
            rows,
        })
    }

    async fn write_bulk(&self, cluster: &Cluster) -> Result<(u64, Duration)> {
        let options = LoadOptions { until: Until::Operations(self.keys), seed: 2, ..self.puts() };
        // The load has threads of its own; this one has nothing else to do until they end.
        let summary = Load::start(options, &entrance(cluster))?.join()?;
        Ok((summary.counts.ok, summary.elapsed))
    }

    fn crowd(&self, cluster: &Cluster) -> Result<Load> {
        let options = LoadOptions {
            until: Until::Elapsed(PATIENCE),
            keys: Keys::Among(CROWD_KEYS),
            key_bytes: CROWD_KEY_BYTES,
            seed: 3,
            ..self.puts()
        };
        Ok(Load::start(options, &entrance(cluster))?)
    }

    fn puts(&self) -> LoadOptions {
        LoadOptions {
            clients: self.writers,
            outstanding: 16,
            give_up_after: PATIENCE,
            ..LoadOptions::default()
        }
    }
}

/// The load that is judged.
struct Watch {
    load: Load,
    /// When its clock began.
    began: Instant,
    file: PathBuf,
    _directory: TempDir,
}

impl Watch {
    fn start(cluster: &Cluster, rate: u32) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("history.jsonl");
        let read_from = cluster.replicas().map(|replica| cluster.address(replica).to_string());
        let options = LoadOptions {
            clients: 32,
            outstanding: 4,
            until: Until::Elapsed(PATIENCE),
            mix: "put=1,get=1".parse().map_err(anyhow::Error::msg)?,
            pace: Pace::Open { rate: f64::from(rate), arrivals: Arrivals::Poisson },
            keys: Keys::Among(WATCHED_KEYS),
            read_from: read_from.collect(),
            give_up_after: PATIENCE,
            history: Some(file.clone()),
            seed: 1,
            ..LoadOptions::default()
        };
        let began = Instant::now();
        let load = Load::start(options, &entrance(cluster))?;
        Ok(Self { load, began, file, _directory: directory })
    }

    /// The time by the clock of its history.
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits until so much was acknowledged that all must be well.
    async fn await_calm(&self) -> Result<()> {
        await_acknowledged(&self.load, self.load.counts().ok + CALM).await
    }

    fn end(self) -> Result<History> {
        self.load.stop();
        self.load.join()?;
        read_history(&self.file)
    }
}

/// When writes were acknowledged, in order.
struct Writes(Vec<Duration>);

impl Writes {
    fn of(history: &History) -> Self {
        let done = history.iter().filter(|record| {
            record.ending == Ending::Done && matches!(record.operation, Operation::Put { .. })
        });
        let mut at: Vec<Duration> = done.map(|record| Duration::from_nanos(record.ret)).collect();
        at.sort_unstable();
        Self(at)
    }

    fn next_after(&self, time: Duration) -> Duration {
        let next = self.0.partition_point(|at| *at <= time);
        self.0.get(next).copied().unwrap_or(Duration::MAX)
    }

    /// The longest time without one that begins between these.
    fn longest_pause(&self, from: Duration, to: Duration) -> Duration {
        let first = self.0.partition_point(|at| *at <= from);
        let last = self.0.partition_point(|at| *at <= to);
        let begins = std::iter::once(from).chain(self.0[first..last].iter().copied());
        let pauses = begins.map(|begin| self.next_after(begin) - begin);
        pauses.max().unwrap_or_default()
    }
}

/// Starts the replica, and waits until it is a member that answers.
async fn come_back(cluster: &mut Cluster) -> Result<Duration> {
    let began = Instant::now();
    cluster.start(VICTIM, &[]).await?;
    cluster.await_members(3, PATIENCE).await?;
    // It may know it before it has all that it needs to vote and to be read from.
    loop {
        let client = cluster.client(VICTIM, ASK_FOR).await;
        if let Ok(client) = client
            && client.get(Bytes::from_static(b"is it back?")).await.is_ok()
        {
            return Ok(began.elapsed());
        }
        ensure!(began.elapsed() < PATIENCE, "it is a member and answers nothing");
    }
}

/// By what a replica has caught up.
fn ways(status: &ProcessStatus) -> String {
    let count = |name: &str| {
        let found = status.counters.iter().find(|(counter, _)| counter == name);
        found.map_or(0, |(_, value)| *value)
    };
    format!(
        "{} snapshots in {} pieces, {} given up, {} commits learnt",
        count("snapshots_installed"),
        count("snapshot_pieces"),
        count("snapshots_given_up"),
        count("learned")
    )
}

fn entrance(cluster: &Cluster) -> ClientOptions {
    ClientOptions { connect_timeout: PATIENCE, ..ClientOptions::new(cluster.connect()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_pause_is_the_one_that_begins_in_time() {
        let at =
            |times: &[u64]| Writes(times.iter().map(|at| Duration::from_millis(*at)).collect());
        let check = |times, from, to, pause| {
            let found =
                at(times).longest_pause(Duration::from_millis(from), Duration::from_millis(to));
            assert_eq!(found, Duration::from_millis(pause), "{times:?} {from} {to}");
        };
        check(&[0, 10, 20, 500, 510], 5, 505, 480);
        check(&[0, 10, 20, 500, 510], 15, 30, 480);
        check(&[0, 10, 20, 500, 510], 0, 15, 10);
        check(&[0, 10, 20, 500, 510], 100, 110, 400);
    }
}
