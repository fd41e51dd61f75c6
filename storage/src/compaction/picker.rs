//! Which segments to merge next: a pure function from the tree's shape, and from what is being
//! merged already, to a plan.
//!
//! Leveled compaction. Level 0 is merged into the base level as a whole, once it has so many
//! segments or bytes; while these are few beside what they would be merged into, they are merged
//! with each other first. A segment of a level that is too large goes down one level: the one that
//! rewrites least there for each byte, deletes counting more than their bytes, since what they hide
//! goes with them. The level that is furthest beyond its target comes first.
//!
//! Several plans may be carried out at once. A [`Claim`] stands for each; what is picked takes no
//! segment of theirs, and puts nothing where they put something.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::shape::{BOTTOM, Limits, Shape, Targets, bytes_of};
use crate::key::Sequence;
use crate::levels::LEVELS;
use crate::planted::Bug;
use crate::segment::SegmentMeta;

/// Segments of level 0 are merged with each other only if that makes so many fewer.
const TIER_SEGMENTS_MIN: usize = 4;
/// And only if they are less than this part of what they would be merged into.
const TIER_PART: u64 = 4;
/// In an idle store a segment of the bottom level is written anew if more than one in so many of
/// its entries is a delete.
const DELETES_PART: u64 = 10;

/// What to merge: `inputs` of level `from` and what they overlap in level `to` go to level `to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Ids in level `from`, in that level's order.
    pub(crate) inputs: Vec<u64>,
    /// Ids in level `to`, by key.
    pub(crate) overlapped: Vec<u64>,
    /// One segment that meets nothing: it need not be rewritten.
    pub(crate) is_move: bool,
    /// Everything that it writes lies between these keys.
    pub(crate) range: (Bytes, Bytes),
}

impl Plan {
    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> {
        self.inputs.iter().chain(&self.overlapped).copied()
    }
}

/// A plan that is being carried out, as far as others must know.
pub(crate) type Claim = Plan;

/// What is claimed of a tree.
struct Taken<'c> {
    claims: &'c [&'c Claim],
    ids: BTreeSet<u64>,
}

impl Taken<'_> {
    fn of<'c>(claims: &'c [&'c Claim]) -> Taken<'c> {
        Taken { claims, ids: claims.iter().flat_map(|claim| claim.ids()).collect() }
    }

    fn admits(&self, plan: &Plan) -> bool {
        plan.ids().all(|id| !self.ids.contains(&id))
            && self.claims.iter().all(|claim| {
                let (a, b) = (&claim.range, &plan.range);
                let apart = claim.to != plan.to || a.1 < b.0 || b.1 < a.0;
                // Level 0 has an order of age, which only one at a time can keep.
                apart && (claim.from != 0 || plan.from != 0)
            })
    }

    /// Bytes of a level that are not on their way down already.
    fn bytes_left(&self, segments: &[&SegmentMeta]) -> u64 {
        let left = segments.iter().filter(|segment| !self.ids.contains(&segment.id));
        left.map(|segment| weight(segment)).sum()
    }
}

/// The most urgent compaction that can be begun, if any is due.
pub(crate) fn pick(shape: &Shape<'_>, limits: &Limits, claims: &[&Claim]) -> Option<Plan> {
    let targets = limits.targets(shape);
    let taken = Taken::of(claims);
    let mut due: Vec<(u64, usize)> = (0..BOTTOM)
        .map(|level| (fullness(shape, limits, &targets, &taken, level), level))
        .filter(|&(fullness, level)| fullness >= if level == 0 { 1000 } else { 1001 })
        .collect();
    // Of equally full levels the upper one comes first.
    due.sort_by_key(|&(fullness, level)| (std::cmp::Reverse(fullness), level));
    due.into_iter().find_map(|(_, level)| match level {
        0 => pick_level0(shape, limits, &targets, &taken),
        level => pick_sorted(shape, &targets, &taken, level),
    })
}

/// The compaction that an idle store gains most by, if any is worth its while: so that what lies
/// above the bottom level is at most so many hundredths of it. `oldest_reader` sees nothing older.
pub(crate) fn pick_idle(
    shape: &Shape<'_>,
    limits: &Limits,
    claims: &[&Claim],
    percent_max: u64,
    oldest_reader: Sequence,
) -> Option<Plan> {
    let targets = limits.targets(shape);
    let taken = Taken::of(claims);
    let above: u64 = shape[..BOTTOM].iter().map(|level| bytes_of(level)).sum();
    let bottom = bytes_of(&shape[BOTTOM]);
    if u128::from(above) * 100 > u128::from(bottom) * u128::from(percent_max) {
        let plan = (0..BOTTOM).find_map(|level| match level {
            0 => {
                let plan = || plan(shape, &targets, 0, &shape[0]);
                (!shape[0].is_empty()).then(plan).filter(|plan| taken.admits(plan))
            }
            level => pick_sorted(shape, &targets, &taken, level),
        });
        if plan.is_some() {
            return plan;
        }
    }
    // Deletes have nothing left to hide down there, once nobody reads what they hid.
    let is_burdened = |segment: &&&SegmentMeta| {
        segment.deletes * DELETES_PART > segment.entries && segment.sequence_max <= oldest_reader
    };
    let plans = shape[BOTTOM].iter().filter(is_burdened).map(|segment| Plan {
        from: BOTTOM,
        to: BOTTOM,
        inputs: vec![segment.id],
        overlapped: Vec::new(),
        is_move: false,
        range: (segment.smallest.clone(), segment.largest.clone()),
    });
    plans.into_iter().find(|plan| taken.admits(plan))
}

/// A plan to push all of a level down, to the bottom at last.
pub(crate) fn whole_level(shape: &Shape<'_>, limits: &Limits, from: usize) -> Option<Plan> {
    let any = from < BOTTOM && !shape[from].is_empty();
    any.then(|| plan(shape, &limits.targets(shape), from, &shape[from]))
}

/// How full a level is, in thousandths.
fn fullness(
    shape: &Shape<'_>,
    limits: &Limits,
    targets: &Targets,
    taken: &Taken<'_>,
    level: usize,
) -> u64 {
    let bytes = taken.bytes_left(&shape[level]);
    let thousandths = |part: u64, whole: u64| {
        let thousandths = u128::from(part) * 1000 / u128::from(whole.max(1));
        u64::try_from(thousandths).unwrap_or(u64::MAX)
    };
    if level == 0 {
        let free = shape[0].iter().filter(|segment| !taken.ids.contains(&segment.id)).count();
        let by_count = thousandths(free as u64, limits.level0_segments as u64);
        return by_count.max(thousandths(bytes, limits.level0_bytes));
    }
    if level < targets.base {
        // It costs reads, and there is no hurry.
        return if bytes > 0 { 1001 } else { 0 };
    }
    thousandths(bytes, targets.bytes_max[level])
}

/// All of level 0, since its segments overlap each other; but if the oldest overlaps nothing, as
/// when keys are written in order, that one alone, which is then only moved.
fn pick_level0(
    shape: &Shape<'_>,
    limits: &Limits,
    targets: &Targets,
    taken: &Taken<'_>,
) -> Option<Plan> {
    let admitted = |plan: Plan| taken.admits(&plan).then_some(plan);
    if limits.planted.has(Bug::CompactNewestFirst) {
        return admitted(plan(shape, targets, 0, &shape[0][..1]));
    }
    if let Some((oldest, newer)) = shape[0].split_last() {
        let alone = newer.iter().all(|other| !other.overlaps(&oldest.smallest, &oldest.largest));
        let plan = plan(shape, targets, 0, &[oldest]);
        if alone && plan.is_move {
            return admitted(plan);
        }
    }
    let whole = plan(shape, targets, 0, &shape[0]);
    let overlapped: u64 = shape[whole.to]
        .iter()
        .filter(|segment| whole.overlapped.contains(&segment.id))
        .map(|segment| segment.bytes)
        .sum();
    let is_little = bytes_of(&shape[0]).saturating_mul(TIER_PART) < overlapped;
    let tier = if is_little { pick_tier(&shape[0]) } else { None };
    tier.and_then(admitted).or_else(|| admitted(whole))
}

/// The newest segments of level 0 that are worth merging with each other: none is larger than all
/// newer ones together, so that each byte is merged few times.
fn pick_tier(flushed: &[&SegmentMeta]) -> Option<Plan> {
    let mut bytes = 0;
    let mut count = 0;
    for (number, segment) in flushed.iter().enumerate() {
        if number >= TIER_SEGMENTS_MIN && segment.bytes > bytes {
            break;
        }
        bytes += segment.bytes;
        count = number + 1;
    }
    let inputs = &flushed[..count];
    (count >= TIER_SEGMENTS_MIN).then(|| Plan {
        from: 0,
        to: 0,
        inputs: inputs.iter().map(|segment| segment.id).collect(),
        overlapped: Vec::new(),
        is_move: false,
        range: hull(inputs.iter().copied()),
    })
}

/// The segment of this level that costs least for what it brings.
fn pick_sorted(
    shape: &Shape<'_>,
    targets: &Targets,
    taken: &Taken<'_>,
    level: usize,
) -> Option<Plan> {
    let free = shape[level].iter().filter(|segment| !taken.ids.contains(&segment.id));
    let plans = free.filter_map(|segment| {
        let plan = plan(shape, targets, level, &[segment]);
        let below = &shape[plan.to];
        let overlapped = span(below, &[segment]).iter().map(|segment| segment.bytes).sum::<u64>();
        let cost = u128::from(overlapped) * 1000 / u128::from(weight(segment).max(1));
        // Among equals the oldest.
        taken.admits(&plan).then_some(((cost, segment.sequence_max), plan))
    });
    plans.min_by_key(|(rank, _)| *rank).map(|(_, plan)| plan)
}

/// The bytes that a segment stands for: deletes stand for what they hide as well.
fn weight(segment: &SegmentMeta) -> u64 {
    let hidden = u128::from(segment.bytes) * 2 * u128::from(segment.deletes)
        / u128::from(segment.entries.max(1));
    segment.bytes.saturating_add(u64::try_from(hidden).unwrap_or(u64::MAX))
}

fn plan(shape: &Shape<'_>, targets: &Targets, from: usize, inputs: &[&SegmentMeta]) -> Plan {
    let to = next_level(shape, targets, from);
    let overlapped = span(&shape[to], inputs);
    // A rewriting would rid the bottom of them.
    let has_deletes = to == BOTTOM && inputs.iter().any(|segment| segment.deletes > 0);
    Plan {
        from,
        to,
        inputs: inputs.iter().map(|segment| segment.id).collect(),
        overlapped: overlapped.iter().map(|segment| segment.id).collect(),
        is_move: inputs.len() == 1 && overlapped.is_empty() && !has_deletes,
        range: hull(inputs.iter().chain(overlapped).copied()),
    }
}

/// Where a level is merged to: down to the base, but never past what may be older.
fn next_level(shape: &Shape<'_>, targets: &Targets, from: usize) -> usize {
    let used = (from + 1..LEVELS).find(|&level| !shape[level].is_empty()).unwrap_or(BOTTOM);
    used.min(targets.base.max(from + 1))
}

fn hull<'m>(segments: impl Iterator<Item = &'m SegmentMeta> + Clone) -> (Bytes, Bytes) {
    let smallest = segments.clone().map(|segment| &segment.smallest).min();
    let largest = segments.map(|segment| &segment.largest).max();
    (smallest.cloned().unwrap_or_default(), largest.cloned().unwrap_or_default())
}

/// The part of a sorted level between the smallest and the largest key of the inputs. All of it
/// takes part, even what lies in a gap between two inputs: what they become may be one segment
/// across the gap, and the segments of a level must not overlap.
fn span<'s, 'm>(below: &'s [&'m SegmentMeta], inputs: &[&SegmentMeta]) -> &'s [&'m SegmentMeta] {
    let smallest = inputs.iter().map(|input| &input.smallest).min();
    let largest = inputs.iter().map(|input| &input.largest).max();
    let (Some(smallest), Some(largest)) = (smallest, largest) else { return &[] };
    let begin = below.partition_point(|segment| segment.largest < smallest);
    let end = below.partition_point(|segment| segment.smallest <= largest);
    &below[begin..end.max(begin)]
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod model;
