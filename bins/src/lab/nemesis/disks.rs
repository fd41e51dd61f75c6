//! Strikes at disks: one has no room for a while.
//!
//! A process that is started with `--disk-full-while FILE` finds its disk full as long as that file
//! exists, and adds a byte to `FILE.refused` for every operation that it was refused. That works
//! without being root, and says what it did.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Hurt, Kind, Schedule, Strike};
use crate::cluster::Member;

/// The flag that names the file.
const FLAG: &str = "--disk-full-while";

/// The hand that strikes at disks.
pub(in crate::lab) struct Disks {
    directory: PathBuf,
    members: Vec<Member>,
    schedule: Schedule,
    pub(in crate::lab) strikes: Vec<Strike>,
}

impl Disks {
    pub(in crate::lab) fn new(directory: &Path, members: Vec<Member>, schedule: Schedule) -> Self {
        Self { directory: directory.to_owned(), members, schedule, strikes: Vec::new() }
    }

    /// How a member has to be started for its disk to be struck.
    pub(in crate::lab) fn flags(directory: &Path, member: Member) -> Vec<OsString> {
        vec![FLAG.into(), control_file(directory, member).into()]
    }

    /// Strikes until the schedule says that it is enough. All disks have room again then.
    pub(in crate::lab) async fn run(&mut self) -> io::Result<()> {
        while !self.members.is_empty() && self.schedule.next().await {
            let member = *self.schedule.one(&self.members.clone());
            let full = control_file(&self.directory, member);
            let before = refused(&full);
            let from = self.schedule.clock.nanos();
            fs::write(&full, "")?;
            self.schedule.hold(|| refused(&full) > before).await;
            fs::remove_file(&full)?;
            let to = self.schedule.clock.nanos();
            let fired = refused(&full) - before;
            self.strikes.push(Strike {
                kind: Kind::DiskFull,
                name: format!("disk of {member} full"),
                whom: vec![member],
                hurt: Hurt::Members,
                from,
                to,
                fired,
                evidence: format!("{fired} operations refused for want of room"),
            });
        }
        Ok(())
    }
}

fn control_file(directory: &Path, member: Member) -> PathBuf {
    directory.join(format!("{}.disk-full", member.to_string().replace(' ', "-")))
}

fn refused(full: &Path) -> u64 {
    let mut name = full.as_os_str().to_owned();
    name.push(".refused");
    // No file, no refusal.
    fs::metadata(name).map_or(0, |file| file.len())
}
