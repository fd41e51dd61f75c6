//! A replica of Multi-Paxos dies at each named point of the protocol. Each time the others go on,
//! what was acknowledged is there, and the one that died comes back and holds the same.

#![expect(clippy::unwrap_used, reason = "in a test's helpers as in the test itself")]

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Instant;

use kvorum::cluster::Member;
use kvorum_replication::paxos::ReplicaOptions;
use kvorum_replication::paxos::points::ALL;
use support::{Fixture, PATIENCE, once_available};

const REPLICAS: u32 = 3;

/// The signal by which a process dies at a fail point.
const KILL: i32 = 9;

/// The points whose names begin so.
fn points(prefix: &str) -> impl Iterator<Item = &'static str> {
    let named = ALL.iter().map(|point| point.name).filter(move |name| name.starts_with(prefix));
    let named: Vec<_> = named.collect();
    assert!(!named.is_empty(), "no point is called {prefix}...");
    named.into_iter()
}

/// Three replicas, of which one is to die, and what was acknowledged.
struct Trial {
    fixture: Fixture,
    point: &'static str,
    puts: u32,
    acknowledged: u32,
    /// How many there are.
    rows: usize,
}

impl Trial {
    fn new() -> Self {
        let fixture = Fixture::paxos(REPLICAS, &[]);
        Self { fixture, point: "", puts: 0, acknowledged: 0, rows: 1 }
    }

    /// Puts once, by way of whoever answers; what came of it is written down.
    #[track_caller]
    fn put(&mut self) {
        self.puts += 1;
        let ran = self.fixture.kvorum(["--timeout", "3s", "put", "k", &self.puts.to_string()]);
        assert!([0, 4, 5].contains(&ran.code), "{}: {ran:?}", self.point);
        if ran.code == 0 {
            self.acknowledged = self.puts;
        }
    }

    /// Puts until one that began later than this is acknowledged.
    #[track_caller]
    fn put_until_acknowledged(&mut self) {
        let (began, before) = (Instant::now(), self.puts);
        while self.acknowledged <= before {
            self.put();
            assert!(began.elapsed() < PATIENCE, "{}: writes do not go on", self.point);
        }
    }

    /// What is read is the last acknowledged put, or one behind it whose outcome is unknown.
    #[track_caller]
    fn check_read(&self) {
        let read = once_available(|| self.fixture.kvorum(["get", "k"]));
        let value: u32 = read.succeeded().text().trim_end().parse().unwrap();
        let possible = self.acknowledged..=self.puts;
        assert!(possible.contains(&value), "{}: {value} is not in {possible:?}", self.point);
    }

    /// Restarts a follower, which will die at the point, and lets things happen until it does.
    #[track_caller]
    fn arm_follower(&mut self, point: &'static str, happen: impl Fn(&mut Self, Member)) -> Member {
        let leader = self.fixture.leader();
        let victim = self.fixture.cluster.replicas().find(|member| *member != leader).unwrap();
        self.fixture.cluster.kill(victim).unwrap();
        self.put_until_acknowledged();
        self.arm(victim, point, &[]);
        let began = Instant::now();
        while !self.has_passed(victim) {
            self.put();
            happen(self, victim);
            assert!(began.elapsed() < PATIENCE, "{victim} does not get to {point}");
        }
        victim
    }

    /// Starts a member that will die at the point.
    fn arm(&mut self, member: Member, point: &'static str, flags: &[&str]) {
        self.point = point;
        let armed = format!("{point}=abort");
        // It may get there while it starts, and then is never ready.
        let flags = [&["--fail-point", &armed], flags].concat();
        self.fixture.cluster.spawn(member, &flags).unwrap();
    }

    fn has_passed(&self, member: Member) -> bool {
        self.fixture.cluster.log_tail(member).contains(&format!("fail point {}", self.point))
    }

    /// Has somebody else campaign: whoever leads dies, unless it is the one that should.
    fn depose(&mut self, victim: Member, may_lead: bool) {
        let Some(leader) = self.fixture.leader_among(&[victim]) else { return };
        if leader == victim && may_lead || self.has_passed(victim) {
            return;
        }
        self.fixture.cluster.kill(leader).unwrap();
        self.put();
        match leader == victim {
            true => self.arm(victim, self.point, &[]),
            false => self.fixture.restart(leader),
        }
    }

    /// The member has died at the point: the others go on, and it comes back.
    #[track_caller]
    fn check(&mut self, member: Member, flags: &[&str]) {
        assert_eq!(self.fixture.exit_of(member).signal(), Some(KILL), "{}", self.point);
        assert!(self.has_passed(member), "{}", self.fixture.cluster.log_tail(member));
        self.put_until_acknowledged();
        self.check_read();
        self.fixture.restart_with(member, flags);
        self.put_until_acknowledged();
        self.check_read();
        assert_eq!(self.fixture.settled().len(), self.rows, "{}", self.point);
    }
}

#[test]
fn acceptors_and_learners_die_at_each_point() {
    let mut trial = Trial::new();
    // Those of snapshots have a trial of their own.
    let learner = points("learner-").filter(|name| !name.contains("snapshot"));
    for point in points("acceptor-").chain(learner) {
        let victim = trial.arm_follower(point, |trial, victim| {
            if point.contains("promise") {
                // It is asked for a promise when another one campaigns.
                trial.depose(victim, false);
            }
        });
        trial.check(victim, &[]);
    }
}

#[test]
fn proposers_die_at_each_point() {
    let mut trial = Trial::new();
    for point in points("proposer-") {
        let victim = trial.arm_follower(point, |trial, victim| trial.depose(victim, true));
        trial.check(victim, &[]);
    }
}

#[test]
fn learners_die_at_each_point_of_a_snapshot() {
    let mut trial = Trial::new();
    let victim = Member::Replica(REPLICAS);
    // More than is kept for learners that lag: who has nothing gets a snapshot.
    let retained = ReplicaOptions::default().retained_bytes_max;
    let value = vec![b'v'; retained / 3 + 1];
    for _ in 0..4 {
        trial.fixture.put_large("large", &value);
    }
    trial.rows += 1;
    for point in points("learner-snapshot") {
        trial.put_until_acknowledged();
        trial.fixture.cluster.kill_all().unwrap();
        fs::remove_dir_all(trial.fixture.cluster.data_directory(victim)).unwrap();
        for member in trial.fixture.cluster.replicas().filter(|member| *member != victim) {
            trial.fixture.cluster.spawn(member, &[]).unwrap();
        }
        trial.put_until_acknowledged();
        trial.arm(victim, point, &["--rejoin"]);
        trial.check(victim, &["--rejoin"]);
    }
}
