//! Replicas in words.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::contract::NodeId;

pub(super) fn names<'a>(replicas: impl IntoIterator<Item = &'a NodeId>) -> String {
    let names: Vec<String> = replicas.into_iter().map(|replica| format!("{replica}")).collect();
    names.join(", ")
}

pub(super) fn are_not_reachable(replicas: &[NodeId]) -> String {
    let verb = if replicas.len() == 1 { "is" } else { "are" };
    format!("{} {verb} not reachable", names(replicas))
}
