//! Row h: what is on disk, and what was written, after everything was overwritten twice.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Job, Metric, Unit, fill, read};
use crate::engine::Seen;
use crate::load::KEY_BYTES;
use crate::process;

/// Once everything is written and settled, nothing changes for so long.
const QUIET: Duration = Duration::from_secs(1);

/// Whoever does not come to rest is measured as it is then.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn measure(job: &Job) -> Result<Vec<Metric>> {
    let store = job.engine.open(&job.dir, job.settings())?;
    let live = job.keys as f64 * (KEY_BYTES + job.value_bytes) as f64;
    let mut put = 0;
    let began = Instant::now();
    for generation in 0..3 {
        put += fill::load(&*store, job, job.keys, 1_000, generation)?;
    }
    let loaded = began.elapsed().as_secs_f64();
    let at_once = process::disk_bytes(&job.dir)? as f64 / live;
    store.settle()?;
    store.rest()?;
    await_rest(job)?;
    let settled = process::disk_bytes(&job.dir)? as f64 / live;
    let written = process::written()? as f64 / put as f64;
    store.read(Seen::Latest, &mut |reader| {
        for index in (0..job.keys).step_by(97) {
            read::get_not_older(reader, index, 2, job.value_bytes)?;
        }
        Ok(())
    })?;
    Ok(vec![
        Metric::rate("load and overwrite twice, keys", 3.0 * job.keys as f64 / loaded),
        Metric::less("overwritten, bytes on disk per live byte, at once", at_once, Unit::Times),
        Metric::less("overwritten, bytes on disk per live byte, settled", settled, Unit::Times),
        Metric::less("overwritten, bytes written per byte put", written, Unit::Times),
    ])
}

/// Waits until neither the files grow or shrink nor anything is written.
fn await_rest(job: &Job) -> Result<()> {
    let began = Instant::now();
    let look = || Ok::<_, anyhow::Error>((process::disk_bytes(&job.dir)?, process::written()?));
    let mut seen = look()?;
    while began.elapsed() < PATIENCE {
        std::thread::sleep(QUIET);
        let now = look()?;
        if now == seen {
            break;
        }
        seen = now;
    }
    Ok(())
}
