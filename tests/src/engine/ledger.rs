//! What was begun, acknowledged and durable of each group. It outlives the process that writes it: a
//! killed process leaves what it wrote to a file to the operating system.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use kvorum_storage::Position;

use super::model::Found;

/// A group's line in the file: four numbers of four bytes.
const LINE_BYTES: u64 = 16;

/// The versions of all groups.
pub(crate) struct Ledger {
    groups: Vec<Group>,
    file: Option<File>,
    /// What was acknowledged since the store was opened, and where in the log it stands.
    acknowledged: Option<Mutex<Vec<Acknowledged>>>,
}

/// A write that was answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acknowledged {
    pub(crate) position: Position,
    pub(crate) group: u32,
    pub(crate) version: u32,
}

#[derive(Default)]
struct Group {
    /// The greatest version that ever was. None is used twice, so that what comes back is noticed.
    last: AtomicU32,
    /// The greatest that may be seen.
    begun: AtomicU32,
    /// The least that may be seen.
    acknowledged: AtomicU32,
    /// The least that may be seen after a power cut.
    durable: AtomicU32,
}

impl Ledger {
    /// In memory, for a disk in memory: with positions.
    pub(crate) fn in_memory(groups: u32) -> Self {
        let groups = (0..groups).map(|_| Group::default()).collect();
        Self { groups, file: None, acknowledged: Some(Mutex::default()) }
    }

    /// In a file.
    pub(crate) fn open(path: &Path, groups: u32) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(u64::from(groups) * LINE_BYTES)?;
        let mut read = Vec::new();
        for group in 0..groups {
            let mut line = [0; LINE_BYTES as usize];
            file.read_exact_at(&mut line, u64::from(group) * LINE_BYTES)?;
            let number = |index: usize| {
                let bytes = [0, 1, 2, 3].map(|byte| line[index * 4 + byte]);
                AtomicU32::new(u32::from_le_bytes(bytes))
            };
            read.push(Group {
                last: number(0),
                begun: number(1),
                acknowledged: number(2),
                durable: number(3),
            });
        }
        Ok(Self { groups: read, file: Some(file), acknowledged: None })
    }

    /// The next version of a group begins. Each group has one writer.
    pub(crate) fn begin(&self, group: u32) -> io::Result<u32> {
        let entry = &self.groups[group as usize];
        let version = entry.last.load(SeqCst) + 1;
        entry.last.store(version, SeqCst);
        entry.begun.store(version, SeqCst);
        self.save(group, 0, &[version, version])?;
        Ok(version)
    }

    /// A version that was begun will never be seen, nor was it.
    pub(crate) fn give_up(&self, group: u32, version: u32) -> io::Result<()> {
        let entry = &self.groups[group as usize];
        let acknowledged = entry.acknowledged.load(SeqCst);
        if entry.begun.load(SeqCst) == version {
            entry.begun.store(acknowledged, SeqCst);
            self.save(group, 1, &[acknowledged])?;
        }
        Ok(())
    }

    /// A version was answered for, and stands in the log at this position, if it went there.
    pub(crate) fn acknowledge(
        &self,
        group: u32,
        version: u32,
        position: Option<Position>,
        durable: bool,
    ) -> io::Result<()> {
        let entry = &self.groups[group as usize];
        entry.acknowledged.store(version, SeqCst);
        if durable {
            entry.durable.store(version, SeqCst);
        }
        if let (Some(acknowledged), Some(position)) = (&self.acknowledged, position) {
            let mut acknowledged = acknowledged.lock().expect("nobody panics while he holds it");
            acknowledged.push(Acknowledged { position, group, version });
        }
        let durable = entry.durable.load(SeqCst);
        self.save(group, 2, &[version, durable])
    }

    fn save(&self, group: u32, at: u64, numbers: &[u32]) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        file.write_all_at(&bytes, u64::from(group) * LINE_BYTES + at * 4)
    }

    /// The least version of a group that a read may see which begins now.
    pub(crate) fn acknowledged(&self, group: u32) -> u32 {
        self.groups[group as usize].acknowledged.load(SeqCst)
    }

    /// The greatest version of a group that a read may have seen which ends now.
    pub(crate) fn begun(&self, group: u32) -> u32 {
        self.groups[group as usize].begun.load(SeqCst)
    }

    /// What may be found when the process was killed.
    pub(crate) fn after_kill(&self, group: u32) -> RangeInclusive<u32> {
        self.acknowledged(group)..=self.begun(group)
    }

    /// The least versions that a power cut leaves which comes now.
    pub(crate) fn durable(&self) -> Vec<u32> {
        self.groups.iter().map(|group| group.durable.load(SeqCst)).collect()
    }

    /// The greatest versions that a power cut can leave which came before.
    pub(crate) fn all_begun(&self) -> Vec<u32> {
        self.groups.iter().map(|group| group.begun.load(SeqCst)).collect()
    }

    /// What was acknowledged since the last call.
    pub(crate) fn take_acknowledged(&self) -> Vec<Acknowledged> {
        let Some(acknowledged) = &self.acknowledged else { return Vec::new() };
        std::mem::take(&mut acknowledged.lock().expect("nobody panics while he holds it"))
    }

    /// What was found after an opening is what there is; what was open before is decided.
    pub(crate) fn settle(&self, group: u32, found: &Found) -> io::Result<()> {
        let entry = &self.groups[group as usize];
        entry.begun.store(*found.end(), SeqCst);
        entry.acknowledged.store(*found.start(), SeqCst);
        entry.durable.store(*found.start(), SeqCst);
        self.save(group, 1, &[*found.end(), *found.start(), *found.start()])
    }
}
