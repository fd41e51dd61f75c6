//! What each key holds at each version: it follows from the two, so that millions of writes can be
//! checked against a few numbers.
//!
//! Keys come in *groups* of one to eight. A write takes a whole group from one version to the next, in
//! one batch: so whoever finds two versions in a group has seen half a batch.

use std::ops::RangeInclusive;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use kvorum_storage::Batch;

use super::random::{Random, hash};

/// Groups, and what is in them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Model {
    pub(crate) groups: u32,
    pub(crate) seed: u64,
    /// No value is longer.
    pub(crate) value_bytes_max: u64,
}

/// What may have been found of a group: the versions that it can be.
pub(crate) type Found = RangeInclusive<u32>;

impl Model {
    /// How many keys a group has.
    pub(crate) fn members(&self, group: u32) -> u32 {
        match hash(&[self.seed, u64::from(group)]) % 8 {
            0..4 => 1,
            4..7 => 3,
            _ => 8,
        }
    }

    /// Keys of a group are neighbours, and some are long.
    pub(crate) fn key(&self, group: u32, member: u32) -> Bytes {
        let tail = if group.is_multiple_of(101) { 1000 } else { group as usize % 23 };
        format!("group{group:06}/{member}{}", "-".repeat(tail)).into()
    }

    /// The group and member that a key belongs to.
    pub(crate) fn parse(&self, key: &[u8]) -> Result<(u32, u32)> {
        let text = std::str::from_utf8(key)?;
        let numbers = text.strip_prefix("group").and_then(|rest| rest.split_once('/'));
        let Some((group, member)) = numbers else { bail!("a key that nobody wrote: {text:?}") };
        let (group, member) = (group.parse()?, member.trim_end_matches('-').parse()?);
        let is_ours =
            group < self.groups && member < self.members(group) && self.key(group, member) == *key;
        ensure!(is_ours, "a key that nobody wrote: {text:?}");
        Ok((group, member))
    }

    /// A member's value at a version; none if it is deleted then.
    pub(crate) fn value(&self, group: u32, member: u32, version: u32) -> Option<Bytes> {
        let of = [self.seed, u64::from(group), u64::from(member), u64::from(version)];
        let mut random = Random::new(hash(&of));
        if version == 0 || random.one_in(8) {
            return None;
        }
        let bytes = match random.below(256) {
            0 => 30_000 + random.below(40_000),
            1..12 => 2_000 + random.below(4_000),
            _ => random.below(300),
        };
        let mut value = version.to_le_bytes().to_vec();
        let bytes = bytes.min(self.value_bytes_max) as usize;
        // Half of them can be compressed.
        let word = random.next();
        while value.len() < bytes {
            let next = if word.is_multiple_of(2) { word } else { random.next() };
            value.extend_from_slice(&next.to_le_bytes());
        }
        Some(value.into())
    }

    /// Adds to a batch what takes a group to a version.
    pub(crate) fn write(&self, batch: &mut Batch, group: u32, version: u32) {
        for member in 0..self.members(group) {
            let key = self.key(group, member);
            match self.value(group, member, version) {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            };
        }
    }

    /// Checks what was found of a group, member by member: that it is one of these versions, whole.
    /// Answers with those that it can be: several only if all members are deleted in all of them.
    pub(crate) fn check(
        &self,
        group: u32,
        found: &[Option<Bytes>],
        versions: RangeInclusive<u32>,
    ) -> Result<Found> {
        ensure!(found.len() == self.members(group) as usize, "group {group}: not all was read");
        if let Some(value) = found.iter().flatten().next() {
            let Some(version) = value.first_chunk::<4>() else {
                bail!("group {group}: a value of {} bytes", value.len());
            };
            let version = u32::from_le_bytes(*version);
            ensure!(
                versions.contains(&version),
                "group {group} is of version {version}, and must be one of {versions:?}"
            );
            ensure!(self.is(group, found, version), "group {group} is no whole version {version}");
            return Ok(version..=version);
        }
        let mut matching = versions.clone().filter(|version| self.is(group, found, *version));
        let Some(first) = matching.next() else {
            bail!("group {group} is not there, and must be of one of {versions:?}");
        };
        Ok(first..=matching.last().unwrap_or(first))
    }

    fn is(&self, group: u32, found: &[Option<Bytes>], version: u32) -> bool {
        let mut members = (0..).zip(found);
        members.all(|(member, found)| self.value(group, member, version) == *found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: Model = Model { groups: 300, seed: 7, value_bytes_max: 5000 };

    fn at(group: u32, version: u32) -> Vec<Option<Bytes>> {
        (0..MODEL.members(group)).map(|member| MODEL.value(group, member, version)).collect()
    }

    #[test]
    fn keys_are_read_back() {
        for group in 0..MODEL.groups {
            for member in 0..MODEL.members(group) {
                assert_eq!(MODEL.parse(&MODEL.key(group, member)).unwrap(), (group, member));
            }
        }
        assert!(MODEL.parse(b"group000001/9").is_err());
        assert!(MODEL.parse(b"other").is_err());
    }

    #[test]
    fn what_is_not_whole_or_not_in_time_is_told() {
        let large = (0..MODEL.groups).find(|group| MODEL.members(*group) == 8).unwrap();
        assert_eq!(MODEL.check(large, &at(large, 5), 3..=9).unwrap(), 5..=5);
        assert!(MODEL.check(large, &at(large, 5), 6..=9).is_err(), "too old");
        assert!(MODEL.check(large, &at(large, 5), 1..=4).is_err(), "from the future");
        let mut half = at(large, 5);
        half[0] = at(large, 6)[0].clone();
        half[7] = at(large, 5)[7].clone();
        assert!(MODEL.check(large, &half, 3..=9).is_err(), "half a batch");
        assert!(MODEL.check(large, &vec![None; 8], 1..=1).is_err(), "nothing");
        assert_eq!(MODEL.check(large, &vec![None; 8], 0..=1).unwrap(), 0..=0);
    }
}
