//! The lab's command line: simulations and histories, their exit codes and what they print.

mod support;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value as Json;
use support::{Ran, run};

fn lab() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kvorum-lab"));
    command.env_remove("KVORUM_LOG");
    command
}

fn kvorum_lab(arguments: &[&str]) -> Ran {
    run(lab().args(arguments), b"")
}

/// Histories made by hand, each bad one with a good twin.
#[expect(clippy::unwrap_used, reason = "in a test's helper as in the test itself")]
fn histories(kind: &str) -> Vec<PathBuf> {
    let checker = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("checker");
    let directory = checker.join("tests/histories/linearizable").join(kind);
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "{files:?}");
    files
}

#[test]
fn help_is_no_error_and_wrong_command_lines_are_usage() {
    for arguments in [&["--help"][..], &["sim", "--help"], &["run", "-h"], &["check", "--help"]] {
        assert!(!kvorum_lab(arguments).succeeded().stdout.is_empty());
    }
    let help = kvorum_lab(&["--help"]);
    assert!(!help.text().contains("serve "), "the hidden command is shown");
    let cases: &[(&[&str], &str)] = &[
        (&[], "Usage: kvorum-lab"),
        (&["simulate"], "'sim'"),
        (&["sim", "--protocol", "3pc"], "2pc"),
        (&["sim", "--seeds", "7..7"], "A..B"),
        (&["sim", "--seed", "7", "--seeds", "1..9"], "cannot be used with"),
        (&["sim", "--trace"], "--seed"),
        (&["sim", "--calm", "loss"], "--seed"),
        (&["sim", "--seed", "7", "--calm", "wind"], "wind"),
        (&["sim", "--threads", "0"], "1..=256"),
        (&["check"], "<FILE>"),
        (&["check", "-", "--model", "plausible"], "linearizable, serializable"),
    ];
    for (arguments, words) in cases {
        kvorum_lab(arguments).failed(2, &[words]);
    }
    let ran = kvorum_lab(&["--output", "json", "sim", "--seed", "x"]);
    assert_eq!(ran.failed(2, &[]).error()["kind"], "usage");
}

#[test]
fn seeds_are_counted_with_their_faults() {
    let ran = kvorum_lab(&["sim", "--seeds", "0..12", "--activity"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let text = ran.text();
    for words in [
        "2pc: 12 seeds, 0.0",
        " of unknown outcome",
        " FAULT ",
        "\n process killed ",
        "\n WHAT NODES AND STORES DID ",
        "\n store flushes ",
        "\nverdict: every promise was kept\n",
    ] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    let ran = kvorum_lab(&["--output", "json", "sim", "--seeds", "0..12", "--threads", "1"]);
    let json = ran.succeeded().json();
    assert_eq!((&json["seeds"], &json["violations"]), (&12.into(), &Json::Array(Vec::new())));
    assert!(json["operations"].as_u64() > Some(1_000), "{json}");
    assert!(json["faults"]["process killed"].as_u64() > Some(0), "{json}");
    assert!(json["activity"]["store flushes"].as_u64() > Some(0), "{json}");
}

/// Nothing on standard output differs between two runs, or nobody could compare machines.
#[test]
fn a_trace_is_the_same_every_time() {
    let trace = || kvorum_lab(&["sim", "--seed", "7", "--trace"]);
    let (first, second) = (trace(), trace());
    assert_eq!(first.code, 0, "{first:?}");
    assert!(first.text().lines().count() > 1_000, "{}", first.text());
    assert!(first.text().ends_with("\nverdict: every promise was kept\n"));
    assert!(first.stdout == second.stdout, "two runs of a seed differ");
    let smaller = kvorum_lab(&["sim", "--seed", "7", "--trace", "--only-faults", "none"]);
    assert!(smaller.stdout != first.stdout, "leaving faults out changes nothing");
}

#[test]
fn who_stops_reading_a_trace_is_not_told_off() {
    let mut command = lab();
    command.args(["sim", "--seed", "7", "--trace"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 64];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), &ended.stderr[..]), (Some(0), &b""[..]), "{ended:?}");
}

#[test]
fn a_simulation_s_history_can_be_checked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("seven.jsonl");
    let path = file.to_str().unwrap();
    let ran = kvorum_lab(&["sim", "--seed", "7", "--history", path]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for model in ["linearizable", "serializable"] {
        let ran = kvorum_lab(&["check", path, "--model", model]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.text().ends_with(&format!("\n{model}: holds\n")), "{ran:?}");
    }
    let nowhere = directory.path().join("no/such/directory");
    let ran = kvorum_lab(&["sim", "--seed", "7", "--history", nowhere.to_str().unwrap()]);
    ran.failed(4, &["writing", "no/such/directory"]);
}

#[test]
fn good_histories_hold_and_bad_ones_do_not() {
    let good = run(lab().arg("check").args(histories("good")), b"");
    assert_eq!(good.succeeded().text().lines().count(), histories("good").len());
    assert!(good.text().lines().all(|line| line.starts_with("holds      ")), "{good:?}");

    let bad = run(lab().arg("check").args(histories("bad")), b"");
    assert_eq!(bad.failed(1, &[]).text().lines().count(), histories("bad").len());
    assert!(bad.text().lines().all(|line| line.starts_with("VIOLATED   ")), "{bad:?}");

    for file in histories("good") {
        let ran = run(lab().arg("check").arg(file), b"");
        assert!(ran.code == 0 && ran.text().ends_with("linearizable: holds\n"), "{ran:?}");
    }
    for file in histories("bad") {
        let ran = run(lab().arg("check").arg(&file), b"");
        assert_eq!(ran.code, 1, "{file:?}: {ran:?}");
        assert!(ran.text().contains("\nlinearizable: VIOLATED\n"), "{ran:?}");
        let operations = ran.text().lines().filter(|line| line[2..].starts_with("client "));
        assert!(operations.count() > 0, "the operations are missing: {ran:?}");
    }
}

#[test]
fn violations_are_json_for_programs_and_drawn_for_people() {
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("page.html");
    let bad = &histories("bad")[0];
    let mut command = lab();
    command.args(["--output", "json", "check"]).arg(bad).arg("--timeline").arg(&page);
    let ran = run(&mut command, b"");
    let json = ran.failed(1, &[]).json();
    assert_eq!((&json["verdict"], &json["model"]), (&"violated".into(), &"linearizable".into()));
    let offending = json["offending"].as_array().unwrap();
    assert!(offending.len() > 1 && offending[0]["op"].is_string(), "{json}");
    assert!(fs::read_to_string(&page).unwrap().contains("<svg"));

    let good = &histories("good")[0];
    let mut command = lab();
    let unused = directory.path().join("unused.html");
    command.args(["--output", "json", "check"]).arg(good).arg("--timeline").arg(&unused);
    assert_eq!(run(&mut command, b"").succeeded().json()["verdict"], "holds");
    assert!(!unused.exists(), "there is nothing to draw");

    let mut command = lab();
    let two = run(command.arg("check").args([bad, good]).arg("--timeline").arg(&unused), b"");
    two.failed(2, &["--timeline draws one history"]);
}

#[test]
fn wrong_lines_are_named() {
    let put = br#"{"client":1,"op":"put","key":"k","value":"v","call":10,"ret":20,"ok":true}"#;
    let cases: &[(&[u8], &[&str])] = &[
        (b"", &["needs an operation"]),
        (b"\n\n", &["needs an operation"]),
        (b"{}", &["line 1"]),
        (b"not json", &["line 1", "column"]),
        (b"\xff\xfe", &["line 1"]),
        (
            br#"{"client":1,"op":"put","key":"k","call":10,"ret":20,"ok":true}"#,
            &["line 1", "value"],
        ),
        (br#"{"client":1,"op":"swap","key":"k","call":1,"ret":2,"ok":true}"#, &["line 1", "swap"]),
        (
            br#"{"client":1,"op":"del","key":"k","call":20,"ret":10,"ok":true}"#,
            &["line 1", "20", "10"],
        ),
    ];
    for (input, words) in cases {
        let ran = run(lab().args(["check", "-"]), input);
        assert!(ran.failed(2, &["standard input: "]).stdout.is_empty(), "{ran:?}");
        ran.failed(2, words);
        let second = [&put[..], b"\n", input].concat();
        if words[0] == "line 1" {
            run(lab().args(["check", "-"]), &second).failed(2, &["standard input: line 2"]);
        }
    }
    let ran = run(lab().args(["check", "-"]), put);
    assert!(
        ran.code == 0 && ran.text().starts_with("standard input: 1 operation (1 done)"),
        "{ran:?}"
    );
}

#[test]
fn files_that_cannot_be_read_hide_no_verdict() {
    kvorum_lab(&["check", "/no/such/file"]).failed(4, &["reading /no/such/file"]);
    kvorum_lab(&["check", "/"]).failed(4, &["reading /"]);
    let (good, bad) = (histories("good"), histories("bad"));
    let mut command = lab();
    let ran = run(command.arg("check").args([&good[0], Path::new("/no/such/file")]), b"");
    assert!(ran.failed(4, &["/no/such/file"]).text().starts_with("holds      "), "{ran:?}");
    let mut command = lab();
    let ran = run(command.args(["check", "/no/such/file"]).args([&bad[0], &good[0]]), b"");
    assert_eq!(ran.failed(1, &["/no/such/file"]).text().lines().count(), 2, "{ran:?}");
}

#[test]
fn copies_are_compared() {
    let same =
        b"{\"copy\":\"n1\",\"rows\":[[\"k\",\"v\"]]}\n{\"copy\":\"n2\",\"rows\":[[\"k\",\"v\"]]}\n";
    let check = ["check", "-", "--model", "convergence"];
    let ran = run(lab().args(check), same);
    assert!(ran.code == 0 && ran.text().contains("1 row on n1, 1 row on n2"), "{ran:?}");
    let different = b"{\"copy\":\"n1\",\"rows\":[[\"k\",\"v\"]]}\n{\"copy\":\"n2\",\"rows\":[]}\n";
    let ran = run(lab().args(check), different);
    assert!(ran.failed(1, &[]).text().contains("copies differ"), "{ran:?}");
    let one = b"{\"copy\":\"n1\",\"rows\":[[\"k\",\"v\"]]}\n";
    run(lab().args(check), one).failed(2, &["needs two copies"]);
}

/// Two transactions, each of which missed what the other appended.
#[test]
fn transactions_on_lists_are_judged_by_cycles() {
    let first = r#"{"client":1,"op":"list","ops":[["append","x","1"],["read","y",[]]],"call":1,"ret":9,"ok":true}"#;
    let second = r#"{"client":2,"op":"list","ops":[["append","y","2"],["read","x",[]]],"call":2,"ret":8,"ok":true}"#;
    let check = ["check", "-", "--model", "list-append"];
    let ran = run(lab().args(check), format!("{first}\n{second}\n").as_bytes());
    assert!(ran.failed(1, &[]).text().contains("list-append: VIOLATED"), "{ran:?}");
    let seen = second.replace(r#"["read","x",[]]"#, r#"["read","x",["1"]]"#);
    let ran = run(lab().args(check), format!("{first}\n{seen}\n").as_bytes());
    assert!(ran.code == 0 && ran.text().ends_with("list-append: holds\n"), "{ran:?}");
}

#[test]
fn banks_and_sessions_are_judged() {
    let read = |time: u64, sum: &str| {
        let ret = time + 1;
        format!(
            "{{\"client\":1,\"op\":\"mget\",\"keys\":[\"a\",\"b\"],\"results\":[\"{sum}\",\"50\"],\
             \"call\":{time},\"ret\":{ret},\"ok\":true}}\n"
        )
    };
    let bank = |history: String, total: &str| {
        let arguments = ["check", "-", "--model", "bank", "--total", total];
        run(lab().args(arguments), history.as_bytes())
    };
    let kept = bank(read(1, "50") + &read(3, "50"), "100");
    assert!(kept.code == 0 && kept.text().ends_with("bank: holds\n"), "{kept:?}");
    assert!(bank(read(1, "50") + &read(3, "40"), "100").failed(1, &[]).text().contains("VIOLATED"));
    bank(read(1, "50"), "90").failed(1, &[]);

    let put = |time: u64, value: &str| {
        let ret = time + 1;
        format!(
            "{{\"client\":1,\"op\":\"put\",\"key\":\"k\",\"value\":\"{value}\",\"call\":{time},\
             \"ret\":{ret},\"ok\":true}}\n"
        )
    };
    let get = |value: &str| {
        format!(
            "{{\"client\":1,\"op\":\"get\",\"key\":\"k\",\"result\":\"{value}\",\"call\":9,\"ret\":10,\
             \"ok\":true}}\n"
        )
    };
    let session =
        |history: String| run(lab().args(["check", "-", "--model", "session"]), history.as_bytes());
    let fresh = session(put(1, "1") + &put(3, "2") + &get("2"));
    assert!(fresh.code == 0 && fresh.text().ends_with("session: holds\n"), "{fresh:?}");
    let stale = session(put(1, "1") + &put(3, "2") + &get("1"));
    assert!(stale.failed(1, &[]).text().contains("session: VIOLATED"), "{stale:?}");
}
