//! Bugs on purpose, each a known trap, so that what is to catch them can be seen to catch them.
//!
//! Without the feature `planted-bugs` there are none: a [`Planted`] takes no room, there is only
//! one, and [`Planted::has`] is constantly false, so that a build for use contains none of it.

macro_rules! bugs {
    ($($name:ident => $word:literal, $trap:literal, $rule:literal;)*) => {
        /// A known trap, and the smallest mistake that falls into it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $(#[doc = $trap] $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What flags call it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// The mistake, in a sentence.
            #[must_use]
            pub const fn trap(self) -> &'static str {
                match self {
                    $(Self::$name => $trap,)*
                }
            }

            /// The rule that it breaks.
            #[must_use]
            pub const fn rule(self) -> &'static str {
                match self {
                    $(Self::$name => $rule,)*
                }
            }
        }
    };
}

bugs! {
    SkipSyncOfFullFile => "skip-sync-of-full-file",
        "a log file that is full is not synced before the log goes on in the next one",
        "what sync has answered for is there after any crash";
    SkipLogDirectorySync => "skip-log-directory-sync",
        "the directory is not synced after a log file got its name",
        "files and directories are synced where a crash could lose them";
    RetryFailedSync => "retry-failed-sync",
        "a sync that failed is tried again, and believed when it succeeds",
        "a failed sync poisons the log until it is opened again";
    ReplayRecycledRecords => "replay-recycled-records",
        "frames of a log do not know their file, so that those of a recycled file look alive",
        "a checksum covers the identity of the file";
    TakeTornTail => "take-torn-tail",
        "the payload of a frame is taken without looking at its checksum",
        "a torn write is cut, and never read as data";
    LeaveTornTail => "leave-torn-tail",
        "what is cut off the end of the log is not overwritten, and can come back to life",
        "what is cut is gone, whatever happens next";
    FlushAheadOfLog => "flush-ahead-of-log",
        "a memtable is flushed before the log records that it rests on are durable",
        "a segment never holds what the log could still lose";
    CutLogBeforeFlush => "cut-log-before-flush",
        "the log is cut when a flush begins, not when the manifest names its segment",
        "a record leaves the log only when its writes are in a segment that is durable";
    CutOneTooFar => "cut-one-too-far",
        "the log is cut as if one batch more than is flushed were flushed",
        "a record leaves the log only when its writes are in a segment that is durable";
    SegmentNotSynced => "segment-not-synced",
        "a segment is not synced before the manifest names it",
        "files and directories are synced where a crash could lose them";
    SegmentDirectoryNotSynced => "segment-directory-not-synced",
        "the directory of segments is not synced before the manifest names a new one",
        "files and directories are synced where a crash could lose them";
    ManifestNotSynced => "manifest-not-synced",
        "a manifest is renamed over the old one before it is synced",
        "a crash leaves the old manifest or the new one, never anything between";
    ManifestDirectoryNotSynced => "manifest-directory-not-synced",
        "the directory is not synced after the new manifest was renamed over the old one",
        "files and directories are synced where a crash could lose them";
    DropDeletesEarly => "drop-deletes-early",
        "a delete is dropped although the level below may hold an older value, which comes back",
        "a deleted key does not return";
    CompactNewestFirst => "compact-newest-first",
        "the newest segment of level 0 is moved below older ones that it overlaps",
        "what is higher up in the tree is newer";
    FilterForgetsKey => "filter-forgets-key",
        "a segment's filter denies the last of its keys",
        "a filter never denies what is there";
    TrustBlocks => "trust-blocks",
        "a segment's blocks are read without looking at their checksums",
        "a block is believed only after its checksum was seen right";
    SnapshotSeesLaterWrites => "snapshot-sees-later-writes",
        "a snapshot reads what is visible now, not what was when it was taken",
        "a snapshot is of one moment";
    CompactionForgetsSnapshots => "compaction-forgets-snapshots",
        "a compaction drops versions that a snapshot can still see",
        "a snapshot is of one moment";
}

/// Which bug there is, if any. By default none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    #[cfg(feature = "planted-bugs")]
    bug: Option<Bug>,
}

impl Planted {
    /// This bug and no other.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub const fn of(bug: Bug) -> Self {
        Self { bug: Some(bug) }
    }

    /// Whether it is this one.
    #[cfg(feature = "planted-bugs")]
    #[must_use]
    pub const fn has(self, bug: Bug) -> bool {
        matches!(self.bug, Some(planted) if planted as u8 == bug as u8)
    }

    /// Whether it is this one: this build has none.
    #[cfg(not(feature = "planted-bugs"))]
    #[must_use]
    pub const fn has(self, _: Bug) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(feature = "planted-bugs"))]
    #[test]
    fn there_are_none_unless_asked_for() {
        assert_eq!(size_of::<Planted>(), 0);
        const { assert!(!Planted {}.has(Bug::ALL[0])) };
        assert!(!Bug::ALL.iter().any(|bug| Planted::default().has(*bug)));
    }

    #[cfg(feature = "planted-bugs")]
    #[test]
    fn there_is_the_one_asked_for() {
        for bug in Bug::ALL {
            let found: &[Bug] = &[*bug];
            let has = |planted: Planted| Bug::ALL.iter().filter(move |bug| planted.has(**bug));
            assert!(has(Planted::of(*bug)).eq(found));
            assert_eq!(has(Planted::default()).count(), 0);
        }
    }
}
