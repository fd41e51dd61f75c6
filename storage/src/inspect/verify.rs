//! Reads everything, and names everything that is wrong.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::segments::read_segment;
use super::{Directory, Layout, list_if_there};
use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::log::{LogDamage, LogExtent, LogItem, ReplayedRecord, is_log_name};
use crate::manifest::{self, Manifest};
use crate::marker;
use crate::repair;
use crate::segment::{LostKeys, Piece, Salvage, Segment, SegmentMeta, id_of, path_of};
use crate::store::{LOCK as STORE_LOCK, LOG, SEGMENTS, WRITE_BATCH};

/// Something that is not as a sound directory has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub grade: Grade,
    /// The file that lies, is missing, or should not be there.
    pub file: PathBuf,
    /// Where in it.
    pub offset: u64,
    /// What is wrong, to be read after the file's name.
    pub what: String,
    /// What it costs.
    pub lost: Lost,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Grade {
    /// Not what was written: no program may serve it.
    Damage,
    /// The torn end of a log, left by a crash; nobody was told that it was written. The next start
    /// cuts it.
    Torn,
    /// Left by a crash, of no use. The next start removes it.
    Leftover,
    /// Nothing of ours.
    Unknown,
}

/// What damage costs: what a repair cannot bring back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Nothing: it can be made again from the rest.
    Nothing,
    /// Versions of keys.
    Keys(LostKeys),
    /// Records of the log, by their positions; perhaps more behind them.
    Records {
        /// These.
        positions: Range<u64>,
        /// Nobody knows how far the log went on.
        open_ended: bool,
    },
    /// What only the whole file could tell.
    File,
}

/// What verifying found.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    /// Segments that were read, staged ones included.
    pub segments: u64,
    /// Blocks of data that were right.
    pub blocks: u64,
    /// Entries that were right, versions and deletes included.
    pub entries: u64,
    /// Bytes of the segments that were read.
    pub segment_bytes: u64,
    /// How far the log goes.
    pub log: LogExtent,
    /// All that is not as it should be.
    pub findings: Vec<Finding>,
}

impl Verified {
    /// Whether nothing is damaged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.grade != Grade::Damage)
    }

    fn damage(&mut self, file: PathBuf, offset: u64, what: impl Into<String>, lost: Lost) {
        let what = what.into();
        self.findings.push(Finding { grade: Grade::Damage, file, offset, what, lost });
    }

    fn note(&mut self, grade: Grade, file: PathBuf, what: &str) {
        let what = what.to_owned();
        self.findings.push(Finding { grade, file, offset: 0, what, lost: Lost::Nothing });
    }
}

/// What an owner says of a record of its log: why it cannot be what it wrote.
pub type CheckRecord<'a> = &'a mut dyn FnMut(&ReplayedRecord) -> Result<(), String>;

impl Directory {
    /// Reads everything that is in the directory and checks it: every checksum, the order of keys
    /// and records, and that manifest, segments and log fit together. `check` is shown each record
    /// of an owner's log; records of a store without an owner are checked here.
    pub fn verify(&self, check: CheckRecord<'_>) -> Result<Verified> {
        let mut verified = Verified::default();
        self.check_marker(&mut verified);
        if !self.is_blank()? {
            if self.layout == Layout::Store {
                self.check_manifest(&mut verified);
                self.check_segments(&mut verified)?;
            }
            self.check_log(&mut verified, check)?;
        }
        self.check_names(&mut verified)?;
        verified.findings.sort_by_key(|finding| finding.grade);
        Ok(verified)
    }

    fn check_marker(&self, verified: &mut Verified) {
        if self.has_marker() {
            let what = "says that a repair could not save everything, or did not end";
            verified.damage(self.dir.join(marker::NAME), 0, what, Lost::File);
        }
    }

    fn check_manifest(&self, verified: &mut Verified) {
        match &self.manifest_damage {
            None => {}
            Some(Error::Corrupt { file, offset, what }) => {
                verified.damage(file.clone(), *offset, what.clone(), Lost::Nothing);
            }
            Some(_) => {
                verified.damage(self.dir.join(manifest::NAME), 0, "is missing", Lost::Nothing);
            }
        }
        let Some(manifest) = &self.manifest else { return };
        if let Some((level, a, b)) = overlap(manifest) {
            let what = format!("segments {a:#x} and {b:#x} of level {level} overlap");
            verified.damage(self.dir.join(manifest::NAME), 0, what, Lost::File);
        }
    }

    fn check_segments(&self, verified: &mut Verified) -> Result<()> {
        let staged = self.staged().into_iter().flat_map(|staged| &staged.segments);
        let staged = staged.map(|meta| (None, meta.id, Some(meta.clone())));
        for (_, id, meta) in self.tree().into_iter().chain(staged) {
            let path = path_of(&self.segments_dir(), id);
            match read_segment(self, id) {
                Ok(bytes) => check_segment(verified, &path, id, bytes, meta),
                Err(error @ (Error::Missing { .. } | Error::Io { .. })) => {
                    let why = match error {
                        Error::Missing { .. } => "the file is missing".to_owned(),
                        error => error.to_string(),
                    };
                    let lost = whole(&path, &why, meta.as_ref());
                    verified.damage(path, 0, why, Lost::Keys(lost));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn check_log(&self, verified: &mut Verified, check: CheckRecord<'_>) -> Result<()> {
        let log_dir = self.log_dir();
        if self.has_lost_its_log()? {
            let lost = Lost::Records { positions: 0..0, open_ended: true };
            verified.damage(log_dir, 0, "the log is missing", lost);
            return Ok(());
        }
        let mut survey = self.log()?;
        let mut whole = None;
        let (mut misread, mut installs) = (None, None);
        while let Some(item) = survey.next()? {
            match item {
                LogItem::Record(record) => {
                    let first = survey.extent().first.map_or(1, |first| first.0);
                    *whole.get_or_insert(first <= 1 || self.owner.is_checkpoint.is_none()) |= self
                        .owner
                        .is_checkpoint
                        .is_some_and(|is_checkpoint| is_checkpoint(record.kind));
                    installs = self.is_to_install(&record).or(installs);
                    if let (None, Err(what)) = (&misread, self.check_record(&record, check)) {
                        let (file, offset) = survey.place().unwrap_or_else(|| (log_dir.clone(), 0));
                        misread = Some((file, offset, record.position.0, what));
                    }
                }
                LogItem::Damage(damage) => note_damage(verified, damage),
                LogItem::Torn(torn) => {
                    let what = format!("{} bytes that a crash tore off the last write", torn.bytes);
                    let (grade, lost) = (Grade::Torn, Lost::Nothing);
                    let (file, offset) = (torn.file, torn.offset);
                    verified.findings.push(Finding { grade, file, offset, what, lost });
                }
            }
        }
        verified.log = survey.extent().clone();
        if let Some((file, offset, at, what)) = misread {
            let lost = Lost::Records { positions: at..at + 1, open_ended: false };
            verified.damage(file, offset, format!("record {at} is none of ours: {what}"), lost);
        }
        self.check_extent(verified, whole);
        self.check_installs(verified, installs);
        Ok(())
    }

    /// Whether the rows are there that the log says to install last.
    fn check_installs(&self, verified: &mut Verified, installs: Option<u64>) {
        let Some(mark) = installs else { return };
        // Without a manifest nobody knows, and that it is missing was said.
        if self.manifest.is_some() && self.sealed_mark() != Some(mark) {
            let what = format!("names no staged rows of mark {mark}, which the log installs");
            verified.damage(self.dir.join(manifest::NAME), 0, what, Lost::File);
        }
    }

    pub(crate) fn check_record(
        &self,
        record: &ReplayedRecord,
        check: CheckRecord<'_>,
    ) -> Result<(), String> {
        if self.layout == Layout::Log || self.owner.is_checkpoint.is_some() {
            return check(record);
        }
        if record.kind != WRITE_BATCH {
            return Err(format!("kind {} is not a store's own", record.kind));
        }
        Batch::decode(&record.payload).map(drop).map_err(|malformed| malformed.to_string())
    }

    /// Whether log and segments meet.
    fn check_extent(&self, verified: &mut Verified, whole: Option<bool>) {
        let log_dir = self.log_dir();
        let (first, last) = (verified.log.first.map_or(1, |first| first.0), verified.log.last.0);
        let end = last.max(first.saturating_sub(1));
        if whole == Some(false)
            || (whole.is_none() && first > 1 && self.owner.is_checkpoint.is_some())
        {
            let what =
                format!("begins with record {first}, and no checkpoint stands for those before");
            let lost = Lost::Records { positions: 1..first, open_ended: false };
            verified.damage(log_dir.clone(), 0, what, lost);
        }
        let Some(manifest) = &self.manifest else { return };
        let flushed = manifest.flushed_position.0;
        if end < flushed {
            let what = format!("ends at record {end}, but record {flushed} had been durable");
            let lost = Lost::Records { positions: end + 1..flushed + 1, open_ended: true };
            verified.damage(log_dir.clone(), 0, what, lost);
        }
        if first > flushed.saturating_add(1) {
            let what = format!("begins with record {first}, but record {} was needed", flushed + 1);
            let lost = Lost::Records { positions: flushed + 1..first, open_ended: false };
            verified.damage(log_dir, 0, what, lost);
            return;
        }
        let is_embedded = self.owner.is_checkpoint.is_none();
        if is_embedded && first > manifest.flushed_mark.saturating_add(1) {
            let mark = manifest.flushed_mark;
            let what =
                format!("begins with record {first}, but segments hold only those up to {mark}");
            let lost = Lost::Records { positions: mark + 1..first, open_ended: false };
            verified.damage(log_dir, 0, what, lost);
        }
    }

    /// Files that belong to nothing.
    fn check_names(&self, verified: &mut Verified) -> Result<()> {
        let owned = [self.owner.files, self.owner.locks].concat();
        for name in &self.names {
            let store = self.layout == Layout::Store
                && [manifest::NAME, STORE_LOCK, SEGMENTS, LOG].contains(&name.as_str());
            let log = self.layout == Layout::Log && is_log_name(name);
            let path = self.dir.join(name);
            if self.owner.leftovers.contains(&name.as_str())
                || [manifest::NAME_TEMPORARY, marker::NAME_TEMPORARY].contains(&name.as_str())
            {
                verified.note(Grade::Leftover, path, "was being written when a crash came");
            } else if log {
                self.note_log_name(verified, path, name);
            } else if repair::is_kept(name) {
                verified.note(Grade::Unknown, path, "holds what a repair put aside");
            } else if !store && !owned.contains(&name.as_str()) && name != marker::NAME {
                verified.note(Grade::Unknown, path, "is not a file of Kvorum's");
            }
        }
        if self.layout == Layout::Log {
            return Ok(());
        }
        for name in list_if_there(&**self.vfs(), &self.log_dir())? {
            let path = self.log_dir().join(&name);
            if is_log_name(&name) {
                self.note_log_name(verified, path, &name);
            } else {
                verified.note(Grade::Unknown, path, "is not a file of the log");
            }
        }
        let named: BTreeSet<u64> = match &self.manifest {
            Some(manifest) => manifest.ids().collect(),
            None => self.segment_files.clone(),
        };
        for name in list_if_there(&**self.vfs(), &self.segments_dir())? {
            let path = self.segments_dir().join(&name);
            match id_of(&name) {
                Some(id) if named.contains(&id) => {}
                Some(_) => {
                    verified.note(Grade::Leftover, path, "is in no manifest: a crash left it")
                }
                None => verified.note(Grade::Unknown, path, "is not a segment"),
            }
        }
        Ok(())
    }

    fn note_log_name(&self, verified: &mut Verified, path: PathBuf, name: &str) {
        if name.ends_with(".new") {
            verified.note(Grade::Leftover, path, "was being made when a crash came");
        }
    }
}

fn overlap(manifest: &Manifest) -> Option<(usize, u64, u64)> {
    let mut below: Vec<_> = manifest.segments.iter().filter(|(level, _)| *level > 0).collect();
    below.sort_by(|a, b| (a.0, &a.1.smallest).cmp(&(b.0, &b.1.smallest)));
    let meets = |pair: &&[&(usize, SegmentMeta)]| {
        pair[0].0 == pair[1].0 && pair[0].1.largest >= pair[1].1.smallest
    };
    below.windows(2).find(meets).map(|pair| (pair[0].0, pair[0].1.id, pair[1].1.id))
}

fn check_segment(
    verified: &mut Verified,
    path: &Path,
    id: u64,
    bytes: Bytes,
    meta: Option<SegmentMeta>,
) {
    verified.segments += 1;
    verified.segment_bytes += bytes.len() as u64;
    let mut salvage = Salvage::new(path, id, bytes.clone(), meta.clone());
    let listed = meta.or_else(|| salvage.meta().cloned());
    let checked = listed.map(|meta| Segment::of_bytes(path, meta, bytes).and_then(|it| it.check()));
    if let Some(Ok(counted)) = checked {
        verified.blocks += counted.blocks;
        verified.entries += counted.entries;
        return;
    }
    let before = verified.findings.len();
    for flaw in std::mem::take(&mut salvage.flaws) {
        let (offset, what) = place_of(flaw);
        verified.damage(path.to_owned(), offset, what, Lost::Nothing);
    }
    while let Some(piece) = salvage.next() {
        match piece {
            Piece::Block(entries) => {
                verified.blocks += 1;
                verified.entries += entries.len() as u64;
            }
            Piece::Lost(keys) => {
                verified.damage(path.to_owned(), keys.offset, keys.why.clone(), Lost::Keys(keys));
            }
        }
    }
    if verified.findings.len() == before
        && let Some(Err(error)) = checked
    {
        // Every block is good and the whole is not: they are not the blocks that belong together.
        let (offset, what) = place_of(error);
        let lost = whole(path, &what, salvage.meta());
        verified.damage(path.to_owned(), offset, what, Lost::Keys(lost));
    }
}

fn place_of(error: Error) -> (u64, String) {
    match error {
        Error::Corrupt { offset, what, .. } => (offset, what.into_owned()),
        other => (0, other.to_string()),
    }
}

fn whole(path: &Path, why: &str, meta: Option<&SegmentMeta>) -> LostKeys {
    LostKeys {
        file: path.to_owned(),
        offset: 0,
        why: why.to_owned(),
        from: meta.map(|meta| meta.smallest.clone()).unwrap_or_default(),
        to: meta.map(|meta| meta.largest.clone()),
    }
}

fn note_damage(verified: &mut Verified, damage: LogDamage) {
    let LogDamage { file, offset, what, lost, open_ended } = damage;
    let lost = match lost.is_empty() && !open_ended {
        true => Lost::Nothing,
        false => Lost::Records { positions: lost, open_ended },
    };
    verified.damage(file, offset, what, lost);
}
