//! The files of a directory, in memory.

use std::path::{Path, PathBuf};

use kvorum_storage::vfs::{MemoryVfs, OpenMode, Vfs as _};

/// Names, relative to the directory, and contents.
#[derive(Clone, Debug, Default)]
pub(super) struct Archive {
    pub(super) files: Vec<(PathBuf, Vec<u8>)>,
}

impl Archive {
    /// Of what is in a directory of this disk, but for what locks it.
    pub(super) fn of(disk: &MemoryVfs, dir: &Path) -> std::io::Result<Self> {
        let mut files = Vec::new();
        for path in disk.files() {
            let Ok(name) = path.strip_prefix(dir) else { continue };
            if name.extension().is_none_or(|end| end != "lock") {
                let bytes = disk.open(&path, OpenMode::Read)?.map()?.to_vec();
                files.push((name.to_path_buf(), bytes));
            }
        }
        Ok(Self { files })
    }

    /// A disk with these files, durably.
    pub(super) fn disk(&self, dir: &Path) -> std::io::Result<MemoryVfs> {
        let disk = MemoryVfs::new();
        for sub in ["log", "segments"] {
            disk.create_dir_all(&dir.join(sub))?;
        }
        for (name, bytes) in &self.files {
            let path = dir.join(name);
            disk.create_dir_all(path.parent().unwrap_or(dir))?;
            if disk.open(&path, OpenMode::Read).is_ok() {
                continue;
            }
            let file = disk.open(&path, OpenMode::Create)?;
            file.write_at(bytes, 0)?;
            file.sync()?;
        }
        for sub in [dir.to_path_buf(), dir.join("log"), dir.join("segments")] {
            disk.sync_dir(&sub)?;
        }
        Ok(disk)
    }
}
