//! `kvorum-lab run` as it is used: what it prints and writes, how it is interrupted.

mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{await_no_process_in, is_empty, lab, processes_in, run};

/// Longer than a cluster takes to start on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Between looks at processes.
const POLL: Duration = Duration::from_millis(5);

#[test]
fn a_run_is_judged_and_written_down() {
    let temporary = tempfile::tempdir().unwrap();
    let (history, report) =
        (temporary.path().join("history.jsonl"), temporary.path().join("report.html"));
    let mut command = lab();
    command.args(["run", "--seconds", "2", "--nemesis", "kill,pause", "--seed", "3"]);
    command.arg("--history").arg(&history).arg("--report").arg(&report);
    let ran = run(&mut command, b"");
    let text = ran.succeeded().text();
    for words in ["nothing lost", "availability", "fault kill", "every promise was kept"] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
    assert!(fs::read_to_string(&report).unwrap().contains("2pc under kill, pause"));
    let mut command = lab();
    command.arg("check").arg(&history).args(["--model", "linearizable"]);
    assert_eq!(run(&mut command, b"").code, 0);
}

#[test]
fn an_interrupted_run_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = lab();
    command.args(["run", "--seconds", "60", "--nemesis", "pause"]).env("TMPDIR", temporary.path());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while processes_in(temporary.path()) < 4 {
        assert!(began.elapsed() < SOON, "it has started no cluster");
        thread::sleep(POLL);
    }
    let sent = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(is_empty(temporary.path()));
    await_no_process_in(temporary.path());
}

#[test]
fn what_cannot_be_run_is_said() {
    let wrong = |arguments: &[&str], words: &[&str]| {
        run(lab().arg("run").args(arguments), b"").failed(2, words);
    };
    wrong(&["--nemesis", "kill,earthquake"], &["`earthquake` is none of", "partition"]);
    wrong(&["--workload", "casino"], &["`casino` is none of register, bank"]);
    wrong(&["--replicas", "0"], &["0 is not in 1..=9"]);
    let temporary = tempfile::tempdir().unwrap();
    fs::write(temporary.path().join("mine"), "").unwrap();
    let directory = temporary.path().to_str().unwrap();
    wrong(&["--data-dir", directory], &["is not empty"]);
}
