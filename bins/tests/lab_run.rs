//! `kvorum-lab run` as it is used: what it prints and writes, how it is interrupted.

mod support;

use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{PATIENCE, await_no_process_in, is_empty, lab, processes_in, run};

/// Between looks at processes.
const POLL: Duration = Duration::from_millis(5);

#[test]
fn a_run_is_judged_and_written_down() {
    let temporary = tempfile::tempdir().unwrap();
    let (history, report) =
        (temporary.path().join("history.jsonl"), temporary.path().join("report.html"));
    let words = ["nothing lost", "availability", "fault kill", "every promise was kept"];
    // On a busy machine it may be over before anything was struck: then it goes on for longer.
    let is_judged = ["2", "20", "200"].into_iter().any(|seconds| {
        let mut command = lab();
        command.args(["run", "--seconds", seconds, "--nemesis", "kill,pause", "--seed", "3"]);
        command.arg("--history").arg(&history).arg("--report").arg(&report);
        let ran = run(command.args(["--back-within", "5m"]), b"");
        println!("{}", ran.text());
        // Nothing is wrong; it may be too little to be judged.
        assert!(ran.code == 0 || ran.text().contains("undecided"), "{ran:?}");
        ran.code == 0 && words.iter().all(|words| ran.text().contains(words))
    });
    assert!(is_judged, "not all of {words:?} were said");
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
        assert!(began.elapsed() < PATIENCE, "it has started no cluster");
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
    // Said at once: the run would take a minute.
    let nowhere = temporary.path().join("no/run.html");
    for flag in ["--report", "--history"] {
        let ran = run(lab().args(["run", flag]).arg(&nowhere), b"");
        ran.failed(4, &["no/run.html", "nothing was run"]);
    }
}
