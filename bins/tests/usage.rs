//! Bad input and absent clusters: each gets an error that says what, where and what to do, and its
//! exit code. None of this needs a server.

mod support;

use std::ffi::OsString;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::ffi::OsStringExt as _;
use std::thread;
use std::time::Instant;

use support::{PATIENCE, client, dead_address, kvorum, run};

#[test]
fn wrong_command_lines_are_usage() {
    let cases: &[(&[&str], &str)] = &[
        (&["--bogus"], "--bogus"),
        (&["get", "--bogus", "k"], "--bogus"),
        (&["get"], "<KEY>"),
        (&["put", "k"], "<VALUE>"),
        (&["put", "k", "v", "w"], "'w'"),
        (&["gett", "k"], "'get'"),
        (&["--output", "yaml", "get", "k"], "text, json"),
        (&["--timeout", "soon", "get", "k"], "500ms, 5s or 1m"),
        (&["scan", "--limit", "-1"], "-1"),
        (&["admin", "replica", "add", "4"], "ID=ADDR"),
        (&["admin", "replica", "add", "0=127.0.0.1:7100"], "from 1"),
        (&["admin", "replica", "remove", "four"], "four"),
        (&[], "Usage: kvorum"),
    ];
    for (arguments, words) in cases {
        kvorum(*arguments).failed(2, &[words]);
    }
}

#[test]
fn wrong_command_lines_are_json_for_programs() {
    for arguments in [["--output", "json", "get", "--bogus"], ["get", "--output=json", "-x", "k"]] {
        let ran = kvorum(arguments);
        let error = ran.failed(2, &[]).error();
        assert_eq!((&error["kind"], &error["happened"]), (&"usage".into(), &"no".into()));
        assert!(error["error"].as_str().unwrap().contains("unexpected argument"), "{error}");
    }
}

#[test]
fn help_is_no_error() {
    for arguments in [
        &["--help"][..],
        &["put", "--help"],
        &["admin", "replica", "add", "--help"],
        &["txn", "-h"],
        &["--version"],
    ] {
        let ran = kvorum(arguments);
        assert!(!ran.succeeded().stdout.is_empty());
    }
    let help = kvorum(["--help"]);
    for words in ["Exit codes:", "KVORUM_CONNECT", "Examples:", "5  the outcome is unknown"] {
        assert!(help.text().contains(words), "{words}");
    }
    assert!(!help.text().contains("serve "), "the hidden command is shown");
}

#[test]
fn keys_that_cannot_be_are_refused_before_anybody_is_asked() {
    let long = OsString::from_vec(vec![b'k'; (65 << 10) + 1]);
    for command in ["get", "del"] {
        let ran = kvorum([OsString::from(command), long.clone()]);
        ran.failed(2, &["larger than 65536 bytes", "use a shorter key"]);
        assert!(ran.stderr.len() < 500, "the error is as long as the key");
    }
    let put = kvorum([OsString::from("put"), long, OsString::from("v")]);
    put.failed(2, &["larger than 65536 bytes"]);
    kvorum(["get", ""]).failed(2, &["at least 1 byte"]);
}

#[test]
fn values_that_cannot_be_are_refused_before_anybody_is_asked() {
    let value = vec![b'v'; 17 << 20];
    let ran = run(client().args(["put", "photo", "-"]), &value);
    ran.failed(2, &["`photo`", "16777216", "split it over several keys"]);
    let ran = run(client().args(["--output", "json", "put", "photo", "-"]), &value);
    let error = ran.failed(2, &[]).error();
    assert_eq!((&error["kind"], &error["happened"]), (&"usage".into(), &"no".into()));
}

#[test]
fn wrong_statements_name_their_line() {
    let cases: &[(&str, &[&str])] = &[
        ("", &["no statement on standard input", "`put KEY VALUE`"]),
        ("# nothing\n\n", &["no statement on standard input"]),
        ("put a 1\nset b 2\n", &["line 2: column 1: unknown statement `set`", "`put KEY VALUE`"]),
        ("check a\n", &["line 1", "`check KEY absent`"]),
        ("put a 'b\n", &["line 1: column 7", "has no '"]),
        ("put a \\q\n", &["line 1: column 7", "no escape"]),
        ("put a 1\ndel ''\n", &["line 2: ", "a key has at least 1 byte"]),
    ];
    for (input, words) in cases {
        run(client().arg("txn"), input.as_bytes()).failed(2, words);
    }
}

#[test]
fn a_dead_coordinator_is_named_at_once() {
    let address = dead_address();
    let began = Instant::now();
    for command in [&["get", "k"][..], &["put", "k", "v"], &["scan"], &["status"], &["shell"]] {
        let ran = kvorum(["--connect", &address, "--timeout", "60m"].iter().chain(command));
        ran.failed(4, &[&address, "refused"]);
        assert!(ran.stdout.is_empty());
    }
    assert!(began.elapsed() < PATIENCE, "a refused connection is no time-out");
}

#[test]
fn every_address_that_was_tried_is_named() {
    let (one, other) = (dead_address(), dead_address());
    let ran = run(client().env("KVORUM_CONNECT", format!("{one},{other}")).args(["get", "k"]), b"");
    ran.failed(4, &[&one, &other]);
    let json = kvorum(["--output", "json", "--connect", &one, "put", "k", "v"]);
    let error = json.failed(4, &[]).error();
    assert_eq!((&error["kind"], &error["happened"]), (&"unavailable".into(), &"no".into()));
    assert!(error["error"].as_str().unwrap().contains(&one));
}

#[test]
fn addresses_that_are_none_are_refused() {
    for address in ["nonsense", "127.0.0.1", "127.0.0.1:notaport", "127.0.0.1:7100,"] {
        kvorum(["--connect", address, "get", "k"]).failed(2, &["host:port"]);
    }
    let address = "no-such-host.invalid:7100";
    kvorum(["--connect", address, "get", "k"]).failed(4, &[address]);
}

#[test]
fn a_silent_server_is_given_up_at_the_timeout() {
    // The system takes the connection, and nobody ever answers on it.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let began = Instant::now();
    let ran = kvorum(["--connect", &address, "--timeout", "300ms", "put", "k", "v"]);
    ran.failed(4, &[&address]);
    assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
}

#[test]
fn a_server_that_speaks_something_else_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // The client may be gone before it has read all of it.
            let _ = stream.unwrap().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let ran = kvorum(["--connect", &address, "--timeout", "1s", "get", "k"]);
    ran.failed(4, &[&address]);
}
