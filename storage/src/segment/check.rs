//! Checks a whole segment: every checksum, and that its parts agree with each other.

use std::cmp::Ordering;

use super::filter::hash;
use super::reader::{Check, Segment};
use crate::codec::Malformed;
use crate::error::{Error, Result};
use crate::key::{Kind, Tag, compare};

/// What a checked segment holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) blocks: u64,
    pub(crate) entries: u64,
    pub(crate) deletes: u64,
    sequence_max: u64,
}

impl Segment {
    /// Reads everything anew and believes nothing that was checked before.
    pub(crate) fn check(&self) -> Result<Counted> {
        let counted = self.check_while(&mut |_| true)?;
        Ok(counted.expect("nobody stopped it"))
    }

    /// The same, for who wants to do something else after each block: he is told how many bytes of
    /// data were read so far. `None` once he has had enough.
    pub(crate) fn check_while(
        &self,
        go_on: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<Counted>> {
        self.recheck_footer()?;
        self.read_index()?;
        let properties = self.read_properties()?;
        if properties != self.meta {
            return Err(self.disagrees("its properties differ from the manifest's"));
        }
        let Some(counted) = self.check_data(go_on)? else { return Ok(None) };
        let same = counted.entries == self.meta.entries
            && counted.deletes == self.meta.deletes
            && counted.sequence_max == self.meta.sequence_max;
        match same {
            true => Ok(Some(counted)),
            false => Err(self.disagrees("it holds other entries than it says")),
        }
    }

    /// All but the data: that it is the segment which the manifest means, and can be searched.
    pub(crate) fn check_frame(&self) -> Result<()> {
        self.read_index()?;
        self.filter()?;
        if self.read_properties()? != self.meta {
            return Err(self.disagrees("its properties differ from the manifest's"));
        }
        Ok(())
    }

    fn check_data(&self, go_on: &mut dyn FnMut(u64) -> bool) -> Result<Option<Counted>> {
        let filter = self.read_filter()?;
        let mut counted = Counted::default();
        let mut last: Option<(Vec<u8>, Tag)> = None;
        for number in 0..self.blocks()? {
            let lied = |what| self.lied(number, Malformed(what));
            let mut cursor = self.data_block(number, Check::Always, Vec::new())?;
            cursor.seek(None).map_err(|malformed| self.lied(number, malformed))?;
            if !cursor.is_valid() {
                return Err(lied("a block without entries"));
            }
            let from = self.lower_bound(number)?;
            let is_before = |(key, tag): &(Vec<u8>, Tag)| {
                compare((cursor.key(), cursor.tag()), (key, *tag)) == Ordering::Less
            };
            if from.as_ref().is_some_and(is_before) {
                return Err(lied("the block does not begin where the index says"));
            }
            while cursor.is_valid() {
                let (key, tag) = (cursor.key(), cursor.tag());
                let (last_key, last_tag) = last.get_or_insert((Vec::new(), Tag::NEWEST));
                if counted.entries == 0 && key != self.meta.smallest {
                    return Err(lied("the first key is not the smallest"));
                }
                if counted.entries > 0
                    && compare((last_key, *last_tag), (key, tag)) != Ordering::Less
                {
                    return Err(lied("entries out of order"));
                }
                let hash = hash(key);
                if !filter.may_contain(hash) {
                    return Err(lied("a key that the filter denies"));
                }
                if !cursor.is_found_by(hash) {
                    return Err(lied("an entry that its fingerprint hides"));
                }
                last_key.clear();
                last_key.extend_from_slice(key);
                *last_tag = tag;
                counted.entries += 1;
                counted.deletes += u64::from(tag.kind() == Kind::Delete);
                counted.sequence_max = counted.sequence_max.max(tag.sequence());
                cursor.next().map_err(|malformed| self.lied(number, malformed))?;
            }
            let to = self.lower_bound(number + 1)?;
            if let (Some((key, tag)), Some((to, bound))) = (&last, &to)
                && compare((key, *tag), (to, *bound)) != Ordering::Less
            {
                return Err(lied("the block does not end where the index says"));
            }
            counted.blocks += 1;
            // Blocks are of about the same size.
            let read = self.meta.bytes as f64 * counted.blocks as f64 / self.blocks()? as f64;
            if !go_on(read as u64) {
                return Ok(None);
            }
        }
        if last.is_none_or(|(key, _)| key != self.meta.largest) {
            return Err(self.disagrees("it does not end with its largest key"));
        }
        Ok(Some(counted))
    }

    fn disagrees(&self, what: &'static str) -> Error {
        Error::corrupt(&self.path, 0, what)
    }
}
