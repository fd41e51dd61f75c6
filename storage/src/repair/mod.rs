//! Saves what can be saved of a damaged directory, names what is lost, and deletes nothing.
//!
//! ```text
//!                    ┌ sound segments ──────── shared by hard links ┐
//!  what was there ──►├ others ──────────────── written anew ────────┼─► MANIFEST, segments, log
//!                    └ the log up to its hole ─ written anew ───────┘
//! ```
//!
//! A repair works into a fresh directory, or in place: then everything is first moved to `lost-1`,
//! and the repair works from there. It may be broken off anywhere and started again.
//!
//! # What may be served afterwards
//!
//! If nothing was lost, the result is as good as what was there. If a version of a key is lost, an
//! older one would show in its place; if a record of the log is lost, it may have been a vote, and a
//! replica that has forgotten a vote could give another. So a directory in which anything is missing
//! keeps the file `REPAIR`, which names what, and neither a store nor a log opens with that file
//! beside it. It can still be looked at ([`crate::inspect`]), and what is in it taken elsewhere.

mod log;
mod losses;
mod marker;
mod moving;
mod segments;

use std::path::{Path, PathBuf};

use self::marker::{Marker, Stage};
use crate::error::{Error, Result};
use crate::inspect::{CheckRecord, Directory, Layout, LogPlan, Owner};
use crate::options::Options;
use crate::planted::Planted;

pub use self::losses::Loss;
pub(crate) use self::moving::is_kept;

/// Where to put what is saved.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// In a directory that is new or empty.
    Into(&'a Path),
    /// In the place of the damaged one, which is moved aside.
    InPlace,
}

/// What a repair did.
#[derive(Clone, Debug, Default)]
pub struct Repaired {
    /// Whether there was anything to repair; if not, nothing was done.
    pub was_damaged: bool,
    /// Where the result is.
    pub dir: PathBuf,
    /// Where what was replaced is kept, if it was moved.
    pub kept: Option<PathBuf>,
    /// Segments that were taken over as they are.
    pub segments_kept: u64,
    /// Segments that were written anew.
    pub segments_rewritten: u64,
    /// Entries in those.
    pub entries_rewritten: u64,
    /// Segments of staged rows that were left out: they are damaged, and nothing says to install
    /// them.
    pub staged_left_out: u64,
    /// Whether the manifest was made anew from the segments.
    pub manifest_rebuilt: bool,
    /// Records of the log that were taken over.
    pub records: u64,
    /// Records that could be read and may not be used: they follow a hole.
    pub records_behind: u64,
    /// What could not be saved. If there is anything, the result may not be served.
    pub losses: Vec<Loss>,
}

/// What the owner of a directory adds to a repair of it.
pub struct Mending<'a> {
    /// How new segments and log files are to be.
    pub options: &'a Options,
    /// Says why a record of the log cannot be what the owner wrote.
    pub check: CheckRecord<'a>,
    /// What the owner has lost besides.
    pub losses: Vec<Loss>,
}

/// Repairs a directory that nobody has open. It stays locked meanwhile.
pub fn repair(directory: &Directory, target: Target<'_>, mending: Mending<'_>) -> Result<Repaired> {
    mending.options.validate()?;
    let marker = Marker::read(&**directory.vfs(), directory.path())?;
    match (&marker, target) {
        (Some(Marker::Unfinished(stage)), Target::InPlace) => {
            return in_place(directory, stage.clone(), mending);
        }
        (Some(Marker::Unfinished(_)), Target::Into(_)) => {
            let dir = directory.path().display();
            let what = format!("a repair of {dir} itself has not ended: let it, before another");
            return Err(Error::invalid(what));
        }
        (Some(Marker::Incomplete(_)), Target::InPlace) => {
            let dir = directory.path().display();
            let what = format!("{dir} has been repaired, and what was lost does not come back");
            return Err(Error::invalid(what));
        }
        (Some(Marker::Incomplete(_)), Target::Into(_)) | (None, _) => {}
    }
    let Mending { options, check, mut losses } = mending;
    let verified = directory.verify(&mut *check)?;
    if verified.is_sound() && losses.is_empty() {
        return Ok(Repaired { dir: directory.path().to_path_buf(), ..Repaired::default() });
    }
    if let Some(Marker::Incomplete(earlier)) = marker {
        losses.push(Loss::Earlier { what: earlier });
    }
    let mending = Mending { options, check, losses };
    match target {
        Target::Into(dir) => {
            marker::begin(&**directory.vfs(), dir, directory.owner())?;
            build(directory, dir, mending)
        }
        Target::InPlace => {
            let stage = Stage::Moving(moving::free_name(directory)?);
            Marker::Unfinished(stage.clone()).write(&**directory.vfs(), directory.path())?;
            in_place(directory, stage, mending)
        }
    }
}

/// Moves everything aside, if that is not done, and builds from there.
fn in_place(directory: &Directory, stage: Stage, mending: Mending<'_>) -> Result<Repaired> {
    let (vfs, dir) = (&**directory.vfs(), directory.path());
    let Some(name) = stage.kept().map(str::to_owned) else {
        let what =
            format!("{} is the unfinished result of a repair of another directory", dir.display());
        return Err(Error::invalid(what));
    };
    if matches!(stage, Stage::Moving(_)) {
        moving::move_all(directory, &dir.join(&name))?;
        Marker::Unfinished(Stage::Building(Some(name.clone()))).write(vfs, dir)?;
    }
    // What an earlier attempt built.
    moving::clear(vfs, dir, directory.layout())?;
    let kept = dir.join(&name);
    let owner = Owner { layout: Some(directory.layout()), locks: &[], ..*directory.owner() };
    let source = Directory::open(std::sync::Arc::clone(directory.vfs()), &kept, owner)?;
    let repaired = build(&source, dir, mending)?;
    Ok(Repaired { kept: Some(kept), ..repaired })
}

/// Makes a directory out of what can be read of another. The target's marker is there already.
fn build(source: &Directory, target: &Path, mending: Mending<'_>) -> Result<Repaired> {
    let Mending { options, check, losses } = mending;
    let vfs = &**source.vfs();
    let mut repaired =
        Repaired { was_damaged: true, dir: target.to_path_buf(), losses, ..Repaired::default() };
    let plan = match source.is_blank()? {
        true => LogPlan { used: 1..1, ..LogPlan::default() },
        false => source.plan_log()?,
    };
    misread(source, &plan, check, &mut repaired.losses)?;
    losses::of_log(source, &plan, &mut repaired.losses);
    repaired.records = plan.used.end - plan.used.start;
    repaired.records_behind = plan.unused;
    match source.layout() {
        Layout::Log => log::write(source, &plan, target, options)?,
        Layout::Store => {
            let log_dir = target.join(crate::store::LOG);
            let segments_dir = target.join(crate::store::SEGMENTS);
            for dir in [&log_dir, &segments_dir] {
                vfs.create_dir_all(dir).map_err(Error::io("create the directory", dir))?;
            }
            let manifest = segments::save(source, &plan, &segments_dir, options, &mut repaired)?;
            log::write(source, &plan, &log_dir, options)?;
            manifest.write(vfs, target, Planted::default())?;
        }
    }
    moving::take_along(source, target)?;
    marker::end(vfs, target, &repaired.losses)?;
    Ok(repaired)
}

/// Records that have the right checksums and are none of the owner's.
fn misread(
    source: &Directory,
    plan: &LogPlan,
    check: CheckRecord<'_>,
    losses: &mut Vec<Loss>,
) -> Result<()> {
    let mut overlooked = |record: &crate::log::ReplayedRecord| {
        source.check_record(record, &mut *check).map(|()| None)
    };
    let (_, misread) = source.replay(plan, &mut overlooked)?;
    if let Some((position, what)) = misread {
        losses.push(Loss::Misread { position, what });
    }
    Ok(())
}
