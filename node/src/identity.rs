//! Whose a data directory is: which node of which cluster, and who else belongs to it.
//!
//! A disk that turns up under another node must not vote with that node's promises, and a node of
//! another cluster must not be listened to. So the first start writes an identity file, and every
//! later one compares.
//!
//! ```text
//!  "kvorumid"
//!  format: u32
//!  role: u8         0 coordinator, 1 replica
//!  node: u32
//!  protocol: u8     0 two-phase commit, 1 the same through any replica, 2 Multi-Paxos
//!  life: u64
//!  window: u64
//!  cluster: slice   16 bytes or none
//!  members: u32     so many of: node: u32, address: slice
//!  joined: u32      so many of: node: u32, life: u64
//!  checksum: u32    CRC-32C of all before it
//! ```
//!
//! Integers are little-endian; a slice begins with its length as a varint. This is format 2. Format 1
//! has no protocol, no lives and no window: it knew two-phase commit with a coordinator only. It is
//! read, and replaced when something changes.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvorum_replication::{NodeId, Protocol, Role};
use kvorum_storage::Error;
use kvorum_storage::codec::{Malformed, Reader, put_slice, put_u32, put_u64};
use kvorum_storage::vfs::{OpenMode, Vfs, VfsLock};

use crate::error::NodeError;

pub(crate) const FILE: &str = "IDENTITY";
pub(crate) const NEW_FILE: &str = "IDENTITY.new";
pub(crate) const LOCK: &str = "LOCK";
const MAGIC: &[u8; 8] = b"kvorumid";
const FORMAT_VERSION: u32 = 2;
const FORMAT_VERSION_MIN: u32 = 1;
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Members, and replicas that ever joined.
pub const JOINED_MAX: usize = 1024;
const ADDRESS_BYTES_MAX: usize = 1024;

/// Names a cluster: 16 random bytes, made by its coordinator at its first start.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub [u8; 16]);

impl ClusterId {
    /// A new name.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a process says it is when it is started on a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// How its cluster replicates.
    pub protocol: Protocol,
    /// What it does.
    pub role: Role,
    /// Its number.
    pub node: NodeId,
    /// Under Multi-Paxos, how many slots may be open: all replicas must agree on it, for ever. Zero
    /// under other protocols.
    pub window: u64,
    /// If nobody has ever started on the directory, the life that it begins there. Zero for a member
    /// that never lost anything. One that has, and comes back, and one that comes to a cluster that has
    /// data, takes a number that it never had, and a greater one: the milliseconds since 1970. A
    /// directory with an identity keeps the life that it has.
    pub life: u64,
}

impl Claim {
    /// A node of a two-phase commit cluster with a coordinator.
    #[must_use]
    pub fn two_phase(role: Role, node: NodeId) -> Self {
        Self { protocol: Protocol::TwoPhase, role, node, window: 0, life: 0 }
    }

    /// A replica of a two-phase commit cluster without a coordinator process.
    #[must_use]
    pub fn any_replica(node: NodeId) -> Self {
        Self { protocol: Protocol::AnyReplica, role: Role::Replica, node, window: 0, life: 0 }
    }

    /// A replica of a Multi-Paxos cluster that has lost nothing.
    #[must_use]
    pub fn paxos(node: NodeId, window: u64) -> Self {
        Self { protocol: Protocol::Paxos, role: Role::Replica, node, window, life: 0 }
    }
}

/// Who a node is, and whom it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// How its cluster replicates.
    pub protocol: Protocol,
    /// What it does.
    pub role: Role,
    /// Its number.
    pub node: NodeId,
    /// Which of its lives began on this directory; see [`Claim::life`].
    pub life: u64,
    /// See [`Claim::window`].
    pub window: u64,
    /// Its cluster; a replica has none until a coordinator has attached to it.
    pub cluster: Option<ClusterId>,
    /// Every node of the cluster with its address, as the coordinator last said.
    pub members: Vec<(NodeId, String)>,
    /// The replicas that are known to have joined the cluster, each with the life it came with last;
    /// under two-phase commit its coordinator knows. One of them that turns up without a cluster, and
    /// not in a later life, has lost its disk. A node that is among its own is known to the cluster.
    /// Those that were removed stay here: their numbers are nobody's.
    pub joined: Vec<(NodeId, u64)>,
}

impl Identity {
    fn new(claim: &Claim) -> Self {
        Self {
            protocol: claim.protocol,
            role: claim.role,
            node: claim.node,
            life: claim.life,
            window: claim.window,
            cluster: None,
            members: Vec::new(),
            joined: Vec::new(),
        }
    }

    /// In which life a node has joined last; `None` if it has not.
    #[must_use]
    pub fn joined_in(&self, node: NodeId) -> Option<u64> {
        self.joined.iter().find(|(joined, _)| *joined == node).map(|(_, life)| *life)
    }

    /// A life never goes back.
    fn join(&mut self, node: NodeId, life: u64) {
        match self.joined.binary_search_by_key(&node, |(joined, _)| *joined) {
            Ok(place) => {
                let (_, known) = &mut self.joined[place];
                *known = life.max(*known);
            }
            Err(place) => self.joined.insert(place, (node, life)),
        }
    }

    /// Says whether this is who the process says it is.
    fn check(&self, dir: &Path, claim: &Claim) -> Result<(), NodeError> {
        let dir = || dir.to_owned();
        if (self.role, self.node) != (claim.role, claim.node) {
            return Err(NodeError::WrongIdentity {
                dir: dir(),
                found_role: self.role,
                found_node: self.node,
                role: claim.role,
                node: claim.node,
            });
        }
        if self.protocol != claim.protocol {
            let (found, asked) = (self.protocol, claim.protocol);
            return Err(NodeError::WrongProtocol { dir: dir(), found, asked });
        }
        if self.window != claim.window {
            let (found, asked) = (self.window, claim.window);
            return Err(NodeError::WrongWindow { dir: dir(), found, asked });
        }
        Ok(())
    }
}

/// The identity of a data directory, locked for this process as long as this lives.
pub struct IdentityFile {
    vfs: Arc<dyn Vfs>,
    dir: PathBuf,
    current: Mutex<Identity>,
    _lock: Box<dyn VfsLock>,
}

impl fmt::Debug for IdentityFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentityFile").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl IdentityFile {
    /// Locks the directory, making it if need be, and reads whose it is, or makes it this node's.
    pub fn open(vfs: Arc<dyn Vfs>, dir: &Path, claim: &Claim) -> Result<Self, NodeError> {
        vfs.create_dir_all(dir).map_err(Error::io("make the directory", dir))?;
        let lock_path = dir.join(LOCK);
        let lock = vfs.lock(&lock_path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => Error::Locked { path: lock_path.clone() },
            _ => Error::io("lock", &lock_path)(error),
        })?;
        let found = read(vfs.as_ref(), &dir.join(FILE))?;
        check_data(vfs.as_ref(), dir, claim.role, found.as_ref())?;
        let fresh = found.is_none();
        let current = found.unwrap_or_else(|| Identity::new(claim));
        current.check(dir, claim)?;
        if fresh && claim.life != 0 && !can_rejoin(claim) {
            return Err(NodeError::CannotRejoin { node: claim.node, protocol: claim.protocol });
        }
        let file = Self { vfs, dir: dir.to_owned(), current: Mutex::new(current), _lock: lock };
        if fresh {
            file.write(&file.lock())?;
        }
        Ok(file)
    }

    /// An identity that lasts as long as this, for tests of what stands above a node.
    pub fn in_memory(claim: &Claim) -> Result<Self, NodeError> {
        let disk = kvorum_storage::vfs::MemoryVfs::new();
        Self::open(Arc::new(disk), Path::new("memory"), claim)
    }

    /// Who this node is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.lock().clone()
    }

    /// Joins a cluster, durably, or fails if this node already belongs to another.
    pub fn adopt_cluster(&self, cluster: ClusterId) -> Result<(), NodeError> {
        self.change(|identity| match identity.cluster {
            None => {
                identity.cluster = Some(cluster);
                Ok(())
            }
            Some(found) if found == cluster => Ok(()),
            Some(found) => Err(NodeError::WrongCluster {
                dir: self.dir.clone(),
                found: found.to_string(),
                asked: cluster.to_string(),
            }),
        })
    }

    /// Remembers, durably, who belongs to the cluster.
    pub fn set_members(&self, members: Vec<(NodeId, String)>) -> Result<(), NodeError> {
        self.change(|identity| {
            identity.members = members;
            Ok(())
        })
    }

    /// Remembers, durably, that a replica belongs to the cluster from now on, in this life.
    pub fn mark_joined(&self, node: NodeId, life: u64) -> Result<(), NodeError> {
        self.change(|identity| {
            identity.join(node, life);
            Ok(())
        })
    }

    /// Remembers, durably, a replica that comes to a cluster that has data, and where it is. It counts
    /// as having joined in a life before its first: empty, it has to say that it begins a new one.
    pub fn add_member(&self, node: NodeId, address: &str) -> Result<(), NodeError> {
        self.change(|identity| {
            identity.members.retain(|(member, _)| *member != node);
            identity.members.push((node, address.to_owned()));
            identity.members.sort_unstable();
            identity.join(node, 0);
            Ok(())
        })
    }

    /// Remembers, durably, that a replica belongs to the cluster no more, and that it did.
    pub fn remove_member(&self, node: NodeId) -> Result<(), NodeError> {
        self.change(|identity| {
            identity.members.retain(|(member, _)| *member != node);
            identity.join(node, 0);
            Ok(())
        })
    }

    /// Forgets, durably, all of a replica that was to be added and was not: it is as it was before.
    pub fn restore_member(&self, node: NodeId, before: &Identity) -> Result<(), NodeError> {
        self.change(|identity| {
            identity.members.retain(|(member, _)| *member != node);
            identity.members.extend(before.members.iter().find(|(id, _)| *id == node).cloned());
            identity.members.sort_unstable();
            if before.joined_in(node).is_none() {
                identity.joined.retain(|(joined, _)| *joined != node);
            }
            Ok(())
        })
    }

    fn change(
        &self,
        edit: impl FnOnce(&mut Identity) -> Result<(), NodeError>,
    ) -> Result<(), NodeError> {
        let mut current = self.lock();
        let mut changed = current.clone();
        edit(&mut changed)?;
        if changed != *current {
            self.write(&changed)?;
            *current = changed;
        }
        Ok(())
    }

    /// Replaces the file: a crash leaves the old one or the new one.
    fn write(&self, identity: &Identity) -> Result<(), NodeError> {
        let (path, new_path) = (self.dir.join(FILE), self.dir.join(NEW_FILE));
        match self.vfs.remove(&new_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &new_path)(error).into());
            }
            _ => {}
        }
        let file =
            self.vfs.open(&new_path, OpenMode::Create).map_err(Error::io("create", &new_path))?;
        file.write_at(&encode(identity), 0).map_err(Error::io("write", &new_path))?;
        file.sync().map_err(Error::io("sync", &new_path))?;
        self.vfs.rename(&new_path, &path).map_err(Error::io("rename", &new_path))?;
        self.vfs.sync_dir(&self.dir).map_err(Error::io("sync the directory", &self.dir))?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Identity> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether it can be filled by others before it takes part. A coordinator's log is the only one, and
/// where whichever replica is asked coordinates, that replica's is.
fn can_rejoin(claim: &Claim) -> bool {
    match (claim.protocol, claim.role) {
        (Protocol::Paxos, _) | (Protocol::TwoPhase, Role::Replica) => true,
        (Protocol::TwoPhase, Role::Coordinator) | (Protocol::AnyReplica, _) => false,
    }
}

/// The identity is written before there is any data, and nobody joins a cluster before there is a
/// log. So neither is ever there without the other, unless somebody removed it.
fn check_data(
    vfs: &dyn Vfs,
    dir: &Path,
    role: Role,
    identity: Option<&Identity>,
) -> Result<(), NodeError> {
    let names = vfs.list(dir).map_err(Error::io("list", dir))?;
    let is_log = |name: &str| name.ends_with(".log");
    let is_store = |name: &str| ["MANIFEST", "log", "segments"].contains(&name);
    let has_data = names.iter().any(|name| is_log(name) || is_store(name));
    let file = match identity {
        None if has_data => dir.join(FILE),
        Some(Identity { cluster: Some(_), .. }) if !has_data => match role {
            Role::Coordinator => dir.join("*.log"),
            Role::Replica => dir.join("log"),
        },
        _ => return Ok(()),
    };
    Err(Error::Missing { file }.into())
}

/// Who the node of a directory is, without locking it; `None` if no node has ever started there.
pub fn read_identity(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Identity>, NodeError> {
    read(vfs, &dir.join(FILE))
}

fn read(vfs: &dyn Vfs, path: &Path) -> Result<Option<Identity>, NodeError> {
    let file = match vfs.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path)(error).into()),
    };
    let len = file.len().map_err(Error::io("read", path))?;
    if len > FILE_BYTES_MAX {
        return Err(Error::corrupt(path, 0, "an identity file of more than a mebibyte").into());
    }
    let mut bytes = vec![0; usize::try_from(len).expect("a mebibyte fits")];
    let read = file.read_at(&mut bytes, 0).map_err(Error::io("read", path))?;
    bytes.truncate(read);
    decode(&bytes).map(Some).map_err(|malformed| Error::corrupt(path, 0, malformed.0).into())
}

fn encode(identity: &Identity) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    put_u32(&mut bytes, FORMAT_VERSION);
    bytes.push(match identity.role {
        Role::Coordinator => 0,
        Role::Replica => 1,
    });
    put_u32(&mut bytes, identity.node.0);
    bytes.push(match identity.protocol {
        Protocol::TwoPhase => 0,
        Protocol::AnyReplica => 1,
        Protocol::Paxos => 2,
    });
    put_u64(&mut bytes, identity.life);
    put_u64(&mut bytes, identity.window);
    put_slice(&mut bytes, identity.cluster.as_ref().map_or(&[][..], |cluster| &cluster.0));
    put_u32(&mut bytes, u32::try_from(identity.members.len()).unwrap_or(u32::MAX));
    for (node, address) in &identity.members {
        put_u32(&mut bytes, node.0);
        put_slice(&mut bytes, address.as_bytes());
    }
    put_u32(&mut bytes, u32::try_from(identity.joined.len()).unwrap_or(u32::MAX));
    for (node, life) in &identity.joined {
        put_u32(&mut bytes, node.0);
        put_u64(&mut bytes, *life);
    }
    let checksum = crc32c::crc32c(&bytes);
    put_u32(&mut bytes, checksum);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Identity, Malformed> {
    let (body, checksum) =
        bytes.split_last_chunk::<4>().ok_or(Malformed("an identity file without a checksum"))?;
    if crc32c::crc32c(body) != u32::from_le_bytes(*checksum) {
        return Err(Malformed("the identity's checksum does not match"));
    }
    let mut reader = Reader::new(body);
    if reader.array()? != *MAGIC {
        return Err(Malformed("not an identity file"));
    }
    let format = reader.u32()?;
    if !(FORMAT_VERSION_MIN..=FORMAT_VERSION).contains(&format) {
        return Err(Malformed("a data directory of another version of Kvorum"));
    }
    let role = match reader.u8()? {
        0 => Role::Coordinator,
        1 => Role::Replica,
        _ => return Err(Malformed("an unknown role")),
    };
    let node = NodeId(reader.u32()?);
    let (protocol, life, window) = match format {
        1 => (Protocol::TwoPhase, 0, 0),
        _ => (protocol(&mut reader)?, reader.u64()?, reader.u64()?),
    };
    let cluster = match reader.slice(16)? {
        [] => None,
        id => Some(ClusterId(id.try_into().map_err(|_| Malformed("a cut cluster id"))?)),
    };
    let members = list(&mut reader, member)?;
    let joined = list(&mut reader, |reader| {
        let node = NodeId(reader.u32()?);
        Ok((node, if format == 1 { 0 } else { reader.u64()? }))
    })?;
    reader.finish()?;
    Ok(Identity { protocol, role, node, life, window, cluster, members, joined })
}

fn protocol(reader: &mut Reader<'_>) -> Result<Protocol, Malformed> {
    match reader.u8()? {
        0 => Ok(Protocol::TwoPhase),
        1 => Ok(Protocol::AnyReplica),
        2 => Ok(Protocol::Paxos),
        _ => Err(Malformed("an unknown protocol")),
    }
}

fn list<'a, T>(
    reader: &mut Reader<'a>,
    item: impl Fn(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = reader.u32()? as usize;
    if count > JOINED_MAX {
        return Err(Malformed("more members than a cluster has"));
    }
    (0..count).map(|_| item(reader)).collect()
}

fn member(reader: &mut Reader<'_>) -> Result<(NodeId, String), Malformed> {
    let node = NodeId(reader.u32()?);
    let address = str::from_utf8(reader.slice(ADDRESS_BYTES_MAX)?);
    Ok((node, address.map_err(|_| Malformed("an address that is no text"))?.to_owned()))
}
