//! Which segments to merge next: a pure function from the tree's shape to a plan.
//!
//! Leveled compaction as in LevelDB: level 0 is merged into level 1 once it has too many segments,
//! and a segment of a deeper level goes down once the level is too large. The level that is
//! furthest beyond its limit comes first. Within a level the turn goes round by key, so that each
//! part of it is merged equally often.

use crate::levels::LEVELS;
use crate::planted::{Bug, Planted};
use crate::segment::SegmentMeta;

/// When a level is too large.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) level0_segments: usize,
    pub(crate) level1_bytes: u64,
    pub(crate) level_step: u64,
    pub(crate) planted: Planted,
}

impl Limits {
    fn bytes_max(&self, level: usize) -> u64 {
        let steps = u32::try_from(level.saturating_sub(1)).unwrap_or(u32::MAX);
        self.level1_bytes.saturating_mul(self.level_step.saturating_pow(steps))
    }

    /// How full a level is, in thousandths.
    fn fullness(&self, level: usize, segments: &[&SegmentMeta]) -> u64 {
        if level == 0 {
            return segments.len() as u64 * 1000 / self.level0_segments as u64;
        }
        let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        (u128::from(bytes) * 1000 / u128::from(self.bytes_max(level)))
            .try_into()
            .unwrap_or(u64::MAX)
    }
}

/// The uppermost sorted level that has room for so much.
pub(crate) fn level_for(bytes: u64, limits: &Limits) -> usize {
    (1..LEVELS).find(|&level| bytes <= limits.bytes_max(level)).unwrap_or(LEVELS - 1)
}

/// The segments of each level: level 0 newest first, the others by key.
pub(crate) type Shape<'a> = [Vec<&'a SegmentMeta>; LEVELS];

/// For each level the largest key of what was last taken from it.
pub(crate) type Resume = [Option<Vec<u8>>; LEVELS];

/// What to merge: `inputs` of level `from` and what they overlap in the level below go into the
/// level below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) from: usize,
    /// Ids in level `from`, in that level's order.
    pub(crate) inputs: Vec<u64>,
    /// Ids in the level below, by key.
    pub(crate) overlapped: Vec<u64>,
}

impl Plan {
    pub(crate) fn to(&self) -> usize {
        self.from + 1
    }

    /// One segment that meets nothing below: it need not be rewritten.
    pub(crate) fn is_move(&self) -> bool {
        self.inputs.len() == 1 && self.overlapped.is_empty()
    }
}

/// The most urgent compaction, if any is due.
pub(crate) fn pick(shape: &Shape<'_>, limits: &Limits, resume: &Resume) -> Option<Plan> {
    // The last level has nowhere to go. Of equally full levels the upper one comes first.
    let fullness = |level: usize| limits.fullness(level, &shape[level]);
    let from = (0..LEVELS - 1).rev().max_by_key(|&level| fullness(level))?;
    if shape[from].is_empty() || fullness(from) < if from == 0 { 1000 } else { 1001 } {
        return None;
    }
    if from == 0 && limits.planted.has(Bug::CompactNewestFirst) {
        return Some(plan(shape, 0, &shape[0][..1]));
    }
    if from == 0 {
        return Some(pick_level0(shape));
    }
    let after = resume[from].as_deref();
    let next = shape[from].iter().find(|segment| after.is_none_or(|key| &*segment.smallest > key));
    let chosen = next.or(shape[from].first())?;
    Some(plan(shape, from, &[chosen]))
}

/// A plan to push all of a level down.
pub(crate) fn whole_level(shape: &Shape<'_>, from: usize) -> Option<Plan> {
    let any = from + 1 < LEVELS && !shape[from].is_empty();
    any.then(|| plan(shape, from, &shape[from]))
}

/// All of level 0, since its segments overlap each other; but if the oldest overlaps nothing, as
/// when keys are written in order, that one alone, which is then only moved.
fn pick_level0(shape: &Shape<'_>) -> Plan {
    if let Some((oldest, newer)) = shape[0].split_last() {
        let alone = newer.iter().all(|other| !other.overlaps(&oldest.smallest, &oldest.largest));
        let plan = plan(shape, 0, &[oldest]);
        if alone && plan.is_move() {
            return plan;
        }
    }
    plan(shape, 0, &shape[0])
}

fn plan(shape: &Shape<'_>, from: usize, inputs: &[&SegmentMeta]) -> Plan {
    Plan {
        from,
        inputs: inputs.iter().map(|segment| segment.id).collect(),
        overlapped: span(&shape[from + 1], inputs).iter().map(|segment| segment.id).collect(),
    }
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
mod tests {
    use bytes::Bytes;

    use super::*;

    fn limits() -> Limits {
        let planted = Planted::default();
        Limits { level0_segments: 2, level1_bytes: 100, level_step: 10, planted }
    }

    /// A tree as text: levels apart by `|`, segments as `id:smallest-largest:bytes`.
    fn parse(tree: &str) -> [Vec<SegmentMeta>; LEVELS] {
        let mut levels: [Vec<SegmentMeta>; LEVELS] = Default::default();
        for (level, segments) in tree.split('|').enumerate() {
            for segment in segments.split_whitespace() {
                let parts: Vec<&str> = segment.split([':', '-']).collect();
                levels[level].push(SegmentMeta {
                    id: parts[0].parse().unwrap(),
                    bytes: parts[3].parse().unwrap(),
                    entries: 1,
                    deletes: 0,
                    smallest: Bytes::copy_from_slice(parts[1].as_bytes()),
                    largest: Bytes::copy_from_slice(parts[2].as_bytes()),
                    sequence_max: 1,
                });
            }
        }
        levels
    }

    fn check(tree: &str, resume: &[(usize, &str)], expected: &str) {
        let levels = parse(tree);
        let shape = levels.each_ref().map(|level| level.iter().collect());
        let mut places = Resume::default();
        for (level, key) in resume {
            places[*level] = Some(key.as_bytes().to_vec());
        }
        let plan = pick(&shape, &limits(), &places).map_or("nothing".into(), |plan| {
            let verb = if plan.is_move() { "move" } else { "merge" };
            format!("{verb} {} {:?} into {:?}", plan.from, plan.inputs, plan.overlapped)
        });
        assert_eq!(plan, expected, "{tree}");
    }

    #[test]
    fn rows_that_come_all_at_once_go_where_there_is_room() {
        let check = |bytes, level| assert_eq!(level_for(bytes, &limits()), level, "{bytes}");
        check(0, 1);
        check(100, 1);
        check(101, 2);
        check(1000, 2);
        check(10_000_000, 6);
        check(u64::MAX, 6);
    }

    #[test]
    fn nothing_is_due_below_the_limits() {
        check("", &[], "nothing");
        check("1:a-z:500", &[], "nothing");
        check("| 1:a-c:50 2:d-f:50", &[], "nothing");
        check("| | | | | | 1:a-z:999999999", &[], "nothing");
    }

    #[test]
    fn level_0_goes_down_as_a_whole_onto_what_it_overlaps() {
        check("2:a-e:9 1:d-g:9", &[], "merge 0 [2, 1] into []");
        check("4:b-e:9 3:d-g:9 | 7:a-b:9 8:c-d:9 9:h-i:9", &[], "merge 0 [4, 3] into [7, 8]");
    }

    #[test]
    fn what_lies_in_a_gap_between_the_inputs_takes_part() {
        let tree = "4:a-b:9 3:x-z:9 | 7:a-b:9 8:k-l:9 9:z-zz:9";
        check(tree, &[], "merge 0 [4, 3] into [7, 8, 9]");
    }

    #[test]
    fn keys_written_in_order_are_moved_and_not_rewritten() {
        check("2:m-z:9 1:d-g:9 | 7:a-b:9", &[], "move 0 [1] into []");
        check("2:m-z:9 1:d-g:9 | 7:a-d:9", &[], "merge 0 [2, 1] into [7]");
    }

    #[test]
    fn the_fullest_level_is_first_and_turns_go_round() {
        let tree = "1:a-b:9 | 2:a-c:80 3:d-f:80 4:g-i:80 | 5:b-e:900 6:h-h:200";
        check(tree, &[], "merge 1 [2] into [5]");
        check(tree, &[(1, "c")], "merge 1 [3] into [5]");
        check(tree, &[(1, "f")], "merge 1 [4] into [6]");
        check(tree, &[(1, "i")], "merge 1 [2] into [5]");
        check(
            "| 2:a-c:110 | 5:b-e:900 6:h-h:900",
            &[],
            "merge 2 [5] into []".replace("merge", "move").as_str(),
        );
    }
}
