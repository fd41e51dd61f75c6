//! All copies hold the same rows.

use std::collections::{BTreeMap, BTreeSet};

use crate::verdict::{Rule, Verdict};

/// Keys named in a verdict; more are only counted.
const KEYS_SHOWN_MAX: usize = 5;

/// Judges copies of the data, each with its name, once nothing is in flight any more.
#[must_use]
pub fn converged<K, V>(copies: &[(String, Vec<(K, V)>)]) -> Verdict
where
    K: Ord + AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    let maps: Vec<BTreeMap<&[u8], &[u8]>> = copies
        .iter()
        .map(|(_, rows)| rows.iter().map(|(k, v)| (k.as_ref(), v.as_ref())).collect())
        .collect();
    let keys: BTreeSet<&[u8]> = maps.iter().flat_map(BTreeMap::keys).copied().collect();
    let differing: Vec<&[u8]> = keys
        .into_iter()
        .filter(|key| maps.windows(2).any(|pair| pair[0].get(key) != pair[1].get(key)))
        .collect();
    if differing.is_empty() {
        return Verdict::Holds;
    }
    let mut words = format!("{} keys are not the same everywhere", differing.len());
    for key in differing.iter().take(KEYS_SHOWN_MAX) {
        let values: Vec<String> = copies
            .iter()
            .zip(&maps)
            .map(|((name, _), map)| format!("{} on {name}", shown(map.get(key).copied())))
            .collect();
        words.push_str(&format!("; {} is {}", String::from_utf8_lossy(key), values.join(", ")));
    }
    Verdict::violated(Rule::Convergence, words, Vec::new())
}

fn shown(value: Option<&[u8]>) -> String {
    value.map_or_else(|| "absent".to_owned(), |value| String::from_utf8_lossy(value).into_owned())
}
