//! What the operating system knows of this process and of a directory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};

/// Anonymous memory has no high-water mark of its own: it is looked at so often.
const SAMPLE: Duration = Duration::from_millis(10);

/// A number from `/proc/self/status` or `/proc/self/io`.
fn field(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.trim_start_matches(':').split_whitespace().next());
    number.and_then(|number| number.parse().ok()).with_context(|| format!("no {name} in {file}"))
}

/// The most memory that this process ever had, mapped files included, in bytes.
pub(crate) fn peak_memory() -> Result<u64> {
    Ok(field("/proc/self/status", "VmHWM")? << 10)
}

fn anonymous_memory() -> Result<u64> {
    Ok(field("/proc/self/status", "RssAnon")? << 10)
}

/// Bytes that this process had the block layer write, or made dirty in the page cache.
pub(crate) fn written() -> Result<u64> {
    field("/proc/self/io", "write_bytes")
}

/// Bytes that a directory's files take up on the disk.
pub(crate) fn disk_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        // A file may go while we look.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        bytes += if meta.is_dir() { disk_bytes(&path)? } else { meta.blocks() * 512 };
    }
    Ok(bytes)
}

/// Watches how much anonymous memory this process has.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    most: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Watch {
    pub(crate) fn start() -> Watch {
        let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (until, highest) = (Arc::clone(&stop), Arc::clone(&most));
        let thread = std::thread::spawn(move || {
            while !until.load(Relaxed) {
                highest.fetch_max(anonymous_memory().unwrap_or(0), Relaxed);
                std::thread::sleep(SAMPLE);
            }
        });
        Watch { stop, most, thread }
    }

    /// The most there was.
    pub(crate) fn stop(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("the watching thread does not panic");
        self.most.load(Relaxed)
    }
}
