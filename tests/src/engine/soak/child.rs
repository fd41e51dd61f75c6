//! The process that is killed.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use kvorum_storage::vfs::{RealVfs, Vfs};
use kvorum_storage::{Compression, Store};

use crate::engine::ledger::Ledger;
use crate::engine::model::Model;
use crate::engine::probe::{Kind, Probes};
use crate::engine::random::hash;
use crate::engine::small_options;
use crate::engine::work::{Counts, Load, Work, check_all};

/// A file with what was done in a life.
pub(super) const COUNTS: &str = "counts";

/// Files that the next life makes anew.
pub(super) const LEFT_BY_A_LIFE: [&str; 3] = [COUNTS, "histogram", "events"];

const WRITERS: u32 = 3;

/// So far below what any disk takes that nobody has to wait for long.
const WRITE_EVERY: Duration = Duration::from_millis(4);

/// What a process says once it is ready.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Opened {
    /// Until the store was open.
    pub(super) open: Duration,
    pub(super) groups: u64,
    /// Writes whose outcome was open when the last process was killed: those that happened, and
    /// those that did not.
    pub(super) happened: u64,
    pub(super) not_happened: u64,
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { open, groups, happened, not_happened } = self;
        write!(f, "ready {} {groups} {happened} {not_happened}", open.as_micros())
    }
}

impl FromStr for Opened {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self> {
        let numbers = line.strip_prefix("ready ").context("it is not ready")?;
        let numbers: Vec<u64> = numbers.split(' ').map(str::parse).collect::<Result<_, _>>()?;
        let [micros, groups, happened, not_happened] = numbers[..] else {
            bail!("not what it should say");
        };
        Ok(Self { open: Duration::from_micros(micros), groups, happened, not_happened })
    }
}

/// Opens the store, compares it with the ledger, says so, and works until it is killed.
///
/// # Errors
/// If anything is not as it must be.
pub fn run(dir: &Path, seed: u64, round: u64, stall: Duration) -> Result<()> {
    let model = Model { groups: 2_400, seed, value_bytes_max: 1 << 20 };
    let vfs: Arc<dyn Vfs> = Arc::new(RealVfs);
    let options = small_options(match round % 2 {
        0 => Compression::None,
        _ => Compression::Lz4,
    });
    let ledger = Arc::new(Ledger::open(&dir.join("ledger"), model.groups)?);
    let began = Instant::now();
    let store = Store::open(Arc::clone(&vfs), &dir.join("store"), options.clone())?;
    let mut opened = Opened { open: began.elapsed(), ..Opened::default() };
    for (group, found) in check_all(&store, &model, |group| ledger.after_kill(group))? {
        opened.groups += 1;
        let open = ledger.after_kill(group);
        if open.start() != open.end() && found.start() == found.end() {
            opened.happened += u64::from(found.end() == open.end());
            opened.not_happened += u64::from(found.end() != open.end());
        }
        ledger.settle(group, &found)?;
    }
    println!("{opened}");

    let mut kinds = vec![Kind::Write; WRITERS as usize];
    kinds.extend([Kind::Sleep, Kind::Disk]);
    let probes = Arc::new(Probes::new(dir, &kinds, stall / 4)?);
    let work = Work {
        store,
        model,
        ledger,
        counts: Arc::new(Counts::default()),
        probes: Some(Arc::clone(&probes)),
        vfs,
        options,
        checkpoints: Some(dir.join("checkpoint")),
        stop: AtomicBool::new(false),
        violations: Mutex::default(),
    };
    let load = Load {
        writers: WRITERS,
        readers: 2,
        maintainers: 2,
        write_every: Some(WRITE_EVERY),
        sync_one_in: 2,
        ingest_one_in: 500,
        disturb_every: Duration::from_millis(150),
    };
    std::thread::scope(|scope| {
        let bystander = |part: fn(&Bystander<'_>) -> io::Result<()>| {
            let bystander = Bystander { dir: dir.to_path_buf(), probes: &probes, work: &work };
            scope.spawn(move || {
                if let Err(error) = part(&bystander) {
                    bystander.work.report(format!("a bystander: {error}"));
                }
            });
        };
        bystander(|it| it.sleep());
        bystander(|it| it.disk());
        bystander(|it| it.watch());
        work.run(load, hash(&[seed, round]));
    });
    let violations = work.violations.into_inner().unwrap_or_else(PoisonError::into_inner);
    bail!("{}", violations.join("; "))
}

struct Bystander<'a> {
    dir: PathBuf,
    probes: &'a Probes,
    work: &'a Work,
}

impl Bystander<'_> {
    fn until_the_end(&self, mut part: impl FnMut() -> io::Result<()>) -> io::Result<()> {
        while !self.work.stop.load(SeqCst) {
            part()?;
        }
        Ok(())
    }

    /// Only sleeps: what it sleeps too long, the machine has not let it run.
    fn sleep(&self) -> io::Result<()> {
        let thread = WRITERS as usize;
        self.until_the_end(|| {
            self.probes.time(thread, || std::thread::sleep(Duration::from_millis(2)))
        })
    }

    /// Writes to a file of its own, as the log does to its.
    fn disk(&self) -> io::Result<()> {
        let file = File::create(self.dir.join("bystander"))?;
        file.write_all_at(&vec![0; 1 << 20], 0)?;
        file.sync_all()?;
        let block = AtomicU64::new(0);
        self.until_the_end(|| {
            std::thread::sleep(Duration::from_millis(5));
            let at = block.fetch_add(1, Relaxed) % 256 * 4096;
            self.probes.time(WRITERS as usize + 1, || {
                file.write_all_at(&[1; 4096], at)?;
                file.sync_data()
            })?
        })
    }

    /// Writes down what would be lost by the kill.
    fn watch(&self) -> io::Result<()> {
        let counts = File::create(self.dir.join(COUNTS))?;
        self.until_the_end(|| {
            std::thread::sleep(Duration::from_millis(10));
            self.probes.look()?;
            let stats = self.work.store.stats();
            let mut said = String::new();
            let engine = [
                ("engine_flushes", stats.flushes),
                ("engine_compactions", stats.compactions),
                ("engine_moves", stats.moves),
                ("engine_log_cuts", stats.log_cuts),
                ("engine_log_files", stats.log.files_made),
                ("engine_log_files_recycled", stats.log.files_recycled),
            ];
            for (name, count) in self.work.counts.all().into_iter().chain(engine) {
                said.push_str(&format!("{name} {count:020}\n"));
            }
            counts.write_all_at(said.as_bytes(), 0)
        })
    }
}
