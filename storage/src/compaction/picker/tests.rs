//! The picker as data: a tree as text in, plans as text out.

use super::*;
use crate::planted::Planted;

fn limits() -> Limits {
    Limits {
        level0_segments: 2,
        level0_bytes: 100,
        base_bytes_max: 100,
        level_step: 10,
        planted: Planted::default(),
    }
}

/// A tree as text: levels apart by `|`, segments as `id:smallest-largest:bytes`, and how many
/// hundredths of the entries are deletes behind a second colon. After `||` come the bottom's.
fn parse(tree: &str) -> [Vec<SegmentMeta>; LEVELS] {
    let mut levels: [Vec<SegmentMeta>; LEVELS] = Default::default();
    let (upper, bottom) = tree.split_once("||").unwrap_or((tree, ""));
    let numbered = upper.split('|').enumerate().chain([(BOTTOM, bottom)]);
    for (level, segments) in numbered {
        for segment in segments.split_whitespace() {
            let parts: Vec<&str> = segment.split([':', '-']).collect();
            let id = parts[0].parse().unwrap();
            levels[level].push(SegmentMeta {
                id,
                bytes: parts[3].parse().unwrap(),
                entries: 100,
                deletes: parts.get(4).map_or(0, |deletes| deletes.parse().unwrap()),
                smallest: Bytes::copy_from_slice(parts[1].as_bytes()),
                largest: Bytes::copy_from_slice(parts[2].as_bytes()),
                sequence_max: id,
            });
        }
    }
    levels
}

fn shape(levels: &[Vec<SegmentMeta>; LEVELS]) -> Shape<'_> {
    levels.each_ref().map(|level| level.iter().collect())
}

fn show(plan: Option<&Plan>) -> String {
    plan.map_or("nothing".into(), |plan| {
        let verb = if plan.is_move { "move" } else { "merge" };
        let (from, to) = (plan.from, plan.to);
        format!("{verb} {from} {:?} into {to} {:?}", plan.inputs, plan.overlapped)
    })
}

/// What is picked, and what beside that, until nothing more is.
fn check(tree: &str, expected: &[&str]) {
    let levels = parse(tree);
    let shape = shape(&levels);
    let mut plans: Vec<Plan> = Vec::new();
    while let Some(plan) = pick(&shape, &limits(), &plans.iter().collect::<Vec<_>>()) {
        plans.push(plan);
    }
    let shown: Vec<String> = plans.iter().map(|plan| show(Some(plan))).collect();
    assert_eq!(shown, expected, "{tree}");
}

fn check_idle(tree: &str, oldest_reader: Sequence, expected: &str) {
    let levels = parse(tree);
    let plan = pick_idle(&shape(&levels), &limits(), &[], 5, oldest_reader);
    assert_eq!(show(plan.as_ref()), expected, "{tree}");
}

#[test]
fn the_bottom_decides_how_large_the_others_may_be() {
    let check = |tree: &str, base, targets: &[u64]| {
        let levels = parse(tree);
        let found = limits().targets(&shape(&levels));
        assert_eq!((found.base, &found.bytes_max[base..BOTTOM]), (base, targets), "{tree}");
    };
    check("", 6, &[]);
    check("1:a-z:5000", 6, &[]);
    check("|| 1:a-z:100", 6, &[]);
    check("|| 1:a-z:101", 5, &[100]);
    check("|| 1:a-z:1010", 4, &[100, 101]);
    check("|| 1:a-z:100000", 3, &[100, 1000, 10_000]);
    // From a time when the levels grew from above.
    check("| 1:a-z:30 | 2:a-z:1010", 4, &[100, 101]);
    check(
        "|| 1:a-z:18446744073709551615",
        1,
        &[
            184467440737095,
            1844674407370955,
            18446744073709551,
            184467440737095516,
            1844674407370955161,
        ],
    );
}

#[test]
fn nothing_is_due_below_the_limits() {
    check("", &[]);
    check("1:a-z:99", &[]);
    check("|| 1:a-z:999999999", &[]);
    check("1:a-z:10 | | | | | 2:a-z:100 || 3:a-z:1000", &[]);
}

#[test]
fn level_0_goes_down_as_a_whole_onto_what_it_overlaps() {
    check("2:a-e:9 1:d-g:9", &["merge 0 [2, 1] into 6 []"]);
    check("1:a-e:100", &["move 0 [1] into 6 []"]);
    check("4:b-e:9 3:d-g:9 || 7:a-b:9 8:c-d:9 9:h-i:9", &["merge 0 [4, 3] into 6 [7, 8]"]);
}

#[test]
fn level_0_goes_past_empty_levels_and_no_others() {
    check("4:b-e:9 3:d-g:9 || 7:a-b:101", &["merge 0 [4, 3] into 5 []"]);
    let old = "4:b-e:50 3:d-g:50 | | 6:k-l:9 || 7:a-b:50";
    check(old, &["move 2 [6] into 6 []", "merge 0 [4, 3] into 2 []"]);
    let old = "4:b-e:50 3:d-g:50 | | 6:a-l:9 || 7:a-b:50";
    check(old, &["merge 2 [6] into 6 [7]"]);
}

#[test]
fn what_lies_in_a_gap_between_the_inputs_takes_part() {
    let tree = "4:a-b:9 3:x-z:9 || 7:a-b:9 8:k-l:9 9:z-zz:9";
    check(tree, &["merge 0 [4, 3] into 6 [7, 8, 9]"]);
}

#[test]
fn keys_written_in_order_are_moved_and_not_rewritten() {
    check("2:m-z:9 1:d-g:9 || 7:a-b:9", &["move 0 [1] into 6 []"]);
    check("2:m-z:9 1:d-g:9 || 7:a-d:9", &["merge 0 [2, 1] into 6 [7]"]);
    // The deletes would stay for ever.
    check("2:m-z:9 1:d-g:9:1 || 7:a-b:9", &["merge 0 [2, 1] into 6 []"]);
}

#[test]
fn few_bytes_are_merged_with_each_other_before_they_cost_a_level() {
    let four = "4:a-z:9 3:a-z:9 2:a-z:9 1:a-z:9";
    check(&format!("{four} || 9:a-z:100"), &["merge 0 [4, 3, 2, 1] into 6 [9]"]);
    check(&format!("{four} || 8:a-m:100 9:n-z:100"), &["merge 0 [4, 3, 2, 1] into 5 []"]);
    let under = "| | | | | 8:a-m:200 9:n-z:200 || 10:a-z:1000";
    let down = "merge 5 [8] into 6 [10]";
    check(&format!("{four} {under}"), &[down, "merge 0 [4, 3, 2, 1] into 0 []"]);
    // What was merged so already is left alone until the others are as much.
    check(&format!("{four} 11:a-z:40 {under}"), &[down, "merge 0 [4, 3, 2, 1] into 0 []"]);
    let more = four.replace(":9", ":10");
    check(&format!("{more} 11:a-z:40 {under}"), &[down, "merge 0 [4, 3, 2, 1, 11] into 0 []"]);
    // It comes down once it is worth it. Until the other compaction is over, it waits.
    check(&format!("{more} 11:a-z:61 {under}"), &[down]);
}

#[test]
fn the_cheapest_segment_of_the_fullest_level_is_first() {
    let bottom = "|| 5:b-e:900 6:h-h:200";
    let tree = format!("| | | | | 2:a-c:60 3:d-f:60 4:g-i:60 {bottom}");
    // The third costs 200 bytes where the others cost 900; the second would write what the first does.
    check(&tree, &["merge 5 [4] into 6 [6]", "merge 5 [2] into 6 [5]"]);
    let deletes = tree.replace("3:d-f:60", "3:d-f:60:99").replace("h-h:200", "h-h:400");
    check(&deletes, &["merge 5 [3] into 6 [5]"]);
    check("| | | | | 2:a-c:110 || 5:d-e:900", &["move 5 [2] into 6 []"]);
}

#[test]
fn what_is_on_its_way_down_counts_no_more() {
    let tree = "| | | | | 2:a-b:60 3:c-d:60 4:e-f:30 || 5:a-b:400 6:c-d:400 7:e-f:100";
    check(tree, &["merge 5 [4] into 6 [7]", "merge 5 [2] into 6 [5]"]);
}

#[test]
fn an_idle_store_is_merged_until_little_is_above_the_bottom() {
    check_idle("2:a-z:4 1:a-z:1 || 9:a-z:100", 99, "nothing");
    check_idle("2:a-z:4 1:a-z:2 || 9:a-z:100", 99, "merge 0 [2, 1] into 6 [9]");
    check_idle(
        "1:a-z:6 | | | | | 3:a-k:50 4:l-m:40 || 9:a-z:1000",
        99,
        "merge 0 [1] into 5 [3, 4]",
    );
    check_idle(
        "| | | | | 3:a-k:30 4:l-m:30 || 9:a-k:500 10:l-z:400",
        99,
        "merge 5 [4] into 6 [10]",
    );
    check_idle("| | | | | 3:a-k:20 4:l-m:20 || 9:a-k:500 10:l-z:500", 99, "nothing");
}

#[test]
fn deletes_at_the_bottom_are_swept_once_nobody_reads_what_they_hid() {
    check_idle("|| 8:a-b:100:10", 8, "nothing");
    check_idle("|| 7:a-b:100 8:c-d:100:11", 8, "merge 6 [8] into 6 []");
    check_idle("|| 7:a-b:100 8:c-d:100:11", 7, "nothing");
}

#[test]
fn all_of_a_level_goes_down_at_once() {
    let levels = parse("| | | | | 2:a-c:1 3:d-f:1 || 5:b-e:900 6:h-h:200");
    let shape = shape(&levels);
    let show = |level| show(whole_level(&shape, &limits(), level).as_ref());
    assert_eq!(show(5), "merge 5 [2, 3] into 6 [5]");
    assert_eq!(show(4), "nothing");
    assert_eq!(show(BOTTOM), "nothing");
}
