//! Clients that write and read all the time, while a test does something to the cluster.

use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use kvorum::cluster::Member;
use kvorum::load::{Keys, Load, LoadOptions, Until};
use kvorum_checker::{History, Limits, Verdict, linearizable, read_lines};
use kvorum_rpc::client::ClientOptions;
use tempfile::TempDir;

use super::{Fixture, PATIENCE};

/// Between looks at a load.
const POLL: Duration = Duration::from_millis(2);

/// Writes and reads without end, and what came of them. Reads go to this member, if to one.
pub(crate) struct Clients {
    load: Load,
    pub(crate) began: Instant,
    history: PathBuf,
    _directory: TempDir,
}

impl Clients {
    /// Clients whose keys are not as long have other keys.
    #[track_caller]
    pub(crate) fn start(fixture: &Fixture, key_bytes: usize, read_from: &[Member]) -> Self {
        let directory = TempDir::new().unwrap();
        let history = directory.path().join("history");
        let address = |member: &Member| fixture.cluster.address(*member).to_string();
        let options = LoadOptions {
            clients: 8,
            until: Until::Elapsed(PATIENCE),
            mix: "put=1,get=1".parse().unwrap(),
            keys: Keys::Among(20),
            key_bytes,
            read_from: read_from.iter().map(address).collect(),
            give_up_after: PATIENCE,
            history: Some(history.clone()),
            ..LoadOptions::default()
        };
        let client =
            ClientOptions { connect_timeout: PATIENCE, ..ClientOptions::new([&fixture.connect]) };
        let began = Instant::now();
        let load = Load::start(options, &client).unwrap();
        let clients = Self { load, began, history, _directory: directory };
        clients.go_on();
        clients
    }

    /// Waits until so much was acknowledged that all must be well.
    #[track_caller]
    pub(crate) fn go_on(&self) {
        const CALM: u64 = 200;
        let (began, before) = (Instant::now(), self.load.counts().ok);
        while self.load.counts().ok < before + CALM {
            assert!(!self.load.is_finished(), "the load has ended");
            assert!(began.elapsed() < PATIENCE, "nothing goes on: {:?}", self.load.counts());
            thread::sleep(POLL);
        }
    }

    #[track_caller]
    pub(crate) fn stop(self) {
        self.load.stop();
        self.load.join().unwrap();
    }

    /// Ends; what clients saw has an order that explains it.
    #[track_caller]
    pub(crate) fn judged(self) -> History {
        self.load.stop();
        self.load.join().unwrap();
        let history = read_lines(BufReader::new(File::open(&self.history).unwrap())).unwrap();
        let verdict = linearizable(&history, Limits::default());
        assert_eq!(verdict, Verdict::Holds, "{verdict:#?}");
        history
    }
}
