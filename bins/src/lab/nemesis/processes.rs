//! Strikes at processes: kill, pause, and both at points of the protocol.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use crate::server::any_replica_points;
use kvorum_replication::points::Point;
use kvorum_replication::{Protocol, paxos, two_phase};

use super::bag::Bag;
use super::{Hurt, Kind, Schedule, Strike, list};
use crate::cluster::{Cluster, ClusterError, Member};
use crate::lab::leaders::Known;

/// The number of the signal that nobody survives.
const SIGKILL: i32 = 9;

/// A fail point is armed at one of its first so many passings; clients pass each a hundred times a
/// second.
const PASSINGS: u64 = 20;

/// How long a fail point may take to be passed. Points that need a healthy cluster are not passed
/// while it is broken elsewhere.
const REACHED_WITHIN: Duration = Duration::from_secs(5);

/// Between looks at a process that is to stop itself.
const POLL: Duration = Duration::from_millis(2);

/// A process may fail to start while its disk is full; it is tried again for as long.
const START_AGAIN_WITHIN: Duration = Duration::from_secs(60);

/// Between tries.
const START_AGAIN_PAUSE: Duration = Duration::from_millis(100);

/// The hand that strikes at processes, and the only one that starts or ends any.
pub(in crate::lab) struct Processes<'a> {
    cluster: &'a mut Cluster,
    schedule: Schedule,
    bag: Bag<Kind>,
    leaders: Known,
    /// Whether a process that does not start may have the disk to blame.
    disks_fail: bool,
    pub(in crate::lab) strikes: Vec<Strike>,
}

impl<'a> Processes<'a> {
    pub(in crate::lab) fn new(
        cluster: &'a mut Cluster,
        schedule: Schedule,
        kinds: &[Kind],
        leaders: Known,
    ) -> Self {
        let mine = [Kind::Kill, Kind::Pause, Kind::FailPoint];
        let mine = mine.into_iter().filter(|kind| kinds.contains(kind)).collect();
        let disks_fail = kinds.contains(&Kind::DiskFull);
        Self { cluster, schedule, bag: Bag::new(mine), leaders, disks_fail, strikes: Vec::new() }
    }

    /// Strikes until the schedule says that it is enough. Whatever was broken is whole again then.
    ///
    /// # Errors
    /// If a process does not come back, or one is gone that nobody killed.
    pub(in crate::lab) async fn run(&mut self) -> Result<(), ClusterError> {
        while self.schedule.next().await {
            check_alive(self.cluster)?;
            match self.bag.draw(&mut self.schedule.random) {
                Some(Kind::Kill) => self.kill().await?,
                Some(Kind::Pause) => self.pause().await?,
                Some(Kind::FailPoint) => self.fail_point().await?,
                Some(_) | None => {}
            }
        }
        check_alive(self.cluster)
    }

    async fn kill(&mut self) -> Result<(), ClusterError> {
        let victims = self.victims();
        let from = self.schedule.clock.nanos();
        for member in &victims {
            // Waits until it is gone.
            self.cluster.kill(*member)?;
        }
        let length = self.schedule.length() / 2;
        tokio::time::sleep(length).await;
        self.start(&victims).await?;
        let fired = victims.len() as u64;
        let evidence = format!("{fired} processes ended by SIGKILL, and served again");
        self.note(Kind::Kill, format!("kill {}", list(&victims)), victims, from, fired, evidence);
        Ok(())
    }

    async fn pause(&mut self) -> Result<(), ClusterError> {
        let victims = self.victims();
        let from = self.schedule.clock.nanos();
        for member in &victims {
            // Waits until the kernel says that it stands still.
            self.cluster.pause(*member)?;
        }
        let length = self.schedule.length();
        tokio::time::sleep(length).await;
        for member in &victims {
            self.cluster.resume(*member)?;
        }
        let fired = victims.len() as u64;
        let evidence = format!("{fired} processes stood still by SIGSTOP");
        self.note(Kind::Pause, format!("pause {}", list(&victims)), victims, from, fired, evidence);
        Ok(())
    }

    /// Restarts a process with a fail point armed, and waits until it gets there.
    async fn fail_point(&mut self) -> Result<(), ClusterError> {
        let member = self.one();
        let points = points(self.cluster.protocol(), member);
        let point = self.schedule.one(&points).name;
        let dies = self.schedule.below(3) > 0;
        let at = 1 + self.schedule.below(PASSINGS);
        let armed = format!("{point}={}@{at}", if dies { "abort" } else { "pause" });
        let from = self.schedule.clock.nanos();
        self.cluster.kill(member)?;
        // It may get there while it recovers, so it may never be ready.
        self.cluster.spawn(member, &["--fail-point", &armed])?;
        let fired = match dies {
            true => self.await_death(member).await?,
            false => self.await_stop(member).await?,
        };
        let length = self.schedule.length() / 2;
        tokio::time::sleep(length).await;
        if fired && !dies {
            self.cluster.resume(member)?;
        } else {
            if self.cluster.is_running(member) {
                // Disarmed by a restart.
                self.cluster.kill(member)?;
            }
            self.start(&[member]).await?;
        }
        let evidence = match (fired, dies) {
            (true, true) => "it died by its own SIGKILL there",
            (true, false) => "it stopped itself there",
            (false, _) => "it was not reached",
        };
        let (name, fired) = (format!("{member} at {armed}"), u64::from(fired));
        self.note(Kind::FailPoint, name, vec![member], from, fired, evidence.to_owned());
        Ok(())
    }

    async fn await_death(&mut self, member: Member) -> Result<bool, ClusterError> {
        match self.cluster.await_exit(member, REACHED_WITHIN).await {
            Ok(status) if status.signal() == Some(SIGKILL) => Ok(true),
            // A disk without room kept it from starting.
            Ok(_) if self.disks_fail => Ok(false),
            Ok(_) => Err(ClusterError::Died { member, log: self.cluster.log_tail(member) }),
            Err(ClusterError::StillRunning { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn await_stop(&mut self, member: Member) -> Result<bool, ClusterError> {
        let began = Instant::now();
        while began.elapsed() < REACHED_WITHIN && self.cluster.is_running(member) {
            if self.cluster.is_stopped(member)? {
                return Ok(true);
            }
            tokio::time::sleep(POLL).await;
        }
        // A disk without room may have kept it from starting; nothing else ends it here.
        if !self.disks_fail && !self.cluster.is_running(member) {
            return Err(ClusterError::Died { member, log: self.cluster.log_tail(member) });
        }
        Ok(false)
    }

    /// One process, mostly; sometimes several, sometimes all.
    fn victims(&mut self) -> Vec<Member> {
        let members: Vec<Member> = self.cluster.members().collect();
        match self.schedule.below(8) {
            0 => members,
            1 | 2 => self.schedule.some(&members),
            _ => vec![self.one()],
        }
    }

    /// One process: the coordinator, or whoever leads, as often as all replicas together.
    fn one(&mut self) -> Member {
        let first = match self.cluster.members().next() {
            Some(Member::Coordinator) => Some(Member::Coordinator),
            _ => self.leaders.leader(),
        };
        let replicas: Vec<Member> = self.cluster.replicas().collect();
        match first {
            Some(first) if self.schedule.below(2) == 0 => first,
            _ => *self.schedule.one(&replicas),
        }
    }

    async fn start(&mut self, members: &[Member]) -> Result<(), ClusterError> {
        for member in members {
            self.cluster.spawn(*member, &[])?;
        }
        for member in members {
            match self.cluster.await_ready(*member).await {
                Ok(()) => {}
                Err(_) if self.disks_fail => self.start_again(*member).await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// A disk without room may keep a process from starting, and is given back its room soon.
    async fn start_again(&mut self, member: Member) -> Result<(), ClusterError> {
        let began = Instant::now();
        loop {
            tokio::time::sleep(START_AGAIN_PAUSE).await;
            match self.cluster.start(member, &[]).await {
                Err(_) if began.elapsed() < START_AGAIN_WITHIN => {}
                ended => return ended,
            }
        }
    }

    fn note(
        &mut self,
        kind: Kind,
        name: String,
        whom: Vec<Member>,
        from: u64,
        fired: u64,
        evidence: String,
    ) {
        let to = self.schedule.clock.nanos();
        let hurt = Hurt::Members;
        self.strikes.push(Strike { kind, name, whom, hurt, from, to, fired, evidence });
    }
}

/// Where a member can be made to die.
fn points(protocol: Protocol, member: Member) -> Vec<Point> {
    match (protocol, member) {
        (Protocol::TwoPhase, Member::Coordinator) => two_phase::points::COORDINATOR.to_vec(),
        (Protocol::TwoPhase, Member::Replica(_)) => two_phase::points::PARTICIPANT.to_vec(),
        (Protocol::Paxos, _) => paxos::points::ALL.to_vec(),
        (Protocol::AnyReplica, _) => any_replica_points(),
    }
}

/// A process that is gone without the doing of the hand that ends processes has crashed.
pub(in crate::lab) fn check_alive(cluster: &mut Cluster) -> Result<(), ClusterError> {
    for member in cluster.members() {
        if !cluster.is_running(member) {
            let log = cluster.log_tail(member);
            return Err(ClusterError::Died { member, log });
        }
    }
    Ok(())
}
