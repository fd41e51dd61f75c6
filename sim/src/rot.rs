//! Bit rot: a bit of a durable file turns over while nobody looks.

use std::path::{Path, PathBuf};

use kvorum_storage::vfs::{MemoryVfs, OpenMode, Vfs};

use crate::chance::Chance;
use crate::faults::Fault;

/// Where a bit is wrong.
#[derive(Clone, Debug)]
pub(crate) struct Rot {
    pub(crate) fault: Fault,
    pub(crate) path: PathBuf,
    offset: u64,
    mask: u8,
    /// The whole file with it, so that another file that takes its name is not taken for it.
    content: Vec<u8>,
}

impl Rot {
    /// Turns a bit over in a file of the kind that the fault names, if the disk has one.
    pub(crate) fn strike(memory: &MemoryVfs, fault: Fault, number: u64) -> Option<Self> {
        let mut chance = Chance::new(number, "rot");
        let files = candidates(memory, fault);
        let path = files.get(chance.index(files.len().max(1)))?.clone();
        let length = read(memory, &path)?.len();
        if length == 0 {
            return None;
        }
        let offset = chance.below(length as u64);
        let mask = 1 << chance.below(8);
        memory.flip(&path, offset, mask).ok()?;
        let content = read(memory, &path)?;
        Some(Self { fault, path, offset, mask, content })
    }

    /// Whether the file is there still, as it was then.
    pub(crate) fn is_there(&self, memory: &MemoryVfs) -> bool {
        read(memory, &self.path).is_some_and(|content| content == self.content)
    }

    /// Puts the bit right, as an operator does who has a copy.
    pub(crate) fn repair(&self, memory: &MemoryVfs) {
        if self.is_there(memory) {
            // It was there just now.
            let _ = memory.flip(&self.path, self.offset, self.mask);
        }
    }

    pub(crate) fn file_name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// Files that are durable and at rest. The last log file is not: damage to its end can't be told
/// from a torn write, as the log's page says.
fn candidates(memory: &MemoryVfs, fault: Fault) -> Vec<PathBuf> {
    let mut files = memory.files();
    files.retain(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match fault {
            Fault::SegmentRot => name.ends_with(".segment"),
            Fault::LogRot => name.ends_with(".log"),
            _ => ["MANIFEST", "IDENTITY"].contains(&name),
        }
    });
    if fault == Fault::LogRot {
        files.pop();
    }
    files
}

fn read(memory: &MemoryVfs, path: &Path) -> Option<Vec<u8>> {
    let file = memory.open(path, OpenMode::Read).ok()?;
    let mut content = vec![0; usize::try_from(file.len().ok()?).ok()?];
    let read = file.read_at(&mut content, 0).ok()?;
    content.truncate(read);
    Some(content)
}
