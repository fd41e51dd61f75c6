//! A replica with its disk, which can be stopped at any operation.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use kvorum_node::{Claim, IdentityFile, Node, NodeError};
use kvorum_replication::paxos::message::Message;
use kvorum_replication::paxos::{Replica, ReplicaOptions, Resume};
use kvorum_replication::{Input, NodeId, Outcome, RequestId, Time};
use kvorum_storage::vfs::{CrashMode, FaultyVfs, MemoryVfs, Phase, Vfs};
use kvorum_storage::{Direction, Error, LogOptions, Maintained, Options};

pub(crate) const DIR: &str = "/data";

pub(crate) type Rows = BTreeMap<Bytes, Bytes>;

/// Small enough that few writes fill memtables, files and the log.
pub(crate) fn storage_options() -> Options {
    let log = LogOptions { file_bytes: 8 << 10, recycle_files_max: 1, ..LogOptions::default() };
    Options {
        memtable_bytes: 1 << 10,
        block_bytes: 256,
        segment_bytes: 1 << 10,
        log,
        ..Options::default()
    }
}

/// What is left on the disk when the power fails at an operation.
#[derive(Default)]
struct Outage {
    /// Operations that change the disk, until it fails; none if it does not.
    after: Option<u64>,
    mode: Option<CrashMode>,
    image: Option<MemoryVfs>,
    operations: u64,
}

/// What a node said in one turn.
pub(crate) struct Said {
    pub(crate) sends: Vec<(NodeId, Message)>,
    pub(crate) replies: Vec<(RequestId, Outcome)>,
}

/// A replica, or its disk.
pub(crate) struct Machine {
    pub(crate) dir: &'static str,
    pub(crate) options: ReplicaOptions,
    pub(crate) checkpoint_bytes: u64,
    disk: MemoryVfs,
    pub(crate) faults: FaultyVfs,
    outage: Arc<Mutex<Outage>>,
    running: Option<(IdentityFile, Node<Replica>)>,
    pub(crate) armed: Vec<String>,
}

impl Machine {
    pub(crate) fn new(options: ReplicaOptions, disk: MemoryVfs) -> Self {
        let outage = Arc::new(Mutex::new(Outage::default()));
        let faults = faulty(&disk, &outage);
        Self {
            dir: DIR,
            options,
            checkpoint_bytes: 2 << 10,
            disk,
            faults,
            outage,
            running: None,
            armed: Vec::new(),
        }
    }

    /// Opens the node on its disk. It still has to be told that it has started.
    pub(crate) fn open(&mut self) -> Result<(), NodeError> {
        assert!(self.running.is_none(), "it runs");
        let vfs: Arc<dyn Vfs> = Arc::new(self.faults.clone());
        let claim = Claim::paxos(self.options.id, self.options.window);
        let claim = Claim { life: self.options.life, ..claim };
        let identity = IdentityFile::open(Arc::clone(&vfs), Path::new(self.dir), &claim)?;
        let core = Replica::new(self.options.clone());
        let armed = self.armed.clone();
        let mut node = Node::open_store(vfs, Path::new(self.dir), storage_options(), core, armed)?;
        node.set_checkpoint_bytes(self.checkpoint_bytes);
        self.running = Some((identity, node));
        Ok(())
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.is_some()
    }

    pub(crate) fn node(&mut self) -> Option<&mut Node<Replica>> {
        self.running.as_mut().map(|(_, node)| node)
    }

    pub(crate) fn expect(&mut self) -> &mut Node<Replica> {
        self.node().expect("it runs")
    }

    pub(crate) fn core(&self) -> &Replica {
        self.running.as_ref().expect("it runs").1.core()
    }

    /// What it says once it has taken an input and nothing more can be done without a sync.
    pub(crate) fn step(&mut self, now: Time, input: Input<Message, Resume>) {
        self.expect().step(now, input).unwrap();
    }

    /// Makes the log durable as far as there is room, goes on, and flushes and compacts.
    pub(crate) fn work(&mut self, now: Time) {
        let Some(node) = self.node() else { return };
        let synced = node.log().sync(node.log().last());
        assert!(matches!(synced, Ok(()) | Err(Error::DiskFull { .. })), "{synced:?}");
        node.settle(now).unwrap();
        let store = node.store().unwrap();
        loop {
            match store.maintain() {
                Ok(Maintained::Nothing) | Err(Error::DiskFull { .. }) => break,
                Ok(Maintained::Did(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn said(&mut self) -> Said {
        let turn = self.expect().turn();
        let (sends, replies) = (std::mem::take(&mut turn.sends), std::mem::take(&mut turn.replies));
        Said { sends, replies }
    }

    pub(crate) fn rows(&self) -> Rows {
        let (_, node) = self.running.as_ref().expect("it runs");
        let scan = node.store().unwrap().scan(.., Direction::Forwards).unwrap();
        scan.map(Result::unwrap).collect()
    }

    /// The power fails at the operation after so many that change the disk.
    pub(crate) fn fail_after(&mut self, operations: u64, mode: CrashMode) {
        let mut outage = self.outage.lock().unwrap();
        *outage = Outage { after: Some(operations), mode: Some(mode), ..Outage::default() };
    }

    /// The power stays, if it has not failed by now.
    pub(crate) fn spare(&mut self) {
        self.outage.lock().unwrap().after = None;
    }

    /// Operations so far that changed the disk.
    pub(crate) fn operations(&self) -> u64 {
        self.outage.lock().unwrap().operations
    }

    /// Whether the power has failed since it was last asked; then the node is gone.
    pub(crate) fn has_failed(&mut self) -> bool {
        let image = self.outage.lock().unwrap().image.take();
        image.map(|image| self.take_disk(image)).is_some()
    }

    /// The node is gone; what the disk holds of what was not synced is a matter of the mode.
    pub(crate) fn crash(&mut self, mode: CrashMode) {
        let image = self.disk.crash_image(mode);
        self.take_disk(image);
    }

    /// The node is gone, and its disk is this one.
    pub(crate) fn take_disk(&mut self, disk: MemoryVfs) {
        self.running = None;
        self.faults = faulty(&disk, &self.outage);
        self.disk = disk;
    }

    pub(crate) fn disk(&self) -> &MemoryVfs {
        &self.disk
    }

    /// The node stops as one that was asked to.
    pub(crate) fn stop(&mut self) {
        self.running = None;
    }
}

/// The disk, with an eye on every operation.
fn faulty(disk: &MemoryVfs, outage: &Arc<Mutex<Outage>>) -> FaultyVfs {
    let faults = FaultyVfs::new(Arc::new(disk.clone()));
    let (seen, outage) = (disk.clone(), Arc::clone(outage));
    faults.on_operation(move |event| {
        if event.phase != Phase::Before || !event.operation.changes_disk() {
            return;
        }
        let mut outage = outage.lock().unwrap();
        outage.operations += 1;
        match (outage.after, outage.mode) {
            (Some(0), Some(mode)) => {
                outage.image = Some(seen.crash_image(mode));
                outage.after = None;
            }
            (Some(after), _) => outage.after = Some(after - 1),
            (None, _) => {}
        }
    });
    faults
}
