//! The launcher of clusters, with a shell script in place of the server: what it promises about
//! processes and files holds whatever the server does.

#![expect(clippy::unwrap_used, reason = "in a test's helpers as in the test itself")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kvorum::cluster::{Cluster, ClusterError, ClusterOptions, Member, Program};

/// Says that it is ready as the server does, then waits to be ended. `$1` is the role; a replica's
/// number is `$3`. With the flag `--die` it ends with code 7, with `--mumble` it says nonsense.
const SCRIPT: &str = r#"
role=$1
case $role in
    coordinator) id=0; listen=$3 ;;
    replica) id=$3; listen=$5 ;;
esac
for flag in "$@"; do
    case $flag in
        --die-silently) echo "cannot go on" >&2; exit 7 ;;
        --mumble) echo hello; exec sleep 1000 ;;
        --die) echo "ready $role id=$id listen=$listen"; exit 7 ;;
    esac
done
echo "ready $role id=$id listen=$listen"
exec sleep 1000
"#;

/// However slow or busy the machine is, only a hang gets here.
const SOON: Duration = Duration::from_secs(300);

struct Script {
    directory: tempfile::TempDir,
}

impl Script {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("server"), SCRIPT).unwrap();
        Self { directory }
    }

    fn cluster(&self) -> Cluster {
        let program = Program::with_subcommand("/bin/sh", self.directory.path().join("server"));
        Cluster::new(ClusterOptions::new(program)).unwrap()
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test);
}

/// Whether the process is there and not merely unreaped.
fn is_alive(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

fn process_ids(cluster: &Cluster) -> Vec<u32> {
    cluster.members().map(|member| cluster.process_id(member).unwrap()).collect()
}

fn await_all_dead(processes: &[u32]) {
    let began = Instant::now();
    while processes.iter().any(|&process| is_alive(process)) {
        assert!(began.elapsed() < SOON, "{processes:?} did not all end");
        std::thread::yield_now();
    }
}

#[test]
fn dropping_a_cluster_ends_its_processes_and_removes_its_files() {
    let script = Script::new();
    run(async {
        let mut cluster = script.cluster();
        cluster.start_all().await.unwrap();
        let (processes, directory) = (process_ids(&cluster), cluster.directory().to_owned());
        assert!(processes.iter().all(|&process| is_alive(process)));
        assert!(directory.join("replica-3.log").exists());

        drop(cluster);

        assert!(!processes.iter().any(|&process| is_alive(process)));
        assert!(!directory.exists());
    });
}

#[test]
fn a_panic_cleans_up_too() {
    let script = Script::new();
    let (sender, receiver) = std::sync::mpsc::channel();
    let cluster = script.cluster();
    let panicked = std::thread::spawn(move || {
        run(async move {
            let mut cluster = cluster;
            cluster.start_all().await.unwrap();
            sender.send((process_ids(&cluster), cluster.directory().to_owned())).unwrap();
            panic!("on purpose");
        });
    });
    assert!(panicked.join().is_err());
    let (processes, directory): (Vec<u32>, PathBuf) = receiver.recv().unwrap();
    assert!(!processes.iter().any(|&process| is_alive(process)));
    assert!(!directory.exists());
}

#[test]
fn a_parent_that_ends_without_cleaning_takes_the_processes_along() {
    let script = Script::new();
    let cluster = script.cluster();
    let parent = std::thread::spawn(move || {
        let mut cluster = cluster;
        run(async { cluster.start_all().await.unwrap() });
        let left = (process_ids(&cluster), cluster.directory().to_owned());
        std::mem::forget(cluster);
        left
    });
    let (processes, directory) = parent.join().unwrap();
    await_all_dead(&processes);
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_cleaner_works_from_another_thread() {
    let script = Script::new();
    run(async {
        let mut cluster = script.cluster();
        cluster.start_all().await.unwrap();
        let (processes, directory) = (process_ids(&cluster), cluster.directory().to_owned());
        let cleaner = cluster.cleaner();
        std::thread::spawn(move || cleaner.clean()).join().unwrap();
        assert!(!processes.iter().any(|&process| is_alive(process)));
        assert!(!directory.exists());
    });
}

#[test]
fn a_named_directory_is_kept_and_must_be_empty() {
    let script = Script::new();
    let directory = tempfile::tempdir().unwrap();
    run(async {
        let mut options = ClusterOptions::new(Program::with_subcommand(
            "/bin/sh",
            script.directory.path().join("server"),
        ));
        options.directory = Some(directory.path().join("new"));
        let mut cluster = Cluster::new(options.clone()).unwrap();
        cluster.start_all().await.unwrap();
        drop(cluster);
        assert!(directory.path().join("new/coordinator.log").exists());
        let refused = Cluster::new(options).unwrap_err();
        assert!(matches!(refused, ClusterError::NotEmpty(_)), "{refused}");
    });
}

#[test]
fn a_killed_member_comes_back_at_its_address() {
    let script = Script::new();
    run(async {
        let mut cluster = script.cluster();
        cluster.start_all().await.unwrap();
        let member = Member::Replica(2);
        let (process, address) = (cluster.process_id(member).unwrap(), cluster.address(member));

        cluster.kill(member).unwrap();
        assert!(!is_alive(process));
        assert!(!cluster.is_running(member));
        assert!(matches!(cluster.kill(member), Err(ClusterError::NotRunning(_))));

        // Being ready includes having printed this address.
        cluster.start(member, &[]).await.unwrap();
        assert_eq!(cluster.address(member), address);
        assert!(matches!(cluster.start(member, &[]).await, Err(ClusterError::Running(_))));

        cluster.kill_all().unwrap();
        assert!(cluster.members().all(|member| !cluster.is_running(member)));
        cluster.start_all().await.unwrap();
        assert!(cluster.members().all(|member| cluster.is_running(member)));
    });
}

#[test]
fn ends_are_noticed_and_reported() {
    let script = Script::new();
    run(async {
        let mut cluster = script.cluster();
        let member = Member::Replica(1);
        cluster.start(member, &["--die"]).await.unwrap();
        assert_eq!(cluster.await_exit(member, SOON).await.unwrap().code(), Some(7));

        let error = cluster.start(member, &["--die-silently"]).await.unwrap_err().to_string();
        assert!(error.contains("it ended") && error.contains("cannot go on"), "{error}");

        let error = cluster.start(member, &["--mumble"]).await.unwrap_err().to_string();
        assert!(error.contains("\"hello\""), "{error}");
        assert!(!cluster.is_running(member));

        cluster.start(member, &[]).await.unwrap();
        let running = cluster.await_exit(member, Duration::from_millis(10)).await;
        assert!(matches!(running, Err(ClusterError::StillRunning { .. })));
        assert!(!cluster.stop(member, SOON).await.unwrap().success());
    });
}

#[test]
fn a_paused_member_stands_still_and_goes_on() {
    let script = Script::new();
    run(async {
        let mut cluster = script.cluster();
        let member = Member::Coordinator;
        cluster.start(member, &[]).await.unwrap();
        let process = cluster.process_id(member).unwrap();
        let state = |process: u32| {
            let stat = fs::read_to_string(Path::new("/proc").join(format!("{process}/stat")));
            stat.unwrap().rsplit(") ").next().unwrap().chars().next().unwrap()
        };
        let await_state = |paused: bool| {
            let began = Instant::now();
            while (state(process) == 'T') != paused {
                assert!(began.elapsed() < SOON, "state {}", state(process));
                std::thread::yield_now();
            }
        };
        cluster.pause(member).unwrap();
        await_state(true);
        cluster.resume(member).unwrap();
        await_state(false);
        // A paused member can be killed.
        cluster.pause(member).unwrap();
        cluster.kill(member).unwrap();
        assert!(!is_alive(process));
    });
}
