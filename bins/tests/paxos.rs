//! Multi-Paxos with real processes: five equal replicas by their flags, and what clients see when
//! some of them are gone.

#![expect(clippy::unwrap_used, reason = "in a test's helpers as in the test itself")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use kvorum::cluster::Member;
use serde_json::Value as Json;
use support::{Fixture, PATIENCE, Ran, once_available, run};

const REPLICAS: u32 = 5;

fn all() -> impl Iterator<Item = Member> {
    (1..=REPLICAS).map(Member::Replica)
}

/// All but these.
fn others(gone: &[Member]) -> Vec<Member> {
    all().filter(|member| !gone.contains(member)).collect()
}

/// Every member in turn serves everything a client can ask.
#[track_caller]
fn serves_everything(fixture: &Fixture, member: Member) {
    let key = format!("of {member}");
    let ask = |arguments: &[&str]| once_available(|| fixture.ask(member, arguments));
    ask(&["put", &key, "1"]).succeeded();
    assert_eq!(ask(&["get", &key]).succeeded().text(), "1\n");
    let txn = format!("check '{key}' = 1\nput '{key}' 2\nput '{key}, too' 3\n");
    let transact = |text: &str| once_available(|| fixture.feed_to(member, ["txn"], text));
    assert_eq!(transact(&txn).succeeded().text(), "committed\n");
    transact(&txn).failed(3, &["precondition 1 does not hold"]);
    let scan = ask(&["scan", "--prefix", &key]);
    assert_eq!(scan.succeeded().text(), format!("{key}\t2\n{key}, too\t3\n"));
    ask(&["del", &key]).succeeded();
    ask(&["get", &key]).failed(1, &["there is no key"]);
}

/// Asks the cluster for what has to be done, whoever leads.
#[track_caller]
fn done(fixture: &Fixture, arguments: &[&str]) -> Ran {
    let ran = once_available(|| fixture.kvorum(arguments));
    ran.succeeded();
    ran
}

/// Asks until the answer is as it should be; until then its exit code has to be one of those.
#[track_caller]
fn until(is_right: impl Fn(&Ran) -> bool, meanwhile: &[i32], ask: impl Fn() -> Ran) -> Ran {
    let began = Instant::now();
    loop {
        let ran = ask();
        if is_right(&ran) {
            return ran;
        }
        assert!(meanwhile.contains(&ran.code), "{ran:?}");
        assert!(began.elapsed() < PATIENCE, "{ran:?}");
    }
}

/// How long a read took to be refused, for want of a majority.
#[track_caller]
fn refused_after(fixture: &Fixture, member: Member) -> Duration {
    let began = Instant::now();
    fixture.ask(member, ["get", "greeting"]).failed(4, &["unavailable"]);
    fixture.ask(member, ["scan"]).failed(4, &["unavailable"]);
    began.elapsed()
}

#[test]
fn any_of_five_serves_and_two_may_die_but_not_three() {
    let mut fixture = Fixture::paxos(REPLICAS, &[]);
    all().for_each(|member| serves_everything(&fixture, member));
    done(&fixture, &["put", "greeting", "five"]);

    // Two, one of them the leader: writes go on at each of the others.
    let leader = fixture.leader();
    let mut gone = vec![leader, others(&[leader])[0]];
    gone.iter().for_each(|member| fixture.cluster.kill(*member).unwrap());
    for member in others(&gone) {
        serves_everything(&fixture, member);
    }
    done(&fixture, &["put", "greeting", "three"]);

    // Followers hear that it was chosen with the leader's next word, which it must live to say.
    for member in others(&gone) {
        let began = Instant::now();
        let stale = || fixture.ask(member, ["get", "greeting", "--read", "stale"]);
        while stale().succeeded().text() != "three\n" {
            assert!(began.elapsed() < PATIENCE, "{member} has not heard what was chosen");
        }
    }

    // A third: what is not acknowledged yet may be unknown, and then writes are refused at once.
    gone.push(others(&gone)[0]);
    fixture.cluster.kill(gone[2]).unwrap();
    for member in others(&gone) {
        let put = ["--timeout", "2s", "--output", "json", "put", "greeting", "two"];
        // That the others are gone is not known at once.
        let is_known =
            |ran: &Ran| ran.code == 4 && ran.stderr.contains("no leader that a majority");
        let refused = until(is_known, &[4, 5], || fixture.ask(member, put)).error();
        assert_eq!((&refused["kind"], &refused["happened"]), (&"unavailable".into(), &"no".into()));
        let why = refused["error"].as_str().unwrap();
        for missing in &gone {
            let Member::Replica(id) = missing else { panic!("{missing} is no replica") };
            assert!(
                why.contains(&format!("n{id}")),
                "n{id} is missing, and {why:?} does not say so"
            );
        }
        // It is known that a majority is away. Who waits for it all the same waits for longer than
        // this every time; a busy machine does not.
        let began = Instant::now();
        while refused_after(&fixture, member) >= Duration::from_secs(3) {
            assert!(began.elapsed() < PATIENCE, "reads wait for a majority that is away");
        }

        // Old, but there: nobody can have told it that a later write was chosen.
        let stale = fixture.ask(member, ["get", "greeting", "--read", "stale"]);
        assert_eq!(stale.succeeded().text(), "three\n");
        let rows = fixture.ask(member, ["scan", "--prefix", "greet", "--read", "stale"]);
        assert_eq!(rows.succeeded().text(), "greeting\tthree\n");
        let missing = fixture.ask(member, ["get", "nothing", "--read", "stale"]);
        missing.failed(1, &["there is no key"]);
        let status = fixture.ask(member, ["status"]);
        assert!(status.succeeded().text().contains("nobody leads: 2 of 5"), "{status:?}");
    }

    // One back: writes go on.
    fixture.restart(gone[2]);
    for member in others(&gone[..2]) {
        serves_everything(&fixture, member);
    }
    done(&fixture, &["put", "greeting", "three again"]);

    // All back: all hold the same.
    gone[..2].iter().for_each(|member| fixture.restart(*member));
    let rows = fixture.settled();
    let greeting = rows.iter().find(|(key, _)| &key[..] == b"greeting").unwrap();
    assert_eq!(&greeting.1[..], b"three again");
    assert_eq!(rows.len(), REPLICAS as usize + 1, "{rows:?}");
}

#[test]
fn all_may_die_at_once() {
    let mut fixture = Fixture::paxos(3, &[]);
    for n in 0..20 {
        done(&fixture, &["put", &format!("k{n}"), "v"]);
    }
    fixture.cluster.kill_all().unwrap();
    fixture.start_all();
    let rows = done(&fixture, &["scan"]);
    assert_eq!(rows.text().lines().count(), 20);
    done(&fixture, &["put", "k", "v"]);
    assert_eq!(fixture.settled().len(), 21);
}

/// Whether every process says that this one leads, and that all is well.
fn all_say_who_leads(fixture: &Fixture, id: u32) -> bool {
    let is_said = |member: Member| {
        let status = fixture.ask(member, ["--output", "json", "status"]).json();
        assert_eq!(status["protocol"], "paxos");
        let processes = status["processes"].as_array().unwrap();
        assert_eq!(processes.len(), 3);
        let follows = |process: &Json| {
            let paxos = &process["paxos"];
            paxos["leader"] == id && paxos["votes"] == true && paxos["ballot"].as_u64() > Some(0)
        };
        let of_leader = processes.iter().find(|process| process["id"] == id).unwrap();
        let applied = of_leader["paxos"]["applied"].as_u64();
        status["leader"] == id && processes.iter().all(follows) && applied > Some(0)
    };
    let text = fixture.kvorum(["status"]);
    let words = format!("replica {id} leads; 3 of 3");
    fixture.cluster.members().all(is_said) && text.succeeded().text().contains(&words)
}

#[test]
fn status_says_who_leads() {
    let mut fixture = Fixture::paxos(3, &[]);
    done(&fixture, &["put", "k", "v"]);
    let began = Instant::now();
    // On a busy machine another one may come to lead while they are asked.
    let (leader, id) = loop {
        let leader = fixture.leader();
        let Member::Replica(id) = leader else { panic!("{leader} is no replica") };
        if all_say_who_leads(&fixture, id) {
            break (leader, id);
        }
        assert!(began.elapsed() < PATIENCE, "{:?}", fixture.kvorum(["status"]));
    };

    // Another one soon leads.
    fixture.cluster.kill(leader).unwrap();
    done(&fixture, &["put", "k", "w"]);
    let began = Instant::now();
    loop {
        let status = fixture.kvorum(["--output", "json", "status"]).json();
        if status["leader"].is_number() && status["leader"] != id {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{status}");
    }
}

/// The sum of a counter over all processes.
fn counted(fixture: &Fixture, counter: &str) -> u64 {
    let status = fixture.kvorum(["--output", "json", "status"]).json();
    let processes = status["processes"].as_array().unwrap().iter();
    processes.map(|process| process["counters"][counter].as_u64().unwrap_or(0)).sum()
}

/// Puts until this has come true as well, and so many puts were acknowledged.
#[track_caller]
fn put_until(fixture: &Fixture, is_so: impl Fn() -> bool) {
    const PUTS: u32 = 50;
    let began = Instant::now();
    let mut puts = 0;
    while puts < PUTS || !is_so() {
        // Now and then nobody leads for a while: it never lasts.
        until(|ran| ran.code == 0, &[4, 5], || fixture.kvorum(["put", "k", &puts.to_string()]));
        puts += 1;
        assert!(began.elapsed() < PATIENCE, "{puts} puts, and it is not so");
    }
}

#[test]
fn roles_that_fail_stop_nobody() {
    let fixture = Fixture::paxos(5, &["--fail-roles", "4s", "--fail-acceptors", "2s"]);
    put_until(&fixture, || counted(&fixture, "roles_failed") >= 10);
    assert!(counted(&fixture, "roles_returned") > 0);
}

#[test]
fn acceptors_that_forget_are_taken_in_anew() {
    // Two of five: were it three, nobody could say any more what was chosen.
    let flags = ["--fail-acceptors", "1s", "--acceptor-restart", "rejoin"];
    let mut fixture = Fixture::paxos(5, &[]);
    for member in [Member::Replica(1), Member::Replica(2)] {
        fixture.cluster.kill(member).unwrap();
        fixture.restart_with(member, &flags);
    }
    let joined = || counted(&fixture, "acceptors_forgot") >= 2 && counted(&fixture, "joins") >= 2;
    put_until(&fixture, joined);
}

#[test]
fn a_replica_that_lost_its_disk_comes_back_as_another() {
    let mut fixture = Fixture::paxos(3, &[]);
    done(&fixture, &["put", "k", "v"]);
    let lost = others(&[fixture.leader()])[0];
    fixture.cluster.kill(lost).unwrap();
    fs::remove_dir_all(fixture.cluster.data_directory(lost)).unwrap();

    // As if nothing had been: the others know better.
    fixture.restart(lost);
    fixture.await_log(lost, "--rejoin");
    fixture.ask(lost, ["--timeout", "1s", "put", "k", "w"]).failed(4, &["unavailable"]);
    fixture.cluster.kill(lost).unwrap();
    fs::remove_dir_all(fixture.cluster.data_directory(lost)).unwrap();

    fixture.restart_with(lost, &["--rejoin"]);
    done(&fixture, &["put", "k", "w"]);
    assert_eq!(fixture.settled().len(), 1);
    // Once its votes count, and all have come so far, another one may be taken away.
    let is_over = || {
        let status = fixture.kvorum(["--output", "json", "status"]).json();
        let processes = status["processes"].as_array().unwrap();
        let votes = processes.iter().all(|process| process["paxos"]["votes"] == true);
        let applied = |process: &Json| process["paxos"]["applied"].clone();
        votes && processes.iter().all(|process| applied(process) == applied(&processes[0]))
    };
    let began = Instant::now();
    while !is_over() {
        assert!(began.elapsed() < PATIENCE, "its votes do not count");
    }
    // It is needed from now on.
    let other = others(&[lost])[0];
    fixture.cluster.kill(other).unwrap();
    done(&fixture, &["put", "k", "x"]);
}

/// The flags of a replica on its old directory and address, with these for its others.
fn with_others(fixture: &Fixture, member: Member, others: &[Member], more: &[&str]) -> Ran {
    let Member::Replica(id) = member else { panic!("{member} is no replica") };
    let mut command = support::server();
    let listen = fixture.cluster.address(member).to_string();
    command.args(["replica", "--protocol", "paxos", "--id", &id.to_string(), "--listen", &listen]);
    command.arg("--data-dir").arg(fixture.cluster.data_directory(member)).args(more);
    for other in others {
        let Member::Replica(id) = other else { panic!("{other} is no replica") };
        command.args(["--peer", &format!("{id}={}", fixture.cluster.address(*other))]);
    }
    run(&mut command, b"")
}

#[test]
fn nobody_goes_on_with_other_members() {
    let mut fixture = Fixture::paxos(5, &[]);
    done(&fixture, &["put", "k", "v"]);
    fixture.cluster.kill_all().unwrap();

    // Two of five that take themselves for all would choose what the other three know nothing of.
    let [one, two, three] = [1, 2, 3].map(Member::Replica);
    let words = ["the other replicas 2, 3, 4, 5", "--peer names 2"];
    with_others(&fixture, one, &[two], &[]).failed(4, &words);
    let words = ["the other replicas 1, 2, 4, 5", "--peer names 1, 2"];
    with_others(&fixture, three, &[one, two], &[]).failed(4, &words);

    fixture.start_all();
    assert_eq!(done(&fixture, &["get", "k"]).text(), "v\n");
}

/// Stops the leader of a cluster; whether another one led already then, by the first campaign.
fn hands_over() -> bool {
    let mut fixture = Fixture::paxos(3, &[]);
    done(&fixture, &["put", "k", "v"]);
    let leader = fixture.leader();
    assert_eq!(fixture.stop(leader).code(), Some(0));
    let status = fixture.kvorum(["--output", "json", "status"]).json();
    let is_handed_over = status["leader"].is_number() && counted(&fixture, "campaigns") == 1;
    for member in others(&[leader]).into_iter().take(2) {
        assert_eq!(fixture.stop(member).code(), Some(0), "{member}");
    }
    fixture.start_all();
    assert_eq!(done(&fixture, &["get", "k"]).text(), "v\n");
    is_handed_over
}

#[test]
fn it_stops_when_asked_and_goes_on_where_it_was() {
    // Nobody has to wait until the silence is noticed. A busy machine may lose a leader at any time,
    // or be too late to take over; but not each time.
    assert!((0..10).any(|_| hands_over()), "it is not handed over");
}

#[test]
fn a_read_lease_answers_reads() {
    let fixture = Fixture::paxos(3, &["--read-lease", "300"]);
    done(&fixture, &["put", "k", "v"]);
    let began = Instant::now();
    while counted(&fixture, "reads_by_lease") == 0 {
        assert_eq!(done(&fixture, &["get", "k"]).text(), "v\n");
        assert!(began.elapsed() < PATIENCE, "no read was answered by the lease");
    }
}

#[test]
fn a_bench_may_have_a_cluster_of_it() {
    let temporary = tempfile::tempdir().unwrap();
    let bench = ["--timeout", "5m", "bench", "--fresh", "--protocol", "paxos", "--ops", "200"];
    let ran = run(support::client().args(bench).env("TMPDIR", temporary.path()), b"");
    assert!(ran.succeeded().text().contains("200 ok"), "{ran:?}");
    assert!(support::is_empty(temporary.path()));
}
