//! What a repair writes down about itself, and reads when it is started again.

use std::fmt::Write as _;
use std::path::Path;

use super::losses::Loss;
use super::moving;
use crate::error::{Error, Result};
use crate::inspect::{Layout, Owner, list_if_there};
use crate::marker::{self, NAME, NAME_TEMPORARY, UNFINISHED};
use crate::vfs::{OpenMode, Vfs};

const INCOMPLETE: &str = "incomplete";

/// So many losses are listed one by one.
const LOSSES_LISTED_MAX: usize = 1000;

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// A repair was broken off.
    Unfinished(Stage),
    /// A repair could not save everything; what, in words.
    Incomplete(String),
}

/// How far a repair has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// What was there is being moved to this directory.
    Moving(String),
    /// The result is being made, from what is in that directory if the repair is in place.
    Building(Option<String>),
}

impl Stage {
    /// The directory to which things are moved.
    pub(super) fn kept(&self) -> Option<&str> {
        match self {
            Self::Moving(name) => Some(name),
            Self::Building(name) => name.as_deref(),
        }
    }
}

impl Marker {
    /// The marker in a directory, if there is one.
    pub(super) fn read(vfs: &dyn Vfs, dir: &Path) -> Result<Option<Self>> {
        let Some(text) = marker::read(vfs, dir)? else { return Ok(None) };
        let (line, rest) = text.split_once('\n').unwrap_or((&text, ""));
        let words: Vec<&str> = line.split_whitespace().collect();
        let kept = |name: &str| moving::is_kept(name).then(|| name.to_owned());
        Ok(Some(match words[..] {
            [UNFINISHED, "moving", name] if moving::is_kept(name) => {
                Self::Unfinished(Stage::Moving(name.to_owned()))
            }
            [UNFINISHED, "building", name] => Self::Unfinished(Stage::Building(kept(name))),
            [UNFINISHED, "building"] => Self::Unfinished(Stage::Building(None)),
            [INCOMPLETE] => Self::Incomplete(rest.trim_end().to_owned()),
            // Somebody wrote in it. What it stands for is the careful reading.
            _ => Self::Incomplete(text.trim_end().to_owned()),
        }))
    }

    /// Replaces the marker, durably.
    pub(super) fn write(&self, vfs: &dyn Vfs, dir: &Path) -> Result<()> {
        let (temporary, path) = (dir.join(NAME_TEMPORARY), dir.join(NAME));
        moving::remove_if_there(vfs, &temporary)?;
        let file =
            vfs.open(&temporary, OpenMode::Create).map_err(Error::io("create", &temporary))?;
        let text = self.text();
        file.write_at(text.as_bytes(), 0).map_err(Error::io("write", &temporary))?;
        file.sync().map_err(Error::io("sync", &temporary))?;
        vfs.rename(&temporary, &path).map_err(Error::io("rename", &temporary))?;
        vfs.sync_dir(dir).map_err(Error::io("sync the directory", dir))
    }

    fn text(&self) -> String {
        match self {
            Self::Unfinished(Stage::Moving(name)) => format!("{UNFINISHED} moving {name}\n"),
            Self::Unfinished(Stage::Building(Some(name))) => {
                format!("{UNFINISHED} building {name}\n")
            }
            Self::Unfinished(Stage::Building(None)) => format!("{UNFINISHED} building\n"),
            Self::Incomplete(what) => format!("{INCOMPLETE}\n{what}\n"),
        }
    }
}

/// Makes a directory ready for a repair's result: it must be new, or empty, or what an earlier
/// attempt left.
pub(super) fn begin(vfs: &dyn Vfs, dir: &Path, owner: &Owner) -> Result<()> {
    let names = list_if_there(vfs, dir)?;
    let building = Marker::Unfinished(Stage::Building(None));
    if !names.is_empty() && Marker::read(vfs, dir)?.as_ref() != Some(&building) {
        // A marker that was being written is all that a very early end can leave.
        if names != [NAME_TEMPORARY] {
            let what = format!("{} is not empty: name a directory that is", dir.display());
            return Err(Error::invalid(what));
        }
    }
    vfs.create_dir_all(dir).map_err(Error::io("create the directory", dir))?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        vfs.sync_dir(parent).map_err(Error::io("sync the directory", parent))?;
    }
    building.write(vfs, dir)?;
    for layout in [Layout::Store, Layout::Log] {
        moving::clear(vfs, dir, layout)?;
    }
    for name in owner.files {
        moving::remove_if_there(vfs, &dir.join(name))?;
    }
    Ok(())
}

/// Lets a result be served, or says why it may not be.
pub(super) fn end(vfs: &dyn Vfs, dir: &Path, losses: &[Loss]) -> Result<()> {
    if losses.is_empty() {
        let path = dir.join(NAME);
        // All else first: without the marker the directory may be served.
        vfs.sync_dir(dir).map_err(Error::io("sync the directory", dir))?;
        vfs.remove(&path).map_err(Error::io("remove", &path))?;
        return vfs.sync_dir(dir).map_err(Error::io("sync the directory", dir));
    }
    let mut text = String::from(
        "A repair could not save everything that was in this directory. It must not be served: it \
         could show old rows, and forget what it has promised. It can be looked at with kvorum \
         store dump, verify and stats. Lost:\n",
    );
    for loss in losses.iter().take(LOSSES_LISTED_MAX) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "- {loss}");
    }
    if let Some(more) = losses.len().checked_sub(LOSSES_LISTED_MAX).filter(|more| *more > 0) {
        let _ = writeln!(text, "- and {more} more");
    }
    Marker::Incomplete(text.trim_end().to_owned()).write(vfs, dir)
}
