//! The order of a list's versions: that of its elements, since each read shows all of them so far
//! (Kingsbury and Alvaro 2020, section 4: traceability).

use super::dependencies::Dependencies;
use super::graph::kind;

/// Orders the versions of every list whose reads agree.
pub(super) fn order(dependencies: &mut Dependencies<'_>) {
    let facts = dependencies.facts;
    let objects = &facts.transactions.objects;
    let mut is_seen = vec![false; facts.transactions.values.len()];
    for object in objects.iter().filter(|object| object.is_list) {
        for value in &object.longest {
            is_seen[*value as usize] = true;
        }
    }
    let mut installs = facts.installs.chunk_by(|a, b| a.0 == b.0).peekable();
    for (number, object) in (0u32..).zip(objects) {
        let installed = installs.next_if(|chunk| chunk[0].0 == number).unwrap_or_default();
        if !object.is_list || !facts.orderly[number as usize] {
            continue;
        }
        let mut previous = object.initial;
        for value in &object.longest {
            if let Some(writer) = facts.source(*value) {
                dependencies.follow(previous, writer);
            }
            if let Some(writer) = facts.source(previous) {
                dependencies.write(writer, previous);
            }
            previous = *value;
        }
        let unseen: Vec<(u32, u32)> = installed
            .iter()
            .filter(|(_, _, value)| !is_seen[*value as usize])
            .map(|(_, who, value)| (*who, *value))
            .collect();
        order_unseen(dependencies, previous, &unseen);
    }
}

/// What nobody has seen comes after all that somebody has: it would have been seen.
fn order_unseen(dependencies: &mut Dependencies<'_>, last: u32, unseen: &[(u32, u32)]) {
    let facts = dependencies.facts;
    let writer = facts.source(last);
    let (reader, _) = facts.successor[last as usize];
    let follows = |who: &u32| Some(*who) == writer || *who == reader;
    let mut past = dependencies.past(last);
    let follower = unseen.iter().copied().find(|(who, _)| follows(who));
    if let Some((who, left)) = follower {
        dependencies.follow(last, who);
        past = dependencies.past(left);
        dependencies.write(who, left);
    }
    if let Some(writer) = writer {
        dependencies.write(writer, last);
    }
    for (who, left) in unseen {
        if Some((*who, *left)) != follower {
            let node = dependencies.node(*who);
            dependencies.builder.edge(past, node, kind::ON);
        }
    }
}
