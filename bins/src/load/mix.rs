//! What a load asks, in which proportions.

use std::fmt;
use std::str::FromStr;

use kvorum_replication::random::Random;

/// A sort of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Put,
    Get,
    Delete,
    CompareAndSet,
    Transact,
    Scan,
    ReadModifyWrite,
}

impl Sort {
    const ALL: [Self; 7] = [
        Self::Put,
        Self::Get,
        Self::Delete,
        Self::CompareAndSet,
        Self::Transact,
        Self::Scan,
        Self::ReadModifyWrite,
    ];

    /// As in a mix and in the history format.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Delete => "del",
            Self::CompareAndSet => "cas",
            Self::Transact => "txn",
            Self::Scan => "scan",
            Self::ReadModifyWrite => "rmw",
        }
    }
}

/// Sorts of operations and their weights: `put`, or `put=1,get=9`, out of
///
/// | name | what it asks |
/// |---|---|
/// | `put`, `get`, `del` | of one key |
/// | `cas` | a key set if it has the value that its worker last saw |
/// | `txn` | several keys set at once |
/// | `scan` | the rows from a key on |
/// | `rmw` | a key read, and set if it still has that value; from the beginning if it has not |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    weights: [u32; Sort::ALL.len()],
}

impl Mix {
    /// Nothing but puts.
    pub const PUTS: Self = Self { weights: [1, 0, 0, 0, 0, 0, 0] };

    /// Whether anything reads, so that there must be something to read.
    pub(super) fn reads(&self) -> bool {
        [Sort::Get, Sort::Scan, Sort::ReadModifyWrite].iter().any(|sort| self.weight(*sort) > 0)
    }

    /// Whether anything writes.
    pub(super) fn writes(&self) -> bool {
        let reads = [Sort::Get, Sort::Scan].map(|sort| u64::from(self.weight(sort)));
        self.total() > reads.iter().sum::<u64>()
    }

    /// Whether anything compares values, so that no two may be the same.
    pub(super) fn compares(&self) -> bool {
        [Sort::CompareAndSet, Sort::ReadModifyWrite].iter().any(|sort| self.weight(*sort) > 0)
    }

    /// Whether it is of use on keys that nobody uses twice: it only puts, one key or several.
    #[must_use]
    pub fn is_only_puts(&self) -> bool {
        let puts = [Sort::Put, Sort::Transact].map(|sort| u64::from(self.weight(sort)));
        self.total() == puts.iter().sum::<u64>()
    }

    /// Whether it has transactions of several keys.
    #[must_use]
    pub fn transacts(&self) -> bool {
        self.weight(Sort::Transact) > 0
    }

    /// Whether it has scans.
    #[must_use]
    pub fn scans(&self) -> bool {
        self.weight(Sort::Scan) > 0
    }

    pub(super) fn choose(&self, random: &mut Random) -> Sort {
        let mut ticket = random.below(self.total());
        for sort in Sort::ALL {
            let weight = u64::from(self.weight(sort));
            if ticket < weight {
                return sort;
            }
            ticket -= weight;
        }
        unreachable!("the ticket is below the sum of the weights")
    }

    fn weight(&self, sort: Sort) -> u32 {
        self.weights[sort as usize]
    }

    fn total(&self) -> u64 {
        self.weights.iter().map(|&weight| u64::from(weight)).sum()
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut mix = Self { weights: [0; Sort::ALL.len()] };
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let sort = Sort::ALL.into_iter().find(|sort| sort.name() == name);
            let sort = sort.ok_or_else(|| {
                format!("`{name}` is none of {}", Sort::ALL.map(Sort::name).join(", "))
            })?;
            let weight = weight.parse().map_err(|_| format!("`{weight}` is no whole number"))?;
            mix.weights[sort as usize] = weight;
        }
        if mix.total() == 0 {
            return Err("all weights are zero".to_owned());
        }
        Ok(mix)
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = Sort::ALL.into_iter().filter(|&sort| self.weight(sort) > 0);
        let parts: Vec<_> = match used.clone().count() {
            1 => used.map(|sort| sort.name().to_owned()).collect(),
            _ => used.map(|sort| format!("{}={}", sort.name(), self.weight(sort))).collect(),
        };
        f.write_str(&parts.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_are_read_and_printed() {
        let cases = [
            ("put", Ok("put")),
            ("get=7", Ok("get")),
            ("put,get", Ok("put=1,get=1")),
            ("get=95,put=5", Ok("put=5,get=95")),
            ("put=1,get=2,del=3,cas=4", Ok("put=1,get=2,del=3,cas=4")),
            ("txn=1,scan=0,rmw=2", Ok("txn=1,rmw=2")),
            ("", Err("`` is none of put, get, del, cas, txn, scan, rmw")),
            ("set", Err("`set` is none of put, get, del, cas, txn, scan, rmw")),
            ("put=x", Err("`x` is no whole number")),
            ("put=-1", Err("`-1` is no whole number")),
            ("put=0", Err("all weights are zero")),
        ];
        for (text, expected) in cases {
            let mix = text.parse::<Mix>().map(|mix| mix.to_string());
            assert_eq!(mix, expected.map(str::to_owned).map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn each_sort_comes_as_often_as_it_weighs() {
        let mix: Mix = "put=1,get=2,cas=7".parse().unwrap();
        let mut random = Random::new(7);
        let mut seen = [0_u32; Sort::ALL.len()];
        for _ in 0..10_000 {
            seen[mix.choose(&mut random) as usize] += 1;
        }
        for (seen, expected) in seen.into_iter().zip([1_000, 2_000, 0, 7_000, 0, 0, 0]) {
            assert!(seen.abs_diff(expected) <= expected / 10, "{seen} of about {expected}");
        }
    }
}
