//! Lists that were read: whether there is one order of the elements that all of them show.

use super::facts::{Facts, NONE};
use super::finding::Finding;
use super::transactions::{ListRead, Micro, Transactions, small};
use crate::history::ELEMENTS_SHOWN_MAX;
use crate::verdict::Rule;

/// Checks every list that was read; one whose order is not known is not orderly from then on.
pub(super) fn check(facts: &mut Facts<'_>) {
    let transactions = facts.transactions;
    let mut position = vec![NONE; transactions.values.len()];
    for (number, object) in (0u32..).zip(&transactions.objects) {
        if !object.is_list {
            continue;
        }
        for (odd, list) in (0u32..).zip(&object.odd) {
            check_list(facts, number, ListRead::Odd(odd), list, &mut position);
        }
        let whole = ListRead::Prefix(small(object.longest.len()));
        check_list(facts, number, whole, &object.longest, &mut position);
        if !object.odd.is_empty() {
            find_incompatible(facts, number);
        }
    }
}

fn check_list(
    facts: &mut Facts<'_>,
    object: u32,
    list: ListRead,
    elements: &[u32],
    position: &mut [u32],
) {
    for (place, value) in (0..).zip(elements) {
        if !facts.is_written(*value) {
            find_unwritten(facts, object, list, (place, *value));
        }
        let Some(writer) = facts.source(*value) else { continue };
        if position[*value as usize] != NONE {
            find_duplicate(facts, object, list, place, writer);
        }
        position[*value as usize] = place;
        let before = facts.before[*value as usize];
        if before != NONE && facts.source(before).is_some() && position[before as usize] == NONE {
            find_reversed(facts, object, list, place, (before, *value));
        }
    }
    for value in elements {
        position[*value as usize] = NONE;
    }
}

fn find_unwritten(facts: &mut Facts<'_>, object: u32, list: ListRead, (place, value): (u32, u32)) {
    let aborted = facts.aborted(value).is_some();
    let rule = if aborted { Rule::AbortedRead } else { Rule::Fabricated };
    if !facts.findings.has(rule) {
        let reader = reader_of(facts, object, list, place);
        facts.find_unwritten(reader, value);
    }
}

/// Somebody who read the list up to this place; the first one.
fn reader_of(facts: &Facts<'_>, object: u32, list: ListRead, place: u32) -> u32 {
    let reads = |transaction: &u32| {
        facts.transactions.micro_of(*transaction).iter().any(|micro| match (micro, list) {
            (
                Micro::ReadList { object: read, list: ListRead::Prefix(length) },
                ListRead::Prefix(_),
            ) => *read == object && *length > place,
            (Micro::ReadList { object: read, list: ListRead::Odd(odd) }, ListRead::Odd(wanted)) => {
                *read == object && *odd == wanted
            }
            _ => false,
        })
    };
    facts.order.iter().copied().find(reads).unwrap_or(NONE)
}

fn find_duplicate(facts: &mut Facts<'_>, object: u32, list: ListRead, place: u32, writer: u32) {
    facts.orderly[object as usize] = false;
    if facts.findings.has(Rule::DuplicateElement) {
        return;
    }
    let reader = reader_of(facts, object, list, place);
    let elements = &facts.transactions.elements(object, list)[..=place as usize];
    let found = shown(facts.transactions, elements);
    let (name, text) = facts.named(elements[place as usize]);
    let finding = Finding::new(facts, Rule::DuplicateElement, &[reader, writer], |names| {
        let (reader, writer) = (names.name(reader), names.name(writer));
        format!("{reader} read {name}={found}, where {text} is twice; {writer} appended it once")
    });
    facts.findings.add(finding);
}

/// A transaction's second element without its first one before it.
fn find_reversed(
    facts: &mut Facts<'_>,
    object: u32,
    list: ListRead,
    place: u32,
    (before, value): (u32, u32),
) {
    facts.orderly[object as usize] = false;
    if facts.findings.has(Rule::IncompatibleOrder) {
        return;
    }
    let Some(writer) = facts.source(value) else { return };
    let reader = reader_of(facts, object, list, place);
    let elements = &facts.transactions.elements(object, list)[..=place as usize];
    let found = shown(facts.transactions, elements);
    let (name, second) = facts.named(value);
    let (_, first) = facts.named(before);
    let finding = Finding::new(facts, Rule::IncompatibleOrder, &[reader, writer], |names| {
        let (reader, writer) = (names.name(reader), names.name(writer));
        format!(
            "{reader} read {name}={found}, where {second} has no {first} before it, but {writer} \
             appended {first} and then {second}"
        )
    });
    facts.findings.add(finding);
}

fn find_incompatible(facts: &mut Facts<'_>, object: u32) {
    facts.orderly[object as usize] = false;
    if facts.findings.has(Rule::IncompatibleOrder) {
        return;
    }
    let transactions = facts.transactions;
    let longest = &transactions.objects[object as usize].longest;
    let odd = &transactions.objects[object as usize].odd[0];
    let differ = longest.iter().zip(odd).take_while(|(a, b)| a == b).count();
    let one = reader_of(facts, object, ListRead::Prefix(0), small(differ));
    let other = reader_of(facts, object, ListRead::Odd(0), 0);
    let name = &transactions.objects[object as usize].name;
    let upto = |list: &[u32]| shown(transactions, &list[..=differ]);
    let (one_found, other_found) = (upto(longest), upto(odd));
    let finding = Finding::new(facts, Rule::IncompatibleOrder, &[one, other], |names| {
        let (one, other) = (names.name(one), names.name(other));
        format!(
            "{one} read {name} beginning with {one_found}, and {other} read it beginning with \
             {other_found}; a list only grows at its end"
        )
    });
    facts.findings.add(finding);
}

/// A list, in words.
pub(super) fn shown(transactions: &Transactions, elements: &[u32]) -> String {
    let hidden = elements.len().saturating_sub(ELEMENTS_SHOWN_MAX);
    let mut words: Vec<&str> = Vec::new();
    if hidden > 0 {
        words.push("...");
    }
    words.extend(elements[hidden..].iter().map(|value| transactions.text(*value)));
    format!("[{}]", words.join(" "))
}

/// The version of an object that ends with this element, or that is this value.
pub(super) fn version_shown(facts: &Facts<'_>, value: u32) -> String {
    let object = facts.transactions.object_of(value);
    if !object.is_list {
        return format!("{}={}", object.name, facts.transactions.text(value));
    }
    let length = object.longest.iter().position(|element| *element == value).map_or(0, |at| at + 1);
    format!("{}={}", object.name, shown(facts.transactions, &object.longest[..length]))
}
