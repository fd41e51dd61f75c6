//! The faults a run can inject, and how often each has really happened.

use std::fmt;

use crate::planted::Place;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident => $words:literal,)*) => {
        /// A kind of fault. It counts only when it struck: a lost message was sent, a torn write was
        /// not synced yet, a failed sync was asked for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What it is called in reports.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)*
                }
            }
        }
    };
}

faults! {
    /// A message between nodes was dropped, its link staying up.
    MessageLost => "message lost",
    /// A message between nodes arrived twice.
    MessageRepeated => "message repeated",
    /// A message arrived after one that was sent after it over the same link.
    MessageReordered => "message reordered",
    /// A message took far longer than the others.
    MessageDelayed => "message delayed",
    /// A message took long because the link between two nodes was slow for a while.
    SlowLink => "message over a slow link",
    /// A link broke and was made anew; what was under way is lost.
    LinkReset => "link reset",
    /// A link broke again and again, soon after it was made.
    FlappingLink => "flapping link broke",
    /// A link broke and was made anew, and one end noticed only the new one.
    BreakUnnoticed => "broken link unnoticed",
    /// A node, or several, could reach nobody outside and be reached by nobody.
    Partition => "partition",
    /// One node could not reach another, but be reached by it.
    OneWayPartition => "one-way partition",
    /// A message ran into a partition.
    MessageCut => "message cut off",
    /// A client's request, or the answer to it, was lost.
    RequestLost => "request or answer lost",
    /// A client's request arrived twice.
    RequestRepeated => "request repeated",
    /// A process was killed; its disk is as it was.
    Kill => "process killed",
    /// A machine lost power; nothing unsynced is left.
    PowerLoss => "power loss, unsynced data lost",
    /// A machine lost power while unsynced data was on its way to the disk.
    TornWrites => "power loss, unsynced data torn",
    /// All machines lost power at once.
    PowerLossAll => "power loss everywhere",
    /// A process died again, soon after it had started.
    RestartStorm => "died in a restart storm",
    /// A process died at a named point of the protocol.
    DiedAtPoint => "died at a fail point",
    /// A process stood still at a named point of the protocol.
    PausedAtPoint => "paused at a fail point",
    /// A node was cut off at a named point of the protocol.
    IsolatedAtPoint => "cut off at a fail point",
    /// A process died in the middle of an operation on its disk.
    DiedWriting => "died in a disk operation",
    /// A process died after it had said some of what it had to say, and not the rest.
    DiedSpeaking => "died between two messages",
    /// A process died in the middle of a flush, a cut of the log or a compaction, or right after it.
    DiedMaintaining => "died while flushing or compacting",
    /// A process died while it was reading its log after a start.
    DiedRecovering => "died while recovering",
    /// A process stood still.
    Pause => "process paused",
    /// A write failed.
    WriteFailed => "write failed",
    /// A write put down a part of its bytes and failed.
    WriteShort => "write cut short",
    /// A sync failed; what it should have made durable may be gone for good.
    SyncFailed => "sync failed",
    /// There was no room on the disk for a new file, for space asked for ahead, or for a file that
    /// was to grow.
    DiskFull => "disk full",
    /// A sync of a file or a directory found that there was no room for what it was to bring there.
    SyncFull => "disk full at a sync",
    /// A read, or the mapping of a file, failed.
    ReadFailed => "read failed",
    /// A bit of a segment turned over.
    SegmentRot => "bit rot in a segment",
    /// A bit of a log file that is full turned over.
    LogRot => "bit rot in the log",
    /// A bit of the manifest, or of the file that says whose the directory is, turned over.
    ManifestRot => "bit rot in manifest or identity",
    /// A timer of a process fired whose clock runs much too fast or too slow.
    ClockSkew => "timer on a skewed clock",
    /// A process' clock jumped forward, by up to an hour.
    ClockForward => "clock jumped forward",
    /// A process' clock jumped back, by up to an hour.
    ClockBack => "clock jumped back",
    /// Syncs took very long.
    SlowDisk => "slow disk",
    /// The process that led was killed.
    LeaderKilled => "leader killed",
    /// The node that led could reach nobody and be reached by nobody.
    LeaderIsolated => "leader cut off",
    /// The node that led could reach nobody, or be reached by nobody.
    LeaderHalfIsolated => "leader cut off one way",
    /// A node was away for so long that the others' logs do not reach back to it.
    LongAbsence => "node away for long",
    /// A process stood still for so long that the others went on without it.
    LongPause => "process paused for long",
    /// A replica and the coordinator could not reach each other for long; others could reach both.
    CutFromCoordinator => "cut off from the coordinator for long",
    /// A process died while it was taking over a snapshot.
    DiedOverSnapshot => "died over a snapshot",
    /// A node lost its disk, and came back as somebody else.
    DiskLost => "disk lost",
    /// Other members were asked for.
    MembersChanged => "other members asked for",
    /// A role of a node stopped by itself, and came back.
    RoleStopped => "role stopped",
    /// An acceptor forgot what it had promised and accepted.
    AcceptorForgot => "acceptor forgot",
}

/// Those that only strike where any node may lead, and acceptors vote.
const OF_PAXOS: &[Fault] = &[
    Fault::LeaderKilled,
    Fault::LeaderIsolated,
    Fault::LeaderHalfIsolated,
    Fault::DiedOverSnapshot,
    Fault::RoleStopped,
    Fault::AcceptorForgot,
];

/// Those that only strike where a node can get what it has lost or missed from the others.
const OF_COPIES: &[Fault] = &[Fault::DiskLost, Fault::LongAbsence, Fault::MembersChanged];

/// Those that only strike where a coordinator goes on without a replica.
const OF_VIEWS: &[Fault] = &[Fault::LongPause, Fault::CutFromCoordinator];

impl Fault {
    /// Whether it can strike there.
    #[must_use]
    pub fn strikes(self, place: Place) -> bool {
        match place {
            Place::Paxos => !OF_VIEWS.contains(&self),
            Place::TwoPhase => !OF_PAXOS.contains(&self),
            Place::AnyReplica | Place::Engine => {
                ![OF_PAXOS, OF_COPIES, OF_VIEWS].concat().contains(&self)
            }
        }
    }
}

/// How often each fault has struck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts([u64; Fault::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self([0; Fault::ALL.len()])
    }
}

impl Counts {
    /// How often this fault has struck.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// Those that never did, of those that can strike there.
    #[must_use]
    pub fn never(&self, place: Place) -> Vec<Fault> {
        let can = Fault::ALL.iter().copied().filter(|fault| fault.strikes(place));
        can.filter(|fault| self.of(*fault) == 0).collect()
    }

    /// Adds another run's.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            *mine += theirs;
        }
    }

    pub(crate) fn count(&mut self, fault: Fault) {
        self.add_many(fault, 1);
    }

    pub(crate) fn add_many(&mut self, fault: Fault, times: u64) {
        self.0[fault as usize] += times;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in Fault::ALL {
            writeln!(f, "{:>10}  {}", self.of(*fault), fault.name())?;
        }
        Ok(())
    }
}
