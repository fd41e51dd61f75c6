//! Saves the tree: shares the segments that are sound, writes the others anew from what can be read
//! of them, and makes a manifest if there is none.

use std::path::Path;

use bytes::Bytes;

use super::moving;
use super::{Loss, Repaired};
use crate::error::{Error, Result};
use crate::inspect::{Directory, Entries, LogPlan, map_segment};
use crate::key::{SEQUENCE_STAGED, SEQUENCE_STRIDE};
use crate::levels::LEVELS;
use crate::log::Position;
use crate::manifest::{Manifest, Staged};
use crate::options::Options;
use crate::segment::{
    Entry, LostKeys, Piece, Salvage, Segment, SegmentMeta, SegmentWriter, path_of,
};
use crate::vfs::Vfs;

/// Puts the segments into a directory that holds none, and answers with their manifest.
pub(super) fn save(
    source: &Directory,
    plan: &LogPlan,
    dir: &Path,
    options: &Options,
    repaired: &mut Repaired,
) -> Result<Manifest> {
    let vfs = &**source.vfs();
    let mut saving = Saving { source, vfs, dir, options, repaired };
    let mut manifest = match source.manifest() {
        Some(manifest) => saving.each(manifest, plan)?,
        None => saving.all(plan)?,
    };
    // From two on a log that is not there is a log that was lost.
    manifest.generation = manifest.generation.max(1) + 1;
    if plan.is_lossy {
        let last = plan.used.end.saturating_sub(1);
        manifest.flushed_position = manifest.flushed_position.min(Position(last));
    }
    vfs.sync_dir(dir).map_err(Error::io("sync the directory", dir))?;
    Ok(manifest)
}

struct Saving<'a> {
    source: &'a Directory,
    vfs: &'a dyn Vfs,
    dir: &'a Path,
    options: &'a Options,
    repaired: &'a mut Repaired,
}

impl Saving<'_> {
    /// Each segment that the manifest names, on its level, and what is staged.
    fn each(&mut self, manifest: &Manifest, plan: &LogPlan) -> Result<Manifest> {
        let mut saved = Manifest { segments: Vec::new(), staged: None, ..manifest.clone() };
        let newest_file = self.source.segment_files().last().copied().unwrap_or_default();
        saved.next_segment = saved.next_segment.max(newest_file + 1);
        for (level, meta) in &manifest.segments {
            if let Some(meta) = self.one(meta, &mut saved.next_segment)? {
                saved.segments.push((*level, meta));
            }
        }
        if let Some(staged) = &manifest.staged {
            saved.staged = self.staged(staged, plan, &mut saved.next_segment)?;
        }
        if let Some((_, mark)) = plan.installs
            && saved.staged.as_ref().is_none_or(|staged| staged.mark != mark)
        {
            let why = "the log installs them, and they are not there";
            self.repaired.losses.push(Loss::Staged { mark: Some(mark), why });
        }
        // What was saved of a segment that said less of itself than it held.
        let newest = saved.segments.iter().map(|(_, meta)| meta.sequence_max).max();
        saved.last_sequence = saved.last_sequence.max(newest.unwrap_or_default());
        Ok(saved)
    }

    /// What is staged, if it is sound, or if it is needed.
    fn staged(
        &mut self,
        staged: &Staged,
        plan: &LogPlan,
        next_id: &mut u64,
    ) -> Result<Option<Staged>> {
        let is_ours = self.source.owner().installs.is_some();
        let is_installed = plan.installs.is_some_and(|(_, mark)| mark == staged.mark);
        // What a lost record, or the record of an owner that we do not know, says of it is unknown.
        let is_needed = is_installed || plan.is_lossy || !is_ours;
        if !is_needed {
            for meta in &staged.segments {
                if !self.is_sound(meta)? {
                    self.repaired.staged_left_out = staged.segments.len() as u64;
                    return Ok(None);
                }
            }
        }
        let mut saved = Staged { mark: staged.mark, segments: Vec::new() };
        for meta in &staged.segments {
            let Some(meta) = self.one(meta, next_id)? else { continue };
            if meta.sequence_max == SEQUENCE_STAGED {
                saved.segments.push(meta);
            } else {
                let why = "they hold entries that nobody stages";
                self.repaired.losses.push(Loss::Staged { mark: Some(staged.mark), why });
            }
        }
        Ok(Some(saved))
    }

    fn is_sound(&self, meta: &SegmentMeta) -> Result<bool> {
        let path = path_of(&self.source.segments_dir(), meta.id);
        match map_segment(self.source, meta.id) {
            Ok(map) => {
                let segment = Segment::of_bytes(&path, meta.clone(), map);
                Ok(segment.and_then(|segment| segment.check()).is_ok())
            }
            Err(Error::Missing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// One segment, as it is or written anew; none if nothing of it can be read.
    fn one(&mut self, meta: &SegmentMeta, next_id: &mut u64) -> Result<Option<SegmentMeta>> {
        let from = path_of(&self.source.segments_dir(), meta.id);
        let map = match map_segment(self.source, meta.id) {
            Ok(map) => map,
            Err(Error::Missing { .. }) => {
                let (from_key, to) = (meta.smallest.clone(), Some(meta.largest.clone()));
                let why = "the file is missing".to_owned();
                let keys = LostKeys { file: from, offset: 0, why, from: from_key, to };
                self.repaired.losses.push(Loss::Keys(keys));
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let checked =
            Segment::of_bytes(&from, meta.clone(), map.clone()).and_then(|segment| segment.check());
        if checked.is_ok() {
            moving::share(self.vfs, &from, &path_of(self.dir, meta.id))?;
            self.repaired.segments_kept += 1;
            return Ok(Some(meta.clone()));
        }
        let mut writer = Writer::new(self, None, next_id);
        let mut salvage = Salvage::new(&from, meta.id, map, Some(meta.clone()));
        let (mut lost, mut entries) = (Vec::new(), 0);
        while let Some(piece) = salvage.next() {
            match piece {
                Piece::Block(block) => {
                    // On its level the keys beyond its ends are others' to hold.
                    for entry in block.iter().filter(|entry| meta.spans(&entry.key)) {
                        entries += 1;
                        writer.add(entry)?;
                    }
                }
                Piece::Lost(keys) => lost.push(keys),
            }
        }
        let mut written = writer.finish()?;
        if lost.is_empty() && entries != meta.entries {
            let (from_key, to) = (meta.smallest.clone(), Some(meta.largest.clone()));
            let why = format!("holds {entries} entries, where the manifest says {}", meta.entries);
            lost.push(LostKeys { file: from, offset: 0, why, from: from_key, to });
        }
        self.repaired.losses.extend(lost.into_iter().map(Loss::Keys));
        self.repaired.segments_rewritten += 1;
        self.repaired.entries_rewritten += entries;
        Ok(written.pop())
    }

    /// Everything that is in any segment, merged into one sorted level: without a manifest nobody
    /// knows which of two segments is above the other, but each entry knows how new it is.
    fn all(&mut self, plan: &LogPlan) -> Result<Manifest> {
        let newest_file = self.source.segment_files().last().copied().unwrap_or_default();
        let mut next_segment = newest_file + 1;
        let mut merged = Entries::of_tree(self.source, Bytes::new())?;
        let segment_bytes = Some(self.options.segment_bytes);
        let mut writer = Writer::new(self, segment_bytes, &mut next_segment);
        let mut last: Option<Entry> = None;
        let (mut entries, mut repeated, mut last_sequence) = (0, false, 0);
        let (mut staged, mut ingested) = (0, false);
        while let Some(entry) = merged.next()? {
            if last.as_ref().is_some_and(|last| last.key == entry.key && last.tag == entry.tag) {
                // An entry is in one segment only, unless a compaction was broken off.
                repeated = true;
                continue;
            }
            entries += 1;
            last_sequence = last_sequence.max(entry.tag.sequence());
            ingested |= entry.tag.sequence().is_multiple_of(SEQUENCE_STRIDE);
            staged += u64::from(entry.tag.sequence() == SEQUENCE_STAGED);
            writer.add(&entry)?;
            last = Some(entry);
        }
        let written = writer.finish()?;
        let repaired = &mut *self.repaired;
        repaired.losses.extend(merged.lost.drain(..).map(Loss::Keys));
        repaired.losses.extend(repeated.then_some(Loss::Leftovers));
        // Only staged rows share a sequence. Whether they took the place of the others, and whether
        // they are all, only the manifest could tell.
        if staged > 1 || plan.installs.is_some() {
            let mark = plan.installs.map(|(_, mark)| mark);
            let why = "without the manifest nobody knows whether they have";
            repaired.losses.push(Loss::Staged { mark, why });
        }
        repaired.losses.extend(ingested.then_some(Loss::Ingested));
        repaired.manifest_rebuilt = true;
        repaired.segments_rewritten += self.source.segment_files().len() as u64;
        repaired.entries_rewritten += entries;
        Ok(Manifest {
            generation: 1,
            next_segment,
            // All of the log is applied again: that gives the same rows, whatever of it is in
            // segments already. Marks that are no positions begin anywhere.
            flushed_mark: match self.source.owner().installs {
                Some(_) => 0,
                None => plan.used.start.saturating_sub(1),
            },
            flushed_position: Position(plan.used.end.saturating_sub(1)),
            last_sequence,
            segments: written.into_iter().map(|meta| (LEVELS - 1, meta)).collect(),
            staged: None,
        })
    }
}

/// Writes entries that come in order to one or several segments.
struct Writer<'a> {
    vfs: &'a dyn Vfs,
    dir: &'a Path,
    options: &'a Options,
    segment_bytes: Option<u64>,
    next_id: &'a mut u64,
    current: Option<SegmentWriter>,
    finished: Vec<SegmentMeta>,
}

impl<'a> Writer<'a> {
    fn new(saving: &Saving<'a>, segment_bytes: Option<u64>, next_id: &'a mut u64) -> Writer<'a> {
        let Saving { vfs, dir, options, .. } = *saving;
        Writer { vfs, dir, options, segment_bytes, next_id, current: None, finished: Vec::new() }
    }

    fn add(&mut self, entry: &Entry) -> Result<()> {
        let segment_bytes = self.segment_bytes;
        // The versions of a key stay together: levels promise disjoint ranges of keys.
        let is_full = |writer: &mut SegmentWriter| {
            segment_bytes.is_some_and(|bytes| writer.bytes() >= bytes)
                && writer.last_key() != entry.key
        };
        if let Some(full) = self.current.take_if(is_full) {
            self.finished.push(full.finish()?);
        }
        let writer = match &mut self.current {
            Some(writer) => writer,
            None => {
                let id = *self.next_id;
                *self.next_id += 1;
                let options = self.options.segment(LEVELS - 1);
                self.current.insert(SegmentWriter::create(self.vfs, self.dir, id, options)?)
            }
        };
        writer.add(&entry.key, entry.tag, &entry.value)
    }

    fn finish(mut self) -> Result<Vec<SegmentMeta>> {
        if let Some(last) = self.current.take() {
            self.finished.push(last.finish()?);
        }
        Ok(self.finished)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::inspect::Owner;
    use crate::key::{Kind, Tag};
    use crate::repair::{Mending, Target, repair};
    use crate::vfs::MemoryVfs;
    use crate::{Durability, Store};

    const DIR: &str = "/store";

    fn options() -> Options {
        Options { segment_bytes: 1 << 10, block_bytes: 256, ..Options::default() }
    }

    /// A store whose last level has several segments.
    fn store() -> (MemoryVfs, Vec<SegmentMeta>) {
        let disk = MemoryVfs::new();
        let store = Store::open(Arc::new(disk.clone()), DIR.as_ref(), options()).unwrap();
        // Two that are to be merged, since one would merely be moved.
        for half in 0..2 {
            for number in (half..100_u8).step_by(2) {
                store.put(vec![b'k', number], vec![b'v'; 60], Durability::Buffered).unwrap();
            }
            store.flush().unwrap();
        }
        store.compact().unwrap();
        drop(store);
        let manifest = Manifest::read(&disk, DIR.as_ref()).unwrap().unwrap();
        let metas: Vec<_> = manifest.segments.into_iter().map(|(_, meta)| meta).collect();
        assert!(metas.len() > 2);
        (disk, metas)
    }

    /// A file that is right in itself, and not the one that the manifest means.
    #[test]
    fn keys_beyond_the_ends_of_a_segment_do_not_reach_into_its_neighbours() {
        let (disk, metas) = store();
        let segments = Path::new(DIR).join("segments");
        let meta = metas.iter().min_by_key(|meta| meta.smallest.clone()).unwrap();
        let options = options();
        disk.remove(&path_of(&segments, meta.id)).unwrap();
        let mut writer =
            SegmentWriter::create(&disk, &segments, meta.id, options.segment(LEVELS - 1)).unwrap();
        // As many as it says.
        for number in 1..meta.entries {
            let key = [meta.smallest.as_ref(), &[number as u8]].concat();
            writer.add(&key, Tag::new(1, Kind::Put), b"other").unwrap();
        }
        writer.add(b"z", Tag::new(1, Kind::Put), b"other").unwrap();
        writer.finish().unwrap();

        let source = Directory::open(Arc::new(disk.clone()), DIR.as_ref(), Owner::default());
        let source = source.unwrap();
        let target = Path::new("/repaired");
        disk.create_dir_all(target).unwrap();
        let mending = Mending { options: &options, check: &mut |_| Ok(()), losses: Vec::new() };
        let repaired = repair(&source, Target::Into(target), mending).unwrap();
        assert!(matches!(&repaired.losses[..], [Loss::Keys(_)]), "{repaired:?}");
        let manifest = Manifest::read(&disk, target).unwrap().unwrap();
        let mut saved: Vec<_> = manifest.segments.into_iter().map(|(_, meta)| meta).collect();
        saved.sort_by(|a, b| a.smallest.cmp(&b.smallest));
        assert_eq!(saved.len(), metas.len());
        assert!(saved.windows(2).all(|pair| pair[0].largest < pair[1].smallest), "{saved:?}");
        let opened = Store::open(Arc::new(disk), target, options);
        let error = opened.err().unwrap();
        assert!(matches!(error, Error::Incomplete { .. }), "{error}");
    }
}
