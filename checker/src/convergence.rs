//! All copies hold the same rows.

use std::collections::{BTreeMap, BTreeSet};

use crate::verdict::{Difference, Rule, Verdict};

/// Keys named in a verdict; more are only counted.
const KEYS_SHOWN_MAX: usize = 5;

/// Keys kept with a verdict.
const DIFFERENCES_MAX: usize = 1000;

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
    let mut words = match differing.len() {
        1 => "1 key is not the same everywhere".to_owned(),
        count => format!("{count} keys are not the same everywhere"),
    };
    for key in differing.iter().take(KEYS_SHOWN_MAX) {
        let values: Vec<String> = copies
            .iter()
            .zip(&maps)
            .map(|((name, _), map)| format!("{} on {name}", shown(map.get(key).copied())))
            .collect();
        words.push_str(&format!("; {} is {}", String::from_utf8_lossy(key), values.join(", ")));
    }
    let names = copies.iter().map(|(name, _)| name.as_str());
    let differences = differing
        .iter()
        .take(DIFFERENCES_MAX)
        .map(|key| Difference {
            key: String::from_utf8_lossy(key).into_owned(),
            values: names
                .clone()
                .zip(&maps)
                .map(|(name, map)| (name.to_owned(), map.get(key).copied().map(text)))
                .collect(),
        })
        .collect();
    Verdict::violated(Rule::Convergence, words, Vec::new()).with_differences(differences)
}

fn shown(value: Option<&[u8]>) -> String {
    value.map_or_else(|| "absent".to_owned(), text)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
