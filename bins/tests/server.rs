//! `kvorumd` by itself: how it starts, what it refuses and with which words and exit code, and how
//! it stops.

#![expect(clippy::unwrap_used, reason = "in a test's helpers as in the test itself")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use kvorum::cluster::Member;
use support::{Fixture, Ran, Server, client, dead_address, kvorum_at, once_available, run, server};
use tempfile::TempDir;

/// Runs a server that is expected to end by itself.
fn refused<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Ran {
    let ran = run(server().args(arguments), b"");
    assert!(ran.stdout.is_empty(), "it said that it was ready: {ran:?}");
    ran
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn replica(id: &str, dir: &Path) -> Ran {
    refused(["replica", "--id", id, "--listen", "127.0.0.1:0", "--data-dir", text(dir)])
}

fn coordinator(dir: &Path, replicas: &[&str]) -> Ran {
    refused(coordinator_arguments(dir, replicas))
}

fn coordinator_arguments<'a>(dir: &'a Path, replicas: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["coordinator", "--silence", "5m", "--listen", "127.0.0.1:0"];
    arguments.extend(["--data-dir", text(dir)]);
    arguments.extend(replicas.iter().flat_map(|replica| ["--replica", *replica]));
    arguments
}

#[test]
fn it_says_one_line_when_ready_and_stops_when_asked() {
    for signal in ["TERM", "INT"] {
        let dir = TempDir::new().unwrap();
        let mut server = Server::replica(7, dir.path());
        let address = server.address().to_owned();
        assert_eq!(server.ready, format!("ready replica id=7 listen={address}"));
        assert!(address.starts_with("127.0.0.1:") && !address.ends_with(":0"), "{address}");
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0), "SIG{signal}");
        assert_eq!(server.rest_of_output(), "");
    }
}

#[test]
fn a_replica_alone_says_what_it_lacks() {
    let dir = TempDir::new().unwrap();
    let replica = Server::replica(4, dir.path());
    let status = kvorum_at(replica.address(), ["status"]);
    assert!(status.succeeded().text().contains("replica 4 has met no coordinator yet"));
    kvorum_at(replica.address(), ["--timeout", "1s", "put", "k", "v"])
        .failed(4, &[replica.address()]);
}

#[test]
fn the_client_can_serve_too() {
    let dir = TempDir::new().unwrap();
    let arguments = ["serve", "replica", "--id", "1", "--listen", "127.0.0.1:0", "--data-dir"];
    let mut server = Server::spawn(client().args(arguments).arg(dir.path()));
    assert!(server.ready.starts_with("ready replica id=1 listen=127.0.0.1:"), "{}", server.ready);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn wrong_command_lines_are_usage() {
    let (dir, other) = (TempDir::new().unwrap(), dead_address());
    let dir = text(dir.path());
    let base = ["replica", "--id", "1", "--listen", "127.0.0.1:0", "--data-dir", dir];
    let cases: &[(&[&str], &[&str])] = &[
        (&["--bogus"], &["--bogus"]),
        (&["--protocol", "bayou"], &["bayou", "2pc"]),
        (&["--fail-point", "participant-vote-sent"], &["NAME=abort|pause"]),
        (&["--fail-point", "participant-vote-sent=explode"], &["NAME=abort|pause"]),
        (&["--fail-point", "no-such-point=abort"], &["no-such-point", "participant-vote-sent"]),
        (&["--fail-point", "coordinator-begun=abort"], &["coordinator-begun"]),
        (&["--workers", "0"], &["1 to 64"]),
        (&["--log", "kvorum=loud"], &["error, warn, info"]),
        (&["--peer", "2"], &["ID=ADDR"]),
        (&["--peer", "1=127.0.0.1:7102"], &["replica 1, which is this one"]),
        (&["--rejoin", "--peer", "2=127.0.0.1:7102"], &["--rejoin does not go with --peer"]),
        (&["--fail-roles", "1"], &["--fail-roles", "--protocol paxos"]),
    ];
    for (more, words) in cases {
        refused(base.iter().chain(*more)).failed(2, words);
    }
    let arguments = ["replica", "--id", "0", "--listen", "127.0.0.1:0", "--data-dir", dir];
    refused(arguments).failed(2, &["from 1"]);
    let replica = format!("1={other}");
    coordinator(Path::new(dir), &[]).failed(2, &["--replica"]);
    coordinator(Path::new(dir), &[&replica, &replica]).failed(2, &["replica 1 twice"]);
    let same_address = format!("2={other}");
    coordinator(Path::new(dir), &[&replica, &same_address]).failed(2, &[&other, "1 and 2"]);
    assert_eq!(fs::read_dir(dir).unwrap().count(), 0, "a wrong command line made files");
}

#[test]
fn wrong_command_lines_of_paxos_are_usage() {
    let dir = TempDir::new().unwrap();
    let base = ["replica", "--id", "1", "--listen", "127.0.0.1:7101", "--protocol", "paxos"];
    let base = base.iter().copied().chain(["--data-dir", text(dir.path())]);
    let peer = ["--peer", "2=127.0.0.1:7102"];
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["no --peer", "--peer ID=ADDR"]),
        (&["--peer", "1=127.0.0.1:7102"], &["replica 1, which is this one", "only the others"]),
        (&["--peer", "3=127.0.0.1:7101"], &["replica 3", "where this one listens"]),
        (&["--peer", "2=127.0.0.1:7103"], &["replica 2 twice"]),
        (&["--peer", "3=127.0.0.1:7102"], &["2 and 3 both listen on 127.0.0.1:7102"]),
        (&["--acceptor-restart", "amnesia"], &["breaks Paxos", "kvorum-lab sim"]),
        (&["--acceptor-restart", "durable"], &["none is to fail", "--fail-acceptors", "--rejoin"]),
        (&["--acceptor-restart", "new"], &["durable or rejoin"]),
        (&["--fail-acceptors", "0"], &["from 1ms to 60m"]),
        (&["--fail-roles", "often"], &["500ms, 5s or 1m"]),
        (&["--read-lease", "9999"], &["from 1 to the shortest election timeout"]),
        (&["--fail-point", "participant-vote-sent=abort"], &["acceptor-accept-durable"]),
    ];
    for (more, words) in cases {
        let names_self_or_nobody = more.is_empty() || more.contains(&"1=127.0.0.1:7102");
        let peer = if names_self_or_nobody { &[][..] } else { &peer };
        refused(base.clone().chain(peer.iter().copied()).chain(more.iter().copied()))
            .failed(2, words);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a wrong command line made files");
}

#[test]
fn addresses_that_others_reach_need_a_word() {
    let dir = TempDir::new().unwrap();
    let arguments = ["replica", "--id", "1", "--listen", "0.0.0.0:0", "--data-dir"];
    let ran = refused(arguments.iter().copied().chain([text(dir.path())]));
    ran.failed(2, &["0.0.0.0:0", "--insecure"]);
    let more = [text(dir.path()), "--insecure", "--advertise", "kv-1.example:7101"];
    let mut server = Server::start(arguments.iter().copied().chain(more));
    assert!(server.address().starts_with("0.0.0.0:"), "{}", server.ready);
    let address = server.address().replace("0.0.0.0", "127.0.0.1");
    let status = kvorum_at(&address, ["--output", "json", "status"]).json();
    assert_eq!(status["processes"][0]["address"], "kv-1.example:7101");
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_port_in_use_is_named() {
    let (dir, listener) = (TempDir::new().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let address = listener.local_addr().unwrap().to_string();
    let ran =
        refused(["replica", "--id", "1", "--listen", &address, "--data-dir", text(dir.path())]);
    ran.failed(4, &[&address, "another process listens there", "--listen"]);
}

#[test]
fn a_directory_belongs_to_one_node() {
    let dir = TempDir::new().unwrap();
    Server::replica(1, dir.path()).signal("TERM");
    replica("2", dir.path()).failed(4, &[text(dir.path()), "replica n1", "replica n2"]);
    let peer = format!("1={}", dead_address());
    coordinator(dir.path(), &[&peer]).failed(4, &[text(dir.path()), "replica n1", "coordinator"]);
}

#[test]
fn a_directory_belongs_to_one_process() {
    let dir = TempDir::new().unwrap();
    let running = Server::replica(1, dir.path());
    let words = [text(dir.path()), "in use by another process", "--data-dir"];
    replica("1", dir.path()).failed(4, &words);
    // Even SIGKILL lets go of it.
    running.signal("KILL");
    drop(running);
    Server::replica(1, dir.path());
}

#[test]
fn a_coordinator_keeps_its_replicas() {
    let dir = TempDir::new().unwrap();
    let (one, two, three) = (dead_address(), dead_address(), dead_address());
    let (one, two, three) = (format!("1={one}"), format!("2={two}"), format!("3={three}"));
    Server::start(coordinator_arguments(dir.path(), &[&one, &two]));
    let ran = coordinator(dir.path(), &[&one, &two, &three]);
    let add = format!("kvorum admin replica add {three}");
    ran.failed(4, &[text(dir.path()), "replicas 1, 2", "--replica names 3", &add]);
    // What the flags leave out it knows.
    for named in [&[][..], &[&one[..]]] {
        let server = Server::start(coordinator_arguments(dir.path(), named));
        let status = kvorum_at(server.address(), ["--output", "json", "status"]).json();
        assert_eq!(status["processes"].as_array().map(Vec::len), Some(3), "{status}");
    }
    // The same ones in another order, at another address, are the same ones.
    let moved = format!("1={}", dead_address());
    Server::start(coordinator_arguments(dir.path(), &[&two, &moved]));
}

#[test]
fn damaged_data_is_not_served() {
    let dir = TempDir::new().unwrap();
    drop(Server::replica(1, dir.path()));
    let path = dir.path().join("IDENTITY");
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] ^= 1;
    fs::write(&path, bytes).unwrap();
    replica("1", dir.path()).failed(6, &[text(&path), "kvorum store verify"]);
}

#[test]
fn a_damaged_log_is_not_served() {
    let (dir, decisions) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let running = Server::replica(1, dir.path());
    let peer = format!("1={}", running.address());
    let coordinator = Server::start(coordinator_arguments(decisions.path(), &[&peer]));
    for n in 0..20 {
        let value = format!("{n:01000}");
        once_available(|| kvorum_at(coordinator.address(), ["put", "k", &value])).succeeded();
    }
    drop((coordinator, running));
    let log = fs::read_dir(dir.path().join("log")).unwrap().map(|entry| entry.unwrap().path());
    let path = log.filter(|path| path.extension() == Some(OsStr::new("log"))).min().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end / 2] ^= 0x10;
    fs::write(&path, bytes).unwrap();
    replica("1", dir.path()).failed(6, &[text(&path), "at byte", "kvorum store verify"]);
}

/// Files of the process may not grow, nor be written behind their first byte, from here on.
#[cfg(target_os = "linux")]
fn break_disk(server: &Server) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};

    let pid = Pid::from_raw(server.pid().parse().unwrap());
    let limit = Rlimit { current: Some(1), maximum: Some(1) };
    prlimit(pid, Resource::Fsize, limit).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_failing_disk_ends_the_server() {
    let (dir, decisions) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let data_dir = dir.path().join("data");
    let mut command = Command::new("/bin/sh");
    // Writing is to fail, and not to kill with a signal.
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_kvorumd")]);
    command.args(["replica", "--id", "1", "--listen", "127.0.0.1:0", "--data-dir"]).arg(&data_dir);
    let mut replica = Server::spawn(command.stderr(Stdio::piped()));
    let peer = format!("1={}", replica.address());
    let coordinator = Server::start(coordinator_arguments(decisions.path(), &[&peer]));
    once_available(|| kvorum_at(coordinator.address(), ["put", "k", "acknowledged"])).succeeded();

    break_disk(&replica);
    let put = ["--timeout", "1s", "put", "k", "not acknowledged"];
    let put = kvorum_at(coordinator.address(), put);
    assert!([4, 5].contains(&put.code), "{put:?}");
    assert_eq!(replica.wait().code(), Some(1));
    let said = replica.rest_of_errors();
    assert!(said.contains(text(&data_dir)) && said.contains("that the disk is well"), "{said}");

    drop(coordinator);
    let replica = Server::replica(1, &data_dir);
    let peer = format!("1={}", replica.address());
    let coordinator = Server::start(coordinator_arguments(decisions.path(), &[&peer]));
    let get = once_available(|| kvorum_at(coordinator.address(), ["get", "k"]));
    assert_eq!(get.succeeded().text(), "acknowledged\n");
}

#[test]
fn a_directory_that_cannot_be_is_named() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").unwrap();
    replica("1", &file).failed(1, &[text(&file)]);
}

#[test]
fn a_server_does_without_its_readers() {
    let dir = TempDir::new().unwrap();
    let arguments = ["replica", "--id", "1", "--listen", "127.0.0.1:0", "--log", "trace"];
    let mut command = server();
    command.args(arguments).arg("--data-dir").arg(dir.path()).stderr(Stdio::piped());
    let mut server = Server::spawn(&mut command);
    server.close_outputs();
    // Each connection makes it log, and nobody reads that.
    for _ in 0..3 {
        kvorum_at(server.address(), ["status"]).succeeded();
    }
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_replica_of_another_cluster_is_not_taken() {
    let (one, two, data) =
        (TempDir::new().unwrap(), TempDir::new().unwrap(), TempDir::new().unwrap());
    let replica = Server::replica(1, data.path());
    let peer = format!("1={}", replica.address());
    let first = Server::start(coordinator_arguments(one.path(), &[&peer]));
    once_available(|| kvorum_at(first.address(), ["put", "k", "mine"])).succeeded();
    let second = Server::start(coordinator_arguments(two.path(), &[&peer]));
    kvorum_at(second.address(), ["put", "k", "yours"]).failed(4, &["1"]);
    assert_eq!(kvorum_at(first.address(), ["get", "k"]).text(), "mine\n");
}

#[test]
fn a_replica_that_lost_its_disk_is_not_taken_back_empty() {
    let mut fixture = Fixture::start();
    fixture.kvorum(["put", "k", "v"]).succeeded();
    let lost = Member::Replica(2);
    fixture.cluster.kill(lost).unwrap();
    fs::remove_dir_all(fixture.cluster.data_directory(lost)).unwrap();
    fixture.restart(lost);
    fixture.await_log(Member::Coordinator, "its data directory is empty now");
    fixture.await_log(Member::Coordinator, "--rejoin");
    for _ in 0..20 {
        assert_eq!(fixture.kvorum(["get", "k"]).text(), "v\n", "an empty replica answered");
    }
    fixture.kvorum(["put", "k", "w"]).failed(4, &["unavailable"]);
}
