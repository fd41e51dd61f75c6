//! Strikes at clocks: that of a process jumps ahead and falls back, by a little or by an hour.
//!
//! A process that is started with `--clock-wrong-by FILE` follows that file, and adds a byte to
//! `FILE.jumps` for every jump.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Hurt, Kind, Schedule, Strike};
use crate::cluster::Member;

/// The flag that names the file.
const FLAG: &str = "--clock-wrong-by";

/// Milliseconds by which a clock may come to be wrong; forwards and backwards.
const ERRORS: [i64; 5] = [30, 900, 4_000, 60_000, 3_600_000];

/// Between two jumps of one strike; a process looks at its file more often than this.
const PAUSE_MIN: Duration = Duration::from_millis(40);
const PAUSE_SPREAD: Duration = Duration::from_millis(500);

/// The hand that strikes at clocks.
pub(in crate::lab) struct Clocks {
    directory: PathBuf,
    members: Vec<Member>,
    schedule: Schedule,
    pub(in crate::lab) strikes: Vec<Strike>,
}

impl Clocks {
    pub(in crate::lab) fn new(directory: &Path, members: Vec<Member>, schedule: Schedule) -> Self {
        Self { directory: directory.to_owned(), members, schedule, strikes: Vec::new() }
    }

    /// How a member has to be started for its clock to be struck.
    pub(in crate::lab) fn flags(directory: &Path, member: Member) -> Vec<OsString> {
        vec![FLAG.into(), control_file(directory, member).into()]
    }

    /// Strikes until the schedule says that it is enough. All clocks are right again then.
    pub(in crate::lab) async fn run(&mut self) -> io::Result<()> {
        while !self.members.is_empty() && self.schedule.next().await {
            let member = *self.schedule.one(&self.members.clone());
            let control = control_file(&self.directory, member);
            let (from, before) = (self.schedule.clock.nanos(), jumps(&control));
            let end = Instant::now() + self.schedule.length();
            while Instant::now() < end {
                let error = *self.schedule.one(&ERRORS);
                let error = if self.schedule.below(2) == 0 { error } else { -error };
                self.set(&control, error).await?;
            }
            self.set(&control, 0).await?;
            let to = self.schedule.clock.nanos();
            let fired = jumps(&control) - before;
            self.strikes.push(Strike {
                kind: Kind::Clock,
                name: format!("the clock of {member} jumps"),
                whom: vec![member],
                hurt: Hurt::Members,
                from,
                to,
                fired,
                evidence: format!("{fired} jumps, by {} ms to an hour", ERRORS[0]),
            });
        }
        Ok(())
    }

    async fn set(&mut self, control: &Path, error: i64) -> io::Result<()> {
        fs::write(control, format!("{error}\n"))?;
        let pause = PAUSE_MIN + self.schedule.up_to(PAUSE_SPREAD);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

fn control_file(directory: &Path, member: Member) -> PathBuf {
    directory.join(format!("{}.clock", member.to_string().replace(' ', "-")))
}

fn jumps(control: &Path) -> u64 {
    let mut name = control.as_os_str().to_owned();
    name.push(".jumps");
    // No file, no jump.
    fs::metadata(name).map_or(0, |file| file.len())
}
