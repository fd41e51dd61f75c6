//! The shell, fed by a pipe.

mod support;

use serde_json::json;
use support::Fixture;

#[test]
fn lines_run_one_after_another() {
    let fixture = Fixture::start();
    let input =
        "put greeting 'hello world'\nget greeting\n# a comment\n\nscan\ndel greeting\nscan\n";
    let ran = fixture.feed(["shell"], input);
    let expected = "ok\nhello world\ngreeting\thello world\nok\n";
    assert_eq!(ran.succeeded().text(), expected);
    // Without an end of the last line, and with the ends of another system.
    assert_eq!(fixture.feed(["shell"], "put a 1\r\nget a").succeeded().text(), "ok\n1\n");
    assert_eq!(fixture.feed(["shell"], "quit\nget a\n").succeeded().text(), "");
}

#[test]
fn transactions_are_sent_at_commit() {
    let fixture = Fixture::start();
    let input = "begin\nput a 1\ncheck b absent\nput b 2\nscan\nget a\ncommit\nget a\n";
    let ran = fixture.feed(["shell"], input);
    assert_eq!(ran.succeeded().text(), "1\ncommitted\n1\n");
    let ran = fixture.feed(["shell"], "begin\nput a 2\nabort\nget a\n");
    assert_eq!(ran.succeeded().text(), "1\n");
    let ran = fixture.feed(["shell"], "begin\ncheck a = 7\nput a 3\ncommit\nget a\n");
    ran.failed(3, &["line 4: "]);
    assert_eq!(ran.text(), "1\n");
}

#[test]
fn a_transaction_with_a_wrong_line_is_not_sent() {
    let fixture = Fixture::start();
    for wrong in ["check a", "putt a 1", "put a 'b", "put '' b"] {
        let ran = fixture.feed(["shell"], format!("begin\nput a 1\n{wrong}\ncommit\nget a\n"));
        ran.failed(2, &["line 3: ", "line 4: line 3 was wrong, so the transaction was not sent"]);
        assert!(ran.stderr.contains("line 5: there is no key `a`"), "{wrong}: {ran:?}");
    }
    let ran = fixture.feed(["shell"], "begin\nput a 1\n");
    ran.failed(2, &["inside of a transaction, which was not sent"]);
    fixture.kvorum(["get", "a"]).failed(1, &[]);
}

#[test]
fn errors_do_not_stop_it_and_give_the_first_ones_code() {
    let fixture = Fixture::start();
    let input = "get nothing\nset a 1\nput a\ncommit\ncheck a absent\nput a 1\n";
    let ran = fixture.feed(["shell"], input);
    let words = [
        "line 1: there is no key `nothing`",
        "line 2: there is no command `set`",
        "line 3: column 1: it is `put KEY VALUE`",
        "line 4: no transaction is open",
        "line 5: a check belongs to a transaction",
    ];
    ran.failed(1, &words);
    assert_eq!(ran.text(), "ok\n");
}

#[test]
fn help_tells_all_commands() {
    let fixture = Fixture::start();
    let help = fixture.feed(["shell"], "help\n");
    for command in ["put", "get", "del", "scan", "begin", "check", "commit", "abort", "status"] {
        assert!(help.succeeded().text().contains(&format!("\n  {command}")) || command == "put");
    }
    let scan = fixture.feed(["shell"], "help scan\nhelp put\n");
    assert!(scan.succeeded().text().contains("--prefix"), "{}", scan.text());
    fixture.feed(["shell"], "help nonsense\n").failed(2, &["`nonsense`"]);
}

#[test]
fn it_speaks_json_too() {
    let fixture = Fixture::start();
    let ran = fixture.feed(["--output", "json", "shell"], "put a 1\nget a\nget b\n");
    let lines: Vec<serde_json::Value> =
        ran.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let put = json!({"committed": true, "checks": 0, "writes": 1});
    assert_eq!(lines, [put, json!({"key": "a", "value": "1"})]);
    assert_eq!(ran.failed(1, &[]).error()["kind"], "not-found");
}
