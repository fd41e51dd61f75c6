//! Looks at the data directory of a node that does not run: whose it is, what its records mean, and
//! what was under way.
//!
//! The engine checks bytes ([`kvorum_storage::inspect`]); what the records say only a node knows.
//! Directories of stores without a node can be looked at as well.

mod ledger;
mod record;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kvorum_replication::{NodeId, Protocol, Role};
use kvorum_storage::inspect::{
    Directory, Finding, Grade, Layout, LogPlan, Lost, Overlay, Owner, Summary, Verified, own_batch,
};
use kvorum_storage::repair::{Loss, Mending, Repaired, Target, repair};
use kvorum_storage::vfs::Vfs;
use kvorum_storage::{Error, LogItem, Options, Position, ReplayedRecord};

use crate::codec::{is_checkpoint, paxos_installs, protocol_of, two_phase_installs};
use crate::error::NodeError;
use crate::identity::{FILE, Identity, LOCK, NEW_FILE, read_identity};

pub use self::ledger::{InDoubt, Ledger, Progress};
pub use self::record::{Meaning, meaning};

/// A node's files beside those of its engine.
const NODE: Owner = Owner {
    layout: None,
    files: &[FILE],
    leftovers: &[NEW_FILE],
    locks: &[LOCK],
    is_checkpoint: Some(is_checkpoint),
    installs: None,
};

/// What a node does in which kind of cluster: it decides what its records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeKind {
    /// How its cluster replicates.
    pub protocol: Protocol,
    /// What it does there.
    pub role: Role,
}

/// Why the records of such a node cannot be read.
fn no_such_node(node: NodeKind) -> String {
    format!("there is no {} under {}", node.role, node.protocol)
}

/// Whose a directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A node's.
    Node(Identity),
    /// A node's, whose identity is not to be read: what it was is guessed by what is there.
    Lost {
        /// By the records of its log, and by its files.
        kind: NodeKind,
        /// What is wrong with the file.
        what: String,
    },
    /// A store's or a log's that no node runs on.
    Nobody,
}

impl Whose {
    /// What the node is, if it is one's.
    #[must_use]
    pub fn kind(&self) -> Option<NodeKind> {
        match self {
            Self::Node(identity) => {
                Some(NodeKind { protocol: identity.protocol, role: identity.role })
            }
            Self::Lost { kind, .. } => Some(*kind),
            Self::Nobody => None,
        }
    }

    /// The node's number; one if nobody knows: few records depend on it.
    fn node(&self) -> NodeId {
        match self {
            Self::Node(identity) => identity.node,
            Self::Lost { .. } | Self::Nobody => NodeId(1),
        }
    }

    /// How many slots may be open; zero if nobody knows.
    fn window(&self) -> u64 {
        match self {
            Self::Node(identity) => identity.window,
            Self::Lost { .. } | Self::Nobody => 0,
        }
    }
}

/// A data directory that is looked at. No node can start on it meanwhile.
#[derive(Debug)]
pub struct Offline {
    whose: Whose,
    directory: Directory,
}

/// What the log of a directory says beyond its segments.
#[derive(Debug)]
pub struct Read {
    /// Which part of the log can be used.
    pub plan: LogPlan,
    /// The rows that it decides.
    pub overlay: Overlay,
    /// What was under way at its end.
    pub in_doubt: Vec<InDoubt>,
    /// How far it had come; of a replica of Multi-Paxos.
    pub progress: Option<Progress>,
    /// The first record that its owner cannot have written, and why.
    pub misread: Option<(Position, String)>,
}

impl Offline {
    /// Locks the directory, and sees whose it is.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path) -> Result<Self, NodeError> {
        let whose = match read_identity(&*vfs, dir) {
            Ok(Some(identity)) => Whose::Node(identity),
            Ok(None) => whose_without_identity(&vfs, dir)?,
            Err(NodeError::Storage(Error::Corrupt { what, .. })) => {
                let kind = match guess_kind(&vfs, dir) {
                    Err(NodeError::Storage(Error::Invalid { .. })) => {
                        NodeKind { protocol: Protocol::TwoPhase, role: Role::Replica }
                    }
                    guessed => guessed?,
                };
                Whose::Lost { kind, what: what.into_owned() }
            }
            Err(error) => return Err(error),
        };
        let directory = Directory::open(vfs, dir, owner(&whose))?;
        Ok(Self { whose, directory })
    }

    /// Whose it is.
    #[must_use]
    pub fn whose(&self) -> &Whose {
        &self.whose
    }

    /// The engine's part.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Reads and checks everything.
    pub fn verify(&self) -> Result<Verified, NodeError> {
        let mut verified = self.directory.verify(&mut self.check())?;
        if let Some((file, what)) = self.damage()? {
            let (grade, lost) = (Grade::Damage, Lost::File);
            verified.findings.insert(0, Finding { grade, file, offset: 0, what, lost });
        }
        Ok(verified)
    }

    /// Saves what can be saved; see [`kvorum_storage::repair`].
    pub fn repair(&self, target: Target<'_>, options: &Options) -> Result<Repaired, NodeError> {
        let what = |(file, what): (PathBuf, String)| format!("{}: {what}", file.display());
        let losses = self.damage()?.map(what).map(|what| Loss::Owner { what });
        let losses = losses.into_iter().collect();
        let mending = Mending { options, check: &mut self.check(), losses };
        Ok(repair(&self.directory, target, mending)?)
    }

    /// Whether a record is one that the node has written where it stands.
    fn check(&self) -> impl FnMut(&ReplayedRecord) -> Result<(), String> + use<> {
        let (kind, node, window) = (self.whose.kind(), self.whose.node(), self.whose.window());
        let mut run: Option<(u64, Ledger)> = None;
        move |record: &ReplayedRecord| {
            // Whatever the owner of a bare log puts there is its own affair.
            let Some(kind) = kind else { return Ok(()) };
            meaning(kind, record.kind, &record.payload)?;
            let at = record.position.0;
            // Behind a hole, and when the log is read once more, nothing before is known.
            let known = run.take().filter(|(next, _)| *next == at);
            let mut ledger =
                known.map_or_else(|| Ledger::new(kind, node, window, at), |(_, ledger)| ledger);
            let taken = ledger.take(record).map(drop);
            run = Some((at + 1, ledger));
            taken
        }
    }

    /// What is wrong with the node's own part.
    fn damage(&self) -> Result<Option<(PathBuf, String)>, NodeError> {
        let dir = self.directory.path();
        Ok(match &self.whose {
            Whose::Lost { what, .. } => Some((dir.join(FILE), what.clone())),
            // A node joins a cluster once its log has begun.
            Whose::Node(identity) => {
                let is_expected = identity.cluster.is_some() && !self.directory.has_marker();
                let is_gone = is_expected && self.directory.is_blank()?;
                is_gone.then(|| (self.directory.log_dir(), "the node's data is gone".to_owned()))
            }
            Whose::Nobody => None,
        })
    }

    /// Reads the log as far as it can be used.
    pub fn read(&self) -> Result<Read, NodeError> {
        let plan = self.directory.plan_log()?;
        let Some(kind) = self.whose.kind() else {
            let (overlay, misread) = match self.directory.layout() {
                Layout::Store => self.directory.replay(&plan, &mut own_batch)?,
                Layout::Log => (self.directory.overlay(), None),
            };
            return Ok(Read { plan, overlay, in_doubt: Vec::new(), progress: None, misread });
        };
        let (node, window) = (self.whose.node(), self.whose.window());
        let mut ledger = Ledger::new(kind, node, window, plan.used.start);
        let mut apply_to = |record: &ReplayedRecord, overlay: &mut Overlay| {
            for (mark, batch) in ledger.take(record)? {
                overlay.apply(mark, &batch);
            }
            Ok(())
        };
        let (mut overlay, misread) = self.directory.replay_into(&plan, &mut apply_to)?;
        for batch in ledger.decided() {
            overlay.apply(plan.used.end, &batch);
        }
        let (in_doubt, progress) = (ledger.in_doubt(), ledger.progress());
        Ok(Read { plan, overlay, in_doubt, progress, misread })
    }

    /// Counts everything.
    pub fn summary(&self, read: &Read) -> Result<Summary, NodeError> {
        Ok(self.directory.summary(&read.overlay, read.plan.extent.clone())?)
    }
}

fn owner(whose: &Whose) -> Owner {
    let Some(kind) = whose.kind() else { return Owner::default() };
    let layout = match kind.role {
        Role::Coordinator => Layout::Log,
        Role::Replica => Layout::Store,
    };
    let installs: Option<fn(&ReplayedRecord) -> Option<u64>> = match kind.protocol {
        Protocol::Paxos => Some(|record| paxos_installs(record.kind, &record.payload)),
        Protocol::TwoPhase => Some(|record| two_phase_installs(record.kind, &record.payload)),
        Protocol::AnyReplica => None,
    };
    Owner { layout: Some(layout), installs, ..NODE }
}

/// A directory without an identity: an embedded store's, or a node's that lost the file.
fn whose_without_identity(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<Whose, NodeError> {
    let names = vfs.list(dir).map_err(Error::io("list", dir))?;
    if !names.iter().any(|name| name == LOCK || name == NEW_FILE) {
        return Ok(Whose::Nobody);
    }
    let what = "is missing".to_owned();
    Ok(Whose::Lost { kind: guess_kind(vfs, dir)?, what })
}

/// A coordinator keeps its log in the directory itself, a replica has a store. How its cluster
/// replicates the first record says that can be read.
fn guess_kind(vfs: &Arc<dyn Vfs>, dir: &Path) -> Result<NodeKind, NodeError> {
    let directory = Directory::open(Arc::clone(vfs), dir, NODE)?;
    let role = match directory.layout() {
        Layout::Store => Role::Replica,
        Layout::Log => Role::Coordinator,
    };
    let mut protocol = Protocol::TwoPhase;
    let mut survey = directory.log()?;
    while let Some(item) = survey.next()? {
        if let LogItem::Record(record) = item {
            protocol = protocol_of(record.kind);
            break;
        }
    }
    Ok(NodeKind { protocol, role })
}
