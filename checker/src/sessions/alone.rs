//! What each guarantee demands by itself.

use std::collections::HashMap;

use super::order::{Constraints, Why};
use crate::verdict::Guarantee;

/// A session's own writes of one key that its reads are held against; older ones are let go, so that
/// a session that writes and reads one key without end costs no more than its length.
const OWN_WRITES_MAX: usize = 64;

/// The session's earlier writes of a key come before what it reads.
pub(super) fn read_your_writes(constraints: &mut Constraints<'_>) {
    for steps in &constraints.sessions.clients {
        let mut own: HashMap<u32, Vec<u32>> = HashMap::new();
        for step in steps {
            for seen in &step.reads {
                for write in own.get(&seen.key).into_iter().flatten() {
                    let why = why(Guarantee::ReadYourWrites, *write, step.record);
                    constraints.saw(*write, *seen, why);
                }
            }
            for (key, _) in step.writes.iter().filter(|_| step.known) {
                let own = own.entry(*key).or_default();
                if own.len() == OWN_WRITES_MAX {
                    own.remove(0);
                }
                own.push(step.record);
            }
        }
    }
}

/// What the session read of a key comes before what it reads of it later; so does whatever else was
/// written together with what it read.
pub(super) fn monotonic_reads(constraints: &mut Constraints<'_>) {
    let sessions = constraints.sessions;
    for steps in &sessions.clients {
        // For each key what was seen, and in which read; all others come before these.
        let mut known: HashMap<u32, Vec<(u32, u32)>> = HashMap::new();
        for step in steps {
            for seen in &step.reads {
                let earlier = known.remove(&seen.key).unwrap_or_default();
                for (write, first) in earlier {
                    let why = why(Guarantee::MonotonicReads, first, step.record);
                    constraints.saw(write, *seen, why);
                }
            }
            for seen in &step.reads {
                let Some(writer) = seen.writer else { continue };
                known.insert(seen.key, vec![(writer, step.record)]);
            }
            for seen in &step.reads {
                let Some(writer) = seen.writer else { continue };
                for (key, _) in &sessions.step(writer).writes {
                    let known = known.entry(*key).or_default();
                    if *key != seen.key && !known.iter().any(|(write, _)| *write == writer) {
                        known.push((writer, step.record));
                    }
                }
            }
        }
    }
}

/// A session's writes are ordered, and who reads several keys at once and sees one of them sees
/// those before it.
pub(super) fn monotonic_writes(constraints: &mut Constraints<'_>) {
    order_writes(constraints);
    let sessions = constraints.sessions;
    // For each client and key its known writes, by their place.
    let mut written: HashMap<(u32, u32), Vec<u32>> = HashMap::new();
    for (client, steps) in (0..).zip(&sessions.clients) {
        for (place, step) in (0..).zip(steps).filter(|(_, step)| step.known) {
            for (key, _) in &step.writes {
                written.entry((client, *key)).or_default().push(place);
            }
        }
    }
    each_pair(constraints, |writer, other| {
        let (client, place) = sessions.places[writer as usize];
        let places = written.get(&(client, other))?;
        let before = places.partition_point(|at| *at < place).checked_sub(1)?;
        let write = sessions.clients[client as usize][places[before] as usize].record;
        Some((write, why(Guarantee::MonotonicWrites, write, writer)))
    });
}

/// What a session read comes before what it writes later, and who reads several keys at once and
/// sees that sees what the session had read.
pub(super) fn writes_follow_reads(constraints: &mut Constraints<'_>) {
    order_after_reads(constraints);
    let sessions = constraints.sessions;
    // For each client and key its reads, by their place.
    let mut read: HashMap<(u32, u32), Vec<(u32, u32)>> = HashMap::new();
    for (client, steps) in (0..).zip(&sessions.clients) {
        for (place, step) in (0..).zip(steps) {
            for seen in &step.reads {
                let Some(writer) = seen.writer else { continue };
                read.entry((client, seen.key)).or_default().push((place, writer));
            }
        }
    }
    each_pair(constraints, |writer, other| {
        let (client, place) = sessions.places[writer as usize];
        let reads = read.get(&(client, other))?;
        let (at, write) = reads[reads.partition_point(|(at, _)| *at < place).checked_sub(1)?];
        let reader = sessions.clients[client as usize][at as usize].record;
        Some((write, why(Guarantee::WritesFollowReads, reader, writer)))
    });
}

/// Each known write of a session comes before the next one.
pub(super) fn order_writes(constraints: &mut Constraints<'_>) {
    for steps in &constraints.sessions.clients {
        let mut previous: Option<u32> = None;
        for step in steps.iter().filter(|step| !step.writes.is_empty()) {
            if let Some(previous) = previous {
                let why = why(Guarantee::MonotonicWrites, previous, step.record);
                constraints.order(previous, step.record, why);
            }
            if step.known {
                previous = Some(step.record);
            }
        }
    }
}

/// Each write that a session read comes before those that the session writes after that: before a
/// waypoint that comes before the session's next write, and before its next waypoint.
pub(super) fn order_after_reads(constraints: &mut Constraints<'_>) {
    for steps in &constraints.sessions.clients {
        let mut waypoint: Option<u32> = None;
        let mut is_new = false;
        for step in steps {
            for writer in step.reads.iter().filter_map(|seen| seen.writer) {
                if !is_new {
                    let next = constraints.waypoint();
                    if let Some(previous) = waypoint {
                        constraints.lead_on(previous, next);
                    }
                    (waypoint, is_new) = (Some(next), true);
                }
                if let Some(waypoint) = waypoint {
                    let why = why(Guarantee::WritesFollowReads, step.record, step.record);
                    constraints.order(writer, waypoint, why);
                }
            }
            if let Some(waypoint) = waypoint.filter(|_| !step.writes.is_empty()) {
                constraints.lead_on(waypoint, step.record);
                is_new = false;
            }
        }
    }
}

/// For every read of several keys: whoever saw one write, what else must it have seen of another
/// key?
fn each_pair(constraints: &mut Constraints<'_>, demanded: impl Fn(u32, u32) -> Option<(u32, Why)>) {
    for steps in &constraints.sessions.clients {
        for step in steps.iter().filter(|step| step.reads.len() > 1) {
            for seen in &step.reads {
                for through in step.reads.iter().filter(|through| through.key != seen.key) {
                    let Some(writer) = through.writer else { continue };
                    if let Some((write, why)) = demanded(writer, seen.key) {
                        constraints.saw(write, *seen, why.seen_by(step.record));
                    }
                }
            }
        }
    }
}

pub(super) fn why(guarantee: Guarantee, first: u32, second: u32) -> Why {
    Why { guarantee: Some(guarantee), first, second, seen_by: None }
}
