//! The demo as a stranger runs it, and as it is interrupted.

#![expect(clippy::unwrap_used, reason = "in a test's helpers as in the test itself")]

mod support;

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;
use support::{await_no_process_in, client, is_empty, processes_in, run};

/// The demo with a place of its own for temporary files, by which its processes are known.
fn demo(temporary: &Path) -> Command {
    let mut command = client();
    // However slow or busy the machine is.
    command.args(["--timeout", "5m", "demo"]).env("TMPDIR", temporary);
    command
}

/// Starts the demo, and lets it get as far as to its second scene.
fn start_to_second_scene(temporary: &Path) -> Child {
    let mut child = demo(temporary).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    // Kept open: a demo that cannot print would end by itself.
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("2. ") {
        line.clear();
        assert!(stdout.read_line(&mut line).unwrap() > 0, "the demo ended early");
    }
    child.stdout = Some(stdout.into_inner());
    assert_eq!(processes_in(temporary), 4);
    child
}

#[test]
fn the_tour_ends_well_and_leaves_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let ran = run(&mut demo(temporary.path()), b"");
    let text = ran.succeeded().text();
    assert!(text.contains("observations in 8 scenes were as they must be"), "{text}");
    assert!(is_empty(temporary.path()));
    assert_eq!(processes_in(temporary.path()), 0);
}

#[test]
fn programs_get_json_and_data_is_kept_where_asked() {
    let temporary = tempfile::tempdir().unwrap();
    let kept = temporary.path().join("kept");
    let mut command = demo(temporary.path());
    let ran = run(command.args(["--output", "json", "--data-dir"]).arg(&kept), b"");
    let lines: Vec<Json> =
        ran.succeeded().text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line.get("right").is_none_or(|right| right == true)));
    assert_eq!(lines.last().unwrap()["scenes"], 8);
    for name in ["coordinator", "replica-1", "replica-2", "replica-3"] {
        assert!(!is_empty(&kept.join(name)), "{name}");
        assert!(kept.join(name).with_extension("log").exists(), "{name}");
    }
    assert_eq!(processes_in(temporary.path()), 0);
    // It would be another cluster's: the demo wants a directory of its own.
    let ran = run(demo(temporary.path()).arg("--data-dir").arg(&kept), b"");
    ran.failed(2, &["kept is not empty", "name another directory"]);
}

#[test]
fn a_demo_that_is_asked_to_stop_cleans_up() {
    for (signal, number) in [("TERM", 15), ("INT", 2), ("HUP", 1)] {
        let temporary = tempfile::tempdir().unwrap();
        let mut child = start_to_second_scene(temporary.path());
        let sent = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status();
        assert!(sent.unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(128 + number));
        assert!(is_empty(temporary.path()), "{signal}");
        assert_eq!(processes_in(temporary.path()), 0, "{signal}");
    }
}

#[test]
fn a_demo_that_is_killed_takes_its_processes_along() {
    let temporary = tempfile::tempdir().unwrap();
    let mut child = start_to_second_scene(temporary.path());
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    await_no_process_in(temporary.path());
}
