//! How often replicas were left out and came back: the coordinator is asked again and again while a run
//! lasts, since it counts anew with each start.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use kvorum_replication::Protocol;
use kvorum_rpc::client::{Client, ClientOptions};
use tokio::task::{AbortHandle, spawn_local};

use crate::cluster::{Cluster, Member};
use crate::view::Views;

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);

/// How long the coordinator is waited for.
const PATIENCE: Duration = Duration::from_millis(250);

/// How often replicas were left out and came back, as far as was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Absences {
    /// Left out.
    pub excluded: u64,
    /// Let in again.
    pub rejoined: u64,
}

/// What each run of the coordinator said last, by its number.
type Seen = Rc<RefCell<BTreeMap<u64, Absences>>>;

/// Asks in the background.
pub(super) struct Watcher {
    seen: Seen,
    asker: AbortHandle,
}

impl Watcher {
    /// Begins to ask, if there is a coordinator; needs the thread's local tasks.
    pub(super) fn watch(cluster: &Cluster) -> Option<Self> {
        match cluster.protocol() {
            Protocol::TwoPhase => {}
            Protocol::AnyReplica | Protocol::Paxos => return None,
        }
        let seen = Seen::default();
        let address = cluster.address(Member::Coordinator).to_string();
        let asker = spawn_local(ask(address, Rc::clone(&seen))).abort_handle();
        Some(Self { seen, asker })
    }

    /// All that was seen.
    pub(super) fn stop(self) -> Absences {
        self.asker.abort();
        let seen = self.seen.take();
        Absences {
            excluded: seen.values().map(|run| run.excluded).sum(),
            rejoined: seen.values().map(|run| run.rejoined).sum(),
        }
    }
}

async fn ask(address: String, seen: Seen) {
    let options = ClientOptions {
        connect_timeout: PATIENCE,
        timeout: PATIENCE,
        ..ClientOptions::new([address])
    };
    loop {
        if let Ok(client) = Client::connect(options.clone()).await {
            while let Ok(status) = client.status().await {
                if let Some(Views { excluded, rejoined, .. }) = Views::of(&status) {
                    let absences = Absences { excluded, rejoined };
                    seen.borrow_mut().insert(status.incarnation, absences);
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}
