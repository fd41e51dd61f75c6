//! Real replicas of a Multi-Paxos cluster over in-memory disks, each behind a server of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvorum::cluster::ReservedPort;
use kvorum_node::{Claim, FailPoints, Identity, IdentityFile, Node, Runner};
use kvorum_replication::NodeId;
use kvorum_replication::paxos::message::Message;
use kvorum_replication::paxos::{Replica, ReplicaOptions};
use kvorum_rpc::client::{Client, ClientOptions, ProcessStatus};
use kvorum_rpc::server::{Server, ServerOptions, Serving};
use kvorum_storage::vfs::MemoryVfs;
use kvorum_storage::{LogOptions, Options};

/// How long a test waits for what must come. However slow or busy the machine is, only a hang gets
/// there.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A small one, so that a change of members takes effect soon.
pub(crate) const WINDOW: u64 = 16;

/// Runs a test's clients on a runtime of their own.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, test).await.expect("done in time") })
}

/// The members of a cluster: where each listens, and its disk.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
}

pub(crate) struct Member {
    pub(crate) id: NodeId,
    pub(crate) address: SocketAddr,
    pub(crate) disk: MemoryVfs,
    running: Option<Running>,
    /// Keeps the port ours while nobody listens there.
    _port: ReservedPort,
}

struct Running {
    identity: Arc<IdentityFile>,
    serving: Serving,
    runner: Runner<Message>,
}

impl Cluster {
    /// So many members, of which none runs.
    pub(crate) fn of(count: u32) -> Self {
        Self { members: (1..=count).map(|id| Member::new(NodeId(id))).collect() }
    }

    /// So many, running.
    pub(crate) fn start(count: u32) -> Self {
        let mut cluster = Self::of(count);
        (1..=count).for_each(|id| cluster.run(id));
        cluster
    }

    /// Starts a member.
    pub(crate) fn run(&mut self, id: u32) {
        self.run_as(id, 0, |_| {});
    }

    /// Starts a member in this life if its disk is empty, with its server's options changed.
    pub(crate) fn run_as(&mut self, id: u32, life: u64, change: impl FnOnce(&mut ServerOptions)) {
        let mut options = ServerOptions::new(self.member(id).address);
        options.peers.refused_pause = Duration::from_millis(50);
        // Nobody is taken for dead who is only slow.
        options.peers.liveness_timeout = 10 * PATIENCE;
        let others = self.members.iter().filter(|member| member.id.0 != id);
        options.peers.dial = others.map(|it| (it.id, it.address.to_string())).collect();
        change(&mut options);
        let founders = self.members.iter().map(|member| member.id).collect();
        let member = &mut self.members[id as usize - 1];
        assert!(member.running.is_none(), "it runs already");
        member.running = Some(Running::start(member.id, life, founders, &member.disk, options));
    }

    /// Stops a member. Its peers see nothing but connections that break.
    pub(crate) fn stop(&mut self, id: u32) {
        let running = self.members[id as usize - 1].running.take().expect("it runs");
        running.serving.stop();
        running.runner.stop().unwrap();
    }

    /// Takes a stopped member's disk away.
    pub(crate) fn wipe(&mut self, id: u32) {
        let member = &mut self.members[id as usize - 1];
        assert!(member.running.is_none(), "it runs");
        member.disk = MemoryVfs::new();
    }

    pub(crate) fn member(&self, id: u32) -> &Member {
        &self.members[id as usize - 1]
    }

    pub(crate) fn address(&self, id: u32) -> String {
        self.member(id).address.to_string()
    }

    pub(crate) fn identity(&self, id: u32) -> Identity {
        self.member(id).running.as_ref().expect("it runs").identity.identity()
    }

    pub(crate) async fn status(&self, id: u32) -> ProcessStatus {
        self.client(&[id]).await.status().await.unwrap()
    }

    /// A client of these members, asked in this order.
    pub(crate) async fn client(&self, ids: &[u32]) -> Client {
        let mut options = ClientOptions::new(ids.iter().map(|id| self.address(*id)));
        options.timeout = PATIENCE / 2;
        options.connect_timeout = PATIENCE / 2;
        Client::connect(options).await.unwrap()
    }

    /// Waits until a status of a member is as wanted.
    pub(crate) async fn until(&self, id: u32, is_so: impl Fn(&ProcessStatus) -> bool) {
        let until = Instant::now() + PATIENCE;
        loop {
            let status = self.status(id).await;
            if is_so(&status) {
                return;
            }
            assert!(Instant::now() < until, "not in time: {status:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a member knows who leads, and says who.
    pub(crate) async fn leader_known_to(&self, id: u32) -> u32 {
        self.until(id, |status| status.leader.is_some()).await;
        self.status(id).await.leader.expect("it was there just now")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(running) = member.running.take() {
                running.serving.stop();
                running.runner.stop().unwrap();
            }
        }
    }
}

impl Member {
    fn new(id: NodeId) -> Self {
        let port = ReservedPort::take().unwrap();
        Self { id, address: port.address(), disk: MemoryVfs::new(), running: None, _port: port }
    }
}

impl Running {
    fn start(
        id: NodeId,
        life: u64,
        founders: Vec<NodeId>,
        disk: &MemoryVfs,
        options: ServerOptions,
    ) -> Self {
        let vfs = Arc::new(disk.clone());
        let dir = Path::new("data");
        let claim = Claim { life, ..Claim::paxos(id, WINDOW) };
        let identity = Arc::new(IdentityFile::open(vfs.clone(), dir, &claim).unwrap());
        let (server, outbox) = Server::bind(options).unwrap();
        let core = Replica::new(ReplicaOptions {
            id,
            founders,
            life: identity.identity().life,
            seed: u64::from(id.0),
            window: WINDOW,
            pipeline_max: 16,
            election_timeout_min: Duration::from_millis(250),
            election_timeout_max: Duration::from_millis(500),
            ..ReplicaOptions::default()
        });
        let log = LogOptions { file_bytes: 4 << 20, ..LogOptions::default() };
        let options = Options { log, memtable_bytes: 1 << 20, ..Options::default() };
        let node = Node::open_store(vfs, dir, options, core, Vec::new()).unwrap();
        let fail_points = FailPoints::new(Vec::new(), &[]).unwrap();
        let runner = Runner::start(node, outbox, fail_points, Box::new(|| {})).unwrap();
        let serving = server.serve(runner.handle(), Arc::clone(&identity), None).unwrap();
        Self { identity, serving, runner }
    }
}
