//! What a thread that waits may do for all.
//!
//! A thread whose record has not come far enough asks for its [`Turn`]. It is to lead if there is
//! something to do that nobody does yet, and to wait otherwise:
//!
//! | there is | turn | at once |
//! |---|---|---|
//! | a flight that the disk had refused | writes it again, in its place | nothing else |
//! | no room in the file | makes the next file | nothing else |
//! | a record that waits, to be synced | writes all that waits, directly | two, syncs included |
//! | the same, where that cannot be done | writes all that waits, in the cache | one |
//! | a record that waits, not to be synced | writes all that waits: in the cache; directly beside another direct write, or if it is much | one |
//! | a record that is written, to be synced | syncs | two; one if anything is in the cache |
//!
//! Three rules are behind it. Writes in the cache and direct ones never go to one file at the same
//! time: a page of the cache could hold what a direct write has just replaced. Of syncs that write
//! the cache back there is one at a time: when it fails, the system tells only one of those who
//! wait. And no write that asked for no sync waits for one, but for that of a file that is full.

use std::sync::Arc;

use super::frame::Group;
use super::maker::OpenFile;
use super::state::End;

/// What is being done.
#[derive(Debug, Default)]
pub(super) struct Busy {
    /// Direct writes of what is to be synced next.
    pub(super) direct: usize,
    /// A direct write of what is not.
    pub(super) bulk: bool,
    pub(super) cached: bool,
    pub(super) syncs: usize,
    pub(super) zeros: bool,
    pub(super) changing: bool,
}

impl Busy {
    /// Whether anything is being written.
    pub(super) fn writes(&self) -> bool {
        self.direct > 0 || self.bulk || self.cached
    }
}

/// How frames are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Past the system's cache, to be synced next.
    Direct,
    /// Past the system's cache, and no more.
    Bulk,
    Cached,
}

/// What a thread is to do.
#[derive(Debug)]
pub(super) enum Turn {
    Write(Load),
    Sync(Sync),
    Change(Change),
}

/// Frames to be written.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) flight: u64,
    pub(super) file: Arc<OpenFile>,
    pub(super) offset: u64,
    pub(super) groups: Vec<Group>,
    pub(super) durable_before: u64,
    pub(super) way: Way,
    /// Nothing stands behind it yet.
    pub(super) is_last: bool,
    /// Then the system is to begin writing back from here to its own offset.
    pub(super) write_back: Option<u64>,
}

/// A sync to be made.
#[derive(Debug)]
pub(super) struct Sync {
    pub(super) landing: u64,
    pub(super) file: Arc<OpenFile>,
}

/// A file that is full.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) full: End,
    /// Something in it has not been synced.
    pub(super) unsynced: bool,
    /// The last position in it.
    pub(super) last: u64,
    /// The size of the first frame of the next.
    pub(super) frame_bytes: u64,
}

/// A piece of the last file to be filled with zeros.
#[derive(Debug)]
pub(super) struct Zeros {
    pub(super) file: Arc<OpenFile>,
    pub(super) from: u64,
}
